//! Objects to reconcile.

use openshell_crds::{OpenShellGateway, OpenShellGatewaySpec, OpenShellSandbox, OpenShellSandboxSpec};
use openshell_operator::blueprint::{SandboxBlueprint, compose};

/// A sandbox as an API would have stored it.
pub(crate) fn stored(name: &str, uid: &str) -> OpenShellSandbox {
    let mut sandbox = OpenShellSandbox::new(name, OpenShellSandboxSpec::default());
    sandbox.metadata.uid = Some(uid.to_owned());
    sandbox.metadata.namespace = Some("openshell".to_owned());
    sandbox.metadata.generation = Some(1);
    sandbox
}

/// A blueprint with the restrictive default.
pub(crate) fn blueprint(name: &str, uid: &str) -> SandboxBlueprint {
    compose(&stored(name, uid), &OpenShellGateway::new("local", OpenShellGatewaySpec::default()), &[], &[]).unwrap()
}
