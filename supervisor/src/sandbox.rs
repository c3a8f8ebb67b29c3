//! The sandbox as it stands: what is enforced, what runs, and how a configuration changes it.
//!
//! ```text
//!  nothing ── first configuration: install, confine, broker ──▶ confined ── main process ──▶ ready
//!                                                                  │ ▲
//!                     further configurations: install ─────────────┘ │
//!                     refused: as it was ────────────────────────────┘
//! ```
//!
//! The domain is entered once, with the first configuration. Later ones change what egress
//! decides and the environment of what is started next; one that would change the domain is
//! refused. Nothing of the agent starts before everything of its first configuration holds.

use std::{path::PathBuf, sync::Arc, time::Duration};

use openshell_policy::{Policy, model::LandlockCompatibility};
use openshell_proto::supervisor::{self, ConfigResult, EnforcementReport, config_result::Outcome, enforcement_report, main_process::State};
use parking_lot::Mutex;
use tokio::{
    runtime::Handle,
    sync::{mpsc, watch},
    task::spawn_blocking,
};

use crate::{
    audit::{Audit, Level},
    broker::{Broker, BrokerHandle},
    config::{self, Checked, Main},
    confine::{self, Domain, Enforcement, Host, Launcher, RunAs},
    egress::{EgressProxy, identity::Identities},
    limits::session::READY_TIME,
    process::{self, Attachment, Exec, Input, MainProcess, MainSpec, Output, StdinSource, Table, environment::Environment},
};

/// Where the sandbox lives, and as whom.
#[derive(Clone, Debug)]
pub struct Place {
    /// The sandbox's directory.
    pub directory: PathBuf,
    /// The agent's working directory.
    pub workspace: PathBuf,
    /// Who the agent runs as.
    pub run_as: Option<RunAs>,
    /// What no policy may grant.
    pub protected: Vec<PathBuf>,
    /// Whether others use this machine.
    pub host: Host,
}

/// What the gateway is told.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Report {
    /// Configuration in force; 0 before the first.
    pub revision: u64,
    /// Hash of the policy in force.
    pub policy_hash: String,
    /// What the kernel holds, once the domain has been entered.
    pub enforcement: Option<EnforcementReport>,
    /// The main process.
    pub main: supervisor::MainProcess,
    /// Whether commands may be started.
    pub ready: bool,
}

impl Report {
    /// Nothing is in force, and nothing runs.
    pub fn nothing() -> Self {
        let main = supervisor::MainProcess { state: State::None.into(), ..supervisor::MainProcess::default() };
        Self { main, ..Self::default() }
    }
}

/// The sandbox cannot go on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Fatal {
    /// Whether the machine or we are the reason.
    pub kind: FatalKind,
    /// Stable code.
    pub code: String,
    /// For people.
    pub message: String,
}

/// Whose fault it is; decides the exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FatalKind {
    /// What is asked for cannot be enforced here.
    NotEnforceable,
    /// Something of ours failed.
    Internal,
}

/// A command that was not started.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Refused {
    /// Stable: `NotRunning`, `NoMainProcess`, `BadRequest`.
    pub code: &'static str,
    /// For people.
    pub message: String,
}

/// The sandbox. Cheap to clone.
#[derive(Clone)]
pub struct Sandbox {
    inner: Arc<Inner>,
}

struct Inner {
    place: Place,
    trust: Vec<(String, String)>,
    launcher: Arc<Launcher>,
    table: Table,
    egress: EgressProxy,
    audit: Audit,
    report: watch::Sender<Report>,
    state: Mutex<InForce>,
    main: watch::Sender<Option<MainProcess>>,
}

#[derive(Default)]
struct InForce {
    policy: Option<Policy>,
    environment: Option<Environment>,
    main: MainWanted,
    /// Answers the agent's system calls as long as it is held.
    broker: Option<BrokerHandle>,
}

/// The main process before it is started.
#[derive(Default)]
enum MainWanted {
    /// None is wanted, or the first configuration has not come.
    #[default]
    None,
    /// When someone attaches.
    OnAttach(Main),
    /// It was started, or could not be.
    Begun,
}

