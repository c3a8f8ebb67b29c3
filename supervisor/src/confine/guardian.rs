//! The guardian: outlives the supervisor by the moment it takes to kill what is left.
//!
//! It is the first process, a child subreaper outside the agent's domain, and does nothing but
//! wait. `PDEATHSIG` reaches one generation; a daemon that forked twice is reparented to the guardian
//! when everything between them is gone, and found there.

use std::{io, os::fd::AsFd as _};

use rustix::{
    event::{PollFd, PollFlags, poll},
    process::{
        DumpableBehavior, Pid, Signal, WaitOptions, WaitStatus, getppid, set_child_subreaper, set_dumpable_behavior,
        set_parent_process_death_signal, wait,
    },
};

use super::{
    ablation::Wall,
    descend::kill_descendants,
    sys::{self, Forked},
};

/// Proof that this process runs under a guardian.
#[derive(Debug)]
pub struct Guardian {
    pid: Pid,
}

impl Guardian {
    /// Process id of the guardian.
    pub fn pid(&self) -> u32 {
        self.pid.as_raw_nonzero().get() as u32
    }
}

/// Forks. The parent becomes the guardian and never returns: it passes on `SIGTERM`, `SIGINT`
/// and `SIGHUP`, and when its child has ended it kills every process below it and exits with the child's
/// code (128 and the signal, if one ended it). The child returns and goes on as the supervisor;
/// it dies with the guardian. To be called first of all, while the process has one thread.
pub fn enter() -> io::Result<Guardian> {
    let guardian = rustix::process::getpid();
    let signals = sys::signal_descriptor(&[libc::SIGCHLD, libc::SIGTERM, libc::SIGINT, libc::SIGHUP])?;
    match sys::fork()? {
        Forked::Child => {
            drop(signals);
            sys::reset_signals();
            // Rust's runtime ignores it; reset_signals has undone that.
            ignore_broken_pipes();
            set_parent_process_death_signal(Some(Signal::KILL))?;
            if getppid() != Some(guardian) {
                sys::exit_now(128 + libc::SIGKILL);
            }
            harden()?;
            set_child_subreaper(Some(guardian))?;
            Ok(Guardian { pid: guardian })
        }
        Forked::Parent(supervisor) => {
            // Failures here leave a guardian that still waits; nothing is weaker for it.
            let _ = harden();
            let _ = set_child_subreaper(Some(guardian));
            guard(supervisor, &signals)
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

pub(super) fn ignore_broken_pipes() {
    // A write to a closed pipe is an error to handle, not an end.
    sys::ignore(libc::SIGPIPE);
}

fn guard(supervisor: Pid, signals: &std::os::fd::OwnedFd) -> ! {
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
