//! Real servers, real sockets and the agent's side of a connection.

use std::{
    collections::HashMap,
    convert::Infallible,
    fmt::Write as _,
    net::{IpAddr, SocketAddr, UdpSocket},
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::{
    body::{Frame, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use openshell_proto::supervisor::{Credential, CredentialBinding, LogRecord};
use rustls::RootCertStore;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject as _};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    time::timeout,
};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::{
    audit::{Audit, AuditLimit, AuditQueue},
    egress::{ActivePolicy, EgressConfig, EgressProxy, ca::SandboxCa, identity::Identity, roots::UpstreamRoots},
    flow::{Egress as _, Flow, Intent, Refusal},
};

pub(super) const HOST: &str = "api.forge.example";
pub(super) const PLACEHOLDER: &str = "openshell:resolve:env:v1_TOKEN";
pub(super) const VALUE: &str = "real-secret-4711";

/// An address of this machine that is not loopback: what a sandbox can be granted.
pub(super) fn machine() -> IpAddr {
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    // Nothing is sent; the kernel only chooses a route.
    socket.connect("203.0.113.1:9").unwrap();
    let address = socket.local_addr().unwrap().ip();
    assert!(!address.is_loopback(), "these tests need a network interface besides loopback");
    address
}

/// What a server was asked.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    pub(super) method: String,
    pub(super) target: String,
    pub(super) headers: http::HeaderMap,
    pub(super) body: usize,
}

pub(super) type Log = Arc<Mutex<Vec<Seen>>>;

/// A server on this machine.
pub(super) struct Server {
    pub(super) address: SocketAddr,
    pub(super) seen: Log,
}

async fn respond(request: Request<Incoming>, log: Log) -> Result<Response<UnsyncBoxBody<Bytes, Infallible>>, Infallible> {
    let (parts, body) = request.into_parts();
    let path = parts.uri.path().to_owned();
    let body = body.collect().await.map_or(usize::MAX, |body| body.to_bytes().len());
    let target = parts.uri.to_string();
    log.lock().unwrap().push(Seen { method: parts.method.to_string(), target, headers: parts.headers, body });
    let full = |text: &str| Full::new(Bytes::from(text.to_owned())).boxed_unsync();
    Ok(match path.as_str() {
        "/stream" => {
            let pieces = futures::stream::unfold(0, |n| async move {
                tokio::time::sleep(Duration::from_millis(10)).await;
                Some((Ok::<_, Infallible>(Frame::data(Bytes::from(format!("piece {n}\n")))), n + 1))
            });
            Response::new(UnsyncBoxBody::new(StreamBody::new(pieces)))
        }
        "/big" => Response::new(Full::new(Bytes::from(vec![b'x'; 8 << 20])).boxed_unsync()),
        "/204" => {
            let mut response = Response::new(full(""));
            *response.status_mut() = StatusCode::NO_CONTENT;
            response
        }
        "/close" => {
            let mut response = Response::new(full("bye"));
            response.headers_mut().insert("connection", http::HeaderValue::from_static("close"));
            response
        }
        _ => Response::new(full(&format!("hello {path}"))),
    })
}

async fn http<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(stream: S, log: Log) {
    let service = service_fn(move |request| respond(request, log.clone()));
    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

impl Server {
    async fn start(tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind((machine(), 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Log::default();
        let log = seen.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (tls, log) = (tls.clone(), log.clone());
                tokio::spawn(async move {
                    match tls {
                        None => http(stream, log).await,
                        Some(tls) => {
                            if let Ok(stream) = tls.accept(stream).await {
                                http(stream, log).await;
                            }
                        }
                    }
                });
            }
        });
        Self { address, seen }
    }

    pub(super) async fn plain() -> Self {
        Self::start(None).await
    }

    /// A server with a certificate for [`HOST`], and the root that it leads to.
    pub(super) async fn tls() -> (Self, RootCertStore) {
        let issued = rcgen::generate_simple_self_signed(vec![HOST.to_owned()]).unwrap();
        let certificate = issued.cert.der().clone();
        let key = PrivateKeyDer::try_from(issued.signing_key.serialize_der()).unwrap();
        let config = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.clone()], key)
            .unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(certificate).unwrap();
        (Self::start(Some(TlsAcceptor::from(Arc::new(config)))).await, roots)
    }

    /// A server that sends back what it gets.
    pub(super) async fn echo() -> SocketAddr {
        let listener = TcpListener::bind((machine(), 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let (mut read, mut write) = stream.split();
                    let _ = tokio::io::copy(&mut read, &mut write).await;
                    let _ = write.shutdown().await;
                });
            }
        });
        address
    }

    pub(super) fn last(&self) -> Seen {
        self.seen.lock().unwrap().last().expect("the server was asked").clone()
    }

    pub(super) fn count(&self) -> usize {
        self.seen.lock().unwrap().len()
    }
}

