//! What a well-formed policy may not say: values that mean nothing, combinations that cannot be, and
//! what is part of the language but not enforced yet. Everything is reported with its path.

mod address;
mod ambiguity;
mod endpoint;
mod filesystem;
mod process;
mod rules;
mod unsupported;

use crate::document::path;
use crate::glob::Glob;
use crate::limits::{MAX_ENDPOINTS, MAX_FINDINGS, MAX_PATH};
use crate::model::{Binary, NetworkPolicy, VERSION};
use crate::{Finding, Policy, PolicyError};

/// How much is judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Depth {
    /// Everything.
    Complete,
    /// Not how endpoints agree with each other: parts of the document were left out.
    WithoutPairs,
}

/// Names of policies that are derived from providers.
const RESERVED_PREFIX: &str = "_provider_";

impl Policy {
    /// Everything that is wrong with the policy. One that came out of [`crate::parse`] is valid.
    pub fn validate(&self) -> Result<(), PolicyError> {
        let findings = validate(self, Depth::Complete);
        if findings.is_empty() { Ok(()) } else { Err(PolicyError { findings }) }
    }
}

/// Collects findings under a path.
pub(crate) struct Report<'r> {
    findings: &'r mut Vec<Finding>,
    path: String,
}

impl Report<'_> {
    /// Says what is wrong with the value itself. What is beyond the bound of findings is dropped.
    fn here(&mut self, code: &'static str, message: impl Into<String>) {
        if self.is_full() {
            return;
        }
        self.findings.push(Finding { code, path: self.path.clone(), line: None, column: None, message: message.into() });
    }

    /// One more than is reported, so that it is known that there are more.
    fn is_full(&self) -> bool {
        self.findings.len() > MAX_FINDINGS
    }

    /// Says what is wrong with one of its keys.
    fn at(&mut self, key: &str, code: &'static str, message: impl Into<String>) {
        self.key(key).here(code, message);
    }

    fn key(&mut self, key: &str) -> Report<'_> {
        Report { path: path::key(&self.path, key), findings: self.findings }
    }

    fn index(&mut self, index: usize) -> Report<'_> {
        Report { path: path::index(&self.path, index), findings: self.findings }
    }
}

pub(crate) fn validate(policy: &Policy, depth: Depth) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut report = Report { findings: &mut findings, path: String::new() };
    if policy.version != VERSION {
        report.at("version", "unknown-version", format!("has to be {VERSION}, the only version there is: write `version: {VERSION}`"));
    }
    if let Some(section) = &policy.filesystem_policy {
        filesystem::validate(section, &mut report.key("filesystem_policy"));
    }
    if let Some(section) = &policy.process {
        process::validate(section, &mut report.key("process"));
    }
    let endpoints: usize = policy.network_policies.values().map(|network| network.endpoints.len()).sum();
    if endpoints > MAX_ENDPOINTS {
        report.at("network_policies", "too-many", format!("has {endpoints} endpoints in all; at most {MAX_ENDPOINTS} are possible"));
        return findings;
    }
    let mut networks = report.key("network_policies");
    for (key, network) in &policy.network_policies {
        validate_network(key, network, &mut networks.key(key));
    }
    unsupported::middlewares(policy, &mut report);
    if depth == Depth::Complete {
        ambiguity::validate(policy, &mut report);
    }
    findings
}

fn validate_network(key: &str, network: &NetworkPolicy, report: &mut Report<'_>) {
    if key.starts_with(RESERVED_PREFIX) {
        report.here(
            "reserved-name",
            format!("names that begin with `{RESERVED_PREFIX}` belong to rules derived from providers; choose another"),
        );
    }
    if key.is_empty() || key.len() > crate::limits::MAX_NAME || key.chars().any(char::is_control) {
        report.here("invalid-name", "a policy's name is 1 to 253 characters without control characters");
    }
    if network.name.as_ref().is_some_and(|name| name.chars().any(char::is_control)) {
        report.at("name", "invalid-name", "has control characters; leave them out");
    }
    let mut endpoints = report.key("endpoints");
    for (i, endpoint) in network.endpoints.iter().enumerate() {
        endpoint::validate(endpoint, &mut endpoints.index(i));
    }
    let mut binaries = report.key("binaries");
    for (i, binary) in network.binaries.iter().enumerate() {
        validate_binary(binary, &mut binaries.index(i));
    }
}

fn validate_binary(binary: &Binary, report: &mut Report<'_>) {
    if binary.harness.is_some() {
        report.at("harness", "not-supported-yet", "has no effect; leave it out");
    }
    let path = &binary.path;
    if path.is_empty() {
        report.at("path", "missing", "name an executable; leave out `binaries` to grant to any");
        return;
    }
    if !path.starts_with('/') {
        report.at("path", "relative-path", format!("`{path}` is not absolute; write the whole path from `/`"));
    }
    if path.split('/').any(|component| component == ".." || component == ".") {
        report.at("path", "path-traversal", format!("`{path}` has a `.` or `..` component; write the path without it"));
    }
    if path.len() > MAX_PATH {
        report.at("path", "too-long", format!("has {} bytes; at most {MAX_PATH} are possible", path.len()));
    }
    if let Err(e) = Glob::path(path) {
        report.at("path", "invalid-glob", e.to_string());
    }
}
