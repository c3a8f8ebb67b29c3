//! The launcher's first process and the control process.
//!
//! The first process waits for the domain, because a control process whose namespaces could not be
//! completed is of no use any more: it is replaced by one that tries fewer. Both stay outside the
//! agent's domain. When the supervisor is gone the control process ends everything below it.
//! The first try is forked before the domain is known, so that its namespaces are there by then.

use std::{
    io,
    os::fd::{AsFd as _, BorrowedFd, IntoRawFd as _, OwnedFd},
};

use rustix::{
    event::{PollFd, PollFlags, poll},
    process::{
        Pid, PidfdFlags, Signal, WaitOptions, kill_process, pidfd_open, set_child_subreaper, set_parent_process_death_signal, waitpid,
    },
};

use super::{
    ablation::Wall,
    child::may_inherit,
    descend::kill_descendants,
    domain::{ConfineError, Domain, Namespaces, Use},
    guardian::{exit_code, harden},
    listener::{MadeSocket, SocketKind, make_socket},
    namespaces,
    sys::{self, Forked},
    wire::{self, Confined, ConfinedBody, Entered, Order, Received, Request, Status},
    zygote,
};

/// Exit code of a control process whose namespaces were refused.
const TRY_FEWER: u8 = 77;

/// Which namespaces one try makes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Attempt {
    pub(super) mount: bool,
    pub(super) pid: bool,
    pub(super) network: bool,
}

impl Attempt {
    /// From most to least: a `/proc` of one's own is the part that containers refuse.
    fn all(wanted: Namespaces, network: Use) -> Vec<Self> {
        let mount = wanted.mount == Use::IfPossible && Wall::MountNamespace.stands();
        let pid = mount && wanted.pid == Use::IfPossible && Wall::PidNamespace.stands();
        let network = network == Use::IfPossible && Wall::NetworkNamespace.stands();
        let mut attempts = vec![Self { mount, pid, network }, Self { mount, pid: false, network }, Self::default()];
        attempts.dedup();
        attempts
    }

    pub(super) fn any(self) -> bool {
        self.mount || self.pid || self.network
    }
}

/// The first process of the launcher; never returns.
pub(super) fn wait_for_domain(supervisor: &OwnedFd, events: &OwnedFd) -> ! {
    let _ = harden();
    let _ = set_child_subreaper(Some(rustix::process::getpid()));
    // Making namespaces takes as long as the gateway takes to answer: both at once.
    let mut early = Early::fork(supervisor, events);
    let Ok(Some(Received { message: Request::Confine, descriptors, .. })) = wire::receive::<Request>(supervisor.as_fd()) else {
        // The supervisor ended before it had a domain: nothing of the agent runs.
        sys::exit_now(0)
    };
    let Some(given) = Given::take(descriptors) else { sys::exit_now(1) };
    let Ok(domain) = given.domain() else { sys::exit_now(1) };
    let network = if domain.loopback == super::Loopback::Private { domain.namespaces.network } else { Use::Never };
    for attempt in Attempt::all(domain.namespaces, network) {
        let code = match early.take() {
            Some(early) if early.attempt == attempt => early.run(&given),
            // Not the namespaces that are wanted. It has no domain and nothing below it.
            Some(early) => {
                early.discard();
                run(supervisor, events, &given, attempt)
            }
            None => run(supervisor, events, &given, attempt),
        };
        if code != TRY_FEWER {
            // A control process that was killed may have left something behind.
            if Wall::Control.stands() {
                kill_descendants();
            }
            sys::exit_now(i32::from(code));
        }
    }
    sys::exit_now(1)
}

/// Runs a control process to its end.
fn run(supervisor: &OwnedFd, events: &OwnedFd, given: &Given, attempt: Attempt) -> u8 {
    let Ok(given) = given.copy() else { return 1 };
    match sys::fork() {
        Ok(Forked::Child) => control(supervisor, events, attempt, || Some(given)),
        Ok(Forked::Parent(pid)) => wait_for(pid),
        Err(_) => 1,
    }
}

/// What the supervisor gives with its request.
struct Given {
    domain: OwnedFd,
    maker: OwnedFd,
    /// Open until this process ends.
    held: Vec<OwnedFd>,
}

