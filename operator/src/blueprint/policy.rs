//! Which policy a sandbox has.

use kube::ResourceExt as _;
use openshell_crds::{OpenShellSandbox, Policy};

use super::{BlueprintError, PolicySource, Reason};

/// The policy of a sandbox and where it comes from.
pub(super) fn resolve(
    sandbox: &OpenShellSandbox,
    namespace: &str,
    policies: &[Policy],
) -> Result<(openshell_policy::Policy, PolicySource), BlueprintError> {
    match policy_of(sandbox, namespace, policies)? {
        PolicySource::Inline => {
            let document = sandbox.spec.policy.as_ref().map_or(&serde_json::Value::Null, |document| &document.0);
            Ok((parse_policy(document, "spec.policy")?, PolicySource::Inline))
        }
        PolicySource::Referenced(name) => Ok((named(&name, namespace, policies)?, PolicySource::Referenced(name))),
        PolicySource::Selected(name) => Ok((named(&name, namespace, policies)?, PolicySource::Selected(name))),
        PolicySource::Default => Ok((openshell_policy::Policy::restrictive_default(), PolicySource::Default)),
    }
}

fn named(name: &str, namespace: &str, policies: &[Policy]) -> Result<openshell_policy::Policy, BlueprintError> {
    let found =
        policies.iter().find(|p| p.name_any() == name && p.namespace().unwrap_or_default() == namespace).ok_or_else(|| not_found(name))?;
    parse_policy(&found.spec.policy.0, &format!("Policy \"{name}\""))
}

/// Where the policy of a sandbox comes from, without looking into the policy.
pub fn policy_of<'a>(
    sandbox: &OpenShellSandbox,
    namespace: &str,
    policies: impl IntoIterator<Item = &'a Policy>,
) -> Result<PolicySource, BlueprintError> {
    match (&sandbox.spec.policy, &sandbox.spec.policy_ref) {
        (Some(_), Some(_)) => Err(BlueprintError::new(
            Reason::PolicyAmbiguous,
            "the sandbox has both policy and policyRef; keep one: an inline policy replaces a referenced one",
        )),
        (Some(_), None) => Ok(PolicySource::Inline),
        (None, Some(reference)) => {
            let exists = policies.into_iter().any(|p| p.name_any() == reference.name && p.namespace().unwrap_or_default() == namespace);
            if exists { Ok(PolicySource::Referenced(reference.name.clone())) } else { Err(not_found(&reference.name)) }
        }
        (None, None) => selected(sandbox, namespace, policies),
    }
}

/// The one `Policy` whose selector matches.
fn selected<'a>(
    sandbox: &OpenShellSandbox,
    namespace: &str,
    policies: impl IntoIterator<Item = &'a Policy>,
) -> Result<PolicySource, BlueprintError> {
    let mut names: Vec<String> = policies
        .into_iter()
        .filter(|p| p.namespace().unwrap_or_default() == namespace && selects(p, sandbox))
        .map(kube::ResourceExt::name_any)
        .collect();
    names.sort();
    match names.len() {
        0 => Ok(PolicySource::Default),
        1 => Ok(PolicySource::Selected(names.remove(0))),
        _ => Err(BlueprintError::new(
            Reason::PolicyConflict,
            format!(
                "{} policies select this sandbox: {}; set policyRef, or narrow their selectors until one is left",
                names.len(),
                names.join(", ")
            ),
        )),
    }
}

/// Whether the policy's selector matches the sandbox's labels. A selector without labels
/// matches nothing: everything would be a surprise.
fn selects(policy: &Policy, sandbox: &OpenShellSandbox) -> bool {
    policy.spec.selector.as_ref().is_some_and(|selector| {
        !selector.match_labels.is_empty() && selector.match_labels.iter().all(|(key, value)| sandbox.labels().get(key) == Some(value))
    })
}

/// Parses a policy document strictly. `place` says whose it is.
pub fn parse_policy(document: &serde_json::Value, place: &str) -> Result<openshell_policy::Policy, BlueprintError> {
    openshell_policy::from_value(document).map_err(|error| BlueprintError {
        reason: Reason::PolicyRefused,
        message: truncated(&format!("{place} is refused: {error}")),
        findings: error.findings,
    })
}

fn not_found(name: &str) -> BlueprintError {
    BlueprintError::new(
        Reason::PolicyNotFound,
        format!("there is no Policy \"{name}\" in the sandbox's namespace; create it, or change policyRef"),
    )
}

/// A condition's message has a bound; what is cut off is said to be.
fn truncated(message: &str) -> String {
    let bound = crate::limits::CONDITION_MESSAGE;
    match message.char_indices().nth(bound) {
        Some((at, _)) => format!("{} … (and more)", &message[..at]),
        None => message.to_owned(),
    }
}
