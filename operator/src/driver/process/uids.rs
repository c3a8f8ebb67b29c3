//! The uids of sandboxes, when the driver runs as root.
//!
//! A uid belongs to a sandbox from the first start until nothing of its directory is left, so
//! that no sandbox ever finds files of another that it may read. The directory records it.

use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use super::config::UidRange;
use super::record::{self, DriverRecord, RunAs};
use crate::driver::DriverError;

/// Uids in use.
#[derive(Debug)]
pub(super) struct Uids {
    range: UidRange,
    used: BTreeSet<u32>,
}

impl Uids {
    /// Uids of the directories that are there, removed ones included.
    pub(super) fn scan<'a>(range: UidRange, directories: impl Iterator<Item = &'a Path>) -> Self {
        Self { range, used: directories.filter_map(recorded).map(|run_as| run_as.uid).collect() }
    }

    /// The uid of a sandbox: its recorded one, or the lowest unused one.
    pub(super) fn assign(&mut self, directory: &Path) -> Result<RunAs, DriverError> {
        let end = self.range.first.saturating_add(self.range.count);
        if let Some(own) = recorded(directory).filter(|own| (self.range.first..end).contains(&own.uid)) {
            self.used.insert(own.uid);
            return Ok(own);
        }
        let free = (self.range.first..end).find(|uid| !self.used.contains(uid)).ok_or_else(|| {
            DriverError::later(
                "UidsExhausted",
                format!("all {} uids from {} belong to sandboxes; delete one, or widen the range", self.range.count, self.range.first),
            )
        })?;
        self.used.insert(free);
        Ok(RunAs { uid: free, gid: free })
    }

    /// Gives a uid back: nothing of its sandbox is left.
    pub(super) fn release(&mut self, uid: u32) {
        self.used.remove(&uid);
    }
}

/// The uid that a directory belongs to: as noted, or, if the note was lost, as its workspace is owned.
pub(super) fn recorded(directory: &Path) -> Option<RunAs> {
    if let Some(run_as) = record::read::<DriverRecord>(directory, record::DRIVER).and_then(|notes| notes.run_as) {
        return Some(run_as);
    }
    let workspace = std::fs::symlink_metadata(directory.join("workspace")).ok()?;
    (workspace.uid() != 0).then(|| RunAs { uid: workspace.uid(), gid: workspace.gid() })
}
