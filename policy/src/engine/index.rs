//! The way of every decision: what it touches is found by hashing, and compared natively.
//!
//! Endpoints are numbered in the order of their policies' displayed names (then keys, then places in
//! the file), so that the first of a candidate list is the one that a decision names. A host finds its
//! candidates by its whole name, by each of its suffixes (wildcards are filed under the labels they
//! end in) and among the endpoints without a host.

use std::collections::HashMap;

use ipnet::IpNet;

use super::binaries::Binaries;
use super::sentence::{self, RuleList};
use crate::glob::{Glob, PathSelector};
use crate::host::HostPattern;
use crate::model::{Endpoint, Enforcement, Matcher, Policy, RequestMatch, TlsMode};
use crate::{CompileError, ConnectDecision, EndpointPlan, Inspection, Process, RequestDecision, RequestFacts, Verdict};

/// Where an endpoint is filed.
type Number = u32;

/// Everything a decision needs.
#[derive(Debug, Default)]
pub(super) struct Index {
    grants: Vec<Grant>,
    endpoints: Vec<IndexedEndpoint>,
    by_name: HashMap<String, Vec<Number>>,
    by_suffix: HashMap<String, Vec<Number>>,
    without_host: Vec<Number>,
    empty: bool,
}

/// One policy.
#[derive(Debug)]
struct Grant {
    name: String,
    binaries: Binaries,
}

#[derive(Debug)]
struct IndexedEndpoint {
    grant: usize,
    host: Option<HostPattern>,
    ports: Vec<u16>,
    networks: Vec<IpNet>,
    exact_host: bool,
    inspection: Inspection,
    allow_encoded_slash: bool,
    allow_uninspected_credentials: bool,
    enforcement: Enforcement,
    path: PathSelector,
    allow: Vec<IndexedRule>,
    deny: Vec<IndexedRule>,
}

#[derive(Debug)]
struct IndexedRule {
    words: String,
    /// Empty: any.
    methods: Vec<String>,
    path: Glob,
    query: Vec<(String, Vec<Glob>)>,
}

impl Index {
    /// Files a normalised policy; `binaries` are the executables of each of its policies.
    pub(super) fn build(policy: &Policy, binaries: &[Vec<String>]) -> Result<Self, CompileError> {
        let mut index = Self { empty: policy.network_policies.is_empty(), ..Self::default() };
        let mut order: Vec<usize> = (0..policy.network_policies.len()).collect();
        order.sort_by_key(|i| {
            policy.network_policies.get_index(*i).map(|(key, network)| (network.display_name(key).to_owned(), key.clone()))
        });
        for i in order {
            let Some((key, network)) = policy.network_policies.get_index(i) else { continue };
            index.grants.push(Grant { name: network.display_name(key).to_owned(), binaries: Binaries::compile(&binaries[i])? });
            for endpoint in &network.endpoints {
                let number = index.endpoints.len() as Number;
                let indexed = IndexedEndpoint::compile(endpoint, index.grants.len() - 1)?;
                match &indexed.host {
                    None => index.without_host.push(number),
                    Some(HostPattern::Name(name)) => index.by_name.entry(name.clone()).or_default().push(number),
                    Some(HostPattern::Address(address)) => index.by_name.entry(address.to_string()).or_default().push(number),
                    Some(pattern @ HostPattern::Wildcard(_)) => {
                        let suffix = pattern.literal_suffix().unwrap_or_default();
                        index.by_suffix.entry(suffix).or_default().push(number);
                    }
                }
                index.endpoints.push(indexed);
            }
        }
        Ok(index)
    }

    /// Endpoints that cover a host, in order.
    fn covering_host(&self, host: &str) -> Vec<Number> {
        let mut found: Vec<Number> = self.by_name.get(host).into_iter().flatten().copied().collect();
        if !self.by_suffix.is_empty() {
            for (dot, _) in host.match_indices('.') {
                let filed = self.by_suffix.get(&host[dot + 1..]).into_iter().flatten().copied();
                found.extend(filed.filter(|n| self.endpoints[*n as usize].host.as_ref().is_some_and(|h| h.matches(host))));
            }
        }
        if !self.without_host.is_empty() {
            let address: Option<std::net::IpAddr> = host.parse().ok();
            let reaches = |n: &Number| address.is_none_or(|a| self.endpoints[*n as usize].networks.iter().any(|net| net.contains(&a)));
            found.extend(self.without_host.iter().copied().filter(reaches));
        }
        found.sort_unstable();
        found
    }

    /// Endpoints that cover host and port, in order.
    fn covering(&self, host: &str, port: u16) -> Vec<&IndexedEndpoint> {
        let endpoints = self.covering_host(host).into_iter().map(|n| &self.endpoints[n as usize]);
        endpoints.filter(|e| e.ports.contains(&port)).collect()
    }

