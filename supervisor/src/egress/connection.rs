//! One opened connection, from the agent's socket to the one that was dialled.

use std::{sync::Arc, time::Duration};

use futures::future::BoxFuture;
use openshell_policy::Inspection;
use tokio::{net::TcpStream, time::timeout};

use super::{
    Shared,
    active::Denial,
    connections::{Live, LiveGuard},
    hello::{self, Hello},
    relay,
    rewind::Rewind,
};
use crate::{flow::Flow, limits::egress::HEAD_TIME};

/// A connection that was allowed and dialled.
pub(super) struct Connection {
    shared: Arc<Shared>,
    live: LiveGuard,
    upstream: TcpStream,
}

impl Connection {
    pub(super) fn new(shared: Arc<Shared>, live: LiveGuard, upstream: TcpStream) -> Self {
        Self { shared, live, upstream }
    }

    pub(super) fn live(&self) -> &Live {
        &self.live
    }

    /// Carries the agent's stream until either side ends it or a revision takes it away.
    pub(super) async fn carry(self, agent: Rewind<TcpStream>) {
        match self.live.granted.plan.inspection {
            Inspection::Connection => self.raw(agent).await,
            Inspection::ServerName => self.server_name(agent).await,
            Inspection::Http => reset(agent.get_ref()),
        }
    }

    async fn raw(mut self, agent: Rewind<TcpStream>) {
        let (ahead, mut agent) = agent.into_parts();
        let cut = tokio::select! {
            biased;
            denial = self.live.cut() => Some(denial),
            _ = relay::relay(&mut agent, &mut self.upstream, &ahead) => None,
        };
        if let Some(denial) = cut {
            self.shared.recorder.cut(&self.live, &denial, self.shared.revision());
            reset(&agent);
            reset(&self.upstream);
        }
    }

    /// `tls: skip`: the name that the client asks for must be the one that was decided.
    async fn server_name(self, mut agent: Rewind<TcpStream>) {
        let checked = tokio::select! {
            biased;
            denial = self.live.cut() => Err(denial),
            checked = timeout(HEAD_TIME, check_server_name(&mut agent, &self.live.host)) => {
                checked.unwrap_or_else(|_| Err(Denial::forbidden("unsupported_l7_protocol", "the client sent no TLS ClientHello in time")))
            }
        };
        match checked {
            Ok(()) => self.raw(agent).await,
            Err(denial) => {
                self.shared.recorder.refused_live(&self.live, &denial, self.shared.revision());
                reset(agent.get_ref());
            }
        }
    }
}

async fn check_server_name(agent: &mut Rewind<TcpStream>, host: &str) -> Result<(), Denial> {
    loop {
        match hello::parse(agent.ahead()) {
            Hello::Incomplete => {}
            Hello::Invalid => {
                return Err(Denial::forbidden("unsupported_l7_protocol", "this endpoint has `tls: skip` and carries TLS only"));
            }
            Hello::Complete { encrypted: true, .. } => {
                let reason = "the ClientHello is encrypted (ECH), so its server name cannot be checked";
                return Err(Denial::forbidden("request_authority_mismatch", reason));
            }
            Hello::Complete { server_name: Some(name), .. } if name == host => return Ok(()),
            Hello::Complete { server_name, .. } => {
                let name = server_name.unwrap_or_else(|| "none".to_owned());
                return Err(Denial::forbidden(
                    "request_authority_mismatch",
                    format!("the TLS server name is {name}, the connection is to {host}"),
                ));
            }
        }
        if !matches!(agent.look_further().await, Ok(count) if count > 0) {
            return Err(Denial::forbidden("unsupported_l7_protocol", "the client ended before it sent a TLS ClientHello"));
        }
    }
}

/// Ends a connection so that its owner cannot take the end for the end of the data.
fn reset(stream: &TcpStream) {
    // The connection is closed in any case; only how is at stake.
    let _ = socket2::SockRef::from(stream).set_linger(Some(Duration::ZERO));
}

impl Flow for Connection {
    fn serve(self: Box<Self>, agent: TcpStream) -> BoxFuture<'static, ()> {
        // Small answers must not wait for an acknowledgement (RFC 896 against RFC 1122, 4.2.3.2).
        let _ = agent.set_nodelay(true);
        Box::pin(self.carry(Rewind::new(agent)))
    }
}
