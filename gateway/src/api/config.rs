//! Policies of sandboxes: changing them, and how far a change has come.
//!
//! A change is written to the object (`spec.policy`), recorded as a revision, and pushed by the
//! session. What it may change while the sandbox runs is looked at here, so that the answer
//! comes at once; the session looks again, because objects are also written by others.

use kube::ResourceExt as _;
use openshell_crds::OpenShellSandbox;
use openshell_crds::conditions::{self, POLICY_ACKNOWLEDGED};
use openshell_crds::sandbox::PolicyInForce;
use openshell_operator::revisions::{self, Revision};
use openshell_policy::Policy;
use openshell_proto::{sandbox as wire, v1};
use tonic::{Request, Status};

use super::managed::Force;
use super::objects::Change;
use super::{Api, check, page, scope};
use crate::auth::Principal;
use crate::convert::{policy as convert, time};
use crate::errors::{self, Violations};
use crate::limits;

pub(super) async fn update(api: &Api, request: Request<v1::UpdateConfigRequest>) -> Result<v1::UpdateConfigResponse, Status> {
    if let Some(Principal::Sandbox(_)) = request.extensions().get() {
        let why = "a sandbox may not change its own policy; its user does that".to_owned();
        return Err(errors::permission_denied("PERMISSION_DENIED", why));
    }
    let force = Force::of(&request)?;
    let request = request.into_inner();
    let id = request.request_id.clone();
    api.requests.once("UpdateConfig", &id, request.clone(), Box::pin(update_once(api, request, force))).await
}

async fn update_once(api: &Api, request: v1::UpdateConfigRequest, force: Force) -> Result<v1::UpdateConfigResponse, Status> {
    scope::one(request.workspace_scope.as_ref())?;
    let forms = [
        ("a full policy", request.policy.is_some()),
        ("one setting", !request.setting_key.is_empty() || request.setting_value.is_some() || request.delete_setting),
        ("merge operations", !request.merge_operations.is_empty()),
    ];
    let mut asked = forms.iter().filter(|(_, asked)| *asked);
    match (asked.next(), asked.next()) {
        (Some(_), None) => {}
        _ => return Err(errors::invalid("policy", "give exactly one of policy, setting_key and merge_operations")),
    }
    let form = |name| Err(errors::unimplemented_form("UpdateConfig", name));
    if request.global {
        return form("a gateway-wide policy or setting");
    }
    if !request.annotations.is_empty() {
        return form("an annotation of a revision");
    }
    let Some(message) = &request.policy else {
        return form(if request.merge_operations.is_empty() { "a setting" } else { "a merge operation" });
    };

    let mut v = Violations::default();
    let policy = check::policy("policy", message, &mut v);
    v.into_result()?;
    let policy = policy.ok_or_else(|| errors::internal("a policy without findings was refused"))?;
    let name = &request.sandbox;
    let mut probe = api.sandbox(name).await?;
    if let Some(reference) = &probe.spec.policy_ref {
        let why = format!("sandbox '{name}' takes its policy from the Policy '{}'; change that object", reference.name);
        return Err(errors::failed_precondition("POLICY_REFERENCED", why));
    }
    let (before, revision) = effective(api, &probe).await?;
    let policy = fitted(api, &probe, policy, &before).await?;
    // What the sandbox has had until now, if it is the first: it is recorded before this one.
    let first = match revisions::kept(&probe) {
        Some(kept) => kept,
        None => Revision::of(revision.max(1), &before).map_err(|e| errors::internal(e.to_string()))?,
    };
    probe.spec.policy = Some(convert::document(&policy));
    api.admit(&probe, "").await?;

    let (written, _) = api
        .change_sandbox(name, request.expected_resource_version, force, |sandbox| {
            if sandbox.spec.policy.as_ref().is_some_and(|d| openshell_policy::from_value(&d.0).is_ok_and(|p| p.hash() == policy.hash())) {
                return Ok(Change::Nothing);
            }
            sandbox.spec.policy = Some(convert::document(&policy));
            Ok(Change::Write)
        })
        .await?;
    let hash = policy.hash();
    let numbered = revisions::record(&api.client, &written, Some(&first), &policy.canonical_json(), hash.as_str()).await;
    let number = numbered.map_err(|e| errors::internal(e.to_string()))?.number;
    tracing::info!(sandbox = name, revision = number, "policy set");
    Ok(v1::UpdateConfigResponse { version: number as u32, policy_hash: hash.as_str().to_owned(), ..v1::UpdateConfigResponse::default() })
}

