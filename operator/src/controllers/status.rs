//! Writing a status: only what is ours, only when it changed, never over someone else's change.

use std::fmt::Debug;

use kube::api::{Api, Patch, PatchParams};
use kube::core::DeserializeGuard;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

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
