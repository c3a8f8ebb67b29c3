//! Confinement: the agent's processes get their layers here, and the only unsafe code lives here.
//!
//! ```text
//!  guardian                 guardian.rs   subreaper; kills what is left when the supervisor dies
//!   └ supervisor            launcher.rs   asks; never forks once it has threads
//!      └ launcher           control.rs    forked while the supervisor had one thread
//!         └ control         control.rs    makes the namespaces; outside the agent's domain; makes
//!            │                            sockets in the agent's network namespace; passes requests
//!            └ zygote       zygote.rs     enters the domain once: mounts, rlimits, ids, Landlock,
//!               │                         deny filter, notify filter; init of the PID namespace
//!               ├ main process
//!               └ execs     child.rs      session, terminal, directory, descriptors, exec
//! ```
//!
//! The control process and the zygote share one descriptor table: the listener that the zygote's
//! notify filter makes is passed to the supervisor by the control process, which is under no
//! filter. That needs neither `pidfd_getfd` nor a system call that waits for the listener it
//! carries. Everything that a confined process of ours does is `read`, `write`, `fork` and `exec`.
//!
//! What is relied on: Linux 5.14 (`SECCOMP_ADDFD_FLAG_SEND`); everything above it is used where
//! it is there and reported where it is not ([`Enforcement`]). `RLIMIT_NPROC` counts by user and not
//! by sandbox, so the number of processes is not bounded here; a cgroup is the place for it.
#![allow(unsafe_code)]

pub mod guardian;
pub mod probe;

mod ablation;
mod child;
mod control;
mod descend;
mod domain;
mod filter;
mod landlock;
mod launcher;
mod listener;
mod namespaces;
mod privileges;
mod sys;
mod wire;
mod zygote;

pub use ablation::Wall;
pub(crate) use descend::descendants;
pub use domain::{ConfineError, Domain, Enforcement, Host, Level, Loopback, Namespaces, RunAs, Use};
pub use guardian::Guardian;
pub(crate) use landlock::covers;
pub use launcher::{Exit, Exits, Launcher, LauncherEnd, Spawn, SpawnError};
pub(crate) use listener::CloseOnExec;
pub use listener::{Listener, Notification, SocketKind};
pub use openshell_policy::model::LandlockCompatibility;
pub use probe::{Probe, probe};
pub(crate) use sys::{bind_address_no_port, bind_to_device, queued_bytes, watch};
