//! The system calls that have no safe wrapper elsewhere. Every `unsafe` of the crate is here.

use std::{
    ffi::{CStr, CString},
    io, mem,
    os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd},
    ptr,
    sync::Arc,
};

use rustix::process::{Pid, Resource, Rlimit};
use tokio::io::{Interest, unix::AsyncFd};

/// One instruction of a filter, as the kernel reads it.
pub(crate) type Instruction = libc::sock_filter;

/// What `fork` returned.
pub(super) enum Forked {
    /// We are the child.
    Child,
    /// We are the parent of this child.
    Parent(Pid),
}

/// `fork(2)` of a process that has one thread, so that the child may run ordinary code.
pub(super) fn fork() -> io::Result<Forked> {
    assert_single_thread()?;
    // SAFETY: this process has one thread (checked above), so no lock can be held by a thread
    // that does not exist in the child.
    forked(unsafe { libc::fork() }.into())
}

/// As [`fork`], for the zygote: it never has a second thread, and its domain may hide `/proc`.
pub(super) fn fork_from_zygote() -> io::Result<Forked> {
    // SAFETY: the zygote was forked from a process with one thread and starts none.
    forked(unsafe { libc::fork() }.into())
}

/// A child that shares our descriptor table (and nothing else), for a process with one thread.
pub(super) fn fork_sharing_descriptors() -> io::Result<Forked> {
    assert_single_thread()?;
    let none: libc::c_ulong = 0;
    // SAFETY: without CLONE_VM this is fork(2) with a shared table; no stack is given, so the
    // child goes on with a copy of ours. One thread, as above; the handlers that `fork` would run
    // exist for the locks of other threads.
    forked(unsafe { libc::syscall(libc::SYS_clone, libc::c_long::from(libc::CLONE_FILES | libc::SIGCHLD), none, none, none, none) })
}

fn forked(result: libc::c_long) -> io::Result<Forked> {
    match result {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(Forked::Child),
        child => Ok(Forked::Parent(Pid::from_raw(child as i32).expect("a child's id is positive"))),
    }
}

/// Refuses to fork where another thread could hold a lock.
fn assert_single_thread() -> io::Result<()> {
    let threads = std::fs::read_dir("/proc/self/task")?.count();
    if threads == 1 {
        return Ok(());
    }
    Err(io::Error::other(format!("this process has {threads} threads; it may fork only while it has one")))
}

/// Ends this process at once: nothing that was copied by `fork` is flushed twice.
pub(super) fn exit_now(code: i32) -> ! {
    // SAFETY: _exit(2) takes any number and does not return.
    unsafe { libc::_exit(code) }
}

/// Replaces this process.
pub(super) fn execve(program: &CStr, argv: &[CString], env: &[CString]) -> io::Error {
    let pointers = |list: &[CString]| list.iter().map(|text| text.as_ptr()).chain([ptr::null()]).collect::<Vec<_>>();
    let (argv, env) = (pointers(argv), pointers(env));
    // SAFETY: both arrays end with a null pointer, and the strings they point to outlive the call.
    unsafe { libc::execve(program.as_ptr(), argv.as_ptr(), env.as_ptr()) };
    io::Error::last_os_error()
}

/// Gives every signal its default action and blocks none.
pub(super) fn reset_signals() {
    for signal in 1..=64 {
        // SAFETY: SIG_DFL is valid for every signal; for those that cannot be changed the call
        // fails without effect.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
    // SAFETY: an all-zero sigset_t is the empty set on Linux; the old set is not asked for.
    unsafe {
        let empty: libc::sigset_t = mem::zeroed();
        libc::sigprocmask(libc::SIG_SETMASK, &raw const empty, ptr::null_mut());
    }
}

/// Ignores a signal.
pub(super) fn ignore(signal: i32) {
    // SAFETY: SIG_IGN is valid for every signal that can be changed.
    unsafe { libc::signal(signal, libc::SIG_IGN) };
}

/// Blocks these signals in this thread and makes a descriptor that reads them.
pub(super) fn signal_descriptor(signals: &[i32]) -> io::Result<OwnedFd> {
    // SAFETY: sigemptyset fills the set before it is read; the numbers are valid signals; the
    // descriptor that signalfd(2) returns is ours alone.
    unsafe {
        let mut set: libc::sigset_t = mem::zeroed();
        libc::sigemptyset(&raw mut set);
        for signal in signals {
            libc::sigaddset(&raw mut set, *signal);
        }
        if libc::sigprocmask(libc::SIG_BLOCK, &raw const set, ptr::null_mut()) != 0 {
            return Err(io::Error::last_os_error());
        }
        let fd = libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK);
        if fd < 0 { Err(io::Error::last_os_error()) } else { Ok(OwnedFd::from_raw_fd(fd)) }
    }
}

/// The next signal of a [`signal_descriptor`], if one waits.
pub(super) fn read_signal(descriptor: BorrowedFd<'_>) -> Option<i32> {
    let mut info = [0u8; mem::size_of::<libc::signalfd_siginfo>()];
    match rustix::io::read(descriptor, &mut info[..]) {
        // `ssi_signo` is the first field.
        Ok(length) if length == info.len() => Some(i32::from_ne_bytes([info[0], info[1], info[2], info[3]])),
        _ => None,
    }
}

