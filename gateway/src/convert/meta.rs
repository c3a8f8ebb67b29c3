//! Metadata of objects.

use std::collections::{BTreeMap, HashMap};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use openshell_crds::labels;
use openshell_proto::datamodel;

use super::time;

/// Labels and annotations below this domain are ours: requests may not set them, and answers do
/// not show them.
pub(crate) const RESERVED: &str = "openshell.ai/";
/// Annotation: the request that made the object, for a client that asks again.
pub(crate) const REQUEST_ID: &str = "openshell.ai/request-id";
/// Annotation: the main process waits for the first attachment.
pub(crate) const AWAIT_ATTACHMENT: &str = "openshell.ai/await-attachment";

/// The metadata of an object.
pub(crate) fn to_wire(meta: &ObjectMeta) -> datamodel::ObjectMeta {
    let workspace = meta.labels.as_ref().and_then(|l| l.get(labels::WORKSPACE)).map_or(labels::DEFAULT_WORKSPACE, String::as_str);
    datamodel::ObjectMeta {
        id: meta.uid.clone().unwrap_or_default(),
        name: meta.name.clone().unwrap_or_default(),
        labels: visible(meta.labels.as_ref()),
        resource_version: meta.resource_version.as_deref().and_then(|v| v.parse().ok()).unwrap_or_default(),
        annotations: visible(meta.annotations.as_ref()),
        workspace: workspace.to_owned(),
        created_time: meta.creation_timestamp.as_ref().map(time::to_wire),
        deletion_time: meta.deletion_timestamp.as_ref().map(time::to_wire),
    }
}

fn visible(map: Option<&BTreeMap<String, String>>) -> HashMap<String, String> {
    let shown = |key: &&String| !key.starts_with(RESERVED) && *key != "kubectl.kubernetes.io/last-applied-configuration";
    map.into_iter().flatten().filter(|(key, _)| shown(key)).map(|(k, v)| (k.clone(), v.clone())).collect()
}
