//! The gateway that an operator deploys.

use std::time::Duration;

use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt as _;
use kube::api::DeleteParams;
use openshell_crds::OpenShellGateway;
use openshell_crds::conditions::{self, STALLED};
use serde_json::json;

use crate::rig::{Operator, Rig, eventually};

/// Notice of it comes from a watch: the next look at everything is ten minutes away.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_certificate_of_another_name_is_put_back() {
    let Some(mut rig) = Rig::idle(json!({})).await else { return };
    // No node takes its pod, so nothing else changes that would be a reason to look.
    rig.patch_gateway(json!({ "deployment": { "nodeSelector": { "example.com/there-is": "none" } } })).await;
    rig.operator = Some(Operator::deploying(rig.client.clone(), &rig.namespace));
    eventually("it has come to rest", async || {
        let status = rig.api::<OpenShellGateway>().get("default").await.unwrap().status.unwrap_or_default();
        conditions::find(&status.conditions, STALLED).is_some_and(|stalled| stalled.reason == "Unschedulable")
    })
    .await;
    for name in ["default-gateway-client-tls", "people", "others"] {
        rig.patch_gateway(json!({ "tls": { "clientTlsSecretName": name } })).await;
        let uid = async || rig.api::<Secret>().get_opt(name).await.unwrap().and_then(|secret| secret.uid());
        eventually("it is there", async || uid().await.is_some()).await;
        tokio::time::sleep(Duration::from_secs(2)).await;
        let first = uid().await.unwrap();
        rig.api::<Secret>().delete(name, &DeleteParams::default()).await.unwrap();
        eventually(&format!("{name} is back"), async || uid().await.is_some_and(|uid| uid != first)).await;
    }
    rig.stop().await;
}