/// Installs a filter in this thread. With `Listen::Yes` the listener is returned.
pub(super) fn install_filter(program: &[Instruction], listen: Listen) -> io::Result<Option<OwnedFd>> {
    let length = u16::try_from(program.len()).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    let program = libc::sock_fprog { len: length, filter: program.as_ptr().cast_mut() };
    let install = |flags: libc::c_ulong| {
        // SAFETY: the program outlives the call and the kernel only reads it.
        let result = unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, &raw const program) };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result as RawFd) }
    };
    match listen {
        Listen::No => install(0).map(|_| None),
        Listen::Yes => {
            let listening = libc::SECCOMP_FILTER_FLAG_NEW_LISTENER;
            let fd = match install(listening | libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV) {
                Err(error) if error.raw_os_error() == Some(libc::EINVAL) => install(listening)?,
                result => result?,
            };
            // SAFETY: with NEW_LISTENER the result is a new descriptor that nobody else owns.
            Ok(Some(unsafe { OwnedFd::from_raw_fd(fd) }))
        }
    }
}

/// Whether a filter gets a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Listen {
    Yes,
    No,
}

/// Whether the kernel takes `SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV`, asked without installing
/// anything: a null program gives `EFAULT` after the flags were accepted.
pub(super) fn knows_wait_killable() -> bool {
    let flags = libc::SECCOMP_FILTER_FLAG_NEW_LISTENER | libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV;
    let none: *const libc::sock_fprog = ptr::null();
    // SAFETY: the kernel checks the pointer and refuses null.
    let result = unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, none) };
    result < 0 && io::Error::last_os_error().raw_os_error() == Some(libc::EFAULT)
}

/// Whether the kernel has `SECCOMP_RET_USER_NOTIF`.
pub(super) fn knows_user_notification() -> bool {
    let action: u32 = libc::SECCOMP_RET_USER_NOTIF;
    // SAFETY: the kernel reads four bytes at the pointer.
    unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_GET_ACTION_AVAIL, 0, &raw const action) == 0 }
}

/// The Landlock ABI of the kernel; 0: none.
pub(super) fn landlock_abi() -> u32 {
    const VERSION: u32 = 1;
    let none: *const u8 = ptr::null();
    // SAFETY: with this flag the kernel reads no attribute and answers its version.
    let result = unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, none, 0usize, VERSION) };
    u32::try_from(result).unwrap_or(0)
}

/// Receives one notification; blocks.
pub(crate) fn notification_receive(listener: BorrowedFd<'_>) -> io::Result<libc::seccomp_notif> {
    // SAFETY: all-zero is what the kernel asks for before it fills the structure, whose size in
    // this ABI is part of the request number.
    unsafe {
        let mut notification: libc::seccomp_notif = mem::zeroed();
        check(libc::ioctl(listener.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_RECV as _, &raw mut notification))?;
        Ok(notification)
    }
}

/// Answers one notification.
pub(crate) fn notification_send(listener: BorrowedFd<'_>, mut response: libc::seccomp_notif_resp) -> io::Result<()> {
    // SAFETY: the kernel reads the structure.
    unsafe { check(libc::ioctl(listener.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_SEND as _, &raw mut response)) }
}

/// Whether the call of this notification still waits.
pub(crate) fn notification_pending(listener: BorrowedFd<'_>, id: u64) -> bool {
    // SAFETY: the kernel reads eight bytes.
    unsafe { libc::ioctl(listener.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_ID_VALID as _, &raw const id) == 0 }
}

