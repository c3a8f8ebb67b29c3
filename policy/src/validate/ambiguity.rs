//! Endpoints that cover the same host and port have to agree on how the connection is carried.
//!
//! A connection is made before its first request is seen, and one request can be covered by endpoints
//! of several policies. Where two of them would treat it differently, the file is refused with both
//! places named: nobody should have to guess which one wins.

use std::collections::BTreeSet;

use ipnet::IpNet;

use super::Report;
use crate::Policy;
use crate::document::path;
use crate::glob::{Glob, PathSelector};
use crate::host::HostPattern;
use crate::model::{Endpoint, Protocol};

struct Candidate<'p> {
    endpoint: &'p Endpoint,
    path: String,
    /// `None`: any host.
    host: Option<HostPattern>,
    ports: BTreeSet<u16>,
    networks: BTreeSet<IpNet>,
}

pub(super) fn validate(policy: &Policy, report: &mut Report<'_>) {
    let mut candidates = Vec::new();
    for (key, network) in &policy.network_policies {
        let endpoints = path::key(&path::key("network_policies", key), "endpoints");
        for (i, endpoint) in network.endpoints.iter().enumerate() {
            let host = HostPattern::parse(&endpoint.host).ok();
            // A host that is none was refused already.
            if host.is_some() || endpoint.host.is_empty() {
                let networks = endpoint.networks().into_iter().collect();
                candidates.push(Candidate { endpoint, path: path::index(&endpoints, i), host, ports: endpoint.all_ports(), networks });
            }
        }
    }
    for (i, second) in candidates.iter().enumerate() {
        if report.is_full() {
            return;
        }
        for first in &candidates[..i] {
            if first.overlaps(second)
                && let Some((key, why)) = disagreement(first, second)
            {
                let message = format!(
                    "disagrees with `{}` on `{key}`, and both cover {}: {why}",
                    first.path,
                    if second.host.is_some() { second.endpoint.describe() } else { first.endpoint.describe() },
                );
                let mut at = Report { path: second.path.clone(), findings: report.findings };
                at.here("ambiguous-endpoints", message);
            }
        }
    }
}

impl Candidate<'_> {
    fn overlaps(&self, other: &Self) -> bool {
        let hosts = match (&self.host, &other.host) {
            (Some(a), Some(b)) => a.overlaps(b),
            (None, Some(HostPattern::Address(address))) => self.networks.iter().any(|net| net.contains(address)),
            (Some(HostPattern::Address(address)), None) => other.networks.iter().any(|net| net.contains(address)),
            (None, _) | (_, None) => true,
        };
        hosts && !self.ports.is_disjoint(&other.ports)
    }
}

/// The key on which two endpoints that cover one connection disagree, and why they may not.
fn disagreement(a: &Candidate<'_>, b: &Candidate<'_>) -> Option<(&'static str, &'static str)> {
    if a.endpoint.tls != b.endpoint.tls {
        return Some(("tls", "a connection has its TLS terminated or not"));
    }
    if a.networks != b.networks {
        return Some(("allowed_ips", "a host resolves before it is known which of them is meant"));
    }
    if (a.endpoint.protocol == Protocol::Tcp) != (b.endpoint.protocol == Protocol::Tcp) {
        return Some(("protocol", "a connection is relayed as it is or not"));
    }
    if !a.endpoint.is_inspected() || !b.endpoint.is_inspected() {
        return None;
    }
    if a.endpoint.allow_encoded_slash != b.endpoint.allow_encoded_slash {
        return Some(("allow_encoded_slash", "a path is read before it is known which of them it belongs to"));
    }
    if !paths_compete(&a.endpoint.path, &b.endpoint.path) {
        return None;
    }
    if a.endpoint.protocol != b.endpoint.protocol {
        return Some(("protocol", "their paths are equally precise, so that both govern one request"));
    }
    if a.endpoint.enforcement != b.endpoint.enforcement {
        return Some(("enforcement", "their paths are equally precise, so that both govern one request"));
    }
    None
}

/// Whether two path selectors are equally precise and may select one request. Says yes where it cannot
/// tell: only what stands before the first and after the last wildcard is compared.
fn paths_compete(a: &str, b: &str) -> bool {
    let (Ok(first), Ok(second)) = (PathSelector::parse(a), PathSelector::parse(b)) else { return false };
    if first.specificity() != second.specificity() {
        return false;
    }
    let (Ok(x), Ok(y)) = (Glob::text(a), Glob::text(b)) else { return false };
    if first.specificity() == 0 || a == b {
        return true;
    }
    // `x/**` selects `x` too.
    let begins = |glob: &Glob, text: &str| {
        if text.ends_with("/**") { glob.prefix().trim_end_matches('/').to_owned() } else { glob.prefix().to_owned() }
    };
    let (x_begin, y_begin) = (begins(&x, a), begins(&y, b));
    match (x.is_literal(), y.is_literal()) {
        (true, true) => false,
        (true, false) => second.matches(a),
        (false, true) => first.matches(b),
        (false, false) => x_begin.starts_with(&y_begin) || y_begin.starts_with(&x_begin),
    }
}
