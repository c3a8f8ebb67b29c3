//! Providers: objects, wire, and the endpoints that a type stands for.
//!
//! The wire has no endpoints; credentials without a destination would be good for any. So a
//! known type stands for the endpoints of its service, and the configuration key `endpoints`
//! (`host[:port][/path]`, separated by commas) names others. It is not put into the agent's
//! environment.

use std::collections::HashMap;

use openshell_crds::Provider;
use openshell_crds::provider::{CredentialSource, ProviderEndpoint, ProviderSpec, SecretKeyRef};
use openshell_crds::sandbox::EnvVar;
use openshell_operator::blueprint;
use openshell_proto::datamodel;

use super::meta;

/// What answers show in place of a credential's value.
pub(crate) const REDACTED: &str = "REDACTED";
/// Configuration key of the endpoints.
pub(crate) const ENDPOINTS: &str = "endpoints";

/// Name of the Secret of a provider.
pub(crate) fn secret_name(provider: &str) -> String {
    format!("osprov-{provider}")
}

/// A provider as clients see it.
pub(crate) fn to_wire(object: &Provider) -> datamodel::Provider {
    let mut config: HashMap<String, String> = object.spec.config.iter().map(|v| (v.name.clone(), v.value.clone())).collect();
    config.insert(ENDPOINTS.to_owned(), object.spec.endpoints.iter().map(endpoint_text).collect::<Vec<_>>().join(","));
    datamodel::Provider {
        metadata: Some(meta::to_wire(&object.metadata)),
        r#type: object.spec.type_.clone(),
        credentials: object.spec.credentials.iter().map(|c| (c.name.clone(), REDACTED.to_owned())).collect(),
        config,
        ..datamodel::Provider::default()
    }
}

/// The spec of a provider whose values are in the Secret [`secret_name`].
pub(crate) fn spec_from_wire(wire: &datamodel::Provider, name: &str, endpoints: Vec<ProviderEndpoint>) -> ProviderSpec {
    let mut credentials: Vec<CredentialSource> = wire
        .credentials
        .keys()
        .map(|key| CredentialSource { name: key.clone(), secret_key_ref: SecretKeyRef { name: secret_name(name), key: key.clone() } })
        .collect();
    credentials.sort_by(|a, b| a.name.cmp(&b.name));
    let mut config: Vec<EnvVar> = wire
        .config
        .iter()
        .filter(|(key, _)| *key != ENDPOINTS)
        .map(|(name, value)| EnvVar { name: name.clone(), value: value.clone() })
        .collect();
    config.sort_by(|a, b| a.name.cmp(&b.name));
    ProviderSpec { type_: wire.r#type.clone(), credentials, endpoints, config }
}

/// `host[:port][/path]`.
fn endpoint_text(endpoint: &ProviderEndpoint) -> String {
    let host = if endpoint.host.contains(':') { format!("[{}]", endpoint.host) } else { endpoint.host.clone() };
    let port = if endpoint.port == 443 { String::new() } else { format!(":{}", endpoint.port) };
    format!("{host}{port}{}", endpoint.path.as_deref().unwrap_or_default())
}

/// Reads a list of `host[:port][/path]`.
pub(crate) fn endpoints(text: &str) -> Result<Vec<ProviderEndpoint>, String> {
    text.split(',').map(str::trim).filter(|item| !item.is_empty()).map(endpoint).collect()
}

fn endpoint(item: &str) -> Result<ProviderEndpoint, String> {
    if item.contains("://") {
        return Err(format!("'{item}': leave the scheme out: host[:port][/path]"));
    }
    let (authority, path) = match item.find('/') {
        Some(at) => (&item[..at], Some(item[at..].to_owned())),
        None => (item, None),
    };
    let (host, port) = match authority.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((v6, rest)) => (v6, rest.strip_prefix(':')),
        None => match authority.rsplit_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (authority, None),
        },
    };
    let port = match port {
        None => 443,
        Some(text) => text.parse::<u16>().ok().filter(|p| *p != 0).ok_or_else(|| format!("'{item}': '{text}' is no TCP port"))?,
    };
    let host = host.to_ascii_lowercase();
    blueprint::valid_host(&host).map_err(|why| format!("'{item}': {why}"))?;
    blueprint::valid_path(path.as_deref().unwrap_or_default()).map_err(|why| format!("'{item}': {why}"))?;
    Ok(ProviderEndpoint { host, port: i32::from(port), path })
}

/// The endpoints of the service that a type stands for; empty for a type that stands for none.
pub(crate) fn built_in(type_: &str) -> &'static [&'static str] {
    match type_ {
        "github" => &["api.github.com", "github.com", "uploads.github.com"],
        "gitlab" => &["gitlab.com"],
        "anthropic" | "claude" | "claude-code" => &["api.anthropic.com"],
        "openai" | "codex" => &["api.openai.com"],
        "copilot" => &["api.githubcopilot.com", "*.githubcopilot.com", "api.github.com"],
        "cursor" => &["api2.cursor.sh"],
        "nvidia" => &["integrate.api.nvidia.com"],
        "deepinfra" => &["api.deepinfra.com"],
        "pypi" => &["pypi.org", "upload.pypi.org"],
        _ => &[],
    }
}
