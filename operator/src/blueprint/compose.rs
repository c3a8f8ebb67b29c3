//! [`compose`]: the parts put together.

use kube::ResourceExt as _;
use openshell_crds::gateway::Enforcement;
use openshell_crds::{OpenShellGateway, OpenShellSandbox, Policy, Provider};

use super::{BlueprintError, Reason, SandboxBlueprint, environment, pod, policy, provider};

/// Composes what a sandbox shall be.
///
/// `policies` and `providers` are those of the sandbox's namespace, in any order; others are
/// left out of account.
pub fn compose(
    sandbox: &OpenShellSandbox,
    gateway: &OpenShellGateway,
    policies: &[Policy],
    providers: &[Provider],
) -> Result<SandboxBlueprint, BlueprintError> {
    let uid = sandbox.uid().ok_or_else(|| {
        BlueprintError::new(Reason::InvalidObject, "the sandbox has no metadata.uid; it was never stored by an API server")
    })?;
    let namespace = sandbox.namespace().unwrap_or_default();
    let (policy, policy_source) = policy::resolve(sandbox, &namespace, policies)?;
    let bindings = provider::bind(sandbox, &namespace, providers)?;
    let env = environment::merge(sandbox, gateway, &bindings)?;
    let pod = pod::merge(sandbox, gateway)?;
    let policy_hash = policy.hash();
    Ok(SandboxBlueprint {
        uid,
        name: sandbox.name_any(),
        namespace,
        generation: sandbox.metadata.generation.unwrap_or_default(),
        command: sandbox.spec.command.clone(),
        tty: sandbox.spec.tty,
        env,
        policy,
        policy_hash,
        policy_source,
        providers: bindings,
        pod,
        suspend: sandbox.spec.suspend,
        require_full: gateway.spec.sandbox_defaults.enforcement == Enforcement::Full,
    })
}
