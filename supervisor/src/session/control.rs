//! One session, from `Hello` to its end.

use std::{sync::Arc, time::Duration};

use openshell_proto::supervisor::{
    Accepted, Config, EnforcementReport, FromGateway, FromSupervisor, Heartbeat, Hello, MainProcess, RelayOpen, RelayRefused, from_gateway,
    from_supervisor, supervisor_session_client::SupervisorSessionClient,
};
use tokio::{
    sync::{Semaphore, mpsc},
    time::{Instant, MissedTickBehavior, interval, sleep_until, timeout},
};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::{Code, Status, Streaming, transport::Channel};

use super::{End, Ended, Identity, logs::Shipping, proof::Bearer, relay};
use crate::{
    audit::AuditQueue,
    limits::session::{ACCEPT_TIME, HEARTBEAT, OUTGOING, RELAYS, SILENT_INTERVALS},
    sandbox::{Report, Sandbox},
};

/// The client, with the token on every call.
pub(super) type Client = SupervisorSessionClient<tonic::service::interceptor::InterceptedService<Channel, Bearer>>;

/// A session that the gateway has accepted.
pub(super) struct Opened {
    identity: Arc<Identity>,
    client: Client,
    outgoing: mpsc::Sender<FromSupervisor>,
    inbound: Streaming<FromGateway>,
    answer: Accepted,
    /// What `Hello` said.
    told: Report,
}

/// Says `Hello`.
pub(super) async fn open(channel: Channel, identity: &Arc<Identity>, report: Report) -> Result<Opened, Ended> {
    identity.proof.prepare(&channel).await.map_err(|error| Ended::Lost(error.to_string()))?;
    let mut client = SupervisorSessionClient::with_interceptor(channel, Bearer(Arc::clone(identity)));
    let (outgoing, stream) = mpsc::channel(OUTGOING);
    let hello = hello(identity, &report);
    let _ = outgoing.try_send(message(from_supervisor::Payload::Hello(hello)));
    let opened = timeout(ACCEPT_TIME, async {
        let mut inbound = client.control(ReceiverStream::new(stream)).await?.into_inner();
        let first = inbound.message().await?;
        Ok::<_, Status>((inbound, first))
    });
    let (inbound, first) = match opened.await {
        Ok(Ok(opened)) => opened,
        Ok(Err(status)) => {
            if status.code() == Code::Unauthenticated {
                identity.proof.refused();
            }
            return Err(Ended::Lost(describe(&status)));
        }
        Err(_) => return Err(Ended::Lost("the gateway did not answer Hello in time".into())),
    };
    match first.and_then(|m| m.payload) {
        Some(from_gateway::Payload::Accepted(answer)) => {
            tracing::info!(session = answer.session_id, "session accepted");
            Ok(Opened { identity: Arc::clone(identity), client, outgoing, inbound, answer, told: report })
        }
        Some(from_gateway::Payload::Rejected(rejected)) => Err(rejected_by(rejected)),
        _ => Err(Ended::Lost("the gateway answered Hello with something else".into())),
    }
}

/// Holds a session until it ends.
pub(super) async fn run(opened: Opened, sandbox: &Sandbox, queue: &AuditQueue, finish: &CancellationToken) -> Ended {
    let Opened { identity, client, outgoing, inbound, answer, told } = opened;
    let renewal = client.clone();
    let mut session = Session {
        client,
        sandbox,
        outgoing,
        shipping: Shipping::new(queue, answer.log_acked),
        told,
        relays: Arc::new(Semaphore::new(RELAYS)),
        tasks: TaskTracker::new(),
        over: CancellationToken::new(),
    };
    let _over = session.over.clone().drop_guard();
    let (over, tasks) = (session.over.clone(), session.tasks.clone());
    tasks.spawn(async move {
        tokio::select! {
            () = identity.proof.keep(renewal) => {}
            () = over.cancelled() => {}
        }
    });
    session.serve(inbound, answer, finish).await.unwrap_or_else(|ended| ended)
}

