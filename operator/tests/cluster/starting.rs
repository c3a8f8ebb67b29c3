//! What keeps a sandbox from starting, in its conditions.

use k8s_openapi::api::core::v1::{ConfigMap, ResourceQuota};
use kube::api::{DeleteParams, PostParams};
use openshell_crds::agents::Sandbox;
use openshell_crds::conditions;
use openshell_crds::sandbox::Phase;
use serde_json::json;

use crate::rig::Rig;

#[tokio::test(flavor = "multi_thread")]
async fn each_cause_is_told_in_words() {
    let Some(rig) = Rig::start(json!({})).await else { return };
    rig.create("no-image", json!({ "image": "localhost/openshell-test/missing:1" })).await;
    rig.create("no-node", json!({ "nodeSelector": { "example.com/there-is": "none" } })).await;
    rig.create("exit-69", json!({})).await;
    rig.create("no-class", json!({ "runtimeClassName": "there-is-none" })).await;

    let message = rig.reason("no-image", conditions::READY, "ImagePullFailed").await;
    assert!(message.contains("localhost/openshell-test/missing:1"), "{message}");
    let message = rig.reason("no-node", conditions::READY, "Unschedulable").await;
    assert!(message.contains("node"), "{message}");
    let message = rig.reason("exit-69", conditions::STALLED, "EnforcementUnavailable").await;
    assert!(message.contains("ends as its name says"), "{message}");
    rig.phase("exit-69", Phase::Error).await;
    let message = rig.reason("no-class", conditions::READY, "PodRefused").await;
    assert!(message.contains("there-is-none"), "{message}");

    for name in ["no-image", "no-node"] {
        assert_eq!(rig.get(name).await.status.unwrap().phase, Some(Phase::Provisioning), "{name} may still start");
    }
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_only_an_event_tells_is_told() {
    let Some(rig) = Rig::start(json!({})).await else { return };
    rig.api::<ConfigMap>().delete("default-gateway-ca", &DeleteParams::default()).await.unwrap();
    rig.create("demo", json!({})).await;
    let message = rig.reason("demo", conditions::READY, "PodNotStarted").await;
    assert!(message.contains("default-gateway-ca"), "{message}");
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quota_is_told_and_waited_for() {
    let Some(rig) = Rig::idle(json!({})).await else { return };
    let quota = json!({ "metadata": { "name": "none" }, "spec": { "hard": { "pods": "0" } } });
    rig.make::<ResourceQuota>(serde_json::from_value(quota).unwrap()).await;
    crate::rig::eventually("the quota counts", async || {
        rig.api::<ResourceQuota>().get("none").await.unwrap().status.is_some_and(|status| status.used.is_some())
    })
    .await;
    let mut rig = rig;
    rig.operate(rig.client.clone());
    let uid = rig.create("demo", json!({})).await;
    rig.reason("demo", conditions::READY, "QuotaExceeded").await;
    rig.api::<ResourceQuota>().delete("none", &DeleteParams::default()).await.unwrap();
    // The agent-sandbox controller tries again with a growing pause.
    rig.pod(&uid, None).await;
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sandbox_of_somebody_else_is_left_alone() {
    let Some(rig) = Rig::start(json!({})).await else { return };
    let foreign: Sandbox = serde_json::from_value(json!({
        "apiVersion": "agents.x-k8s.io/v1beta1", "kind": "Sandbox",
        "metadata": { "name": "demo" },
        "spec": { "operatingMode": "Suspended", "podTemplate": { "spec": { "containers": [{ "name": "main", "image": "there-is-none" }] } } },
    }))
    .unwrap();
    rig.agents().create(&PostParams::default(), &foreign).await.unwrap();
    let uid = rig.create("demo", json!({})).await;
    rig.reason("demo", conditions::READY, "NameConflict").await;
    let there = rig.agents().get("demo").await.unwrap();
    assert_eq!(there.spec.pod_template.spec.containers[0].name, "main");
    assert!(there.metadata.owner_references.is_none());
    rig.agents().delete("demo", &DeleteParams::default()).await.unwrap();
    rig.pod(&uid, None).await;
    rig.stop().await;
}
