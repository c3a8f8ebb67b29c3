//! The server's side of an exchange: one connection, kept between requests, dialled again when the
//! server has closed it.

use std::{io, sync::Arc};

use hyper::{
    body::Incoming,
    client::conn::http1::{self, SendRequest},
};
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::timeout,
};
use tokio_util::task::AbortOnDropHandle;

use crate::{
    egress::{Shared, active::Denial, connections::Live, credentials::Transport, dial},
    flow::Errno,
    limits::egress::{HANDSHAKE_TIME, HEAD_BYTES, HEADERS},
};

/// A byte stream, encrypted or not.
pub(in crate::egress) trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

/// A connection to the server that HTTP/1.1 is spoken on.
pub(in crate::egress) struct Upstream {
    pub(super) sender: SendRequest<Incoming>,
    /// The task that drives it ends with it.
    _driver: AbortOnDropHandle<()>,
}

impl Upstream {
    pub(in crate::egress) async fn new(stream: Box<dyn Stream>) -> Result<Self, Denial> {
        let (sender, connection) = http1::Builder::new()
            .max_headers(HEADERS * 2)
            .max_buf_size(HEAD_BYTES * 2)
            .max_header_size(HEAD_BYTES)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|error| Denial::unreachable(Errno::Unreachable, format!("the server's connection failed: {error}")))?;
        let driver = tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "an upstream connection ended");
            }
        });
        Ok(Self { sender, _driver: AbortOnDropHandle::new(driver) })
    }
}

/// TLS on a dialled connection, verified for the decided host.
pub(in crate::egress) async fn encrypt(shared: &Shared, host: &str, stream: TcpStream) -> Result<Box<dyn Stream>, Denial> {
    let failed = |reason: String| Denial::unreachable(Errno::Unreachable, reason);
    let name = ServerName::try_from(host.to_owned()).map_err(|_| failed(format!("{host} is no name that a certificate can have")))?;
    let connector = shared.upstream.connector().map_err(|error| failed(format!("TLS is not to be had: {error}")))?;
    match timeout(HANDSHAKE_TIME, connector.connect(name, stream)).await {
        Ok(Ok(stream)) => Ok(Box::new(stream)),
        Ok(Err(error)) => Err(failed(format!("TLS with {host} failed: {}", tls_reason(&error)))),
        Err(_) => Err(Denial { errno: Errno::TimedOut, ..failed(format!("TLS with {host} did not complete in time")) }),
    }
}

/// rustls wraps its error in one of the I/O kind; what is inside says more.
fn tls_reason(error: &io::Error) -> String {
    error.get_ref().map_or_else(|| error.to_string(), ToString::to_string)
}

/// Dials the server of a live connection again. It is decided, resolved and checked anew.
pub(in crate::egress) async fn dial_again(shared: &Shared, live: &Arc<Live>, transport: Transport) -> Result<Upstream, Denial> {
    let active = shared.active()?;
    let granted = active.decide(&live.identity, &live.host, live.port)?;
    let addresses = active.route(&shared.resolver, &granted, &live.host, live.port).await?;
    let stream = dial::dial(&addresses)
        .await
        .map_err(|error| Denial::unreachable(Errno::Unreachable, format!("{}:{}: {error}", live.host, live.port)))?;
    if let Ok(address) = stream.peer_addr() {
        live.set_address(address.ip());
    }
    let stream: Box<dyn Stream> = match transport {
        Transport::Plain => Box::new(stream),
        Transport::Tls => encrypt(shared, &live.host, stream).await?,
    };
    Upstream::new(stream).await
}