struct Session<'a> {
    client: Client,
    sandbox: &'a Sandbox,
    outgoing: mpsc::Sender<FromSupervisor>,
    shipping: Shipping<'a>,
    /// What the gateway was told last.
    told: Report,
    relays: Arc<Semaphore>,
    tasks: TaskTracker,
    /// Ends the relays of this session with it.
    over: CancellationToken,
}

/// What made the loop turn.
enum Event {
    Message(Box<Result<Option<FromGateway>, Status>>),
    Beat,
    Silent,
    Changed,
    Records,
    Finish,
}

impl Session<'_> {
    /// Never `Ok`: a session ends with a reason.
    async fn serve(&mut self, mut inbound: Streaming<FromGateway>, accepted: Accepted, finish: &CancellationToken) -> Result<Ended, Ended> {
        let every = heartbeat(accepted.heartbeat_interval);
        let mut beat = interval(every);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let silence = every * SILENT_INTERVALS;
        let mut report = self.sandbox.report();
        let mut deadline = Instant::now() + silence;
        if finish.is_cancelled() {
            return self.finish(inbound).await;
        }
        if let Some(config) = accepted.config {
            self.apply(config).await?;
            deadline = Instant::now() + silence;
        }
        report.mark_changed();
        self.ship()?;
        loop {
            let event = tokio::select! {
                message = inbound.message() => Event::Message(Box::new(message)),
                _ = beat.tick() => Event::Beat,
                () = sleep_until(deadline) => Event::Silent,
                changed = report.changed() => { let _ = changed; Event::Changed }
                () = self.shipping.recorded() => Event::Records,
                () = until(self.shipping.resend_at()) => Event::Records,
                () = finish.cancelled() => Event::Finish,
            };
            match event {
                Event::Message(message) => {
                    let message = (*message).map_err(|status| Ended::Lost(describe(&status)))?;
                    let Some(message) = message else { return Err(Ended::Lost("closed by the gateway".into())) };
                    if let Some(payload) = message.payload {
                        self.received(payload).await?;
                    }
                    deadline = Instant::now() + silence;
                }
                Event::Beat => self.send(from_supervisor::Payload::Heartbeat(Heartbeat {}))?,
                Event::Silent => return Err(Ended::Lost(format!("the gateway was silent for {silence:?}"))),
                Event::Changed => {
                    let now = report.borrow_and_update().clone();
                    self.tell(now)?;
                }
                Event::Records => self.ship()?,
                Event::Finish => return self.finish(inbound).await,
            }
        }
    }

    /// Tells the rest: the last state, and every record, until they are stored.
    async fn finish(&mut self, mut inbound: Streaming<FromGateway>) -> Result<Ended, Ended> {
        let now = self.sandbox.report().borrow().clone();
        self.tell(now)?;
        self.ship()?;
        while !self.shipping.done() {
            let message = inbound.message().await.map_err(|status| Ended::Lost(describe(&status)))?;
            match message.and_then(|m| m.payload) {
                Some(from_gateway::Payload::LogAck(ack)) => self.shipping.ack(ack.seq),
                Some(_) => {}
                None => break,
            }
            self.ship()?;
        }
        Ok(Ended::End(End::Finished))
    }

    async fn received(&mut self, payload: from_gateway::Payload) -> Result<(), Ended> {
        match payload {
            from_gateway::Payload::Config(config) => self.apply(config).await?,
            from_gateway::Payload::LogAck(ack) => {
                self.shipping.ack(ack.seq);
                self.ship()?;
            }
            from_gateway::Payload::RelayOpen(open) => self.open(open)?,
            from_gateway::Payload::Shutdown(shutdown) => {
                let grace = shutdown.grace.and_then(|g| Duration::try_from(g).ok());
                return Err(Ended::End(End::Shutdown { grace, reason: shutdown.reason }));
            }
            from_gateway::Payload::Rejected(rejected) => return Err(rejected_by(rejected)),
            from_gateway::Payload::Heartbeat(_) => {}
            from_gateway::Payload::Accepted(_) => return Err(Ended::Lost("the gateway accepted the session twice".into())),
        }
        Ok(())
    }

    async fn apply(&mut self, config: Config) -> Result<(), Ended> {
        let result = self.sandbox.apply(config).await.map_err(|fatal| Ended::End(End::Fatal(fatal)))?;
        self.send(from_supervisor::Payload::ConfigResult(result))
    }

    /// Sends what differs from what was told.
    fn tell(&mut self, now: Report) -> Result<(), Ended> {
        if now.enforcement != self.told.enforcement
            && let Some(report) = &now.enforcement
        {
            self.send(from_supervisor::Payload::Enforcement(EnforcementReport::clone(report)))?;
        }
        if now.main != self.told.main {
            self.send(from_supervisor::Payload::MainProcess(MainProcess::clone(&now.main)))?;
        }
        self.told = now;
        Ok(())
    }

    /// Sends records as long as there is room; reports and answers come first.
    fn ship(&mut self) -> Result<(), Ended> {
        while self.outgoing.capacity() > OUTGOING / 2 {
            let Some(batch) = self.shipping.next() else { break };
            self.send(from_supervisor::Payload::Logs(batch))?;
        }
        Ok(())
    }

    fn open(&mut self, open: RelayOpen) -> Result<(), Ended> {
        let refused = |code: &str, message: String| {
            from_supervisor::Payload::RelayRefused(RelayRefused { relay_id: open.relay_id.clone(), code: code.to_owned(), message })
        };
        let Ok(permit) = Arc::clone(&self.relays).try_acquire_owned() else {
            return self.send(refused("LimitReached", format!("{RELAYS} commands run at a time; end one first")));
        };
        let (client, sandbox, outgoing, over) = (self.client.clone(), self.sandbox.clone(), self.outgoing.clone(), self.over.clone());
        self.tasks.spawn(async move {
            let _permit = permit;
            if let Err((id, refused)) = relay::serve(client, sandbox, open, over).await {
                let refused = RelayRefused { relay_id: id, code: refused.code.to_owned(), message: refused.message };
                // A session that ends meanwhile takes the request with it.
                let _ = outgoing.send(message(from_supervisor::Payload::RelayRefused(refused))).await;
            }
        });
        Ok(())
    }

    fn send(&self, payload: from_supervisor::Payload) -> Result<(), Ended> {
        self.outgoing.try_send(message(payload)).map_err(|_| Ended::Lost("the gateway does not read".into()))
    }
}

