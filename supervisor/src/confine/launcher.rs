//! The supervisor's side of the launcher.

use std::{
    collections::HashMap,
    ffi::OsString,
    io,
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::ffi::OsStringExt as _,
    },
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use tokio::sync::mpsc;

use super::{
    ablation::Wall,
    control,
    descend::kill_descendants,
    domain::{ConfineError, Domain, Enforcement, Host, Tmp},
    guardian,
    listener::Listener,
    privileges, probe,
    sys::{self, Forked},
    wire::{self, Confined, ConfinedBody, Ended, Request, SpawnBody, Status, Terminal},
};
use crate::limits::confine::{CONFINE_TIME, EXITS, SPAWN_TIME};

/// A program to run inside the domain.
#[derive(Debug)]
pub struct Spawn {
    /// Program and arguments; a program without `/` is looked for in `PATH` of `env`.
    pub argv: Vec<OsString>,
    /// The whole environment; nothing is inherited.
    pub env: Vec<(OsString, OsString)>,
    /// Working directory as seen from inside.
    pub cwd: PathBuf,
    /// Standard input: a pipe, a file, a terminal or a socket pair of ours.
    pub stdin: OwnedFd,
    /// Standard output.
    pub stdout: OwnedFd,
    /// Standard error.
    pub stderr: OwnedFd,
    /// Makes standard input the controlling terminal of the new session.
    pub tty: bool,
}

/// Why a program was not started.
#[derive(Debug, thiserror::Error)]
pub enum SpawnError {
    /// There is no program to run.
    #[error("the command is empty")]
    Empty,
    /// The program could not be executed.
    #[error("{step}: {source}")]
    Failed {
        /// What was being done: `exec <program>`, `enter the directory <path>`, ….
        step: String,
        /// Why not.
        source: io::Error,
    },
    /// The launcher does not answer; the sandbox is ending.
    #[error("the launcher is gone; the sandbox is ending")]
    LauncherGone,
    /// Our side failed.
    #[error("the request did not reach the launcher: {0}")]
    Io(#[from] io::Error),
}

/// A spawned program ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exit {
    /// What [`Launcher::spawn`] returned.
    pub pid: u32,
    /// Exit code, or 128 and the signal.
    pub code: u8,
}

/// The launcher ended, and every process of the agent with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the launcher ended; every process of the sandbox was ended with it")]
pub struct LauncherEnd;

/// Ends of spawned programs, in the order in which they ended.
#[derive(Debug)]
pub struct Exits(mpsc::Receiver<Exit>);

impl Exits {
    /// The next one. Cancel safe.
    pub async fn next(&mut self) -> Result<Exit, LauncherEnd> {
        self.0.recv().await.ok_or(LauncherEnd)
    }
}

/// The process that enters the domain and starts everything in it. Dropping it ends the sandbox.
#[derive(Debug)]
pub struct Launcher {
    control: OwnedFd,
    process: u32,
    events: Mutex<Option<OwnedFd>>,
    exits: Mutex<Option<Exits>>,
    children: Arc<Children>,
    next: AtomicU64,
    held: Mutex<Vec<OwnedFd>>,
    /// Where temporary files go when `/tmp` is not the sandbox's own.
    temporary: Mutex<Option<PathBuf>>,
}

#[derive(Debug)]
struct Children {
    known: Mutex<HashMap<u64, Child>>,
    /// Taken away when the launcher has ended: that closes the channel.
    ended: Mutex<Option<mpsc::Sender<Exit>>>,
}

/// A child may end before the supervisor has heard that its program runs.
#[derive(Debug)]
enum Child {
    Starting,
    StartedAndEnded(u8),
    Running(u32),
    Failed,
}

impl Launcher {
    /// Forks the launcher. To be called while the process has one thread.
    pub fn fork() -> io::Result<Self> {
        let (control, control_inside) = wire::pair()?;
        let (events, events_inside) = wire::pair()?;
        match sys::fork()? {
            Forked::Child => {
                drop((control, events));
                let _ = guardian::leave_standard_input();
                control::wait_for_domain(&control_inside, &events_inside)
            }
            Forked::Parent(process) => {
                drop((control_inside, events_inside));
                guardian::harden()?;
                // After the fork: what the launcher starts keeps the limit that its programs expect.
                privileges::raise_descriptor_limit();
                let (ended, exits) = mpsc::channel(EXITS);
                Ok(Self {
                    control,
                    process: process.as_raw_nonzero().get() as u32,
                    events: Mutex::new(Some(events)),
                    exits: Mutex::new(Some(Exits(exits))),
                    children: Arc::new(Children { known: Mutex::default(), ended: Mutex::new(Some(ended)) }),
                    next: AtomicU64::new(1),
                    held: Mutex::default(),
                    temporary: Mutex::default(),
                })
            }
        }
    }

