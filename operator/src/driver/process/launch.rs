//! Starting a supervisor: directory, notes, bootstrap by pipe, process.
//!
//! ```text
//!   lock ─▶ driver.json (no process) ─▶ old records gone ─▶ bootstrap in the pipe ─▶ unlock
//!        ─▶ spawn ─▶ driver.json
//! ```
//!
//! The driver may be killed between any two of these. Before the spawn nothing runs, and the
//! next attempt begins anew. After it the supervisor has everything it needs in its pipe and
//! depends on us for nothing; one that is not in the notes yet is found by its lock, and a second
//! one that is started in spite of it cannot take the lock and goes.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::pipe::PipeFlags;
use serde::Serialize;
use zeroize::Zeroizing;

use super::config::{GatewayAccess, ProcessDriverConfig};
use super::kernel;
use super::record::{self, DriverRecord, ProcessId, RunAs};
use crate::blueprint::SandboxBlueprint;
use crate::driver::DriverError;
use crate::failpoint;
use crate::limits;

/// Variables of our own environment that a supervisor gets; `XDG_*` besides.
const INHERITED: [&str; 9] =
    ["PATH", "HOME", "LANG", "TZ", "SSL_CERT_FILE", "SSL_CERT_DIR", "RUST_LOG", "RUST_BACKTRACE", "OPENSHELL_ABLATE"];

/// The document in the pipe (docs/ARCHITECTURE.md).
#[derive(Serialize)]
struct Bootstrap<'a> {
    version: u32,
    sandbox_id: &'a str,
    sandbox_name: &'a str,
    gateway: Gateway<'a>,
    token: &'a str,
    directory: &'a Path,
    workspace: &'a Path,
    #[serde(skip_serializing_if = "Option::is_none")]
    run_as: Option<RunAs>,
    protected_paths: &'a [PathBuf],
}

#[derive(Serialize)]
struct Gateway<'a> {
    endpoint: &'a str,
    server_name: &'a str,
    ca_pem: &'a str,
}

/// Starts a supervisor. The caller has seen that none is there; `None` if one has come since.
pub(super) fn launch(
    config: &ProcessDriverConfig,
    blueprint: &SandboxBlueprint,
    directory: &Path,
    run_as: Option<RunAs>,
) -> Result<Option<(Child, ProcessId)>, DriverError> {
    let broken = |what: &str| {
        let place = directory.display().to_string();
        let what = what.to_owned();
        move |error: io::Error| {
            DriverError::later("DirectoryUnusable", format!("{place}: {what}: {error}; free some space or repair the directory"))
        }
    };
    make_directory(directory, run_as).map_err(broken("the directory cannot be made"))?;
    // Held while the records are replaced: a supervisor that an earlier gateway had started a
    // moment before it was killed either has the lock already, or finds it taken and goes.
    let Some(lock) = kernel::try_lock(directory).map_err(broken("the lock cannot be opened"))? else { return Ok(None) };
    let mut notes = DriverRecord { version: 1, name: blueprint.name.clone(), run_as, boot_id: kernel::boot_id().to_owned(), process: None };
    record::write(directory, record::DRIVER, &notes).map_err(broken("driver.json cannot be written"))?;
    failpoint::reached("process-noted");
    let workspace = directory.join("workspace");
    make_private(&workspace, run_as).map_err(broken("the workspace cannot be made"))?;
    make_private(&directory.join("tmp"), run_as).map_err(broken("tmp cannot be made"))?;
    for old in [record::SUPERVISOR, record::FAILURE, record::SUSPENDED] {
        record::remove(&directory.join(old)).map_err(broken("the records of the run before cannot be removed"))?;
    }
    failpoint::reached("process-cleared");
    let access = config.bootstrap.bootstrap(&blueprint.uid, &blueprint.name).map_err(|error| {
        DriverError::later("BootstrapFailed", format!("the gateway cannot give sandbox \"{}\" access: {error}", blueprint.name))
    })?;
    let document = document(config, blueprint, directory, &workspace, run_as, &access)?;
    let input = filled_pipe(&document).map_err(broken("the bootstrap cannot be passed on"))?;
    let log = open_log(directory).map_err(broken("supervisor.log cannot be opened"))?;
    let log_too = log.try_clone().map_err(broken("supervisor.log cannot be opened"))?;
    let inherited =
        std::env::vars_os().filter(|(name, _)| name.to_str().is_some_and(|name| INHERITED.contains(&name) || name.starts_with("XDG_")));
    drop(lock);
    let child = Command::new(&config.supervisor)
        .arg("supervise")
        .env_clear()
        .envs(inherited)
        .envs(config.environment.iter().map(|(name, value)| (name, value)))
        .current_dir("/")
        .stdin(input)
        .stdout(log)
        .stderr(log_too)
        .spawn()
        .map_err(|error| spawn_error(&config.supervisor, &error))?;
    failpoint::reached("process-spawned");
    // A child that has ended already is a zombie until it is reaped; its start time can be read,
    // but it does not count as alive, and the watch on it finds out how it ended.
    let process = ProcessId::of(child.id()).unwrap_or(ProcessId { pid: child.id() as i32, start_time: 0 });
    notes.process = Some(process);
    if let Err(error) = record::write(directory, record::DRIVER, &notes) {
        // It runs and is found by its lock; only its end would be harder to tell.
        tracing::warn!(sandbox = blueprint.uid, %error, "driver.json cannot be written");
    }
    failpoint::reached("process-recorded");
    Ok(Some((child, process)))
}