fn message(payload: from_supervisor::Payload) -> FromSupervisor {
    FromSupervisor { payload: Some(payload) }
}

fn hello(identity: &Identity, report: &Report) -> Hello {
    Hello {
        sandbox_id: identity.sandbox_id.clone(),
        instance_id: identity.instance_id.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        config_revision: report.revision,
        policy_hash: report.policy_hash.clone(),
        enforcement: report.enforcement.clone(),
        main_process: Some(report.main.clone()),
    }
}

fn rejected_by(rejected: openshell_proto::supervisor::Rejected) -> Ended {
    if rejected.retry {
        Ended::Lost(format!("{}: {}", rejected.code, rejected.message))
    } else {
        Ended::End(End::Rejected { code: rejected.code, message: rejected.message })
    }
}

/// The interval that the gateway asks for, within our bounds.
fn heartbeat(asked: Option<prost_types::Duration>) -> Duration {
    asked.and_then(|d| Duration::try_from(d).ok()).unwrap_or(HEARTBEAT.1).clamp(HEARTBEAT.0, HEARTBEAT.1)
}

async fn until(instant: Option<Instant>) {
    match instant {
        Some(instant) => sleep_until(instant).await,
        None => std::future::pending().await,
    }
}

fn describe(status: &Status) -> String {
    format!("{:?}: {}", status.code(), status.message())
}
