//! What keeps a sandbox from starting, in its conditions.

use k8s_openapi::api::core::v1::{ConfigMap, Pod, ResourceQuota};
use k8s_openapi::api::node::v1::RuntimeClass;
use kube::api::{Api, ApiResource, DeleteParams, DynamicObject, GroupVersionKind, ListParams, PostParams};
use openshell_crds::agents::Sandbox;
use openshell_crds::conditions;
use openshell_crds::pod::SideloadMethod;
use openshell_crds::sandbox::Phase;
use serde_json::{Value, json};

use crate::rig::{Rig, eventually};

#[tokio::test(flavor = "multi_thread")]
async fn each_cause_is_told_in_words() {
    let Some(rig) = Rig::start(json!({})).await else { return };
    rig.create("no-image", json!({ "image": "localhost/openshell-test/missing:1" })).await;
    rig.create("no-node", json!({ "nodeSelector": { "example.com/there-is": "none" } })).await;
    rig.create("exit-69", json!({})).await;
    rig.create("says-69", json!({})).await;
    rig.create("says-137", json!({})).await;
    rig.create("no-class", json!({ "runtimeClassName": "there-is-none" })).await;

    let message = rig.reason("no-image", conditions::READY, "ImagePullFailed").await;
    assert!(message.contains("localhost/openshell-test/missing:1"), "{message}");
    let message = rig.reason("no-node", conditions::READY, "Unschedulable").await;
    assert!(message.contains("node"), "{message}");
    let message = rig.reason("exit-69", conditions::STALLED, "EnforcementUnavailable").await;
    assert!(message.contains("ends as its name says"), "{message}");
    rig.phase("exit-69", Phase::Error).await;
    let message = rig.reason("says-69", conditions::STALLED, "LandlockRequired").await;
    assert_eq!(message, "the kernel has none");
    // Whoever is killed has not said it himself.
    rig.reason("says-137", conditions::STALLED, "SupervisorDied").await;
    let message = rig.reason("no-class", conditions::READY, "PodRefused").await;
    assert!(message.contains("there-is-none"), "{message}");

    for name in ["no-image", "no-node"] {
        assert_eq!(rig.get(name).await.status.unwrap().phase, Some(Phase::Provisioning), "{name} may still start");
    }
    rig.stop().await;
}

/// A `RuntimeClass` of this name and handler; it belongs to no namespace.
async fn runtime_class(rig: &Rig, suffix: &str, handler: &str) -> String {
    let name = format!("{}-{suffix}", rig.namespace);
    let class: RuntimeClass = serde_json::from_value(json!({ "metadata": { "name": name }, "handler": handler })).unwrap();
    Api::all(rig.client.clone()).create(&PostParams::default(), &class).await.unwrap();
    name
}

#[tokio::test(flavor = "multi_thread")]
async fn a_runtime_class_is_the_pods_and_one_that_cannot_notify_is_refused() {
    let Some(rig) = Rig::start(json!({ "imagePullSecrets": [{ "name": "registry" }] })).await else { return };
    let classes = [runtime_class(&rig, "runc", "runc").await, runtime_class(&rig, "runsc", "runsc-kvm").await];
    let aliases = json!([{ "ip": "192.0.2.7", "hostnames": ["db.internal", "db"] }]);
    let spec = json!({ "runtimeClassName": classes[0], "hostAliases": aliases, "imagePullSecrets": [{ "name": "own" }] });
    let (_, pod) = rig.create_ready("demo", spec).await;
    let uid = rig.create("no-notify", json!({ "runtimeClassName": classes[1] })).await;

    let spec = serde_json::to_value(pod.spec.unwrap()).unwrap();
    assert_eq!(spec["runtimeClassName"], json!(classes[0]));
    assert_eq!(spec["hostAliases"], aliases);
    assert_eq!(spec["imagePullSecrets"], json!([{ "name": "own" }, { "name": "registry" }]));
    let method = rig.get("demo").await.status.unwrap().sideload_method;
    assert_eq!(method, Some(SideloadMethod::ImageVolume), "runc is known to have image volumes");

    let message = rig.reason("no-notify", conditions::STALLED, "NotifyUnsupported").await;
    assert!(message.contains(&classes[1]) && message.contains("runsc-kvm"), "{message}");
    assert!(rig.pods(&uid).await.is_empty() && rig.agents().get_opt("no-notify").await.unwrap().is_none(), "nothing of it was made");
    for class in &classes {
        Api::<RuntimeClass>::all(rig.client.clone()).delete(class, &DeleteParams::default()).await.unwrap();
    }
    rig.stop().await;
}

