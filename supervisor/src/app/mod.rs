//! The supervisor as a process: from the bootstrap to the exit code.
//!
//! ```text
//!  one thread:   guardian ─▶ launcher, its namespaces              (all forked)
//!  then:         runtime, certificate authority ─▶ wait for the bootstrap
//!  bound:        lock ─▶ egress, session ─▶ first configuration ─▶ domain, broker, agent
//!  until:        SIGTERM, Shutdown, Rejected ─▶ stop ─▶ last report ─▶ 0
//!                cannot be enforced here ─▶ last report ─▶ 69      ours failed ─▶ 70
//!                launcher or guardian gone ─▶ all killed ─▶ last report ─▶ 70
//! ```
//!
//! All that is the same for every sandbox is done before the bootstrap is read: a driver may keep a
//! supervisor waiting, and the forked processes were never near the token. The guardian and the
//! launcher are given the lock to hold, so that a second supervisor cannot start before the last
//! process of this one is gone.

mod files;

use std::{
    io,
    os::fd::AsFd as _,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use tokio::{
    runtime::Runtime,
    signal::unix::{SignalKind, signal},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;

use crate::{
    assignment::Assignment,
    audit::{Audit, AuditLimit, AuditQueue, Level},
    bootstrap::{Bootstrap, BootstrapError},
    confine::{self, Guardian, Launcher},
    egress::{
        EgressConfig, EgressProxy,
        ca::{CaError, SandboxCa, TrustFiles},
        roots::SystemTrust,
    },
    limits::session::{FLUSH_TIME, SHUTDOWN_GRACE, SHUTDOWN_GRACE_MAX},
    pod,
    process::Table,
    sandbox::{Fatal, FatalKind, Place, Sandbox},
    session::{self, End, Identity},
};

use files::{Lock, LockError};

/// Threads of the runtime: one decides while the other carries.
const WORKERS: usize = 2;
/// Threads for calls that block: spawning, and files.
const BLOCKING: usize = 8;

/// Exit codes, as docs/ARCHITECTURE.md has them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Code {
    /// Ended as it was asked to.
    Ended = 0,
    /// `EX_USAGE`: the bootstrap, or the pod's environment, is not one.
    BadBootstrap = 64,
    /// `EX_UNAVAILABLE`: what is asked for cannot be enforced here.
    NotEnforceable = 69,
    /// `EX_SOFTWARE`: ours failed.
    Internal = 70,
    /// `EX_TEMPFAIL`: another supervisor has this sandbox.
    Locked = 75,
}

impl From<Code> for ExitCode {
    fn from(code: Code) -> Self {
        Self::from(code as u8)
    }
}

/// Prints what this machine can enforce.
pub fn doctor() -> ExitCode {
    let probe = confine::probe();
    match serde_json::to_string_pretty(&probe) {
        Ok(text) => {
            println!("{text}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("the findings cannot be printed: {error}");
            Code::Internal.into()
        }
    }
}

/// Runs a sandbox. To be called while the process has one thread.
pub fn supervise(directory: Option<PathBuf>) -> ExitCode {
    exit(Unbound::new(directory).and_then(|unbound| unbound.bind(bootstrap)), None)
}

/// Runs the sandbox of this pod. To be called while the process has one thread.
pub fn pod() -> ExitCode {
    let assignment = || pod::own_assignment().map_err(|error| (Code::BadBootstrap, error.to_string()));
    exit(Unbound::new(None).and_then(|unbound| unbound.bind(assignment)), Some(Path::new(pod::LAST_WORDS)))
}

/// Copies this program into a directory, for a pod whose image has none.
pub fn install(directory: &Path) -> ExitCode {
    match files::install(directory) {
        Ok(()) => Code::Ended.into(),
        Err(error) => {
            eprintln!("openshell-sandbox: {}: the supervisor cannot be copied there: {error}", directory.display());
            Code::Internal.into()
        }
    }
}

/// Runs what could be bound. Why it failed goes to `last_words`, where there is such a place.
fn exit(bound: Result<Bound, (Code, String)>, last_words: Option<&Path>) -> ExitCode {
    match bound {
        Ok(bound) => bound.run(last_words),
        Err((code, message)) => {
            eprintln!("openshell-sandbox: {message}");
            if let Some(place) = last_words {
                files::write_last_words(place, if code == Code::BadBootstrap { "BadBootstrap" } else { "Internal" }, &message);
            }
            code.into()
        }
    }
}

/// What the driver writes to standard input.
fn bootstrap() -> Result<Assignment, (Code, String)> {
    let bad = |error: BootstrapError| (Code::BadBootstrap, error.to_string());
    let document = Bootstrap::document(std::io::stdin().lock()).map_err(bad)?;
    let bootstrap = Bootstrap::parse(&document).map_err(bad)?;
    drop(document);
    confine::guardian::leave_standard_input().map_err(|e| internal("leaving standard input", e))?;
    Assignment::try_from(bootstrap).map_err(|error| (Code::BadBootstrap, error.to_string()))
}

fn internal(what: &str, error: impl std::fmt::Display) -> (Code, String) {
    (Code::Internal, format!("{what}: {error}"))
}

/// A supervisor that has no sandbox yet.
struct Unbound {
    guardian: Guardian,
    launcher: Launcher,
    runtime: Runtime,
    trust: JoinHandle<Trust>,
}

/// Whom the agent trusts, and whom we trust for it.
struct Trust {
    authority: Result<SandboxCa, CaError>,
    system: SystemTrust,
}

impl Trust {
    /// Makes it, and its files in this directory. Whether these are there is seen when they are needed.
    fn new(directory: Option<&Path>) -> Self {
        let trust = Self { authority: SandboxCa::new(), system: SystemTrust::read() };
        if let (Some(directory), Ok(authority)) = (directory, &trust.authority) {
            let _ = files::trust_directory(directory).and_then(|place| authority.write(&place, trust.system.bundle_pem()));
        }
        trust
    }

    /// As it is now, with its files in this directory.
    fn of_now(mut self, directory: &Path) -> io::Result<(TrustFiles, SystemTrust, SandboxCa)> {
        let authority = self.authority.map_err(io::Error::other)?;
        let place = files::trust_directory(directory)?;
        let written = if self.system.is_current() { authority.written(&place) } else { None };
        if written.is_none() {
            self.system = SystemTrust::read();
        }
        let files = written.map_or_else(|| authority.write(&place, self.system.bundle_pem()), Ok)?;
        Ok((files, self.system, authority))
    }
}

impl Unbound {
    fn new(directory: Option<PathBuf>) -> Result<Self, (Code, String)> {
        let guardian = confine::guardian::enter().map_err(|e| internal("starting the guardian", e))?;
        let launcher = Launcher::fork().map_err(|e| internal("starting the launcher", e))?;
        log_to_stderr();
        // One provider is linked; a second installation of it changes nothing.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(WORKERS)
            .max_blocking_threads(BLOCKING)
            .thread_name("supervisor")
            .enable_all()
            .build()
            .map_err(|e| internal("starting the runtime", e))?;
        let trust = runtime.spawn_blocking(move || Trust::new(directory.as_deref()));
        Ok(Self { guardian, launcher, runtime, trust })
    }

    /// Waits for its sandbox and takes the lock of it.
    fn bind(self, assigned: impl FnOnce() -> Result<Assignment, (Code, String)>) -> Result<Bound, (Code, String)> {
        let assignment = assigned()?;
        let lock = Lock::take(&assignment.directory).map_err(|error| match error {
            LockError::Held(_) => (Code::Locked, error.to_string()),
            LockError::Io { .. } => (Code::Internal, error.to_string()),
        })?;
        self.guardian.hold(lock.as_fd()).map_err(|e| internal("giving the guardian the lock", e))?;
        self.launcher.hold(lock.as_fd().try_clone_to_owned().map_err(|e| internal("giving the launcher the lock", e))?);
        Ok(Bound { unbound: self, assignment, lock })
    }
}

/// A supervisor of this sandbox alone.
struct Bound {
    unbound: Unbound,
    assignment: Assignment,
    lock: Lock,
}

impl Bound {
    fn run(self, last_words: Option<&Path>) -> ExitCode {
        let Self { unbound: Unbound { guardian, launcher, runtime, trust }, assignment, lock } = self;
        let directory = assignment.directory.clone();
        let ended = runtime.block_on(live(assignment, guardian, launcher, trust));
        runtime.shutdown_background();
        let code = match ended {
            Ok(()) => Code::Ended.into(),
            Err(fatal) => {
                tracing::error!(code = fatal.code, "{fatal}");
                files::write_failure(&directory, &fatal);
                if let Some(place) = last_words {
                    files::write_last_words(place, &fatal.code, &fatal.message);
                }
                match fatal.kind {
                    FatalKind::NotEnforceable => Code::NotEnforceable.into(),
                    FatalKind::Internal => Code::Internal.into(),
                }
            }
        };
        // A driver that finds the lock free looks for the reason, also where no guardian holds it.
        drop(lock);
        code
    }
}

/// Standard error is `supervisor.log` in the sandbox's directory.
fn log_to_stderr() {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "info".into());
    let _ = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(false).try_init();
}

async fn live(assignment: Assignment, guardian: Guardian, launcher: Launcher, trust: JoinHandle<Trust>) -> Result<(), Fatal> {
    let instance_id = assignment.instance_id.clone();
    files::write_supervisor(&assignment.directory, guardian.pid(), &instance_id)
        .map_err(|error| Fatal::internal("Internal", format!("supervisor.json was not written: {error}")))?;
    tracing::info!(sandbox = assignment.sandbox_id, name = assignment.sandbox_name, instance = instance_id, "supervising");
    let Assignment { sandbox_id, gateway, proof, directory, workspace, run_as, protected_paths, host, .. } = assignment;
    let identity = Arc::new(Identity { sandbox_id, instance_id, gateway, proof });
    let early = session::begin_early(&identity);
    let (audit, queue) = Audit::new(AuditLimit::default());
    let gone = CancellationToken::new();
    let without_guardian = gone.clone();
    guardian
        .watch(move || without_guardian.cancel())
        .map_err(|error| Fatal::internal("Internal", format!("the guardian cannot be watched: {error}")))?;
    let run_as = run_as.map(|r| confine::RunAs { uid: r.uid, gid: r.gid });
    let mut protected = protected_paths;
    // Whatever the driver says: the log, the lock and the records are not the agent's.
    protected.push(directory.clone());
    let place = Place { directory, workspace, run_as, protected, host };
    let trust = trust.await.map_err(|error| Fatal::internal("Internal", format!("what is trusted was not read: {error}")))?;
    let sandbox = assemble(place, launcher, trust, audit, gone.clone())?;
    until_the_end(&identity, early, &sandbox, &queue, &gone, &guardian).await
}

fn assemble(place: Place, launcher: Launcher, trust: Trust, audit: Audit, gone: CancellationToken) -> Result<Sandbox, Fatal> {
    let failed = |what: &str, error: &dyn std::fmt::Display| Fatal::internal("Internal", format!("{what}: {error}"));
    let (files, system, ca) = trust.of_now(&place.directory).map_err(|e| failed("the certificates for the agent were not written", &e))?;
    let variables = crate::egress::env::variables(&files.ca, &files.bundle);
    let egress = EgressProxy::new(EgressConfig { ca, audit: audit.clone(), roots: system.into_roots() });
    let launcher = Arc::new(launcher);
    let exits = launcher.exits().ok_or_else(|| Fatal::internal("Internal", "the launcher's exits are taken already"))?;
    let table = Table::new(Arc::clone(&launcher), exits, gone);
    Ok(Sandbox::new(place, variables, launcher, table, egress, audit))
}

/// Holds the session until something ends the sandbox, ends the agent, and says so.
async fn until_the_end(
    identity: &Arc<Identity>,
    early: session::Early,
    sandbox: &Sandbox,
    queue: &AuditQueue,
    gone: &CancellationToken,
    guardian: &Guardian,
) -> Result<(), Fatal> {
    let finish = CancellationToken::new();
    let session = session::run(identity, early, sandbox, queue, &finish);
    tokio::pin!(session);
    let fatal = tokio::select! {
        end = &mut session => match end {
            End::Finished => return Ok(()),
            End::Rejected { code, message } => {
                tracing::warn!(code, "the gateway ended the sandbox: {message}");
                sandbox.stop(SHUTDOWN_GRACE).await;
                return Ok(());
            }
            End::Shutdown { grace, reason } => {
                tracing::info!(reason, "the gateway ends the sandbox");
                sandbox.audit().log(Level::Info, "supervisor", format!("the sandbox is ended: {reason}"));
                sandbox.stop(grace.unwrap_or(SHUTDOWN_GRACE).min(SHUTDOWN_GRACE_MAX)).await;
                session::farewell(identity, sandbox, queue).await;
                return Ok(());
            }
            End::Fatal(fatal) => {
                sandbox.failed(&fatal);
                session::farewell(identity, sandbox, queue).await;
                return Err(fatal);
            }
        },
        name = asked_to_end() => {
            tracing::info!(signal = name, "asked to end");
            sandbox.audit().log(Level::Info, "supervisor", format!("the sandbox is ended by {name}"));
            let stopping = async {
                sandbox.stop(SHUTDOWN_GRACE).await;
                finish.cancel();
            };
            // The session goes on meanwhile, and carries the last lines and the exit.
            tokio::join!(stopping, session);
            return Ok(());
        }
        // Whoever watches the guardian kills the launcher too.
        () = gone.cancelled() => if guardian.ended() {
            Fatal::internal("GuardianDied", "the guardian was killed, and every process of the sandbox was ended after it")
        } else {
            Fatal::internal("LauncherDied", "the launcher ended, and every process of the sandbox with it")
        },
    };
    sandbox.failed(&fatal);
    finish.cancel();
    let _ = tokio::time::timeout(FLUSH_TIME + Duration::from_millis(100), session).await;
    Err(fatal)
}

async fn asked_to_end() -> &'static str {
    let (terminate, interrupt, hangup) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()), signal(SignalKind::hangup()));
    let (Ok(mut terminate), Ok(mut interrupt), Ok(mut hangup)) = (terminate, interrupt, hangup) else {
        // Without handlers the signals end the process at once, and the guardian the agent.
        return std::future::pending().await;
    };
    tokio::select! {
        _ = terminate.recv() => "SIGTERM",
        _ = interrupt.recv() => "SIGINT",
        _ = hangup.recv() => "SIGHUP",
    }
}
