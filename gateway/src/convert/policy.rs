//! Policies: documents of objects, and what is wrong with them, for the wire.

use openshell_crds::policy::PolicyDocument;
use openshell_policy::{Policy, PolicyError};
use openshell_proto::sandbox as wire;

use crate::errors::Violations;

/// The document that an object keeps of a policy: its canonical form.
pub(crate) fn document(policy: &Policy) -> PolicyDocument {
    let value = serde_json::from_slice(&policy.canonical_json()).expect("the canonical form of a policy is JSON");
    PolicyDocument(value)
}

/// The wire form of a document; `None` for one that is no valid policy, which an object may
/// hold and no sandbox runs under.
pub(crate) fn to_wire(document: &PolicyDocument) -> Option<wire::SandboxPolicy> {
    openshell_policy::from_value(&document.0).ok().map(|policy| openshell_proto::policy::to_wire(&policy))
}

/// Notes each finding under the path of the request's field.
pub(crate) fn violations(field: &str, error: &PolicyError, into: &mut Violations) {
    for finding in &error.findings {
        let path = if finding.path.is_empty() { field.to_owned() } else { format!("{field}.{}", finding.path) };
        into.add(path, finding.message.clone());
    }
}
