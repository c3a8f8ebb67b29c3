//! One opened connection, from the agent's socket to the one that was dialled.
//!
//! ```text
//!  plan         what the agent speaks   carried as
//!  Connection   (not looked at)         bytes
//!   with bound  TLS                     terminated, then as below
//!   credentials HTTP                    requests, for their credentials only
//!               anything else           bytes, and a finding
//!  ServerName   TLS                     bytes, if the server name is the decided one
//!  Http         TLS                     terminated, then HTTP only
//!               HTTP                    requests, each decided
//!  other combinations are refused
//! ```

use std::{sync::Arc, time::Duration};

use futures::{FutureExt as _, future::BoxFuture};
use openshell_policy::Inspection;
use tokio::{
    io::{AsyncRead, AsyncWrite, copy_bidirectional},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::{LazyConfigAcceptor, server::TlsStream};

use super::{
    Shared,
    active::Denial,
    connections::{Live, LiveGuard},
    credentials::Transport,
    hello::{self, Hello},
    http::{
        self, Ended, denial,
        exchange::{Exchange, Mode},
        lint::Violation,
        upstream::{self, Stream, Upstream},
    },
    record::RequestLine,
    relay,
    rewind::Rewind,
};
use crate::{
    audit::ocsf::Severity,
    flow::Flow,
    limits::egress::{HANDSHAKE_TIME, HEAD_TIME},
};

/// A connection that was allowed and dialled.
pub(super) struct Connection {
    shared: Arc<Shared>,
    live: LiveGuard,
    upstream: TcpStream,
}

/// What the first bytes of a client say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Spoken {
    Tls,
    Http,
    Other,
}

impl Connection {
    pub(super) fn new(shared: Arc<Shared>, live: LiveGuard, upstream: TcpStream) -> Self {
        Self { shared, live, upstream }
    }

    pub(super) fn live(&self) -> &Live {
        &self.live
    }

    /// The parts, for the proxy's requests without CONNECT.
    pub(super) fn into_parts(self) -> (LiveGuard, TcpStream) {
        (self.live, self.upstream)
    }

    /// Carries the agent's stream until either side ends it or a revision takes it away.
    pub(super) async fn carry(self, agent: Rewind<TcpStream>) {
        let bound = self.shared.active().is_ok_and(|active| active.vault.bound(&self.live.host, self.live.port));
        match self.live.granted.plan.inspection {
            Inspection::Connection if bound => self.look_for_credentials(agent).await,
            Inspection::Connection => self.raw(agent).await,
            Inspection::ServerName => {
                if bound {
                    self.uninspectable("the endpoint has `tls: skip`, so the credentials that are bound to it cannot be put in");
                }
                self.server_name(agent).await;
            }
            Inspection::Http => self.inspect(agent).await,
        }
    }

    fn uninspectable(&self, reason: &str) {
        self.shared.recorder.finding(
            &self.live,
            "openshell.credentials.traffic_uninspectable",
            Severity::Low,
            reason,
            self.shared.revision(),
        );
    }

    /// Ends the agent's side because of what was sent on it.
    fn refuse(&self, agent: &TcpStream, denial: &Denial) {
        self.shared.recorder.refused_live(&self.live, denial, self.shared.revision());
        reset(agent);
    }

    /// Ends the agent's side because the policy changed.
    fn cut(&self, agent: &TcpStream, denial: &Denial) {
        self.shared.recorder.cut(&self.live, denial, self.shared.revision());
        reset(agent);
    }

    async fn raw(mut self, agent: Rewind<TcpStream>) {
        let (ahead, mut agent) = agent.into_parts();
        let cut = tokio::select! {
            biased;
            denial = self.live.cut() => Some(denial),
            _ = relay::relay(&mut agent, &mut self.upstream, &ahead) => None,
        };
        if let Some(denial) = cut {
            self.cut(&agent, &denial);
            reset(&self.upstream);
        }
    }

    /// `tls: skip`: the name that the client asks for must be the one that was decided.
    async fn server_name(self, mut agent: Rewind<TcpStream>) {
        let checked = tokio::select! {
            biased;
            denial = self.live.cut() => return self.cut(agent.get_ref(), &denial),
            checked = timeout(HEAD_TIME, check_server_name(&mut agent, &self.live.host)) => {
                checked.unwrap_or_else(|_| Err(Denial::forbidden("unsupported_l7_protocol", "the client sent no TLS ClientHello in time")))
            }
        };
        match checked {
            Ok(()) => self.raw(agent).await,
            Err(denial) => self.refuse(agent.get_ref(), &denial),
        }
    }