/// One sandbox's egress.
pub(super) struct Sandbox {
    pub(super) proxy: EgressProxy,
    pub(super) ca: SandboxCa,
    pub(super) queue: AuditQueue,
    pub(super) identity: Arc<Identity>,
    revision: u64,
}

impl Sandbox {
    pub(super) fn new(roots: RootCertStore) -> Self {
        let (audit, queue) = Audit::new(AuditLimit::default());
        let ca = SandboxCa::new().unwrap();
        let proxy = EgressProxy::new(EgressConfig { ca: ca.clone(), audit, roots: UpstreamRoots::from_store(roots) });
        let identity = Arc::new(Identity { pid: 42, exe: "/usr/bin/tool".into(), ..Identity::default() });
        Self { proxy, ca, queue, identity, revision: 0 }
    }

    /// A sandbox with this policy, in which [`HOST`] is this machine.
    pub(super) fn with(policy: &str) -> Self {
        Self::with_roots(policy, RootCertStore::empty())
    }

    pub(super) fn with_roots(policy: &str, roots: RootCertStore) -> Self {
        let mut sandbox = Self::new(roots);
        sandbox.install(policy, Vec::new());
        sandbox
    }

    pub(super) fn install(&mut self, policy: &str, credentials: Vec<Credential>) -> usize {
        self.revision += 1;
        let policy = openshell_policy::from_yaml(policy).unwrap_or_else(|error| panic!("{error}\n{policy}"));
        let active = ActivePolicy {
            engine: openshell_policy::Engine::compile(&policy).unwrap(),
            revision: self.revision,
            credentials,
            host_aliases: HashMap::from([(HOST.to_owned(), machine().to_string()), ("other.example".to_owned(), machine().to_string())]),
            forbidden: vec![format!("{}:17670", machine())],
        };
        self.proxy.install(active).unwrap().cut
    }

    /// Asks policy DNS.
    pub(super) async fn lookup(&self, name: &str) -> Option<IpAddr> {
        use hickory_proto::{
            op::{Message, MessageType, OpCode, Query},
            rr::{Name, RData, RecordType},
        };
        let mut message = Message::new(1, MessageType::Query, OpCode::Query);
        message.add_query(Query::query(Name::from_ascii(name).unwrap(), RecordType::A));
        let answer = self.proxy.resolve(self.identity.clone(), message.to_vec().unwrap()).await?;
        Message::from_vec(&answer).unwrap().answers.iter().find_map(|record| match record.data {
            RData::A(address) => Some(IpAddr::V4(address.0)),
            _ => None,
        })
    }

    pub(super) async fn open(&self, destination: SocketAddr) -> Result<Box<dyn Flow>, Refusal> {
        self.proxy.open(Intent { identity: self.identity.clone(), destination }).await
    }

    /// A connection as the agent sees it, to an address of its choice.
    pub(super) async fn connect_to(&self, destination: SocketAddr) -> Result<TcpStream, Refusal> {
        let flow = self.open(destination).await?;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (agent, accepted) = tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), listener.accept());
        tokio::spawn(flow.serve(accepted.unwrap().0));
        Ok(agent.unwrap())
    }

    /// A connection as the agent sees it, to a name.
    pub(super) async fn connect(&self, name: &str, port: u16) -> Result<TcpStream, Refusal> {
        let address = self.lookup(name).await.unwrap_or_else(|| panic!("{name} does not resolve in the sandbox"));
        self.connect_to(SocketAddr::new(address, port)).await
    }

    /// TLS on a connection, trusting the sandbox's authority only.
    pub(super) async fn tls(&self, stream: TcpStream, name: &str) -> std::io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.ca.pem().as_bytes()).unwrap()).unwrap();
        tls_with(roots, stream, name).await
    }

    pub(super) fn records(&self) -> Vec<LogRecord> {
        self.queue.unacked(usize::MAX)
    }

    /// The lines recorded so far, once one of them holds `text`.
    pub(super) async fn recorded(&self, text: &str) -> Vec<String> {
        for _ in 0..200 {
            let lines: Vec<String> = self.records().into_iter().map(|record| record.message).collect();
            if lines.iter().any(|line| line.contains(text)) {
                return lines;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("nothing recorded with {text:?}: {:#?}", self.records().iter().map(|record| &record.message).collect::<Vec<_>>());
    }
}

pub(super) async fn tls_with(
    roots: RootCertStore,
    stream: TcpStream,
    name: &str,
) -> std::io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
    let config = rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    TlsConnector::from(Arc::new(config)).connect(ServerName::try_from(name.to_owned()).unwrap(), stream).await
}

