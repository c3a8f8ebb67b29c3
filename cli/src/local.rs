//! The gateway of this machine: found, started in the background, stopped.
//!
//! ```text
//!  openshell ──spawn──▶ openshell (launch: setsid) ──exec──▶ openshell-gateway
//!      │                                                        │ lock (flock + pid), CA, bundle
//!      └── waits until Health answers over the new bundle ◀─────┘ log: gateway/gateway.log
//! ```
//!
//! Whether it runs is decided by the lock that it holds, never by a recorded number alone: the
//! pid beside the lock is trusted only while the lock is held, and is signalled through a pidfd.

pub(crate) mod launch;

use std::fs;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use openshell_proto::v1::HealthRequest;
use openshell_proto::v1::open_shell_client::OpenShellClient;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tokio::time::{Instant, sleep};
use tonic::transport::Channel;

use crate::config::LOCAL;
use crate::context::Context;
use crate::error::{CliError, Exit};
use crate::gateway::{ConnectError, Gateway, Verify};
use crate::{limits, output};

/// Why a gateway is started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Why {
    /// By `gateway start`.
    Asked,
    /// A command needs one and none is configured.
    NoneConfigured,
    /// A command needs the one of this machine and it does not run.
    NotRunning,
}

/// What it is started with.
#[derive(Clone, Debug, Default)]
pub(crate) struct Options {
    pub(crate) port: Option<u16>,
    pub(crate) driver: Option<String>,
}

/// A gateway that answers.
#[derive(Debug)]
pub(crate) struct Started {
    pub(crate) gateway: Gateway,
    pub(crate) channel: Channel,
    /// Absent when it was running before.
    pub(crate) pid: Option<u32>,
}

/// The files of the local gateway.
#[derive(Clone, Debug)]
pub(crate) struct Files {
    directory: PathBuf,
}

impl Files {
    pub(crate) fn new(context: &Context) -> Result<Self, CliError> {
        let state = context.environment.state_dir.as_ref().ok_or_else(|| {
            CliError::new("no-home", "There is no place for the gateway's state.")
                .because("neither XDG_STATE_HOME nor HOME is an absolute path")
                .next("Set HOME.")
        })?;
        Ok(Self { directory: state.join("gateway") })
    }

    /// `gateway.log`.
    pub(crate) fn log(&self) -> PathBuf {
        self.directory.join("gateway.log")
    }

    /// Its directory.
    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    /// The process that holds the lock, if one does.
    pub(crate) fn running(&self) -> Result<Option<Pid>, CliError> {
        let path = self.directory.join("lock");
        let unreadable = |e: &dyn std::fmt::Display| {
            CliError::new("unreadable", format!("{} cannot be read.", path.display()))
                .because(e)
                .next("Correct the owner and the mode of the state directory: `openshell doctor` names what is wrong.")
        };
        let mut file = match fs::File::open(&path) {
            Ok(file) => file,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(unreadable(&e)),
        };
        match rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockShared) {
            Ok(()) => return Ok(None),
            Err(rustix::io::Errno::WOULDBLOCK) => {}
            Err(e) => return Err(unreadable(&e)),
        }
        let mut text = String::new();
        file.by_ref().take(64).read_to_string(&mut text).map_err(|e| unreadable(&e))?;
        let pid = text.trim().parse::<i32>().ok().and_then(Pid::from_raw);
        pid.map(Some).ok_or_else(|| unreadable(&"it is held, and names no process"))
    }
}

/// Starts the gateway and waits until it answers. If it runs already, that one is returned.
pub(crate) async fn start(context: &Context, options: &Options, why: Why) -> Result<Started, CliError> {
    let files = Files::new(context)?;
    let program = find_program(context)?;
    let logged = fs::metadata(files.log()).map_or(0, |m| m.len());
    let mut child = if files.running()?.is_some() {
        None
    } else {
        let log = files.log();
        match why {
            Why::Asked => {}
            Why::NoneConfigured => {
                output::note(&format!("No gateway is configured: starting one on this machine (log: {}).", log.display()));
            }
            Why::NotRunning => output::note(&format!("The gateway of this machine is not running: starting it (log: {}).", log.display())),
        }
        Some(spawn(context, &files, &program, options)?)
    };
    let deadline = Instant::now() + limits::GATEWAY_START;
    let mut last = None;
    loop {
        match answering(context).await {
            Ok(Some((gateway, channel))) => {
                let pid = child.map(|c| c.id());
                if why != Why::Asked {
                    output::note(&format!("Gateway {LOCAL} is ready at {}. Stop it with `openshell gateway stop`.", gateway.endpoint));
                }
                return Ok(Started { gateway, channel, pid });
            }
            Ok(None) => {}
            Err(error) => last = Some(error),
        }
        if let Some(ended) = child.as_mut().and_then(|c| c.try_wait().ok().flatten()) {
            // Two commands may start it at once: the one that lost the lock waits for the other.
            if files.running()?.is_none() {
                return Err(failed_to_start(&files, logged, &format!("it ended with {ended}")));
            }
            child = None;
        }
        if Instant::now() >= deadline {
            let seconds = limits::GATEWAY_START.as_secs();
            let mut error = failed_to_start(&files, logged, &format!("it does not answer after {seconds} s")).exits(Exit::Timeout);
            if let Some(last) = last {
                error = error.because_of(&last);
            }
            return Err(error);
        }
        sleep(limits::POLL).await;
    }
}

