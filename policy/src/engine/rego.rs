//! The rules themselves: `policy/rego/*.rego` over the policy file.
//!
//! The file is the modules' data. Globs and host patterns are handed over as anchored regular
//! expressions beside it, because the language's own `glob.match` has other ideas of `*` and `[…]`
//! than the policy language; the translation is compared with the native matchers by tests.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use regorus::Value;
use serde::Deserialize;
use serde_json::json;

use super::index::Index;
use super::sentence::{self, RuleList};
use super::upper_case;
use crate::glob::{Glob, PathSelector};
use crate::host::{HostPattern, canonical_host};
use crate::model::{Endpoint, Matcher, Policy};
use crate::{CompileError, ConnectDecision, EndpointPlan, Inspection, Process, RequestDecision, RequestFacts, Verdict};

/// The built-in modules.
const MODULES: [(&str, &str); 2] =
    [("network.rego", include_str!("../../rego/network.rego")), ("request.rego", include_str!("../../rego/request.rego"))];

/// How many endpoints of a policy [`crate::Engine::verify`] asks the rules about, and for how long: the rules
/// take time in proportion to the policy.
const PROBES: usize = 64;
const PROBE_TIME: Duration = Duration::from_millis(50);

/// The rules in Rego over one policy.
#[derive(Clone)]
pub struct Authority {
    policy: Arc<Policy>,
    connect: regorus::CompiledPolicy,
    request: regorus::CompiledPolicy,
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authority").finish_non_exhaustive()
    }
}

impl Authority {
    /// Loads a normalised policy; `binaries` are the executables of each of its policies.
    pub(super) fn load(policy: &Policy, binaries: &[Vec<String>]) -> Result<Self, CompileError> {
        let failed = |e: &dyn std::fmt::Display| CompileError(format!("{e:#}"));
        let mut engine = regorus::Engine::new();
        for (name, text) in MODULES {
            engine.add_policy(name.to_owned(), text.to_owned()).map_err(|e| failed(&e))?;
        }
        let file = serde_json::to_value(policy).map_err(|e| failed(&e))?;
        let data = json!({ "policy": file, "patterns": patterns(policy)?, "binaries": executables(policy, binaries)? });
        engine.add_data(Value::from(data)).map_err(|e| failed(&e))?;
        let mut entry =
            |rule: &str| engine.compile_with_entrypoint(&Arc::from(format!("data.openshell.sandbox.{rule}"))).map_err(|e| failed(&e));
        Ok(Self { policy: Arc::new(policy.clone()), connect: entry("connect")?, request: entry("request")? })
    }

    /// What the rules say about a connection.
    pub fn connect(&self, process: Process<'_>, host: &str, port: u16) -> Result<ConnectDecision, CompileError> {
        let host = &*canonical_host(host);
        let input = json!({ "exec": process, "network": network(host, port) });
        let answer: ConnectAnswer = ask(&self.connect, input)?;
        let policy = answer.policy.unwrap_or_default();
        let reason = match answer.cause.as_deref() {
            None => sentence::connect_allowed(&policy, host, port),
            Some(cause) => connection_cause(cause, process, &policy, host, port)?,
        };
        let endpoint = answer.plan.map(EndpointPlan::try_from).transpose()?;
        Ok(ConnectDecision { verdict: answer.action.into(), policy: Some(policy).filter(|p| !p.is_empty()), reason, endpoint })
    }

