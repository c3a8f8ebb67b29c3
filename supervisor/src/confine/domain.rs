//! What a sandbox's processes are confined to, and what came of it.

use std::path::{Path, PathBuf};

use openshell_policy::model::LandlockCompatibility;
use serde::{Deserialize, Serialize};

use super::namespaces::SHARED;

/// Everything the launcher needs to know before it enters the domain. Entered once; what changes
/// while the sandbox lives (the network) is the broker's.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Domain {
    /// Absolute paths the agent may read and execute.
    pub read_only: Vec<PathBuf>,
    /// Absolute paths the agent may change.
    pub read_write: Vec<PathBuf>,
    /// What to do where Landlock cannot hold everything.
    pub landlock: LandlockCompatibility,
    /// Who the agent runs as; only where the supervisor is root.
    pub run_as: Option<RunAs>,
    /// The agent's working directory and home. Always granted read-write.
    pub workspace: PathBuf,
    /// The sandbox's own directory: `tmp/` in it is the agent's private `/tmp`, `var-tmp/` its
    /// `/var/tmp` if that is granted, `trust/` in it is readable by the agent when it exists.
    pub directory: PathBuf,
    /// Paths that no grant may cover or lie in, the sandbox's own `workspace`, `tmp` and `trust` aside.
    pub protected: Vec<PathBuf>,
    /// Where the sandbox's loopback is.
    pub loopback: Loopback,
    /// Which namespaces are tried.
    pub namespaces: Namespaces,
    /// Who else lives where the supervisor runs.
    pub host: Host,
}

/// An unprivileged user of the agent's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunAs {
    /// Numeric user id, not 0.
    pub uid: u32,
    /// Numeric group id, not 0.
    pub gid: u32,
}

/// Where the sandbox's loopback is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Loopback {
    /// In a network namespace of its own where one may be had, else addresses of its own.
    #[default]
    Private,
    /// Addresses of its own from 127/8 in the supervisor's network namespace.
    OwnAddress,
}

/// Whether a namespace is tried.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Use {
    /// Where it may be had; its absence is reported.
    #[default]
    IfPossible,
    /// Never.
    Never,
}

/// Which namespaces are tried. A user namespace is only a means to the others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Namespaces {
    /// Private `/tmp`, masked `/run`.
    pub mount: Use,
    /// The agent sees only its own processes. Needs the mount namespace.
    pub pid: Use,
    /// An empty network namespace.
    pub network: Use,
}

impl Namespaces {
    /// None of them: what a restricted pod has.
    pub const NONE: Self = Self { mount: Use::Never, pid: Use::Never, network: Use::Never };
}

/// Who else lives where the supervisor runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Host {
    /// A machine with other users and services: `/tmp`, `/run` and the home directory are shared.
    #[default]
    Shared,
    /// A container or pod that belongs to the sandbox alone.
    Own,
}

/// How much of the confinement holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Everything that is promised.
    Full,
    /// Something that is promised does not hold here; the reasons say what.
    Reduced,
    /// The mechanism is missing; nothing is started.
    Refused,
}

/// What was applied, as a fact for the sandbox's status.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Enforcement {
    /// The summary.
    pub level: Level,
    /// Stable codes of [`super::probe`], and findings like `path-missing:/app` that do not change
    /// the level.
    pub reasons: Vec<String>,
    /// Landlock ABI in force; 0: none.
    pub landlock_abi: u32,
    /// Stable names of the walls in force.
    pub walls: Vec<String>,
    /// Release of the kernel.
    pub kernel: String,
}

/// Why a domain was not entered. Nothing of the agent has run.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[error("{message}")]
pub struct ConfineError {
    /// Stable: `KernelTooOld`, `GrantOverProtectedPath`, `LandlockRequired`, `PathMissing`,
    /// `WorkspaceUnreachable`, `RunAsRefused`, `NestedListener`, `PtraceCapability`, `Internal`.
    pub code: String,
    /// What failed, why, and what to do next.
    pub message: String,
}

impl ConfineError {
    pub(crate) fn new(code: &str, message: impl Into<String>) -> Self {
        Self { code: code.to_owned(), message: message.into() }
    }

    pub(crate) fn internal(what: &str, error: impl std::fmt::Display) -> Self {
        Self::new("Internal", format!("{what}: {error}"))
    }
}

/// Whose `/tmp` it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tmp {
    /// The sandbox's: there is a mount namespace.
    Own,
    /// Everybody's.
    Shared,
}

/// The paths of a domain as they are granted in the end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Paths {
    pub(crate) read_only: Vec<PathBuf>,
    pub(crate) read_write: Vec<PathBuf>,
    /// Grants that were replaced by the sandbox's own directory, because others share them.
    pub(crate) mapped: Vec<PathBuf>,
}

impl Domain {
    /// The agent's own `/tmp`.
    pub(crate) fn temporary(&self) -> PathBuf {
        self.directory.join("tmp")
    }

    /// What the agent needs to trust the sandbox's certificate authority.
    pub(crate) fn trust(&self) -> PathBuf {
        self.directory.join("trust")
    }

