use proptest::prelude::*;

use super::{
    ARCHITECTURE, LAST_KNOWN,
    assembler::Verdict,
    deny::{Ipc, SignalScope, programs},
    interpreter::{Call, run, run_all},
    notify,
};

const FAST_OPEN: u64 = libc::MSG_FASTOPEN as u64;

fn all(scope: SignalScope) -> Vec<Vec<crate::confine::sys::Instruction>> {
    let mut all = programs(scope, Ipc::Shared).unwrap();
    all.push(notify::program());
    all
}

fn verdict(number: i64, arguments: &[u64]) -> u32 {
    let mut six = [0; 6];
    six[..arguments.len()].copy_from_slice(arguments);
    run_all(&all(SignalScope::ByLandlock), Call { number, architecture: ARCHITECTURE, arguments: six })
}

fn errno(errno: i32) -> u32 {
    Verdict::Errno(errno).code()
}

const NOTIFY: u32 = libc::SECCOMP_RET_USER_NOTIF;
const ALLOW: u32 = libc::SECCOMP_RET_ALLOW;

#[test]
fn the_broker_answers_what_makes_and_connects_sockets() {
    let unix = libc::AF_UNIX as u64;
    for domain in [libc::AF_UNIX, libc::AF_INET, libc::AF_INET6] {
        assert_eq!(verdict(libc::SYS_socket, &[domain as u64, 1, 0]), NOTIFY);
        // The kernel takes an int: what stands above it decides nothing.
        assert_eq!(verdict(libc::SYS_socket, &[1 << 32 | domain as u64, 1, 0]), NOTIFY);
    }
    for number in [libc::SYS_connect, libc::SYS_bind, libc::SYS_listen, libc::SYS_getsockname, libc::SYS_recvmsg, libc::SYS_sendmsg] {
        assert_eq!(verdict(number, &[3, 0x1000, 16]), NOTIFY);
    }
    assert_eq!(verdict(libc::SYS_socketpair, &[unix, libc::SOCK_STREAM as u64]), ALLOW);
    assert_eq!(verdict(libc::SYS_socketpair, &[unix, (libc::SOCK_DGRAM | libc::SOCK_CLOEXEC) as u64]), NOTIFY);
    assert_eq!(verdict(libc::SYS_socketpair, &[libc::AF_TIPC as u64, libc::SOCK_STREAM as u64]), errno(libc::EOPNOTSUPP));
}

#[test]
fn other_families_do_not_exist() {
    for domain in [libc::AF_PACKET, libc::AF_VSOCK, libc::AF_ALG, libc::AF_BLUETOOTH, libc::AF_XDP, libc::AF_KEY, 43, libc::AF_TIPC] {
        assert_eq!(verdict(libc::SYS_socket, &[domain as u64, 3, 0]), errno(libc::EAFNOSUPPORT), "family {domain}");
    }
    let netlink = libc::AF_NETLINK as u64;
    assert_eq!(verdict(libc::SYS_socket, &[netlink, 3, libc::NETLINK_ROUTE as u64]), ALLOW);
    assert_eq!(verdict(libc::SYS_socket, &[netlink, 3, libc::NETLINK_SOCK_DIAG as u64]), errno(libc::EPROTONOSUPPORT));
}

#[test]
fn data_on_a_stream_waits_for_nobody() {
    assert_eq!(verdict(libc::SYS_sendto, &[3, 0x1000, 5, 0, 0, 0]), ALLOW);
    assert_eq!(verdict(libc::SYS_recvfrom, &[3, 0x1000, 5, 0, 0, 0]), ALLOW);
    assert_eq!(verdict(libc::SYS_sendto, &[3, 0x1000, 5, 0, 0x2000, 16]), NOTIFY);
    // An address whose low half is zero is an address.
    assert_eq!(verdict(libc::SYS_sendto, &[3, 0x1000, 5, 0, 1 << 32, 16]), NOTIFY);
    assert_eq!(verdict(libc::SYS_recvfrom, &[3, 0x1000, 5, 0, 1 << 40, 0]), NOTIFY);
}

#[test]
fn sending_does_not_connect() {
    for (number, arguments) in [
        (libc::SYS_sendto, [3, 0, 0, FAST_OPEN, 0x1000, 16]),
        (libc::SYS_sendto, [3, 0, 0, FAST_OPEN | 0x4000, 0, 0]),
        (libc::SYS_sendmsg, [3, 0x1000, FAST_OPEN, 0, 0, 0]),
        (libc::SYS_sendmmsg, [3, 0x1000, 1, FAST_OPEN, 0, 0]),
    ] {
        assert_eq!(verdict(number, &arguments), errno(libc::EOPNOTSUPP));
    }
    let tcp = libc::IPPROTO_TCP as u64;
    assert_eq!(verdict(libc::SYS_setsockopt, &[3, tcp, libc::TCP_FASTOPEN_CONNECT as u64]), errno(libc::EOPNOTSUPP));
}

