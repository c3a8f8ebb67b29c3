//! A supervisor that runs already and waits for a sandbox.
//!
//! Executing a supervisor, its forks and its namespaces are half of the time that a sandbox takes to
//! start, and the same for all of them. One is kept ready; where there is none, it is started when it
//! is needed. It waits for its bootstrap on a pipe: when the gateway ends, however it does, the pipe is
//! closed and the spare supervisor goes.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::pipe::PipeFlags;

use super::config::ProcessDriverConfig;
use super::record::ProcessId;
use crate::driver::DriverError;
use crate::limits;

/// Variables of our own environment that a supervisor gets; `XDG_*` besides.
const INHERITED: [&str; 9] =
    ["PATH", "HOME", "LANG", "TZ", "SSL_CERT_FILE", "SSL_CERT_DIR", "RUST_LOG", "RUST_BACKTRACE", "OPENSHELL_ABLATE"];
/// How the name of a log begins while its supervisor has no sandbox.
const LOG_PREFIX: &str = ".supervisor-";
/// Where a supervisor's standard output and error go.
const LOG: &str = "supervisor.log";
/// The log of the run before.
const LOG_BEFORE: &str = "supervisor.log.1";

/// A supervisor without a sandbox.
pub(super) struct Spare {
    child: Option<Child>,
    process: ProcessId,
    bootstrap: File,
    log: PathBuf,
}

impl Spare {
    /// Starts one.
    pub(super) fn start(config: &ProcessDriverConfig) -> Result<Self, DriverError> {
        let broken = |error: io::Error| {
            let place = config.state_dir.display();
            DriverError::later("DirectoryUnusable", format!("{place}: a supervisor's log cannot be made: {error}; free some space"))
        };
        let path = config.state_dir.join(format!("{LOG_PREFIX}{}.log", uuid::Uuid::new_v4().simple()));
        let log = OpenOptions::new().append(true).create_new(true).mode(0o600).open(&path).map_err(broken)?;
        let started = log.try_clone().and_then(|too| Ok((too, rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?))).map_err(broken);
        let spawned = started.and_then(|(log_too, (input, bootstrap))| {
            let inherited = std::env::vars_os()
                .filter(|(name, _)| name.to_str().is_some_and(|name| INHERITED.contains(&name) || name.starts_with("XDG_")));
            let child = Command::new(&config.supervisor)
                .arg("supervise")
                .env_clear()
                .envs(inherited)
                .envs(config.environment.iter().map(|(name, value)| (name, value)))
                .current_dir("/")
                .stdin(Stdio::from(input))
                .stdout(log)
                .stderr(log_too)
                .spawn()
                .map_err(|error| spawn_error(&config.supervisor, &error))?;
            Ok((child, File::from(bootstrap)))
        });
        match spawned {
            Ok((child, bootstrap)) => {
                // A child that has ended already is a zombie until it is reaped; its start time can be
                // read, but it does not count as alive, and the watch on it finds out how it ended.
                let process = ProcessId::of(child.id()).unwrap_or(ProcessId { pid: child.id() as i32, start_time: 0 });
                Ok(Self { child: Some(child), process, bootstrap, log: path })
            }
            Err(error) => {
                let _ = fs::remove_file(&path);
                Err(error)
            }
        }
    }

    /// Whether it still waits.
    pub(super) fn waits(&mut self) -> bool {
        matches!(self.child.as_mut().map(Child::try_wait), Some(Ok(None)))
    }

    /// Gives it a sandbox. From here on it depends on us for nothing.
    pub(super) fn bind(mut self, bootstrap: &[u8], directory: &Path) -> io::Result<(Child, ProcessId)> {
        let log = directory.join(LOG);
        match fs::rename(&log, directory.join(LOG_BEFORE)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        fs::rename(&self.log, &log)?;
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
        let Some(mut child) = self.child.take() else { return };
        let _ = fs::remove_file(&self.log);
        // It goes when the pipe is closed, which is when this returns.
        std::thread::spawn(move || child.wait());
    }
}

/// Removes the logs of spare supervisors that an earlier gateway had.
pub(super) fn forget_logs(state_dir: &Path) {
    let Ok(entries) = fs::read_dir(state_dir) else { return };
    for entry in entries.flatten().filter(|entry| entry.file_name().to_string_lossy().starts_with(LOG_PREFIX)) {
        let _ = fs::remove_file(entry.path());
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
