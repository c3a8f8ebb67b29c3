//! Writing a status: only what is ours, only when it changed, never over someone else's change.

use std::fmt::Debug;
use std::time::Duration;

use k8s_openapi::NamespaceResourceScope;
use kube::api::{Api, Patch, PatchParams};
use kube::core::{ApiResource, DeserializeGuard, DynamicObject, ObjectMeta};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use super::Shared;
use super::events::{Events, Tells};
use crate::{FIELD_MANAGER, limits};

/// What became of a write.
#[derive(Debug)]
pub(super) enum Written<K> {
    /// It is there; this is the object now.
    Done(Box<K>),
    /// The object has changed since it was read: read it and decide again.
    Conflict,
    /// The object is gone.
    Gone,
    /// The API server takes no change of it, for this reason; most often because the object, as it is
    /// stored, does not fit its definition.
    Refused(String),
}

/// Writes `fields` into the status of the version that was read.
pub(super) async fn write<K>(
    api: &Api<DeserializeGuard<K>>,
    name: &str,
    resource_version: Option<&str>,
    fields: Map<String, Value>,
) -> Result<Written<DeserializeGuard<K>>, kube::Error>
where
    K: kube::Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned,
{
    let patch = json!({ "metadata": { "resourceVersion": resource_version }, "status": fields });
    settle(api.patch_status(name, &manager(), &Patch::Merge(&patch)).await)
}

/// Writes the whole status if it differs, and tells what has turned with it. Gives the pause after
/// which the object is looked at again: soon, if it has changed since it was read.
pub(super) async fn say<K, S>(
    api: &Api<DeserializeGuard<K>>,
    events: &Events,
    object: &ObjectMeta,
    before: &S,
    after: &S,
) -> Result<Duration, kube::Error>
where
    K: kube::Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned,
    S: Tells + PartialEq + Serialize,
{
    if before == after {
        return Ok(limits::RESYNC);
    }
    let Value::Object(fields) = field(after) else { return Ok(limits::RESYNC) };
    match write(api, object.name.as_deref().unwrap_or_default(), object.resource_version.as_deref(), fields).await? {
        Written::Done(_) => events.tell::<K>(object, S::turned(before, after)),
        Written::Refused(why) => {
            events.untold::<K>(object, after.conditions(), &why);
            return Ok(limits::BACKOFF_LONGEST);
        }
        Written::Conflict => return Ok(limits::BACKOFF_FIRST),
        Written::Gone => {}
    }
    Ok(limits::RESYNC)
}

/// The status of an object that cannot be read otherwise. None if it is gone, or if its status cannot
/// be read either, which is told.
pub(super) async fn unread<K, S>(api: &Api<DeserializeGuard<K>>, shared: &Shared, object: &ObjectMeta) -> Result<Option<S>, kube::Error>
where
    K: kube::Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    S: Default + DeserializeOwned,
{
    let kind = ApiResource::erase::<K>(&());
    let api: Api<DynamicObject> = Api::namespaced_with(shared.config.client.clone(), api.namespace().unwrap_or_default(), &kind);
    let Some(found) = api.get_opt(object.name.as_deref().unwrap_or_default()).await? else { return Ok(None) };
    let Some(status) = found.data.get("status") else { return Ok(Some(S::default())) };
    match serde_json::from_value(status.clone()) {
        Ok(status) => Ok(Some(status)),
        Err(error) => {
            shared.events.untold::<K>(object, &[], &format!("neither the object nor its status can be read: {error}"));
            Ok(None)
        }
    }
}

/// Sets the finalizers of the version that was read.
pub(super) async fn set_finalizers<K>(
    api: &Api<DeserializeGuard<K>>,
    name: &str,
    resource_version: Option<&str>,
    finalizers: &[String],
) -> Result<Written<DeserializeGuard<K>>, kube::Error>
where
    K: kube::Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned,
{
    let patch = json!({ "metadata": { "resourceVersion": resource_version, "finalizers": finalizers } });
    settle(api.patch(name, &manager(), &Patch::Merge(&patch)).await)
}

fn settle<K>(answer: Result<K, kube::Error>) -> Result<Written<K>, kube::Error> {
    match answer {
        Ok(object) => Ok(Written::Done(Box::new(object))),
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(Written::Conflict),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(Written::Gone),
        Err(kube::Error::Api(status)) if status.code == 422 => Ok(Written::Refused(status.message)),
        Err(error) => Err(error),
    }
}

/// Ourselves, as the one who writes.
fn manager() -> PatchParams {
    PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() }
}

/// A field of a merge patch: `None` takes it away.
pub(super) fn field(value: &impl serde::Serialize) -> Value {
    serde_json::to_value(value).unwrap_or(Value::Null)
}
