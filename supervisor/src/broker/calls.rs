//! Which call it is, and who handles it.

use std::{
    os::fd::AsFd as _,
    sync::{Arc, atomic::Ordering},
};

use rustix::net::SocketType;

use super::{
    Shared,
    address::{Address, Family, encode},
    answer::{Answer, Answered, DONE, Errno},
    caller::Caller,
    datagram::{self, Kind},
    local,
    table::{Entry, Socket},
    tcp,
};
use crate::confine::{CloseOnExec, SocketKind, Wall, bind_to_device};

const TYPE_MASK: i32 = 0xf;

/// Serves calls until nobody is left to make one.
pub(super) fn serve(shared: &Arc<Shared>) {
    loop {
        match shared.listener.receive() {
            Ok(notification) => {
                let mut caller = Caller::new(&shared.listener, notification);
                let result = handle(shared, &mut caller, notification.number);
                shared.answer(notification.id, result);
            }
            // A caller that was killed before we looked, or a signal.
            Err(_) if shared.listener.hung_up() => {
                shared.ended.store(true, Ordering::Relaxed);
                return;
            }
            Err(_) => std::thread::yield_now(),
        }
    }
}

fn handle(shared: &Arc<Shared>, caller: &mut Caller<'_>, number: i64) -> Answered {
    match number {
        libc::SYS_socket => socket(shared, caller),
        libc::SYS_socketpair => datagram::pair(caller, shared),
        libc::SYS_connect => connect(shared, caller),
        libc::SYS_bind => bind(shared, caller),
        libc::SYS_listen => listen(shared, caller),
        libc::SYS_getsockname | libc::SYS_getpeername => name(shared, caller, number),
        libc::SYS_getsockopt => option(shared, caller),
        // Options of IP that mean nothing to an emulated socket are accepted and forgotten.
        libc::SYS_setsockopt => on_datagram(shared, caller, |_, _, _| DONE),
        libc::SYS_sendto => on_datagram(shared, caller, datagram::sendto),
        libc::SYS_sendmsg => on_datagram(shared, caller, datagram::sendmsg),
        libc::SYS_sendmmsg => on_datagram(shared, caller, datagram::sendmmsg),
        libc::SYS_recvfrom => on_datagram(shared, caller, datagram::recvfrom),
        libc::SYS_recvmsg => on_datagram(shared, caller, datagram::recvmsg),
        _ => Err(Errno(libc::ENOSYS)),
    }
}

fn entry(shared: &Shared, caller: &Caller<'_>) -> Result<Option<Arc<Entry>>, Errno> {
    let entry = shared.table.get(caller.socket(caller.int(0)));
    caller.still_there()?;
    Ok(entry)
}

