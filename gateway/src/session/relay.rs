//! Relays: an exec or an attachment, as a stream of its own on the supervisor's connection.
//!
//! ```text
//!  api: exec(uid) ──▶ RelayOpen{id} on the session ──▶ supervisor
//!        ExecHandle ◀── pump ◀── Relay call, first message RelayHello{id}
//! ```
//!
//! Both directions are bounded and independent: a command that does not read its input cannot
//! stop its own output. Dropping the handle's `events` ends the relay, and with it the command;
//! dropping only `stdin` is the end of its input.

use std::{collections::HashMap, sync::Arc};

use openshell_proto::supervisor::{Eof, RelayDown, RelayUp, relay_down, relay_up};
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};
use tokio_stream::Stream;
use tokio_util::sync::CancellationToken;
use tonic::{Status, Streaming};

use super::activity::Busy;
use crate::limits::RELAY_QUEUE;

/// A running command, or an attachment to the main process.
#[derive(Debug)]
pub struct ExecHandle {
    /// Input, resizes and signals. Closing it is the end of the input.
    pub stdin: mpsc::Sender<relay_down::Payload>,
    /// Output, and last the exit. Ends without an exit if the sandbox was lost. Dropping it
    /// ends an exec (SIGHUP, then SIGKILL) and detaches from the main process.
    pub events: mpsc::Receiver<relay_up::Payload>,
}

/// Why there is no relay.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RelayError {
    /// No supervisor is connected, and none came in time.
    #[error("the sandbox is not connected; it may be starting, stopped or have failed: see its conditions")]
    NotConnected,
    /// The session ended before the relay was open.
    #[error("the session with the sandbox ended while the command was being started; try again")]
    Lost,
    /// The supervisor did not open the relay in time.
    #[error("the sandbox did not answer in time")]
    TimedOut,
    /// Too many at a time.
    #[error("the sandbox runs {0} commands at a time and that many are running; end one of them first")]
    LimitReached(usize),
    /// The supervisor refused; `code` is stable (`NotRunning`, `NoMainProcess`, `LimitReached`, ...).
    #[error("{message}")]
    Refused {
        /// Stable code.
        code: String,
        /// A sentence for people.
        message: String,
    },
}

/// Relays that were asked for and are not open yet.
#[derive(Debug, Default)]
pub(super) struct Pending {
    waiting: Mutex<HashMap<String, Waiting>>,
}

#[derive(Debug)]
pub(super) struct Waiting {
    sandbox: String,
    opened: oneshot::Sender<Result<(), RelayError>>,
    events: mpsc::Sender<relay_up::Payload>,
    stdin: mpsc::Receiver<relay_down::Payload>,
    held: Held,
}

/// What a relay holds until it is over: its place, and the sandbox busy.
type Held = (OwnedSemaphorePermit, Busy);

/// A relay that was asked for; forgets the request when it is dropped.
pub(super) struct Requested {
    pending: Arc<Pending>,
    pub(super) id: String,
    pub(super) opened: oneshot::Receiver<Result<(), RelayError>>,
    pub(super) handle: Option<ExecHandle>,
}

impl Drop for Requested {
    fn drop(&mut self) {
        self.pending.waiting.lock().remove(&self.id);
    }
}

impl Pending {
    pub(super) fn request(self: &Arc<Self>, sandbox: &str, permit: OwnedSemaphorePermit, busy: Busy) -> Requested {
        let id = uuid::Uuid::new_v4().to_string();
        let (opened_tx, opened) = oneshot::channel();
        let (events_tx, events) = mpsc::channel(RELAY_QUEUE);
        let (stdin, stdin_rx) = mpsc::channel(RELAY_QUEUE);
        let waiting = Waiting { sandbox: sandbox.to_owned(), opened: opened_tx, events: events_tx, stdin: stdin_rx, held: (permit, busy) };
        self.waiting.lock().insert(id.clone(), waiting);
        Requested { pending: Arc::clone(self), id, opened, handle: Some(ExecHandle { stdin, events }) }
    }

    /// The relay that this sandbox was asked to open; another sandbox's is not found.
    fn take(&self, id: &str, sandbox: &str) -> Option<Waiting> {
        let mut waiting = self.waiting.lock();
        if waiting.get(id)?.sandbox != sandbox {
            return None;
        }
        waiting.remove(id)
    }

    pub(super) fn refuse(&self, id: &str, sandbox: &str, error: RelayError) {
        if let Some(waiting) = self.take(id, sandbox) {
            let _ = waiting.opened.send(Err(error));
        }
    }

    /// Refuses everything that a sandbox was asked for: its session ended.
    pub(super) fn session_lost(&self, sandbox: &str) {
        let lost: Vec<_> = {
            let mut waiting = self.waiting.lock();
            let ids: Vec<_> = waiting.iter().filter(|(_, w)| w.sandbox == sandbox).map(|(id, _)| id.clone()).collect();
            ids.iter().filter_map(|id| waiting.remove(id)).collect()
        };
        for waiting in lost {
            let _ = waiting.opened.send(Err(RelayError::Lost));
        }
    }

    /// Serves a `Relay` call: carries both directions until either side ends it.
    pub(super) fn open(
        &self,
        id: &str,
        sandbox: &str,
        up: Streaming<RelayUp>,
    ) -> Result<impl Stream<Item = Result<RelayDown, Status>> + Send + use<>, Status> {
        let waiting = self.take(id, sandbox).ok_or_else(|| Status::not_found("no such relay is waited for; it may have been given up"))?;
        let done = CancellationToken::new();
        let _ = waiting.opened.send(Ok(()));
        tokio::spawn(pump_up(up, waiting.events, done.clone(), waiting.held));
        let down = Down { stdin: Some(waiting.stdin), done };
        Ok(futures::stream::unfold(down, |mut down| async move {
            let payload = down.next().await?;
            Some((Ok(RelayDown { payload: Some(payload) }), down))
        }))
    }
}

async fn pump_up(mut up: Streaming<RelayUp>, events: mpsc::Sender<relay_up::Payload>, done: CancellationToken, _held: Held) {
    let _ended = done.drop_guard();
    loop {
        let message = tokio::select! {
            message = up.message() => message,
            () = events.closed() => return,
        };
        match message {
            Ok(Some(RelayUp { payload: Some(payload) })) => {
                if events.send(payload).await.is_err() {
                    return;
                }
            }
            Ok(Some(RelayUp { payload: None })) => {}
            Ok(None) => return,
            Err(status) => {
                tracing::debug!(code = ?status.code(), message = status.message(), "relay ended");
                return;
            }
        }
    }
}

struct Down {
    stdin: Option<mpsc::Receiver<relay_down::Payload>>,
    done: CancellationToken,
}

impl Down {
    /// What the client sends, then one `Eof`, then nothing until the relay is over: the end of
    /// this direction without `Eof` tells the supervisor that the client has gone.
    async fn next(&mut self) -> Option<relay_down::Payload> {
        let Some(stdin) = &mut self.stdin else {
            self.done.cancelled().await;
            return None;
        };
        tokio::select! {
            payload = stdin.recv() => {
                if payload.is_none() {
                    self.stdin = None;
                }
                Some(payload.unwrap_or(relay_down::Payload::Eof(Eof {})))
            }
            () = self.done.cancelled() => None,
        }
    }
}