    fn name_of(&self, endpoint: &IndexedEndpoint) -> &str {
        &self.grants[endpoint.grant].name
    }

    /// See [`super::Engine::connect`]; `host` is canonical.
    pub(super) fn connect(&self, process: Process<'_>, host: &str, port: u16) -> ConnectDecision {
        let deny = |policy: Option<&str>, reason: String| ConnectDecision {
            verdict: Verdict::Deny,
            policy: policy.map(str::to_owned),
            reason,
            endpoint: None,
        };
        if self.empty {
            return deny(None, sentence::no_policies());
        }
        let mut covering = self.covering(host, port);
        let Some(first) = covering.first().map(|e| self.name_of(e)) else {
            return deny(None, sentence::no_endpoint(host, port));
        };
        covering.retain(|e| self.grants[e.grant].binaries.grant(process));
        let Some(granted) = covering.first() else {
            return deny(Some(first), sentence::wrong_binary(process, first));
        };
        let policy = self.name_of(granted);
        ConnectDecision {
            verdict: Verdict::Allow,
            policy: Some(policy.to_owned()),
            reason: sentence::connect_allowed(policy, host, port),
            endpoint: Some(plan(&covering)),
        }
    }

    /// See [`super::Engine::request`]; `host` is canonical, the method in upper case.
    pub(super) fn request(&self, process: Process<'_>, host: &str, port: u16, request: RequestFacts<'_>) -> RequestDecision {
        let deny = |policy: Option<&str>, reason: String| RequestDecision {
            verdict: Verdict::Deny,
            policy: policy.map(str::to_owned),
            rule: None,
            reason,
        };
        if self.empty {
            return deny(None, sentence::no_policies());
        }
        let mut covering = self.covering(host, port);
        let Some(first) = covering.first().map(|e| self.name_of(e)) else {
            return deny(None, sentence::no_endpoint(host, port));
        };
        covering.retain(|e| self.grants[e.grant].binaries.grant(process));
        let Some(granted) = covering.first().map(|e| self.name_of(e)) else {
            return deny(Some(first), sentence::wrong_binary(process, first));
        };
        if !covering.iter().any(|e| e.inspection == Inspection::Http) {
            return RequestDecision {
                verdict: Verdict::Allow,
                policy: Some(granted.to_owned()),
                rule: None,
                reason: sentence::not_inspected(granted, host, port),
            };
        }
        covering.retain(|e| e.inspection == Inspection::Http);
        let inspected = covering.first().map_or(granted, |e| self.name_of(e));
        covering.retain(|e| e.path.matches(request.path));
        let Some(most) = covering.iter().map(|e| e.path.specificity()).max() else {
            return deny(Some(inspected), sentence::no_path(request, inspected, host, port));
        };
        covering.retain(|e| e.path.specificity() == most);
        let refusal = if covering.iter().any(|e| e.enforcement == Enforcement::Enforce) { Verdict::Deny } else { Verdict::Audit };
        if let Some((endpoint, rule)) = find(&covering, RuleList::Deny, request) {
            let policy = self.name_of(endpoint);
            return RequestDecision {
                verdict: refusal,
                policy: Some(policy.to_owned()),
                rule: Some(rule.words.clone()),
                reason: sentence::request_denied(request, &rule.words, policy),
            };
        }
        if let Some((endpoint, rule)) = find(&covering, RuleList::Allow, request) {
            let policy = self.name_of(endpoint);
            return RequestDecision {
                verdict: Verdict::Allow,
                policy: Some(policy.to_owned()),
                rule: Some(rule.words.clone()),
                reason: sentence::request_allowed(request, &rule.words, policy),
            };
        }
        let policy = covering.first().map_or(inspected, |e| self.name_of(e));
        RequestDecision {
            verdict: refusal,
            policy: Some(policy.to_owned()),
            rule: None,
            reason: sentence::request_not_allowed(request, policy, host, port),
        }
    }

    /// Whether some endpoint covers this name on any port.
    pub(super) fn names(&self, name: &str) -> bool {
        !name.is_empty() && !self.covering_host(name).is_empty()
    }
}

/// How a connection is carried that these endpoints grant: the strictest that any of them asks for.
fn plan(endpoints: &[&IndexedEndpoint]) -> EndpointPlan {
    let inspection = endpoints.iter().map(|e| e.inspection).max_by_key(|i| strictness(*i)).unwrap_or(Inspection::Http);
    let mut inspected = endpoints.iter().filter(|e| e.inspection == Inspection::Http).peekable();
    EndpointPlan {
        inspection,
        // Overlapping endpoints agree on their networks: a policy in which they do not is not valid.
        allowed_ips: endpoints.first().map(|e| e.networks.clone()).unwrap_or_default(),
        exact_host: endpoints.iter().any(|e| e.exact_host),
        allow_encoded_slash: inspected.peek().is_some() && inspected.all(|e| e.allow_encoded_slash),
        allow_uninspected_credentials: endpoints.iter().all(|e| e.allow_uninspected_credentials),
    }
}

