//! What providers bring: references to credentials, and the only places where they may go.

use std::collections::BTreeSet;

use kube::ResourceExt as _;
use openshell_crds::{OpenShellSandbox, Provider};
use openshell_policy::glob::PathSelector;
use openshell_policy::host::HostPattern;

use super::{BlueprintError, CredentialBinding, EndpointBinding, ProviderBinding, Reason, environment};

/// The bindings of a sandbox's providers, in the order of `providerRefs`.
pub(super) fn bind(sandbox: &OpenShellSandbox, namespace: &str, providers: &[Provider]) -> Result<Vec<ProviderBinding>, BlueprintError> {
    let mut seen = BTreeSet::new();
    let mut bound = Vec::with_capacity(sandbox.spec.provider_refs.len());
    for reference in &sandbox.spec.provider_refs {
        if !seen.insert(reference.name.as_str()) {
            return Err(BlueprintError::new(
                Reason::ProviderConflict,
                format!("providerRefs names \"{}\" twice; name it once", reference.name),
            ));
        }
        let provider = providers
            .iter()
            .find(|p| p.name_any() == reference.name && p.namespace().unwrap_or_default() == namespace)
            .ok_or_else(|| {
                BlueprintError::new(
                    Reason::ProviderNotFound,
                    format!(
                        "there is no Provider \"{}\" in the sandbox's namespace; create it, or take it out of providerRefs",
                        reference.name
                    ),
                )
            })?;
        bound.push(check_provider(provider)?);
    }
    Ok(bound)
}

/// What a provider brings, if it can be used as it is. Does not look at Secrets.
pub fn check_provider(provider: &Provider) -> Result<ProviderBinding, BlueprintError> {
    let name = provider.name_any();
    let refuse = |what: String| BlueprintError::new(Reason::ProviderRefused, format!("Provider \"{name}\": {what}"));
    if provider.spec.endpoints.is_empty() {
        return Err(refuse("endpoints is empty; name at least one host that the credentials are for".to_owned()));
    }
    let mut bindings = Vec::with_capacity(provider.spec.endpoints.len());
    for (i, endpoint) in provider.spec.endpoints.iter().enumerate() {
        let host = endpoint.host.to_ascii_lowercase();
        valid_host(&host).map_err(|why| refuse(format!("endpoints[{i}].host: {why}")))?;
        let port = u16::try_from(endpoint.port)
            .ok()
            .filter(|port| *port != 0)
            .ok_or_else(|| refuse(format!("endpoints[{i}].port: {} is no TCP port; use 1 to 65535", endpoint.port)))?;
        let path = endpoint.path.clone().unwrap_or_default();
        valid_path(&path).map_err(|why| refuse(format!("endpoints[{i}].path: {why}")))?;
        bindings.push(EndpointBinding { host, port, path });
    }
    let mut names = BTreeSet::new();
    let mut credentials = Vec::with_capacity(provider.spec.credentials.len());
    for credential in &provider.spec.credentials {
        environment::valid_credential_name(&credential.name).map_err(|error| refuse_env(&name, &error))?;
        if !names.insert(credential.name.as_str()) {
            return Err(twice(&credential.name, &name));
        }
        credentials.push(CredentialBinding {
            env: credential.name.clone(),
            secret_name: credential.secret_key_ref.name.clone(),
            secret_key: credential.secret_key_ref.key.clone(),
            bindings: bindings.clone(),
        });
    }
    let mut config = Vec::with_capacity(provider.spec.config.len());
    for variable in &provider.spec.config {
        environment::valid(&variable.name, &variable.value).map_err(|error| refuse_env(&name, &error))?;
        if !names.insert(variable.name.as_str()) {
            return Err(twice(&variable.name, &name));
        }
        config.push((variable.name.clone(), variable.value.clone()));
    }
    Ok(ProviderBinding { provider: name, credentials, config })
}

fn refuse_env(provider: &str, error: &BlueprintError) -> BlueprintError {
    BlueprintError::new(error.reason, format!("Provider \"{provider}\": {}", error.message))
}

fn twice(variable: &str, provider: &str) -> BlueprintError {
    BlueprintError::new(
        Reason::ProviderConflict,
        format!("Provider \"{provider}\" sets {variable} twice; a variable has one meaning in a sandbox"),
    )
}

/// Whether a credential may be bound to `host`: a name, an IP literal or a pattern, as a policy
/// may name it. The supervisor reads it by the same function.
pub fn valid_host(host: &str) -> Result<(), String> {
    HostPattern::parse(host).map(|_| ()).map_err(|why| format!("\"{host}\" {why}"))
}

/// Whether a credential may be bound to `path`: empty for any, a path or a glob over paths.
pub fn valid_path(path: &str) -> Result<(), String> {
    if !path.is_empty() && !path.starts_with('/') && !path.starts_with("**") {
        return Err(format!("\"{path}\" does not begin with / or **"));
    }
    PathSelector::parse(path).map(|_| ()).map_err(|why| format!("\"{path}\": {why}"))
}
