//! A stream whose first bytes have been looked at and are read again.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::{Buf as _, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf};

/// A stream and the bytes that were read ahead of it.
#[derive(Debug)]
pub struct Rewind<S> {
    ahead: BytesMut,
    inner: S,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Rewind<S> {
    /// Nothing has been read yet.
    pub fn new(inner: S) -> Self {
        Self { ahead: BytesMut::new(), inner }
    }

    /// What has been read ahead.
    pub fn ahead(&self) -> &[u8] {
        &self.ahead
    }

    /// Drops `count` bytes that were read ahead and have been dealt with.
    pub fn consume(&mut self, count: usize) {
        self.ahead.advance(count.min(self.ahead.len()));
    }

    /// Reads further ahead; gives the number of new bytes, 0 at the end.
    pub async fn look_further(&mut self) -> io::Result<usize> {
        self.inner.read_buf(&mut self.ahead).await
    }

    /// The stream below.
    pub fn get_ref(&self) -> &S {
        &self.inner
    }

    /// The bytes read ahead, and the stream below.
    pub fn into_parts(self) -> (BytesMut, S) {
        (self.ahead, self.inner)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Rewind<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.ahead.is_empty() {
            return Pin::new(&mut self.inner).poll_read(cx, buf);
        }
        let count = self.ahead.len().min(buf.remaining());
        buf.put_slice(&self.ahead[..count]);
        self.ahead.advance(count);
        if self.ahead.is_empty() {
            self.ahead = BytesMut::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Rewind<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bufs: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }
}
