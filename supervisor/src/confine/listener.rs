//! The supervisor's end of the notify filter, and what the broker has to know of the domain.

use std::{
    io,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
    path::PathBuf,
};

use parking_lot::Mutex;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
use serde::{Deserialize, Serialize};

use super::{
    domain::{Domain, RunAs},
    sys, wire,
};

/// What the broker needs of the domain.
#[derive(Debug)]
pub struct Listener {
    notify: Option<OwnedFd>,
    /// Where sockets come from when the agent has a network namespace of its own.
    maker: Option<Mutex<OwnedFd>>,
    launcher: u32,
    run_as: Option<RunAs>,
    writable: Vec<PathBuf>,
}

/// A socket that can be made in the agent's network namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SocketKind {
    /// TCP over IPv4.
    Tcp4,
    /// TCP over IPv6.
    Tcp6,
    /// UDP over IPv4; only where the wall of its emulation is down.
    Udp4,
    /// UDP over IPv6; only where the wall of its emulation is down.
    Udp6,
}

/// A system call that waits for an answer.
#[derive(Clone, Copy, Debug)]
pub struct Notification {
    /// Cookie of the call.
    pub id: u64,
    /// Thread id of the caller, as the supervisor sees it.
    pub thread: u32,
    /// Number of the system call.
    pub number: i64,
    /// Its arguments, as registers.
    pub arguments: [u64; 6],
}

impl Listener {
    pub(super) fn new(notify: Option<OwnedFd>, maker: Option<OwnedFd>, launcher: u32, domain: &Domain, writable: Vec<PathBuf>) -> Self {
        Self { notify, maker: maker.map(Mutex::new), launcher, run_as: domain.run_as, writable }
    }

    /// Process above everything in the sandbox.
    pub(crate) fn launcher(&self) -> u32 {
        self.launcher
    }

    /// Whether the agent has a network namespace of its own.
    pub(crate) fn own_network(&self) -> bool {
        self.maker.is_some()
    }

    /// Whom the agent runs as, where that is not us.
    pub(crate) fn run_as(&self) -> Option<RunAs> {
        self.run_as
    }

    /// Paths that are granted read-write.
    pub(crate) fn writable(&self) -> &[PathBuf] {
        &self.writable
    }

    /// Whether there are notifications at all (the wall may be down).
    pub(crate) fn listens(&self) -> bool {
        self.notify.is_some()
    }

    fn notify(&self) -> io::Result<BorrowedFd<'_>> {
        self.notify.as_ref().map(OwnedFd::as_fd).ok_or_else(|| io::Error::from(io::ErrorKind::NotConnected))
    }

    /// The next call that waits. `Err(NotConnected)`: nobody is left who could make one.
    pub(crate) fn receive(&self) -> io::Result<Notification> {
        let raw = sys::notification_receive(self.notify()?)?;
        Ok(Notification { id: raw.id, thread: raw.pid, number: raw.data.nr.into(), arguments: raw.data.args })
    }

    /// Whether every process under the filter has gone.
    pub(crate) fn hung_up(&self) -> bool {
        use rustix::event::{PollFd, PollFlags, Timespec, poll};
        let Ok(notify) = self.notify() else { return true };
        let mut set = [PollFd::new(&notify, PollFlags::IN)];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        poll(&mut set, Some(&now)).is_ok() && set[0].revents().contains(PollFlags::HUP)
    }

    /// Whether the call still waits. What was read of the caller before this is the caller's.
    pub(crate) fn pending(&self, id: u64) -> bool {
        self.notify().is_ok_and(|notify| sys::notification_pending(notify, id))
    }

    /// The call returns `value`.
    pub(crate) fn succeed(&self, id: u64, value: i64) -> io::Result<()> {
        sys::notification_send(self.notify()?, libc::seccomp_notif_resp { id, val: value, error: 0, flags: 0 })
    }

    /// The call fails with this error number (positive).
    pub(crate) fn fail(&self, id: u64, errno: i32) -> io::Result<()> {
        sys::notification_send(self.notify()?, libc::seccomp_notif_resp { id, val: 0, error: -errno, flags: 0 })
    }

    /// The kernel performs the call. Only for calls that nothing depends on: the caller may change
    /// every argument in memory before the kernel looks.
    pub(crate) fn proceed(&self, id: u64) -> io::Result<()> {
        let flags = libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE as u32;
        sys::notification_send(self.notify()?, libc::seccomp_notif_resp { id, val: 0, error: 0, flags })
    }

    /// Installs a descriptor in the caller, which gets its number as the result of the call.
    pub(crate) fn install(&self, id: u64, descriptor: BorrowedFd<'_>, close_on_exec: CloseOnExec) -> io::Result<()> {
        self.add(id, descriptor, close_on_exec, libc::SECCOMP_ADDFD_FLAG_SEND as u32).map(drop)
    }

    /// Installs a descriptor in the caller and returns its number there; the call still waits.
    pub(crate) fn place(&self, id: u64, descriptor: BorrowedFd<'_>, close_on_exec: CloseOnExec) -> io::Result<i32> {
        self.add(id, descriptor, close_on_exec, 0)
    }

    fn add(&self, id: u64, descriptor: BorrowedFd<'_>, close_on_exec: CloseOnExec, flags: u32) -> io::Result<i32> {
        use std::os::fd::AsRawFd as _;
        let newfd_flags = match close_on_exec {
            CloseOnExec::Yes => libc::O_CLOEXEC as u32,
            CloseOnExec::No => 0,
        };
        let request = libc::seccomp_notif_addfd { id, flags, srcfd: descriptor.as_raw_fd() as u32, newfd: 0, newfd_flags };
        sys::notification_add_fd(self.notify()?, request)
    }

    /// Wakes the broker on the caller's processor where the kernel can.
    pub(crate) fn wake_synchronously(&self) {
        if let Ok(notify) = self.notify() {
            // Before Linux 6.6 wake-ups take longer; nothing else changes.
            let _ = sys::notification_wake_synchronously(notify);
        }
    }

    /// A TCP socket in the agent's network namespace, if it has one, else in ours.
    pub(crate) fn make_socket(&self, kind: SocketKind) -> io::Result<OwnedFd> {
        let Some(maker) = &self.maker else { return make_socket(kind) };
        let maker = maker.lock();
        wire::write(&*maker, &kind)?;
        let answer = wire::receive::<MadeSocket>(maker.as_fd())?.ok_or(io::ErrorKind::BrokenPipe)?;
        match (answer.message, answer.descriptors.into_iter().next()) {
            (MadeSocket::Made, Some(socket)) => Ok(socket),
            (MadeSocket::Failed(errno), _) => Err(io::Error::from_raw_os_error(errno)),
            (MadeSocket::Made, None) => Err(io::Error::from_raw_os_error(libc::EMFILE)),
        }
    }
}

/// Whether an installed descriptor is closed by exec.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CloseOnExec {
    Yes,
    No,
}

/// Answer of the socket maker.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum MadeSocket {
    Made,
    Failed(i32),
}

/// A TCP socket in this process's network namespace.
pub(super) fn make_socket(kind: SocketKind) -> io::Result<OwnedFd> {
    let (family, kind) = match kind {
        SocketKind::Tcp4 => (AddressFamily::INET, SocketType::STREAM),
        SocketKind::Tcp6 => (AddressFamily::INET6, SocketType::STREAM),
        SocketKind::Udp4 => (AddressFamily::INET, SocketType::DGRAM),
        SocketKind::Udp6 => (AddressFamily::INET6, SocketType::DGRAM),
    };
    Ok(socket_with(family, kind, SocketFlags::CLOEXEC, None)?)
}
