//! Messages between the supervisor, the control process and the zygote.
//!
//! Each is one datagram of a `SOCK_SEQPACKET` pair with its descriptors beside it. What may be
//! large (a domain, an environment) travels in a memory file, so that no message is bounded by a
//! socket's buffer.

use std::{
    io::{self, IoSlice, IoSliceMut, Read as _, Seek as _, Write as _},
    mem::MaybeUninit,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use rustix::{
    fs::{MemfdFlags, memfd_create},
    net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags},
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::domain::{ConfineError, Enforcement};

/// Largest datagram; the bodies are in memory files.
const DATAGRAM: usize = 4096;
/// Most descriptors of one message.
const DESCRIPTORS: usize = 8;

/// Supervisor to guardian. Descriptor: what the guardian keeps open.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Hold {}

/// Supervisor to control process.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Request {
    /// Descriptors: the domain, the control process's end of the socket maker, and what it is to
    /// hold to its end.
    Confine,
    /// Descriptors: [`SpawnBody`], standard input, output and error, status.
    Spawn { ticket: u64 },
    /// Signals the process group of a spawned child.
    Signal { ticket: u64, signal: i32 },
}

/// Control process to supervisor, once. Descriptors: [`ConfinedBody`], and the notify listener
/// where there is one.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Confined {}

/// What came of it.
pub(super) type ConfinedBody = Result<Enforcement, ConfineError>;

/// Zygote to control process, once: numbers in the table that both share.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Entered {
    /// [`ConfinedBody`].
    pub(super) body: i32,
    pub(super) listener: Option<i32>,
}

/// Body of [`Request::Spawn`]. Bytes, not text: an environment need not be UTF-8.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct SpawnBody {
    pub(super) argv: Vec<Vec<u8>>,
    pub(super) env: Vec<(Vec<u8>, Vec<u8>)>,
    pub(super) cwd: Vec<u8>,
    pub(super) terminal: Terminal,
}

/// Whether standard input becomes the controlling terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Terminal {
    Controlling,
    None,
}

/// Control process to zygote. Descriptors are numbers in the table that both share.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Order {
    Spawn { ticket: u64, body: i32, stdio: [i32; 3], status: i32 },
    Signal { ticket: u64, signal: i32 },
}

/// Zygote to supervisor.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Ended {
    pub(super) ticket: u64,
    /// Exit code, or 128 and the signal.
    pub(super) code: u8,
}

/// A spawned child to the supervisor, on its status descriptor. The credentials of the first message
/// tell the child's id in the supervisor's PID namespace; the end of the descriptor then means that
/// the program runs.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Status {
    Started,
    Failed { step: String, errno: i32 },
}

/// A connected pair for messages.
pub(super) fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(rustix::net::socketpair(
        rustix::net::AddressFamily::UNIX,
        rustix::net::SocketType::SEQPACKET,
        rustix::net::SocketFlags::CLOEXEC,
        None,
    )?)
}

/// Puts a value into a memory file.
pub(super) fn store<T: Serialize>(value: &T) -> io::Result<OwnedFd> {
    let file = memfd_create("openshell-message", MemfdFlags::CLOEXEC)?;
    let mut file = std::fs::File::from(file);
    file.write_all(&serde_json::to_vec(value)?)?;
    file.rewind()?;
    Ok(file.into())
}

/// Takes a value out of a memory file.
pub(super) fn load<T: DeserializeOwned>(file: OwnedFd) -> io::Result<T> {
    let mut text = Vec::new();
    let mut file = std::fs::File::from(file);
    file.rewind()?;
    file.read_to_end(&mut text)?;
    Ok(serde_json::from_slice(&text)?)
}

/// Sends a message and its descriptors.
pub(super) fn send<T: Serialize>(socket: BorrowedFd<'_>, message: &T, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    let text = serde_json::to_vec(message)?;
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() && !control.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(io::Error::other("more descriptors than one message carries"));
    }
    loop {
        match rustix::net::sendmsg(socket, &[IoSlice::new(&text)], &mut control, SendFlags::NOSIGNAL) {
            Ok(_) => return Ok(()),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// What a receive gave.
pub(super) struct Received<T> {
    pub(super) message: T,
    pub(super) descriptors: Vec<OwnedFd>,
    /// The sender's process id in our PID namespace, where the socket asks for credentials.
    pub(super) sender: Option<i32>,
}

/// Receives a message; `None`: the other side is gone.
pub(super) fn receive<T: DeserializeOwned>(socket: BorrowedFd<'_>) -> io::Result<Option<Received<T>>> {
    let mut text = [0u8; DATAGRAM];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS), ScmCredentials(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let length = loop {
        match rustix::net::recvmsg(socket, &mut [IoSliceMut::new(&mut text)], &mut control, RecvFlags::CMSG_CLOEXEC) {
            Ok(received) => break received.bytes,
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    };
    let (mut descriptors, mut sender) = (Vec::new(), None);
    for message in control.drain() {
        match message {
            RecvAncillaryMessage::ScmRights(fds) => descriptors.extend(fds),
            RecvAncillaryMessage::ScmCredentials(credentials) => sender = Some(credentials.pid.as_raw_nonzero().get()),
            _ => {}
        }
    }
    if length == 0 {
        return Ok(None);
    }
    Ok(Some(Received { message: serde_json::from_slice(&text[..length])?, descriptors, sender }))
}

/// Writes a message without descriptors by `write(2)`, which no filter of ours stops.
pub(super) fn write<T: Serialize>(socket: impl AsFd, message: &T) -> io::Result<()> {
    let text = serde_json::to_vec(message)?;
    rustix::io::retry_on_intr(|| rustix::io::write(&socket, &text))?;
    Ok(())
}

/// Reads a message without descriptors by `read(2)`; `None`: the other side is gone.
pub(super) fn read<T: DeserializeOwned>(socket: impl AsFd) -> io::Result<Option<T>> {
    let mut text = [0u8; DATAGRAM];
    let length = rustix::io::retry_on_intr(|| rustix::io::read(&socket, &mut text[..]))?;
    if length == 0 {
        return Ok(None);
    }
    Ok(Some(serde_json::from_slice(&text[..length])?))
}
