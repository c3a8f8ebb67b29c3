//! The patch formats: JSON merge patch (RFC 7396), JSON patch (RFC 6902), apply.
//!
//! Strategic merge is not offered, as an apiserver does not offer it for custom resources.

use serde_json::Value;

use super::error::{ApiError, Cause, CauseReason};
use super::kinds::Kind;
use super::limits;

/// What an apply does about fields that other managers own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Force {
    /// Refuse.
    No,
    /// Take them over.
    Yes,
}

/// A parsed patch.
pub(crate) enum Patch {
    Merge(Value),
    Json(json_patch::Patch),
    Apply { config: Value, force: Force },
}

/// Content types of patches, for refusals.
pub(crate) const ACCEPTED: &str = "application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml";

impl Patch {
    /// Parses a body by its content type.
    pub(crate) fn parse(content_type: &str, body: &[u8], force: Force) -> Result<Self, ApiError> {
        let kind = content_type.split(';').next().unwrap_or_default().trim();
        let bad = |error: serde_json::Error| ApiError::bad_request(format!("the patch is not valid: {error}"));
        match kind {
            "application/merge-patch+json" => {
                let patch: Value = serde_json::from_slice(body).map_err(bad)?;
                if patch.is_object() { Ok(Self::Merge(patch)) } else { Err(ApiError::bad_request("a merge patch must be a JSON object")) }
            }
            "application/json-patch+json" => {
                let patch: json_patch::Patch = serde_json::from_slice(body).map_err(bad)?;
                if patch.0.len() > limits::MAX_PATCH_OPERATIONS {
                    return Err(ApiError::bad_request(format!(
                        "a JSON patch may have at most {} operations",
                        limits::MAX_PATCH_OPERATIONS
                    )));
                }
                Ok(Self::Json(patch))
            }
            "application/apply-patch+yaml" | "application/apply-patch+json" => {
                let config = super::body::object(body)?;
                Ok(Self::Apply { config, force })
            }
            other => Err(ApiError::unsupported_media_type(other, ACCEPTED)),
        }
    }

    /// The object after the patch. An apply is not done here.
    pub(crate) fn apply(self, kind: &Kind, name: &str, before: &Value) -> Result<Value, ApiError> {
        let mut after = before.clone();
        match self {
            Self::Merge(patch) => json_patch::merge(&mut after, &patch),
            Self::Json(patch) => {
                json_patch::patch(&mut after, &patch.0).map_err(|error| {
                    let cause = Cause::new(CauseReason::Invalid, error.path.to_string(), format!("the patch cannot be applied: {error}"));
                    ApiError::invalid(kind, name, &[cause])
                })?;
            }
            Self::Apply { .. } => {}
        }
        // What is not in the patch is no precondition.
        Ok(after)
    }
}