    /// The agent's own `/var/tmp`, if a grant covers that. One directory for both would let a
    /// grant of one open the other.
    pub(crate) fn var_temporary(&self) -> Option<PathBuf> {
        let granted = self.read_only.iter().chain(&self.read_write).any(|grant| Path::new("/var/tmp").starts_with(grant));
        granted.then(|| self.directory.join("var-tmp"))
    }

    /// Makes the sandbox's own `/tmp`, if the driver has not, and its `/var/tmp`.
    pub(crate) fn make_temporary(&self) -> Result<(), ConfineError> {
        use std::os::unix::fs::{DirBuilderExt as _, chown};
        for path in [Some(self.temporary()), self.var_temporary()].into_iter().flatten().filter(|path| !path.is_dir()) {
            let make = || {
                std::fs::DirBuilder::new().mode(0o700).create(&path)?;
                self.run_as.map_or(Ok(()), |run_as| chown(&path, Some(run_as.uid), Some(run_as.gid)))
            };
            make().map_err(|error| ConfineError::internal(&format!("making {}", path.display()), error))?;
        }
        Ok(())
    }

    /// Where the wall of the agent's own user is down the agent is whoever the supervisor is, so
    /// the directories that the driver gave to that user become the supervisor's: root without
    /// capabilities could not enter them.
    #[cfg(feature = "ablation")]
    pub(crate) fn without_a_user_of_its_own(&self) -> Result<Self, ConfineError> {
        let mut domain = self.clone();
        if super::Wall::RunAs.stands() || domain.run_as.take().is_none() {
            return Ok(domain);
        }
        let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        for path in [&domain.workspace, &domain.temporary()] {
            if path.exists() {
                std::os::unix::fs::lchown(path, Some(uid), Some(gid))
                    .map_err(|error| ConfineError::internal(&format!("taking {} over", path.display()), error))?;
            }
        }
        Ok(domain)
    }

    /// What is granted. Without a mount namespace a grant of a directory that others on the
    /// machine share is replaced: it would reach their sockets and their files.
    pub(crate) fn paths(&self, tmp: Tmp) -> Paths {
        let own = [self.workspace.clone(), self.temporary(), self.trust()];
        let home = std::env::var_os("HOME").map(PathBuf::from);
        let shared = |path: &Path| {
            self.host == Host::Shared
                && tmp == Tmp::Shared
                && !own.iter().any(|own| path.starts_with(own))
                && (SHARED.iter().any(|shared| path.starts_with(shared)) || home.as_deref() == Some(path))
        };
        let mut mapped = Vec::new();
        let mut keep = |paths: &[PathBuf]| {
            let (replaced, kept): (Vec<_>, Vec<_>) = paths.iter().cloned().partition(|path| shared(path));
            mapped.extend(replaced);
            kept
        };
        let mut read_only = keep(&self.read_only);
        let mut read_write = keep(&self.read_write);
        read_write.push(self.workspace.clone());
        if tmp == Tmp::Shared {
            // With a mount namespace it is granted as /tmp, if the policy grants that.
            read_write.push(self.temporary());
        }
        if self.trust().exists() {
            read_only.push(self.trust());
        }
        Paths { read_only, read_write, mapped }
    }

    /// Refuses what must not be: grants over protected paths, a user that is none of the agent's.
    pub(crate) fn check(&self) -> Result<(), ConfineError> {
        if let Some(run_as) = self.run_as {
            if run_as.uid == 0 || run_as.gid == 0 {
                return Err(ConfineError::new(
                    "RunAsRefused",
                    "the agent never runs as root or in root's group: choose another uid and gid",
                ));
            }
            if !rustix::process::geteuid().is_root() {
                return Err(ConfineError::new(
                    "RunAsRefused",
                    "only a supervisor that runs as root can run the agent as another user: leave run_as out",
                ));
            }
            let sets = rustix::thread::capabilities(None).map_err(|error| ConfineError::internal("reading capabilities", error))?;
            if !sets.effective.contains(rustix::thread::CapabilitySet::SYS_PTRACE) {
                return Err(ConfineError::new(
                    "PtraceCapability",
                    "the supervisor runs as root without CAP_SYS_PTRACE and could not read the calls of an agent with another user: run the \
                     whole sandbox as one ordinary user, or grant the capability",
                ));
            }
        }
        let own = [self.workspace.clone(), self.temporary(), self.trust()].map(|path| real(&path));
        for granted in self.read_only.iter().chain(&self.read_write) {
            let path = real(granted);
            let replaced = self.host == Host::Shared && SHARED.iter().any(|shared| path == Path::new(shared));
            for protected in self.protected.iter().map(|path| real(path)) {
                let over = protected.starts_with(&path) && !replaced;
                let within = path.starts_with(&protected) && !own.iter().any(|own| path.starts_with(own));
                if over || within {
                    return Err(ConfineError::new(
                        "GrantOverProtectedPath",
                        format!(
                            "the policy grants {} but {} is protected (keys, tokens and other sandboxes live there): grant a narrower path",
                            granted.display(),
                            protected.display()
                        ),
                    ));
                }
            }
        }
        Ok(())
    }
}

/// Where a path leads, or itself while it does not exist.
fn real(path: &Path) -> PathBuf {
    std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned())
}
