//! The gateway's Secrets in the API: read by name, never listed; made once, changed under their
//! resource version.

use std::collections::BTreeMap;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{Api, Patch, PatchParams, PostParams};
use openshell_crds::OpenShellGateway;

use super::FIELD_MANAGER;
use super::keys::{Data, Slot};
use super::render;
use super::verdict::{Obstacle, Verdict};

/// A Secret as it was read.
pub(super) struct Read {
    pub(super) data: Data,
    resource_version: Option<String>,
    /// Whether it goes with this very gateway object, and not with one of that name before it.
    owned: bool,
}

/// Name of a Secret.
pub(super) fn name(gateway: &OpenShellGateway, slot: Slot) -> String {
    match slot {
        Slot::Authority => gateway.authority_name(),
        Slot::Server => gateway.tls_secret_name(),
        Slot::Client => gateway.client_secret_name(),
        Slot::Token => gateway.jwt_secret_name(),
    }
}

/// Reads those that exist.
pub(super) async fn read(api: &Api<Secret>, gateway: &OpenShellGateway) -> Result<BTreeMap<Slot, Read>, Obstacle> {
    let mut found = BTreeMap::new();
    for slot in Slot::ALL {
        let name = name(gateway, slot);
        let read = api.get_opt(&name).await.map_err(|e| Obstacle::of(e, &format!("cannot read the Secret {name}")))?;
        let Some(secret) = read else { continue };
        let labels = secret.metadata.labels.unwrap_or_default();
        if !render::labels(gateway).iter().all(|(key, value)| labels.get(key) == Some(value)) {
            return Err(Obstacle::Stuck(Verdict::stuck(
                "SecretNotOurs",
                format!("the Secret {name} exists and the operator did not make it; it is not touched. Delete it, or rename what uses it"),
            )));
        }
        let owners = secret.metadata.owner_references.unwrap_or_default();
        let owned = owners.iter().any(|owner| Some(&owner.uid) == gateway.metadata.uid.as_ref());
        let data = secret.data.unwrap_or_default().into_iter().map(|(key, ByteString(bytes))| (key, bytes)).collect();
        found.insert(slot, Read { data, resource_version: secret.metadata.resource_version, owned });
    }
    Ok(found)
}

/// Writes those that differ; says whether somebody else was faster, and nothing was overwritten.
pub(super) async fn write(
    api: &Api<Secret>,
    gateway: &OpenShellGateway,
    found: &BTreeMap<Slot, Read>,
    wanted: &BTreeMap<Slot, Data>,
) -> Result<bool, Obstacle> {
    for (slot, data) in wanted {
        let name = name(gateway, *slot);
        let mut secret = secret(gateway, *slot, &name, data);
        let answer = match found.get(slot) {
            Some(read) if read.data == *data && read.owned => continue,
            Some(read) => {
                secret.metadata.resource_version.clone_from(&read.resource_version);
                api.patch(&name, &PatchParams::apply(FIELD_MANAGER).force(), &Patch::Apply(&secret)).await
            }
            // Not by apply: that one would overwrite what another operator made a moment ago.
            None => api.create(&PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() }, &secret).await,
        };
        match answer {
            Ok(_) => {}
            Err(kube::Error::Api(status)) if status.code == 409 => return Ok(true),
            Err(error) => return Err(Obstacle::of(error, &format!("cannot write the Secret {name}"))),
        }
    }
    Ok(false)
}

fn secret(gateway: &OpenShellGateway, slot: Slot, name: &str, data: &Data) -> Secret {
    Secret {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            namespace: gateway.metadata.namespace.clone(),
            labels: Some(render::labels(gateway)),
            owner_references: render::owner(gateway).map(|owner| vec![owner]),
            ..ObjectMeta::default()
        },
        type_: Some(if slot == Slot::Token { "Opaque" } else { "kubernetes.io/tls" }.to_owned()),
        data: Some(data.iter().map(|(key, bytes)| (key.clone(), ByteString(bytes.clone()))).collect()),
        ..Secret::default()
    }
}