impl Sandbox {
    /// A sandbox in which nothing runs yet.
    pub fn new(
        place: Place,
        trust: Vec<(String, String)>,
        launcher: Arc<Launcher>,
        table: Table,
        egress: EgressProxy,
        audit: Audit,
    ) -> Self {
        let report = watch::Sender::new(Report::nothing());
        let inner = Inner { place, trust, launcher, table, egress, audit, report, state: Mutex::default(), main: watch::Sender::new(None) };
        Self { inner: Arc::new(inner) }
    }

    /// What the gateway is told, now and later.
    pub fn report(&self) -> watch::Receiver<Report> {
        self.inner.report.subscribe()
    }

    /// Where records go.
    pub fn audit(&self) -> &Audit {
        &self.inner.audit
    }

    /// Applies a configuration, or refuses it as a whole. Called by one task.
    pub async fn apply(&self, config: supervisor::Config) -> Result<ConfigResult, Fatal> {
        let (revision, policy_hash) = (config.revision, config.policy_hash.clone());
        let result =
            |outcome: Outcome, error: String| ConfigResult { revision, policy_hash: policy_hash.clone(), outcome: outcome.into(), error };
        match self.install(config).await? {
            Ok(()) => Ok(result(Outcome::Applied, String::new())),
            Err(why) => {
                self.inner.audit.log(
                    Level::Error,
                    "supervisor",
                    format!("configuration {revision} was refused, the one before stays in force: {why}"),
                );
                Ok(result(Outcome::Refused, why))
            }
        }
    }

    async fn install(&self, config: supervisor::Config) -> Result<Result<(), String>, Fatal> {
        let inner = &self.inner;
        let Checked { revision, policy, active, environment, main, require_full, await_enforcement } =
            match config::check(config, &inner.place.workspace, &inner.trust) {
                Ok(checked) => checked,
                Err(error) => return Ok(Err(error.to_string())),
            };
        let before = inner.state.lock().policy.clone();
        if let Some(before) = &before
            && let Err(error) = before.check_live_change(&policy)
        {
            return Ok(Err(error.to_string()));
        }
        if before.as_ref().is_some_and(|before| before.filesystem() != policy.filesystem()) {
            let note = "new filesystem grants hold from the next start of the sandbox: the domain of a running one is never widened";
            inner.audit.log(Level::Warn, "supervisor", note);
        }
        let policy_hash = active.engine.hash().to_string();
        match inner.egress.install(active) {
            Ok(installed) if installed.cut > 0 => {
                inner.audit.log(
                    Level::Info,
                    "supervisor",
                    format!("configuration {revision} ended {} connections that it no longer allows", installed.cut),
                );
            }
            Ok(_) => {}
            Err(error) => return Ok(Err(error.to_string())),
        }
        if before.is_none() {
            self.confine(&policy, require_full).await?;
        }
        let start = {
            let mut state = inner.state.lock();
            state.policy = Some(policy);
            state.environment = Some(environment);
            match (&state.main, main) {
                (MainWanted::None, Some(main)) if !await_enforcement => {
                    if main.await_attach {
                        state.main = MainWanted::OnAttach(main);
                        None
                    } else {
                        state.main = MainWanted::Begun;
                        Some(main)
                    }
                }
                _ => None,
            }
        };
        inner.report.send_modify(|r| {
            r.revision = revision;
            r.policy_hash = policy_hash;
            r.ready |= !await_enforcement;
        });
        if let Some(main) = start {
            self.start_main(main, StdinSource::Null).await;
        }
        Ok(Ok(()))
    }

    /// Enters the domain and answers its system calls from now on.
    async fn confine(&self, policy: &Policy, require_full: bool) -> Result<(), Fatal> {
        let inner = &self.inner;
        let domain = domain(&inner.place, policy);
        let launcher = Arc::clone(&inner.launcher);
        let confined = spawn_blocking(move || launcher.confine(&domain))
            .await
            .map_err(|_| Fatal::internal("Internal", "entering the domain was aborted"))?;
        let (listener, enforcement) =
            confined.map_err(|error| Fatal { kind: FatalKind::NotEnforceable, code: error.code, message: error.message })?;
        let report = enforcement_report(&enforcement);
        inner.report.send_modify(|r| r.enforcement = Some(report));
        for reason in &enforcement.reasons {
            let (level, message) = explained(reason);
            inner.audit.log(level, "supervisor", message);
        }
        if let Some(fatal) = too_little(&enforcement, policy, require_full) {
            return Err(fatal);
        }
        let broker = Broker::start(listener, Arc::new(inner.egress.clone()), Arc::new(Identities::new()), Handle::current())
            .map_err(|error| Fatal::internal("BrokerFailed", format!("the network broker did not start: {error}")))?;
        inner.state.lock().broker = Some(broker);
        Ok(())
    }

