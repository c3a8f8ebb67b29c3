//! The sandboxes of a state directory: one slot each, and what may be done in it.

use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::{Notify, broadcast};

use super::config::ProcessDriverConfig;
use super::inspect::{self, Found, inspect};
use super::record::{self, DriverRecord, ProcessId};
use super::removal;
use super::spare::{self, Spare};
use super::stop::{After, Ending};
use super::uids::{self, Uids};
use super::{kernel, launch};
use crate::blueprint::SandboxBlueprint;
use crate::driver::{DriverError, WorkloadState};
use crate::failpoint;
use crate::limits;

/// Exit code of a supervisor that found the lock taken.
const LOCK_TAKEN: i32 = 75;

/// All sandboxes of a state directory.
pub(super) struct Sandboxes {
    config: ProcessDriverConfig,
    slots: Mutex<HashMap<String, Arc<Slot>>>,
    uids: Mutex<Uids>,
    changed: broadcast::Sender<String>,
    remover: Mutex<Remover>,
    spare: Mutex<Option<Spare>>,
}

/// What this process knows of a sandbox beyond what can be seen.
#[derive(Default)]
pub(super) struct Slot {
    inner: Mutex<Inner>,
    /// Something happened to its processes.
    pub(super) stirred: Notify,
}

#[derive(Default)]
pub(super) struct Inner {
    /// A child of ours, to be reaped.
    child: Option<Child>,
    /// The process whose end is waited for.
    watched: Option<ProcessId>,
    /// Nothing can be waited for, and it will be looked at again.
    polled: bool,
    /// It is being ended.
    pub(super) ending: Option<Ending>,
}

/// The one thread that removes directories.
#[derive(Default, PartialEq, Eq)]
enum Remover {
    #[default]
    Idle,
    Busy,
    BusyAndAsked,
}

impl Sandboxes {
    pub(super) fn open(config: ProcessDriverConfig) -> Result<Self, DriverError> {
        let root = rustix::process::geteuid().is_root();
        let mode = if root { 0o711 } else { 0o700 };
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(mode)
            .create(&config.state_dir)
            .and_then(|()| uids_in(&config.state_dir).map(drop))
            .map_err(|error| {
                DriverError::never(
                    "StateDirectoryUnusable",
                    format!(
                        "{}: the directory of the sandboxes cannot be used: {error}; repair its permissions",
                        config.state_dir.display()
                    ),
                )
            })?;
        spare::clear(&config.state_dir);
        let mut directories: Vec<PathBuf> =
            uids_in(&config.state_dir).unwrap_or_default().iter().map(|uid| config.state_dir.join(uid)).collect();
        directories.extend(removal::waiting(&config.state_dir));
        let used = if root { directories } else { Vec::new() };
        let uids = Uids::scan(config.uids, used.iter().map(PathBuf::as_path));
        Ok(Self {
            config,
            slots: Mutex::default(),
            uids: Mutex::new(uids),
            changed: broadcast::channel(limits::DRIVER_EVENTS).0,
            remover: Mutex::default(),
            spare: Mutex::default(),
        })
    }

    pub(super) fn config(&self) -> &ProcessDriverConfig {
        &self.config
    }

    pub(super) fn changes(&self) -> broadcast::Receiver<String> {
        self.changed.subscribe()
    }

    pub(super) fn list(self: &Arc<Self>) -> Result<Vec<String>, DriverError> {
        // Whoever lists takes stock: what an earlier process left half removed goes on now.
        if !removal::waiting(&self.config.state_dir).is_empty() {
            self.remove_waiting();
        }
        uids_in(&self.config.state_dir).map_err(|error| unreadable(&self.config.state_dir, &error))
    }

    pub(super) fn observe(self: &Arc<Self>, uid: &str) -> Result<WorkloadState, DriverError> {
        let directory = self.directory(uid)?;
        let slot = self.slot(uid);
        let mut inner = slot.inner.lock();
        let found = self.look(uid, &directory, &slot, &mut inner)?;
        if found.state == WorkloadState::Absent && inner.ending.is_none() {
            drop(inner);
            self.forget(uid);
        }
        Ok(found.state)
    }

