//! Server-side apply.

use serde_json::Value;

use super::error::ApiError;
use super::kinds::Kind;
use super::patch::Force;
use super::write::{Clock, Part};

pub(crate) fn create(_kind: &Kind, config: &Value, _manager: &str, _clock: Clock) -> Result<Value, ApiError> {
    Ok(config.clone())
}

#[expect(clippy::too_many_arguments, reason = "one call")]
pub(crate) fn merge(
    _kind: &Kind,
    _name: &str,
    before: &Value,
    config: &Value,
    _manager: &str,
    _force: Force,
    _part: Part,
    _clock: Clock,
) -> Result<Value, ApiError> {
    let mut after = before.clone();
    json_patch::merge(&mut after, config);
    Ok(after)
}

pub(crate) fn track_update(_kind: &Kind, _before: &Value, _after: &mut Value, _manager: &str, _part: Part, _clock: Clock) {}

pub(crate) fn same_but_times(before: &Value, after: &Value) -> bool {
    before == after
}
