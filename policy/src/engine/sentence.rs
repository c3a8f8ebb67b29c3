//! What a decision says to people. The index and the rules in Rego say the same by sharing this.

use crate::model::Policy;
use crate::{Process, RequestFacts};

pub(super) fn connect_allowed(policy: &str, host: &str, port: u16) -> String {
    format!("endpoint {host}:{port} is allowed by policy '{policy}'")
}

pub(super) fn no_policies() -> String {
    "network connections not allowed by policy".to_owned()
}

pub(super) fn no_endpoint(host: &str, port: u16) -> String {
    format!("endpoint {host}:{port} is not allowed by any policy")
}

pub(super) fn wrong_binary(process: Process<'_>, policy: &str) -> String {
    format!("binary '{}' not allowed in policy '{policy}' (ancestors: [{}])", process.path, process.ancestors.join(", "))
}

pub(super) fn no_path(request: RequestFacts<'_>, policy: &str, host: &str, port: u16) -> String {
    format!("{} {} is covered by no endpoint path of policy '{policy}' on {host}:{port}", request.method, request.path)
}

pub(super) fn not_inspected(policy: &str, host: &str, port: u16) -> String {
    format!("policy '{policy}' allows connections to {host}:{port} without rules for requests")
}

pub(super) fn request_allowed(request: RequestFacts<'_>, rule: &str, policy: &str) -> String {
    format!("{} {} is allowed by rule '{rule}' of policy '{policy}'", request.method, request.path)
}

pub(super) fn request_denied(request: RequestFacts<'_>, rule: &str, policy: &str) -> String {
    format!("{} {} is denied by rule '{rule}' of policy '{policy}'", request.method, request.path)
}

pub(super) fn request_not_allowed(request: RequestFacts<'_>, policy: &str, host: &str, port: u16) -> String {
    format!("{} {} is not allowed by any rule of policy '{policy}' on {host}:{port}", request.method, request.path)
}

/// The words of an allow or deny rule, found by its place.
pub(super) fn rule_words(policy: &Policy, key: &str, endpoint: usize, list: RuleList, rule: usize) -> Option<String> {
    let endpoint = policy.network_policies.get(key)?.endpoints.get(endpoint)?;
    match (list, &endpoint.access) {
        (RuleList::Deny, _) => Some(endpoint.deny_rules.as_ref()?.get(rule)?.describe()),
        (RuleList::Allow, Some(preset)) => Some(format!("access: {}", preset.as_str())),
        (RuleList::Allow, None) => Some(endpoint.rules.as_ref()?.get(rule)?.allow.as_ref()?.describe()),
    }
}

/// Which list of an endpoint a rule stands in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RuleList {
    Allow,
    Deny,
}