    async fn start_main(&self, main: Main, stdin: StdinSource) {
        let inner = &self.inner;
        let Some(environment) = inner.state.lock().environment.clone() else { return };
        let command = match environment.main(main.command, &main.workdir, main.terminal.is_some()) {
            Ok(command) => command,
            Err(error) => {
                let main = supervisor::MainProcess {
                    state: State::Failed.into(),
                    reason: "BadRequest".into(),
                    message: error.to_string(),
                    ..Default::default()
                };
                inner.report.send_modify(|r| r.main = main);
                return;
            }
        };
        let spec = MainSpec { command, terminal: main.terminal, stdin, owner: inner.place.run_as };
        let report = inner.report.clone();
        let tell = move |main: supervisor::MainProcess| {
            // What ended the sandbox is told, not what it did to the process.
            report.send_if_modified(|r| {
                let open = r.main.state() != State::Failed;
                if open {
                    r.main = main;
                }
                open
            });
        };
        let started = MainProcess::start(&inner.table, spec, inner.audit.clone(), tell).await;
        inner.main.send_replace(Some(started));
    }

    /// Waits until commands may be started.
    async fn ready(&self) -> Result<(), Refused> {
        let mut report = self.inner.report.subscribe();
        match tokio::time::timeout(READY_TIME, report.wait_for(|r| r.ready)).await {
            Ok(Ok(_)) => Ok(()),
            _ => Err(Refused {
                code: "NotRunning",
                message: "the sandbox has no accepted policy yet, so nothing runs in it; see its conditions".into(),
            }),
        }
    }

    /// Checks an exec, with the environment that is in force.
    pub async fn exec(&self, wanted: supervisor::Exec) -> Result<Exec, Refused> {
        self.ready().await?;
        let environment = self.inner.state.lock().environment.clone().unwrap_or_default();
        environment.exec(wanted).map_err(|error| Refused { code: "BadRequest", message: error.to_string() })
    }

    /// Runs a checked exec to its end.
    pub async fn run(&self, exec: Exec, input: mpsc::Receiver<Input>, output: mpsc::Sender<Output>) {
        process::exec(&self.inner.table, exec, self.inner.place.run_as, input, output).await;
    }

    /// The main process, for someone who attaches: started now if it was held back for that.
    pub async fn main_process(&self, attachment: Attachment) -> Result<MainProcess, Refused> {
        self.ready().await?;
        let held = {
            let mut state = self.inner.state.lock();
            match std::mem::replace(&mut state.main, MainWanted::Begun) {
                MainWanted::OnAttach(main) => Some(main),
                MainWanted::Begun => None,
                MainWanted::None => {
                    state.main = MainWanted::None;
                    return Err(Refused {
                        code: "NoMainProcess",
                        message: "the sandbox has no main process; run a command with exec".into(),
                    });
                }
            }
        };
        if let Some(mut main) = held {
            main.terminal = main.terminal.map(|size| attachment.size.unwrap_or(size));
            self.start_main(main, StdinSource::Attached).await;
        }
        let mut main = self.inner.main.subscribe();
        let found = main.wait_for(Option::is_some).await.ok().and_then(|m| m.clone());
        found.ok_or(Refused { code: "NoMainProcess", message: "the main process could not be started".into() })
    }

    /// Ends the agent: SIGTERM to the main process, SIGKILL after `grace`. Everything else ends
    /// with the launcher.
    pub async fn stop(&self, grace: Duration) {
        let main = self.inner.main.borrow().clone();
        if let Some(main) = main {
            main.stop(grace).await;
        }
    }

    /// The main process will not run (any more), for this reason.
    pub fn failed(&self, fatal: &Fatal) {
        self.inner.audit.log(Level::Error, "supervisor", format!("{}: {}", fatal.code, fatal.message));
        self.inner.report.send_modify(|r| {
            r.main.state = State::Failed.into();
            r.main.reason.clone_from(&fatal.code);
            r.main.message.clone_from(&fatal.message);
            r.main.ended = Some(std::time::SystemTime::now().into());
        });
    }
}

