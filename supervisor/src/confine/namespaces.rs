//! Namespaces, where they may be had: by a user namespace, or as root.
//!
//! The control process enters the user and network namespaces and makes the PID namespace of its
//! children; the zygote, its first child, makes the mounts. A user maps to the same number inside,
//! so that files and programs look as they did.

use std::{
    fs, io,
    os::{fd::OwnedFd, unix::fs::PermissionsExt as _},
    path::{Path, PathBuf},
};

use rustix::{
    fs::{CWD, Mode, OFlags, openat},
    mount::{MountFlags, MountPropagationFlags, mount, mount_bind_recursive, mount_change},
    process::{DumpableBehavior, set_dumpable_behavior},
};

use super::{
    control::Attempt,
    domain::{ConfineError, Domain},
    sys,
};

/// Code of a failure that a try with fewer namespaces may not have.
pub(super) const UNAVAILABLE: &str = "NamespaceUnavailable";

/// Directories that everybody on a machine shares.
pub(super) const SHARED: [&str; 5] = ["/tmp", "/var/tmp", "/run", "/var/run", "/dev/shm"];

/// What the control process enters before it forks the zygote.
pub(super) fn enter(attempt: Attempt) -> io::Result<()> {
    if !rustix::process::geteuid().is_root() {
        user_namespace()?;
    }
    let mut flags = 0;
    if attempt.network {
        flags |= libc::CLONE_NEWNET;
    }
    if attempt.pid {
        flags |= libc::CLONE_NEWPID;
    }
    if attempt.mount {
        flags |= libc::CLONE_NEWIPC;
    }
    sys::unshare(flags)?;
    if attempt.network {
        sys::device_up(c"lo")?;
    }
    Ok(())
}

/// The same user and group inside as outside.
fn user_namespace() -> io::Result<()> {
    let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    sys::unshare(libc::CLONE_NEWUSER)?;
    // The files below belong to root for a process that is not dumpable. Nothing of the agent runs yet.
    set_dumpable_behavior(DumpableBehavior::Dumpable)?;
    fs::write("/proc/self/setgroups", "deny")?;
    fs::write("/proc/self/uid_map", format!("{uid} {uid} 1"))?;
    fs::write("/proc/self/gid_map", format!("{gid} {gid} 1"))
}

/// The zygote's mounts: private `/tmp` and, if it is granted, `/var/tmp`; `/run`, shared memory and
/// an ungranted `/var/tmp` masked, directories above the workspace that the agent's user may not
/// enter replaced, a `/proc` of its own.
pub(super) fn mounts(domain: &Domain, attempt: Attempt) -> Result<(), ConfineError> {
    make(domain, attempt).map_err(|(step, error)| ConfineError::new(UNAVAILABLE, format!("{step}: {error}")))
}

fn make(domain: &Domain, attempt: Attempt) -> Result<(), (String, io::Error)> {
    let at = |step: &str| {
        let step = step.to_owned();
        move |error: io::Error| (step, error)
    };
    sys::unshare(libc::CLONE_NEWNS).map_err(at("mount namespace"))?;
    mount_change("/", MountPropagationFlags::REC | MountPropagationFlags::PRIVATE).map_err(|e| ("private mounts".to_owned(), e.into()))?;
    let kept = Kept::open(domain);
    let mut own = vec![("/tmp", domain.temporary())];
    let mut masked = vec![("/run", c"mode=0755,size=16m"), ("/dev/shm", c"mode=1777,size=50%")];
    match domain.var_temporary() {
        Some(path) => own.push(("/var/tmp", path)),
        None => masked.push(("/var/tmp", c"mode=0755,size=1m")),
    }
    // Opened before the first of them is mounted over: they may lie in one another.
    let open = |(target, path): (_, PathBuf)| Ok((Path::new(target), open_path(&path)?));
    let own: Vec<(&Path, OwnedFd)> = own.into_iter().map(open).collect::<io::Result<_>>().map_err(at("open the sandbox's tmp"))?;
    for (target, directory) in own.iter().filter(|(target, _)| real_directory(target)) {
        bind(directory, target).map_err(at("private /tmp"))?;
        kept.restore_below(target).map_err(at("paths below /tmp"))?;
    }
    for (target, options) in masked {
        let target = Path::new(target);
        if real_directory(target) {
            memory(target, options).map_err(at("mask a shared directory"))?;
            kept.restore_below(target).map_err(at("paths below a masked directory"))?;
        }
    }
    for closed in closed_ancestors(domain) {
        memory(&closed, c"mode=0755,size=1m").map_err(at("replace a closed directory"))?;
        kept.restore_below(&closed).map_err(at("paths below a closed directory"))?;
    }
    if attempt.pid {
        let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
        mount("proc", "/proc", "proc", flags, None).map_err(|e| ("mount /proc".to_owned(), e.into()))?;
    }
    // What lies below the old directories is out of sight only when we look anew.
    rustix::process::chdir("/").map_err(|e| ("enter /".to_owned(), e.into()))
}

