//! The guardian: outlives the supervisor by the moment it takes to kill what is left.
//!
//! It is the first process, a child subreaper outside the agent's domain, and does nothing but
//! wait. `PDEATHSIG` reaches one generation; a daemon that forked twice is reparented to the guardian
//! when everything between them is gone, and found there.
//!
//! Either of the two is enough: the supervisor is a subreaper as well, watches the guardian, and
//! ends the sandbox when it is gone ([`Guardian::watch`]). If both are killed at once, the control
//! process notices that nobody asks any more.

use std::{
    io,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{
        DumpableBehavior, Pid, PidfdFlags, WaitOptions, WaitStatus, getppid, pidfd_open, set_child_subreaper, set_dumpable_behavior, wait,
    },
};

use super::{
    ablation::Wall,
    descend::kill_descendants,
    sys::{self, Forked},
    wire::{self, Hold},
};

/// Proof that this process runs under a guardian.
#[derive(Debug)]
pub struct Guardian {
    pid: Pid,
    process: OwnedFd,
    holds: OwnedFd,
}

impl Guardian {
    /// Process id of the guardian.
    pub fn pid(&self) -> u32 {
        self.pid.as_raw_nonzero().get() as u32
    }

    /// Whether it was killed: it never ends before the supervisor.
    pub fn ended(&self) -> bool {
        ended(&self.process, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }))
    }

    /// Has the guardian hold this descriptor to its end: a lock that is taken after the fork.
    pub fn hold(&self, descriptor: BorrowedFd<'_>) -> io::Result<()> {
        // It never reads: what waits in its socket is open as long as the socket is.
        wire::send(self.holds.as_fd(), &Hold {}, &[descriptor])
    }

    /// From now on every process below this one is killed when the guardian ends, and `then` is
    /// called. To be called after the last fork: it starts a thread, which depends on no runtime.
    pub fn watch(&self, then: impl FnOnce() + Send + 'static) -> io::Result<()> {
        let process = self.process.try_clone()?;
        std::thread::Builder::new().name("guardian-watch".to_owned()).spawn(move || {
            while !ended(&process, None) {}
            kill_descendants();
            then();
        })?;
        Ok(())
    }
}

fn ended(process: &OwnedFd, time: Option<&Timespec>) -> bool {
    let mut set = [PollFd::new(process, PollFlags::IN)];
    poll(&mut set, time).is_ok_and(|ready| ready > 0)
}

/// Forks. The parent becomes the guardian and never returns: it passes on `SIGTERM`, `SIGINT`
/// and `SIGHUP`, and when its child has ended it kills every process below it and exits with the child's
/// code (128 and the signal, if one ended it). The child returns and goes on as the supervisor.
/// To be called first of all, while the process has one thread.
pub fn enter() -> io::Result<Guardian> {
    let guardian = rustix::process::getpid();
    let (holds, held) = wire::pair()?;
    let signals = sys::signal_descriptor(&[libc::SIGCHLD, libc::SIGTERM, libc::SIGINT, libc::SIGHUP])?;
    match sys::fork()? {
        Forked::Child => {
            drop((signals, held));
            sys::reset_signals();
            // Rust's runtime ignores it; reset_signals has undone that.
            ignore_broken_pipes();
            // Opened before the look at the parent, so that it cannot be somebody else's number.
            let process = pidfd_open(guardian, PidfdFlags::empty());
            if getppid() != Some(guardian) {
                sys::exit_now(128 + libc::SIGKILL);
            }
            harden()?;
            set_child_subreaper(Some(rustix::process::getpid()))?;
            Ok(Guardian { pid: guardian, process: process?, holds })
        }
        Forked::Parent(supervisor) => {
            drop(holds);
            // Failures here leave a guardian that still waits; nothing is weaker for it.
            let _ = harden();
            let _ = leave_standard_input();
            let _ = set_child_subreaper(Some(guardian));
            guard(supervisor, &signals, &held)
        }
    }
}

/// Keeps other processes of the same user out of our memory and descriptors.
pub(super) fn harden() -> io::Result<()> {
    if Wall::Dumpable.stands() {
        set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    }
    Ok(())
}

/// Standard input is where the bootstrap comes from: nobody but the supervisor reads it.
pub fn leave_standard_input() -> io::Result<()> {
    Ok(rustix::stdio::dup2_stdin(std::fs::File::open("/dev/null")?)?)
}

pub(super) fn ignore_broken_pipes() {
    // A write to a closed pipe is an error to handle, not an end.
    sys::ignore(libc::SIGPIPE);
}

fn guard(supervisor: Pid, signals: &OwnedFd, _held: &OwnedFd) -> ! {
    loop {
        while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
            if pid == supervisor {
                if Wall::Guardian.stands() {
                    kill_descendants();
                }
                sys::exit_now(i32::from(exit_code(status)));
            }
        }
        let _ = poll(&mut [PollFd::new(signals, PollFlags::IN)], None);
        while let Some(signal) = sys::read_signal(signals.as_fd()) {
            if signal != libc::SIGCHLD {
                let _ = sys::signal(supervisor.as_raw_nonzero().get(), signal);
            }
        }
    }
}

/// 0 to 255, or 128 and the signal.
pub(super) fn exit_code(status: WaitStatus) -> u8 {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => code as u8,
        (None, Some(signal)) => 128 + signal as u8,
        (None, None) => 255,
    }
}
