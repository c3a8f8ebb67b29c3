//! Standard streams: what is given to a process, and the other ends.

use std::{
    fs::File,
    io,
    os::fd::{AsFd as _, OwnedFd},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use rustix::pipe::{PipeFlags, pipe_with};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::unix::pipe,
};
use tokio_util::sync::CancellationToken;

use super::{
    Command, Input, Size,
    terminal::{self, Terminal},
};
use crate::{
    confine::{RunAs, Spawn},
    limits::session::{CHUNK_BYTES, DRAIN_TIME, RING_BYTES},
};

/// Which stream a chunk came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stream {
    Stdout,
    Stderr,
}

/// Our ends of a process's standard streams.
pub(super) struct Ends {
    pub(super) stdin: Writer,
    pub(super) stdout: Reader,
    /// A terminal has one stream for both.
    pub(super) stderr: Option<Reader>,
}

/// How the standard streams are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    Terminal(Size),
    /// Three pipes.
    Pipes,
    /// Nothing to read: `/dev/null`, and two pipes.
    NoInput,
}

/// Makes the streams, and the request to start the command on them. The agent's ends belong to
/// the agent's user: programs open `/dev/stdout` and `/dev/tty` again by path.
pub(super) fn connect(command: Command, shape: Shape, owner: Option<RunAs>) -> io::Result<(Spawn, Ends)> {
    let Command { argv, env, cwd } = command;
    let spawn = |stdin, stdout, stderr, tty| Spawn { argv, env, cwd, stdin, stdout, stderr, tty };
    if let Shape::Terminal(size) = shape {
        let (terminal, screen, slave) = terminal::open(size)?;
        give(&slave, owner)?;
        let (out, err) = (slave.try_clone()?, slave.try_clone()?);
        let ends = Ends { stdin: Writer::Terminal(terminal), stdout: Reader(screen), stderr: None };
        return Ok((spawn(slave, out, err, true), ends));
    }
    let (stdin, stdin_end) = if shape == Shape::NoInput {
        (OwnedFd::from(File::open("/dev/null")?), Writer::Closed)
    } else {
        let (read, write) = pipe_with(PipeFlags::CLOEXEC)?;
        give(&read, owner)?;
        (read, Writer::Pipe(pipe::Sender::from_owned_fd(write)?))
    };
    let output = || {
        let (read, write) = pipe_with(PipeFlags::CLOEXEC)?;
        give(&write, owner)?;
        Ok::<_, io::Error>((Reader(pipe::Receiver::from_owned_fd(read)?), write))
    };
    let ((stdout_end, stdout), (stderr_end, stderr)) = (output()?, output()?);
    Ok((spawn(stdin, stdout, stderr, false), Ends { stdin: stdin_end, stdout: stdout_end, stderr: Some(stderr_end) }))
}

fn give(end: &OwnedFd, owner: Option<RunAs>) -> io::Result<()> {
    if let Some(owner) = owner {
        let (uid, gid) = (rustix::fs::Uid::from_raw(owner.uid), rustix::fs::Gid::from_raw(owner.gid));
        rustix::fs::fchown(end.as_fd(), Some(uid), Some(gid))?;
    }
    Ok(())
}

/// Our end of a process's input.
pub(super) enum Writer {
    Pipe(pipe::Sender),
    Terminal(Terminal),
    Closed,
}

impl Writer {
    /// Feeds one message. A process that does not read holds us here; one that has closed its
    /// input loses what is sent to it, as with any pipe.
    pub(super) async fn feed(&mut self, input: Input) {
        let written = match (&mut *self, input) {
            (Self::Pipe(pipe), Input::Data(data)) => pipe.write_all(&data).await,
            (Self::Terminal(terminal), Input::Data(data)) => terminal.write_all(&data).await,
            (Self::Terminal(terminal), Input::Resize(size)) => {
                let _ = terminal.resize(size);
                Ok(())
            }
            // The end of a terminal's input is a character that the client types.
            (Self::Pipe(_), Input::Eof) => Err(io::ErrorKind::BrokenPipe.into()),
            _ => Ok(()),
        };
        if written.is_err() {
            *self = Self::Closed;
        }
    }
}

/// Our end of a process's output.
pub(super) struct Reader(pipe::Receiver);

impl Reader {
    /// Gives every chunk to `take`, to the end. After the process has ended (`over`), a daemon
    /// may still hold the other end: then what is in the pipe is read, and no more is waited for.
    pub(super) async fn pump<F>(mut self, over: CancellationToken, mut take: impl FnMut(Bytes) -> F)
    where
        F: Future<Output = Flow>,
    {
        let mut buffer = BytesMut::new();
        let mut after = 0;
        loop {
            buffer.reserve(CHUNK_BYTES);
            let read = if over.is_cancelled() {
                if after > RING_BYTES {
                    return;
                }
                tokio::time::timeout(DRAIN_TIME, self.0.read_buf(&mut buffer)).await.unwrap_or(Ok(0))
            } else {
                tokio::select! {
                    biased;
                    read = self.0.read_buf(&mut buffer) => read,
                    () = over.cancelled() => continue,
                }
            };
            match read {
                // A terminal that nobody has open any more fails with EIO.
                Ok(0) | Err(_) => return,
                Ok(read) => {
                    if over.is_cancelled() {
                        after += read;
                    }
                    if take(buffer.split().freeze()).await == Flow::Stop {
                        return;
                    }
                }
            }
        }
    }
}

/// Whether a pump goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flow {
    Continue,
    Stop,
}

/// Sends SIGKILL when `grace` has passed after a first signal.
pub(super) async fn end(child: &mut super::table::Child, first: i32, grace: Duration) -> i32 {
    child.signal(first);
    if let Ok(code) = tokio::time::timeout(grace, child.exit()).await {
        return code;
    }
    child.signal(libc::SIGKILL);
    child.exit().await
}
