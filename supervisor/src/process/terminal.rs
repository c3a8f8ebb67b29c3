//! A pseudo-terminal: the master end here, the slave end for a process.

use std::{
    io,
    os::fd::{AsFd as _, OwnedFd},
};

use rustix::{
    fs::{Mode, OFlags},
    pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt},
    termios::{Winsize, tcsetwinsize},
};
use tokio::{io::AsyncWriteExt as _, net::unix::pipe};

use super::Size;

/// The master end, for typing and sizing.
#[derive(Debug)]
pub(super) struct Terminal {
    keyboard: pipe::Sender,
    master: OwnedFd,
}

/// A new terminal: our end for typing, our end for reading, and the process's end. Reading
/// fails with `EIO` when nobody has the slave end open any more.
pub(super) fn open(size: Size) -> io::Result<(Terminal, pipe::Receiver, OwnedFd)> {
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
    grantpt(&master)?;
    unlockpt(&master)?;
    let name = ptsname(&master, Vec::new())?;
    let slave = rustix::fs::open(name.as_c_str(), OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC, Mode::empty())?;
    rustix::io::ioctl_fionbio(&master, true)?;
    // A terminal is no pipe, but it is read, written and waited for as one.
    let screen = pipe::Receiver::from_owned_fd_unchecked(master.try_clone()?)?;
    let keyboard = pipe::Sender::from_owned_fd_unchecked(master.try_clone()?)?;
    let terminal = Terminal { keyboard, master };
    terminal.resize(size)?;
    Ok((terminal, screen, slave))
}

impl Terminal {
    /// The kernel tells the foreground process group (SIGWINCH).
    pub(super) fn resize(&self, size: Size) -> io::Result<()> {
        let size = Winsize { ws_col: size.cols, ws_row: size.rows, ws_xpixel: 0, ws_ypixel: 0 };
        Ok(tcsetwinsize(self.master.as_fd(), size)?)
    }

    /// Types all of `bytes`.
    pub(super) async fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.keyboard.write_all(bytes).await
    }
}
