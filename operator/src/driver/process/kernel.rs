//! What the kernel says of processes and locks.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::OnceLock;

use rustix::process::{Pid, PidfdFlags, Signal};

use super::record::{self, ProcessId};
use crate::lock::FileLock;

/// Identifies this boot of the machine; empty where the kernel does not say.
pub(super) fn boot_id() -> &'static str {
    static ID: OnceLock<String> = OnceLock::new();
    ID.get_or_init(|| std::fs::read_to_string("/proc/sys/kernel/random/boot_id").map(|id| id.trim().to_owned()).unwrap_or_default())
}

/// Start time of a process that has not ended (a zombie has), in ticks since boot.
/// `/proc/<pid>/stat`: proc_pid_stat(5); the name in parentheses may hold anything.
pub(super) fn start_time(pid: i32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
    let state = fields.next()?;
    if matches!(state, "Z" | "X" | "x") {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

/// Parent of a process: the field after its state.
fn parent(pid: u32) -> Option<i32> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')')?.1.split_ascii_whitespace().nth(1)?.parse().ok()
}

impl ProcessId {
    /// Names a process that runs now.
    pub(super) fn of(pid: u32) -> Option<Self> {
        let pid = i32::try_from(pid).ok()?;
        Some(Self { pid, start_time: start_time(pid)? })
    }

    /// Whether this very process still runs.
    pub(super) fn alive(self) -> bool {
        start_time(self.pid) == Some(self.start_time)
    }

    /// A descriptor of this very process, if it still runs.
    pub(super) fn open(self) -> Option<OwnedFd> {
        let pidfd = rustix::process::pidfd_open(Pid::from_raw(self.pid)?, PidfdFlags::NONBLOCK).ok()?;
        // The number may have been reused before the descriptor was made, not after.
        self.alive().then_some(pidfd)
    }

    /// The processes that have this one as their parent now.
    pub(super) fn children(self) -> Vec<Self> {
        let Ok(processes) = std::fs::read_dir("/proc") else { return Vec::new() };
        processes
            .flatten()
            .filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok())
            .filter(|pid| parent(*pid) == Some(self.pid))
            .filter_map(Self::of)
            .collect()
    }

    /// Sends a signal to this very process; false if it is gone.
    pub(super) fn signal(self, signal: Signal) -> bool {
        self.open().is_some_and(|pidfd| rustix::process::pidfd_send_signal(&pidfd, signal).is_ok())
    }
}

/// Whether a sandbox's lock is held. It is held while any of its supervisor, guardian or
/// starting processes lives.
pub(super) fn lock_held(directory: &Path) -> io::Result<bool> {
    if !record::exists(directory, "lock") {
        return Ok(false);
    }
    Ok(try_lock(directory)?.is_none())
}

/// Takes a sandbox's lock; `None` if someone holds it.
pub(super) fn try_lock(directory: &Path) -> io::Result<Option<FileLock>> {
    FileLock::try_take(record::open_lock(directory)?)
}