    /// `protocol: rest`: HTTP, in TLS or in the clear, and nothing else.
    async fn inspect(self, mut agent: Rewind<TcpStream>) {
        let spoken = tokio::select! {
            biased;
            denial = self.live.cut() => return self.cut(agent.get_ref(), &denial),
            spoken = timeout(HEAD_TIME, listen(&mut agent)) => spoken.ok().flatten(),
        };
        match spoken {
            Some(Spoken::Tls) => self.terminate(agent, Mode::Decide).await,
            Some(Spoken::Http) => self.requests_in_the_clear(agent, Mode::Decide).await,
            Some(Spoken::Other) => {
                let denial = Denial::forbidden(
                    "unsupported_l7_protocol",
                    "this endpoint is inspected and carries HTTP/1.1, in TLS or in the clear, only",
                );
                self.refuse(agent.get_ref(), &denial);
            }
            // It never said anything, so there is nothing to refuse.
            None => {}
        }
    }

    /// A granted connection that credentials are bound to: opened where that is possible.
    async fn look_for_credentials(self, mut agent: Rewind<TcpStream>) {
        let spoken = tokio::select! {
            biased;
            denial = self.live.cut() => return self.cut(agent.get_ref(), &denial),
            spoken = listen(&mut agent) => spoken,
            // A protocol in which the server speaks first is not HTTP.
            _ = self.upstream.readable() => Some(Spoken::Other),
        };
        match spoken {
            Some(Spoken::Tls) => self.terminate(agent, Mode::Credentials).await,
            Some(Spoken::Http) => self.requests_in_the_clear(agent, Mode::Credentials).await,
            Some(Spoken::Other) => {
                self.uninspectable("the connection is neither TLS nor HTTP/1.1, so the credentials that are bound to it cannot be put in");
                self.raw(agent).await;
            }
            None => self.raw(agent).await,
        }
    }

    async fn requests_in_the_clear(self, mut agent: Rewind<TcpStream>, mode: Mode) {
        let Self { shared, live, upstream } = self;
        let upstream = Upstream::new(Box::new(upstream)).await;
        let exchange = Exchange::new(shared, (*live).clone(), mode, Transport::Plain, upstream);
        if let Err(denial) = serve_requests(&exchange, &mut agent).await {
            exchange.record_cut(&denial);
            reset(agent.get_ref());
        }
    }

    /// Ends TLS here, in the name of the server, and begins it again towards the server.
    async fn terminate(self, agent: Rewind<TcpStream>, mode: Mode) {
        let Self { shared, live, upstream } = self;
        let handshakes = tokio::select! {
            biased;
            denial = live.cut() => return shared.recorder.cut(&live, &denial, shared.revision()),
            handshakes = handshakes(&shared, &live, agent, upstream) => handshakes,
        };
        let (mut agent, upstream) = match handshakes {
            Ok(both) => both,
            Err(denial) => return shared.recorder.refused_live(&live, &denial, shared.revision()),
        };
        let upstream = match (mode, upstream) {
            (Mode::Credentials, Ok(mut upstream)) => {
                let opened = tokio::select! {
                    biased;
                    denial = live.cut() => Err(denial),
                    opened = look_inside(&mut agent, &mut upstream) => Ok(opened),
                };
                match opened {
                    Ok(Spoken::Http) => Ok(upstream),
                    Ok(_) => return carry_opened(&shared, &live, &mut agent, &mut upstream).await,
                    Err(denial) => return shared.recorder.cut(&live, &denial, shared.revision()),
                }
            }
            (_, upstream) => upstream,
        };
        let upstream = match upstream {
            Ok(stream) => Upstream::new(Box::new(stream)).await,
            Err(denial) => Err(denial),
        };
        let exchange = Exchange::new(shared, (*live).clone(), mode, Transport::Tls, upstream);
        if let Err(denial) = serve_requests(&exchange, &mut agent).await {
            exchange.record_cut(&denial);
            reset(agent.get_ref().get_ref().0.get_ref());
        }
    }
}

type AgentTls = Rewind<TlsStream<Rewind<TcpStream>>>;
type UpstreamTls = Rewind<Box<dyn Stream>>;

