//! Giving up who we are: groups, ids, capabilities, limits.

use std::io;

use rustix::{
    fs::{Gid, Uid},
    process::Resource,
    thread::{
        CapabilitiesSecureBits, CapabilitySet, CapabilitySets, clear_ambient_capability_set, set_capabilities,
        set_capabilities_secure_bits, set_no_new_privs, set_thread_groups, set_thread_res_gid, set_thread_res_uid,
    },
};

use super::{ablation::Wall, domain::RunAs, sys};

/// No core dumps: they would hold the agent's memory, its placeholders and its files.
pub(super) fn limit_resources() -> io::Result<()> {
    sys::limit(Resource::Core, Some(0), Some(0))
}

/// As many descriptors as this process may have: the supervisor holds the agent's sockets too.
pub(super) fn raise_descriptor_limit() {
    let hard = rustix::process::getrlimit(Resource::Nofile).maximum;
    // Fewer only means that the tables that hold them are smaller.
    let _ = sys::limit(Resource::Nofile, hard, hard);
}

/// Becomes `run_as` and drops every capability; checks that nothing comes back. This process has
/// one thread, so thread-wide is process-wide.
pub(super) fn drop_all(run_as: Option<RunAs>) -> io::Result<()> {
    if Wall::Capabilities.stands() {
        // Needs CAP_SETPCAP, so it comes first; without the capability there is nothing to drop.
        sys::empty_bounding_set()?;
        let locked = CapabilitiesSecureBits::NO_ROOT
            | CapabilitiesSecureBits::NO_ROOT_LOCKED
            | CapabilitiesSecureBits::NO_SETUID_FIXUP_LOCKED
            | CapabilitiesSecureBits::KEEP_CAPS_LOCKED
            | CapabilitiesSecureBits::NO_CAP_AMBIENT_RAISE
            | CapabilitiesSecureBits::NO_CAP_AMBIENT_RAISE_LOCKED;
        if rustix::thread::capabilities(None).is_ok_and(|sets| sets.effective.contains(CapabilitySet::SETPCAP)) {
            set_capabilities_secure_bits(locked)?;
        }
        clear_ambient_capability_set()?;
    }
    if let Some(RunAs { uid, gid }) = run_as {
        let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
        set_thread_groups(&[])?;
        set_thread_res_gid(gid, gid, gid)?;
        set_thread_res_uid(uid, uid, uid)?;
    }
    if Wall::Capabilities.stands() {
        let none = CapabilitySet::empty();
        set_capabilities(None, CapabilitySets { effective: none, permitted: none, inheritable: none })?;
    }
    set_no_new_privs(true)?;
    verify(run_as)
}

/// What was given up must not come back.
fn verify(run_as: Option<RunAs>) -> io::Result<()> {
    if Wall::Capabilities.stands() {
        let sets = rustix::thread::capabilities(None)?;
        if !(sets.effective | sets.permitted | sets.inheritable).is_empty() {
            return Err(io::Error::other("capabilities are left after all were dropped"));
        }
    }
    if let Some(run_as) = run_as.filter(|_| Wall::Capabilities.stands()) {
        let ids = (rustix::process::getuid().as_raw(), rustix::process::geteuid().as_raw(), rustix::process::getgid().as_raw());
        if ids != (run_as.uid, run_as.uid, run_as.gid) {
            return Err(io::Error::other(format!("ids are {ids:?} after becoming {run_as:?}")));
        }
        let root = Uid::ROOT;
        if set_thread_res_uid(root, root, root).is_ok() {
            return Err(io::Error::other("root came back after it was given up"));
        }
    }
    Ok(())
}
