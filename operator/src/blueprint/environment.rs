//! Environment variables: who may set which.
//!
//! The gateway's defaults give way to everyone. Between a sandbox and its providers nobody gives
//! way: two meanings of one name are an error, because the agent would see only one of them.

use std::collections::BTreeMap;

use openshell_crds::{OpenShellGateway, OpenShellSandbox};

use super::{BlueprintError, ProviderBinding, Reason};

/// Names that begin so are ours.
const RESERVED: &str = "OPENSHELL_";
/// Longest value, in bytes.
const LONGEST: usize = 8192;

/// The gateway's defaults and the sandbox's own variables, by name, without those that a
/// provider sets.
pub(super) fn merge(
    sandbox: &OpenShellSandbox,
    gateway: &OpenShellGateway,
    providers: &[ProviderBinding],
) -> Result<Vec<(String, String)>, BlueprintError> {
    let mut from_providers: BTreeMap<&str, &str> = BTreeMap::new();
    for binding in providers {
        let names = binding.credentials.iter().map(|c| c.env.as_str()).chain(binding.config.iter().map(|(name, _)| name.as_str()));
        for name in names {
            if let Some(other) = from_providers.insert(name, &binding.provider) {
                return Err(BlueprintError::new(
                    Reason::ProviderConflict,
                    format!(
                        "{name} comes from the providers \"{other}\" and \"{}\"; use one of them, or rename the variable",
                        binding.provider
                    ),
                ));
            }
        }
    }
    let mut own: BTreeMap<&str, &str> = BTreeMap::new();
    for variable in &sandbox.spec.env {
        valid(&variable.name, &variable.value)?;
        if let Some(provider) = from_providers.get(variable.name.as_str()) {
            return Err(BlueprintError::new(
                Reason::ProviderConflict,
                format!("{} is set by the sandbox's env and by the provider \"{provider}\"; take one of them away", variable.name),
            ));
        }
        if own.insert(&variable.name, &variable.value).is_some() {
            return Err(BlueprintError::new(Reason::EnvironmentInvalid, format!("env sets {} twice; set it once", variable.name)));
        }
    }
    for variable in &gateway.spec.sandbox_defaults.env {
        valid(&variable.name, &variable.value)?;
        if !from_providers.contains_key(variable.name.as_str()) {
            own.entry(&variable.name).or_insert(&variable.value);
        }
    }
    Ok(own.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
}

/// Whether a variable may be set in a sandbox.
pub(super) fn valid(name: &str, value: &str) -> Result<(), BlueprintError> {
    valid_name(name)?;
    if value.len() > LONGEST || value.contains('\0') {
        return Err(BlueprintError::new(Reason::EnvironmentInvalid, format!("{name}: a value has at most {LONGEST} bytes and no NUL")));
    }
    Ok(())
}

/// Whether a credential may be seen under this name: placeholders carry `v<digits>_` in front
/// of it, so a name of that form would be ambiguous.
pub(super) fn valid_credential_name(name: &str) -> Result<(), BlueprintError> {
    valid_name(name)?;
    let ambiguous = name
        .strip_prefix('v')
        .and_then(|rest| rest.split_once('_'))
        .is_some_and(|(digits, _)| !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()));
    if ambiguous {
        return Err(BlueprintError::new(
            Reason::EnvironmentReserved,
            format!("{name}: names of the form v<digits>_… are reserved for placeholders; choose another name"),
        ));
    }
    Ok(())
}

fn valid_name(name: &str) -> Result<(), BlueprintError> {
    let mut bytes = name.bytes();
    let identifier =
        bytes.next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_') && bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_');
    if !identifier || name.len() > 256 {
        return Err(BlueprintError::new(
            Reason::EnvironmentInvalid,
            format!("\"{name}\" is no variable name: letters, digits and _, not a digit first, at most 256"),
        ));
    }
    if name.starts_with(RESERVED) {
        return Err(BlueprintError::new(
            Reason::EnvironmentReserved,
            format!("{name}: names beginning with {RESERVED} are reserved; choose another name"),
        ));
    }
    Ok(())
}