/// The policy as it can be set on this sandbox. Its filesystem part is kept where the request
/// leaves it out, so that what is recorded says all of what is enforced; and what is fixed while a
/// sandbox runs has to be as it is. A stopped one takes everything: nothing of it runs.
async fn fitted(api: &Api, sandbox: &OpenShellSandbox, mut policy: Policy, wanted: &Policy) -> Result<Policy, Status> {
    // What the objects ask for is what runs, or will in a moment, unless it has to wait for a start.
    let in_force = if sandbox.is_suspended() { None } else { in_force(api, sandbox).await? };
    let base = in_force.filter(|running| running.check_live_change(wanted).is_err()).unwrap_or_else(|| wanted.clone());
    if policy.filesystem_policy.is_none() {
        policy.filesystem_policy.clone_from(&base.filesystem_policy);
    }
    // The one that is asked for already is recorded already, and the session says what becomes of it.
    if !sandbox.is_suspended()
        && wanted.hash() != policy.hash()
        && let Err(mut error) = base.check_live_change(&policy)
    {
        for finding in &mut error.findings {
            let keep =
                if finding.path.starts_with("filesystem_policy") { "leave `filesystem_policy` out to keep what runs, or " } else { "" };
            let name = sandbox.name_any();
            let start = format!("stop the sandbox, set the policy, and start it (`openshell sandbox stop {name}`, `start {name}`)");
            finding.message = format!("{}; {keep}{start}", finding.message);
        }
        let mut v = Violations::default();
        convert::violations("policy", &error, &mut v);
        v.into_result()?;
    }
    Ok(policy)
}

/// The policy that the sandbox's supervisor acknowledged, while it is connected: one that is gone
/// may come back with another.
async fn in_force(api: &Api, sandbox: &OpenShellSandbox) -> Result<Option<Policy>, Status> {
    let Some(status) = sandbox.status.as_ref().filter(|s| s.session.as_ref().is_some_and(|session| session.connected)) else {
        return Ok(None);
    };
    let Some(acknowledged) = status.policy.as_ref().and_then(|p| p.acknowledged_revision) else { return Ok(None) };
    let recorded = history(api, sandbox).await?.into_iter().find(|r| r.number == acknowledged);
    Ok(recorded.and_then(|r| openshell_policy::from_value(&r.policy).ok()))
}

/// The policy that the sandbox's objects ask for.
async fn effective(api: &Api, sandbox: &OpenShellSandbox) -> Result<(Policy, i64), Status> {
    let revision = sandbox.status.as_ref().and_then(|s| s.policy.as_ref()).map_or(0, |p| p.revision);
    if let Some(document) = &sandbox.spec.policy {
        // One that is not valid is not in force; what is, is the newest revision.
        if let Ok(policy) = openshell_policy::from_value(&document.0) {
            return Ok((policy, revision));
        }
        let history = history(api, sandbox).await?;
        return match history.last().map(|r| openshell_policy::from_value(&r.policy)) {
            Some(Ok(policy)) => Ok((policy, revision)),
            _ => Ok((Policy::restrictive_default(), revision)),
        };
    }
    Ok((api.admit(sandbox, "").await?.policy, revision))
}

async fn history(api: &Api, sandbox: &OpenShellSandbox) -> Result<Vec<Revision>, Status> {
    revisions::list(&api.client, sandbox).await.map_err(|e| errors::internal(e.to_string()))
}

pub(super) async fn get(api: &Api, request: Request<wire::GetSandboxConfigRequest>) -> Result<wire::GetSandboxConfigResponse, Status> {
    let principal = request.extensions().get::<Principal>().cloned();
    let request = request.into_inner();
    scope::one(request.workspace_scope.as_ref())?;
    let sandbox = api.sandbox(&request.name).await?;
    if let Some(Principal::Sandbox(own)) = principal
        && sandbox.uid().as_deref() != Some(own.sandbox_id.as_str())
    {
        return Err(errors::permission_denied("PERMISSION_DENIED", "the token is for another sandbox".to_owned()));
    }
    let (policy, revision) = effective(api, &sandbox).await?;
    let in_force = sandbox.status.as_ref().and_then(|s| s.policy.clone()).unwrap_or_default();
    Ok(wire::GetSandboxConfigResponse {
        policy: Some(openshell_proto::policy::to_wire(&policy)),
        version: revision as u32,
        policy_hash: policy.hash().as_str().to_owned(),
        config_revision: sandbox.metadata.generation.unwrap_or_default() as u64,
        policy_source: wire::PolicySource::Sandbox.into(),
        workspace: openshell_crds::labels::DEFAULT_WORKSPACE.to_owned(),
        configuration_admitted: in_force.revision > 0 && in_force.acknowledged_revision == Some(in_force.revision),
        configuration_instance_id: sandbox
            .status
            .as_ref()
            .and_then(|s| s.session.as_ref())
            .map(|s| s.instance_id.clone())
            .unwrap_or_default(),
        configuration_error: in_force.error.unwrap_or_default(),
        ..wire::GetSandboxConfigResponse::default()
    })
}