/// Installs a descriptor in the caller. With `SECCOMP_ADDFD_FLAG_SEND` that is the answer too.
pub(crate) fn notification_add_fd(listener: BorrowedFd<'_>, request: libc::seccomp_notif_addfd) -> io::Result<RawFd> {
    // SAFETY: the kernel reads the structure; `srcfd` is borrowed by our caller for this call.
    let result = unsafe { libc::ioctl(listener.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_ADDFD as _, &raw const request) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// Wakes the broker's thread on the caller's processor (Linux 6.6).
pub(crate) fn notification_wake_synchronously(listener: BorrowedFd<'_>) -> io::Result<()> {
    const SYNC_WAKE_UP: libc::c_ulong = 1;
    // SAFETY: the argument is a number.
    unsafe { check(libc::ioctl(listener.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_SET_FLAGS as _, SYNC_WAKE_UP)) }
}

/// Takes descriptors that came as numbers in a table we share with their sender.
pub(super) fn adopt(number: RawFd) -> OwnedFd {
    // SAFETY: the control process gave up its ownership (`into_raw_fd`) when it sent the number,
    // and it sends each number once.
    unsafe { OwnedFd::from_raw_fd(number) }
}

/// Makes a descriptor the standard input, output or error, surviving exec.
pub(super) fn place(from: RawFd, to: RawFd) -> io::Result<()> {
    // SAFETY: dup2 takes any numbers and reports bad ones.
    if unsafe { libc::dup2(from, to) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Moves a descriptor to a number of at least 3, closed on exec.
pub(super) fn above_standard(from: RawFd) -> io::Result<RawFd> {
    // SAFETY: F_DUPFD_CLOEXEC takes any number and reports bad ones.
    let result = unsafe { libc::fcntl(from, libc::F_DUPFD_CLOEXEC, 3) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// Marks every descriptor from `first` on as closed by exec.
pub(super) fn close_on_exec_from(first: u32) -> io::Result<()> {
    // SAFETY: the call changes flags of our own table.
    unsafe { check_long(libc::syscall(libc::SYS_close_range, first, u32::MAX, libc::CLOSE_RANGE_CLOEXEC)) }
}

/// Limits what this process may use.
pub(super) fn limit(resource: Resource, soft: Option<u64>, hard: Option<u64>) -> io::Result<()> {
    Ok(rustix::process::setrlimit(resource, Rlimit { current: soft, maximum: hard })?)
}

/// Drops every capability the kernel knows from the bounding set, as far as we may.
pub(super) fn empty_bounding_set() -> io::Result<()> {
    for capability in 0..64_u64 {
        // SAFETY: prctl(2) with these operations takes numbers only.
        unsafe {
            if libc::prctl(libc::PR_CAPBSET_READ, capability, 0, 0, 0) != 1 {
                continue;
            }
            if libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) != 0 {
                let error = io::Error::last_os_error();
                // Without CAP_SETPCAP the set stays; no_new_privs makes it worth nothing.
                if error.raw_os_error() != Some(libc::EPERM) {
                    return Err(error);
                }
            }
        }
    }
    Ok(())
}

/// Sends any signal number to a process (positive) or a group (negative).
pub(super) fn signal(target: i32, number: i32) -> io::Result<()> {
    // SAFETY: kill(2) takes any numbers and reports bad ones.
    unsafe { check(libc::kill(target, number)) }
}

/// Bytes in the receive queue of a socket.
pub(crate) fn queued_bytes(socket: BorrowedFd<'_>) -> usize {
    let mut bytes: libc::c_int = 0;
    // SAFETY: FIONREAD writes one int.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::FIONREAD, &raw mut bytes) };
    if result < 0 { 0 } else { bytes as usize }
}

/// Waits for a shared descriptor to become readable, in the current runtime.
pub(crate) fn watch(descriptor: Arc<OwnedFd>) -> io::Result<AsyncFd<Arc<OwnedFd>>> {
    // SAFETY: the descriptor stays open, and its number its own, for as long as the `Arc` that the
    // result holds; `OwnedFd` gives the same number every time.
    unsafe { AsyncFd::register_with_interest(descriptor, Interest::READABLE) }.map_err(io::Error::from)
}

/// Binds an open socket to a network device by name.
pub(crate) fn bind_to_device(socket: BorrowedFd<'_>, device: &CStr) -> io::Result<()> {
    let name = device.to_bytes();
    // SAFETY: the kernel reads `len` bytes of the name.
    unsafe {
        check(libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_BINDTODEVICE,
            name.as_ptr().cast(),
            name.len() as libc::socklen_t,
        ))
    }
}

/// Lets the kernel choose the port of a bound address when it connects (`ip(7)`).
pub(crate) fn bind_address_no_port(socket: BorrowedFd<'_>) -> io::Result<()> {
    let one: libc::c_int = 1;
    // SAFETY: the kernel reads one int.
    unsafe {
        check(libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_IP,
            libc::IP_BIND_ADDRESS_NO_PORT,
            (&raw const one).cast(),
            mem::size_of::<libc::c_int>() as libc::socklen_t,
        ))
    }
}

/// Brings a network device up.
pub(super) fn device_up(name: &CStr) -> io::Result<()> {
    let socket = rustix::net::socket_with(
        rustix::net::AddressFamily::INET,
        rustix::net::SocketType::DGRAM,
        rustix::net::SocketFlags::CLOEXEC,
        None,
    )?;
    // SAFETY: an all-zero ifreq is valid; the name fits (checked); both requests use the union as
    // flags, which SIOCGIFFLAGS has filled before they are read.
    unsafe {
        let mut request: libc::ifreq = mem::zeroed();
        let bytes = name.to_bytes_with_nul();
        if bytes.len() > request.ifr_name.len() {
            return Err(io::Error::from(io::ErrorKind::InvalidInput));
        }
        for (to, from) in request.ifr_name.iter_mut().zip(bytes) {
            *to = *from as libc::c_char;
        }
        check(libc::ioctl(socket.as_raw_fd(), libc::SIOCGIFFLAGS as _, &raw mut request))?;
        request.ifr_ifru.ifru_flags |= libc::IFF_UP as libc::c_short;
        check(libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS as _, &raw const request))
    }
}

/// New namespaces for this process, which has one thread.
pub(super) fn unshare(flags: i32) -> io::Result<()> {
    // SAFETY: namespaces are no matter of memory; the descriptor table is not touched by the
    // flags that are passed here (CLONE_NEW*).
    unsafe { check(libc::unshare(flags)) }
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn check_long(result: libc::c_long) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