    /// What the rules say about a request.
    pub fn request(&self, process: Process<'_>, host: &str, port: u16, request: RequestFacts<'_>) -> Result<RequestDecision, CompileError> {
        let host = &*canonical_host(host);
        let method = upper_case(request.method);
        let request = RequestFacts { method: &method, ..request };
        let mut query: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for (key, value) in request.query {
            query.entry(key).or_default().push(value);
        }
        let input = json!({
            "exec": process,
            "network": network(host, port),
            "request": { "method": request.method, "path": request.path, "query_params": query },
        });
        let answer: RequestAnswer = ask(&self.request, input)?;
        let policy = answer.policy.unwrap_or_default();
        let list = if answer.cause == "denied" { RuleList::Deny } else { RuleList::Allow };
        let rule = answer.rule.and_then(|(_, key, endpoint, rule)| sentence::rule_words(&self.policy, &key, endpoint, list, rule));
        let words = rule.as_deref().unwrap_or_default();
        let reason = match answer.cause.as_str() {
            "not_inspected" => sentence::not_inspected(&policy, host, port),
            "no_path" => sentence::no_path(request, &policy, host, port),
            "denied" => sentence::request_denied(request, words, &policy),
            "allowed" => sentence::request_allowed(request, words, &policy),
            "not_allowed" => sentence::request_not_allowed(request, &policy, host, port),
            cause => connection_cause(cause, process, &policy, host, port)?,
        };
        Ok(RequestDecision { verdict: answer.action.into(), policy: Some(policy).filter(|p| !p.is_empty()), rule, reason })
    }
}

impl Authority {
    /// Asks index and rules about the first endpoints of this very policy.
    pub(super) fn check(&self, index: &Index) -> Result<(), CompileError> {
        let started = Instant::now();
        let networks = self.policy.network_policies.values();
        let probes = networks.flat_map(|network| network.endpoints.iter().map(move |endpoint| (network, endpoint)));
        for (network, endpoint) in probes.take(PROBES) {
            let host = if endpoint.host.is_empty() { "probe.invalid".to_owned() } else { endpoint.host.replace('*', "probe") };
            let Some(port) = endpoint.all_ports().first().copied() else { continue };
            let path = network.binaries.first().map_or_else(|| "/probe".to_owned(), |b| b.path.replace('*', "probe"));
            let process = Process { path: &path, ancestors: &[] };
            let rule = endpoint.rules.iter().flatten().filter_map(|r| r.allow.as_ref()).chain(endpoint.deny_rules.iter().flatten()).next();
            let path = rule.and_then(|r| r.path.as_deref()).unwrap_or("/").replace('*', "probe");
            let method = rule.and_then(|r| r.method.as_deref()).filter(|m| *m != "*").unwrap_or("GET");
            let facts = RequestFacts { method, path: &path, query: &[] };
            same(&index.connect(process, &host, port), &self.connect(process, &host, port)?)?;
            same(&index.request(process, &host, port, facts), &self.request(process, &host, port, facts)?)?;
            if started.elapsed() > PROBE_TIME {
                break;
            }
        }
        Ok(())
    }
}

fn same<T: PartialEq + std::fmt::Debug>(index: &T, rules: &T) -> Result<(), CompileError> {
    if index == rules { Ok(()) } else { Err(CompileError(format!("the index says {index:?}, the rules say {rules:?}"))) }
}

fn network(host: &str, port: u16) -> serde_json::Value {
    json!({ "host": host, "port": port, "address": host.parse::<std::net::IpAddr>().is_ok() })
}

fn connection_cause(cause: &str, process: Process<'_>, policy: &str, host: &str, port: u16) -> Result<String, CompileError> {
    match cause {
        "no_policies" => Ok(sentence::no_policies()),
        "no_endpoint" => Ok(sentence::no_endpoint(host, port)),
        "wrong_binary" => Ok(sentence::wrong_binary(process, policy)),
        other => Err(CompileError(format!("the rules gave the cause `{other}`, which has no words"))),
    }
}

