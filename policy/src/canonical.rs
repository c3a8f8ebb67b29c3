//! One form for equal policies, and its hash.
//!
//! [`Policy::normalized`] gives every value one spelling; [`Policy::canonical_json`] writes that with
//! sorted keys and without defaults. Two files that differ only in formatting, in the order of keys,
//! in defaults that one of them spells out or in the spelling of a host, a port list or a network have
//! the same bytes, hence the same [`PolicyHash`]. The order of lists of endpoints, rules, binaries and
//! paths is kept: it is the author's, and messages refer to it.

use std::collections::BTreeSet;

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};
use sha2::Digest as _;

use crate::host::canonical_host;
use crate::model::{Endpoint, LandlockPolicy, Policy, Protocol, RequestMatch, parse_network};

/// Hash of the canonical form: `sha256:` and 64 hex digits.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PolicyHash(String);

impl PolicyHash {
    /// The text form.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Display for PolicyHash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl Policy {
    /// The same policy with every value in its one spelling.
    #[must_use]
    pub fn normalized(&self) -> Self {
        let mut policy = self.clone();
        policy.landlock = policy.landlock.filter(|l| *l != LandlockPolicy::default());
        policy.process = policy.process.filter(|p| p.run_as_user.is_some() || p.run_as_group.is_some());
        for identity in policy.process.iter_mut().flat_map(|p| [&mut p.run_as_user, &mut p.run_as_group]).flatten() {
            if let Ok(number) = identity.parse::<u32>() {
                *identity = number.to_string();
            }
        }
        policy.network_policies.sort_unstable_keys();
        for (key, network) in &mut policy.network_policies {
            network.name = network.name.take().filter(|name| name != key && !name.is_empty());
            network.endpoints.iter_mut().for_each(normalize_endpoint);
        }
        policy.network_middlewares.sort_unstable_keys();
        for (key, middleware) in &mut policy.network_middlewares {
            middleware.name = middleware.name.take().filter(|name| name != key && !name.is_empty());
        }
        policy
    }

    /// Canonical JSON: keys sorted, defaults left out. Equal policies have equal bytes.
    pub fn canonical_json(&self) -> Vec<u8> {
        let value = serde_json::to_value(self.normalized()).expect("a policy is plain data with string keys");
        serde_json::to_vec(&sorted(value)).expect("a JSON value can be written")
    }

    /// Hash of [`Policy::canonical_json`].
    pub fn hash(&self) -> PolicyHash {
        PolicyHash(format!("sha256:{}", hex::encode(sha2::Sha256::digest(self.canonical_json()))))
    }
}

fn normalize_endpoint(endpoint: &mut Endpoint) {
    endpoint.host = canonical_host(&endpoint.host).into_owned();
    let ports = endpoint.all_ports();
    (endpoint.port, endpoint.ports) =
        if ports.len() == 1 { (ports.first().copied(), Vec::new()) } else { (None, ports.into_iter().collect()) };
    if matches!(endpoint.path.as_str(), "**" | "/**") {
        endpoint.path.clear();
    }
    let networks: BTreeSet<String> =
        endpoint.allowed_ips.iter().map(|text| parse_network(text).map_or_else(|| text.clone(), |net| net.to_string())).collect();
    endpoint.allowed_ips = networks.into_iter().collect();
    let http = matches!(endpoint.protocol, Protocol::Rest | Protocol::Websocket);
    for rule in endpoint.rules.iter_mut().flatten() {
        rule.allow.iter_mut().for_each(|allow| normalize_match(allow, http));
    }
    endpoint.deny_rules.iter_mut().flatten().for_each(|deny| normalize_match(deny, http));
    endpoint.graphql_persisted_queries.sort_unstable_keys();
}

fn normalize_match(request: &mut RequestMatch, http: bool) {
    if http && let Some(method) = &mut request.method {
        method.make_ascii_uppercase();
    }
    request.query.sort_unstable_keys();
    request.params.sort_unstable_keys();
}

/// The same value with the keys of every object in order.
fn sorted(value: serde_json::Value) -> serde_json::Value {
    use serde_json::Value;
    match value {
        Value::Object(map) => {
            let mut map: IndexMap<String, Value> = map.into_iter().map(|(key, value)| (key, sorted(value))).collect();
            map.sort_unstable_keys();
            Value::Object(map.into_iter().collect())
        }
        Value::Array(items) => Value::Array(items.into_iter().map(sorted).collect()),
        other => other,
    }
}
