//! Every socket that was made for the agent, by inode, and how many there may be.
//!
//! We hold a copy of a socket's descriptor only while we need it to act on it (to bind, listen and
//! connect): while we do, the agent's `close` frees nothing. What the agent has closed is found by
//! looking through its processes, every second and whenever the table is full.

use std::{
    collections::{HashMap, HashSet},
    fs, io,
    os::fd::OwnedFd,
    sync::{
        Arc, OnceLock, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use parking_lot::Mutex;

use super::{answer::Errno, caller::socket_inode, datagram::Datagram, local::UnixSocket, tcp::TcpSocket};
use crate::{
    confine::descendants,
    limits::broker::{COLLECT_AGAIN, SOCKETS, TURN},
};

/// A socket of the agent.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) inode: u64,
    pub(super) socket: Socket,
    /// When the agent got it; until then no process holds it and it is not looked for.
    installed: OnceLock<Instant>,
    /// Nobody held it when last looked for. A look goes through the processes one by one, and a
    /// descriptor may move behind it (a fork whose parent ends): twice unseen is gone.
    unseen: AtomicBool,
}

impl Entry {
    /// The agent has it now.
    pub(super) fn installed(&self) {
        // The first time counts.
        let _ = self.installed.set(Instant::now());
    }

    /// Our copy of what holds a name or a port, if we have one and nobody is at work with it.
    fn descriptor(&self) -> Option<Weak<OwnedFd>> {
        match &self.socket {
            Socket::Tcp(socket) => socket.descriptor(),
            Socket::Unix(socket) => socket.descriptor(),
            Socket::Datagram(_) => None,
        }
    }

    /// Takes the result of a look that began at `start`; whether the socket is gone.
    fn is_gone(&self, start: Instant, held: &HashSet<u64>) -> bool {
        if self.installed.get().is_none_or(|installed| *installed >= start) {
            return false;
        }
        let unseen = !held.contains(&self.inode);
        self.unseen.swap(unseen, Ordering::Relaxed) && unseen
    }
}

/// What kind it is.
#[derive(Debug)]
pub(super) enum Socket {
    Tcp(TcpSocket),
    Unix(UnixSocket),
    Datagram(Arc<Datagram>),
}

/// The table.
#[derive(Debug)]
pub(super) struct Table {
    /// Process above all of the agent's.
    launcher: u32,
    bound: usize,
    entries: Mutex<HashMap<u64, Arc<Entry>>>,
    last: Mutex<Instant>,
    /// Held while looking: an older look must not end between the two of a newer one, with what it
    /// saw before.
    looking: Mutex<()>,
}

impl Table {
    pub(super) fn new(launcher: u32) -> Self {
        let descriptors = rustix::process::getrlimit(rustix::process::Resource::Nofile).current.unwrap_or(u64::MAX);
        let bound = SOCKETS.min(usize::try_from(descriptors / 4).unwrap_or(SOCKETS)).max(16);
        Self { launcher, bound, entries: Mutex::default(), last: Mutex::new(Instant::now()), looking: Mutex::new(()) }
    }

    pub(super) fn get(&self, inode: Option<u64>) -> Option<Arc<Entry>> {
        self.entries.lock().get(&inode?).cloned()
    }

    /// Adds a socket; `EMFILE` when the sandbox has as many as it may.
    pub(super) fn add(&self, descriptor: &OwnedFd, socket: Socket) -> Result<Arc<Entry>, Errno> {
        if self.entries.lock().len() >= self.bound {
            self.collect_again();
        }
        let inode = rustix::fs::fstat(descriptor)?.st_ino;
        let entry = Arc::new(Entry { inode, socket, installed: OnceLock::new(), unseen: AtomicBool::new(false) });
        let mut entries = self.entries.lock();
        if entries.len() >= self.bound {
            return Err(Errno(libc::EMFILE));
        }
        entries.insert(inode, Arc::clone(&entry));
        Ok(entry)
    }

    pub(super) fn remove(&self, inode: u64) {
        self.entries.lock().remove(&inode);
    }

    /// Every entry, for the few who ask by something else than the inode.
    pub(super) fn find<T>(&self, mut wanted: impl FnMut(&Arc<Entry>) -> Option<T>) -> Option<T> {
        self.entries.lock().values().find_map(&mut wanted)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.lock().is_empty()
    }

    /// Collects, but not more often than now and then: whoever finds the table full waits for it.
    pub(super) fn collect_again(&self) {
        let mut last = self.last.lock();
        std::thread::sleep(COLLECT_AGAIN.saturating_sub(last.elapsed()));
        // Failing means that nothing is known: everything stays.
        let _ = self.collect_now();
        *last = Instant::now();
    }

    /// Forgets what no process of the sandbox holds. A thread that has given a socket to the agent,
    /// which may have closed it since, is waited for before and after: until it has said so, and until
    /// it has let go of it.
    pub(super) fn collect_now(&self) -> io::Result<()> {
        let coming: Vec<_> = self.entries.lock().values().filter(|entry| entry.installed.get().is_none()).map(Arc::clone).collect();
        wait_while(|| coming.iter().any(|entry| entry.installed.get().is_none()));
        drop(coming);
        let _looking = self.looking.lock();
        let closing = [self.look()?, self.look()?].concat();
        wait_while(|| closing.iter().any(|socket| socket.strong_count() > 0));
        Ok(())
    }

    /// Forgets what no process of the sandbox held, now and the time before.
    pub(super) fn collect(&self) -> io::Result<()> {
        let _looking = self.looking.lock();
        self.look().map(drop)
    }

    /// Returns what it has dropped.
    fn look(&self) -> io::Result<Vec<Weak<OwnedFd>>> {
        let start = Instant::now();
        let held = self.held()?;
        let dropped: Vec<_> = {
            let mut entries = self.entries.lock();
            let gone: Vec<u64> = entries.values().filter(|entry| entry.is_gone(start, &held)).map(|entry| entry.inode).collect();
            gone.into_iter().filter_map(|inode| entries.remove(&inode)).collect()
        };
        Ok(dropped.iter().filter_map(|entry| entry.descriptor()).collect())
    }

    /// Whether any process of the sandbox holds this socket.
    pub(super) fn is_held(&self, inode: u64) -> io::Result<bool> {
        // Twice, as in a collection.
        Ok(self.held()?.contains(&inode) || self.held()?.contains(&inode))
    }

    fn held(&self) -> io::Result<HashSet<u64>> {
        let mut held = HashSet::new();
        for pid in descendants(self.launcher)? {
            sockets_of(&format!("/proc/{pid}/fd"), &mut held)?;
            // Threads may have tables of their own, and a leader that has ended shows none.
            let tasks = match fs::read_dir(format!("/proc/{pid}/task")) {
                Ok(tasks) => tasks,
                Err(error) => {
                    passing(error)?;
                    continue;
                }
            };
            for task in tasks.flatten().filter(|task| task.file_name() != *pid.to_string()) {
                if !shares_table(pid, &task.path()) {
                    sockets_of(&format!("{}/fd", task.path().display()), &mut held)?;
                }
            }
        }
        Ok(held)
    }
}

/// Waits as long as it takes a thread of ours to go on.
fn wait_while(condition: impl Fn() -> bool) {
    let start = Instant::now();
    while condition() && start.elapsed() < TURN {
        std::thread::sleep(TURN / 50);
    }
}

/// Whether a thread's table is its process's, as far as can be told without a privilege: a process
/// whose leader shows descriptors shares them with a thread that shows as many.
fn shares_table(pid: u32, task: &std::path::Path) -> bool {
    let count = |path: &std::path::Path| fs::metadata(path).map_or(0, |meta| std::os::unix::fs::MetadataExt::size(&meta));
    let leader = count(std::path::Path::new(&format!("/proc/{pid}/fd")));
    leader != 0 && leader == count(&task.join("fd"))
}

fn sockets_of(directory: &str, held: &mut HashSet<u64>) -> io::Result<()> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) => return passing(error),
    };
    for entry in entries.flatten() {
        match fs::read_link(entry.path()) {
            Ok(link) => held.extend(link.to_str().and_then(socket_inode)),
            Err(error) => passing(error)?,
        }
    }
    Ok(())
}

/// A process that has gone, or that hides, holds nothing we know of. A full table of our own says
/// nothing about anybody.
fn passing(error: io::Error) -> io::Result<()> {
    match error.raw_os_error() {
        Some(libc::EMFILE | libc::ENFILE | libc::ENOMEM) => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
#[path = "table_tests.rs"]
mod tests;
