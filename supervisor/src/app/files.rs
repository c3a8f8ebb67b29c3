//! The supervisor's files in its sandbox's directory (docs/ARCHITECTURE.md).

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::{
        fd::{AsFd, BorrowedFd},
        unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _},
    },
    path::{Path, PathBuf},
};

use rustix::fs::{FlockOperation, flock};
use serde_json::json;

use crate::{limits::session::LAST_WORDS_BYTES, sandbox::Fatal};

/// Exclusive while a supervisor, or its guardian, lives.
#[derive(Debug)]
pub(super) struct Lock {
    file: File,
}

#[derive(Debug, thiserror::Error)]
pub(super) enum LockError {
    #[error("{0} is locked: another supervisor has this sandbox")]
    Held(PathBuf),
    #[error("{path} cannot be locked: {source}")]
    Io { path: PathBuf, source: io::Error },
}

impl AsFd for Lock {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl Lock {
    pub(super) fn take(directory: &Path) -> Result<Self, LockError> {
        let path = directory.join("lock");
        let open = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(&path);
        let file = open.map_err(|source| LockError::Io { path: path.clone(), source })?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self { file }),
            Err(rustix::io::Errno::WOULDBLOCK) => Err(LockError::Held(path)),
            Err(error) => Err(LockError::Io { path, source: error.into() }),
        }
    }
}

/// This program, as `openshell-sandbox` in another directory: whole or not at all.
pub(super) fn install(directory: &Path) -> io::Result<()> {
    let (place, fresh) = (directory.join("openshell-sandbox"), directory.join(".openshell-sandbox.new"));
    fs::copy("/proc/self/exe", &fresh)?;
    fs::set_permissions(&fresh, fs::Permissions::from_mode(0o755))?;
    fs::rename(fresh, place)
}

/// `supervisor.json`: whom to signal. The guardian passes it on.
pub(super) fn write_supervisor(directory: &Path, guardian: u32, instance: &str) -> io::Result<()> {
    let start_time = start_time(guardian)?;
    replace(&directory.join("supervisor.json"), &json!({ "pid": guardian, "start_time": start_time, "instance": instance }))
}

/// `failure.json`: why it ended.
pub(super) fn write_failure(directory: &Path, fatal: &Fatal) {
    let record = json!({ "code": fatal.code, "message": fatal.message, "time": jiff::Timestamp::now().to_string() });
    if let Err(error) = replace(&directory.join("failure.json"), &record) {
        tracing::error!(%error, "failure.json was not written");
    }
}

/// Why it ended, for whoever looks at the pod: the kubelet reads this file when the container has ended, and nothing else of
/// the pod is left then. The file is the kubelet's: where there is none, none is made.
pub(super) fn write_last_words(place: &Path, code: &str, message: &str) {
    let write = || {
        if !fs::symlink_metadata(place)?.is_file() {
            return Err(io::Error::other("it is no file"));
        }
        OpenOptions::new().write(true).truncate(true).open(place)?.write_all(last_words(code, message).as_bytes())
    };
    if let Err(error) = write() {
        tracing::warn!(place = %place.display(), %error, "the pod's status will not say why it ended; its log does");
    }
}

/// As much of it as the kubelet keeps.
fn last_words(code: &str, message: &str) -> String {
    let mut message = message;
    loop {
        let words = json!({ "code": code, "message": message }).to_string();
        let excess = words.len().saturating_sub(LAST_WORDS_BYTES);
        if excess == 0 || message.is_empty() {
            return words;
        }
        // What is escaped is longer there than here, so this may take more than one attempt, and never cuts too little at the last.
        message = &message[..message.floor_char_boundary(message.len().saturating_sub(excess.div_ceil(6)))];
    }
}

/// The directory with the certificates, which the agent can read.
pub(super) fn trust_directory(directory: &Path) -> io::Result<PathBuf> {
    let path = directory.join("trust");
    match fs::DirBuilder::new().mode(0o755).create(&path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    // The mode given is subject to the umask.
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
    Ok(path)
}

/// Clock ticks since boot, field 22 of `/proc/<pid>/stat`; the name in it may hold anything.
fn start_time(pid: u32) -> io::Result<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let field = stat.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().nth(19)?.parse().ok());
    field.ok_or_else(|| io::Error::other("/proc has no start time"))
}

/// A reader sees the old file or the new one.
fn replace(path: &Path, record: &serde_json::Value) -> io::Result<()> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".new");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
    writeln!(file, "{record}")?;
    drop(file);
    fs::rename(temporary, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_one_supervisor_per_directory() {
        let dir = tempfile::tempdir().unwrap();
        let lock = Lock::take(dir.path()).unwrap();
        assert!(matches!(Lock::take(dir.path()), Err(LockError::Held(_))));
        drop(lock);
        Lock::take(dir.path()).unwrap();
        assert!(matches!(Lock::take(&dir.path().join("absent")), Err(LockError::Io { .. })));
    }

    #[test]
    fn installs_this_program() {
        let dir = tempfile::tempdir().unwrap();
        install(dir.path()).unwrap();
        let installed = dir.path().join("openshell-sandbox");
        assert_eq!(fs::metadata(&installed).unwrap().permissions().mode() & 0o777, 0o755);
        assert_eq!(fs::read(installed).unwrap(), fs::read("/proc/self/exe").unwrap());
        assert!(install(&dir.path().join("absent")).is_err());
    }

    #[test]
    fn last_words_are_the_kubelets_file_and_fit_into_it() {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().join("termination-log");
        write_last_words(&place, "Internal", "nobody hears it");
        assert!(!place.exists(), "outside of a pod nothing is made");

        fs::write(&place, "something longer than the words that are written over it, by whoever was here before").unwrap();
        write_last_words(&place, "LandlockRequired", "the policy demands it");
        let read = || -> serde_json::Value { serde_json::from_slice(&fs::read(&place).unwrap()).unwrap() };
        assert_eq!(read(), json!({ "code": "LandlockRequired", "message": "the policy demands it" }));

        for long in ["x".repeat(9000), "\u{1}\"é".repeat(3000), "é".repeat(2040)] {
            write_last_words(&place, "Internal", &long);
            let size = fs::metadata(&place).unwrap().len();
            assert!((4000..=4096).contains(&size), "{size}");
            let kept = read()["message"].as_str().unwrap().to_owned();
            assert!(!kept.is_empty() && long.starts_with(&kept));
        }

        let elsewhere = dir.path().join("elsewhere");
        fs::write(&elsewhere, "kept").unwrap();
        fs::remove_file(&place).unwrap();
        std::os::unix::fs::symlink(&elsewhere, &place).unwrap();
        write_last_words(&place, "Internal", "not there");
        write_last_words(Path::new("/dev/null"), "Internal", "nor to a device");
        assert_eq!(fs::read_to_string(&elsewhere).unwrap(), "kept");
    }

    #[test]
    fn says_whom_to_signal() {
        let dir = tempfile::tempdir().unwrap();
        write_supervisor(dir.path(), std::process::id(), "i").unwrap();
        let record: serde_json::Value = serde_json::from_slice(&fs::read(dir.path().join("supervisor.json")).unwrap()).unwrap();
        assert_eq!(record["pid"], std::process::id());
        assert!(record["start_time"].as_u64().unwrap() > 0);
    }
}