#[test]
fn socket_options_cannot_move_a_socket() {
    let (socket, tcp) = (libc::SOL_SOCKET as u64, libc::IPPROTO_TCP as u64);
    for (level, option, expected) in [
        (socket, libc::SO_BINDTODEVICE, errno(libc::EPERM)),
        (socket, 62, errno(libc::EPERM)),
        (socket, libc::SO_MARK, errno(libc::EPERM)),
        (tcp, 31, errno(libc::EPERM)),
        (tcp, libc::TCP_REPAIR, errno(libc::EPERM)),
        (socket, libc::SO_REUSEPORT, errno(0)),
        (socket, libc::SO_REUSEADDR, ALLOW),
        (tcp, libc::TCP_NODELAY, ALLOW),
    ] {
        assert_eq!(verdict(libc::SYS_setsockopt, &[3, level, option as u64]), expected, "level {level} option {option}");
    }
    assert_eq!(verdict(libc::SYS_getsockopt, &[3, socket, libc::SO_ERROR as u64]), ALLOW);
    assert_eq!(verdict(libc::SYS_getsockopt, &[3, socket, libc::SO_TYPE as u64]), NOTIFY);
}

#[test]
fn what_escapes_begin_with_is_denied() {
    for number in [
        libc::SYS_io_uring_setup,
        libc::SYS_ptrace,
        libc::SYS_process_vm_writev,
        libc::SYS_pidfd_getfd,
        libc::SYS_setns,
        libc::SYS_mount,
        libc::SYS_fsopen,
        libc::SYS_bpf,
        libc::SYS_userfaultfd,
        libc::SYS_keyctl,
        libc::SYS_open_by_handle_at,
        libc::SYS_perf_event_open,
        libc::SYS_shmat,
        libc::SYS_mq_open,
    ] {
        assert_eq!(verdict(number, &[]), errno(libc::EPERM), "call {number}");
    }
    assert_eq!(verdict(libc::SYS_clone3, &[]), errno(libc::ENOSYS));
    assert_eq!(verdict(libc::SYS_clone, &[libc::SIGCHLD as u64]), ALLOW);
    for bit in [libc::CLONE_NEWUSER, libc::CLONE_NEWNET, libc::CLONE_NEWNS, libc::CLONE_NEWPID] {
        assert_eq!(verdict(libc::SYS_clone, &[(bit | libc::SIGCHLD) as u64]), errno(libc::EPERM));
        assert_eq!(verdict(libc::SYS_unshare, &[(bit | libc::CLONE_FS) as u64]), errno(libc::EPERM));
    }
    assert_eq!(verdict(libc::SYS_unshare, &[libc::CLONE_FS as u64]), ALLOW);
    assert_eq!(verdict(libc::SYS_ioctl, &[0, libc::TIOCSTI]), errno(libc::EPERM));
    assert_eq!(verdict(libc::SYS_ioctl, &[0, libc::TIOCGWINSZ]), ALLOW);
    assert_eq!(verdict(libc::SYS_prctl, &[libc::PR_SET_DUMPABLE as u64]), errno(0));
    assert_eq!(verdict(libc::SYS_prlimit64, &[0]), ALLOW);
    assert_eq!(verdict(libc::SYS_prlimit64, &[7]), errno(libc::EPERM));
}

#[test]
fn a_sandbox_may_use_shared_memory_of_its_own() {
    let filters = programs(SignalScope::ByLandlock, Ipc::Own).unwrap();
    let call = Call { number: libc::SYS_shmat, architecture: ARCHITECTURE, arguments: [0; 6] };
    assert_eq!(run_all(&filters, call), ALLOW);
}

#[test]
fn without_a_scope_the_supervisor_is_refused_by_number() {
    let filters = all(SignalScope::ByNumber { supervisor: 4242 });
    let verdict = |number, first: u64| run_all(&filters, Call { number, architecture: ARCHITECTURE, arguments: [first, 9, 0, 0, 0, 0] });
    for target in [4242, u64::from(u32::MAX), u64::from((-4242_i32) as u32)] {
        assert_eq!(verdict(libc::SYS_kill, target), errno(libc::EPERM));
    }
    assert_eq!(verdict(libc::SYS_kill, 17), ALLOW);
    assert_eq!(verdict(libc::SYS_pidfd_open, 4242), errno(libc::EPERM));
}

proptest! {
    #[test]
    fn unknown_calls_do_not_exist(number in (LAST_KNOWN + 1)..=u32::MAX, arguments in any::<[u64; 6]>()) {
        let call = Call { number: number.into(), architecture: ARCHITECTURE, arguments };
        prop_assert_eq!(run(&notify::program(), call), errno(libc::ENOSYS));
    }

    #[test]
    fn other_architectures_are_killed(architecture in any::<u32>(), number in 0_u32..500, arguments in any::<[u64; 6]>()) {
        prop_assume!(architecture != ARCHITECTURE);
        let call = Call { number: number.into(), architecture, arguments };
        prop_assert_eq!(run_all(&all(SignalScope::ByLandlock), call), libc::SECCOMP_RET_KILL_PROCESS);
    }

    /// No arguments let a call of the broker's past the broker.
    #[test]
    fn connect_always_waits_for_the_broker(arguments in any::<[u64; 6]>()) {
        for number in [libc::SYS_connect, libc::SYS_bind, libc::SYS_listen] {
            let call = Call { number, architecture: ARCHITECTURE, arguments };
            prop_assert_eq!(run_all(&all(SignalScope::ByLandlock), call), NOTIFY);
        }
    }

    /// Whatever is asked for, the kernel itself makes no socket but route netlink.
    #[test]
    fn the_kernel_makes_no_socket(arguments in any::<[u64; 6]>()) {
        let call = Call { number: libc::SYS_socket, architecture: ARCHITECTURE, arguments };
        let allowed = run_all(&all(SignalScope::ByLandlock), call) == ALLOW;
        prop_assert_eq!(allowed, arguments[0] as i32 == libc::AF_NETLINK && arguments[2] as i32 == libc::NETLINK_ROUTE);
    }
}
