//! The session with the gateway: what it wants comes in, what happens goes out.
//!
//! ```text
//!   run ── connect ── control: one session ─▶ lost ─▶ wait (full jitter) ─▶ connect ...
//!                        │  Config ─▶ Sandbox::apply ─▶ ConfigResult
//!                        │  RelayOpen ─▶ relay: a call of its own on the same connection
//!                        │  Report changes ─▶ MainProcess, EnforcementReport
//!                        └  AuditQueue ─▶ LogBatch ◂▸ LogAck
//! ```
//!
//! While the gateway is away everything that is enforced stays enforced, the main process goes
//! on, and records wait in their bounded queue. What changed meanwhile is in the next `Hello`.
//! A gateway that says that this sandbox is gone ends it; one that cannot be reached, or
//! refuses the token, does not.

mod backoff;
mod connect;
mod control;
mod logs;
mod proof;
mod relay;

use std::{sync::Arc, time::Duration};

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub use connect::ConnectError;
pub use proof::{Proof, ProofError};

use crate::{
    audit::{AuditQueue, Level},
    bootstrap::GatewayAccess,
    limits::session::FLUSH_TIME,
    sandbox::{Fatal, Report, Sandbox},
};

/// Who this supervisor is, and whom it talks to.
pub struct Identity {
    /// UID of the sandbox.
    pub sandbox_id: String,
    /// New for every supervisor process.
    pub instance_id: String,
    /// The gateway.
    pub gateway: GatewayAccess,
    /// What is shown to it.
    pub proof: Proof,
}

/// A session on its way.
pub struct Early(JoinHandle<Result<control::Opened, Ended>>);

/// Begins the first session, while the rest of the supervisor is still being made: its `Hello` says
/// that nothing runs.
pub fn begin_early(identity: &Arc<Identity>) -> Early {
    let identity = Arc::clone(identity);
    Early(tokio::spawn(async move { open(&identity, Report::nothing()).await }))
}

async fn open(identity: &Arc<Identity>, report: Report) -> Result<control::Opened, Ended> {
    let channel = connect::connect(&identity.gateway).await.map_err(|error| Ended::Lost(error.to_string()))?;
    control::open(channel, identity, report).await
}

/// Why the session is over for good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// The gateway ended the sandbox.
    Shutdown {
        /// Between SIGTERM and SIGKILL.
        grace: Option<Duration>,
        /// For the log.
        reason: String,
    },
    /// The gateway does not know this sandbox, or this supervisor, any more.
    Rejected {
        /// Stable code.
        code: String,
        /// For people.
        message: String,
    },
    /// The sandbox cannot go on.
    Fatal(Fatal),
    /// We were asked to finish, and have.
    Finished,
}

/// How one session ended.
enum Ended {
    /// To be resumed.
    Lost(String),
    /// For good.
    End(End),
}

/// Keeps a session with the gateway until there is nothing more to say. `finish` asks to report
/// what is left and return.
pub async fn run(identity: &Arc<Identity>, early: Early, sandbox: &Sandbox, queue: &AuditQueue, finish: &CancellationToken) -> End {
    let mut early = Some(early);
    let mut backoff = backoff::Backoff::new();
    let mut told = false;
    loop {
        if finish.is_cancelled() {
            return End::Finished;
        }
        let mut accepted = false;
        let ended = tokio::select! {
            ended = attempt(identity, early.take(), sandbox, queue, finish, &mut accepted) => ended,
            () = late(finish) => return End::Finished,
        };
        let why = match ended {
            Ended::End(end) => return end,
            Ended::Lost(why) => why,
        };
        if accepted {
            backoff.reset();
            told = false;
        }
        // Said once, not at every attempt.
        if !told {
            sandbox.audit().log(
                Level::Warn,
                "supervisor",
                format!("the session with the gateway is lost ({why}); the policy in force stays, and the session is resumed"),
            );
            tracing::warn!(why, "session lost");
            told = true;
        }
        tokio::select! {
            () = tokio::time::sleep(backoff.next()) => {}
            () = finish.cancelled() => {}
        }
    }
}

/// Reports what is left in a session of its own, if the gateway takes it in a short time.
pub async fn farewell(identity: &Arc<Identity>, sandbox: &Sandbox, queue: &AuditQueue) {
    let finish = CancellationToken::new();
    finish.cancel();
    let _ = tokio::time::timeout(FLUSH_TIME, attempt(identity, None, sandbox, queue, &finish, &mut false)).await;
}

async fn attempt(
    identity: &Arc<Identity>,
    early: Option<Early>,
    sandbox: &Sandbox,
    queue: &AuditQueue,
    finish: &CancellationToken,
    accepted: &mut bool,
) -> Ended {
    let opened = if let Some(Early(opening)) = early {
        opening.await.unwrap_or_else(|error| Err(Ended::Lost(ConnectError::aborted(&identity.gateway, &error).to_string())))
    } else {
        let report = sandbox.report().borrow().clone();
        open(identity, report).await
    };
    match opened {
        Ok(opened) => {
            *accepted = true;
            Box::pin(control::run(opened, sandbox, queue, finish)).await
        }
        Err(ended) => ended,
    }
}

/// A gateway that does not take the last report cannot keep the sandbox from ending.
async fn late(finish: &CancellationToken) {
    finish.cancelled().await;
    tokio::time::sleep(FLUSH_TIME).await;
}
