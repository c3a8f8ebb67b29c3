//! Writing a status: only what is ours, only when it changed, never over someone else's change.

use std::fmt::Debug;

use k8s_openapi::NamespaceResourceScope;
use kube::Client;
use kube::api::{Api, Patch, PatchParams};
use kube::core::{ApiResource, DeserializeGuard, DynamicObject, ObjectMeta};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use super::events::{Events, Tells, Turn};
use crate::FIELD_MANAGER;

/// What became of a write.
#[derive(Debug)]
pub(super) enum Written<K> {
    /// It is there; this is the object now.
    Done(Box<K>),
    /// The object has changed since it was read: read it and decide again.
    Conflict,
    /// The object is gone.
    Gone,
    /// The API server takes no change of it: as it is stored, it does not fit its definition.
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

/// Writes the whole status if it differs, and tells what has turned with it. False: the object has
/// changed since it was read.
pub(super) async fn say<K, S>(
    api: &Api<DeserializeGuard<K>>,
    events: &Events,
    object: &ObjectMeta,
    before: &S,
    after: &S,
) -> Result<bool, kube::Error>
where
    K: kube::Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned,
    S: Tells + PartialEq + Serialize,
{
    if before == after {
        return Ok(true);
    }
    let Value::Object(fields) = field(after) else { return Ok(true) };
    match write(api, object.name.as_deref().unwrap_or_default(), object.resource_version.as_deref(), fields).await? {
        Written::Done(_) => events.tell::<K>(object, S::turned(before, after)),
        Written::Refused(why) => events.tell::<K>(object, [Turn::untold(after.conditions(), &why)]),
        Written::Conflict => return Ok(false),
        Written::Gone => {}
    }
    Ok(true)
}

/// The status of an object that cannot be read otherwise; none if the object is gone, or its status
/// cannot be read either.
pub(super) async fn unread<K, S>(api: &Api<DeserializeGuard<K>>, client: &Client, name: &str) -> Result<Option<S>, kube::Error>
where
    K: kube::Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    S: Default + DeserializeOwned,
{
    let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), api.namespace().unwrap_or_default(), &ApiResource::erase::<K>(&()));
    let Some(object) = api.get_opt(name).await? else { return Ok(None) };
    match object.data.get("status") {
        None => Ok(Some(S::default())),
        Some(status) => Ok(serde_json::from_value(status.clone()).ok()),
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

/// A field of a merge patch: what is absent is taken away.
pub(super) fn field(value: &impl serde::Serialize) -> Value {
    serde_json::to_value(value).unwrap_or(Value::Null)
}