/// Our pods fit `restricted`: only what changes them on their way can make them be refused.
#[tokio::test(flavor = "multi_thread")]
async fn what_pod_security_refuses_is_told_and_waited_for() {
    let Some(mut rig) = Rig::idle(json!({})).await else { return };
    let Some((policies, bindings)) = admission(&rig).await else {
        eprintln!("skipped: this cluster has no MutatingAdmissionPolicy");
        return rig.stop().await;
    };
    let name = rig.namespace.clone();
    rig.operate(rig.client.clone());
    eventually("pods are changed", async || {
        let pod = json!({ "metadata": { "name": "probe" }, "spec": { "containers": [{ "name": "c", "image": "i" }] } });
        let dry = PostParams { dry_run: true, ..PostParams::default() };
        let answer = rig.api::<Pod>().create(&dry, &serde_json::from_value(pod).unwrap()).await;
        answer.is_err_and(|error| error.to_string().contains("hostNetwork"))
    })
    .await;
    let uid = rig.create("demo", json!({})).await;
    let message = rig.reason("demo", conditions::READY, "PodSecurityRefused").await;
    assert!(message.contains("violates PodSecurity") && message.contains("hostNetwork"), "{message}");
    assert!(rig.pods(&uid).await.is_empty());
    bindings.delete(&name, &DeleteParams::default()).await.unwrap();
    policies.delete(&name, &DeleteParams::default()).await.unwrap();
    rig.pod(&uid, None).await;
    rig.stop().await;
}

/// Has every pod of the rig's namespace moved into the node's network; the APIs to undo it by.
async fn admission(rig: &Rig) -> Option<(Api<DynamicObject>, Api<DynamicObject>)> {
    let api = |kind: &str| {
        let kind = GroupVersionKind::gvk("admissionregistration.k8s.io", "v1", kind);
        (Api::<DynamicObject>::all_with(rig.client.clone(), &ApiResource::from_gvk(&kind)), kind)
    };
    let ((policies, policy), (bindings, binding)) = (api("MutatingAdmissionPolicy"), api("MutatingAdmissionPolicyBinding"));
    if policies.list(&ListParams::default()).await.is_err() {
        return None;
    }
    let object = |kind: &GroupVersionKind, spec: Value| {
        let object = json!({ "apiVersion": kind.api_version(), "kind": kind.kind, "metadata": { "name": rig.namespace }, "spec": spec });
        serde_json::from_value::<DynamicObject>(object).unwrap()
    };
    let spec = json!({
        "matchConstraints": {
            "namespaceSelector": { "matchLabels": { "kubernetes.io/metadata.name": rig.namespace } },
            "resourceRules": [{ "apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"] }],
        },
        "failurePolicy": "Fail", "reinvocationPolicy": "Never",
        "mutations": [{
            "patchType": "ApplyConfiguration",
            "applyConfiguration": { "expression": "Object{spec: Object.spec{hostNetwork: true}}" },
        }],
    });
    policies.create(&PostParams::default(), &object(&policy, spec)).await.unwrap();
    bindings.create(&PostParams::default(), &object(&binding, json!({ "policyName": rig.namespace }))).await.unwrap();
    Some((policies, bindings))
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
    eventually("the quota counts", async || {
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
