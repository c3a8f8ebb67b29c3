//! From text to a validated [`Policy`].

use crate::{Finding, Policy, PolicyError};

/// Parses and validates a policy file (YAML, of which JSON is a subset).
pub fn from_yaml(text: &str) -> Result<Policy, PolicyError> {
    serde_saphyr::from_str(text).map_err(|e| one(&e))
}

/// Parses and validates a policy in JSON.
pub fn from_json(bytes: &[u8]) -> Result<Policy, PolicyError> {
    serde_json::from_slice(bytes).map_err(|e| one(&e))
}

/// Parses and validates a policy from data (an object's `spec.policy`).
pub fn from_value(value: &serde_json::Value) -> Result<Policy, PolicyError> {
    serde_json::from_value(value.clone()).map_err(|e| one(&e))
}

fn one(error: &dyn std::fmt::Display) -> PolicyError {
    PolicyError { findings: vec![Finding { code: "invalid", path: String::new(), line: None, column: None, message: error.to_string() }] }
}
