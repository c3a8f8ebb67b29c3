//! The explicit proxy, for clients that honour `HTTP_PROXY`.
//!
//! `CONNECT host:port` opens the same connection that a transparent client would get, and is
//! carried the same way; the answer is 200 only when the server has been dialled. Requests with
//! an absolute `http://` target are decided and sent one by one, each over a connection of its
//! host. Nothing else is spoken here. Who asks is the process that opened the connection to the proxy.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4},
    sync::Arc,
};

use ::http::{Request, Response, StatusCode, Uri};
use bytes::Bytes;
use futures::{FutureExt as _, future::BoxFuture};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use openshell_policy::{Inspection, host::canonical_host};
use tokio::{io::AsyncWriteExt as _, net::TcpStream, sync::Mutex, time::timeout};

use super::{
    Shared,
    active::Denial,
    connection::refusal_of,
    connections::LiveGuard,
    credentials::Transport,
    http::{
        self, Ended, ResponseBody,
        denial::{self, Context},
        exchange::{Exchange, Mode},
        upstream::Upstream,
    },
    identity::Identity,
    rewind::Rewind,
};
use crate::{
    flow::Flow,
    limits::egress::{HEAD_TIME, PROXY_HEAD_BYTES},
};

/// Where the agent finds the explicit proxy. No packet ever goes there: the broker hands the
/// connection over.
pub const PROXY_ADDRESS: SocketAddr = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::new(198, 18, 0, 1), 3128));

/// A place that a client of the proxy asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Destination {
    /// A name in lower case, or an IP literal without brackets.
    pub host: String,
    /// Port.
    pub port: u16,
}

/// What a first request of a client is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Head {
    /// Not complete yet.
    Incomplete,
    /// A tunnel is wanted. `length` bytes belong to the request; what follows is the tunnel's.
    Connect {
        /// Where to.
        destination: Destination,
        /// Bytes of the head.
        length: usize,
    },
    /// Any other request: for the server of HTTP requests to read.
    Request,
    /// A CONNECT that cannot be read.
    Invalid(&'static str),
    /// A CONNECT that never ends.
    TooLarge,
}

/// Reads the first bytes of a client of the proxy.
pub fn parse_head(bytes: &[u8]) -> Head {
    let prefix = &b"CONNECT "[..bytes.len().min(8)];
    if !bytes.starts_with(prefix) {
        return Head::Request;
    }
    let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else {
        return if bytes.len() > PROXY_HEAD_BYTES { Head::TooLarge } else { Head::Incomplete };
    };
    let head = &bytes[..end];
    let strict = head.iter().enumerate().all(|(at, byte)| match byte {
        b'\r' => head.get(at + 1) == Some(&b'\n'),
        b'\n' => at > 0 && head[at - 1] == b'\r',
        b'\t' => true,
        byte => *byte >= b' ' && *byte != 0x7f,
    });
    let line = head.split(|byte| *byte == b'\r').next().and_then(|line| std::str::from_utf8(line).ok());
    let Some(line) = line.filter(|_| strict) else {
        return Head::Invalid("the request holds control characters or lines that do not end in CRLF");
    };
    let mut words = line.split(' ').skip(1);
    let (Some(authority), Some("HTTP/1.1" | "HTTP/1.0"), None) = (words.next(), words.next(), words.next()) else {
        return Head::Invalid("the request line is not `CONNECT host:port HTTP/1.1`");
    };
    match destination(authority) {
        Some(destination) => Head::Connect { destination, length: end + 4 },
        None => Head::Invalid("the target is not `host:port`"),
    }
}

/// Reads `host:port`; both are needed, and IPv6 literals stand in brackets.
fn destination(authority: &str) -> Option<Destination> {
    let (name, port) = authority.rsplit_once(':')?;
    let digits = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
    let port = port.parse::<u16>().ok().filter(|port| *port != 0 && digits)?;
    Some(Destination { host: host(name)?, port })
}