type OnDatagram = fn(&Arc<Shared>, &mut Caller<'_>, &Arc<datagram::Datagram>) -> Answered;

/// Calls that only an emulated socket needs us for.
fn on_datagram(shared: &Arc<Shared>, caller: &mut Caller<'_>, handler: OnDatagram) -> Answered {
    match entry(shared, caller)?.as_deref().map(|entry| &entry.socket) {
        Some(Socket::Datagram(datagram)) => handler(shared, caller, datagram),
        _ => Ok(Answer::Proceed),
    }
}

/// `socket(2)`.
fn socket(shared: &Arc<Shared>, caller: &Caller<'_>) -> Answered {
    let (domain, kind, protocol) = (caller.int(0), caller.int(1), caller.int(2));
    let (base, flags) = (kind & TYPE_MASK, kind & !TYPE_MASK);
    if flags & !(libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC) != 0 {
        return Err(Errno(libc::EINVAL));
    }
    let family = if domain == libc::AF_INET6 { Family::V6 } else { Family::V4 };
    let refuse = |errno| {
        let what = format!("family {domain}, type {base}, protocol {protocol}");
        let identity = caller.identity(&shared.identities).ok();
        shared.egress.refused(identity, "socket", &what, "sockets inside a sandbox are TCP, UDP or UNIX");
        Err(Errno(errno))
    };
    let (descriptor, socket) = match (domain, base, protocol) {
        (libc::AF_UNIX, libc::SOCK_STREAM, _) => local::make(SocketType::STREAM)?,
        (libc::AF_UNIX, libc::SOCK_SEQPACKET, _) => local::make(SocketType::SEQPACKET)?,
        // The kernel makes a datagram socket of a raw one.
        (libc::AF_UNIX, libc::SOCK_DGRAM | libc::SOCK_RAW, _) => datagram::make(shared, Kind::Unix)?,
        (libc::AF_UNIX, ..) => return Err(Errno(libc::ESOCKTNOSUPPORT)),
        (_, libc::SOCK_STREAM, 0 | libc::IPPROTO_TCP) => tcp::make(shared, family)?,
        (_, libc::SOCK_DGRAM, 0 | libc::IPPROTO_UDP) if Wall::UdpEmulation.stands() => datagram::make(shared, Kind::Udp(family))?,
        (_, libc::SOCK_DGRAM, 0 | libc::IPPROTO_UDP) => return real_udp(shared, caller, family),
        (_, libc::SOCK_STREAM | libc::SOCK_DGRAM, _) if Wall::FamilyFilter.stands() => return refuse(libc::EPROTONOSUPPORT),
        _ if Wall::FamilyFilter.stands() => return refuse(libc::EPERM),
        _ => return Ok(Answer::Proceed),
    };
    if flags & libc::SOCK_NONBLOCK != 0 {
        rustix::io::ioctl_fionbio(&descriptor, true)?;
    }
    let entry = shared.table.add(&descriptor, socket)?;
    match shared.listener.install(caller.id(), descriptor.as_fd(), close_on_exec(flags)) {
        Ok(()) => {
            entry.installed();
            Ok(Answer::Taken)
        }
        Err(error) => {
            shared.table.remove(entry.inode);
            Err(error.into())
        }
    }
}

fn close_on_exec(flags: i32) -> CloseOnExec {
    if flags & libc::SOCK_CLOEXEC == 0 { CloseOnExec::No } else { CloseOnExec::Yes }
}

/// A UDP socket of the kernel's: the wall is down.
fn real_udp(shared: &Shared, caller: &Caller<'_>, family: Family) -> Answered {
    let kind = if family == Family::V4 { SocketKind::Udp4 } else { SocketKind::Udp6 };
    let socket = shared.listener.make_socket(kind)?;
    if Wall::BindToDevice.stands() {
        bind_to_device(socket.as_fd(), c"lo")?;
    }
    shared.listener.install(caller.id(), socket.as_fd(), CloseOnExec::No)?;
    Ok(Answer::Taken)
}

/// `connect(2)`: performed by us, on a socket we made, or not at all.
fn connect(shared: &Arc<Shared>, caller: &mut Caller<'_>) -> Answered {
    let address = caller.address(1, 2)?;
    let Some(entry) = entry(shared, caller)? else {
        if !Wall::UdpEmulation.stands() {
            return Ok(Answer::Proceed);
        }
        return Err(Errno(not_ours(caller)));
    };
    match &entry.socket {
        Socket::Tcp(tcp) => tcp::connect(shared, caller, &entry, tcp, &address),
        Socket::Unix(unix) => local::connect(shared, caller, &entry, unix, &address),
        Socket::Datagram(datagram) => datagram.connect(shared, caller, &address),
    }
}

/// What a call on something else than a socket of ours fails with.
fn not_ours(caller: &Caller<'_>) -> i32 {
    if caller.socket(caller.int(0)).is_some() { libc::EACCES } else { libc::ENOTSOCK }
}

/// `bind(2)`.
fn bind(shared: &Arc<Shared>, caller: &mut Caller<'_>) -> Answered {
    let address = caller.address(1, 2)?;
    match entry(shared, caller)?.as_deref().map(|entry| &entry.socket) {
        Some(Socket::Tcp(tcp)) => tcp.bind(shared, &address),
        Some(Socket::Datagram(datagram)) => datagram.bind(shared, &address),
        Some(Socket::Unix(_)) => local::bind(&address),
        // Route netlink is bound by everybody who uses it. What else the memory could say by the
        // time the kernel looks is a bind of TCP, which Landlock denies.
        None if address == Address::Netlink || !Wall::UdpEmulation.stands() => Ok(Answer::Proceed),
        None => Err(Errno(not_ours(caller))),
    }
}

/// `listen(2)`.
fn listen(shared: &Arc<Shared>, caller: &Caller<'_>) -> Answered {
    match entry(shared, caller)?.as_deref().map(|entry| &entry.socket) {
        Some(Socket::Tcp(tcp)) => tcp.listen(shared, caller.int(1)),
        Some(Socket::Unix(unix)) => unix.listen(caller.int(1)),
        Some(Socket::Datagram(_)) => Err(Errno(libc::EOPNOTSUPP)),
        None => Err(Errno(not_ours(caller))),
    }
}

/// `getsockname(2)` and `getpeername(2)`: what the agent asked for.
fn name(shared: &Arc<Shared>, caller: &mut Caller<'_>, number: i64) -> Answered {
    let of_peer = number == libc::SYS_getpeername;
    let entry = entry(shared, caller)?;
    let (family, address) = match entry.as_deref().map(|entry| &entry.socket) {
        Some(Socket::Tcp(tcp)) => (tcp.family, if of_peer { tcp.peer() } else { Some(tcp.local()) }),
        Some(Socket::Datagram(datagram)) => match datagram.kind {
            Kind::Udp(family) => (family, if of_peer { datagram.peer() } else { Some(datagram.local()) }),
            Kind::Unix => return Ok(Answer::Proceed),
        },
        Some(Socket::Unix(_)) | None => return Ok(Answer::Proceed),
    };
    let address = encode(address.ok_or(Errno(libc::ENOTCONN))?, family);
    caller.write_address(caller.argument(1), caller.argument(2), &address)?;
    DONE
}

/// `getsockopt(2)` of what a socket is.
fn option(shared: &Arc<Shared>, caller: &mut Caller<'_>) -> Answered {
    let value = match entry(shared, caller)?.as_deref().map(|entry| &entry.socket) {
        Some(Socket::Datagram(datagram)) => datagram.option(caller.int(2)),
        _ => return Ok(Answer::Proceed),
    };
    caller.write_address(caller.argument(3), caller.argument(4), &value.to_ne_bytes())?;
    DONE
}
