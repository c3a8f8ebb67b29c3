//! One task per sandbox: its session, its configuration, its status.
//!
//! ```text
//!  Opened ─▶ compose ─▶ Accepted{config}
//!  dirty ──▶ compose ─▶ differs? ─▶ Config
//!  ConfigResult, MainProcess, EnforcementReport ─▶ state ─▶ status (coalesced)
//!  Closed ─▶ status, after a grace: a reconnect within it is not worth a write
//! ```

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use openshell_crds::OpenShellSandbox;
use openshell_policy::{Policy, PolicyHash};
use openshell_proto::supervisor::{
    Accepted, Config, ConfigResult, EnforcementReport, FromGateway, Hello, MainProcess, Rejected, config_result::Outcome, from_gateway,
    from_supervisor,
};
use parking_lot::Mutex;
use tokio::{
    sync::{Notify, Semaphore, mpsc, oneshot, watch},
    time::{Instant, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;
use tonic::Status;
use uuid::Uuid;

use super::activity::{Activity, Said};
use super::{AcknowledgeError, Inner, compose, status};
use crate::limits::{DISCONNECT_GRACE, RECONNECT_GRACE, SANDBOX_QUEUE, STATUS_COALESCE};

/// Instances that were superseded are remembered, so that an old one cannot come back.
const SUPERSEDED_KEPT: usize = 8;

/// What reaches the task from the outside.
pub(super) enum Event {
    /// A supervisor said hello.
    Opened { hello: Hello, exchange: Option<String>, session: Session },
    /// A message of a session.
    Received { session: Uuid, payload: from_supervisor::Payload },
    /// A session ended.
    Closed { session: Uuid, why: &'static str },
    /// It was suspended because nothing happened in it, and somebody starts it.
    Wake { told: oneshot::Sender<Result<(), kube::Error>> },
    /// The sandbox was deleted.
    Deleted,
}

/// A live session.
#[derive(Clone)]
pub(super) struct Session {
    pub(super) id: Uuid,
    pub(super) outgoing: Outgoing,
    /// Cancelled when the session ends, from whichever side.
    pub(super) over: CancellationToken,
}

/// The way to a supervisor. Dropping every clone ends the stream.
#[derive(Clone)]
pub(super) struct Outgoing(mpsc::Sender<Result<FromGateway, Status>>);

impl Outgoing {
    pub(super) fn new(sender: mpsc::Sender<Result<FromGateway, Status>>) -> Self {
        Self(sender)
    }

    pub(super) async fn send(&self, payload: from_gateway::Payload) -> Result<(), mpsc::error::SendError<()>> {
        self.0.send(Ok(FromGateway { payload: Some(payload) })).await.map_err(|_| mpsc::error::SendError(()))
    }

    /// Says whether it fitted.
    pub(super) fn try_send(&self, payload: from_gateway::Payload) -> bool {
        self.0.try_send(Ok(FromGateway { payload: Some(payload) })).is_ok()
    }

    pub(super) fn reject(&self, rejected: Rejected) {
        self.try_send(from_gateway::Payload::Rejected(rejected));
    }
}

/// What the rest of the gateway may know at any moment.
#[derive(Clone, Default)]
struct Snapshot {
    session: Option<Session>,
    /// Newest policy revision in force.
    acknowledged: i64,
    /// A revision that was refused, and why.
    refused: Option<(i64, String)>,
}

/// The rest of the gateway's hold on the task.
#[derive(Clone)]
pub(super) struct Handle {
    pub(super) events: mpsc::Sender<Event>,
    pub(super) dirty: Arc<Notify>,
    pub(super) relays: Arc<Semaphore>,
    pub(super) activity: Arc<Activity>,
    snapshot: watch::Receiver<Snapshot>,
    seen: Arc<Mutex<Option<Seen>>>,
}

/// The parts of a sandbox's metadata that a configuration depends on.
#[derive(PartialEq)]
struct Seen {
    generation: Option<i64>,
    labels: BTreeMap<String, String>,
}

impl Handle {
    pub(super) fn connected(&self) -> bool {
        self.snapshot.borrow().session.is_some()
    }

    pub(super) fn session_now(&self) -> Option<Outgoing> {
        self.snapshot.borrow().session.as_ref().map(|s| s.outgoing.clone())
    }

    /// The session, waited for.
    pub(super) async fn session(&self, wait: Duration) -> Option<Outgoing> {
        let mut snapshot = self.snapshot.clone();
        let live = timeout(wait, snapshot.wait_for(|s| s.session.is_some())).await.ok()?.ok()?;
        live.session.as_ref().map(|s| s.outgoing.clone())
    }

    pub(super) async fn acknowledged(&self, revision: i64) -> Result<(), AcknowledgeError> {
        let mut snapshot = self.snapshot.clone();
        let decided = snapshot
            .wait_for(|s| s.acknowledged >= revision || s.refused.as_ref().is_some_and(|(refused, _)| *refused >= revision))
            .await
            .map_err(|_| AcknowledgeError::Refused("the sandbox was deleted".into()))?;
        match &decided.refused {
            Some((refused, why)) if *refused >= revision && decided.acknowledged < revision => Err(AcknowledgeError::Refused(why.clone())),
            _ => Ok(()),
        }
    }

    /// Whether an event about the sandbox can change its configuration: most are status writes.
    pub(super) fn concerns(&self, generation: Option<i64>, labels: &BTreeMap<String, String>) -> bool {
        let now = Seen { generation, labels: labels.clone() };
        let mut seen = self.seen.lock();
        let changed = seen.as_ref() != Some(&now);
        *seen = Some(now);
        changed
    }

    pub(super) async fn end(&self) {
        let _ = self.events.send(Event::Deleted).await;
    }
}

pub(super) fn spawn(inner: &Arc<Inner>, uid: String, relays: Arc<Semaphore>) -> Handle {
    let (events, queue) = mpsc::channel(SANDBOX_QUEUE);
    let (publish, snapshot) = watch::channel(Snapshot::default());
    let dirty = Arc::new(Notify::new());
    let activity = Arc::<Activity>::default();
    let task = Task {
        inner: Arc::clone(inner),
        uid,
        name: None,
        publish,
        superseded: VecDeque::new(),
        instance: None,
        exchange: None,
        enforcement: None,
        main: None,
        pushed: None,
        came_with: 0,
        came_begun: false,
        result: None,
        in_force: None,
        known_policy: None,
        problem: None,
        held_back: None,
        activity: Arc::clone(&activity),
        said: Said::default(),
        idle_timeout: IdleTimeout::Unknown,
        write_at: Some(Instant::now() + RECONNECT_GRACE),
        write_by: None,
        attempts: 0,
    };
    tokio::spawn(task.run(queue, Arc::clone(&dirty), inner.ended.clone()));
    Handle { events, dirty, relays, activity, snapshot, seen: Arc::default() }
}

/// The supervisor that is, or was last, connected.
#[derive(Clone)]
pub(super) struct Instance {
    pub(super) id: String,
    pub(super) version: String,
    pub(super) since: k8s_openapi::apimachinery::pkg::apis::meta::v1::Time,
}

/// Whether anybody wants to know when something was last done.
#[derive(Clone, Copy, PartialEq, Eq)]
enum IdleTimeout {
    /// The object has not been seen yet.
    Unknown,
    None,
    Some,
}

/// A policy revision and the policy.
#[derive(Clone)]
pub(super) struct Revision {
    pub(super) number: i64,
    pub(super) hash: PolicyHash,
    pub(super) policy: Arc<Policy>,
    /// Whether the history has it. The first one stands in the status until a second one follows.
    pub(super) recorded: bool,
}

/// Why there is no (new) configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Problem {
    /// CamelCase, for conditions.
    pub(super) reason: String,
    pub(super) message: String,
}

pub(super) struct Task {
    pub(super) inner: Arc<Inner>,
    pub(super) uid: String,
    name: Option<String>,
    publish: watch::Sender<Snapshot>,
    superseded: VecDeque<String>,
    pub(super) instance: Option<Instance>,
    /// The exchange that its token comes from.
    pub(super) exchange: Option<String>,
    pub(super) enforcement: Option<EnforcementReport>,
    pub(super) main: Option<MainProcess>,
    /// Last configuration that was sent to this instance.
    pub(super) pushed: Option<Config>,
    /// Revision of the configuration that the supervisor came with, and whether its agent had begun.
    came_with: u64,
    came_begun: bool,
    /// The answer to it.
    pub(super) result: Option<ConfigResult>,
    /// Policy that the supervisor acknowledged.
    pub(super) in_force: Option<Revision>,
    /// Newest policy revision of this sandbox: recorded once, not at every composition.
    pub(super) known_policy: Option<Revision>,
    pub(super) problem: Option<Problem>,
    /// Why the newest revision is not pushed, where its static part differs.
    pub(super) held_back: Option<String>,
    activity: Arc<Activity>,
    /// What the object says of it.
    pub(super) said: Said,
    idle_timeout: IdleTimeout,
    /// When the status is to be written.
    write_at: Option<Instant>,
    /// The latest time for a status that is still changing.
    write_by: Option<Instant>,
    attempts: u32,
}

impl Task {
    async fn run(mut self, mut queue: mpsc::Receiver<Event>, dirty: Arc<Notify>, ended: CancellationToken) {
        let activity = Arc::clone(&self.activity);
        loop {
            let (write_at, due) = (self.write_at, self.said.due());
            tokio::select! {
                event = queue.recv() => match event {
                    Some(Event::Deleted) | None => break,
                    Some(event) => self.handle(event).await,
                },
                () = dirty.notified() => self.recompose().await,
                () = activity.changed() => self.said.noted(Instant::now()),
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => self.say_activity().await,
                () = sleep_until(write_at.unwrap_or_else(Instant::now)), if write_at.is_some() => self.write().await,
                () = ended.cancelled() => {
                    self.drop_session();
                    return;
                }
            }
        }
        if let Some(session) = self.session() {
            session.outgoing.reject(super::service::not_found());
        }
        self.drop_session();
        self.inner.exchanges.forget(&self.uid);
    }

    pub(super) fn session(&self) -> Option<Session> {
        self.publish.borrow().session.clone()
    }

    fn drop_session(&mut self) {
        if let Some(session) = self.session() {
            session.over.cancel();
            self.inner.pending.session_lost(&self.uid);
        }
        self.publish.send_modify(|s| s.session = None);
    }

    pub(super) fn sandbox(&mut self) -> Option<Arc<OpenShellSandbox>> {
        let found = self.inner.objects.sandbox(&self.uid, &self.inner.config.namespace, self.name.as_deref());
        if let Some(sandbox) = &found {
            self.name.clone_from(&sandbox.metadata.name);
        }
        found
    }

    async fn handle(&mut self, event: Event) {
        match event {
            Event::Opened { hello, exchange, session } => {
                self.exchange = exchange;
                self.opened(hello, session).await;
            }
            Event::Received { session, payload } => {
                if self.session().is_some_and(|s| s.id == session) {
                    self.received(payload).await;
                }
            }
            Event::Closed { session, why } => {
                if self.session().is_some_and(|s| s.id == session) {
                    tracing::info!(sandbox = self.uid, why, "supervisor disconnected");
                    self.drop_session();
                    self.write_at = Some(Instant::now() + DISCONNECT_GRACE);
                }
            }
            Event::Wake { told } => {
                self.said.say(Some(k8s_openapi::jiff::Timestamp::now()), Instant::now());
                // Nobody waits any more: it was done all the same.
                let _ = told.send(status::write(self).await);
            }
            Event::Deleted => {}
        }
    }

    /// A supervisor that was not there before begins an idle period; one that only comes back goes
    /// on in its own.
    fn came(&mut self, instance: &str) {
        let known = |sandbox: &OpenShellSandbox| Some(sandbox.status.as_ref()?.session.as_ref()?.instance_id == instance);
        if self.sandbox().and_then(|sandbox| known(&sandbox)) != Some(true) {
            // Said along with the session.
            self.said.last = Some(k8s_openapi::jiff::Timestamp::now());
        }
    }

    /// Writes when something was last done. Of a sandbox that nobody is connected to, or in which
    /// nobody waits for nothing to happen, there is nothing to say.
    async fn say_activity(&mut self) {
        if self.session().is_none() || self.idle_timeout != IdleTimeout::Some {
            self.said.hush();
            return;
        }
        self.said.say(self.activity.last(), Instant::now());
        if self.activity.goes_on() {
            self.said.noted(Instant::now());
        }
        self.write().await;
    }

    /// Follows `spec.idleTimeout`: where it is new, what is known already is said.
    fn follow_idle_timeout(&mut self) {
        let Some(sandbox) = self.sandbox() else { return };
        let now = if sandbox.spec.idle_timeout.is_some() { IdleTimeout::Some } else { IdleTimeout::None };
        let before = std::mem::replace(&mut self.idle_timeout, now);
        // A gateway that has just started leaves what the one before has said.
        if before == IdleTimeout::Unknown || before == now {
            return;
        }
        self.said.say(self.activity.last(), Instant::now());
        self.touch();
    }

    /// Takes a new session in. It supersedes the one before, unless it belongs to an instance
    /// that was superseded itself.
    async fn opened(&mut self, hello: Hello, session: Session) {
        let superseded =
            || Rejected { code: "Superseded".into(), message: "another supervisor has taken over this sandbox".into(), retry: false };
        if self.superseded.contains(&hello.instance_id) {
            session.outgoing.reject(superseded());
            session.over.cancel();
            return;
        }
        let same_instance = self.instance.as_ref().is_some_and(|i| i.id == hello.instance_id);
        if let Some(previous) = self.session() {
            if !same_instance {
                previous.outgoing.reject(superseded());
            }
            self.drop_session();
        }
        if !same_instance {
            if let Some(previous) = self.instance.take() {
                self.superseded.push_back(previous.id);
                self.superseded.truncate(SUPERSEDED_KEPT);
            }
            self.pushed = None;
            self.in_force = None;
            self.came(&hello.instance_id);
            self.publish.send_modify(|s| {
                s.acknowledged = 0;
                s.refused = None;
            });
        }
        if self.in_force.is_none() && !hello.policy_hash.is_empty() {
            self.in_force = compose::recall(self, &hello.policy_hash).await;
            let acknowledged = self.in_force.as_ref().map_or(0, |r| r.number);
            self.publish.send_modify(|s| s.acknowledged = acknowledged);
        }
        self.result = None;
        self.instance = Some(Instance { id: hello.instance_id.clone(), version: hello.version, since: status::now() });
        self.enforcement = hello.enforcement;
        self.main = hello.main_process;
        // Where the supervisor has a configuration that this gateway does not know, the next
        // one has a higher number.
        let held = hello.config_revision;
        let log_acked = if !same_instance && held == 0 {
            // It has said nothing yet; what it says twice is stored once.
            0
        } else {
            self.inner.config.logs.acknowledged(&self.uid, &hello.instance_id).await.unwrap_or_else(|error| {
                tracing::warn!(sandbox = self.uid, %error, "the log store does not answer; the supervisor sends again what it kept");
                0
            })
        };
        (self.came_with, self.came_begun) = (held, held > 0 && self.has_begun());
        let config = self.compose(Some(self.holds())).await.map(|mut config| {
            let known = self.pushed.as_ref().map_or(0, |p| p.revision);
            config.revision = if known == held && self.pushed.as_ref().is_some_and(|p| same_content(p, &config)) {
                known.max(1)
            } else {
                known.max(held) + 1
            };
            config
        });
        let accepted = Accepted {
            session_id: session.id.to_string(),
            heartbeat_interval: prost_types::Duration::try_from(self.inner.heartbeat).ok(),
            config: config.clone(),
            log_acked,
        };
        if !session.outgoing.try_send(from_gateway::Payload::Accepted(accepted)) {
            session.over.cancel();
            return;
        }
        tracing::info!(sandbox = self.uid, instance = hello.instance_id, "supervisor connected");
        if config.is_some() {
            self.pushed = config;
        }
        self.publish.send_modify(|s| s.session = Some(session));
        self.touch();
    }

    async fn received(&mut self, payload: from_supervisor::Payload) {
        match payload {
            from_supervisor::Payload::ConfigResult(result) => self.answered(result),
            from_supervisor::Payload::MainProcess(main) => {
                self.main = Some(main);
                self.touch();
            }
            from_supervisor::Payload::Enforcement(report) => {
                self.enforcement = Some(report);
                self.touch();
                // Credentials may now go out, or must not.
                self.recompose().await;
            }
            // Taken before they reach this task.
            from_supervisor::Payload::Hello(_)
            | from_supervisor::Payload::Heartbeat(_)
            | from_supervisor::Payload::Logs(_)
            | from_supervisor::Payload::RelayRefused(_) => {}
        }
    }

    fn answered(&mut self, result: ConfigResult) {
        let Some(pushed) = self.pushed.as_ref().filter(|p| p.revision == result.revision) else { return };
        let number = i64::from(pushed.policy_version);
        if result.outcome() == Outcome::Applied {
            self.in_force = self.known_policy.clone().filter(|k| k.number == number).or_else(|| self.in_force.clone());
            self.publish.send_modify(|s| {
                s.acknowledged = number;
                s.refused = s.refused.take().filter(|(refused, _)| *refused > number);
            });
        } else {
            tracing::warn!(sandbox = self.uid, revision = result.revision, error = result.error, "the supervisor refused a configuration");
            self.publish.send_modify(|s| s.refused = Some((number, result.error.clone())));
        }
        self.result = Some(result);
        self.touch();
    }

    /// Composes, and pushes what differs.
    async fn recompose(&mut self) {
        let shown = |task: &Self| (task.problem.clone(), task.held_back.clone(), task.known_policy.as_ref().map(|k| k.number));
        let before = shown(self);
        self.follow_idle_timeout();
        let connected = self.session().map(|_| self.holds());
        let config = self.compose(connected).await;
        // The first composition of a new sandbox is not worth a write: its supervisor is on its way.
        let expected = before.2.is_none() && self.instance.is_none() && self.problem.is_none();
        if shown(self) != before && !expected {
            self.touch();
        }
        let (Some(mut config), Some(session)) = (config, self.session()) else { return };
        if let Some(pushed) = &self.pushed {
            if same_content(pushed, &config) {
                return;
            }
            config.revision = pushed.revision + 1;
        } else {
            config.revision = self.came_with + 1;
        }
        if session.outgoing.try_send(from_gateway::Payload::Config(config.clone())) {
            self.pushed = Some(config);
            self.result = None;
        } else {
            // The queue is full: the supervisor does not read. It gets everything when it resumes.
            session.over.cancel();
        }
        self.touch();
    }

    /// An agent that is still held back starts with all of its credentials.
    fn holds(&self) -> compose::Held {
        let begun = self.pushed.as_ref().map_or(self.came_begun, |pushed| !pushed.await_enforcement);
        if begun { compose::Held::Something } else { compose::Held::Nothing }
    }

    /// Whether the supervisor holds its agent back no more, or has none.
    fn has_begun(&mut self) -> bool {
        let began = |main: &MainProcess| main.state() != openshell_proto::supervisor::main_process::State::None;
        self.main.as_ref().is_some_and(began) || self.sandbox().is_some_and(|sandbox| sandbox.spec.command.is_empty())
    }

    /// Composes for a supervisor that is connected. With none, the policy is checked and recorded.
    async fn compose(&mut self, connected: Option<compose::Held>) -> Option<Config> {
        let held = connected.unwrap_or(compose::Held::Nothing);
        let composed = match compose::prepare(self, held).await {
            Ok(prepared) if connected.is_some() => compose::config(self, prepared, held).await.map(Some),
            Ok(_) => Ok(None),
            Err(failure) => Err(failure),
        };
        match composed {
            Ok(composed) => {
                let (config, problem) = composed.map_or((None, None), |composed| (Some(composed.config), composed.problem));
                self.problem = problem;
                config
            }
            Err(compose::Failure::Problem(problem)) => {
                if let Some(known) = &self.known_policy {
                    let (number, message) = (known.number, problem.message.clone());
                    self.publish.send_modify(|s| s.refused = Some((number, message)));
                }
                self.problem = Some(problem);
                match (&self.pushed, held) {
                    (Some(pushed), compose::Held::Something) => Some(compose::still_given(self, pushed.clone()).await),
                    _ => None,
                }
            }
            Err(compose::Failure::Absent) => None,
        }
    }

    /// A policy that the gateway does not push because its static part differs: it is known,
    /// it is not in force, and waiting for it ends.
    pub(super) fn refuse_revision(&self, number: i64, why: &str) {
        self.publish.send_modify(|s| s.refused = Some((number, why.to_owned())));
    }

    /// Something changed that the status shows. Written at once when nothing more is expected
    /// to follow, and otherwise within a bound.
    fn touch(&mut self) {
        let now = Instant::now();
        let by = *self.write_by.get_or_insert(now + STATUS_COALESCE);
        self.write_at = Some(if self.settled() { now } else { by });
    }

    fn settled(&self) -> bool {
        let Some(config) = &self.pushed else { return self.problem.is_some() };
        let answered = self.result.as_ref().is_some_and(|r| r.revision == config.revision);
        let refused = self.result.as_ref().is_some_and(|r| r.outcome() == Outcome::Refused);
        let wants_main = config.main.as_ref().is_some_and(|m| !m.command.is_empty() && !m.await_attach);
        let main_known = self.main.as_ref().is_some_and(|m| m.state() != openshell_proto::supervisor::main_process::State::None);
        answered && (refused || (!config.await_enforcement && (main_known || !wants_main)))
    }

    async fn write(&mut self) {
        self.write_at = None;
        self.write_by = None;
        match status::write(self).await {
            Ok(()) => self.attempts = 0,
            Err(error) => {
                self.attempts += 1;
                if self.attempts < crate::limits::STATUS_ATTEMPTS {
                    self.write_at = Some(Instant::now() + STATUS_COALESCE * self.attempts);
                } else {
                    self.attempts = 0;
                    tracing::warn!(sandbox = self.uid, %error, "the status was not written; it is when something changes again");
                }
            }
        }
    }
}

/// Equal but for the revision.
fn same_content(a: &Config, b: &Config) -> bool {
    Config { revision: 0, ..a.clone() } == Config { revision: 0, ..b.clone() }
}
