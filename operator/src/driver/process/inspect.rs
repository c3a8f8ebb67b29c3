//! What there is of a sandbox: its files, its processes, its lock, put together.
//!
//! | Processes | Lock | Files | State |
//! |---|---|---|---|
//! | supervisor | – | no mark | `Running` |
//! | supervisor | – | mark `suspended` | `Stopping` |
//! | only the started one | – | no `supervisor.json`, no mark | `Starting` |
//! | only the started one | – | otherwise | `Stopping` (its guardian clears up) |
//! | our child, not reaped yet | – | as for the started one | as for the started one |
//! | none | free | mark `suspended` | `Suspended` |
//! | none | free | `failure.json` | `Failed` |
//! | none | free | started in this boot | `Failed`, and written down as such |
//! | none | free | otherwise | `Absent` |
//!
//! The lock is looked at only when no process is known: looking takes it for an instant, and a
//! supervisor that starts in that instant would give up.

use std::io;
use std::path::Path;

use jiff::Timestamp;

use super::kernel;
use super::record::{self, DriverRecord, FailureRecord, ProcessId, SupervisorRecord};
use crate::driver::WorkloadState;

/// What was found.
#[derive(Debug)]
pub(super) struct Found {
    /// The state.
    pub(super) state: WorkloadState,
    /// The process that was started, if it lives: the guardian, or the supervisor before it has one.
    pub(super) started: Option<ProcessId>,
    /// The process that the supervisor names for itself, if it lives: itself or its guardian.
    pub(super) supervisor: Option<ProcessId>,
}

/// Looks at a sandbox's directory. `unreaped` says that what was started is our child and has not
/// been waited for: it may be a zombie whose last thread is just ending, and how it ended is told
/// by its status, which is soon to be had.
pub(super) fn inspect(directory: &Path, unreaped: bool) -> io::Result<Found> {
    let quiet = |state| Found { state, started: None, supervisor: None };
    match std::fs::symlink_metadata(directory) {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(quiet(WorkloadState::Absent)),
        Err(error) => return Err(error),
    }
    let marked = record::exists(directory, record::SUSPENDED);
    let notes: Option<DriverRecord> = record::read(directory, record::DRIVER);
    let this_boot = notes.as_ref().is_none_or(|notes| notes.boot_id == kernel::boot_id());
    let identity: Option<SupervisorRecord> = record::read(directory, record::SUPERVISOR);
    let began = notes.as_ref().is_some_and(|notes| notes.process.is_some()) || identity.is_some();

    let living = |process: Option<ProcessId>| process.filter(|process| this_boot && process.alive());
    let supervisor = living(identity.as_ref().map(|identity| identity.process));
    let started = living(notes.as_ref().and_then(|notes| notes.process));

    if let (Some(process), Some(identity)) = (supervisor, &identity) {
        let state = if marked {
            WorkloadState::Stopping
        } else {
            WorkloadState::Running { id: process.pid.to_string(), instance: Some(identity.instance.clone()), since: None }
        };
        return Ok(Found { state, started, supervisor });
    }
    if started.is_some() || unreaped || kernel::lock_held(directory)? {
        let state = if marked || identity.is_some() { WorkloadState::Stopping } else { WorkloadState::Starting { waiting: None } };
        return Ok(Found { state, started, supervisor: None });
    }
    if marked {
        return Ok(quiet(WorkloadState::Suspended));
    }
    // Asked first: one that is written down in this instant is read, or not there yet.
    let said = record::exists(directory, record::FAILURE);
    if let Some(failure) = record::read::<FailureRecord>(directory, record::FAILURE) {
        return Ok(quiet(failure.into()));
    }
    if said {
        return Ok(quiet(failed("SupervisorFailed", "the supervisor failed and its failure.json cannot be read", directory)?));
    }
    if began && this_boot {
        return Ok(quiet(failed(
            "SupervisorDied",
            "the supervisor ended without saying why; every process of the sandbox was ended with it",
            directory,
        )?));
    }
    Ok(quiet(WorkloadState::Absent))
}

/// Writes a failure down, so that it is the same whenever it is asked for.
pub(super) fn failed(code: &str, message: &str, directory: &Path) -> io::Result<WorkloadState> {
    let failure = FailureRecord {
        code: code.to_owned(),
        message: format!("{message} (log: {})", directory.join("supervisor.log").display()),
        time: Timestamp::now(),
    };
    record::write(directory, record::FAILURE, &failure)?;
    Ok(failure.into())
}

impl From<FailureRecord> for WorkloadState {
    fn from(failure: FailureRecord) -> Self {
        Self::Failed { code: failure.code, message: failure.message, at: failure.time }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_child_is_not_judged_before_its_status_is_known() {
        let directory = tempfile::tempdir().unwrap();
        let gone = ProcessId { pid: i32::MAX, start_time: 1 };
        let notes =
            DriverRecord { version: 1, name: "demo".to_owned(), run_as: None, boot_id: kernel::boot_id().to_owned(), process: Some(gone) };
        record::write(directory.path(), record::DRIVER, &notes).unwrap();

        assert_eq!(inspect(directory.path(), true).unwrap().state, WorkloadState::Starting { waiting: None });
        assert!(!record::exists(directory.path(), record::FAILURE), "a failure was written down without its reason");

        let WorkloadState::Failed { code, .. } = inspect(directory.path(), false).unwrap().state else { panic!("not failed") };
        assert_eq!(code, "SupervisorDied");
    }
}
