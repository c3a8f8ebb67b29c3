//! The small files of a sandbox's directory, and the one way to read and write them.
//!
//! Writing is atomic (a new file takes the old one's place), reading is bounded and never
//! follows a symbolic link in the last component. What cannot be read as what it should be is
//! taken as not there: these files say what to expect, the kernel says what is.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::limits;

/// The driver's own notes.
pub(super) const DRIVER: &str = "driver.json";
/// The supervisor's identity, written by the supervisor.
pub(super) const SUPERVISOR: &str = "supervisor.json";
/// The last failure, written by the supervisor, or by the driver in its place.
pub(super) const FAILURE: &str = "failure.json";
/// Marks a sandbox that was asked to stop.
pub(super) const SUSPENDED: &str = "suspended";

/// What the driver notes before and after it starts a supervisor.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct DriverRecord {
    /// Always 1.
    pub(super) version: u32,
    /// Name of the sandbox, for people.
    pub(super) name: String,
    /// Who the agent runs as, when the driver is root.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) run_as: Option<RunAs>,
    /// Boot in which `process` was started.
    pub(super) boot_id: String,
    /// The process that was started. Absent until it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) process: Option<ProcessId>,
}

/// Uid and gid of a sandbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct RunAs {
    pub(super) uid: u32,
    pub(super) gid: u32,
}

/// A process, safe against reuse of its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ProcessId {
    /// Process id.
    pub(super) pid: i32,
    /// Field 22 of `/proc/<pid>/stat`: clock ticks since boot.
    pub(super) start_time: u64,
}

/// What a supervisor says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(super) struct SupervisorRecord {
    /// The supervisor's process.
    #[serde(flatten)]
    pub(super) process: ProcessId,
    /// Instance id that its session carries.
    pub(super) instance: String,
}

/// A failure that stays until someone does something.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct FailureRecord {
    /// Stable, CamelCase.
    pub(super) code: String,
    /// For people.
    pub(super) message: String,
    /// When.
    pub(super) time: Timestamp,
}

/// Reads a record; `None` if there is none that can be read.
pub(super) fn read<T: DeserializeOwned>(directory: &Path, name: &str) -> Option<T> {
    let file = OpenOptions::new().read(true).custom_flags(nofollow_nonblock()).open(directory.join(name)).ok()?;
    if !file.metadata().ok()?.is_file() {
        return None;
    }
    let mut bytes = Vec::new();
    file.take(limits::RECORD_FILE).read_to_end(&mut bytes).ok()?;
    serde_json::from_slice(&bytes).ok()
}

/// Writes a record in the place of the one before.
pub(super) fn write<T: Serialize>(directory: &Path, name: &str, record: &T) -> io::Result<()> {
    let mut bytes = serde_json::to_vec(record)?;
    bytes.push(b'\n');
    // A name of its own: what two write at once is one of the two.
    let fresh = directory.join(format!(".{name}.{}", uuid::Uuid::new_v4().simple()));
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).custom_flags(nofollow_nonblock()).open(&fresh)?;
    let written = file.write_all(&bytes).and_then(|()| std::fs::rename(&fresh, directory.join(name)));
    if written.is_err() {
        let _ = remove(&fresh);
    }
    written
}

/// Makes an empty marker file.
pub(super) fn mark(directory: &Path, name: &str) -> io::Result<()> {
    OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(nofollow_nonblock())
        .open(directory.join(name))
        .map(drop)
}

/// Whether the file is there, whatever it is.
pub(super) fn exists(directory: &Path, name: &str) -> bool {
    std::fs::symlink_metadata(directory.join(name)).is_ok()
}

/// Removes a file; it is fine if there is none.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Opens the lock file of a sandbox, making it if need be.
pub(super) fn open_lock(directory: &Path) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(nofollow_nonblock())
        .open(directory.join("lock"))
}

/// Neither follow a link nor wait for the other end of a FIFO.
fn nofollow_nonblock() -> i32 {
    (rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK).bits() as i32
}