fn host(name: &str) -> Option<String> {
    let bracketed = name.starts_with('[') && name.ends_with(']');
    let host = canonical_host(name);
    let is_address = host.parse::<IpAddr>();
    let valid = match is_address {
        Ok(IpAddr::V6(_)) => bracketed,
        // A mapped address in brackets is an IPv4 address by now.
        Ok(IpAddr::V4(_)) => true,
        Err(_) => {
            !host.is_empty()
                && host.len() <= 253
                && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'))
        }
    };
    valid.then(|| host.into_owned())
}

/// A connection to the explicit proxy.
pub(super) struct ProxyFlow {
    shared: Arc<Shared>,
    identity: Arc<Identity>,
}

impl ProxyFlow {
    pub(super) fn new(shared: Arc<Shared>, identity: Arc<Identity>) -> Self {
        Self { shared, identity }
    }

    async fn run(self, mut agent: Rewind<TcpStream>) {
        let head = timeout(HEAD_TIME, async {
            loop {
                match parse_head(agent.ahead()) {
                    Head::Incomplete => {}
                    head => return head,
                }
                if !matches!(agent.look_further().await, Ok(count) if count > 0) {
                    return Head::Incomplete;
                }
            }
        });
        let bad = |status, code, reason| Denial::new(code, status, reason);
        match head.await.unwrap_or(Head::Incomplete) {
            Head::Incomplete => {}
            Head::Request => self.requests(agent).await,
            Head::Connect { destination, length } => {
                agent.consume(length);
                self.connect(destination, agent).await;
            }
            Head::Invalid(reason) => self.refuse(agent, &bad(StatusCode::BAD_REQUEST, "invalid_request_target", reason), None).await,
            Head::TooLarge => {
                let denial =
                    bad(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "invalid_request", "the head of the CONNECT request is too large");
                self.refuse(agent, &denial, None).await;
            }
        }
    }

    async fn connect(self, destination: Destination, mut agent: Rewind<TcpStream>) {
        match self.open(&destination).await {
            Err(denial) => self.refuse(agent, &denial, Some(&destination)).await,
            Ok(connection) => {
                if agent.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await.is_ok() {
                    connection.carry(agent).await;
                }
            }
        }
    }

    async fn open(&self, destination: &Destination) -> Result<super::Connection, Denial> {
        // A client that asked policy DNS by itself gives a synthetic address.
        let host = match destination.host.parse::<IpAddr>() {
            Ok(address) => self.shared.host_of(address).inspect_err(|denial| {
                let revision = self.shared.revision();
                self.shared.recorder.refused(&self.identity, &destination.host, destination.port, Some(address), denial, revision);
            })?,
            Err(_) => destination.host.as_str().into(),
        };
        self.shared.open(&self.identity, host, destination.port).await
    }

    async fn refuse(&self, mut agent: Rewind<TcpStream>, denial: &Denial, destination: Option<&Destination>) {
        let context = Context {
            layer: "l4",
            method: "CONNECT",
            host: destination.map_or("", |destination| &destination.host),
            port: destination.map_or(0, |destination| destination.port),
            binary: &self.identity.exe,
            ..Context::default()
        };
        let _ = agent.write_all(&denial::bytes(denial, &context)).await;
        let _ = agent.shutdown().await;
    }

    /// Requests with absolute targets, one after the other.
    async fn requests(self, mut agent: Rewind<TcpStream>) {
        let binary = self.identity.exe.clone();
        let forward = Arc::new(Forward { flow: self, current: Mutex::new(None) });
        let handle = |request| forward.clone().handle(request).boxed();
        let refusal = |violation| {
            let context = Context { layer: "l7", protocol: "rest", binary: &binary, ..Context::default() };
            denial::bytes(&refusal_of(violation), &context)
        };
        if let Ended::Violation(violation) = http::serve(&mut agent, handle, refusal).await {
            let flow = &forward.flow;
            let (address, port) = (PROXY_ADDRESS.ip().to_string(), PROXY_ADDRESS.port());
            flow.shared.recorder.refused(&flow.identity, &address, port, None, &refusal_of(violation), flow.shared.revision());
        }
    }
}

