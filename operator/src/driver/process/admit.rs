//! What a process of this machine cannot be.
//!
//! This check answers when a sandbox is created or its policy changes. The supervisor makes its
//! own before it grants anything; that one decides.

use std::path::{Component, Path, PathBuf};

use crate::blueprint::SandboxBlueprint;
use crate::driver::DriverError;

/// Each sandbox has its own of these, whatever lies there on the machine.
const PRIVATE: [&str; 3] = ["/tmp", "/var/tmp", "/run"];

/// Whether a process of this machine can be this sandbox.
pub(super) fn admit(blueprint: &SandboxBlueprint, state_dir: &Path, protected: &[PathBuf]) -> Result<(), DriverError> {
    if blueprint.pod.resources.as_ref().is_some_and(|resources| resources.gpu.is_some()) {
        return Err(DriverError::never(
            "GpuUnsupported",
            "resources.gpu: the process driver gives no GPU of its own to a sandbox; leave it out of the sandbox and of the gateway's sandboxDefaults, or use the kubernetes driver",
        ));
    }
    if let Some(asked) = blueprint.pod.first() {
        return Err(DriverError::never(
            "PodUnsupported",
            format!(
                "{asked}: the process driver runs the programs of this machine as processes of it, without images, volumes, nodes or limits; leave it out of the sandbox and of the gateway's sandboxDefaults"
            ),
        ));
    }
    let walls: Vec<PathBuf> = protected.iter().map(PathBuf::as_path).chain([state_dir]).map(resolved).collect();
    let walls: Vec<&Path> = walls.iter().map(PathBuf::as_path).collect();
    blueprint
        .policy
        .check_protected(&walls, |grant| {
            let path = resolved(Path::new(grant));
            let private = PRIVATE.iter().any(|private| path.starts_with(private));
            (!private).then_some(path)
        })
        .map_err(|error| DriverError::never("PolicyGrantsProtectedPath", error.to_string()))?;
    if let Some(process) = &blueprint.policy.process {
        for (key, value) in [("run_as_user", &process.run_as_user), ("run_as_group", &process.run_as_group)] {
            if let Some(value) = value
                && value != "sandbox"
                && !is_own(key, value)
            {
                return Err(DriverError::never(
                    "RunAsUnsupported",
                    format!(
                        "process.{key}: the process driver gives each sandbox an identity of its own and cannot run it as \"{value}\"; write \"sandbox\" or leave it out"
                    ),
                ));
            }
        }
    }
    Ok(())
}

/// An ordinary user's sandboxes run as that user, who may say so.
fn is_own(key: &str, value: &str) -> bool {
    let uid = rustix::process::geteuid();
    let own = if key == "run_as_user" { uid.as_raw() } else { rustix::process::getegid().as_raw() };
    !uid.is_root() && value == own.to_string()
}

/// The path without links as far as it exists, and without `.` and `..` beyond.
fn resolved(path: &Path) -> PathBuf {
    let mut known = path.to_path_buf();
    let mut beyond = Vec::new();
    loop {
        if let Ok(real) = known.canonicalize() {
            let mut whole = real;
            for part in beyond.into_iter().rev() {
                match Path::new(&part).components().next() {
                    Some(Component::ParentDir) => {
                        whole.pop();
                    }
                    Some(Component::Normal(name)) => whole.push(name),
                    _ => {}
                }
            }
            return whole;
        }
        match known.components().next_back() {
            Some(Component::Normal(name)) => beyond.push(name.to_owned()),
            Some(Component::ParentDir) => beyond.push("..".into()),
            _ => return path.to_path_buf(),
        }
        known.pop();
    }
}
