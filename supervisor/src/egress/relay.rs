//! Carries bytes between two sockets without looking at them.
//!
//! The bytes go through a pipe with `splice(2)`, so they never enter this process. Each direction
//! ends by itself: the end of one is passed on (`SHUT_WR`) and the other goes on, as
//! half-closed TCP connections do. Where a pipe cannot be had (descriptors have run out), the
//! bytes are copied.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
};

use rustix::{
    io::Errno,
    net::Shutdown,
    pipe::{PipeFlags, SpliceFlags, pipe_with, splice},
};
use tokio::{
    io::{AsyncWriteExt as _, Interest},
    net::TcpStream,
};

use crate::limits::egress::RELAY_BUFFER_BYTES;

/// Most bytes that one call moves; the default capacity of a pipe.
const CHUNK: usize = 64 * 1024;

/// How many bytes went each way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Carried {
    /// From the agent.
    pub sent: u64,
    /// To the agent.
    pub received: u64,
}

/// Sends `ahead` to `upstream`, then carries both directions until both have ended.
pub(super) async fn relay(agent: &mut TcpStream, upstream: &mut TcpStream, ahead: &[u8]) -> io::Result<Carried> {
    upstream.write_all(ahead).await?;
    let (agent, upstream) = (&*agent, &*upstream);
    let (sent, received) = tokio::try_join!(one_way(agent, upstream), one_way(upstream, agent))?;
    Ok(Carried { sent: sent + ahead.len() as u64, received })
}

async fn one_way(from: &TcpStream, to: &TcpStream) -> io::Result<u64> {
    // A connection that is idle from its start holds no pipe.
    from.readable().await?;
    let total = match pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK) {
        Ok(pipe) => through_pipe(from, to, &pipe).await?,
        Err(_) => copy(from, to).await?,
    };
    match rustix::net::shutdown(to.as_fd(), Shutdown::Write) {
        // The other side has gone already; the other direction will notice.
        Ok(()) | Err(Errno::NOTCONN) => Ok(total),
        Err(error) => Err(error.into()),
    }
}

async fn through_pipe(from: &TcpStream, to: &TcpStream, (read, write): &(OwnedFd, OwnedFd)) -> io::Result<u64> {
    let mut total = 0;
    loop {
        let received = match from.async_io(Interest::READABLE, || move_bytes(from, write, CHUNK)).await {
            Ok(0) => return Ok(total),
            Ok(received) => received,
            // This kind of socket cannot be spliced; the pipe is empty, so nothing is lost.
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => return Ok(total + copy(from, to).await?),
            Err(error) => return Err(error),
        };
        let mut left = received;
        while left > 0 {
            left -= to.async_io(Interest::WRITABLE, || move_bytes(read, to, left)).await?;
        }
        total += received as u64;
    }
}

fn move_bytes(from: impl AsFd, to: impl AsFd, count: usize) -> io::Result<usize> {
    loop {
        match splice(from.as_fd(), None, to.as_fd(), None, count, SpliceFlags::MOVE | SpliceFlags::NONBLOCK) {
            Err(Errno::INTR) => {}
            result => return Ok(result?),
        }
    }
}

async fn copy(from: &TcpStream, to: &TcpStream) -> io::Result<u64> {
    let mut buffer = vec![0; RELAY_BUFFER_BYTES];
    let mut total = 0;
    loop {
        from.readable().await?;
        let count = match from.try_read(&mut buffer) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
            result => result?,
        };
        if count == 0 {
            return Ok(total);
        }
        let mut written = 0;
        while written < count {
            to.writable().await?;
            match to.try_write(&buffer[written..count]) {
                Ok(more) => written += more,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        total += count as u64;
    }
}

#[cfg(test)]
#[path = "relay_tests.rs"]
mod tests;