/// Sends a client's requests on, keeping the connection of the last host.
struct Forward {
    flow: ProxyFlow,
    current: Mutex<Option<Current>>,
}

struct Current {
    destination: Destination,
    exchange: Arc<Exchange>,
    _live: LiveGuard,
}

impl Forward {
    async fn handle(self: Arc<Self>, request: Request<Incoming>) -> Response<ResponseBody> {
        let destination = match absolute_destination(request.uri()) {
            Ok(destination) => destination,
            Err(denial) => return self.response(&denial, &request, None),
        };
        match self.exchange(&destination).await {
            Ok(exchange) => exchange.handle(request).await,
            Err(denial) => self.response(&denial, &request, Some(&destination)),
        }
    }

    async fn exchange(&self, destination: &Destination) -> Result<Arc<Exchange>, Denial> {
        let mut current = self.current.lock().await;
        if let Some(current) = current.as_ref()
            && current.destination == *destination
            && !current.exchange.live().is_cut()
        {
            return Ok(current.exchange.clone());
        }
        *current = None;
        let (live, upstream) = self.flow.open(destination).await?.into_parts();
        let mode = match live.granted.plan.inspection {
            Inspection::Http => Mode::Decide,
            Inspection::Connection => Mode::Credentials,
            Inspection::ServerName => {
                let denial = Denial::forbidden("unsupported_l7_protocol", "this endpoint has `tls: skip` and carries TLS only");
                self.flow.shared.recorder.refused_live(&live, &denial, self.flow.shared.revision());
                return Err(denial);
            }
        };
        let upstream = Upstream::new(Box::new(upstream)).await;
        let exchange = Exchange::new(self.flow.shared.clone(), (*live).clone(), mode, Transport::Plain, upstream);
        *current = Some(Current { destination: destination.clone(), exchange: exchange.clone(), _live: live });
        Ok(exchange)
    }

    fn response(&self, denial: &Denial, request: &Request<Incoming>, destination: Option<&Destination>) -> Response<ResponseBody> {
        let context = Context {
            layer: "l4",
            protocol: "rest",
            method: request.method().as_str(),
            path: request.uri().path(),
            host: destination.map_or("", |destination| &destination.host),
            port: destination.map_or(0, |destination| destination.port),
            binary: &self.flow.identity.exe,
        };
        denial::response(denial, &context).map(|body: Full<Bytes>| body.map_err(Into::into).boxed_unsync())
    }
}

/// The place that an absolute target names.
fn absolute_destination(uri: &Uri) -> Result<Destination, Denial> {
    let bad = |code, reason: &str| Denial::new(code, StatusCode::BAD_REQUEST, reason);
    let target = || bad("invalid_request_target", "this is a proxy: the target has to be absolute, `http://host[:port]/path`");
    let authority = uri.authority().ok_or_else(target)?;
    match uri.scheme_str() {
        Some("http") => {}
        Some("https") => return Err(bad("unsupported_proxy_scheme", "use CONNECT for https: a proxy must not see into it")),
        _ => return Err(bad("unsupported_proxy_scheme", "only http:// targets and CONNECT are proxied")),
    }
    if authority.as_str().contains('@') {
        return Err(target());
    }
    let port = authority.port_u16().unwrap_or(80);
    let host = host(authority.host()).filter(|_| port != 0).ok_or_else(target)?;
    Ok(Destination { host, port })
}

impl Flow for ProxyFlow {
    fn serve(self: Box<Self>, agent: TcpStream) -> BoxFuture<'static, ()> {
        let _ = agent.set_nodelay(true);
        Box::pin(self.run(Rewind::new(agent)))
    }
}

#[cfg(test)]
#[path = "proxy_tests.rs"]
mod tests;
