//! Where a connect that was allowed meets the connection that it becomes.
//!
//! Both sides know the address pair. Whoever comes second takes the other away, so that a
//! registration serves exactly one connection. The registration holds a copy of the agent's socket
//! until then: the pair cannot become anybody else's meanwhile. What nobody claims is reset.

use std::{
    collections::HashMap,
    net::SocketAddr,
    os::fd::OwnedFd,
    sync::Arc,
    time::{Duration, Instant},
};

use futures::future::BoxFuture;
use parking_lot::Mutex;
use tokio::{net::TcpStream, runtime::Handle};

use super::address::canonical;
use crate::{
    flow::{Flow, Refusal},
    limits::broker::{CLAIM_TIME, UNCLAIMED},
};

/// What serves a connection.
pub(super) enum Service {
    /// A flow that is open.
    Flow(Box<dyn Flow>),
    /// One that is still being opened: the agent's socket did not want to wait.
    Opening(BoxFuture<'static, Result<Box<dyn Flow>, Refusal>>),
    /// Policy DNS over TCP.
    Dns(BoxedServe),
}

/// Serves a stream with what it has captured.
pub(super) type BoxedServe = Box<dyn FnOnce(TcpStream) -> BoxFuture<'static, ()> + Send>;

type Pair = (SocketAddr, SocketAddr);

enum Waiting {
    Registered { service: Service, hold: Arc<OwnedFd>, since: Instant },
    Accepted { stream: TcpStream, since: Instant },
}

/// The meeting place.
pub(super) struct Rendezvous {
    runtime: Handle,
    waiting: Mutex<HashMap<Pair, Waiting>>,
}

impl Rendezvous {
    pub(super) fn new(runtime: Handle) -> Self {
        Self { runtime, waiting: Mutex::default() }
    }

    /// A connect that was made from `source` to `target`.
    pub(super) fn register(&self, source: SocketAddr, target: SocketAddr, service: Service, hold: Arc<OwnedFd>) {
        let pair = (canonical(source), canonical(target));
        let mut waiting = self.waiting.lock();
        match waiting.remove(&pair) {
            Some(Waiting::Accepted { stream, .. }) => {
                drop(waiting);
                drop(hold);
                self.serve(service, stream);
            }
            // A registration whose connection never came, and whose socket is gone.
            Some(Waiting::Registered { .. }) | None => {
                waiting.insert(pair, Waiting::Registered { service, hold, since: Instant::now() });
            }
        }
    }

    /// A connection that was accepted.
    pub(super) fn accepted(&self, stream: TcpStream) {
        let (Ok(peer), Ok(local)) = (stream.peer_addr(), stream.local_addr()) else { return };
        let pair = (canonical(peer), canonical(local));
        let mut waiting = self.waiting.lock();
        match waiting.remove(&pair) {
            Some(Waiting::Registered { service, hold, .. }) => {
                drop(waiting);
                drop(hold);
                self.serve(service, stream);
            }
            Some(Waiting::Accepted { .. }) | None => {
                let strangers = waiting.values().filter(|one| matches!(one, Waiting::Accepted { .. })).count();
                if strangers < UNCLAIMED {
                    waiting.insert(pair, Waiting::Accepted { stream, since: Instant::now() });
                } else {
                    reset(stream);
                }
            }
        }
    }

    fn serve(&self, service: Service, stream: TcpStream) {
        // Small writes are the agent's own to gather.
        let _ = stream.set_nodelay(true);
        self.runtime.spawn(async move {
            match service {
                Service::Flow(flow) => flow.serve(stream).await,
                Service::Dns(serve) => serve(stream).await,
                Service::Opening(opening) => match opening.await {
                    Ok(flow) => flow.serve(stream).await,
                    Err(_) => reset(stream),
                },
            }
        });
    }

    /// Gives up on whoever waited too long.
    pub(super) fn expire(&self) {
        let now = Instant::now();
        let old = |since: &Instant, time: Duration| now.duration_since(*since) > time;
        let mut expired = Vec::new();
        let mut waiting = self.waiting.lock();
        let gone: Vec<Pair> = waiting
            .iter()
            .filter(|(_, one)| match one {
                Waiting::Registered { since, .. } | Waiting::Accepted { since, .. } => old(since, CLAIM_TIME),
            })
            .map(|(pair, _)| *pair)
            .collect();
        expired.extend(gone.into_iter().filter_map(|pair| waiting.remove(&pair)));
        drop(waiting);
        for one in expired {
            if let Waiting::Accepted { stream, .. } = one {
                reset(stream);
            }
        }
    }
}

/// Closes so that the other side sees an error and not an end.
fn reset(stream: TcpStream) {
    // Where it cannot be set the other side sees an end.
    let _ = stream.set_zero_linger();
    drop(stream);
}
