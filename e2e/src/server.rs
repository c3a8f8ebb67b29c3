//! Servers on an address of this machine, for sandboxes to talk to.

use std::{
    convert::Infallible,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    thread,
};

use anyhow::Context as _;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::{Request, Response, StatusCode, body::Incoming, header::HeaderValue, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpListener;

use crate::host;

/// What a server was asked.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Method.
    pub method: String,
    /// Path and query.
    pub target: String,
    /// Header names (lower case) and values.
    pub headers: Vec<(String, String)>,
    /// Body.
    pub body: Vec<u8>,
}

impl Seen {
    /// The first header of this name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }
}

/// Answers every request with 200 and `seen METHOD TARGET`, and remembers it.
pub struct Server {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
}

/// A certificate authority for test servers, and the file that makes a supervisor trust it.
pub struct Authority {
    key: rcgen::KeyPair,
    certificate: rcgen::CertificateParams,
    pem: String,
    _directory: tempfile::TempDir,
    file: PathBuf,
}

impl Authority {
    /// Makes one.
    pub fn new() -> anyhow::Result<Self> {
        let key = rcgen::KeyPair::generate()?;
        let mut params = rcgen::CertificateParams::new(Vec::new())?;
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params.distinguished_name.push(rcgen::DnType::CommonName, "OpenShell test authority");
        params.key_usages = vec![rcgen::KeyUsagePurpose::KeyCertSign, rcgen::KeyUsagePurpose::CrlSign];
        let pem = params.self_signed(&key)?.pem();
        let directory = tempfile::Builder::new().prefix("openshell-e2e-ca-").tempdir()?;
        let file = directory.path().join("ca.pem");
        std::fs::write(&file, &pem)?;
        Ok(Self { key, certificate: params, pem, _directory: directory, file })
    }

    /// The authority's certificate, for `SSL_CERT_FILE` of a gateway.
    pub fn file(&self) -> String {
        self.file.display().to_string()
    }

    /// The same as text.
    pub fn pem(&self) -> &str {
        &self.pem
    }

    fn server_config(&self) -> anyhow::Result<rustls::ServerConfig> {
        let key = rcgen::KeyPair::generate()?;
        let mut params = rcgen::CertificateParams::new(vec![host::ALIAS.to_owned(), "localhost".to_owned()])?;
        params.subject_alt_names.push(rcgen::SanType::IpAddress(host::address()?.into()));
        let issuer = rcgen::Issuer::from_params(&self.certificate, &self.key);
        let certificate = params.signed_by(&key, &issuer)?;
        let key = rustls::pki_types::PrivateKeyDer::Pkcs8(key.serialize_der().into());
        let mut config = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key)?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(config)
    }
}

impl Server {
    /// HTTP on this machine's address.
    pub fn http() -> anyhow::Result<Self> {
        Self::start(host::address()?, None, None)
    }

    /// HTTPS on this machine's address, with a certificate of this authority.
    pub fn https(authority: &Authority) -> anyhow::Result<Self> {
        Self::start(host::address()?, Some(authority.server_config()?), None)
    }

    /// HTTPS on this machine's address that serves the files below `root`.
    pub fn files(authority: &Authority, root: &Path) -> anyhow::Result<Self> {
        Self::start(host::address()?, Some(authority.server_config()?), Some(root.to_owned()))
    }

    /// HTTP on the host's loopback: what no sandbox may reach.
    pub fn loopback() -> anyhow::Result<Self> {
        Self::start(Ipv4Addr::LOCALHOST, None, None)
    }

    fn start(address: Ipv4Addr, tls: Option<rustls::ServerConfig>, root: Option<PathBuf>) -> anyhow::Result<Self> {
        let listener = std::net::TcpListener::bind((address, 0)).with_context(|| format!("listening on {address}"))?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let content = Arc::new(Content { seen: Arc::clone(&seen), root });
        thread::spawn(move || runtime.block_on(serve(listener, tls, content, stopped)));
        Ok(Self { address, seen, stop: Some(stop) })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Port.
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// What it was asked so far.
    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().map(|seen| seen.clone()).unwrap_or_default()
    }

    /// Forgets what it was asked.
    pub fn forget(&self) {
        if let Ok(mut seen) = self.seen.lock() {
            seen.clear();
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
    }
}

async fn serve(
    listener: std::net::TcpListener,
    tls: Option<rustls::ServerConfig>,
    content: Arc<Content>,
    mut stopped: tokio::sync::oneshot::Receiver<()>,
) {
    let Ok(listener) = TcpListener::from_std(listener) else { return };
    let acceptor = tls.map(|config| tokio_rustls::TlsAcceptor::from(Arc::new(config)));
    loop {
        let stream = tokio::select! {
            accepted = listener.accept() => match accepted { Ok((stream, _)) => stream, Err(_) => return },
            _ = &mut stopped => return,
        };
        let _ = stream.set_nodelay(true);
        let (acceptor, content) = (acceptor.clone(), Arc::clone(&content));
        tokio::spawn(async move {
            let service = service_fn(move |request| answer(request, Arc::clone(&content)));
            let server = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
            let served = match acceptor {
                Some(acceptor) => match acceptor.accept(stream).await {
                    Ok(stream) => server.serve_connection(TokioIo::new(stream), service).await,
                    Err(_) => return,
                },
                None => server.serve_connection(TokioIo::new(stream), service).await,
            };
            drop(served);
        });
    }
}

/// What a server answers with.
struct Content {
    seen: Arc<Mutex<Vec<Seen>>>,
    root: Option<PathBuf>,
}

impl Content {
    /// The file that a path names, if this server serves files.
    fn file(&self, path: &str) -> Option<Result<Vec<u8>, StatusCode>> {
        let root = self.root.as_ref()?;
        let mut file = root.join(path.trim_start_matches('/'));
        if file.is_dir() {
            file.push("index.html");
        }
        let inside = file.canonicalize().is_ok_and(|file| file.starts_with(root));
        Some(std::fs::read(file).ok().filter(|_| inside).ok_or(StatusCode::NOT_FOUND))
    }
}

async fn answer(request: Request<Incoming>, content: Arc<Content>) -> Result<Response<Full<Bytes>>, Infallible> {
    let method = request.method().to_string();
    let path = request.uri().path().to_owned();
    let target = request.uri().path_and_query().map_or_else(|| "/".to_owned(), ToString::to_string);
    let headers = request.headers().iter().map(|(n, v)| (n.to_string(), String::from_utf8_lossy(v.as_bytes()).into_owned())).collect();
    let body = request.into_body().collect().await.map(|b| b.to_bytes().to_vec()).unwrap_or_default();
    let mut reply = Response::default();
    *reply.body_mut() = match content.file(&path) {
        Some(Ok(bytes)) => {
            if path.ends_with('/') {
                reply.headers_mut().insert("content-type", HeaderValue::from_static("text/html"));
            }
            Full::new(Bytes::from(bytes))
        }
        Some(Err(status)) => {
            *reply.status_mut() = status;
            Full::default()
        }
        None => Full::new(Bytes::from(format!("seen {method} {target}\n"))),
    };
    if let Ok(mut seen) = content.seen.lock() {
        seen.push(Seen { method, target, headers, body });
    }
    Ok(reply)
}
