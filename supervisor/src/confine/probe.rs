//! What this kernel can hold, and what came of it in a domain.
//!
//! | since | what | without it |
//! |---|---|---|
//! | 5.14 | `SECCOMP_ADDFD_FLAG_SEND` | refused |
//! | 5.19 | `SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV` | `signals-interrupt-connect` |
//! | 6.7 | Landlock TCP rules (ABI 4) | `loopback-race` |
//! | 6.12 | Landlock scopes (ABI 6) | `no-signal-scope` |

use std::path::PathBuf;

use serde::Serialize;

use super::{
    ablation::Wall,
    control::Attempt,
    domain::{Domain, Enforcement, Host, Level},
    sys,
};

/// Answers of `openshell-sandbox doctor`.
#[derive(Clone, Debug, Serialize)]
pub struct Probe {
    /// The level a sandbox on this machine reaches at most.
    pub level: Level,
    /// Why it is not `full`, and what else is worth knowing.
    pub reasons: Vec<Reason>,
    /// Release of the kernel.
    pub kernel: String,
    /// Landlock ABI; 0: none.
    pub landlock_abi: u32,
    /// Walls that will stand.
    pub walls: Vec<String>,
    /// What was looked at.
    pub features: Vec<Feature>,
}

/// One reason, with what it means.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Reason {
    /// Stable code.
    pub code: &'static str,
    /// What it means for the sandbox.
    pub message: &'static str,
    /// What to do about it.
    pub fix: &'static str,
}

/// One feature of the kernel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Feature {
    /// What it is called.
    pub name: &'static str,
    /// Whether it is here.
    pub present: bool,
    /// What it is for.
    pub detail: &'static str,
}

const KERNEL_TOO_OLD: Reason = Reason {
    code: "kernel-too-old",
    message: "Linux 5.14 or later is needed: without it sockets cannot be handed to a waiting call",
    fix: "use a newer kernel",
};
const NO_NOTIFICATION: Reason = Reason {
    code: "no-seccomp-notification",
    message: "this kernel (or the runtime around it) has no seccomp user notification, on which the broker stands",
    fix: "use a runtime class that passes seccomp through to Linux",
};
const SIGNALS_INTERRUPT: Reason = Reason {
    code: "signals-interrupt-connect",
    message: "a signal that arrives during connect(2) restarts the call: programs with fast timers see failed connections",
    fix: "use Linux 5.19 or later",
};
const SECRETS_READABLE: Reason = Reason {
    code: "secrets-readable",
    message: "there is no Landlock: the agent can read whatever its user can read, so the sandbox gets no credentials",
    fix: "boot with Landlock enabled (lsm=landlock,…), on Linux 5.13 or later",
};
const LOOPBACK_RACE: Reason = Reason {
    code: "loopback-race",
    message: "Landlock cannot deny TCP here: an agent that races the address of a call may reach services on loopback",
    fix: "use Linux 6.7 or later",
};
const NO_SIGNAL_SCOPE: Reason = Reason {
    code: "no-signal-scope",
    message: "Landlock cannot scope signals here: an agent with the supervisor's user can end its own sandbox, and reach abstract sockets",
    fix: "use Linux 6.12 or later",
};
const SHARED_TMP: Reason = Reason {
    code: "shared-tmp",
    message: "there is no mount namespace: grants of /tmp, /run, /dev/shm and the home directory are replaced by the sandbox's own tmp directory",
    fix: "allow unprivileged user namespaces, or run the gateway as root",
};
const PROCESSES_VISIBLE: Reason = Reason {
    code: "processes-visible",
    message: "there is no PID namespace: where the policy grants /proc, the agent sees the names of other processes",
    fix: "allow unprivileged user namespaces, or run the gateway as root",
};

/// What the kernel has, whatever domain is asked for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Kernel {
    version: (u32, u32),
    notification: bool,
    wait_killable: bool,
}

impl Kernel {
    /// To be asked before the notify filter is installed, which refuses a part of the questions.
    pub(super) fn look() -> Self {
        Self { version: version(&release()), notification: sys::knows_user_notification(), wait_killable: sys::knows_wait_killable() }
    }

    fn refusal(self) -> Option<Reason> {
        if self.version < (5, 14) {
            Some(KERNEL_TOO_OLD)
        } else if !self.notification {
            Some(NO_NOTIFICATION)
        } else {
            None
        }
    }

    fn reasons(self, abi: u32) -> Vec<Reason> {
        let mut reasons = Vec::new();
        if !self.wait_killable {
            reasons.push(SIGNALS_INTERRUPT);
        }
        match abi {
            0 => reasons.extend([SECRETS_READABLE, LOOPBACK_RACE, NO_SIGNAL_SCOPE]),
            1..=3 => reasons.extend([LOOPBACK_RACE, NO_SIGNAL_SCOPE]),
            4 | 5 => reasons.push(NO_SIGNAL_SCOPE),
            _ => {}
        }
        reasons
    }
}