/// How far a revision has come.
fn state(number: i64, in_force: &PolicyInForce) -> (v1::PolicyStatus, String) {
    let acknowledged = in_force.acknowledged_revision.unwrap_or_default();
    match (&in_force.error, number.cmp(&acknowledged)) {
        (_, std::cmp::Ordering::Equal) => (v1::PolicyStatus::Loaded, String::new()),
        (_, std::cmp::Ordering::Less) => (v1::PolicyStatus::Superseded, String::new()),
        (Some(error), _) if number == in_force.revision => (v1::PolicyStatus::Failed, error.clone()),
        _ if number < in_force.revision => (v1::PolicyStatus::Superseded, String::new()),
        _ => (v1::PolicyStatus::Pending, String::new()),
    }
}

fn revision_to_wire(revision: &Revision, sandbox: &OpenShellSandbox) -> v1::SandboxPolicyRevision {
    let status = sandbox.status.as_ref();
    let in_force = status.and_then(|s| s.policy.clone()).unwrap_or_default();
    let (state, load_error) = state(revision.number, &in_force);
    let acknowledged_at = status
        .and_then(|s| conditions::find(&s.conditions, POLICY_ACKNOWLEDGED))
        .filter(|c| c.status == conditions::Is::True.as_str() && state == v1::PolicyStatus::Loaded)
        .map(|c| time::to_wire(&c.last_transition_time));
    v1::SandboxPolicyRevision {
        version: revision.number as u32,
        policy_hash: revision.hash.clone(),
        status: state.into(),
        load_error,
        policy: openshell_policy::from_value(&revision.policy).ok().map(|p| openshell_proto::policy::to_wire(&p)),
        created_time: revision.created.map(time::from_jiff),
        loaded_time: acknowledged_at,
        ..v1::SandboxPolicyRevision::default()
    }
}

pub(super) async fn status(
    api: &Api,
    request: Request<v1::GetSandboxPolicyStatusRequest>,
) -> Result<v1::GetSandboxPolicyStatusResponse, Status> {
    let request = request.into_inner();
    scope::one(request.workspace_scope.as_ref())?;
    if request.global {
        return Err(errors::unimplemented_form("GetSandboxPolicyStatus", "a gateway-wide policy"));
    }
    let sandbox = api.sandbox(&request.sandbox).await?;
    let history = history(api, &sandbox).await?;
    let found = match request.version {
        0 => history.last(),
        number => history.iter().find(|r| r.number == i64::from(number)),
    };
    let found = found.ok_or_else(|| match request.version {
        0 => errors::failed_precondition(
            "NO_POLICY_YET",
            format!("sandbox '{}' has no policy revision yet: it is starting", request.sandbox),
        ),
        number => errors::not_found("policy revision", &number.to_string()),
    })?;
    let active = sandbox.status.as_ref().and_then(|s| s.policy.as_ref()).and_then(|p| p.acknowledged_revision).unwrap_or_default();
    Ok(v1::GetSandboxPolicyStatusResponse { revision: Some(revision_to_wire(found, &sandbox)), active_version: active as u32 })
}

pub(super) async fn list(api: &Api, request: Request<v1::ListSandboxPoliciesRequest>) -> Result<v1::ListSandboxPoliciesResponse, Status> {
    let request = request.into_inner();
    scope::one(request.workspace_scope.as_ref())?;
    if request.global {
        return Err(errors::unimplemented_form("ListSandboxPolicies", "a gateway-wide policy"));
    }
    let size = page::size(request.page_size, limits::POLICY_PAGE_DEFAULT)?;
    // Newest first; a token says below which number the next page begins.
    let list = format!("policies of {}", request.sandbox);
    let below = match request.page_token.as_str() {
        "" => i64::MAX,
        token => page::open(token, &list)?.parse().map_err(|_| errors::invalid("page_token", "it is not a token of this list"))?,
    };
    let sandbox = api.sandbox(&request.sandbox).await?;
    let mut older: Vec<Revision> = history(api, &sandbox).await?.into_iter().filter(|r| r.number < below).collect();
    older.reverse();
    let next = if older.len() > size { page::next(Some(&older[size - 1].number.to_string()), &list) } else { String::new() };
    older.truncate(size);
    Ok(v1::ListSandboxPoliciesResponse { revisions: older.iter().map(|r| revision_to_wire(r, &sandbox)).collect(), next_page_token: next })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_a_revision_stands() {
        use v1::PolicyStatus::{Failed, Loaded, Pending, Superseded};
        let at = |revision, acknowledged, error: Option<&str>| PolicyInForce {
            revision,
            hash: String::new(),
            document: None,
            acknowledged_revision: acknowledged,
            error: error.map(str::to_owned),
        };
        for (number, in_force, expected) in [
            (1, at(1, None, None), Pending),
            (1, at(1, Some(1), None), Loaded),
            (1, at(2, Some(1), None), Loaded),
            (2, at(2, Some(1), None), Pending),
            (2, at(2, Some(1), Some("no")), Failed),
            (1, at(2, Some(1), Some("no")), Loaded),
            (1, at(2, Some(2), None), Superseded),
            (2, at(3, Some(1), None), Superseded),
            (3, at(2, Some(2), None), Pending),
        ] {
            assert_eq!(state(number, &in_force).0, expected, "{number} in {in_force:?}");
        }
    }
}
