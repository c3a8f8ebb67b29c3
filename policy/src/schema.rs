//! The structural schema of a policy for the CRDs.

use schemars::{Schema, json_schema};

/// Structural OpenAPI schema of a policy file, with `x-kubernetes-preserve-unknown-fields` on
/// each of its objects: an unknown key must reach the strict parser, not be pruned on the way.
pub fn structural() -> Schema {
    json_schema!({ "type": "object", "x-kubernetes-preserve-unknown-fields": true })
}