/// Stops it, if it runs: `Some(pid)`.
pub(crate) async fn stop(files: &Files) -> Result<Option<i32>, CliError> {
    let Some(pid) = files.running()? else { return Ok(None) };
    let number = pid.as_raw_nonzero().get();
    let failed = |e: &dyn std::fmt::Display| {
        CliError::new("stop-failed", format!("The gateway (process {number}) could not be stopped."))
            .because(e)
            .next("If another user started it, that user has to stop it.")
    };
    let handle = match pidfd_open(pid, PidfdFlags::empty()) {
        Ok(handle) => handle,
        Err(rustix::io::Errno::SRCH) => return Ok(None),
        Err(e) => return Err(failed(&e)),
    };
    // The lock still names this process, so the descriptor is that of the gateway.
    if files.running()? != Some(pid) {
        return Ok(None);
    }
    pidfd_send_signal(&handle, Signal::TERM).map_err(|e| failed(&e))?;
    let deadline = Instant::now() + limits::GATEWAY_STOP;
    while files.running()?.is_some() {
        if Instant::now() >= deadline {
            let seconds = limits::GATEWAY_STOP.as_secs();
            return Err(failed(&format_args!("it is still there {seconds} s after SIGTERM")).exits(Exit::Timeout));
        }
        sleep(limits::POLL).await;
    }
    Ok(Some(number))
}

/// The registered local gateway, if it answers now.
async fn answering(context: &Context) -> Result<Option<(Gateway, Channel)>, CliError> {
    let Some(registered) = context.config.gateway(LOCAL)? else { return Ok(None) };
    let gateway = Gateway::registered(&registered, Verify::Certificate)?;
    let channel = match gateway.channel().await {
        Ok(channel) => channel,
        Err(ConnectError::NobodyThere(_)) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let health = OpenShellClient::new(channel.clone()).health(crate::session::call(HealthRequest {})).await;
    health.map_err(|s| CliError::from_status("The gateway does not say that it is healthy.", &s))?;
    Ok(Some((gateway, channel)))
}

fn spawn(context: &Context, files: &Files, program: &Path, options: &Options) -> Result<Child, CliError> {
    let log = files.log();
    let unwritable = |e: &dyn std::fmt::Display| {
        CliError::new("unwritable", format!("{} cannot be written.", log.display()))
            .because(e)
            .next("Check the owner and the free space of the state directory.")
    };
    fs::DirBuilder::new().recursive(true).mode(0o700).create(files.directory()).map_err(|e| unwritable(&e))?;
    let out = fs::OpenOptions::new().create(true).append(true).mode(0o600).open(&log).map_err(|e| unwritable(&e))?;
    let errors = out.try_clone().map_err(|e| unwritable(&e))?;
    let ourselves = std::env::current_exe().map_err(|e| not_started(program, &e))?;
    let mut command = Command::new(ourselves);
    command.arg(launch::WORD).arg(program).stdin(Stdio::null()).stdout(out).stderr(errors).current_dir("/");
    if let Some(port) = options.port {
        command.arg("--port").arg(port.to_string());
    }
    if let Some(driver) = &options.driver {
        command.arg("--driver").arg(driver);
    }
    if let Some(supervisor) = &context.environment.supervisor_binary {
        let supervisor = std::path::absolute(supervisor).map_err(|e| not_started(supervisor, &e))?;
        command.env("OPENSHELL_SUPERVISOR_BIN", supervisor);
    }
    command.spawn().map_err(|e| not_started(program, &e))
}

fn not_started(program: &Path, error: &dyn std::fmt::Display) -> CliError {
    CliError::new("gateway-start", format!("{} could not be started.", program.display()))
        .because(error)
        .next("`openshell doctor` checks the programs and directories of this machine.")
}

/// `openshell-gateway`: named by the environment, beside this program, or on the path.
fn find_program(context: &Context) -> Result<PathBuf, CliError> {
    find_beside("openshell-gateway", context.environment.gateway_binary.as_deref(), context).ok_or_else(|| {
        CliError::new("gateway-not-found", "No gateway is configured, and none can be started here.")
            .because("openshell-gateway is neither beside this program nor on the PATH")
            .next("Install openshell-gateway, set OPENSHELL_GATEWAY_BIN, or name a gateway with --gateway-endpoint.")
    })
}

/// A program of ours: `named`, else beside this one, else on the path.
pub(crate) fn find_beside(name: &str, named: Option<&Path>, context: &Context) -> Option<PathBuf> {
    if let Some(named) = named {
        return std::path::absolute(named).ok().filter(|p| p.is_file());
    }
    let beside = std::env::current_exe().ok().and_then(|p| p.canonicalize().ok()).and_then(|p| Some(p.parent()?.join(name)));
    let on_path = context.environment.path.iter().map(|d| d.join(name));
    beside.into_iter().chain(on_path).find(|p| p.is_absolute() && p.is_file())
}

/// What the log says since this start (from byte `logged`) is shown as it is.
fn failed_to_start(files: &Files, logged: u64, why: &str) -> CliError {
    let log = files.log();
    let mut error = CliError::new("gateway-start", "The gateway of this machine did not start.").because(why);
    if let Some(tail) = tail(&log, logged) {
        error = error.because(tail);
    }
    error.next(format!("Its log says more: {}. `openshell doctor` checks this machine.", log.display()))
}

fn tail(log: &Path, from: u64) -> Option<String> {
    let mut file = fs::File::open(log).ok()?;
    let length = file.metadata().ok()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(limits::LOG_TAIL_BYTES).max(from))).ok()?;
    let mut bytes = Vec::new();
    file.take(limits::LOG_TAIL_BYTES).read_to_end(&mut bytes).ok()?;
    let text = String::from_utf8_lossy(&bytes);
    let mut lines: Vec<&str> = text.lines().filter(|l| !l.trim().is_empty()).rev().take(5).collect();
    lines.reverse();
    (!lines.is_empty()).then(|| lines.join("\n"))
}
