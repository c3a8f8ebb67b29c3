//! Locks on files: one holder at a time, let go of when it ends, however it ends.

use std::fs::File;
use std::io;

use rustix::fs::FlockOperation;
use rustix::io::Errno;

/// A file's lock, held by us.
#[derive(Debug)]
pub(crate) struct FileLock(File);

impl FileLock {
    /// Takes the lock of a file; `None` if someone holds it.
    pub(crate) fn try_take(file: File) -> io::Result<Option<Self>> {
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(Self(file))),
            Err(Errno::WOULDBLOCK) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

impl Drop for FileLock {
    fn drop(&mut self) {
        // Closing would not do: a process that another thread is just starting may have a copy
        // of the descriptor until its exec, and the lock with it. Unlocking ends it for all.
        let _ = rustix::fs::flock(&self.0, FlockOperation::NonBlockingUnlock);
    }
}
