//! The process that makes a call: its memory, its descriptors, where it stands.
//!
//! Everything is read below `/proc` of the calling thread, which needs no privilege for a dumpable
//! descendant with our user, and nothing that container runtimes refuse. What was read counts only
//! if the call is still pending afterwards: a thread id can be reused.

use std::{
    fs::{File, OpenOptions},
    io,
    os::{fd::OwnedFd, unix::fs::FileExt as _},
    path::PathBuf,
    sync::Arc,
};

use rustix::fs::{CWD, Mode, OFlags, openat};

use super::{
    address::{Address, LONGEST},
    answer::Errno,
};
use crate::{
    confine::{Listener, Notification},
    egress::identity::{Identities, Identity},
};

/// A caller.
pub(super) struct Caller<'a> {
    listener: &'a Listener,
    notification: Notification,
    memory: Option<File>,
}

impl<'a> Caller<'a> {
    pub(super) fn new(listener: &'a Listener, notification: Notification) -> Self {
        Self { listener, notification, memory: None }
    }

    pub(super) fn id(&self) -> u64 {
        self.notification.id
    }

    pub(super) fn notification(&self) -> Notification {
        self.notification
    }

    /// An argument as a register.
    pub(super) fn argument(&self, index: usize) -> u64 {
        self.notification.arguments[index]
    }

    /// An argument as the `int` that the kernel takes it for.
    pub(super) fn int(&self, index: usize) -> i32 {
        self.notification.arguments[index] as i32
    }

    /// What was read so far is the caller's, or `EINTR` to somebody who does not wait any more.
    pub(super) fn still_there(&self) -> Result<(), Errno> {
        if self.listener.pending(self.notification.id) { Ok(()) } else { Err(Errno(libc::EINTR)) }
    }

    fn memory(&mut self) -> Result<&File, Errno> {
        if self.memory.is_none() {
            let path = format!("/proc/{}/mem", self.notification.thread);
            let file = OpenOptions::new().read(true).write(true).open(path).map_err(|error| match error.raw_os_error() {
                Some(libc::EMFILE | libc::ENFILE) => Errno(libc::EAGAIN),
                _ => Errno(libc::EFAULT),
            })?;
            self.memory = Some(file);
            // The file is the caller's and no successor's.
            self.still_there()?;
        }
        self.memory.as_ref().ok_or(Errno(libc::EFAULT))
    }

    /// Reads exactly this many bytes.
    pub(super) fn read(&mut self, at: u64, length: usize) -> Result<Vec<u8>, Errno> {
        let mut bytes = vec![0; length];
        if length > 0 {
            self.memory()?.read_exact_at(&mut bytes, at).map_err(|_| Errno(libc::EFAULT))?;
        }
        Ok(bytes)
    }

    pub(super) fn read_u32(&mut self, at: u64) -> Result<u32, Errno> {
        let mut bytes = [0; 4];
        self.memory()?.read_exact_at(&mut bytes, at).map_err(|_| Errno(libc::EFAULT))?;
        Ok(u32::from_ne_bytes(bytes))
    }

    pub(super) fn write(&mut self, at: u64, bytes: &[u8]) -> Result<(), Errno> {
        if bytes.is_empty() {
            return Ok(());
        }
        self.memory()?.write_all_at(bytes, at).map_err(|_| Errno(libc::EFAULT))
    }

    /// The address at `pointer`, read once.
    pub(super) fn address(&mut self, pointer: usize, length: usize) -> Result<Address, Errno> {
        let length = usize::try_from(self.int(length)).map_err(|_| Errno(libc::EINVAL))?;
        if length > LONGEST {
            return Err(Errno(libc::EINVAL));
        }
        let bytes = self.read(self.argument(pointer), length)?;
        Address::parse(&bytes)
    }

    /// Writes an address the way `getsockname(2)` does: cut to the caller's room, with its whole
    /// length.
    pub(super) fn write_address(&mut self, pointer: u64, length: u64, address: &[u8]) -> Result<(), Errno> {
        let room = self.read_u32(length)? as i32;
        let room = usize::try_from(room).map_err(|_| Errno(libc::EINVAL))?;
        self.write(pointer, &address[..address.len().min(room)])?;
        self.write(length, &(address.len() as u32).to_ne_bytes())
    }

    /// Inode of the socket that a descriptor of the caller stands for.
    pub(super) fn socket(&self, descriptor: i32) -> Option<u64> {
        let link = std::fs::read_link(format!("/proc/{}/fd/{descriptor}", self.notification.thread)).ok()?;
        socket_inode(link.to_str()?)
    }

    /// Its process, while the call is pending.
    pub(super) fn process(&self) -> Result<u32, Errno> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.notification.thread)).map_err(Errno::from)?;
        let line = status.lines().find_map(|line| line.strip_prefix("Tgid:")).ok_or(Errno(libc::ESRCH))?;
        line.trim().parse().map_err(|_| Errno(libc::ESRCH))
    }

    /// Who calls.
    pub(super) fn identity(&self, identities: &Identities) -> Result<Arc<Identity>, Errno> {
        let identity = identities.capture(self.process()?).map_err(|_| Errno(libc::EACCES))?;
        self.still_there()?;
        Ok(identity)
    }

    /// Its root directory.
    pub(super) fn root(&self) -> io::Result<OwnedFd> {
        let path = format!("/proc/{}/root", self.notification.thread);
        Ok(openat(CWD, path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?)
    }

    /// Its working directory, as a path from its root.
    pub(super) fn working_directory(&self) -> io::Result<PathBuf> {
        std::fs::read_link(format!("/proc/{}/cwd", self.notification.thread))
    }
}

/// The inode in `socket:[123]`.
pub(super) fn socket_inode(link: &str) -> Option<u64> {
    link.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
}