/// A policy with one endpoint on this machine.
pub(super) fn policy(port: u16, endpoint: &str) -> String {
    let machine = machine();
    format!(
        "version: 1\nnetwork_policies:\n  forge:\n    endpoints:\n      - host: {HOST}\n        port: {port}\n        allowed_ips: [\"{machine}\"]\n{endpoint}    binaries:\n      - path: /usr/bin/tool\n"
    )
}

/// Lines of an endpoint that is inspected and grants this.
pub(super) fn rest(rules: &[(&str, &str)]) -> String {
    let mut text = "        protocol: rest\n        enforcement: enforce\n        rules:\n".to_owned();
    for (method, path) in rules {
        writeln!(text, "          - allow: {{ method: \"{method}\", path: \"{path}\" }}").unwrap();
    }
    text
}

pub(super) fn credential(port: u16, path: &str) -> Credential {
    Credential {
        env: "TOKEN".into(),
        placeholder: PLACEHOLDER.into(),
        value: VALUE.into(),
        bindings: vec![CredentialBinding { host: HOST.into(), port: u32::from(port), path: path.into() }],
        provider: "forge".into(),
        expires: None,
    }
}

/// An answer as a client reads it.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) head: String,
    pub(super) body: Vec<u8>,
}

impl Answer {
    pub(super) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    pub(super) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// Sends bytes and reads one answer.
pub(super) async fn ask<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S, request: &str) -> std::io::Result<Answer> {
    stream.write_all(request.as_bytes()).await?;
    timeout(Duration::from_secs(20), read_answer(stream, request.starts_with("HEAD"))).await.expect("an answer in time")
}

pub(super) async fn read_answer<S: AsyncRead + Unpin>(stream: &mut S, head_only: bool) -> std::io::Result<Answer> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    let head = String::from_utf8(head).unwrap();
    let status = head[9..12].parse().unwrap();
    let field = |name: &str| {
        head.lines()
            .find_map(|line| line.split_once(": ").filter(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.to_owned()))
    };
    let mut body = Vec::new();
    if head_only || status == 204 || status == 100 || (status == 200 && head.contains("Connection established")) {
        // There is none.
    } else if let Some(length) = field("content-length") {
        body.resize(length.parse().unwrap(), 0);
        stream.read_exact(&mut body).await?;
    } else if field("transfer-encoding").is_some() {
        loop {
            let mut line = Vec::new();
            while !line.ends_with(b"\r\n") {
                line.push(stream.read_u8().await?);
            }
            let size = usize::from_str_radix(std::str::from_utf8(&line).unwrap().trim(), 16).unwrap();
            let mut piece = vec![0; size + 2];
            stream.read_exact(&mut piece).await?;
            body.extend_from_slice(&piece[..size]);
            if size == 0 {
                break;
            }
        }
    } else {
        stream.read_to_end(&mut body).await?;
    }
    Ok(Answer { status, head, body })
}

/// How long until the connection ends, one way or another.
pub(super) async fn time_to_end<S: AsyncRead + Unpin>(stream: &mut S) -> Duration {
    let started = std::time::Instant::now();
    let mut buffer = [0; 4096];
    let end = async { while matches!(stream.read(&mut buffer).await, Ok(count) if count > 0) {} };
    timeout(Duration::from_secs(10), end).await.expect("the connection ends");
    started.elapsed()
}

/// A GET for the host, on a kept connection.
pub(super) fn get(path: &str, fields: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: {HOST}\r\n{fields}\r\n")
}
