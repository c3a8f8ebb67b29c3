//! Who waits for which process.

use std::{collections::HashMap, sync::Arc};

use parking_lot::Mutex;
use tokio::{sync::oneshot, task::spawn_blocking};
use tokio_util::sync::CancellationToken;

use crate::confine::{Exits, Launcher, Spawn, SpawnError};

/// Starts processes and hands out their ends. Cheap to clone.
#[derive(Clone)]
pub struct Table {
    launcher: Arc<Launcher>,
    state: Arc<Mutex<State>>,
    /// Cancelled when the launcher has ended, and with it every process.
    gone: CancellationToken,
}

#[derive(Default)]
struct State {
    waiting: HashMap<u32, oneshot::Sender<i32>>,
    /// Ended before the one who started them could wait: a moment, never more.
    ended: HashMap<u32, i32>,
}

/// A started process.
pub(super) struct Child {
    pub(super) pid: u32,
    exit: oneshot::Receiver<i32>,
    table: Table,
}

impl Table {
    /// Takes the launcher's exits over, until it ends; then `gone` is cancelled.
    pub fn new(launcher: Arc<Launcher>, mut exits: Exits, gone: CancellationToken) -> Self {
        let table = Self { launcher, state: Arc::default(), gone: gone.clone() };
        let state = Arc::clone(&table.state);
        tokio::spawn(async move {
            while let Ok(exit) = exits.next().await {
                let code = i32::from(exit.code);
                let mut state = state.lock();
                match state.waiting.remove(&exit.pid) {
                    Some(waiter) => drop(waiter.send(code)),
                    None => drop(state.ended.insert(exit.pid, code)),
                }
            }
            gone.cancel();
            state.lock().waiting.clear();
        });
        table
    }

    /// Starts a process inside the domain.
    pub(super) async fn spawn(&self, spawn: Spawn) -> Result<Child, SpawnError> {
        let launcher = Arc::clone(&self.launcher);
        let pid = spawn_blocking(move || launcher.spawn(spawn)).await.map_err(|_| SpawnError::LauncherGone)??;
        let (waiter, exit) = oneshot::channel();
        let mut state = self.state.lock();
        match state.ended.remove(&pid) {
            Some(code) => drop(waiter.send(code)),
            None if self.gone.is_cancelled() => {}
            None => drop(state.waiting.insert(pid, waiter)),
        }
        drop(state);
        Ok(Child { pid, exit, table: self.clone() })
    }
}

/// Exit code of a process whose launcher was killed: it was killed too.
const KILLED: i32 = 137;

impl Child {
    /// Waits for the end. Cancel safe.
    pub(super) async fn exit(&mut self) -> i32 {
        (&mut self.exit).await.unwrap_or(KILLED)
    }

    /// Signals its process group; nothing happens when it has ended.
    pub(super) fn signal(&self, signal: i32) {
        if let Err(error) = self.table.launcher.signal_group(self.pid, signal) {
            tracing::debug!(pid = self.pid, signal, %error, "not signalled");
        }
    }

    pub(super) fn signaller(&self) -> Signaller {
        Signaller { launcher: Arc::clone(&self.table.launcher), pid: self.pid }
    }
}

/// Signals a process group from elsewhere.
#[derive(Clone)]
pub(super) struct Signaller {
    launcher: Arc<Launcher>,
    pid: u32,
}

impl Signaller {
    pub(super) fn signal(&self, signal: i32) {
        let _ = self.launcher.signal_group(self.pid, signal);
    }
}