impl Fatal {
    /// Something of ours failed.
    pub fn internal(code: &str, message: impl Into<String>) -> Self {
        Self { kind: FatalKind::Internal, code: code.to_owned(), message: message.into() }
    }
}

/// The domain that a policy describes.
fn domain(place: &Place, policy: &Policy) -> Domain {
    let filesystem = policy.filesystem();
    let paths = |list: Vec<String>| list.into_iter().map(PathBuf::from).collect();
    Domain {
        read_only: paths(filesystem.read_only),
        read_write: paths(filesystem.read_write),
        landlock: policy.landlock_compatibility(),
        run_as: place.run_as,
        workspace: place.workspace.clone(),
        directory: place.directory.clone(),
        protected: place.protected.clone(),
        loopback: confine::Loopback::default(),
        namespaces: confine::Namespaces::default(),
        host: place.host,
    }
}

/// A finding of the domain as a line of the log.
fn explained(reason: &str) -> (Level, String) {
    match reason.split_once(':') {
        Some(("path-missing", path)) => {
            (Level::Info, format!("the policy grants {path}, which does not exist here: nothing is granted for it"))
        }
        Some(("path-mapped", path)) => (
            Level::Warn,
            format!("the policy grants {path}, which the sandbox cannot have for itself here: its own tmp directory takes the place"),
        ),
        _ => (Level::Warn, format!("confinement is reduced: {reason}; `openshell doctor` says what it means and what to do")),
    }
}

/// Why the sandbox does not run at the level that was reached, if somebody asks for more: the
/// policy by `hard_requirement`, or the gateway.
fn too_little(enforcement: &Enforcement, policy: &Policy, require_full: bool) -> Option<Fatal> {
    let who = match policy.landlock_compatibility() {
        LandlockCompatibility::HardRequirement => "the policy's landlock.compatibility is hard_requirement",
        LandlockCompatibility::BestEffort if require_full => "the gateway requires full enforcement",
        LandlockCompatibility::BestEffort => return None,
    };
    (enforcement.level != confine::Level::Full).then(|| Fatal {
        kind: FatalKind::NotEnforceable,
        code: "EnforcementReduced".into(),
        message: format!(
            "{who}, and this machine gives less: {}; `openshell doctor` says what each means and what to do",
            enforcement.reasons.join(", ")
        ),
    })
}

fn enforcement_report(enforcement: &Enforcement) -> EnforcementReport {
    let level = match enforcement.level {
        confine::Level::Full => enforcement_report::Level::Full,
        confine::Level::Reduced | confine::Level::Refused => enforcement_report::Level::Reduced,
    };
    EnforcementReport {
        level: level.into(),
        reasons: enforcement.reasons.clone(),
        landlock_abi: enforcement.landlock_abi,
        walls: enforcement.walls.clone(),
        kernel: enforcement.kernel.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_is_said_in_words() {
        assert_eq!(explained("path-missing:/app").0, Level::Info);
        for (reason, part) in
            [("path-missing:/a:b", "/a:b, which"), ("path-mapped:/tmp", "grants /tmp"), ("shared-tmp", "reduced: shared-tmp;")]
        {
            assert!(explained(reason).1.contains(part), "{reason}");
        }
    }

    #[test]
    fn a_reduced_level_is_refused_to_whoever_asks_for_more() {
        let reached = |level| Enforcement {
            level,
            reasons: vec!["no-signal-scope".into()],
            landlock_abi: 5,
            walls: Vec::new(),
            kernel: "6.8".into(),
        };
        let (full, reduced) = (reached(confine::Level::Full), reached(confine::Level::Reduced));
        let soft = Policy::restrictive_default();
        let hard = openshell_policy::from_yaml("version: 1\nlandlock: { compatibility: hard_requirement }").unwrap();
        assert_eq!(too_little(&reduced, &soft, false), None);
        for (policy, require_full, who) in
            [(&hard, false, "hard_requirement"), (&soft, true, "the gateway"), (&hard, true, "hard_requirement")]
        {
            assert_eq!(too_little(&full, policy, require_full), None);
            let fatal = too_little(&reduced, policy, require_full).unwrap();
            assert_eq!((fatal.kind, fatal.code.as_str()), (FatalKind::NotEnforceable, "EnforcementReduced"));
            assert!(fatal.message.contains(who) && fatal.message.contains("no-signal-scope"), "{fatal}");
        }
    }
}