    /// Has whatever can start a process of the agent hold this descriptor: a lock that is taken after
    /// the fork. To be called before [`Launcher::confine`].
    pub fn hold(&self, descriptor: OwnedFd) {
        self.held.lock().push(descriptor);
    }

    /// Enters the domain; once. Blocks for a few milliseconds.
    pub fn confine(&self, domain: &Domain) -> Result<(Listener, Enforcement), ConfineError> {
        let internal = |error: io::Error| ConfineError::internal("asking the launcher to enter the domain", error);
        let Some(events) = self.events.lock().take() else {
            return Err(ConfineError::new("Internal", "the domain has been entered already; it is entered once"));
        };
        if let Some(reason) = probe::refusal() {
            return Err(ConfineError::new("KernelTooOld", format!("{} ({})", reason.message, reason.fix)));
        }
        #[cfg(feature = "ablation")]
        let domain = &domain.without_a_user_of_its_own()?;
        domain.check()?;
        domain.make_temporary()?;
        let body = wire::store(domain).map_err(internal)?;
        let (maker, maker_inside) = wire::pair().map_err(internal)?;
        set_timeout(&self.control, CONFINE_TIME).map_err(internal)?;
        let held = std::mem::take(&mut *self.held.lock());
        let given: Vec<_> = [&body, &maker_inside].into_iter().chain(&held).map(OwnedFd::as_fd).collect();
        wire::send(self.control.as_fd(), &Request::Confine, &given).map_err(internal)?;
        drop((maker_inside, held));
        let answer = wire::receive::<Confined>(self.control.as_fd()).map_err(internal)?;
        let Some(answer) = answer else {
            return Err(ConfineError::new("Internal", "the launcher ended before it entered the domain; its log has the cause"));
        };
        let mut descriptors = answer.descriptors.into_iter();
        let body = descriptors.next().ok_or_else(|| ConfineError::new("Internal", "the launcher's answer has no report"))?;
        let enforcement = wire::load::<ConfinedBody>(body).map_err(internal)??;
        let notify = descriptors.next();
        if notify.is_none() && Wall::NotifyFilter.stands() {
            return Err(ConfineError::new("Internal", "the launcher's answer has no listener"));
        }
        let children = Arc::clone(&self.children);
        std::thread::Builder::new().name("launcher-events".to_owned()).spawn(move || read_events(&events, &children)).map_err(internal)?;
        let has = |wall: Wall| enforcement.walls.iter().any(|name| name == wall.name());
        if domain.host == Host::Shared && !has(Wall::MountNamespace) {
            *self.temporary.lock() = Some(domain.temporary());
        }
        let netns = has(Wall::NetworkNamespace);
        let paths = domain.paths(if has(Wall::MountNamespace) { Tmp::Own } else { Tmp::Shared });
        Ok((Listener::new(notify, netns.then_some(maker), self.process, domain, paths.read_write), enforcement))
    }

    /// Starts a program inside the domain and returns its process id as the supervisor sees it.
    /// Blocks until the program runs or has failed to (about a millisecond).
    pub fn spawn(&self, mut spawn: Spawn) -> Result<u32, SpawnError> {
        if spawn.argv.is_empty() {
            return Err(SpawnError::Empty);
        }
        if let Some(temporary) = self.temporary.lock().clone()
            && !spawn.env.iter().any(|(key, _)| key == "TMPDIR")
        {
            spawn.env.push(("TMPDIR".into(), temporary.into()));
        }
        let ticket = self.next.fetch_add(1, Ordering::Relaxed);
        let bytes = |text: OsString| text.into_vec();
        let body = wire::store(&SpawnBody {
            argv: spawn.argv.into_iter().map(bytes).collect(),
            env: spawn.env.into_iter().map(|(key, value)| (bytes(key), bytes(value))).collect(),
            cwd: spawn.cwd.into_os_string().into_vec(),
            terminal: if spawn.tty { Terminal::Controlling } else { Terminal::None },
        })?;
        let (status, status_inside) = wire::pair()?;
        rustix::net::sockopt::set_socket_passcred(&status, true).map_err(io::Error::from)?;
        set_timeout(&status, SPAWN_TIME)?;
        self.children.known.lock().insert(ticket, Child::Starting);
        let result = self.send_spawn(ticket, &body, [&spawn.stdin, &spawn.stdout, &spawn.stderr], &status_inside);
        // Ours must be closed before the wait, or the end of the status would never come.
        drop((status_inside, spawn.stdin, spawn.stdout, spawn.stderr));
        match result.and_then(|()| await_start(&status)) {
            Ok(pid) => {
                self.children.runs(ticket, pid);
                Ok(pid)
            }
            Err(error) => {
                self.children.failed(ticket);
                Err(error)
            }
        }
    }