impl Given {
    fn take(descriptors: Vec<OwnedFd>) -> Option<Self> {
        let mut descriptors = descriptors.into_iter();
        Some(Self { domain: descriptors.next()?, maker: descriptors.next()?, held: descriptors.collect() })
    }

    fn copy(&self) -> io::Result<Self> {
        let held = self.held.iter().map(OwnedFd::try_clone).collect::<io::Result<_>>()?;
        Ok(Self { domain: self.domain.try_clone()?, maker: self.maker.try_clone()?, held })
    }

    fn descriptors(&self) -> Vec<BorrowedFd<'_>> {
        [&self.domain, &self.maker].into_iter().chain(&self.held).map(OwnedFd::as_fd).collect()
    }

    fn domain(&self) -> io::Result<Domain> {
        wire::load(self.domain.try_clone()?)
    }
}

/// A control process that makes the namespaces which are mostly wanted, and waits for its domain.
struct Early {
    attempt: Attempt,
    pid: Pid,
    handover: OwnedFd,
}

impl Early {
    /// `None`: there will be one when the domain is known.
    fn fork(supervisor: &OwnedFd, events: &OwnedFd) -> Option<Self> {
        let attempt = Attempt::all(Namespaces::default(), Use::default()).into_iter().next().filter(|attempt| attempt.any())?;
        let (handover, inside) = wire::pair().ok()?;
        match sys::fork().ok()? {
            Forked::Child => {
                drop(handover);
                control(supervisor, events, attempt, || {
                    let given = wire::receive::<Request>(inside.as_fd()).ok().flatten()?;
                    Given::take(given.descriptors)
                })
            }
            Forked::Parent(pid) => Some(Self { attempt, pid, handover }),
        }
    }

    /// Gives it the domain and waits for its end.
    fn run(self, given: &Given) -> u8 {
        // One that could not make its namespaces is gone, and its exit code says so.
        let _ = wire::send(self.handover.as_fd(), &Request::Confine, &given.descriptors());
        wait_for(self.pid)
    }

    fn discard(self) {
        let _ = kill_process(self.pid, Signal::KILL);
        wait_for(self.pid);
    }
}

fn wait_for(pid: Pid) -> u8 {
    loop {
        match waitpid(Some(pid), WaitOptions::empty()) {
            Ok(Some((_, status))) => return exit_code(status),
            Ok(None) | Err(rustix::io::Errno::INTR) => {}
            Err(_) => return 1,
        }
    }
}

fn control(supervisor: &OwnedFd, events: &OwnedFd, attempt: Attempt, given: impl FnOnce() -> Option<Given>) -> ! {
    let _ = set_parent_process_death_signal(Some(Signal::KILL));
    let _ = set_child_subreaper(Some(rustix::process::getpid()));
    let supervisor_pid = rustix::net::sockopt::socket_peercred(supervisor).map_or(0, |peer| peer.pid.as_raw_nonzero().get());
    if attempt.any() && namespaces::enter(attempt).is_err() {
        sys::exit_now(i32::from(TRY_FEWER));
    }
    let _ = harden();
    let prepared = zygote::prepare(attempt, supervisor_pid);
    // Without a domain there is nothing to do: the supervisor ended, or wants other namespaces.
    let Some(given) = given() else { sys::exit_now(0) };
    let Ok(domain) = given.domain() else { sys::exit_now(1) };
    let Ok((order, order_inside)) = wire::pair() else { sys::exit_now(1) };
    let zygote = match sys::fork_sharing_descriptors() {
        Ok(Forked::Child) => zygote::run(&order_inside, events, &domain, attempt, supervisor_pid, prepared),
        Ok(Forked::Parent(pid)) => pid,
        Err(_) => sys::exit_now(i32::from(TRY_FEWER)),
    };
    let Ok(watch) = pidfd_open(zygote, PidfdFlags::empty()) else { end(1) };
    if !answer(supervisor, &order, &watch, attempt) {
        end(1);
    }
    serve(supervisor, &given.maker, &order, &watch)
}