/// Order of the inspections: what looks at more wins.
pub(super) fn strictness(inspection: Inspection) -> u8 {
    match inspection {
        Inspection::Connection => 0,
        Inspection::ServerName => 1,
        Inspection::Http => 2,
    }
}

/// The first rule of that list that speaks about the request.
fn find<'a>(
    endpoints: &[&'a IndexedEndpoint],
    list: RuleList,
    request: RequestFacts<'_>,
) -> Option<(&'a IndexedEndpoint, &'a IndexedRule)> {
    endpoints.iter().find_map(|endpoint| {
        let rules = match list {
            RuleList::Allow => &endpoint.allow,
            RuleList::Deny => &endpoint.deny,
        };
        rules.iter().find(|rule| rule.matches(list, request)).map(|rule| (*endpoint, rule))
    })
}

/// What is looked at on an endpoint.
pub(super) fn inspection_of(endpoint: &Endpoint) -> Inspection {
    if endpoint.is_inspected() {
        Inspection::Http
    } else if endpoint.tls == TlsMode::Skip {
        Inspection::ServerName
    } else {
        Inspection::Connection
    }
}

impl IndexedEndpoint {
    fn compile(endpoint: &Endpoint, grant: usize) -> Result<Self, CompileError> {
        let place = |what: &dyn std::fmt::Display| CompileError(format!("endpoint {}: {what}", endpoint.describe()));
        let host = if endpoint.host.is_empty() { None } else { Some(HostPattern::parse(&endpoint.host).map_err(|e| place(&e))?) };
        let mut allow = Vec::new();
        if let Some(preset) = endpoint.access {
            allow.push(IndexedRule {
                words: format!("access: {}", preset.as_str()),
                methods: preset.rest_methods().iter().filter(|m| **m != "*").map(|m| (*m).to_owned()).collect(),
                path: Glob::text("**").map_err(|e| place(&e))?,
                query: Vec::new(),
            });
        }
        for rule in endpoint.rules.iter().flatten().filter_map(|r| r.allow.as_ref()) {
            allow.push(IndexedRule::compile(rule).map_err(|e| place(&e))?);
        }
        let deny = endpoint.deny_rules.iter().flatten().map(IndexedRule::compile);
        Ok(Self {
            grant,
            exact_host: matches!(host, Some(HostPattern::Name(_) | HostPattern::Address(_))),
            host,
            ports: endpoint.all_ports().into_iter().collect(),
            networks: endpoint.networks(),
            inspection: inspection_of(endpoint),
            allow_encoded_slash: endpoint.allow_encoded_slash,
            allow_uninspected_credentials: endpoint.allow_uninspected_credentials,
            enforcement: endpoint.enforcement,
            path: PathSelector::parse(&endpoint.path).map_err(|e| place(&e))?,
            allow,
            deny: deny.collect::<Result<_, _>>().map_err(|e| place(&e))?,
        })
    }
}

impl IndexedRule {
    fn compile(rule: &RequestMatch) -> Result<Self, crate::glob::GlobError> {
        let methods = match rule.method.as_deref() {
            None | Some("*") => Vec::new(),
            Some(method) => {
                let mut methods = vec![method.to_ascii_uppercase()];
                if methods[0] == "GET" {
                    methods.push("HEAD".to_owned());
                }
                methods
            }
        };
        let globs = |matcher: &Matcher| matcher.globs().iter().map(|g| Glob::text(g)).collect::<Result<Vec<_>, _>>();
        Ok(Self {
            words: rule.describe(),
            methods,
            path: Glob::text(rule.path.as_deref().unwrap_or("**"))?,
            query: rule.query.iter().map(|(key, matcher)| Ok((key.clone(), globs(matcher)?))).collect::<Result<_, _>>()?,
        })
    }

    fn matches(&self, list: RuleList, request: RequestFacts<'_>) -> bool {
        let method = self.methods.is_empty() || self.methods.iter().any(|m| m == request.method);
        method && self.path.matches(request.path) && self.query.iter().all(|(key, globs)| query_matches(list, key, globs, request.query))
    }
}

/// A key that is missing never matches. Of several values all have to match for an allow rule, one
/// is enough for a deny rule.
fn query_matches(list: RuleList, key: &str, globs: &[Glob], query: &[(String, String)]) -> bool {
    let mut values = query.iter().filter(|(k, _)| k == key).map(|(_, value)| globs.iter().any(|glob| glob.matches(value)));
    match list {
        RuleList::Deny => values.any(|matched| matched),
        RuleList::Allow => values.next().is_some_and(|first| first && values.all(|matched| matched)),
    }
}