fn release() -> String {
    rustix::system::uname().release().to_string_lossy().into_owned()
}

fn version(release: &str) -> (u32, u32) {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|part| part.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

/// Why nothing can be started here, if that is so.
pub(super) fn refusal() -> Option<Reason> {
    Kernel::look().refusal()
}

/// The report of an entered domain.
pub(super) fn enforcement(
    kernel: Kernel,
    domain: &Domain,
    attempt: Attempt,
    abi: u32,
    mapped: &[PathBuf],
    missing: &[PathBuf],
) -> Enforcement {
    let mut lacking = kernel.reasons(abi);
    if domain.host == Host::Shared {
        if !attempt.mount {
            lacking.push(SHARED_TMP);
        }
        if !attempt.pid {
            lacking.push(PROCESSES_VISIBLE);
        }
    }
    let level = if lacking.is_empty() { Level::Full } else { Level::Reduced };
    let mut reasons: Vec<String> = lacking.iter().map(|reason| reason.code.to_owned()).collect();
    reasons.extend(mapped.iter().map(|path| format!("path-mapped:{}", path.display())));
    reasons.extend(missing.iter().map(|path| format!("path-missing:{}", path.display())));
    Enforcement { level, reasons, landlock_abi: abi, walls: walls(attempt, abi, domain.run_as.is_some()), kernel: release() }
}

fn walls(attempt: Attempt, abi: u32, own_user: bool) -> Vec<String> {
    let in_force = |wall: &Wall| match wall {
        Wall::LandlockFs => abi >= 1,
        Wall::LandlockNet => abi >= 4,
        Wall::LandlockScope => abi >= 6,
        Wall::NetworkNamespace => attempt.network,
        Wall::MountNamespace => attempt.mount,
        Wall::PidNamespace => attempt.pid,
        Wall::RunAs => own_user,
        _ => true,
    };
    Wall::ALL.iter().filter(|wall| wall.stands() && in_force(wall)).map(|wall| wall.name().to_owned()).collect()
}

/// Looks at this machine without changing anything. Namespaces are tried in a child.
pub fn probe() -> Probe {
    let kernel = Kernel::look();
    let abi = sys::landlock_abi();
    let namespaces = namespaces_possible();
    let attempt = Attempt { mount: namespaces, pid: namespaces, network: namespaces };
    let refusal = kernel.refusal();
    let mut reasons = kernel.reasons(abi);
    if !namespaces {
        reasons.extend([SHARED_TMP, PROCESSES_VISIBLE]);
    }
    let level = match (&refusal, reasons.is_empty()) {
        (Some(_), _) => Level::Refused,
        (None, true) => Level::Full,
        (None, false) => Level::Reduced,
    };
    reasons.splice(0..0, refusal);
    let root = rustix::process::geteuid().is_root();
    let feature = |name, present, detail| Feature { name, present, detail };
    Probe {
        level,
        reasons,
        kernel: release(),
        landlock_abi: abi,
        walls: walls(attempt, abi, root),
        features: vec![
            feature("seccomp user notification", kernel.notification, "the broker answers the agent's socket calls"),
            feature("addfd with answer (5.14)", kernel.version >= (5, 14), "sockets are handed to a waiting call"),
            feature("wait killable (5.19)", kernel.wait_killable, "signals do not interrupt a waiting connect"),
            feature("Landlock files (ABI 1)", abi >= 1, "the agent sees only what its policy grants"),
            feature("Landlock TCP (ABI 4, 6.7)", abi >= 4, "the agent makes no TCP connection of its own"),
            feature("Landlock scopes (ABI 6, 6.12)", abi >= 6, "signals and abstract sockets stay inside"),
            feature("namespaces", namespaces, "private /tmp, own processes, empty network"),
        ],
    }
}

/// Whether a child of ours could have namespaces of its own; as `unshare(1)` would find out.
fn namespaces_possible() -> bool {
    use std::process::{Command, Stdio};
    if rustix::process::geteuid().is_root() {
        let needed = rustix::thread::CapabilitySet::SYS_ADMIN;
        return rustix::thread::capabilities(None).is_ok_and(|sets| sets.effective.contains(needed));
    }
    let Ok(own) = std::env::current_exe() else { return false };
    Command::new(own)
        .arg(TRY_NAMESPACES)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.code() == Some(NAMESPACES_POSSIBLE))
}

/// Hidden argument by which this executable finds out for [`probe`] whether namespaces may be had.
pub const TRY_NAMESPACES: &str = "try-namespaces";
const NAMESPACES_POSSIBLE: i32 = 88;

/// What the executable does with [`TRY_NAMESPACES`]; returns its exit code. To be called while the
/// process has one thread.
pub fn try_namespaces() -> i32 {
    let everything = Attempt { mount: true, pid: true, network: true };
    if super::namespaces::enter(everything).is_ok() { NAMESPACES_POSSIBLE } else { 1 }
}
