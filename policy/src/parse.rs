//! From text to a valid [`Policy`].
//!
//! ```text
//!  size ─▶ text to a tree with places ─▶ shape (keys, types, words) ─▶ types ─▶ meaning ─▶ normalised
//!            one finding at most            all findings                        all findings
//! ```
//!
//! As much as possible is reported at once. Where the shape of something is wrong, its meaning is not
//! judged on top of that.

use crate::document::{Node, json, path, yaml};
use crate::limits::{MAX_BYTES, MAX_FINDINGS};
use crate::shape::{POLICY, Reader};
use crate::validate::{Depth, validate};
use crate::{Finding, Policy, PolicyError};

/// Parses and validates a policy file (YAML, of which JSON is a subset).
pub fn from_yaml(text: &str) -> Result<Policy, PolicyError> {
    bounded(text.len())?;
    from_node(&yaml::read(text).map_err(only)?)
}

/// Parses and validates a policy in JSON.
pub fn from_json(bytes: &[u8]) -> Result<Policy, PolicyError> {
    bounded(bytes.len())?;
    from_node(&json::read(bytes).map_err(only)?)
}

/// Parses and validates a policy from data (an object's `spec.policy`).
pub fn from_value(value: &serde_json::Value) -> Result<Policy, PolicyError> {
    bounded(serde_json::to_vec(value).map_or(usize::MAX, |text| text.len()))?;
    from_node(&Node::from(value))
}

fn from_node(node: &Node) -> Result<Policy, PolicyError> {
    let mut reader = Reader::default();
    let value = reader.read(node, &POLICY, "").unwrap_or_else(|| serde_json::json!({}));
    let mut findings = reader.findings;
    let misshapen = findings.len();
    let policy = match serde_json::from_value::<Policy>(value) {
        Ok(policy) => policy,
        Err(e) if findings.is_empty() => return Err(only(plain("invalid", format!("this is not a policy: {e}")))),
        Err(_) => return Err(refusal(findings)),
    };
    let depth = if misshapen == 0 { Depth::Complete } else { Depth::WithoutPairs };
    for mut finding in validate(&policy, depth) {
        let consequence = findings[..misshapen].iter().any(|f| same_subject(&f.path, &finding.path));
        if !consequence {
            (finding.line, finding.column) = node.locate(&finding.path).map(|p| (p.line, p.column)).unzip();
            findings.push(finding);
        }
    }
    if findings.is_empty() { Ok(policy.normalized()) } else { Err(refusal(findings)) }
}

/// Whether a finding about the meaning of `meaning` may only be there because of the shape of `shape`.
fn same_subject(shape: &str, meaning: &str) -> bool {
    path::covers(meaning, shape) || path::parent(shape) == path::parent(meaning) || shape.is_empty()
}

fn bounded(bytes: usize) -> Result<(), PolicyError> {
    if bytes <= MAX_BYTES {
        return Ok(());
    }
    Err(only(plain("too-large", format!("the policy has {bytes} bytes; at most {MAX_BYTES} are possible, so it was not read"))))
}

fn plain(code: &'static str, message: String) -> Finding {
    Finding { code, path: String::new(), line: None, column: None, message }
}

fn only(finding: Finding) -> PolicyError {
    PolicyError { findings: vec![finding] }
}

fn refusal(mut findings: Vec<Finding>) -> PolicyError {
    findings.sort_by_key(|f| (f.line, f.column));
    if findings.len() > MAX_FINDINGS {
        findings.truncate(MAX_FINDINGS);
        findings.push(plain("more", "and more; correct these first".to_owned()));
    }
    PolicyError { findings }
}
