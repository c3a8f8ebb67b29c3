//! The gateway's side of the supervisors' sessions.
//!
//! ```text
//!  supervisor ══ Control ══▶ service ──▶ one task per sandbox ──▶ status (API)
//!                               │             ▲        │ compose: blueprint + secrets -> Config
//!                               │ logs        │ dirty  ▼
//!                               ▼             │     Config pushed, acknowledged
//!                           LogStore      watches of sandboxes, policies, providers, secrets
//!  supervisor ══ Relay ═══▶ relay ◀── exec, attach_main (api)
//! ```
//!
//! * [`service`](self): the gRPC service. Authentication is not done here: the server puts a
//!   [`SandboxPrincipal`] into the request's extensions, and nobody else gets in.
//! * `sandbox`: everything about one sandbox happens in one task, so nothing needs a lock.
//! * `exchange`: tokens for supervisors in pods.
//! * `compose`: what a supervisor is told. Credentials leave here only for a session whose
//!   enforcement can keep them from the agent.
//! * `activity`: when something was last done in a sandbox.
//! * `status`: what the session knows, written to the object: only when it changed, coalesced.
//! * [`logs`]: what the supervisors recorded.
//!
//! The controllers are met only in the API object.

mod activity;
mod compose;
mod exchange;
pub mod logs;
mod relay;
mod sandbox;

mod service;
mod status;
mod watch;

use std::{collections::HashMap, sync::Arc, time::Duration};

use openshell_proto::supervisor::{AttachMain, Exec, Shutdown, from_gateway, relay_open};
use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

pub use exchange::{Attest, AttestError, Attested, Exchange};
pub use logs::{Level, LogError, LogQuery, LogStore, StoredLog};
pub use openshell_operator::api::SecretValues;
pub use relay::{ExecHandle, RelayError};

use crate::limits::{HEARTBEAT_INTERVAL, RELAY_WAIT, RELAYS_PER_SANDBOX, SHUTDOWN_GRACE};

/// Who calls the session service: the sandbox that the caller's token was minted for. Put into
/// the request's extensions by the server after it verified the token.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SandboxPrincipal {
    /// UID of the `OpenShellSandbox`.
    pub sandbox_id: String,
    /// The exchange that the token comes from, if it comes from one.
    pub exchange: Option<String>,
}

/// What a [`Hub`] works on.
#[derive(Clone)]
pub struct HubConfig {
    /// The objects.
    pub client: kube::Client,
    /// Values of the Secrets that providers refer to.
    pub secrets: Arc<dyn SecretValues>,
    /// Where logs are kept.
    pub logs: LogStore,
    /// Namespace of the sandboxes.
    pub namespace: String,
    /// Name of the `OpenShellGateway` whose defaults apply.
    pub gateway_name: String,
    /// Its namespace.
    pub gateway_namespace: String,
    /// Addresses that no sandbox may reach whatever its policy says: `host:port` or an IP.
    pub forbidden_destinations: Vec<String>,
    /// As these, where they change: of a cluster.
    pub places: Option<tokio::sync::watch::Receiver<Vec<String>>>,
    /// How supervisors get their tokens, where no driver hands them over.
    pub exchange: Option<Exchange>,
}

/// A policy revision did not come into force.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AcknowledgeError {
    /// The supervisor or the gateway refused it; what was in force still is.
    #[error("the policy was not applied: {0}")]
    Refused(String),
    /// No answer yet.
    #[error("the sandbox did not acknowledge the policy in time; it is pushed again when its session resumes")]
    TimedOut,
}

/// Sessions of all supervisors. Cheap to clone.
#[derive(Clone)]
pub struct Hub {
    inner: Arc<Inner>,
}

struct Inner {
    config: HubConfig,
    heartbeat: Duration,
    objects: watch::Objects,
    sandboxes: Mutex<HashMap<String, sandbox::Handle>>,
    pending: Arc<relay::Pending>,
    exchanges: exchange::Exchanges,
    /// Ends the tasks of the sandboxes; cancelled when `run` ends.
    ended: CancellationToken,
}

impl Hub {
    /// A hub that serves once [`Hub::run`] runs.
    pub fn new(config: HubConfig) -> Self {
        Self::with_heartbeat(config, HEARTBEAT_INTERVAL)
    }

    /// A hub with another interval of heartbeats.
    pub fn with_heartbeat(config: HubConfig, heartbeat: Duration) -> Self {
        let inner = Inner {
            config,
            heartbeat,
            objects: watch::Objects::new(),
            sandboxes: Mutex::default(),
            pending: Arc::default(),
            exchanges: exchange::Exchanges::default(),
            ended: CancellationToken::new(),
        };
        Self { inner: Arc::new(inner) }
    }