fn ask<T: serde::de::DeserializeOwned>(rules: &regorus::CompiledPolicy, input: serde_json::Value) -> Result<T, CompileError> {
    let answer = rules.eval_with_input(Value::from(input)).map_err(|e| CompileError(format!("{e:#}")))?;
    let answer = answer.to_json_str().map_err(|e| CompileError(format!("{e:#}")))?;
    serde_json::from_str(&answer).map_err(|e| CompileError(format!("the rules answered {answer}: {e}")))
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Action {
    Allow,
    Deny,
    Audit,
}

impl From<Action> for Verdict {
    fn from(action: Action) -> Self {
        match action {
            Action::Allow => Self::Allow,
            Action::Deny => Self::Deny,
            Action::Audit => Self::Audit,
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ConnectAnswer {
    action: Action,
    cause: Option<String>,
    policy: Option<String>,
    plan: Option<PlanAnswer>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PlanAnswer {
    inspection: String,
    allowed_ips: Vec<ipnet::IpNet>,
    exact_host: bool,
    allow_encoded_slash: bool,
    allow_uninspected_credentials: bool,
}

impl TryFrom<PlanAnswer> for EndpointPlan {
    type Error = CompileError;

    fn try_from(answer: PlanAnswer) -> Result<Self, CompileError> {
        let inspection = match answer.inspection.as_str() {
            "connection" => Inspection::Connection,
            "server_name" => Inspection::ServerName,
            "http" => Inspection::Http,
            other => return Err(CompileError(format!("the rules ask for the inspection `{other}`"))),
        };
        Ok(Self {
            inspection,
            allowed_ips: answer.allowed_ips,
            exact_host: answer.exact_host,
            allow_encoded_slash: answer.allow_encoded_slash,
            allow_uninspected_credentials: answer.allow_uninspected_credentials,
        })
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RequestAnswer {
    action: Action,
    cause: String,
    policy: Option<String>,
    rule: Option<(String, String, usize, usize)>,
}

/// Every wildcard and glob of the policy as a regular expression, by its text.
fn patterns(policy: &Policy) -> Result<serde_json::Value, CompileError> {
    let failed = |what: &str, e: &dyn std::fmt::Display| CompileError(format!("`{what}`: {e}"));
    let mut hosts = BTreeMap::new();
    let mut texts = BTreeMap::from([("**", Glob::text("**").map_err(|e| failed("**", &e))?.to_regex())]);
    let mut selectors = BTreeMap::new();
    for endpoint in policy.network_policies.values().flat_map(|network| &network.endpoints) {
        if endpoint.host.contains('*') {
            let pattern = HostPattern::parse(&endpoint.host).map_err(|e| failed(&endpoint.host, &e))?;
            hosts.insert(endpoint.host.as_str(), pattern.to_regex());
        }
        let selector = PathSelector::parse(&endpoint.path).map_err(|e| failed(&endpoint.path, &e))?;
        selectors.insert(endpoint.path.as_str(), selector.to_regexes());
        for text in texts_of(endpoint) {
            if !texts.contains_key(text) {
                texts.insert(text, Glob::text(text).map_err(|e| failed(text, &e))?.to_regex());
            }
        }
    }
    Ok(json!({ "host": hosts, "text": texts, "selector": selectors }))
}

/// Who may use each policy: paths that are compared as they are, and globs as regular expressions.
fn executables(policy: &Policy, binaries: &[Vec<String>]) -> Result<serde_json::Value, CompileError> {
    let mut executables = serde_json::Map::new();
    for (key, configured) in policy.network_policies.keys().zip(binaries) {
        let (mut paths, mut patterns) = (Vec::new(), Vec::new());
        for path in configured {
            let glob = Glob::path(path).map_err(|e| CompileError(format!("`{path}`: {e}")))?;
            if glob.is_literal() { paths.push(path) } else { patterns.push(glob.to_regex()) }
        }
        executables.insert(key.clone(), json!({ "paths": paths, "patterns": patterns }));
    }
    Ok(executables.into())
}

fn texts_of(endpoint: &Endpoint) -> Vec<&str> {
    let matches = endpoint.rules.iter().flatten().filter_map(|rule| rule.allow.as_ref()).chain(endpoint.deny_rules.iter().flatten());
    let mut texts: Vec<&str> = Vec::new();
    for request in matches {
        texts.extend(request.path.as_deref());
        texts.extend(request.query.values().flat_map(Matcher::globs).map(String::as_str));
    }
    texts
}
