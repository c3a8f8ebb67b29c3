//! Allow and deny rules of an inspected endpoint.

use super::Report;
use crate::glob::Glob;
use crate::model::{Endpoint, Matcher, RequestMatch};

/// Allow and deny rules of a `rest` endpoint.
pub(super) fn validate(endpoint: &Endpoint, report: &mut Report<'_>) {
    match (&endpoint.access, &endpoint.rules) {
        (Some(_), Some(_)) => report.at("rules", "conflicting-keys", "`access` and `rules` are both there; keep one"),
        (None, None) => {
            let code = if endpoint.deny_rules.is_some() { "deny-without-allow" } else { "missing-rules" };
            report.here(code, "allows nothing: add `access: read-only` (or read-write, full), or `rules`");
        }
        (None, Some(rules)) if rules.is_empty() => {
            report.at("rules", "empty-rules", "is empty, which would allow nothing; add a rule or use `access`");
        }
        _ => {}
    }
    if endpoint.deny_rules.as_ref().is_some_and(Vec::is_empty) {
        report.at("deny_rules", "empty-rules", "is empty; add a rule or leave it out");
    }
    {
        let mut report = report.key("rules");
        for (i, rule) in endpoint.rules.iter().flatten().enumerate() {
            let mut report = report.index(i);
            match &rule.allow {
                None => report.here("missing", "says nothing; write `allow: { method: …, path: … }`"),
                Some(allow) => validate_match(allow, &mut report.key("allow")),
            }
        }
    }
    let mut report = report.key("deny_rules");
    for (i, deny) in endpoint.deny_rules.iter().flatten().enumerate() {
        validate_match(deny, &mut report.index(i));
    }
}

/// Method and path are both said: a rule that leaves one out would mean either nothing or everything.
fn validate_match(rule: &RequestMatch, report: &mut Report<'_>) {
    match rule.method.as_deref() {
        None => report.at("method", "missing", "say which method is meant, `*` for any"),
        Some("*") => {}
        Some(method) if is_token(method) => {}
        Some(method) => {
            let message = format!("`{}` is no HTTP method; write one (`GET`), or `*` for any", crate::document::shortened(method));
            report.at("method", "invalid-method", message);
        }
    }
    match rule.path.as_deref() {
        None => report.at("path", "missing", "say which path is meant, `**` for any"),
        Some(path) => {
            if !path.starts_with('/') && !path.starts_with("**") {
                report.at("path", "invalid-path", format!("`{}` has to begin with `/` or `**`", crate::document::shortened(path)));
            }
            if let Err(e) = Glob::text(path) {
                report.at("path", "invalid-glob", e.to_string());
            }
            if path.contains(['?', '#']) && path.contains('=') {
                report.at("path", "invalid-path", "a path has no query; put parameters into `query`");
            }
        }
    }
    let others = [
        (rule.command.is_some(), "command", "SQL"),
        (rule.operation_type.is_some(), "operation_type", "GraphQL"),
        (rule.operation_name.is_some(), "operation_name", "GraphQL"),
        (!rule.fields.is_empty(), "fields", "GraphQL"),
        (rule.tool.is_some(), "tool", "MCP"),
        (!rule.params.is_empty(), "params", "JSON-RPC and MCP"),
    ];
    for (_, key, family) in others.into_iter().filter(|(set, ..)| *set) {
        report.at(key, "wrong-protocol", format!("is a condition of {family} rules; a rest rule has `method`, `path` and `query`"));
    }
    let mut report = report.key("query");
    for (key, matcher) in &rule.query {
        validate_matcher(matcher, &mut report.key(key));
    }
}

fn validate_matcher(matcher: &Matcher, report: &mut Report<'_>) {
    if matcher.globs().is_empty() {
        report.here("invalid-matcher", "`any` is empty, which would match nothing; name a glob");
    }
    for glob in matcher.globs() {
        if glob.is_empty() {
            report.here("invalid-matcher", "an empty glob would match only the empty value; write `*` for any value");
        }
        if let Err(e) = Glob::text(glob) {
            report.here("invalid-glob", e.to_string());
        }
    }
}

/// RFC 9110, section 5.6.2, without `*`, which means any method here.
fn is_token(method: &str) -> bool {
    !method.is_empty() && method.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'+-.^_`|~".contains(&b))
}
