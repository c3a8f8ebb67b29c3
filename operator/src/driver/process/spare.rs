//! A supervisor that runs already, in a directory that is made already, and waits for a sandbox.
//!
//! Executing a supervisor, its forks, its namespaces and its files are more than half of the time that a
//! sandbox takes to start, and the same for all of them. One is kept ready; where there is none, it is
//! started when it is needed. It waits for its bootstrap on a pipe: when the gateway ends, however
//! it does, the pipe is closed and the spare supervisor goes.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::fs::{CWD, RenameFlags};
use rustix::io::Errno;
use rustix::pipe::PipeFlags;

use super::config::ProcessDriverConfig;
use super::record::{self, ProcessId};
use crate::driver::DriverError;
use crate::limits;

/// Variables of our own environment that a supervisor gets; `XDG_*` besides.
const INHERITED: [&str; 9] =
    ["PATH", "HOME", "LANG", "TZ", "SSL_CERT_FILE", "SSL_CERT_DIR", "RUST_LOG", "RUST_BACKTRACE", "OPENSHELL_ABLATE"];
/// How the name of a directory begins that is no sandbox's yet.
const PREFIX: &str = ".spare-";
/// Where a supervisor's standard output and error go.
const LOG: &str = "supervisor.log";
/// The agent's working directory.
pub(super) const WORKSPACE: &str = "workspace";
/// Directories of the agent's own: besides that its `/tmp`.
pub(super) const AGENTS: [&str; 2] = [WORKSPACE, "tmp"];
/// The log of the run before.
const LOG_BEFORE: &str = "supervisor.log.1";

/// A supervisor without a sandbox.
pub(super) struct Spare {
    child: Option<Child>,
    process: ProcessId,
    bootstrap: File,
    /// Ours until it becomes the sandbox's.
    directory: Option<PathBuf>,
}

impl Spare {
    /// Starts one.
    pub(super) fn start(config: &ProcessDriverConfig) -> Result<Self, DriverError> {
        let directory = config.state_dir.join(format!("{PREFIX}{}", uuid::Uuid::new_v4().simple()));
        let started = Self::start_in(config, &directory);
        if started.is_err() {
            let _ = fs::remove_dir_all(&directory);
        }
        started
    }

    fn start_in(config: &ProcessDriverConfig, directory: &Path) -> Result<Self, DriverError> {
        let broken = |error: io::Error| {
            let place = directory.display();
            DriverError::later("DirectoryUnusable", format!("{place}: the directory cannot be made: {error}; free some space"))
        };
        make_directories(directory).and_then(|()| record::open_lock(directory)).map_err(broken)?;
        let log = OpenOptions::new().append(true).create_new(true).mode(0o600).open(directory.join(LOG)).map_err(broken)?;
        let log_too = log.try_clone().map_err(broken)?;
        let (input, bootstrap) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC).map_err(|error| broken(error.into()))?;
        let inherited =
            std::env::vars_os().filter(|(name, _)| name.to_str().is_some_and(|name| INHERITED.contains(&name) || name.starts_with("XDG_")));
        let child = Command::new(&config.supervisor)
            .arg("supervise")
            .arg(directory)
            .env_clear()
            .envs(inherited)
            .envs(config.environment.iter().map(|(name, value)| (name, value)))
            .current_dir("/")
            .stdin(Stdio::from(input))
            .stdout(log)
            .stderr(log_too)
            .spawn()
            .map_err(|error| spawn_error(&config.supervisor, &error))?;
        // A child that has ended already is a zombie until it is reaped; its start time can be
        // read, but it does not count as alive, and the watch on it finds out how it ended.
        let process = ProcessId::of(child.id()).unwrap_or(ProcessId { pid: child.id() as i32, start_time: 0 });
        Ok(Self { child: Some(child), process, bootstrap: File::from(bootstrap), directory: Some(directory.to_owned()) })
    }

    /// Whether it still waits.
    pub(super) fn waits(&mut self) -> bool {
        matches!(self.child.as_mut().map(Child::try_wait), Some(Ok(None)))
    }

    /// Makes its directory the sandbox's, where there is none yet.
    pub(super) fn settle(&mut self, directory: &Path) -> io::Result<()> {
        let Some(own) = &self.directory else { return Ok(()) };
        match rustix::fs::renameat_with(CWD, own, CWD, directory, RenameFlags::NOREPLACE) {
            Ok(()) => self.directory = None,
            Err(Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    /// Moves its log to the sandbox that has a directory from a run before. To be called with the
    /// sandbox's lock held.
    pub(super) fn bring_log(&self, directory: &Path) -> io::Result<()> {
        let Some(own) = &self.directory else { return Ok(()) };
        let log = directory.join(LOG);
        match fs::rename(&log, directory.join(LOG_BEFORE)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => fs::rename(own.join(LOG), log),
        }
    }

    /// Gives it a sandbox. From here on it depends on us for nothing.
    pub(super) fn bind(mut self, bootstrap: &[u8]) -> io::Result<(Child, ProcessId)> {
        if bootstrap.len() > limits::PIPE {
            rustix::pipe::fcntl_setpipe_size(&self.bootstrap, limits::BOOTSTRAP)?;
        }
        // All of it or nothing: nobody waits here for a reader.
        rustix::fs::fcntl_setfl(&self.bootstrap, rustix::fs::OFlags::NONBLOCK)?;
        self.bootstrap.write_all(bootstrap)?;
        let child = self.child.take().ok_or_else(|| io::Error::other("the supervisor has a sandbox already"))?;
        Ok((child, self.process))
    }
}

impl Drop for Spare {
    fn drop(&mut self) {
        if let Some(directory) = &self.directory {
            let _ = fs::remove_dir_all(directory);
        }
        if let Some(mut child) = self.child.take() {
            // It goes when the pipe is closed, which is when this returns.
            std::thread::spawn(move || child.wait());
        }
    }
}

/// What every sandbox has in its directory, and the directory itself. As root it may be passed through
/// (not listed) by the sandbox's uid, whose workspace lies in it.
fn make_directories(directory: &Path) -> io::Result<()> {
    let mode = if rustix::process::geteuid().is_root() { 0o711 } else { 0o700 };
    DirBuilder::new().mode(mode).create(directory)?;
    AGENTS.iter().try_for_each(|name| DirBuilder::new().mode(0o700).create(directory.join(name)))
}

/// Removes what spare supervisors of an earlier gateway had. No agent was ever near it.
pub(super) fn clear(state_dir: &Path) {
    let Ok(entries) = fs::read_dir(state_dir) else { return };
    for entry in entries.flatten().filter(|entry| entry.file_name().to_string_lossy().starts_with(PREFIX)) {
        let _ = fs::remove_dir_all(entry.path());
    }
}

fn spawn_error(supervisor: &Path, error: &io::Error) -> DriverError {
    let place = supervisor.display();
    match error.kind() {
        io::ErrorKind::NotFound => DriverError::never(
            "SupervisorMissing",
            format!("{place} is not there; install openshell-sandbox beside the gateway, or name it with --supervisor"),
        ),
        io::ErrorKind::PermissionDenied => {
            DriverError::never("SupervisorMissing", format!("{place} may not be executed: {error}; make it executable"))
        }
        _ => DriverError::later("SpawnFailed", format!("{place} cannot be started: {error}")),
    }
}