    /// Makes a supervisor run.
    pub(super) fn ensure(self: &Arc<Self>, blueprint: &SandboxBlueprint) -> Result<(), DriverError> {
        let directory = self.directory(&blueprint.uid)?;
        let slot = self.slot(&blueprint.uid);
        let mut inner = slot.inner.lock();
        let found = self.look(&blueprint.uid, &directory, &slot, &mut inner)?;
        match found.state {
            WorkloadState::Running { .. } | WorkloadState::Starting { .. } => return Ok(()),
            WorkloadState::Stopping => {
                return Err(DriverError::later(
                    "StillStopping",
                    format!("the workload of sandbox \"{}\" before this one is still ending", blueprint.name),
                ));
            }
            WorkloadState::Absent | WorkloadState::Suspended | WorkloadState::Lost { .. } | WorkloadState::Failed { .. } => {}
        }
        let run_as = if rustix::process::geteuid().is_root() { Some(self.uids.lock().assign(&directory)?) } else { None };
        if let Some((child, process)) = launch::launch(&self.config, blueprint, &directory, run_as, || self.take_spare())? {
            inner.child = Some(child);
            self.attend(&blueprint.uid, &slot, &mut inner, process);
        }
        Ok(())
    }

    /// A supervisor that waits, or a new one; another is started in its place when this sandbox runs.
    fn take_spare(self: &Arc<Self>) -> Result<Spare, DriverError> {
        self.refill_after(limits::SPARE_DELAY);
        let spare = self.spare.lock().take_if(Spare::waits);
        spare.map_or_else(|| Spare::start(&self.config), Ok)
    }

    /// Has a supervisor started after a time, if none waits by then.
    pub(super) fn refill_after(self: &Arc<Self>, time: Duration) {
        let sandboxes = Arc::clone(self);
        tokio::spawn(async move {
            tokio::time::sleep(time).await;
            let refill = tokio::task::spawn_blocking(move || {
                let mut spare = sandboxes.spare.lock();
                if spare.as_mut().is_some_and(Spare::waits) {
                    return;
                }
                match Spare::start(&sandboxes.config) {
                    Ok(started) => *spare = Some(started),
                    // Whoever needs one starts it, and says why that cannot be.
                    Err(error) => tracing::debug!(%error, "no supervisor is kept ready"),
                }
            });
            let _ = refill.await;
        });
    }

    /// Ends a workload, and removes everything of it if so asked. Returns when that is under way.
    pub(super) fn end(self: &Arc<Self>, uid: &str, after: After) -> Result<(), DriverError> {
        let directory = self.directory(uid)?;
        let slot = self.slot(uid);
        let mut inner = slot.inner.lock();
        let found = self.look(uid, &directory, &slot, &mut inner)?;
        if found.state == WorkloadState::Absent && !record::exists(&self.config.state_dir, uid) {
            return Ok(());
        }
        // From here on its end is no failure, whoever survives to see it.
        record::mark(&directory, record::SUSPENDED).map_err(|error| unreadable(&directory, &error))?;
        failpoint::reached("process-marked");
        match (found.state, after) {
            (WorkloadState::Starting { .. } | WorkloadState::Running { .. } | WorkloadState::Stopping, _) => {
                let grace = match after {
                    After::Keep => self.config.grace.stop,
                    After::Remove => self.config.grace.delete,
                };
                match &mut inner.ending {
                    Some(ending) => ending.hasten(after, grace),
                    none => {
                        *none = Some(Ending::new(after, grace, self.config.grace.kill));
                        drop(inner);
                        Ending::spawn(Arc::clone(self), uid.to_owned(), directory, slot);
                        return Ok(());
                    }
                }
                drop(inner);
                slot.stirred.notify_one();
            }
            (_, After::Keep) => {
                for old in [record::SUPERVISOR, record::FAILURE] {
                    record::remove(&directory.join(old)).map_err(|error| unreadable(&directory, &error))?;
                }
                drop(inner);
                self.tell(uid);
            }
            (_, After::Remove) => self.remove(uid, &directory)?,
        }
        Ok(())
    }

    /// Moves the directory of a sandbox without processes out of the way and has it removed. To be
    /// called from within its slot, so that two who remove it do not find each other's lock.
    pub(super) fn remove(self: &Arc<Self>, uid: &str, directory: &Path) -> Result<(), DriverError> {
        let lock = kernel::try_lock(directory).map_err(|error| unreadable(directory, &error))?;
        if lock.is_none() {
            return Err(DriverError::later("StillStopping", "the workload is still ending".to_owned()));
        }
        removal::put_aside(&self.config.state_dir, uid).map_err(|error| unreadable(directory, &error))?;
        failpoint::reached("process-put-aside");
        drop(lock);
        self.forget(uid);
        self.tell(uid);
        self.remove_waiting();
        Ok(())
    }

