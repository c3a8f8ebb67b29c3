//! Between fork and exec of a program inside the domain.

use std::{
    ffi::{CString, OsStr},
    io,
    os::{
        fd::{AsRawFd as _, OwnedFd, RawFd},
        unix::ffi::OsStrExt as _,
    },
};

use super::{
    ablation::Wall,
    sys,
    wire::{self, SpawnBody, Status, Terminal},
};

/// What a program that cannot be executed ends with, as in a shell.
const CANNOT_EXECUTE: i32 = 126;

/// Becomes the program, or says why not and ends.
pub(super) fn run(body: OwnedFd, stdio: [RawFd; 3], status: &OwnedFd) -> ! {
    let failed = |step: String, error: &io::Error| -> ! {
        let errno = error.raw_os_error().unwrap_or(libc::EINVAL);
        // The supervisor that does not read this is gone, and so are we.
        let _ = wire::write(status, &Status::Failed { step, errno });
        sys::exit_now(CANNOT_EXECUTE)
    };
    if let Err(error) = wire::write(status, &Status::Started) {
        failed("report the start".to_owned(), &error);
    }
    let body: SpawnBody = match wire::load(body) {
        Ok(body) => body,
        Err(error) => failed("read the request".to_owned(), &error),
    };
    if let Err((step, error)) = prepare(&body, stdio) {
        failed(step, &error);
    }
    let (program, error) = execute(&body);
    failed(format!("exec {}", program.to_string_lossy()), &error)
}

fn prepare(body: &SpawnBody, stdio: [RawFd; 3]) -> Result<(), (String, io::Error)> {
    let at = |step: &str| {
        let step = step.to_owned();
        move |error: io::Error| (step, error)
    };
    sys::reset_signals();
    rustix::process::setsid().map_err(|error| ("start a session".to_owned(), error.into()))?;
    // None of the three may be overwritten before it was copied.
    let mut copies = [0; 3];
    for (copy, from) in copies.iter_mut().zip(stdio) {
        *copy = sys::above_standard(from).map_err(at("copy the standard descriptors"))?;
    }
    for (to, from) in (0..).zip(copies) {
        sys::place(from, to).map_err(at("place the standard descriptors"))?;
    }
    if body.terminal == Terminal::Controlling {
        rustix::process::ioctl_tiocsctty(rustix::stdio::stdin()).map_err(|error| ("take the terminal".to_owned(), error.into()))?;
    }
    if Wall::InheritedDescriptors.stands() {
        sys::close_on_exec_from(3).map_err(at("close other descriptors"))?;
    }
    let cwd = OsStr::from_bytes(&body.cwd);
    rustix::process::chdir(cwd).map_err(|error| (format!("enter the directory {}", cwd.to_string_lossy()), error.into()))?;
    Ok(())
}

/// Tries what `execvp(3)` tries, with the `PATH` of the new environment.
fn execute(body: &SpawnBody) -> (CString, io::Error) {
    let invalid = || io::Error::from_raw_os_error(libc::EINVAL);
    let text = |bytes: &[u8]| CString::new(bytes).map_err(|_| invalid());
    let prepared = || -> io::Result<(Vec<CString>, Vec<CString>)> {
        let argv = body.argv.iter().map(|argument| text(argument)).collect::<Result<_, _>>()?;
        let env = body.env.iter().map(|(key, value)| text(&[key.as_slice(), b"=", value].concat())).collect::<Result<_, _>>()?;
        Ok((argv, env))
    };
    let (argv, env): (Vec<CString>, Vec<CString>) = match prepared() {
        Ok(prepared) => prepared,
        Err(error) => return (CString::default(), error),
    };
    let Some(program) = argv.first().cloned() else { return (CString::default(), invalid()) };
    if program.as_bytes().contains(&b'/') {
        let error = sys::execve(&program, &argv, &env);
        return (program, error);
    }
    let path = body.env.iter().find(|(key, _)| key == b"PATH").map_or(&b"/usr/local/bin:/usr/bin:/bin"[..], |(_, value)| value);
    let mut result = io::Error::from_raw_os_error(libc::ENOENT);
    for directory in path.split(|byte| *byte == b':') {
        let directory = if directory.is_empty() { b"." } else { directory };
        let Ok(candidate) = text(&[directory, b"/", program.as_bytes()].concat()) else { continue };
        let error = sys::execve(&candidate, &argv, &env);
        match error.raw_os_error() {
            // One that exists and may not be run is a better answer than none at all.
            Some(libc::EACCES) if rustix::fs::access(&candidate, rustix::fs::Access::EXISTS).is_ok() => result = error,
            Some(libc::EACCES | libc::ENOENT | libc::ENOTDIR) => {}
            _ => return (candidate, error),
        }
    }
    (program, result)
}

/// Whether a descriptor may become a standard stream of the agent: pipes, files, terminals and
/// unnamed pairs. A connected socket of ours would be a way out that nobody decides about.
pub(super) fn may_inherit(descriptor: &OwnedFd) -> io::Result<()> {
    use rustix::fs::FileType;
    if !Wall::InheritedDescriptors.stands() {
        return Ok(());
    }
    let stat = rustix::fs::fstat(descriptor)?;
    let allowed = match FileType::from_raw_mode(stat.st_mode) {
        FileType::Fifo | FileType::RegularFile => true,
        FileType::CharacterDevice => rustix::termios::isatty(descriptor) || is_memory_device(stat.st_rdev),
        FileType::Socket => is_unnamed_pair(descriptor),
        _ => false,
    };
    if allowed {
        return Ok(());
    }
    let number = descriptor.as_raw_fd();
    Err(io::Error::new(io::ErrorKind::PermissionDenied, format!("descriptor {number} is no pipe, file or terminal")))
}

/// `/dev/null`, `/dev/zero` and their kin have major number 1.
fn is_memory_device(device: u64) -> bool {
    rustix::fs::major(device) == 1
}

fn is_unnamed_pair(socket: &OwnedFd) -> bool {
    use rustix::net::{AddressFamily, SocketAddrUnix, getpeername, getsockname, sockopt::socket_domain};
    let unnamed = |address: rustix::net::SocketAddrAny| {
        SocketAddrUnix::try_from(address).is_ok_and(|address| address.path().is_none() && address.abstract_name().is_none())
    };
    socket_domain(socket) == Ok(AddressFamily::UNIX)
        && getsockname(socket).is_ok_and(unnamed)
        && getpeername(socket).is_ok_and(|peer| peer.is_some_and(unnamed))
}