    fn send_spawn(&self, ticket: u64, body: &OwnedFd, stdio: [&OwnedFd; 3], status: &OwnedFd) -> Result<(), SpawnError> {
        let [stdin, stdout, stderr] = stdio;
        let descriptors = [body.as_fd(), stdin.as_fd(), stdout.as_fd(), stderr.as_fd(), status.as_fd()];
        wire::send(self.control.as_fd(), &Request::Spawn { ticket }, &descriptors).map_err(|error| match error.kind() {
            io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => SpawnError::LauncherGone,
            _ => SpawnError::Io(error),
        })
    }

    /// Signals the process group of a program that [`Launcher::spawn`] started and that has not
    /// ended; `ESRCH` otherwise.
    pub fn signal_group(&self, pid: u32, signal: i32) -> io::Result<()> {
        let ticket = {
            let known = self.children.known.lock();
            known.iter().find_map(|(ticket, child)| matches!(child, Child::Running(running) if *running == pid).then_some(*ticket))
        };
        let ticket = ticket.ok_or_else(|| io::Error::from_raw_os_error(libc::ESRCH))?;
        wire::send(self.control.as_fd(), &Request::Signal { ticket, signal }, &[])
    }

    /// The ends of spawned programs; the first call gets them.
    pub fn exits(&self) -> Option<Exits> {
        self.exits.lock().take()
    }

    /// Process id of the launcher.
    pub fn process(&self) -> u32 {
        self.process
    }
}

impl Children {
    fn runs(&self, ticket: u64, pid: u32) {
        let mut known = self.known.lock();
        if let Some(Child::StartedAndEnded(code)) = known.get(&ticket) {
            let exit = Exit { pid, code: *code };
            known.remove(&ticket);
            drop(known);
            self.report(exit);
        } else {
            known.insert(ticket, Child::Running(pid));
        }
    }

    fn failed(&self, ticket: u64) {
        let mut known = self.known.lock();
        if let Some(Child::StartedAndEnded(_)) = known.get(&ticket) {
            known.remove(&ticket);
        } else {
            known.insert(ticket, Child::Failed);
        }
    }

    fn ended(&self, ended: &Ended) {
        let mut known = self.known.lock();
        match known.remove(&ended.ticket) {
            Some(Child::Starting) => {
                known.insert(ended.ticket, Child::StartedAndEnded(ended.code));
            }
            Some(Child::Running(pid)) => {
                drop(known);
                self.report(Exit { pid, code: ended.code });
            }
            Some(Child::Failed | Child::StartedAndEnded(_)) | None => {}
        }
    }

    /// Waits in short steps while the channel is full: the caller may be a thread of an
    /// asynchronous runtime, where a blocking send is not allowed.
    fn report(&self, exit: Exit) {
        let Some(ended) = self.ended.lock().clone() else { return };
        while let Err(mpsc::error::TrySendError::Full(_)) = ended.try_send(exit) {
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn close(&self) {
        self.ended.lock().take();
    }
}

fn read_events(events: &OwnedFd, children: &Arc<Children>) {
    while let Ok(Some(ended)) = wire::read::<Ended>(events) {
        children.ended(&ended);
    }
    // The launcher is gone. What it left behind is ours by now: we are its subreaper.
    kill_descendants();
    children.close();
}

fn await_start(status: &OwnedFd) -> Result<u32, SpawnError> {
    let mut pid = None;
    loop {
        match wire::receive::<Status>(status.as_fd()) {
            Ok(Some(received)) => match received.message {
                Status::Started => pid = received.sender,
                Status::Failed { step, errno } => {
                    return Err(SpawnError::Failed { step, source: io::Error::from_raw_os_error(errno) });
                }
            },
            Ok(None) => return pid.map(|pid| pid as u32).ok_or(SpawnError::LauncherGone),
            Err(error) => return Err(SpawnError::Io(error)),
        }
    }
}

fn set_timeout(socket: &OwnedFd, time: Duration) -> io::Result<()> {
    Ok(rustix::net::sockopt::set_socket_timeout(socket, rustix::net::sockopt::Timeout::Recv, Some(time))?)
}