    /// Looks at a sandbox, reaping what has ended and watching what lives.
    pub(super) fn look(self: &Arc<Self>, uid: &str, directory: &Path, slot: &Arc<Slot>, inner: &mut Inner) -> Result<Found, DriverError> {
        reap(directory, inner);
        let found = inspect(directory, inner.child.is_some()).map_err(|error| unreadable(directory, &error))?;
        match found.started.or(found.supervisor) {
            Some(process) if inner.watched != Some(process) => self.attend(uid, slot, inner, process),
            // Something holds the lock, or the last threads of a process are ending.
            None if matches!(found.state, WorkloadState::Starting { .. } | WorkloadState::Stopping) => self.look_again(uid, slot, inner),
            _ => {}
        }
        Ok(found)
    }

    /// Looks at a sandbox again, and tells what has become of it.
    fn look_again(self: &Arc<Self>, uid: &str, slot: &Arc<Slot>, inner: &mut Inner) {
        if std::mem::replace(&mut inner.polled, true) {
            return;
        }
        let (sandboxes, uid, slot) = (Arc::clone(self), uid.to_owned(), Arc::clone(slot));
        tokio::spawn(async move {
            tokio::time::sleep(limits::TRANSITION_POLL).await;
            sandboxes.look_and_tell(uid, slot, |inner| inner.polled = false).await;
        });
    }

    /// Looks at a sandbox of which something has ended, so that a process that takes its place (the
    /// supervisor whose guardian was killed) is watched in turn.
    async fn look_and_tell(self: Arc<Self>, uid: String, slot: Arc<Slot>, before: impl FnOnce(&mut Inner) + Send + 'static) {
        let (there, name, place) = (Arc::clone(&self), uid.clone(), Arc::clone(&slot));
        let looked = tokio::task::spawn_blocking(move || {
            let directory = there.directory(&name)?;
            let mut inner = place.inner.lock();
            before(&mut inner);
            there.look(&name, &directory, &place, &mut inner).map(drop)
        })
        .await;
        if let Ok(Err(error)) = looked {
            tracing::warn!(sandbox = uid, %error, "a sandbox whose process ended cannot be looked at");
        }
        slot.stirred.notify_one();
        self.tell(&uid);
    }

    /// Has the end of a process noticed at once.
    fn attend(self: &Arc<Self>, uid: &str, slot: &Arc<Slot>, inner: &mut Inner, process: ProcessId) {
        inner.watched = Some(process);
        let pidfd = process.open();
        let (sandboxes, uid, slot) = (Arc::clone(self), uid.to_owned(), Arc::clone(slot));
        tokio::spawn(async move {
            match pidfd {
                Some(pidfd) => ended(pidfd).await,
                // No descriptor to be had: it has ended, or we are out of them and ask now and then.
                None => {
                    while process.alive() {
                        tokio::time::sleep(limits::LIVENESS_POLL).await;
                    }
                }
            }
            let forget = move |inner: &mut Inner| {
                if inner.watched == Some(process) {
                    inner.watched = None;
                }
            };
            sandboxes.look_and_tell(uid, slot, forget).await;
        });
    }

    /// Tells watchers that a sandbox has changed.
    pub(super) fn tell(&self, uid: &str) {
        // Nobody listens: nobody needs to know.
        let _ = self.changed.send(uid.to_owned());
    }

    pub(super) fn slot(&self, uid: &str) -> Arc<Slot> {
        Arc::clone(self.slots.lock().entry(uid.to_owned()).or_default())
    }

    /// Drops the slot of a sandbox that is gone, unless someone is in it.
    fn forget(&self, uid: &str) {
        let mut slots = self.slots.lock();
        if slots.get(uid).is_some_and(|slot| Arc::strong_count(slot) <= 2) {
            slots.remove(uid);
        }
    }

    /// The directory of a sandbox. A UID names one directory and no other place.
    fn directory(&self, uid: &str) -> Result<PathBuf, DriverError> {
        if is_uid(uid) {
            Ok(self.config.state_dir.join(uid))
        } else {
            Err(DriverError::never("InvalidUid", format!("\"{uid}\" is no sandbox UID")))
        }
    }

    /// Has one thread remove all that waits.
    fn remove_waiting(self: &Arc<Self>) {
        {
            let mut remover = self.remover.lock();
            if *remover != Remover::Idle {
                *remover = Remover::BusyAndAsked;
                return;
            }
            *remover = Remover::Busy;
        }
        let sandboxes = Arc::clone(self);
        tokio::task::spawn_blocking(move || {
            loop {
                sandboxes.sweep();
                let mut remover = sandboxes.remover.lock();
                if *remover == Remover::Busy {
                    *remover = Remover::Idle;
                    return;
                }
                *remover = Remover::Busy;
            }
        });
    }