/// Both handshakes at once. A failure of the server's is not one of the agent's: it is told by HTTP.
async fn handshakes(
    shared: &Shared,
    live: &Live,
    agent: Rewind<TcpStream>,
    upstream: TcpStream,
) -> Result<(AgentTls, Result<UpstreamTls, Denial>), Denial> {
    let failed = |reason: String| Denial::new("tls_handshake_failed", ::http::StatusCode::BAD_GATEWAY, reason);
    let accepting = async {
        let start = LazyConfigAcceptor::new(rustls::server::Acceptor::default(), agent)
            .await
            .map_err(|error| failed(format!("the client's TLS handshake failed: {error}")))?;
        if let Some(name) = start.client_hello().server_name()
            && !name.eq_ignore_ascii_case(&live.host)
        {
            let reason = format!("the TLS server name is {}, the connection is to {}", name.escape_debug(), live.host);
            return Err(Denial::forbidden("request_authority_mismatch", reason));
        }
        let config = shared.ca.server_config(&live.host).map_err(|error| failed(error.to_string()))?;
        start.into_stream(config).await.map_err(|error| {
            failed(format!("the client's TLS handshake failed: {error}; a client that brings its own roots needs those of $SSL_CERT_FILE"))
        })
    };
    let accepting = timeout(HANDSHAKE_TIME, accepting)
        .map(|done| done.unwrap_or_else(|_| Err(failed("the client's TLS handshake took too long".to_owned()))));
    let (agent, upstream) = tokio::join!(accepting, upstream::encrypt(shared, &live.host, upstream));
    Ok((Rewind::new(agent?), upstream.map(Rewind::new)))
}

/// Serves the agent's requests; an error is the reason for which they were cut.
async fn serve_requests<S: AsyncRead + AsyncWrite + Unpin + Send>(exchange: &Arc<Exchange>, agent: &mut S) -> Result<(), Denial> {
    let handle = |request| exchange.clone().handle(request).boxed();
    let refusal = |violation| denial::bytes(&refusal_of(violation), &exchange.context("", ""));
    let ended = tokio::select! {
        biased;
        denial = exchange.live().cut() => return Err(denial),
        ended = http::serve(agent, handle, refusal) => ended,
    };
    if let Ended::Violation(violation) = ended {
        exchange.record_refused(RequestLine { method: "-", path: "", scheme: "http" }, &refusal_of(violation));
    }
    Ok(())
}

pub(super) fn refusal_of(violation: Violation) -> Denial {
    let code = if violation == Violation::Http2 { "unsupported_l7_protocol" } else { "invalid_request" };
    Denial::new(code, ::http::StatusCode::BAD_REQUEST, violation.to_string())
}

/// What is spoken inside TLS, whoever begins.
async fn look_inside(agent: &mut AgentTls, upstream: &mut UpstreamTls) -> Spoken {
    tokio::select! {
        biased;
        spoken = listen(agent) => spoken.unwrap_or(Spoken::Other),
        _ = upstream.look_further() => Spoken::Other,
    }
}

/// Carries what was opened and is not HTTP.
async fn carry_opened(shared: &Shared, live: &Live, agent: &mut AgentTls, upstream: &mut UpstreamTls) {
    let reason = "the connection is not HTTP/1.1 inside TLS, so the credentials that are bound to it cannot be put in";
    shared.recorder.finding(live, "openshell.credentials.traffic_uninspectable", Severity::Low, reason, shared.revision());
    tokio::select! {
        biased;
        denial = live.cut() => shared.recorder.cut(live, &denial, shared.revision()),
        _ = copy_bidirectional(agent, upstream) => {}
    }
}

/// Waits until the client's first bytes say what it speaks; `None`: it ended before.
async fn listen<S: AsyncRead + AsyncWrite + Unpin>(agent: &mut Rewind<S>) -> Option<Spoken> {
    loop {
        if let Some(spoken) = spoken(agent.ahead()) {
            return Some(spoken);
        }
        if !matches!(agent.look_further().await, Ok(count) if count > 0) {
            return None;
        }
    }
}

/// What the first bytes of a client are, if they are enough to say.
fn spoken(bytes: &[u8]) -> Option<Spoken> {
    match bytes {
        [] | [22] => None,
        [22, 3, ..] => Some(Spoken::Tls),
        _ => {
            let word = &bytes[..bytes.len().min(16)];
            match word.iter().position(|byte| !byte.is_ascii_uppercase()) {
                None if word.len() < 16 => None,
                Some(end) if end > 1 && word[end] == b' ' => Some(Spoken::Http),
                _ => Some(Spoken::Other),
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

#[cfg(test)]
mod tests {
    use super::{Spoken, spoken};

    #[test]
    fn the_first_bytes_say_what_is_spoken() {
        for (bytes, expected) in [
            (&b""[..], None),
            (b"\x16", None),
            (b"\x16\x03", Some(Spoken::Tls)),
            (b"\x16\x02", Some(Spoken::Other)),
            (b"GE", None),
            (b"GET /", Some(Spoken::Http)),
            (b"PRI * HTTP/2.0", Some(Spoken::Http)),
            (b"SSH-2.0-x y", Some(Spoken::Other)),
            (b"\0\0\0\x08", Some(Spoken::Other)),
            (b"ABCDEFGHIJKLMNOPQ", Some(Spoken::Other)),
            (b" GET", Some(Spoken::Other)),
        ] {
            assert_eq!(spoken(bytes), expected, "{bytes:?}");
        }
    }
}