/// Paths that stay visible below a masked directory, opened before anything is mounted.
struct Kept(Vec<(PathBuf, OwnedFd)>);

impl Kept {
    fn open(domain: &Domain) -> Self {
        let granted = domain.read_only.iter().chain(&domain.read_write);
        let own = [domain.workspace.clone(), domain.trust()];
        let mut paths: Vec<PathBuf> = own.iter().chain(granted).cloned().collect();
        // What others put into a shared directory is what the mask is for.
        paths.retain(|path| own.contains(path) || !SHARED.iter().any(|shared| path.starts_with(shared)));
        paths.sort();
        paths.dedup();
        Self(paths.into_iter().filter_map(|path| open_path(&path).ok().map(|fd| (path, fd))).collect())
    }

    fn restore_below(&self, target: &Path) -> io::Result<()> {
        for (path, fd) in &self.0 {
            if path == target || !path.starts_with(target) {
                continue;
            }
            let is_directory = rustix::fs::FileType::from_raw_mode(rustix::fs::fstat(fd)?.st_mode).is_dir();
            if is_directory {
                make_directories(path)?;
            } else {
                path.parent().map_or(Ok(()), make_directories)?;
                fs::OpenOptions::new().create(true).append(true).open(path)?;
            }
            bind(fd, path)?;
        }
        Ok(())
    }
}

/// Directories that everybody may pass and nobody but us list.
fn make_directories(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    if let Some(parent) = path.parent() {
        make_directories(parent)?;
    }
    fs::create_dir(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o711))
}

fn open_path(path: &Path) -> io::Result<OwnedFd> {
    Ok(openat(CWD, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?)
}

fn bind(source: &OwnedFd, target: &Path) -> io::Result<()> {
    use std::os::fd::AsRawFd as _;
    Ok(mount_bind_recursive(format!("/proc/self/fd/{}", source.as_raw_fd()), target)?)
}

fn memory(target: &Path, options: &std::ffi::CStr) -> io::Result<()> {
    Ok(mount("tmpfs", target, "tmpfs", MountFlags::NOSUID | MountFlags::NODEV, options)?)
}

/// A directory itself and no link to one: what a link leads to is masked at its own place.
fn real_directory(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|meta| meta.is_dir())
}

/// The topmost directories above what the agent needs that its own user may not pass.
fn closed_ancestors(domain: &Domain) -> Vec<PathBuf> {
    use std::os::unix::fs::MetadataExt as _;
    let Some(run_as) = domain.run_as else { return Vec::new() };
    let mut closed = Vec::new();
    for needed in [&domain.workspace, &domain.trust()] {
        let mut ancestors: Vec<&Path> = needed.ancestors().skip(1).collect();
        ancestors.reverse();
        for ancestor in ancestors {
            let Ok(meta) = fs::metadata(ancestor) else { break };
            let passable = match meta.mode() {
                mode if meta.uid() == run_as.uid => mode & 0o100 != 0,
                mode if meta.gid() == run_as.gid => mode & 0o010 != 0,
                mode => mode & 0o001 != 0,
            };
            if !passable {
                closed.push(ancestor.to_owned());
                break;
            }
        }
    }
    closed.sort();
    closed.dedup();
    closed
}
