//! A sandbox that is a pod: what its environment says instead of a driver's document.
//!
//! Nothing in it is secret but the service account token, which is a file (docs/ARCHITECTURE.md,
//! "In a cluster"). The pod is the sandbox's machine: it is for nobody else, its user is the
//! agent's, and what it must not see is kept from it by Landlock.

use std::path::{Path, PathBuf};

use crate::{
    assignment::Assignment,
    bootstrap::{BootstrapError, GatewayAccess},
    confine::Host,
    session::Proof,
};

/// Where the service account token and the gateway's CA are.
const IDENTITY: &str = "/var/run/secrets/openshell";
/// The supervisor's directory.
const DIRECTORY: &str = "/var/lib/openshell";
/// The agent's working directory and home.
const WORKSPACE: &str = "/sandbox";
/// Where the kubelet looks for a container's last words: the default of `terminationMessagePath`, which our pods have.
pub const LAST_WORDS: &str = "/dev/termination-log";
/// Paths that no policy may grant, besides.
const PROTECTED: [&str; 3] = ["/var/run/secrets", "/run/secrets", "/openshell"];

/// Why there is no sandbox to run.
#[derive(Debug, thiserror::Error)]
pub enum PodError {
    /// A variable is missing.
    #[error("{0} is not set; this command is the main process of a pod that the operator makes")]
    Variable(&'static str),
    /// The CA.
    #[error("{path}: the gateway's CA cannot be read: {why}; the operator puts it into the ConfigMap that the pod mounts there")]
    Ca {
        /// Where.
        path: PathBuf,
        /// Why not.
        why: std::io::Error,
    },
    /// Something in it cannot be used.
    #[error(transparent)]
    Gateway(#[from] BootstrapError),
}

/// What this pod's sandbox is.
pub fn assignment(variable: impl Fn(&str) -> Option<String>, identity: &Path) -> Result<Assignment, PodError> {
    let text = |name: &'static str| variable(name).filter(|value| !value.is_empty()).ok_or(PodError::Variable(name));
    let sandbox_id = text("OPENSHELL_SANDBOX_ID")?;
    let ca = identity.join("ca.crt");
    let gateway = GatewayAccess {
        endpoint: text("OPENSHELL_GATEWAY_ENDPOINT")?,
        server_name: text("OPENSHELL_GATEWAY_SERVER_NAME")?,
        ca_pem: std::fs::read_to_string(&ca).map_err(|why| PodError::Ca { path: ca.clone(), why })?,
        ca_file: Some(ca),
    };
    gateway.check()?;
    Ok(Assignment {
        proof: Proof::service_account(&identity.join("token"), &sandbox_id),
        sandbox_name: text("OPENSHELL_SANDBOX")?,
        instance_id: text("OPENSHELL_INSTANCE_ID")?,
        sandbox_id,
        gateway,
        directory: PathBuf::from(DIRECTORY),
        workspace: PathBuf::from(WORKSPACE),
        run_as: None,
        protected_paths: PROTECTED.iter().map(PathBuf::from).collect(),
        host: Host::Own,
    })
}

/// As [`assignment`], from this process's environment.
pub fn own_assignment() -> Result<Assignment, PodError> {
    assignment(|name| std::env::var(name).ok(), Path::new(IDENTITY))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_named() {
        let identity = tempfile::tempdir().unwrap();
        let variables = |without: &'static str| {
            move |name: &str| {
                let value = match name {
                    "OPENSHELL_SANDBOX_ID" => "u",
                    "OPENSHELL_SANDBOX" => "demo",
                    "OPENSHELL_INSTANCE_ID" => "p",
                    "OPENSHELL_GATEWAY_ENDPOINT" => "https://default-gateway.openshell.svc:8080",
                    _ => "default-gateway.openshell.svc",
                };
                (name != without).then(|| value.to_owned())
            }
        };
        let error = |without| assignment(variables(without), identity.path()).err().map(|e| e.to_string()).unwrap_or_default();
        assert!(error("").contains("ca.crt: the gateway's CA cannot be read"), "{}", error(""));
        std::fs::write(identity.path().join("ca.crt"), "pem").unwrap();
        for name in [
            "OPENSHELL_SANDBOX_ID",
            "OPENSHELL_SANDBOX",
            "OPENSHELL_INSTANCE_ID",
            "OPENSHELL_GATEWAY_ENDPOINT",
            "OPENSHELL_GATEWAY_SERVER_NAME",
        ] {
            assert!(error(name).starts_with(name), "{}", error(name));
        }
        let gateway = assignment(variables(""), identity.path()).unwrap().gateway;
        assert_eq!(gateway.authority(), "pem");
        std::fs::write(identity.path().join("ca.crt"), "another").unwrap();
        assert_eq!(gateway.authority(), "another", "the authority has changed while the sandbox runs");
        std::fs::remove_file(identity.path().join("ca.crt")).unwrap();
        assert_eq!(gateway.authority(), "pem", "better the one before than none");
        std::fs::write(identity.path().join("ca.crt"), "").unwrap();
        assert!(error("").contains("no other CA is trusted"), "{}", error(""));
    }
}
