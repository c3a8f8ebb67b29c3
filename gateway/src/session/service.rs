//! The gRPC service: takes a session or a relay in, and reads it until it ends.

use std::{pin::Pin, sync::Arc};

use openshell_proto::supervisor::{
    ExchangeRequest, FromGateway, FromSupervisor, Heartbeat, Hello, LogAck, LogBatch, Rejected, RelayDown, RelayUp, RenewRequest,
    SandboxToken, from_gateway, from_supervisor, relay_up, supervisor_session_server::SupervisorSession,
};
use tokio::{
    sync::mpsc,
    time::{Instant, MissedTickBehavior, interval, sleep_until, timeout},
};
use tokio_stream::{Stream, wrappers::ReceiverStream};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};
use uuid::Uuid;

use super::{
    Hub, Inner, RelayError, exchange,
    sandbox::{Event, Handle, Outgoing, Session},
};
use crate::limits::{HELLO_TIMEOUT, LOG_BATCH, SESSION_QUEUE};

/// After so many silent intervals the session is over.
const SILENT_INTERVALS: u32 = 3;

#[tonic::async_trait]
impl SupervisorSession for Hub {
    type ControlStream = Pin<Box<dyn Stream<Item = Result<FromGateway, Status>> + Send>>;
    type RelayStream = Pin<Box<dyn Stream<Item = Result<RelayDown, Status>> + Send>>;

    async fn control(&self, request: Request<Streaming<FromSupervisor>>) -> Result<Response<Self::ControlStream>, Status> {
        let principal = exchange::principal(&self.inner, &request)?;
        let mut inbound = request.into_inner();
        let hello = first_hello(&mut inbound).await?;
        if hello.sandbox_id != principal.sandbox_id {
            return Err(Status::permission_denied("the token was minted for another sandbox than the one in Hello"));
        }
        if hello.instance_id.is_empty() {
            return Err(Status::invalid_argument("Hello.instance_id is empty"));
        }
        let (outgoing, stream) = mpsc::channel(SESSION_QUEUE);
        if let Some(rejected) = self.inner.objects.admit(&self.inner, &principal.sandbox_id).await {
            tracing::info!(sandbox = principal.sandbox_id, code = rejected.code, "session rejected");
            let _ = outgoing.try_send(Ok(FromGateway { payload: Some(from_gateway::Payload::Rejected(rejected)) }));
            return Ok(Response::new(Box::pin(ReceiverStream::new(stream))));
        }
        let handle = self.inner.handle(&principal.sandbox_id);
        let session = Session { id: Uuid::new_v4(), outgoing: Outgoing::new(outgoing), over: CancellationToken::new() };
        let instance = hello.instance_id.clone();
        let opened = Event::Opened { hello, exchange: principal.exchange, session: session.clone() };
        if handle.events.send(opened).await.is_err() {
            // The sandbox was deleted between the check and now.
            session.outgoing.reject(not_found());
            return Ok(Response::new(Box::pin(ReceiverStream::new(stream))));
        }
        tokio::spawn(read(Arc::clone(&self.inner), principal.sandbox_id, instance, handle, session, inbound));
        Ok(Response::new(Box::pin(ReceiverStream::new(stream))))
    }

    async fn relay(&self, request: Request<Streaming<RelayUp>>) -> Result<Response<Self::RelayStream>, Status> {
        let principal = exchange::principal(&self.inner, &request)?;
        let mut up = request.into_inner();
        let first = timeout(HELLO_TIMEOUT, up.message()).await.map_err(|_| Status::deadline_exceeded("no RelayHello came"))??;
        let Some(RelayUp { payload: Some(relay_up::Payload::Hello(hello)) }) = first else {
            return Err(Status::invalid_argument("the first message of a relay must be RelayHello"));
        };
        let down = self.inner.pending.open(&hello.relay_id, &principal.sandbox_id, up)?;
        Ok(Response::new(Box::pin(down)))
    }

    async fn exchange(&self, request: Request<ExchangeRequest>) -> Result<Response<SandboxToken>, Status> {
        exchange::exchange(&self.inner, request).await
    }

    async fn renew(&self, request: Request<RenewRequest>) -> Result<Response<SandboxToken>, Status> {
        exchange::renew(&self.inner, &request)
    }
}

pub(super) fn not_found() -> Rejected {
    Rejected { code: "SandboxNotFound".into(), message: "there is no such sandbox; it was deleted".into(), retry: false }
}

async fn first_hello(inbound: &mut Streaming<FromSupervisor>) -> Result<Hello, Status> {
    let first = timeout(HELLO_TIMEOUT, inbound.message()).await.map_err(|_| Status::deadline_exceeded("no Hello came"))??;
    match first {
        Some(FromSupervisor { payload: Some(from_supervisor::Payload::Hello(hello)) }) => Ok(hello),
        _ => Err(Status::invalid_argument("the first message of a session must be Hello")),
    }
}

/// Reads a session until it ends: by the other side, by silence, or because it is over here.
async fn read(
    inner: Arc<Inner>,
    sandbox: String,
    instance: String,
    handle: Handle,
    session: Session,
    mut inbound: Streaming<FromSupervisor>,
) {
    let silence = inner.heartbeat * SILENT_INTERVALS;
    let mut beat = interval(inner.heartbeat);
    beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    beat.reset();
    let mut deadline = Instant::now() + silence;
    let why = loop {
        let message = tokio::select! {
            message = inbound.message() => message,
            _ = beat.tick() => {
                // A full queue is no silence: what is in it will be read, or the other side ends.
                session.outgoing.try_send(from_gateway::Payload::Heartbeat(Heartbeat {}));
                continue;
            }
            () = sleep_until(deadline) => break "silent",
            () = session.over.cancelled() => break "ended here",
        };
        let payload = match message {
            Ok(Some(message)) => message.payload,
            Ok(None) => break "closed by the supervisor",
            Err(status) => {
                tracing::debug!(sandbox, code = ?status.code(), message = status.message(), "session broke");
                break "broken";
            }
        };
        deadline = Instant::now() + silence;
        match payload {
            None | Some(from_supervisor::Payload::Heartbeat(_)) => {}
            Some(from_supervisor::Payload::Hello(_)) => break "sent Hello twice",
            Some(from_supervisor::Payload::Logs(batch)) => store_logs(&inner, &sandbox, &instance, &session, batch).await,
            Some(from_supervisor::Payload::RelayRefused(refused)) => {
                let error = RelayError::Refused { code: refused.code, message: refused.message };
                inner.pending.refuse(&refused.relay_id, &sandbox, error);
            }
            Some(payload) => {
                if handle.events.send(Event::Received { session: session.id, payload }).await.is_err() {
                    break "ended here";
                }
            }
        }
    };
    tracing::debug!(sandbox, session = %session.id, why, "session ended");
    session.over.cancel();
    let _ = handle.events.send(Event::Closed { session: session.id, why }).await;
}

/// Acknowledges only what is committed; what is not comes again.
async fn store_logs(inner: &Inner, sandbox: &str, instance: &str, session: &Session, mut batch: LogBatch) {
    batch.records.truncate(LOG_BATCH);
    match inner.config.logs.append(sandbox, instance, batch.records).await {
        // Without room for it the records come again, and are passed over.
        Ok(seq) => drop(session.outgoing.try_send(from_gateway::Payload::LogAck(LogAck { seq }))),
        Err(error) => tracing::warn!(sandbox, %error, "log records were not stored; the supervisor keeps them and sends them again"),
    }
}