    fn sweep(&self) {
        for directory in removal::waiting(&self.config.state_dir) {
            let owner = uids::recorded(&directory);
            match removal::remove(&directory) {
                Ok(()) => {
                    if let Some(owner) = owner {
                        self.uids.lock().release(owner.uid);
                    }
                }
                Err(error) => {
                    tracing::warn!(directory = %directory.display(), %error, "what a sandbox left behind cannot be removed; remove it by hand");
                }
            }
        }
    }
}

impl Slot {
    /// The slot's contents, for whoever changes the sandbox.
    pub(super) fn enter(&self) -> parking_lot::MutexGuard<'_, Inner> {
        self.inner.lock()
    }
}

/// Waits until a process has ended.
#[expect(
    deprecated,
    reason = "the safe constructor is deprecated for types whose descriptor may change or close while registered; an OwnedFd that is moved in cannot, and this crate has no unsafe code"
)]
async fn ended(pidfd: OwnedFd) {
    match AsyncFd::with_interest(pidfd, Interest::READABLE) {
        Ok(pidfd) => {
            if let Err(error) = pidfd.readable().await {
                tracing::warn!(%error, "a supervisor cannot be waited for");
            }
        }
        Err(error) => tracing::warn!(%error, "a supervisor cannot be watched"),
    }
}

/// Reaps our child if it has ended, and writes down why if that was a failure.
fn reap(directory: &Path, inner: &mut Inner) {
    let Some(child) = &mut inner.child else { return };
    let status = match child.try_wait() {
        Ok(None) => return,
        Ok(Some(status)) => status,
        Err(error) => {
            tracing::warn!(%error, "a supervisor cannot be waited for");
            inner.child = None;
            return;
        }
    };
    let pid = child.id();
    inner.child = None;
    if let Err(error) = note_end(directory, pid, status) {
        tracing::warn!(directory = %directory.display(), %error, "the end of a supervisor cannot be written down");
    }
}

/// Writes down how a supervisor ended, unless that is known or was asked for.
fn note_end(directory: &Path, pid: u32, status: ExitStatus) -> io::Result<()> {
    if record::exists(directory, record::SUSPENDED) || record::exists(directory, record::FAILURE) {
        return Ok(());
    }
    let Some(mut notes) = record::read::<DriverRecord>(directory, record::DRIVER) else { return Ok(()) };
    if notes.process.is_some_and(|process| u32::try_from(process.pid) != Ok(pid)) {
        // Someone has started another one since.
        return Ok(());
    }
    if status.code() == Some(LOCK_TAKEN) {
        // Another one is there, or was being looked for in that instant: whatever there is now
        // is found by its lock, and our child has left nothing.
        notes.process = None;
        return record::write(directory, record::DRIVER, &notes);
    }
    if kernel::lock_held(directory)? {
        return Ok(());
    }
    let signal = status.signal().or_else(|| status.code().filter(|code| *code > 128).map(|code| code - 128));
    let (code, message) = match (signal, status.code()) {
        (Some(signal), _) => {
            ("SupervisorDied", format!("the supervisor was killed by signal {signal}; every process of the sandbox was ended with it"))
        }
        (None, Some(0)) => ("SupervisorExited", "the supervisor shut down without having been asked to by the driver".to_owned()),
        (None, Some(64)) => {
            ("BadBootstrap", "the supervisor refused its bootstrap; gateway and supervisor may be of different versions".to_owned())
        }
        (None, Some(69)) => {
            ("EnforcementUnavailable", "this machine cannot hold what the sandbox needs; run `openshell doctor`".to_owned())
        }
        (None, code) => ("SupervisorFailed", format!("the supervisor ended with exit code {}", code.unwrap_or(-1))),
    };
    inspect::failed(code, &message, directory).map(drop)
}

/// UIDs of the directories in a state directory.
pub(super) fn uids_in(state_dir: &Path) -> io::Result<Vec<String>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(state_dir)? {
        let entry = entry?;
        if let Ok(name) = entry.file_name().into_string()
            && is_uid(&name)
            && entry.file_type()?.is_dir()
        {
            found.push(name);
        }
    }
    Ok(found)
}

/// Letters, digits and dashes: nothing that could be a path.
fn is_uid(name: &str) -> bool {
    (1..=64).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
}

fn unreadable(place: &Path, error: &io::Error) -> DriverError {
    DriverError::later("DirectoryUnusable", format!("{}: {error}; free some space or repair the directory", place.display()))
}
