//! The listener: TLS, HTTP/1.1 and HTTP/2 on one port, until it is told to end.
//!
//! A client certificate is asked for and not demanded by TLS: supervisors come with a token on
//! the same port. Which of the two a call needs is decided per method by [`crate::auth`].

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt as _;

use crate::auth::CertificateSubject;
use crate::limits;
use crate::pki::Leaf;

/// How the bytes of a connection travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// TLS.
    Tls,
    /// As they are; only on loopback and only when asked for.
    Plaintext,
}

/// What is known of the connection that a request came on; in the request's extensions.
#[derive(Clone, Debug)]
pub struct Connection {
    /// Where it comes from.
    pub peer: SocketAddr,
    /// How it came.
    pub transport: Transport,
    /// The verified certificate of the client, if it has one.
    pub certificate: Option<Arc<CertificateSubject>>,
}

/// TLS that asks for a client certificate of one of these authorities: there is more than one while they change.
pub fn tls_config(authorities: &str, leaf: &Leaf) -> Result<ServerConfig, rustls::Error> {
    let pem = |e: rustls_pki_types::pem::Error| rustls::Error::General(format!("a certificate cannot be read: {e}"));
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = RootCertStore::empty();
    for authority in CertificateDer::pem_slice_iter(authorities.as_bytes()) {
        roots.add(authority.map_err(pem)?)?;
    }
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
        .allow_unauthenticated()
        .build()
        .map_err(|e| rustls::Error::General(e.to_string()))?;
    let chain = vec![CertificateDer::from_pem_slice(leaf.certificate.as_bytes()).map_err(pem)?];
    let key = PrivateKeyDer::from_pem_slice(leaf.key.as_bytes()).map_err(pem)?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

/// How a server is told to end.
#[derive(Clone, Debug, Default)]
pub struct Stop {
    /// No new connections and no new calls; what is under way goes on.
    pub draining: CancellationToken,
    /// What is still under way is cut off.
    pub abort: CancellationToken,
}

/// A listener and what it serves.
pub struct Server {
    /// Bound already, so that a taken port is an error before anything else is begun.
    pub listener: TcpListener,
    /// None: plaintext.
    pub tls: Option<Arc<ServerConfig>>,
    /// What is behind it.
    pub router: Router,
}

impl Server {
    /// Serves until it is told to drain, and returns when every connection has ended.
    pub async fn run(self, stop: Stop) {
        let permits = Arc::new(Semaphore::new(limits::CONNECTIONS));
        let tasks = TaskTracker::new();
        let handler = Handler { router: self.router, tls: self.tls.map(TlsAcceptor::from), http: http(), stop: stop.clone() };
        loop {
            // The permit comes first: beyond the limit connections wait in the kernel's queue.
            let permit = tokio::select! {
                () = stop.draining.cancelled() => break,
                permit = permits.clone().acquire_owned() => permit,
            };
            let Ok(permit) = permit else { break };
            let accepted = tokio::select! {
                () = stop.draining.cancelled() => break,
                accepted = self.listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, peer)) => {
                    let handler = handler.clone();
                    tasks.spawn(async move {
                        handler.connection(stream, peer).await;
                        drop(permit);
                    });
                }
                Err(error) => {
                    // Out of descriptors, or a connection that died while it waited.
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                }
            }
        }
        drop(self.listener);
        tasks.close();
        tasks.wait().await;
    }
}

fn http() -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(limits::HANDSHAKE).max_buf_size(limits::HEADER_BYTES as usize);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits::STREAMS_PER_CONNECTION)
        .max_header_list_size(limits::HEADER_BYTES)
        .keep_alive_interval(limits::KEEPALIVE_INTERVAL)
        .keep_alive_timeout(limits::KEEPALIVE_TIMEOUT)
        .adaptive_window(true);
    builder
}

#[derive(Clone)]
struct Handler {
    router: Router,
    tls: Option<TlsAcceptor>,
    http: auto::Builder<TokioExecutor>,
    stop: Stop,
}

impl Handler {
    async fn connection(&self, stream: TcpStream, peer: SocketAddr) {
        // Small frames of an exec or a watch must not wait for an acknowledgement.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "cannot set TCP_NODELAY");
        }
        let Some(acceptor) = &self.tls else {
            return self.http(stream, Connection { peer, transport: Transport::Plaintext, certificate: None }).await;
        };
        let handshake = tokio::time::timeout(limits::HANDSHAKE, acceptor.accept(stream));
        let handshake = tokio::select! {
            handshake = handshake => handshake,
            () = self.stop.draining.cancelled() => return,
        };
        match handshake {
            Ok(Ok(stream)) => {
                let certificate = match stream.get_ref().1.peer_certificates().and_then(<[_]>::first) {
                    None => None,
                    Some(der) => match CertificateSubject::from_der(der) {
                        Some(subject) => Some(Arc::new(subject)),
                        None => return tracing::warn!(%peer, "the client's certificate has no common name"),
                    },
                };
                self.http(stream, Connection { peer, transport: Transport::Tls, certificate }).await;
            }
            Ok(Err(error)) => tracing::debug!(%peer, %error, "TLS handshake failed"),
            Err(_) => tracing::debug!(%peer, "TLS handshake took too long"),
        }
    }

    async fn http<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(&self, stream: S, connection: Connection) {
        let peer = connection.peer;
        let service = self.router.clone().map_request(move |mut request: http::Request<hyper::body::Incoming>| {
            request.extensions_mut().insert(connection.clone());
            request.map(axum::body::Body::new)
        });
        let served = self.http.serve_connection(TokioIo::new(stream), TowerToHyperService::new(service));
        tokio::pin!(served);
        let mut draining = false;
        loop {
            tokio::select! {
                ended = served.as_mut() => {
                    if let Err(error) = ended {
                        tracing::debug!(%peer, %error, "connection ended");
                    }
                    return;
                }
                () = self.stop.draining.cancelled(), if !draining => {
                    draining = true;
                    served.as_mut().graceful_shutdown();
                }
                () = self.stop.abort.cancelled() => return,
            }
        }
    }
}
