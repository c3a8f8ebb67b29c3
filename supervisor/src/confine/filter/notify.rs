//! Which calls the broker answers, and which socket calls are decided by their plain arguments.
//!
//! A verdict here never depends on memory: the kernel hands the filter registers only, so nothing
//! can be changed after it has looked. What lies behind a pointer is the broker's to read, once.

use super::{
    ARCHITECTURE, LAST_KNOWN,
    assembler::{Program, Verdict},
};
use crate::confine::{ablation::Wall, sys::Instruction};

const NO: Verdict = Verdict::Errno(libc::EPERM);
const FAST_OPEN: u32 = libc::MSG_FASTOPEN as u32;
const TYPE_MASK: u32 = 0xf;

/// `setsockopt` of the socket level that could move a socket to another device, or mark what it sends.
const SOCKET_DENIED: [i32; 3] = [libc::SO_BINDTODEVICE, 62 /* SO_BINDTOIFINDEX */, libc::SO_MARK];
/// `setsockopt` of TCP that swaps the transport or rewrites a connection's state.
const TCP_DENIED: [i32; 2] = [31 /* TCP_ULP */, libc::TCP_REPAIR];
/// `setsockopt` of TCP that connects by sending.
const TCP_FAST_OPEN: [i32; 2] = [libc::TCP_FASTOPEN, libc::TCP_FASTOPEN_CONNECT];

/// The filter. It is the last one to be installed: after it, whoever makes a call of the broker's
/// waits for the broker.
pub(in crate::confine) fn program() -> Vec<Instruction> {
    let notify = if Wall::NotifyFilter.stands() { Verdict::Notify } else { Verdict::Allow };
    let fast_open = if Wall::FastOpenFilter.stands() { Verdict::Errno(libc::EOPNOTSUPP) } else { Verdict::Allow };
    let family = |errno| if Wall::FamilyFilter.stands() { Verdict::Errno(errno) } else { Verdict::Allow };
    let mut p = Program::default();
    let foreign = if Wall::ArchitectureFilter.stands() { Verdict::Kill } else { Verdict::Allow };
    p.start(ARCHITECTURE, foreign);
    // x32 numbers have bit 30 set, so they are above the last known one as well.
    if Wall::ArchitectureFilter.stands() {
        p.above(LAST_KNOWN, Verdict::Errno(libc::ENOSYS));
    }

    p.block(libc::SYS_socket, family(libc::EAFNOSUPPORT), |p| {
        for domain in [libc::AF_UNIX, libc::AF_INET, libc::AF_INET6] {
            p.when_equal(0, domain as u32, notify);
        }
        p.when_both((0, libc::AF_NETLINK as u32), (2, libc::NETLINK_ROUTE as u32), Verdict::Allow);
        p.when_equal(0, libc::AF_NETLINK as u32, family(libc::EPROTONOSUPPORT));
    });
    p.block(libc::SYS_socketpair, family(libc::EOPNOTSUPP), |p| {
        // A datagram pair could be addressed to any path: the broker makes it of another kind.
        p.when_masked(1, TYPE_MASK, libc::SOCK_DGRAM as u32, notify);
        p.when_equal(0, libc::AF_UNIX as u32, Verdict::Allow);
    });
    for number in [libc::SYS_connect, libc::SYS_bind, libc::SYS_listen, libc::SYS_getsockname, libc::SYS_getpeername] {
        p.on(number, notify);
    }
    p.block(libc::SYS_sendto, Verdict::Allow, |p| {
        p.when_any(3, FAST_OPEN, fast_open);
        p.when_set(4, notify);
    });
    p.block(libc::SYS_sendmsg, notify, |p| p.when_any(2, FAST_OPEN, fast_open));
    p.block(libc::SYS_sendmmsg, notify, |p| p.when_any(3, FAST_OPEN, fast_open));
    p.block(libc::SYS_recvfrom, Verdict::Allow, |p| p.when_set(4, notify));
    p.on(libc::SYS_recvmsg, notify);
    p.block(libc::SYS_getsockopt, Verdict::Allow, |p| {
        for option in [libc::SO_TYPE, libc::SO_PROTOCOL, libc::SO_DOMAIN] {
            p.when_both((1, libc::SOL_SOCKET as u32), (2, option as u32), notify);
        }
    });
    p.block(libc::SYS_setsockopt, Verdict::Allow, |p| {
        // Sharing a port is answered and not done: a neighbour of the same user could take a part
        // of somebody else's clients.
        p.when_both((1, libc::SOL_SOCKET as u32), (2, libc::SO_REUSEPORT as u32), Verdict::Errno(0));
        for option in SOCKET_DENIED {
            p.when_both((1, libc::SOL_SOCKET as u32), (2, option as u32), NO);
        }
        for option in TCP_DENIED {
            p.when_both((1, libc::IPPROTO_TCP as u32), (2, option as u32), NO);
        }
        for option in TCP_FAST_OPEN {
            p.when_both((1, libc::IPPROTO_TCP as u32), (2, option as u32), fast_open);
        }
        p.when_equal(1, libc::IPPROTO_IP as u32, notify);
        p.when_equal(1, libc::IPPROTO_IPV6 as u32, notify);
    });
    // The broker reads the agent's memory, which it may only of a dumpable process.
    p.block(libc::SYS_prctl, Verdict::Allow, |p| p.when_equal(0, libc::PR_SET_DUMPABLE as u32, Verdict::Errno(0)));
    // One listener is all there can be; said here because the deny filter comes before ours.
    p.block(libc::SYS_seccomp, Verdict::Allow, |p| p.when_any(1, libc::SECCOMP_FILTER_FLAG_NEW_LISTENER as u32, NO));
    p.finish(Verdict::Allow)
}
