//! Ending a supervisor: ask, wait, kill, and see that nothing is left.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::process::Signal;
use tokio::time::Instant;

use super::record::{self, ProcessId};
use super::sandboxes::{Sandboxes, Slot};
use crate::driver::{DriverError, WorkloadState};

/// What to do when nothing runs any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum After {
    /// Keep the workspace.
    Keep,
    /// Remove everything.
    Remove,
}

/// How far the asking has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    Not,
    Politely,
    Finally,
}

/// An ending under way.
#[derive(Debug)]
pub(super) struct Ending {
    after: After,
    asked: Asked,
    kill_at: Instant,
    give_up_after: Duration,
}

/// What an ending has come to.
enum Turn {
    /// Look again when something stirs, at the latest then.
    Wait(Duration),
    /// It is over.
    Over,
}

/// Processes die without our noticing only between two looks this far apart.
const LOOK: Duration = Duration::from_millis(50);
/// A look soon after a process ended: its guardian is about to let go of the lock.
const LOOK_SOON: Duration = Duration::from_millis(2);

impl Ending {
    pub(super) fn new(after: After, grace: Duration, give_up_after: Duration) -> Self {
        Self { after, asked: Asked::Not, kill_at: Instant::now() + grace, give_up_after }
    }

    /// Asked for again: never later than before, and removal wins.
    pub(super) fn hasten(&mut self, after: After, grace: Duration) {
        self.kill_at = self.kill_at.min(Instant::now() + grace);
        if after == After::Remove {
            self.after = After::Remove;
        }
    }

    /// Carries an ending out in the background.
    pub(super) fn spawn(sandboxes: Arc<Sandboxes>, uid: String, directory: PathBuf, slot: Arc<Slot>) {
        tokio::spawn(async move {
            loop {
                let (there, name, place, at) = (Arc::clone(&sandboxes), uid.clone(), Arc::clone(&slot), directory.clone());
                let turn = tokio::task::spawn_blocking(move || turn(&there, &name, &at, &place)).await;
                match turn {
                    Ok(Ok(Turn::Over)) | Err(_) => break,
                    Ok(Ok(Turn::Wait(pause))) => {
                        tokio::select! {
                            () = slot.stirred.notified() => {}
                            () = tokio::time::sleep(pause) => {}
                        }
                    }
                    Ok(Err(error)) => {
                        tracing::warn!(sandbox = uid, %error, "a sandbox cannot be ended");
                        tokio::time::sleep(LOOK).await;
                        slot.enter().ending = None;
                        break;
                    }
                }
            }
            sandboxes.tell(&uid);
        });
    }
}

/// One look at what is ending, and what that asks for.
fn turn(sandboxes: &Arc<Sandboxes>, uid: &str, directory: &Path, slot: &Arc<Slot>) -> Result<Turn, DriverError> {
    let mut inner = slot.enter();
    let found = sandboxes.look(uid, directory, slot, &mut inner)?;
    let Some(ending) = &mut inner.ending else { return Ok(Turn::Over) };
    if !matches!(found.state, WorkloadState::Running { .. } | WorkloadState::Starting { .. } | WorkloadState::Stopping) {
        let after = ending.after;
        inner.ending = None;
        if after == After::Remove && record::exists(&sandboxes.config().state_dir, uid) {
            sandboxes.remove(uid, directory)?;
        }
        return Ok(Turn::Over);
    }
    // The one that is known passes what it is asked on to its supervisor.
    let target = found.supervisor.or(found.started);
    let now = Instant::now();
    match target {
        Some(process) if now >= ending.kill_at && ending.asked != Asked::Finally => {
            kill(process);
            ending.asked = Asked::Finally;
        }
        Some(process) if ending.asked == Asked::Not => {
            process.signal(Signal::TERM);
            ending.asked = Asked::Politely;
        }
        _ if now >= ending.kill_at + ending.give_up_after => {
            if let Some(process) = target {
                process.signal(Signal::KILL);
            }
            ending.kill_at = now;
            tracing::error!(sandbox = uid, "a workload does not end although it was killed; look at what holds the lock in its directory");
        }
        _ => {}
    }
    let until_kill = ending.kill_at.saturating_duration_since(now);
    let pause = if target.is_none() {
        LOOK_SOON
    } else if until_kill.is_zero() {
        LOOK
    } else {
        until_kill.min(LOOK)
    };
    Ok(Turn::Wait(pause))
}

/// Kills what is below a guardian, and lets the guardian see to the rest: killed itself, it could
/// not find the daemons that the agent has left behind. One that has nothing below it is no
/// guardian (yet).
fn kill(process: ProcessId) {
    let below = process.children();
    if below.is_empty() {
        process.signal(Signal::KILL);
    }
    for child in below {
        child.signal(Signal::KILL);
    }
}
