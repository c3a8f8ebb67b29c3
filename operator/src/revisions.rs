//! The history of a sandbox's policy: one `apps/v1 ControllerRevision` per change.
//!
//! Every change of the policy in effect is a revision 1, 2, ... of that sandbox, whether it came
//! from its own spec, from a `Policy` it refers to, or from one that selects it. A revision is
//! named `<sandbox>-p<N>`, is owned by the sandbox (and goes with it) and carries the canonical
//! policy and its hash. The newest [`limits::REVISIONS_KEPT`] are kept.

use k8s_openapi::api::apps::v1::ControllerRevision;
use k8s_openapi::apimachinery::pkg::runtime::RawExtension;
use kube::api::{Api, DeleteParams, ListParams, ObjectMeta, PostParams, Preconditions};
use kube::{Client, Resource as _, ResourceExt as _};
use openshell_crds::{OpenShellSandbox, labels};
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

/// The history could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum RevisionError {
    /// The API refused or could not be reached.
    #[error("the policy history of sandbox \"{sandbox}\" cannot be {what}: {source}")]
    Api {
        /// Name or UID of the sandbox.
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

/// Records a policy for a sandbox and gives its number. The policy that is the newest already
/// keeps its number.
pub async fn record(client: &Client, owner: &OpenShellSandbox, canonical_json: &[u8], hash: &str) -> Result<i64, RevisionError> {
    let sandbox = owner.name_any();
    let uid = owner.uid().ok_or_else(|| RevisionError::NoOwner { sandbox: sandbox.clone() })?;
    let namespace = owner.namespace().unwrap_or_default();
    let policy: Value =
        serde_json::from_slice(canonical_json).map_err(|source| RevisionError::NotJson { sandbox: sandbox.clone(), source })?;
    let api: Api<ControllerRevision> = Api::namespaced(client.clone(), &namespace);
    let api_error = |what| {
        let sandbox = sandbox.clone();
        move |source| RevisionError::Api { sandbox, what, source: Box::new(source) }
    };
    for _ in 0..limits::REVISION_ATTEMPTS {
        let known = objects(&api, &uid).await.map_err(api_error("read"))?;
        if let Some(newest) = known.last()
            && hash_of(newest) == hash
        {
            return Ok(newest.revision);
        }
        let number = known.last().map_or(0, |newest| newest.revision) + 1;
        let name = format!("{sandbox}-p{number}");
        let object = ControllerRevision {
            metadata: ObjectMeta {
                name: Some(name.clone()),
                namespace: Some(namespace.clone()),
                labels: Some([(labels::SANDBOX_ID.to_owned(), uid.clone())].into()),
                annotations: Some([(POLICY_HASH.to_owned(), hash.to_owned())].into()),
                owner_references: owner.controller_owner_ref(&()).map(|reference| vec![reference]),
                ..ObjectMeta::default()
            },
            data: Some(RawExtension(json!({ "policy": policy.clone() }))),
            revision: number,
        };
        match api.create(&PostParams { field_manager: Some(crate::FIELD_MANAGER.to_owned()), ..PostParams::default() }, &object).await {
            Ok(_) => {
                prune(&api, &known).await;
                return Ok(number);
            }
            // Someone else recorded in between, or an earlier sandbox of this name left its
            // history behind and it has not been collected yet.
            Err(kube::Error::Api(status)) if status.code == 409 => remove_foreign(&api, &name, &uid).await.map_err(api_error("written"))?,
            Err(source) => return Err(api_error("written")(source)),
        }
    }
    Err(RevisionError::Contended { sandbox })
}

/// All recorded revisions of a sandbox, oldest first.
pub async fn list(client: &Client, namespace: &str, uid: &str) -> Result<Vec<Revision>, RevisionError> {
    let api: Api<ControllerRevision> = Api::namespaced(client.clone(), namespace);
    let found = objects(&api, uid).await.map_err(|source| RevisionError::Api {
        sandbox: uid.to_owned(),
        what: "read",
        source: Box::new(source),
    })?;
    Ok(found.into_iter().map(Revision::from).collect())
}

/// One revision of a sandbox.
pub async fn get(client: &Client, namespace: &str, uid: &str, number: i64) -> Result<Option<Revision>, RevisionError> {
    Ok(list(client, namespace, uid).await?.into_iter().find(|revision| revision.number == number))
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
