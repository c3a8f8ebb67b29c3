//! The directories of a gateway, the lock on them, and how a file is written.
//!
//! Everything is private to the user who runs the gateway (directories 0700, files 0600). A file
//! is written beside its place, synchronised and renamed, so that at any moment there is either
//! the old file or the new one, whole.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

/// Permissions of group and others.
const OTHERS: u32 = 0o077;

/// Where a gateway keeps what it knows (`docs/ARCHITECTURE.md`, "State on disk").
#[derive(Clone, Debug)]
pub struct Directories {
    state: PathBuf,
    config: PathBuf,
    tls: PathBuf,
}

/// Why the state is of no use.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// It cannot be made, read or written.
    #[error("cannot {action} {path}: {source}")]
    Io {
        /// `create`, `read`, ...
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It belongs to another user, or others may write to it.
    #[error("{path} is not private: {reason}")]
    NotPrivate {
        /// The directory.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// A gateway runs on it.
    #[error("another gateway (process {holder}) runs on {path}")]
    Locked {
        /// The state directory.
        path: PathBuf,
        /// Its process id, or `unknown`.
        holder: String,
    },
}

impl StateError {
    fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { action, path, source }
    }
}

impl Directories {
    /// `state` and `config` are the `openshell` directories below the XDG ones; `tls` stands
    /// beside the state unless it is given.
    pub fn new(state: PathBuf, config: PathBuf, tls: Option<PathBuf>) -> Self {
        let tls = tls.unwrap_or_else(|| state.join("tls"));
        Self { state, config, tls }
    }

    /// Everything of ours below the XDG state directory.
    pub fn state(&self) -> &Path {
        &self.state
    }

    /// Everything of ours below the XDG configuration directory.
    pub fn config(&self) -> &Path {
        &self.config
    }

    /// The database, its key and the lock.
    pub fn gateway(&self) -> PathBuf {
        self.state.join("gateway")
    }

    /// Certificates and keys.
    pub fn tls(&self) -> &Path {
        &self.tls
    }

    /// One directory per sandbox; the driver makes it and sets its permissions.
    pub fn sandboxes(&self) -> PathBuf {
        self.state.join("sandboxes")
    }

    /// Paths that no policy may grant: whoever reads them is the gateway.
    pub fn protected(&self) -> Vec<PathBuf> {
        let mut paths = vec![self.state.clone(), self.config.clone()];
        if !self.tls.starts_with(&self.state) {
            paths.push(self.tls.clone());
        }
        paths
    }

    /// Makes the directories that are not there and refuses those that others may change.
    pub fn prepare(&self) -> Result<(), StateError> {
        for path in [self.state.as_path(), &self.gateway(), &self.tls, &self.config] {
            private_directory(path)?;
        }
        Ok(())
    }
}

/// Makes a directory that is private to this user, or checks one that is there.
pub fn private_directory(path: &Path) -> Result<(), StateError> {
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(StateError::io("create", path))?;
    let found = fs::metadata(path).map_err(StateError::io("read", path))?;
    let me = rustix::process::geteuid().as_raw();
    if found.uid() != me {
        return Err(StateError::NotPrivate {
            path: path.to_owned(),
            reason: format!("it belongs to user {}, and the gateway runs as user {me}", found.uid()),
        });
    }
    if found.mode() & OTHERS != 0 {
        fs::set_permissions(path, fs::Permissions::from_mode(0o700)).map_err(StateError::io("set the permissions of", path))?;
    }
    // Known to be readable and writable before anything depends on it.
    rustix::fs::access(path, rustix::fs::Access::READ_OK | rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK)
        .map_err(|e| StateError::Io { action: "use", path: path.to_owned(), source: e.into() })
}

/// Puts `bytes` at `path`, wholly or not at all, readable by this user only.
pub fn write_private(path: &Path, bytes: &[u8]) -> Result<(), StateError> {
    let directory = path.parent().unwrap_or_else(|| Path::new("/"));
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let temporary = directory.join(format!(".{name}.{:08x}.tmp", rand::random::<u32>()));
    let written = (|| {
        let mut file =
            OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary).map_err(StateError::io("create", &temporary))?;
        file.write_all(bytes).map_err(StateError::io("write", &temporary))?;
        file.sync_all().map_err(StateError::io("write", &temporary))?;
        fs::rename(&temporary, path).map_err(StateError::io("write", path))?;
        File::open(directory).and_then(|d| d.sync_all()).map_err(StateError::io("write", directory))
    })();
    if written.is_err() {
        // What is left of it is of no use to anyone; the error that counts is the first one.
        let _ = fs::remove_file(&temporary);
    }
    written
}

/// Like [`write_private`], but leaves a file alone that already holds these bytes privately.
pub fn keep_private(path: &Path, bytes: &[u8]) -> Result<(), StateError> {
    let unchanged = fs::metadata(path).is_ok_and(|m| m.mode() & OTHERS == 0) && fs::read(path).is_ok_and(|old| old == bytes);
    if unchanged { Ok(()) } else { write_private(path, bytes) }
}

/// Reads a text file; `None` when there is none.
pub fn read_text(path: &Path) -> Result<Option<String>, StateError> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(StateError::io("read", path)(e)),
    }
}

/// The state directory is ours as long as this lives.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

impl Lock {
    /// Takes the lock, or names the process that holds it.
    pub fn take(directories: &Directories) -> Result<Self, StateError> {
        let path = directories.gateway().join("lock");
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(StateError::io("open", &path))?;
        match rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                let mut holder = String::new();
                let _ = file.read_to_string(&mut holder);
                let holder = holder.trim();
                let holder = if holder.is_empty() { "unknown".to_owned() } else { holder.to_owned() };
                return Err(StateError::Locked { path: directories.gateway(), holder });
            }
            Err(e) => return Err(StateError::Io { action: "lock", path, source: e.into() }),
        }
        // For people and for the error above; the lock itself is the kernel's.
        file.set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| writeln!(file, "{}", std::process::id()))
            .map_err(StateError::io("write", &path))?;
        Ok(Self { _file: file })
    }
}

#[cfg(test)]
mod tests;
