//! Giving a sandbox its supervisor: directory, notes, bootstrap by pipe.
//!
//! ```text
//!   lock ─▶ driver.json (no process) ─▶ old records gone ─▶ unlock
//!        ─▶ bootstrap to a spare supervisor ─▶ driver.json
//! ```
//!
//! The driver may be killed between any two of these. Before the bootstrap is given nothing runs, and
//! the next attempt begins anew. After it the supervisor depends on us for nothing; one that is not in
//! the notes yet is found by its lock, and a second one that is started in spite of it cannot take the
//! lock and goes.

use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::process::Child;

use serde::Serialize;
use zeroize::Zeroizing;

use super::config::{GatewayAccess, ProcessDriverConfig};
use super::kernel;
use super::record::{self, DriverRecord, ProcessId, RunAs};
use super::spare::{self, Spare};
use crate::blueprint::SandboxBlueprint;
use crate::driver::DriverError;
use crate::failpoint;
use crate::limits;

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
    spare: impl FnOnce() -> Result<Spare, DriverError>,
) -> Result<Option<(Child, ProcessId)>, DriverError> {
    let broken = |what: &str| {
        let place = directory.display().to_string();
        let what = what.to_owned();
        move |error: io::Error| {
            DriverError::later("DirectoryUnusable", format!("{place}: {what}: {error}; free some space or repair the directory"))
        }
    };
    let mut spare = spare()?;
    spare.settle(directory).map_err(broken("the directory cannot be made"))?;
    // Held while the records are replaced: a supervisor that an earlier gateway had started a
    // moment before it was killed either has the lock already, or finds it taken and goes.
    let Some(lock) = kernel::try_lock(directory).map_err(broken("the lock cannot be opened"))? else { return Ok(None) };
    let mut notes = DriverRecord { version: 1, name: blueprint.name.clone(), run_as, boot_id: kernel::boot_id().to_owned(), process: None };
    record::write(directory, record::DRIVER, &notes).map_err(broken("driver.json cannot be written"))?;
    failpoint::reached("process-noted");
    for name in spare::AGENTS {
        make_private(&directory.join(name), run_as).map_err(broken("the agent's directories cannot be made"))?;
    }
    for old in [record::SUPERVISOR, record::FAILURE, record::SUSPENDED] {
        record::remove(&directory.join(old)).map_err(broken("the records of the run before cannot be removed"))?;
    }
    spare.bring_log(directory).map_err(broken("supervisor.log cannot be opened"))?;
    failpoint::reached("process-cleared");
    let access = config.bootstrap.bootstrap(&blueprint.uid, &blueprint.name).map_err(|error| {
        DriverError::later("BootstrapFailed", format!("the gateway cannot give sandbox \"{}\" access: {error}", blueprint.name))
    })?;
    let document = document(config, blueprint, directory, run_as, &access)?;
    drop(lock);
    failpoint::reached("process-prepared");
    let (child, process) = spare.bind(&document).map_err(|error| {
        DriverError::later("SpawnFailed", format!("the supervisor ended before it had its bootstrap: {error}; another one is started"))
    })?;
    failpoint::reached("process-bound");
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
        workspace: &directory.join(spare::WORKSPACE),
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
