//! UNIX sockets by path.
//!
//! Landlock cannot keep a process from connecting to a path before ABI 9, so no process of the
//! agent does: we open the path once, see what it is, and connect the agent's socket to exactly that,
//! through `/proc/self/fd`. The agent's user decides what it may reach: where the supervisor is
//! root, a thread that has become that user does it.
//!
//! Allowed is what lies in a directory that the policy grants read-write, which is where the agent
//! itself can bind. Never below `/run` or `/var/run`: that is where a host's services listen.

use std::{
    ffi::OsStr,
    io,
    os::{
        fd::{AsRawFd as _, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::{Path, PathBuf},
    sync::{Arc, Weak},
    time::Duration,
};

use parking_lot::Mutex;
use rustix::{
    fs::{FileType, Gid, Mode, OFlags, ResolveFlags, Uid, fcntl_getfl, fstat, openat2},
    net::{AddressFamily, SendFlags, SocketAddrUnix, SocketFlags, SocketType, sockopt},
};

use super::{
    Shared,
    address::Address,
    answer::{Answer, Answered, DONE, Errno},
    caller::Caller,
    table::{Entry, Socket},
};
use crate::confine::{RunAs, Wall, covers};

/// Where services of a host listen.
const SERVICES: [&str; 2] = ["/run", "/var/run"];
/// How long one try to connect may take before the call is checked to be still there.
const TRY: Duration = Duration::from_millis(100);

/// A stream or packet socket of the agent.
#[derive(Debug)]
pub(super) struct UnixSocket {
    /// Our copy; none once it is connected or listens.
    socket: Mutex<Option<Arc<OwnedFd>>>,
}

/// Makes one.
pub(super) fn make(kind: SocketType) -> Result<(Arc<OwnedFd>, Socket), Errno> {
    let socket = Arc::new(rustix::net::socket_with(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None)?);
    Ok((Arc::clone(&socket), Socket::Unix(UnixSocket { socket: Mutex::new(Some(socket)) })))
}

impl UnixSocket {
    /// Our copy, if we hold one and nobody is at work with it.
    pub(super) fn descriptor(&self) -> Option<Weak<OwnedFd>> {
        self.socket.try_lock()?.as_ref().map(Arc::downgrade)
    }

    /// `listen(2)`. The kernel read the name of `bind` again after we had; here it is as it is.
    pub(super) fn listen(&self, backlog: i32) -> Answered {
        let mut socket = self.socket.lock();
        if let Some(open) = socket.as_ref() {
            let name = SocketAddrUnix::try_from(rustix::net::getsockname(open)?)?;
            if Wall::UnixPath.stands() && name.abstract_name().is_some() {
                return Err(Errno(libc::EACCES));
            }
            rustix::net::listen(open, backlog)?;
        }
        *socket = None;
        DONE
    }
}

/// `bind(2)`: the kernel makes the path, with the agent's rights and under Landlock. Abstract names
/// are shared with everybody in a network namespace; one that was slipped in after this look is
/// found by `listen`, without which nobody reaches it.
pub(super) fn bind(address: &Address) -> Answered {
    match address {
        Address::Path(_) => Ok(Answer::Proceed),
        Address::Abstract(_) if !Wall::UnixPath.stands() => Ok(Answer::Proceed),
        Address::Abstract(_) => Err(Errno(libc::EACCES)),
        _ => Err(Errno(libc::EINVAL)),
    }
}

/// `connect(2)`.
pub(super) fn connect(shared: &Arc<Shared>, caller: &Caller<'_>, entry: &Arc<Entry>, unix: &UnixSocket, address: &Address) -> Answered {
    let socket = match address {
        Address::Path(_) | Address::Abstract(_) => unix.socket.lock().clone().ok_or(Errno(libc::EISCONN))?,
        _ => return Err(Errno(libc::EINVAL)),
    };
    let target = open(shared, caller, address)?;
    let permit = shared.connects()?;
    let (shared, entry, id) = (Arc::clone(shared), Arc::clone(entry), caller.id());
    let own = Arc::clone(&shared);
    let begun = own.waits.run(move || {
        let result = as_agent(shared.listener.run_as(), || join(&shared, id, &socket, &target));
        if let (Ok(_), Socket::Unix(unix)) = (&result, &entry.socket) {
            *unix.socket.lock() = None;
        }
        drop(socket);
        drop(permit);
        shared.answer(id, result);
    });
    begun.map(|_| Answer::Taken).ok_or(Errno(libc::EAGAIN))
}

/// Connects in short tries, so that a caller that is killed takes its connect with it.
fn join(shared: &Shared, id: u64, socket: &OwnedFd, target: &OwnedFd) -> Answered {
    let address = SocketAddrUnix::new(format!("/proc/self/fd/{}", target.as_raw_fd()))?;
    let waits = !fcntl_getfl(socket)?.contains(OFlags::NONBLOCK);
    let before = sockopt::socket_timeout(socket, sockopt::Timeout::Send)?;
    if waits {
        sockopt::set_socket_timeout(socket, sockopt::Timeout::Send, Some(TRY))?;
    }
    let result = loop {
        if !shared.listener.pending(id) {
            break Err(Errno(libc::EINTR));
        }
        match rustix::net::connect(socket, &address) {
            Ok(()) => break DONE,
            Err(rustix::io::Errno::AGAIN) if waits && before.is_none() => {}
            Err(error) => break Err(error.into()),
        }
    };
    if waits {
        sockopt::set_socket_timeout(socket, sockopt::Timeout::Send, before)?;
    }
    result
}

/// Opens what a path leads to, if the agent may connect there.
pub(super) fn open(shared: &Shared, caller: &Caller<'_>, address: &Address) -> Result<OwnedFd, Errno> {
    let refuse = |target: &str, reason: &str, errno: i32| {
        shared.egress.refused(caller.identity(&shared.identities).ok(), "unix socket", target, reason);
        Err(Errno(errno))
    };
    let path = match address {
        Address::Path(path) if !path.is_empty() => PathBuf::from(OsStr::from_bytes(path)),
        Address::Abstract(name) => {
            let name = format!("@{}", String::from_utf8_lossy(name));
            return refuse(&name, "abstract sockets are shared with everything outside the sandbox", libc::ECONNREFUSED);
        }
        _ => return Err(Errno(libc::EINVAL)),
    };
    let absolute = caller.working_directory()?.join(path);
    let root = caller.root()?;
    caller.still_there()?;
    let opened = as_agent(shared.listener.run_as(), || {
        // Links lead where they lead inside; the magic ones below /proc would lead from us.
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        openat2(&root, &absolute, flags, Mode::empty(), ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS).map_err(Errno::from)
    });
    let opened = match opened {
        // Not found and not allowed to look are the same to one who may not look.
        Err(Errno(libc::ELOOP)) => return refuse(&absolute.to_string_lossy(), "the path leads through another process", libc::EACCES),
        result => result?,
    };
    if !FileType::from_raw_mode(fstat(&opened)?.st_mode).is_socket() {
        return Err(Errno(libc::ECONNREFUSED));
    }
    let place = std::fs::read_link(format!("/proc/self/fd/{}", opened.as_raw_fd()))?;
    if Wall::UnixPath.stands() && !allowed(shared, &place) {
        return refuse(&place.to_string_lossy(), "UNIX sockets are reached only where the policy grants read-write", libc::EACCES);
    }
    Ok(opened)
}

fn allowed(shared: &Shared, place: &Path) -> bool {
    covers(shared.listener.writable(), place) && !SERVICES.iter().any(|services| place.starts_with(services))
}

/// Sends one datagram to a path that was opened.
pub(super) fn send_datagram(shared: &Shared, target: &OwnedFd, bytes: &[u8]) -> Result<(), Errno> {
    as_agent(shared.listener.run_as(), || {
        let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
        let address = SocketAddrUnix::new(format!("/proc/self/fd/{}", target.as_raw_fd()))?;
        rustix::net::sendto(&socket, bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL, &address)?;
        Ok(())
    })
}

/// Does something with the agent's rights. Ids belong to a thread in Linux; one that has given them
/// up is of no further use to us.
fn as_agent<T: Send>(run_as: Option<RunAs>, work: impl FnOnce() -> Result<T, Errno> + Send) -> Result<T, Errno> {
    let Some(RunAs { uid, gid }) = run_as else { return work() };
    let become_agent = move || -> io::Result<()> {
        let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
        rustix::thread::set_thread_groups(&[])?;
        rustix::thread::set_thread_res_gid(gid, gid, gid)?;
        Ok(rustix::thread::set_thread_res_uid(uid, uid, uid)?)
    };
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("as-agent".to_owned()).spawn_scoped(scope, || {
            become_agent()?;
            work()
        });
        thread.map_err(|_| Errno(libc::EAGAIN))?.join().unwrap_or(Err(Errno(libc::EIO)))
    })
}
