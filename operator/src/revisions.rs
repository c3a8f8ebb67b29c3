//! The history of a sandbox's policy: one `apps/v1 ControllerRevision` per change.
//!
//! Every change of the policy in effect is a revision 1, 2, ... of that sandbox, whether it came
//! from its own spec, from a `Policy` it refers to, or from one that selects it. A revision is
//! named `<sandbox>-p<N>`, is owned by the sandbox (and goes with it) and carries the canonical
//! policy and its hash. The newest [`limits::REVISIONS_KEPT`] are kept.
//!
//! Most sandboxes never have a second policy. Their first one stands in their status
//! (`status.policy.document`), which is written anyway, and is recorded when a second one follows.

use k8s_openapi::api::apps::v1::ControllerRevision;
use k8s_openapi::apimachinery::pkg::runtime::RawExtension;
use kube::api::{Api, DeleteParams, ListParams, ObjectMeta, PostParams, Preconditions};
use kube::{Client, Resource as _, ResourceExt as _};
use openshell_crds::{OpenShellSandbox, labels};
use openshell_policy::Policy;
use serde_json::{Value, json};

use crate::limits;

/// Annotation with the policy's hash (too long for a label).
pub const POLICY_HASH: &str = "openshell.ai/policy-hash";

/// One recorded policy.
#[derive(Clone, Debug, PartialEq)]
pub struct Revision {
    /// 1, 2, ...
    pub number: i64,
    /// Hash of the policy.
    pub hash: String,
    /// The policy, canonical.
    pub policy: Value,
    /// When it was recorded.
    pub created: Option<jiff::Timestamp>,
}

impl Revision {
    /// A policy, with the number that it has.
    pub fn of(number: i64, policy: &Policy) -> Result<Self, serde_json::Error> {
        let document = serde_json::from_slice(&policy.canonical_json())?;
        Ok(Self { number, hash: policy.hash().as_str().to_owned(), policy: document, created: None })
    }
}

/// The number of a policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Numbered {
    /// 1, 2, ...
    pub number: i64,
    /// Whether it is recorded. The first one is not: the sandbox's status keeps it until a second one follows.
    pub recorded: bool,
}

/// The history could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum RevisionError {
    /// The API refused or could not be reached.
    #[error("the policy history of sandbox \"{sandbox}\" cannot be {what}: {source}")]
    Api {
        /// Name of the sandbox.
        sandbox: String,
        /// `read` or `written`.
        what: &'static str,
        /// Why.
        source: Box<kube::Error>,
    },
    /// The policy is no JSON.
    #[error("the policy of sandbox \"{sandbox}\" cannot be recorded: {source}")]
    NotJson {
        /// Name of the sandbox.
        sandbox: String,
        /// Why.
        source: serde_json::Error,
    },
    /// The sandbox was never stored.
    #[error("sandbox \"{sandbox}\" has no uid, so nothing can be recorded for it")]
    NoOwner {
        /// Name of the sandbox.
        sandbox: String,
    },
    /// Others were always faster.
    #[error("no revision number could be taken for sandbox \"{sandbox}\": too many writers at once; try again")]
    Contended {
        /// Name of the sandbox.
        sandbox: String,
    },
}

/// Gives the policy of a sandbox its number, and records it unless it is the first one. The policy that
/// is the newest already keeps its number. `first` is what the sandbox has had until now, if nothing is
/// recorded yet: it is recorded before what follows it.
pub async fn record(
    client: &Client,
    owner: &OpenShellSandbox,
    first: Option<&Revision>,
    canonical_json: &[u8],
    hash: &str,
) -> Result<Numbered, RevisionError> {
    let sandbox = owner.name_any();
    let uid = owner.uid().ok_or_else(|| RevisionError::NoOwner { sandbox: sandbox.clone() })?;
    let policy: Value =
        serde_json::from_slice(canonical_json).map_err(|source| RevisionError::NotJson { sandbox: sandbox.clone(), source })?;
    let api: Api<ControllerRevision> = Api::namespaced(client.clone(), &owner.namespace().unwrap_or_default());
    for _ in 0..limits::REVISION_ATTEMPTS {
        let known = objects(&api, &uid).await.map_err(error(&sandbox, "read"))?;
        let next = match (known.last(), first) {
            (Some(newest), _) if hash_of(newest) == hash => return Ok(Numbered { number: newest.revision, recorded: true }),
            (Some(newest), _) => Revision { number: newest.revision + 1, hash: hash.to_owned(), policy: policy.clone(), created: None },
            (None, Some(first)) if first.hash == hash => return Ok(Numbered { number: first.number, recorded: false }),
            (None, Some(first)) => first.clone(),
            (None, None) if canonical_json.len() <= limits::POLICY_IN_STATUS => return Ok(Numbered { number: 1, recorded: false }),
            (None, None) => Revision { number: 1, hash: hash.to_owned(), policy: policy.clone(), created: None },
        };
        let (number, is_it) = (next.number, next.hash == hash);
        let object = object(owner, next);
        match api.create(&PostParams { field_manager: Some(crate::FIELD_MANAGER.to_owned()), ..PostParams::default() }, &object).await {
            Ok(_) if is_it => {
                prune(&api, &known).await;
                return Ok(Numbered { number, recorded: true });
            }
            Ok(_) => {}
            // Someone else recorded in between, or an earlier sandbox of this name left its
            // history behind and it has not been collected yet.
            Err(kube::Error::Api(status)) if status.code == 409 => {
                remove_foreign(&api, &object.name_any(), &uid).await.map_err(error(&sandbox, "written"))?;
            }
            Err(source) => return Err(error(&sandbox, "written")(source)),
        }
    }
    Err(RevisionError::Contended { sandbox })
}

