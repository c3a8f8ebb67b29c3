//! The zygote: enters the domain once, then forks whatever is asked for.
//!
//! Order of its layers: mounts; rule paths opened; resource limits; groups, ids and capabilities;
//! `no_new_privs`; Landlock; deny filter; notify filter. From then on it is confined like the agent
//! and makes no call that the broker would have to answer.

use std::{
    collections::HashMap,
    io,
    os::fd::{AsFd as _, IntoRawFd as _, OwnedFd},
};

use rustix::{
    event::{PollFd, PollFlags, poll},
    process::{Pid, Signal, WaitOptions, set_child_subreaper, set_parent_process_death_signal, wait},
};

use super::{
    ablation::Wall,
    child,
    control::Attempt,
    domain::{ConfineError, Domain, Enforcement, Host, Tmp},
    filter::{
        self,
        deny::{Ipc, Prepared, SignalScope},
    },
    guardian::{exit_code, harden},
    landlock::{self, Grants},
    namespaces, privileges, probe,
    sys::{self, Forked, Listen},
    wire::{self, ConfinedBody, Ended, Entered, Order},
};

/// Runs the zygote; never returns.
pub(super) fn run(order: &OwnedFd, events: &OwnedFd, domain: &Domain, attempt: Attempt, supervisor: i32, prepared: Prepared) -> ! {
    let Ok(signals) = sys::signal_descriptor(&[libc::SIGCHLD]) else { sys::exit_now(1) };
    let (body, listener): (ConfinedBody, _) = match enter(domain, attempt, supervisor, prepared) {
        Ok((listener, enforcement)) => (Ok(enforcement), listener),
        Err(error) => (Err(error), None),
    };
    let refused = body.is_err();
    let Ok(body) = wire::store(&body) else { sys::exit_now(1) };
    let entered = Entered { body: body.into_raw_fd(), listener: listener.map(OwnedFd::into_raw_fd) };
    if wire::write(order, &entered).is_err() || refused {
        sys::exit_now(1);
    }
    serve(order, events, &signals)
}

fn enter(domain: &Domain, attempt: Attempt, supervisor: i32, prepared: Prepared) -> Result<(Option<OwnedFd>, Enforcement), ConfineError> {
    let internal = |what: &'static str| move |error: io::Error| ConfineError::internal(what, error);
    die_with_parent().map_err(internal("tying the zygote to its parent"))?;
    set_child_subreaper(Some(rustix::process::getpid())).map_err(|e| ConfineError::internal("becoming a subreaper", e))?;
    if attempt.mount {
        namespaces::mounts(domain, attempt)?;
    }
    let paths = domain.paths(if attempt.mount { Tmp::Own } else { Tmp::Shared });
    let grants = Grants::open(&paths.read_only, &paths.read_write, domain.landlock)?;
    let missing = grants.missing.clone();
    privileges::limit_resources().map_err(internal("limiting resources"))?;
    privileges::drop_all(domain.run_as).map_err(internal("dropping privileges"))?;
    // A change of user clears both.
    die_with_parent().map_err(internal("tying the zygote to its parent"))?;
    harden().map_err(internal("hiding the zygote's memory"))?;
    reachable(domain)?;

    let kernel = probe::Kernel::look();
    let abi = landlock::enter(grants, domain.landlock)?;
    let scope = scope(abi, supervisor);
    let ipc = if attempt.mount || domain.host == Host::Own { Ipc::Own } else { Ipc::Shared };
    for program in prepared.programs(scope, ipc).map_err(|error| ConfineError::internal("compiling the deny filter", error))? {
        sys::install_filter(&program, Listen::No).map_err(internal("installing the deny filter"))?;
    }
    let listen = if Wall::NotifyFilter.stands() { Listen::Yes } else { Listen::No };
    let listener = sys::install_filter(&filter::notify::program(), listen).map_err(|error| match error.raw_os_error() {
        Some(libc::EBUSY) => ConfineError::new(
            "NestedListener",
            "another seccomp listener is installed above this process (a nested sandbox, or a runtime that notifies): run the sandbox \
             outside of it",
        ),
        _ => ConfineError::internal("installing the notify filter", error),
    })?;
    let enforcement = probe::enforcement(kernel, domain, attempt, abi, &paths.mapped, &missing);
    Ok((listener, enforcement))
}

/// Who keeps the agent's signals inside.
fn scope(abi: u32, supervisor: i32) -> SignalScope {
    if abi >= 6 { SignalScope::ByLandlock } else { SignalScope::ByNumber { supervisor } }
}

/// The filters of a zygote with this try's namespaces, as far as they can be told before its domain
/// is known.
pub(super) fn prepare(attempt: Attempt, supervisor: i32) -> Prepared {
    Prepared::new(scope(sys::landlock_abi(), supervisor), if attempt.mount { Ipc::Own } else { Ipc::Shared })
}

fn die_with_parent() -> io::Result<()> {
    Ok(set_parent_process_death_signal(Some(Signal::KILL))?)
}

/// The agent must be able to work where it is put.
fn reachable(domain: &Domain) -> Result<(), ConfineError> {
    use rustix::fs::{Access, access};
    access(&domain.workspace, Access::WRITE_OK | Access::EXEC_OK).map_err(|error| {
        ConfineError::new(
            "WorkspaceUnreachable",
            format!(
                "the agent cannot enter its workspace {} ({error}): give its user search permission on every directory above it",
                domain.workspace.display()
            ),
        )
    })
}

fn serve(order: &OwnedFd, events: &OwnedFd, signals: &OwnedFd) -> ! {
    let mut children: HashMap<u64, Pid> = HashMap::new();
    loop {
        while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
            // Others are orphans that came to us to be reaped.
            if let Some(ticket) = children.iter().find_map(|(ticket, child)| (*child == pid).then_some(*ticket)) {
                children.remove(&ticket);
                if wire::write(events, &Ended { ticket, code: exit_code(status) }).is_err() {
                    sys::exit_now(1);
                }
            }
        }
        let mut set = [PollFd::new(order, PollFlags::IN), PollFd::new(signals, PollFlags::IN)];
        if poll(&mut set, None).is_err() {
            continue;
        }
        let has_order = !set[0].revents().is_empty();
        while sys::read_signal(signals.as_fd()).is_some() {}
        if has_order {
            match wire::read::<Order>(order) {
                Ok(Some(Order::Spawn { ticket, body, stdio, status })) => {
                    if let Some(pid) = spawn(body, stdio, status) {
                        children.insert(ticket, pid);
                    }
                }
                Ok(Some(Order::Signal { ticket, signal })) => {
                    if let Some(pid) = children.get(&ticket) {
                        // Its group; before setsid(2) there is none, so itself as well.
                        let pid = pid.as_raw_nonzero().get();
                        if sys::signal(-pid, signal).is_err() {
                            let _ = sys::signal(pid, signal);
                        }
                    }
                }
                Ok(None) | Err(_) => sys::exit_now(1),
            }
        }
    }
}

/// Forks; the numbers are closed here when the child has its copies.
fn spawn(body: i32, stdio: [i32; 3], status: i32) -> Option<Pid> {
    let (body, status, standard) = (sys::adopt(body), sys::adopt(status), stdio.map(sys::adopt));
    match sys::fork_from_zygote() {
        Ok(Forked::Child) => child::run(body, stdio, &status),
        Ok(Forked::Parent(pid)) => Some(pid),
        Err(error) => {
            let errno = error.raw_os_error().unwrap_or(libc::EAGAIN);
            let _ = wire::write(&status, &wire::Status::Failed { step: "fork".to_owned(), errno });
            drop(standard);
            None
        }
    }
}
