//! Removing what an agent left behind.
//!
//! A sandbox's directory is renamed into `.removed/` in one step, so that the sandbox is gone at
//! once, and emptied there in the background, after a restart as well. The agent made the tree
//! and may have made it to hurt whoever removes it:
//!
//! * links are never followed: everything is relative to an open directory, opened `NOFOLLOW`;
//! * depth costs nothing: a subdirectory is first moved up into the removed directory itself and
//!   emptied there, so there is no recursion, no long path and one open directory at a time;
//! * directories without permission bits are given them; immutable and append-only flags are
//!   taken off where we may; names are bytes; devices, FIFOs and sockets are unlinked unopened.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Dir, FileType, IFlags, Mode, OFlags};
use rustix::io::Errno;

use super::record;

/// Directory of what is being removed, beside the sandboxes.
pub(super) const REMOVED: &str = ".removed";

/// Moves a sandbox's directory out of the way; it is gone when this returns.
pub(super) fn put_aside(state_dir: &Path, uid: &str) -> io::Result<()> {
    let removed = state_dir.join(REMOVED);
    match std::fs::DirBuilder::new().mode(0o700).create(&removed) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    let unique = uuid::Uuid::new_v4().simple();
    std::fs::rename(state_dir.join(uid), removed.join(format!("{uid}.{unique}")))
}

/// What waits to be removed.
pub(super) fn waiting(state_dir: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(state_dir.join(REMOVED)) else { return Vec::new() };
    entries.flatten().map(|entry| entry.path()).collect()
}

/// Removes a directory that was put aside. The notes go last: they hold its uid.
pub(super) fn remove(directory: &Path) -> io::Result<()> {
    let top = rustix::fs::open(directory, OFlags::DIRECTORY | OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
    let notes = std::ffi::CString::new(record::DRIVER)?;
    let mut moved = 0_u64;
    loop {
        let mut directories = Vec::new();
        for entry in Dir::read_from(&top)? {
            let entry = entry?;
            let name = entry.file_name();
            if is_dots(name) || name == notes.as_c_str() {
                continue;
            }
            match kind(top.as_fd(), name, entry.file_type())? {
                FileType::Directory => directories.push(name.to_owned()),
                _ => unlink(top.as_fd(), name)?,
            }
            // The rest comes in the next round: what we remember is bounded.
            if directories.len() >= 1024 {
                break;
            }
        }
        if directories.is_empty() {
            break;
        }
        for name in directories {
            empty(top.as_fd(), &name, &mut moved)?;
            remove_directory(top.as_fd(), &name)?;
        }
    }
    unlink(top.as_fd(), &notes)?;
    drop(top);
    std::fs::remove_dir(directory)
}

/// Empties one directory in `top`: files go, subdirectories move up into `top`.
fn empty(top: BorrowedFd<'_>, name: &CStr, moved: &mut u64) -> io::Result<()> {
    let directory = open_directory(top, name)?;
    loop {
        let mut changed = false;
        for entry in Dir::read_from(&directory)? {
            let entry = entry?;
            let inner = entry.file_name();
            if is_dots(inner) {
                continue;
            }
            changed = true;
            if kind(directory.as_fd(), inner, entry.file_type())? == FileType::Directory {
                move_up(directory.as_fd(), inner, top, moved)?;
            } else {
                unlink(directory.as_fd(), inner)?;
            }
        }
        // Removing while reading may hide entries from the reader; read until none is left.
        if !changed {
            return Ok(());
        }
    }
}

/// Moves a directory into `top` under a name that is not taken.
fn move_up(from: BorrowedFd<'_>, name: &CStr, top: BorrowedFd<'_>, moved: &mut u64) -> io::Result<()> {
    let mut loosened = false;
    loop {
        let target = format!("{:016x}", *moved);
        *moved += 1;
        match rustix::fs::renameat_with(from, name, top, target.as_str(), rustix::fs::RenameFlags::NOREPLACE) {
            Ok(()) => return Ok(()),
            Err(Errno::EXIST) => {}
            // Moving a directory writes its `..`: it needs our write permission.
            Err(Errno::ACCESS | Errno::PERM) if !loosened => {
                loosened = true;
                drop(open_directory(from, name)?);
                clear_flags(from);
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// Opens a directory to read and change it, whatever its permission bits say.
fn open_directory(parent: BorrowedFd<'_>, name: &CStr) -> io::Result<OwnedFd> {
    let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    // Through a descriptor that names the directory itself, so that no link can take its place.
    let handle = rustix::fs::openat(parent, name, OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
    let stat = rustix::fs::fstat(&handle)?;
    if stat.st_mode & 0o700 != 0o700 {
        use std::os::fd::AsRawFd as _;
        rustix::fs::chmod(format!("/proc/self/fd/{}", handle.as_raw_fd()), Mode::RWXU)?;
    }
    let directory = rustix::fs::openat(&handle, c".", flags, Mode::empty())?;
    Ok(directory)
}

fn unlink(parent: BorrowedFd<'_>, name: &CStr) -> io::Result<()> {
    match rustix::fs::unlinkat(parent, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(Errno::PERM | Errno::ACCESS) => {
            clear_flags(parent);
            // A file is opened for its flags only if it is a regular one.
            if let Ok(file) =
                rustix::fs::openat(parent, name, OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty())
            {
                clear_flags(file.as_fd());
            }
            match rustix::fs::unlinkat(parent, name, AtFlags::empty()) {
                Ok(()) | Err(Errno::NOENT) => Ok(()),
                Err(error) => Err(error.into()),
            }
        }
        Err(error) => Err(error.into()),
    }
}

fn remove_directory(top: BorrowedFd<'_>, name: &CStr) -> io::Result<()> {
    match rustix::fs::unlinkat(top, name, AtFlags::REMOVEDIR) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(Errno::PERM) => {
            clear_flags(open_directory(top, name)?.as_fd());
            rustix::fs::unlinkat(top, name, AtFlags::REMOVEDIR).map_err(Into::into)
        }
        Err(error) => Err(error.into()),
    }
}

/// Takes the immutable and append-only flags off, where we may and the file system has them.
fn clear_flags(file: BorrowedFd<'_>) {
    if let Ok(flags) = rustix::fs::ioctl_getflags(file)
        && flags.intersects(IFlags::IMMUTABLE | IFlags::APPEND)
    {
        let _ = rustix::fs::ioctl_setflags(file, flags & !(IFlags::IMMUTABLE | IFlags::APPEND));
    }
}

/// The type of an entry; asked for where the file system does not tell while listing.
fn kind(parent: BorrowedFd<'_>, name: &CStr, listed: FileType) -> io::Result<FileType> {
    if listed != FileType::Unknown {
        return Ok(listed);
    }
    let stat = rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)?;
    Ok(FileType::from_raw_mode(stat.st_mode))
}

fn is_dots(name: &CStr) -> bool {
    matches!(name.to_bytes(), b"." | b"..")
}