fn error(sandbox: &str, what: &'static str) -> impl FnOnce(kube::Error) -> RevisionError {
    let sandbox = sandbox.to_owned();
    move |source| RevisionError::Api { sandbox, what, source: Box::new(source) }
}

fn object(owner: &OpenShellSandbox, revision: Revision) -> ControllerRevision {
    ControllerRevision {
        metadata: ObjectMeta {
            name: Some(format!("{}-p{}", owner.name_any(), revision.number)),
            namespace: owner.namespace(),
            labels: Some([(labels::SANDBOX_ID.to_owned(), owner.uid().unwrap_or_default())].into()),
            annotations: Some([(POLICY_HASH.to_owned(), revision.hash)].into()),
            owner_references: owner.controller_owner_ref(&()).map(|reference| vec![reference]),
            ..ObjectMeta::default()
        },
        data: Some(RawExtension(json!({ "policy": revision.policy }))),
        revision: revision.number,
    }
}

/// The only revision that a sandbox has had, as its status keeps it; not what somebody made of it.
pub fn kept(sandbox: &OpenShellSandbox) -> Option<Revision> {
    let status = sandbox.status.as_ref()?.policy.as_ref()?;
    let policy: Value = serde_json::from_str(status.document.as_ref()?).ok()?;
    let hash = openshell_policy::from_value(&policy).ok()?.hash();
    let created = sandbox.metadata.creation_timestamp.as_ref().map(|time| time.0);
    (hash.as_str() == status.hash).then(|| Revision { number: status.revision, hash: status.hash.clone(), policy, created })
}

/// All revisions of a sandbox, oldest first.
pub async fn list(client: &Client, sandbox: &OpenShellSandbox) -> Result<Vec<Revision>, RevisionError> {
    let api: Api<ControllerRevision> = Api::namespaced(client.clone(), &sandbox.namespace().unwrap_or_default());
    let found = objects(&api, &sandbox.uid().unwrap_or_default()).await.map_err(error(&sandbox.name_any(), "read"))?;
    if found.is_empty() {
        return Ok(kept(sandbox).into_iter().collect());
    }
    Ok(found.into_iter().map(Revision::from).collect())
}

impl From<ControllerRevision> for Revision {
    fn from(object: ControllerRevision) -> Self {
        let hash = hash_of(&object).to_owned();
        let created = object.metadata.creation_timestamp.as_ref().map(|time| time.0);
        let policy = object.data.map_or(Value::Null, |mut data| data.0.get_mut("policy").map_or(Value::Null, Value::take));
        Self { number: object.revision, hash, policy, created }
    }
}

fn hash_of(object: &ControllerRevision) -> &str {
    object.annotations().get(POLICY_HASH).map_or("", String::as_str)
}

async fn objects(api: &Api<ControllerRevision>, uid: &str) -> Result<Vec<ControllerRevision>, kube::Error> {
    let mut found = api.list(&ListParams::default().labels(&format!("{}={uid}", labels::SANDBOX_ID))).await?.items;
    found.sort_by_key(|object| object.revision);
    Ok(found)
}

/// Deletes the oldest beyond the bound. A failure only leaves one too many for the next time.
async fn prune(api: &Api<ControllerRevision>, known: &[ControllerRevision]) {
    let excess = (known.len() + 1).saturating_sub(limits::REVISIONS_KEPT);
    for object in &known[..excess.min(known.len())] {
        if let Err(error) = api.delete(&object.name_any(), &DeleteParams::default()).await {
            tracing::debug!(revision = object.name_any(), %error, "an old policy revision was not deleted");
        }
    }
}

/// Deletes a revision of that name if it belongs to another sandbox.
async fn remove_foreign(api: &Api<ControllerRevision>, name: &str, uid: &str) -> Result<(), kube::Error> {
    let Some(object) = api.get_opt(name).await? else { return Ok(()) };
    if object.labels().get(labels::SANDBOX_ID).is_some_and(|owner| owner == uid) {
        return Ok(());
    }
    let exactly = Preconditions { uid: object.uid(), resource_version: None };
    match api.delete(name, &DeleteParams { preconditions: Some(exactly), ..DeleteParams::default() }).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use openshell_crds::{OpenShellSandboxSpec, OpenShellSandboxStatus, sandbox::PolicyInForce};

    use super::*;

    #[test]
    fn a_document_that_somebody_changed_is_none() {
        let policy = Policy::restrictive_default();
        let first = Revision::of(1, &policy).unwrap();
        let kept_as = |document: String| {
            let policy = PolicyInForce { revision: 1, hash: first.hash.clone(), document: Some(document), ..PolicyInForce::default() };
            let mut sandbox = OpenShellSandbox::new("demo", OpenShellSandboxSpec::default());
            sandbox.status = Some(OpenShellSandboxStatus { policy: Some(policy), ..OpenShellSandboxStatus::default() });
            kept(&sandbox)
        };
        assert_eq!(kept_as(first.policy.to_string()), Some(first.clone()));
        let mut other = first.policy.clone();
        other["network_policies"] =
            json!({ "any": { "endpoints": [{ "host": "example.com", "port": 443 }], "binaries": [{ "path": "/**" }] } });
        assert!(openshell_policy::from_value(&other).is_ok(), "a policy, but not that one");
        assert_eq!(kept_as(other.to_string()), None);
        assert_eq!(kept_as("no policy".to_owned()), None);
    }
}
