//! The gateway's bound on sandboxes, for objects that did not come through its own API.

use kube::{Resource, ResourceExt as _};
use openshell_crds::{OpenShellGateway, OpenShellSandbox};

use super::{BlueprintError, Reason};

/// Whether a sandbox is within the gateway's quota. The oldest come first, so that a new object
/// never takes the place of one that runs.
pub fn admit<'a>(
    sandbox: &OpenShellSandbox,
    gateway: &OpenShellGateway,
    all: impl IntoIterator<Item = &'a OpenShellSandbox>,
) -> Result<(), BlueprintError> {
    let Some(quota) = gateway.spec.quotas.sandboxes else { return Ok(()) };
    let quota = usize::try_from(quota).unwrap_or(0);
    let own = rank(sandbox);
    let before = all.into_iter().filter(|other| other.uid() != sandbox.uid() && rank(other) < own).count();
    if before < quota {
        return Ok(());
    }
    Err(BlueprintError::new(
        Reason::QuotaExceeded,
        format!(
            "the gateway \"{}\" allows {quota} sandboxes and there are as many already; delete one, or raise quotas.sandboxes",
            gateway.name_any()
        ),
    ))
}

/// Age first; the UID decides between objects of the same second.
fn rank(sandbox: &OpenShellSandbox) -> (Option<jiff::Timestamp>, Option<String>) {
    (sandbox.meta().creation_timestamp.as_ref().map(|time| time.0), sandbox.uid())
}
