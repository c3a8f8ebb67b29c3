//! Questions about a valid policy that need to know where it is to be used.

use std::path::{Component, Path, PathBuf};

use crate::host::{HostPattern, canonical_host};
use crate::model::{Endpoint, FilesystemPolicy, TlsMode};
use crate::{Finding, Policy, PolicyError};

fn finding(code: &'static str, path: String, message: String) -> Finding {
    Finding { code, path, line: None, column: None, message }
}

fn verdict(findings: Vec<Finding>) -> Result<(), PolicyError> {
    if findings.is_empty() { Ok(()) } else { Err(PolicyError { findings }) }
}

impl Policy {
    /// Refuses a policy of which a path covers a protected path, or lies under one: neither may
    /// the agent read what is there nor change what stands beside it.
    ///
    /// `locate` says where a path of the file is on this machine (`/tmp` may be a directory of the
    /// sandbox's own); `None` means that the grant reaches nothing outside the sandbox. Both sides
    /// have to have their symbolic links resolved by the caller: this crate does no I/O.
    pub fn check_protected(&self, protected: &[&Path], locate: impl Fn(&str) -> Option<PathBuf>) -> Result<(), PolicyError> {
        let filesystem = self.filesystem();
        let whose = if self.filesystem_policy.is_some() { "" } else { ", granted because the policy has no `filesystem_policy`," };
        let mut findings = Vec::new();
        let lists = [("read_only", &filesystem.read_only), ("read_write", &filesystem.read_write)];
        for (key, i, path) in lists.iter().flat_map(|(key, paths)| paths.iter().enumerate().map(move |(i, path)| (key, i, path))) {
            let Some(granted) = locate(path).map(|p| lexical(&p)) else { continue };
            for protected in protected {
                let wall = lexical(protected);
                if wall.starts_with(&granted) || granted.starts_with(&wall) {
                    let message = format!(
                        "`{path}` ({}){whose} covers the protected path `{}`; grant narrower paths that leave it out",
                        granted.display(),
                        protected.display()
                    );
                    findings.push(finding("protected-path", format!("filesystem_policy.{key}[{i}]"), message));
                }
            }
        }
        verdict(findings)
    }

    /// What the agent may read and write under this policy: its own grants, or those of the
    /// restrictive default. With none at all not even a program could be loaded.
    pub fn filesystem(&self) -> FilesystemPolicy {
        self.filesystem_policy.clone().or_else(|| Self::restrictive_default().filesystem_policy).unwrap_or_default()
    }

    /// Whether a running sandbox can change from this policy to `next`: `landlock`, `process` and
    /// `include_workdir` stay, paths may only be added (and take effect for a new sandbox). What is
    /// left out counts as what it stands for. Each finding names what differs; what to do about it
    /// depends on who asks.
    pub fn check_live_change(&self, next: &Self) -> Result<(), PolicyError> {
        let mut findings = Vec::new();
        let mut fixed = |path: &str, before: &str, after: &str| {
            if before != after {
                let message = format!("is `{before}` in the running sandbox and `{after}` in this policy");
                findings.push(finding("static-field", path.to_owned(), message));
            }
        };
        fixed("landlock.compatibility", self.landlock_compatibility().as_str(), next.landlock_compatibility().as_str());
        let (before, after) = (self.normalized().process.unwrap_or_default(), next.normalized().process.unwrap_or_default());
        for (path, before, after) in [
            ("process.run_as_user", &before.run_as_user, &after.run_as_user),
            ("process.run_as_group", &before.run_as_group, &after.run_as_group),
        ] {
            fixed(path, before.as_deref().unwrap_or(UNSET), after.as_deref().unwrap_or(UNSET));
        }
        let (old, new) = (self.filesystem(), next.filesystem());
        fixed("filesystem_policy.include_workdir", yes_or_no(old.include_workdir), yes_or_no(new.include_workdir));
        for (key, old, new) in [("read_only", &old.read_only, &new.read_only), ("read_write", &old.read_write, &new.read_write)] {
            let missing: Vec<&str> = old.iter().filter(|path| !new.contains(path)).map(String::as_str).collect();
            if !missing.is_empty() {
                let message = format!("the running sandbox has {}, and this policy has not", listed(&missing));
                findings.push(finding("static-field", format!("filesystem_policy.{key}"), message));
            }
        }
        verdict(findings)
    }

    /// Refuses endpoints that would carry a credential bound to one of `bindings` (host, port) where
    /// nobody looks at requests, unless they say `allow_uninspected_credentials: true`.
    pub fn check_credentials(&self, bindings: &[(&str, u16)]) -> Result<(), PolicyError> {
        let mut findings = Vec::new();
        for (key, network) in &self.network_policies {
            for (i, endpoint) in network.endpoints.iter().enumerate() {
                let carried = bindings.iter().find(|(host, port)| endpoint.all_ports().contains(port) && covers(endpoint, host));
                let Some((host, port)) = carried.filter(|_| !endpoint.is_inspected() && !endpoint.allow_uninspected_credentials) else {
                    continue;
                };
                let why = if endpoint.tls == TlsMode::Skip { "tls: skip" } else { "L4-only" };
                let message = format!(
                    "credentialed endpoint {host}:{port} is {why}: nobody would look at the requests that carry the credential; \
                     set `protocol: rest`, or accept it with `allow_uninspected_credentials: true`"
                );
                findings.push(finding("uninspected-credentials", format!("network_policies.{key}.endpoints[{i}]"), message));
            }
        }
        verdict(findings)
    }

    /// Executables that the policy names without a wildcard: those that a sandbox may have as
    /// symbolic links ([`crate::Engine::compile_with_links`]).
    pub fn literal_binaries(&self) -> impl Iterator<Item = &str> {
        let paths = self.network_policies.values().flat_map(|network| &network.binaries).map(|binary| binary.path.as_str());
        paths.filter(|path| !path.contains(['*', '?', '[']))
    }
}

fn covers(endpoint: &Endpoint, host: &str) -> bool {
    endpoint.host.is_empty() || HostPattern::parse(&endpoint.host).is_ok_and(|pattern| pattern.matches(&canonical_host(host)))
}

/// For an identity that a policy does not name.
const UNSET: &str = "unset";

/// Most paths that one message names.
const PATHS_NAMED: usize = 8;

fn yes_or_no(value: bool) -> &'static str {
    if value { "true" } else { "false" }
}

/// The paths as a sentence takes them; of many, the first.
fn listed(paths: &[&str]) -> String {
    let named: Vec<String> = paths.iter().take(PATHS_NAMED).map(|path| format!("`{path}`")).collect();
    match paths.len().saturating_sub(PATHS_NAMED) {
        0 => named.join(", "),
        more => format!("{} and {more} more", named.join(", ")),
    }
}

/// The path without `.` and `..`, by its text.
fn lexical(path: &Path) -> PathBuf {
    let mut clean = PathBuf::new();
    for component in path.components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir => {
                clean.pop();
            }
            other => clean.push(other),
        }
    }
    clean
}
