//! HTTP/1.1 between the agent and the server: every request is decided, then sent as it was decided.
//!
//! ```text
//!  agent ─▶ lint ─▶ hyper server ─▶ exchange ─▶ hyper client ─▶ server
//!           framing  parse          target: canonical path      writes anew what was decided
//!           is unambiguous          policy: per request
//!                                   credentials: last
//! ```
//!
//! Bodies are streamed and never held. Connections are kept alive on both sides; a request on a kept
//! connection is decided by the revision of that moment.

pub(super) mod denial;
pub(super) mod exchange;
pub mod lint;
pub mod target;
pub(super) mod upstream;

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use futures::future::BoxFuture;
use http::{Request, Response};
use http_body_util::combinators::UnsyncBoxBody;
use hyper::{
    body::{Body, Frame, Incoming, SizeHint},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, ReadBuf};

use crate::limits::egress::{HEAD_BYTES, HEADERS, KEEP_ALIVE_TIME};

use lint::{Lint, Violation};

/// A body on its way to the agent.
pub(super) type ResponseBody = UnsyncBoxBody<Bytes, BodyError>;

/// Any failure of a body under way.
pub(super) type BodyError = Box<dyn std::error::Error + Send + Sync>;

/// How serving a connection ended.
#[derive(Debug)]
pub(super) enum Ended {
    /// By itself, or by an error of the connection.
    Closed,
    /// The agent sent something that is no unambiguous HTTP/1.1.
    Violation(Violation),
}

/// Serves HTTP/1.1 to the agent until the connection ends. `refusal` makes the answer to a
/// violation; it is sent only where it cannot be taken for a part of another answer.
pub(super) async fn serve<S, F>(stream: S, handle: F, refusal: impl FnOnce(Violation) -> Vec<u8>) -> Ended
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
    F: Fn(Request<Incoming>) -> BoxFuture<'static, Response<ResponseBody>>,
{
    let found = Arc::new(Mutex::new(None));
    let mut connection = {
        let linted = Linted { inner: stream, lint: Lint::default(), found: found.clone(), answering: Arc::default() };
        let answering = linted.answering.clone();
        let service = service_fn(move |request| {
            let answer = handle(request);
            let answering = answering.clone();
            Box::pin(async move {
                answering.store(true, Ordering::Relaxed);
                let answer = answer.await.map(|body| UnsyncBoxBody::new(Answering { body, answering }));
                Ok::<_, std::convert::Infallible>(answer)
            }) as BoxFuture<'static, _>
        });
        http1::Builder::new()
            .keep_alive(true)
            .half_close(true)
            .max_headers(HEADERS)
            .max_header_size(HEAD_BYTES)
            .max_buf_size(HEAD_BYTES * 2)
            .timer(TokioTimer::new())
            .header_read_timeout(KEEP_ALIVE_TIME)
            .auto_date_header(false)
            .serve_connection(TokioIo::new(linted), service)
    };
    let result = (&mut connection).await;
    let Some(violation) = *found.lock() else {
        if let Err(error) = result {
            tracing::debug!(%error, "a connection of the agent ended");
        }
        return Ended::Closed;
    };
    let linted = connection.into_parts().io.into_inner();
    if !linted.answering.load(Ordering::Relaxed) {
        let mut stream = linted.inner;
        let _ = stream.write_all(&refusal(violation)).await;
        let _ = stream.shutdown().await;
    }
    Ended::Violation(violation)
}

/// A stream that hands on only what the lint lets through.
struct Linted<S> {
    inner: S,
    lint: Lint,
    found: Arc<Mutex<Option<Violation>>>,
    /// Whether an answer has been begun and not ended.
    answering: Arc<AtomicBool>,
}

/// A body that tells when it has been written.
struct Answering {
    body: ResponseBody,
    answering: Arc<AtomicBool>,
}

impl Drop for Answering {
    fn drop(&mut self) {
        self.answering.store(false, Ordering::Relaxed);
    }
}

impl Body for Answering {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Linted<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let before = buf.filled().len();
        ready!(Pin::new(&mut this.inner).poll_read(cx, buf))?;
        if let Err(violation) = this.lint.feed(&buf.filled()[before..]) {
            buf.set_filled(before);
            *this.found.lock() = Some(violation);
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, violation)));
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Linted<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // The refusal still has to be written.
        if self.found.lock().is_some() {
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bufs: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }
}