/// Passes the zygote's report and its listener on. `false`: there will be no sandbox.
fn answer(supervisor: &OwnedFd, order: &OwnedFd, watch: &OwnedFd, attempt: Attempt) -> bool {
    let mut set = [PollFd::new(order, PollFlags::IN), PollFd::new(watch, PollFlags::IN)];
    while poll(&mut set, None) == Err(rustix::io::Errno::INTR) {}
    let entered = if set[0].revents().contains(PollFlags::IN) { wire::read::<Entered>(order).ok().flatten() } else { None };
    let (file, listener) = if let Some(Entered { body, listener }) = entered {
        (sys::adopt(body), listener.map(sys::adopt))
    } else {
        let body: ConfinedBody = Err(ConfineError::new("Internal", "the zygote ended while it entered the domain"));
        let Ok(file) = wire::store(&body) else { return false };
        (file, None)
    };
    // Read from a copy: the file goes on to the supervisor.
    let report = file.try_clone().map_err(|_| ()).and_then(|copy| wire::load::<ConfinedBody>(copy).map_err(|_| ()));
    if let Ok(Err(error)) = &report
        && error.code == namespaces::UNAVAILABLE
        && attempt.any()
    {
        end(i32::from(TRY_FEWER));
    }
    let mut descriptors = vec![file.as_fd()];
    descriptors.extend(listener.as_ref().map(|listener| listener.as_fd()));
    wire::send(supervisor.as_fd(), &Confined {}, &descriptors).is_ok() && matches!(report, Ok(Ok(_)))
}

fn serve(supervisor: &OwnedFd, maker: &OwnedFd, order: &OwnedFd, watch: &OwnedFd) -> ! {
    // Nobody asks for sockets where the agent shares the supervisor's network namespace.
    let mut asked = true;
    loop {
        let of_maker = if asked { PollFlags::IN } else { PollFlags::empty() };
        let mut set = [PollFd::new(supervisor, PollFlags::IN), PollFd::new(watch, PollFlags::IN), PollFd::new(maker, of_maker)];
        let polled = if asked { &mut set[..] } else { &mut set[..2] };
        if poll(polled, None).is_err() {
            continue;
        }
        let [request, zygote, socket] = [0, 1, 2].map(|index: usize| !set[index].revents().is_empty());
        if zygote {
            end(1);
        }
        if socket {
            asked = make(maker);
        }
        if request {
            match wire::receive::<Request>(supervisor.as_fd()) {
                Ok(Some(received)) => forward(received, order),
                Ok(None) => end(0),
                // A message that was too much for our table: its status is closed with it.
                Err(error) if error.raw_os_error() == Some(libc::EMFILE) => {}
                Err(_) => end(1),
            }
        }
    }
}

/// Makes one socket here, where the agent's network namespace is. `false`: nobody asks any more.
fn make(maker: &OwnedFd) -> bool {
    match wire::read::<SocketKind>(maker) {
        Ok(Some(kind)) => match make_socket(kind) {
            Ok(socket) => wire::send(maker.as_fd(), &MadeSocket::Made, &[socket.as_fd()]).is_ok(),
            Err(error) => {
                let errno = error.raw_os_error().unwrap_or(libc::ENFILE);
                wire::send(maker.as_fd(), &MadeSocket::Failed(errno), &[]).is_ok()
            }
        },
        Ok(None) | Err(_) => false,
    }
}

fn forward(received: Received<Request>, order: &OwnedFd) {
    match received.message {
        Request::Spawn { ticket } => {
            let Ok([body, stdin, stdout, stderr, status]) = <[OwnedFd; 5]>::try_from(received.descriptors) else { return };
            for descriptor in [&stdin, &stdout, &stderr] {
                if let Err(error) = may_inherit(descriptor) {
                    let errno = error.raw_os_error().unwrap_or(libc::EPERM);
                    let step = format!("inherit standard descriptors ({error})");
                    let _ = wire::write(&status, &Status::Failed { step, errno });
                    return;
                }
            }
            let stdio = [stdin, stdout, stderr].map(OwnedFd::into_raw_fd);
            let spawn = Order::Spawn { ticket, body: body.into_raw_fd(), stdio, status: status.into_raw_fd() };
            if wire::write(order, &spawn).is_err() {
                end(1);
            }
        }
        Request::Signal { ticket, signal } => {
            if wire::write(order, &Order::Signal { ticket, signal }).is_err() {
                end(1);
            }
        }
        Request::Confine => {}
    }
}

/// Ends everything below, then this process.
fn end(code: i32) -> ! {
    if Wall::Control.stands() {
        kill_descendants();
    }
    sys::exit_now(code)
}