    /// Watches sandboxes, policies, providers, secrets and the gateway, and pushes every change
    /// of a configuration to its supervisor. Ends when `shutdown` is cancelled; sandboxes go on.
    pub async fn run(&self, shutdown: CancellationToken) {
        let _ended = self.inner.ended.clone().drop_guard();
        Box::pin(watch::run(&self.inner, &shutdown)).await;
    }

    /// Runs a command. Waits for the session, and for the supervisor to open the relay.
    pub async fn exec(&self, uid: &str, exec: Exec) -> Result<ExecHandle, RelayError> {
        self.relay(uid, relay_open::Target::Exec(exec)).await
    }

    /// Attaches to the main process: first what it last wrote, then what it writes.
    pub async fn attach_main(&self, uid: &str, attach: AttachMain) -> Result<ExecHandle, RelayError> {
        self.relay(uid, relay_open::Target::AttachMain(attach)).await
    }

    async fn relay(&self, uid: &str, target: relay_open::Target) -> Result<ExecHandle, RelayError> {
        let handle = self.inner.handle(uid);
        let permit = Arc::clone(&handle.relays).try_acquire_owned().map_err(|_| RelayError::LimitReached(RELAYS_PER_SANDBOX))?;
        let session = handle.session(RELAY_WAIT).await.ok_or(RelayError::NotConnected)?;
        let mut requested = self.inner.pending.request(uid, permit, handle.activity.begin());
        let open = openshell_proto::supervisor::RelayOpen { relay_id: requested.id.clone(), target: Some(target) };
        session.send(from_gateway::Payload::RelayOpen(open)).await.map_err(|_| RelayError::Lost)?;
        match tokio::time::timeout(RELAY_WAIT, &mut requested.opened).await {
            Ok(Ok(Ok(()))) => requested.handle.take().ok_or(RelayError::Lost),
            Ok(Ok(Err(error))) => Err(error),
            Ok(Err(_)) => Err(RelayError::Lost),
            Err(_) => Err(RelayError::TimedOut),
        }
    }

    /// Ends a suspension that nobody asked for (`spec.idleTimeout`): the object says that something
    /// was done, and whoever runs the sandbox starts it.
    pub async fn wake(&self, uid: &str) -> Result<(), kube::Error> {
        let lost = || kube::Error::Service("the sandbox was deleted".into());
        let (told, answer) = tokio::sync::oneshot::channel();
        let events = self.inner.handle(uid).events;
        events.send(sandbox::Event::Wake { told }).await.map_err(|_| lost())?;
        answer.await.map_err(|_| lost())?
    }

    /// Whether a session is live.
    pub fn connected(&self, uid: &str) -> bool {
        self.inner.sandboxes.lock().get(uid).is_some_and(sandbox::Handle::connected)
    }

    /// Asks the supervisor to end its sandbox: SIGTERM to the agent, SIGKILL after a grace
    /// period, then it exits. Does nothing where no session is live: the driver ends it.
    pub async fn shutdown_sandbox(&self, uid: &str, reason: &str) {
        let handle = self.inner.sandboxes.lock().get(uid).cloned();
        let Some(session) = handle.and_then(|h| h.session_now()) else { return };
        let grace = prost_types::Duration { seconds: SHUTDOWN_GRACE.as_secs() as i64, nanos: 0 };
        let _ = session.send(from_gateway::Payload::Shutdown(Shutdown { grace: Some(grace), reason: reason.to_owned() })).await;
    }

    /// Waits until the supervisor enforces this policy revision, or a newer one.
    pub async fn wait_acknowledged(&self, uid: &str, revision: i64, timeout: Duration) -> Result<(), AcknowledgeError> {
        let handle = self.inner.handle(uid);
        tokio::time::timeout(timeout, handle.acknowledged(revision)).await.map_err(|_| AcknowledgeError::TimedOut)?
    }

    /// Logs of all sandboxes.
    pub fn logs(&self) -> LogStore {
        self.inner.config.logs.clone()
    }
}

impl Inner {
    /// The task of a sandbox, started if there is none.
    fn handle(self: &Arc<Self>, uid: &str) -> sandbox::Handle {
        let mut sandboxes = self.sandboxes.lock();
        if let Some(handle) = sandboxes.get(uid) {
            return handle.clone();
        }
        let handle = sandbox::spawn(self, uid.to_owned(), Arc::new(Semaphore::new(RELAYS_PER_SANDBOX)));
        sandboxes.insert(uid.to_owned(), handle.clone());
        handle
    }
}