/// The bootstrap document. It holds the token: it is wiped after use and never logged.
fn document(
    config: &ProcessDriverConfig,
    blueprint: &SandboxBlueprint,
    directory: &Path,
    workspace: &Path,
    run_as: Option<RunAs>,
    access: &GatewayAccess,
) -> Result<Zeroizing<Vec<u8>>, DriverError> {
    let bytes = serde_json::to_vec(&Bootstrap {
        version: 1,
        sandbox_id: &blueprint.uid,
        sandbox_name: &blueprint.name,
        gateway: Gateway { endpoint: &access.endpoint, server_name: &access.server_name, ca_pem: &access.ca_pem },
        token: &access.token,
        directory,
        workspace,
        run_as,
        protected_paths: &config.protected_paths,
    })
    .map(Zeroizing::new)
    .map_err(|error| DriverError::never("BootstrapFailed", format!("the bootstrap cannot be written as JSON: {error}")))?;
    if bytes.len() > limits::BOOTSTRAP {
        return Err(DriverError::never(
            "BootstrapFailed",
            format!("the bootstrap has {} bytes and may have {}; shorten the gateway's CA bundle", bytes.len(), limits::BOOTSTRAP),
        ));
    }
    Ok(bytes)
}

/// The read end of a pipe that holds all of `bytes` and has no writer left: whoever reads it
/// needs nobody to be alive.
fn filled_pipe(bytes: &[u8]) -> io::Result<Stdio> {
    let (read, write) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
    if bytes.len() > 64 << 10 {
        rustix::pipe::fcntl_setpipe_size(&write, limits::BOOTSTRAP)?;
    }
    rustix::fs::fcntl_setfl(&write, rustix::fs::OFlags::NONBLOCK)?;
    File::from(write).write_all(bytes)?;
    Ok(Stdio::from(File::from(read)))
}

/// The sandbox's directory. As root it may be passed through (not listed) by the sandbox's uid,
/// whose workspace lies in it.
fn make_directory(directory: &Path, run_as: Option<RunAs>) -> io::Result<()> {
    let mode = if run_as.is_some() { 0o711 } else { 0o700 };
    existing(DirBuilder::new().mode(mode).create(directory), directory)
}

/// A directory of the agent's own.
fn make_private(path: &Path, owner: Option<RunAs>) -> io::Result<()> {
    existing(DirBuilder::new().mode(0o700).create(path), path)?;
    match owner {
        Some(owner) => std::os::unix::fs::lchown(path, Some(owner.uid), Some(owner.gid)),
        None => Ok(()),
    }
}

/// It is fine if the directory is there, as long as it is one.
fn existing(made: io::Result<()>, path: &Path) -> io::Result<()> {
    match made {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            if std::fs::symlink_metadata(path)?.is_dir() {
                Ok(())
            } else {
                Err(error)
            }
        }
        other => other,
    }
}

/// `supervisor.log`, put aside first if it has grown too large.
fn open_log(directory: &Path) -> io::Result<File> {
    let path = directory.join("supervisor.log");
    if std::fs::symlink_metadata(&path).is_ok_and(|log| log.len() > limits::SUPERVISOR_LOG) {
        std::fs::rename(&path, directory.join("supervisor.log.1"))?;
    }
    let nofollow = rustix::fs::OFlags::NOFOLLOW.bits() as i32;
    OpenOptions::new().append(true).create(true).mode(0o600).custom_flags(nofollow).open(path)
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
