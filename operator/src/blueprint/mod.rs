//! From objects to what a sandbox shall be.
//!
//! ```text
//!   OpenShellSandbox ── command, env, image, ... ────┐
//!   OpenShellGateway ── defaults, enforcement ───────┤
//!   Policy ── inline | policyRef | selector | none ──┼─▶ SandboxBlueprint
//!   Provider ── credential references, bindings ─────┘   or BlueprintError
//! ```
//!
//! [`compose`] is pure: the operator composes to start a workload, the gateway composes to
//! configure its session, and from the same objects both get the same bytes. It reads no
//! Secret; a credential is here only as the place where its value is.
//!
//! Anything that does not fit is an error with a stable reason. Nothing is dropped to make the
//! rest fit: a sandbox starts with what was asked for, or not at all.

mod compose;
mod environment;
mod error;
mod pod;
mod policy;
mod provider;
pub mod quota;

#[cfg(test)]
mod tests;

use openshell_policy::PolicyHash;
use serde::Serialize;

pub use compose::compose;
pub use error::{BlueprintError, Reason};
pub use pod::PodRequest;
pub use policy::{parse_policy, policy_of};
pub use provider::{check_provider, valid_host, valid_path};

/// What a sandbox shall be: everything that a driver and a session need, and no secret.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SandboxBlueprint {
    /// UID of the object: the sandbox's identity everywhere.
    pub uid: String,
    /// Name of the object.
    pub name: String,
    /// Namespace of the object.
    pub namespace: String,
    /// Generation of the spec that this was composed from.
    pub generation: i64,
    /// Program and arguments of the main process; empty if none is wanted.
    pub command: Vec<String>,
    /// Whether the main process has a terminal.
    pub tty: bool,
    /// Environment of the sandbox: the gateway's defaults and the sandbox's own, by name.
    /// [`SandboxBlueprint::environment`] adds what the providers configure.
    pub env: Vec<(String, String)>,
    /// The policy.
    #[serde(serialize_with = "canonical")]
    pub policy: openshell_policy::Policy,
    /// Hash of the policy.
    pub policy_hash: PolicyHash,
    /// Where the policy comes from.
    pub policy_source: PolicySource,
    /// What the providers bring, in the order in which the sandbox names them.
    pub providers: Vec<ProviderBinding>,
    /// What is asked of its pod.
    pub pod: PodRequest,
    /// Whether the workload shall be stopped.
    pub suspend: bool,
    /// Whether to refuse to run unless every wall stands.
    pub require_full: bool,
}

/// Where a sandbox's policy comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub enum PolicySource {
    /// `spec.policy`.
    Inline,
    /// The `Policy` that `spec.policyRef` names.
    Referenced(String),
    /// The only `Policy` whose selector matches.
    Selected(String),
    /// None named, none selected: the restrictive default.
    Default,
}

/// What one provider brings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ProviderBinding {
    /// Name of the `Provider`.
    pub provider: String,
    /// Its credentials.
    pub credentials: Vec<CredentialBinding>,
    /// Settings that are no secret, for the environment.
    pub config: Vec<(String, String)>,
}

/// One credential: under which name the agent sees a placeholder, where the value is, and where
/// it may go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CredentialBinding {
    /// Environment variable of the placeholder.
    pub env: String,
    /// Secret that has the value.
    pub secret_name: String,
    /// Key in that Secret.
    pub secret_key: String,
    /// The only destinations that may receive the value. Never empty.
    pub bindings: Vec<EndpointBinding>,
}

/// A destination of a credential.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct EndpointBinding {
    /// Host name in lower case, or a wildcard as in a policy.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// Path pattern; empty for any.
    pub path: String,
}

impl SandboxBlueprint {
    /// The environment without placeholders: [`Self::env`] and every provider's settings, by
    /// name. No name occurs twice.
    pub fn environment(&self) -> Vec<(String, String)> {
        let mut all: Vec<_> = self.env.iter().chain(self.providers.iter().flat_map(|p| &p.config)).cloned().collect();
        all.sort();
        all
    }
}

/// A policy in its canonical form, so that equal blueprints have equal bytes.
fn canonical<S: serde::Serializer>(policy: &openshell_policy::Policy, serializer: S) -> Result<S::Ok, S::Error> {
    let bytes = policy.canonical_json();
    serializer.serialize_str(&String::from_utf8_lossy(&bytes))
}
