//! What is rendered, against `snapshots/*.yaml`, and what is made of what is seen.
//!
//! `UPDATE_SNAPSHOTS=1 cargo test -p openshell-operator --lib` writes the snapshots.
// Documents are written where they are used.
#![allow(clippy::needless_pass_by_value)]

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::Path;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Pod;
use kube::runtime::watcher::Event;
use openshell_crds::agents::{Sandbox, Served};
use openshell_crds::pod::SideloadMethod;
use openshell_crds::{OpenShellGateway, OpenShellSandbox};
use serde_json::{Value, json};

use super::view::{PodView, SandboxView, View as _, state};
use super::world::{Api, World};
use super::{admit, network, render};
use crate::blueprint::{SandboxBlueprint, compose};
use crate::driver::{Waiting, WorkloadState};
use crate::limits;

const UID: &str = "6f0d2a3e-1111-4222-8333-0123456789ab";

fn blueprint(sandbox: Value, defaults: Value) -> SandboxBlueprint {
    let mut object: OpenShellSandbox = serde_json::from_value(json!({
        "apiVersion": "openshell.ai/v1alpha1", "kind": "OpenShellSandbox",
        "metadata": { "name": "demo", "namespace": "agents", "uid": UID, "generation": 1 },
        "spec": sandbox,
    }))
    .unwrap();
    object.metadata.generation = Some(1);
    let gateway = OpenShellGateway::new("default", serde_json::from_value(json!({ "sandboxDefaults": defaults })).unwrap());
    compose(&object, &gateway, &[], &[]).unwrap()
}

fn gateway() -> render::Gateway {
    render::Gateway { name: "default".into(), namespace: "openshell".into() }
}

fn rendered(blueprint: &SandboxBlueprint, sideload: SideloadMethod, served: Served) -> Sandbox {
    let gateway = gateway();
    let settings = render::Settings {
        gateway: &gateway,
        image: blueprint.pod.image.as_deref().unwrap(),
        supervisor_image: "ghcr.io/example/supervisor:1",
        sideload,
        because: "the evidence says so",
        claims: None,
        served,
    };
    render::sandbox(blueprint, &settings)
}

fn snapshot(name: &str, value: &impl serde::Serialize) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/driver/kubernetes/snapshots").join(name);
    let text = serde_saphyr::to_string(&serde_json::to_value(value).unwrap()).unwrap();
    if std::env::var_os("UPDATE_SNAPSHOTS").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, &text).unwrap();
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(found, text, "{} differs: look at it, and run UPDATE_SNAPSHOTS=1 cargo test -p openshell-operator --lib", path.display());
}

#[test]
fn the_least_sandbox_by_image_volume() {
    let blueprint = blueprint(json!({}), json!({ "image": "ghcr.io/example/sandbox:1" }));
    snapshot("least-image-volume.yaml", &rendered(&blueprint, SideloadMethod::ImageVolume, Served::V1Beta1));
}

#[test]
fn the_fullest_sandbox_by_init_container() {
    let blueprint = blueprint(
        json!({
            "command": ["python3", "agent.py"],
            "image": "ghcr.io/example/agent:2",
            "resources": { "requests": { "cpu": "250m" }, "limits": { "memory": "1Gi", "nvidia.com/gpu": 1 } },
            "workspace": { "size": "10Gi", "storageClassName": "fast" },
            "nodeSelector": { "kubernetes.io/arch": "amd64" },
            "tolerations": [{ "key": "agents", "value": "yes", "effect": "NoSchedule" }, { "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 30 }],
            "imagePullSecrets": [{ "name": "own" }],
            "runtimeClassName": "runc",
            "hostAliases": [{ "ip": "10.0.0.1", "hostnames": ["db.internal"] }],
        }),
        json!({
            "image": "ghcr.io/example/sandbox:1", "imagePullPolicy": "IfNotPresent",
            "imagePullSecrets": [{ "name": "registry" }, { "name": "own" }], "resources": { "limits": { "cpu": 4 } },
        }),
    );
    snapshot("fullest-init-container.yaml", &rendered(&blueprint, SideloadMethod::InitContainer, Served::V1Beta1));
}

#[test]
fn gpus_are_limits_of_the_agent_alone() {
    let gpu = |gpu: Value| {
        blueprint(json!({ "resources": { "limits": { "cpu": 2 }, "gpu": gpu } }), json!({ "image": "ghcr.io/example/sandbox:1" }))
    };
    snapshot("gpu.yaml", &rendered(&gpu(json!({ "count": 2 })), SideloadMethod::InitContainer, Served::V1Beta1));
    let other = rendered(&gpu(json!({ "count": 1, "resourceName": "amd.com/gpu" })), SideloadMethod::ImageVolume, Served::V1Beta1);
    let container = &other.spec.pod_template.spec.containers[0];
    let limits = serde_json::to_value(container.resources.as_ref().unwrap()).unwrap();
    assert_eq!(limits, json!({ "limits": { "amd.com/gpu": "1", "cpu": "2" } }));
}

#[test]
fn the_older_version_differs_in_how_it_says_that_it_runs() {
    let blueprint = blueprint(json!({}), json!({ "image": "ghcr.io/example/sandbox:1" }));
    let value = |served| serde_json::to_value(rendered(&blueprint, SideloadMethod::ImageVolume, served)).unwrap();
    let (mut new, mut old) = (value(Served::V1Beta1), value(Served::V1Alpha1));
    assert_eq!((&old["spec"]["replicas"], &new["spec"]["operatingMode"]), (&json!(1), &json!("Running")));
    for value in [&mut new, &mut old] {
        value["apiVersion"].take();
        let spec = value["spec"].as_object_mut().unwrap();
        spec.retain(|field, _| !["replicas", "operatingMode", "service"].contains(&field.as_str()));
    }
    assert_eq!(new, old);
}

/// The rules of Pod Security `restricted` (`k8s.io/pod-security-admission/policy`), and ours.
#[test]
fn every_pod_is_restricted() {
    let images = json!({ "image": "ghcr.io/example/sandbox:1" });
    for sideload in [SideloadMethod::ImageVolume, SideloadMethod::InitContainer] {
        let sandbox = rendered(&blueprint(json!({ "workspace": { "size": "1Gi" } }), images.clone()), sideload, Served::V1Beta1);
        let pod = sandbox.spec.pod_template.spec;
        let own = pod.security_context.as_ref().unwrap();
        assert_eq!(
            (own.run_as_non_root, own.run_as_user, own.run_as_group, own.fs_group),
            (Some(true), Some(1000), Some(1000), Some(1000))
        );
        assert_eq!(own.seccomp_profile.as_ref().unwrap().type_, "RuntimeDefault");
        for container in pod.containers.iter().chain(pod.init_containers.iter().flatten()) {
            let context = container.security_context.as_ref().unwrap();
            assert_eq!((context.allow_privilege_escalation, context.privileged), (Some(false), None));
            let capabilities = context.capabilities.as_ref().unwrap();
            assert_eq!((&capabilities.add, capabilities.drop.as_deref()), (&None, Some(&["ALL".to_owned()][..])));
            assert!(container.ports.is_none() && container.volume_devices.is_none());
        }
        assert_eq!((pod.host_network, pod.host_pid, pod.host_ipc), (None, None, None));
        assert_eq!((pod.automount_service_account_token, pod.enable_service_links), (Some(false), Some(false)));
        assert_eq!(pod.restart_policy.as_deref(), Some("Never"));
        let volumes = pod.volumes.unwrap();
        assert!(volumes.iter().all(|volume| volume.host_path.is_none() && volume.secret.is_none()));
        assert!(!volumes.iter().any(|volume| volume.name == "workspace"), "the claim takes that place");
    }
}

#[test]
fn claims_that_are_there_are_kept() {
    let images = json!({ "image": "ghcr.io/example/sandbox:1" });
    let (with, without) = (blueprint(json!({ "workspace": { "size": "1Gi" } }), images.clone()), blueprint(json!({}), images));
    let gateway = gateway();
    let claims = rendered(&with, SideloadMethod::ImageVolume, Served::V1Beta1).spec.volume_claim_templates;
    let resumed = |blueprint: &SandboxBlueprint, claims| {
        let settings = render::Settings {
            gateway: &gateway,
            image: "i",
            supervisor_image: "s",
            sideload: SideloadMethod::ImageVolume,
            because: "the evidence says so",
            claims: Some(claims),
            served: Served::V1Beta1,
        };
        render::sandbox(blueprint, &settings).spec
    };
    assert_eq!(resumed(&without, &claims[..]).volume_claim_templates, claims, "the gateway's default has changed meanwhile");
    let spec = resumed(&with, &[]);
    assert!(spec.volume_claim_templates.is_empty());
    assert!(spec.pod_template.spec.volumes.unwrap().iter().any(|volume| volume.name == "workspace" && volume.empty_dir.is_some()));
}

#[test]
fn the_network_policy() {
    let refused: BTreeSet<IpAddr> = ["10.0.0.7", "10.96.0.1", "2001:db8::7"].iter().map(|ip| ip.parse().unwrap()).collect();
    snapshot("network-policy.yaml", &network::policy("agents", "default", &refused, None));
}

#[test]
fn what_a_pod_cannot_be_is_refused() {
    let images = json!({ "image": "i" });
    let plain = blueprint(json!({}), images.clone());
    assert!(admit(&plain, Some("s")).is_ok());
    let code = |blueprint: &SandboxBlueprint, supervisor| admit(blueprint, supervisor).unwrap_err().code;
    assert_eq!(code(&plain, None), "SupervisorImageMissing");
    assert_eq!(code(&blueprint(json!({}), json!({})), Some("s")), "ImageMissing");
    let root = json!({ "policy": { "version": 1, "process": { "run_as_user": "33" } } });
    assert_eq!(code(&blueprint(root, images.clone()), Some("s")), "RunAsUnsupported");
    let mut long = plain;
    long.name = "n".repeat(64);
    assert_eq!(code(&long, Some("s")), "NameTooLong");
}

fn start() -> Timestamp {
    "2026-01-01T00:00:00Z".parse().unwrap()
}

fn sandbox(mode: &str, status: Value) -> Sandbox {
    serde_json::from_value(json!({
        "metadata": {
            "name": "demo", "uid": "s1", "generation": 3, "resourceVersion": "7",
            "labels": { "openshell.ai/sandbox-id": UID },
            "annotations": { "openshell.ai/sideload-method": "InitContainer" },
            "ownerReferences": [{ "apiVersion": "openshell.ai/v1alpha1", "kind": "OpenShellSandbox", "name": "demo", "uid": UID, "controller": true }],
        },
        "spec": { "podTemplate": { "spec": { "containers": [] } }, "operatingMode": mode },
        "status": status,
    }))
    .unwrap()
}

fn pod(status: Value) -> Pod {
    serde_json::from_value(json!({
        "metadata": {
            "name": "demo", "uid": "p1", "resourceVersion": "8",
            "labels": { "openshell.ai/sandbox-id": UID },
            "ownerReferences": [{ "apiVersion": "agents.x-k8s.io/v1alpha1", "kind": "Sandbox", "name": "demo", "uid": "s1", "controller": true }],
        },
        "status": status,
    }))
    .unwrap()
}

fn seen(sandbox: Option<&Sandbox>, pod: Option<&Pod>) -> WorkloadState {
    let sandbox = sandbox.map(|sandbox| SandboxView::of(sandbox, start()).unwrap().1);
    let pod = pod.map(|pod| PodView::of(pod, start()).unwrap().1);
    state(sandbox.as_ref(), pod.as_ref())
}

fn ready(reason: &str, message: &str, generation: i64) -> Value {
    json!({ "conditions": [{
        "type": "Ready", "status": "False", "reason": reason, "message": message,
        "observedGeneration": generation, "lastTransitionTime": "2026-01-01T00:00:00Z",
    }] })
}

fn running() -> Sandbox {
    sandbox("Running", ready("DependenciesNotReady", "", 3))
}

fn waiting(state: WorkloadState) -> Waiting {
    match state {
        WorkloadState::Starting { waiting: Some(waiting) } => waiting,
        other => panic!("{other:?}"),
    }
}

fn agent(state: Value) -> Value {
    json!([{ "name": "agent", "image": "ghcr.io/example/agent:2", "imageID": "", "ready": false, "restartCount": 0, "state": state }])
}

#[test]
fn without_a_pod() {
    assert_eq!(seen(None, None), WorkloadState::Absent);
    let plain = waiting(seen(Some(&running()), None));
    assert_eq!((plain.reason.as_str(), plain.from), ("Starting", Timestamp::UNIX_EPOCH));
    let untaken = waiting(seen(Some(&sandbox("Running", json!({}))), None));
    assert_eq!(untaken.reason, "AgentSandboxNotResponding");
    assert_eq!(untaken.from, start() + SignedDuration::try_from(limits::CONTROLLER_SILENCE).unwrap());
    let stale = waiting(seen(Some(&sandbox("Running", ready("SandboxSuspended", "", 2))), None));
    assert_eq!(stale.reason, "AgentSandboxNotResponding", "what was said of an earlier generation counts for nothing");
    for (reason, message, code) in [
        ("ReconcilerError", "pods \"demo\" is forbidden: violates PodSecurity \"restricted:latest\": hostPath", "PodSecurityRefused"),
        ("ReconcilerError", "pods \"demo\" is forbidden: exceeded quota: small", "QuotaExceeded"),
        ("InvalidConfiguration", "Pod \"demo\" is invalid", "PodRefused"),
        ("MultiplePods", "two", "MultiplePods"),
    ] {
        let waiting = waiting(seen(Some(&sandbox("Running", ready(reason, message, 3))), None));
        assert_eq!(waiting.reason, code);
        assert!(waiting.message.ends_with(message), "{}", waiting.message);
    }
}

#[test]
fn on_its_way_to_running() {
    let unschedulable = json!({ "phase": "Pending", "conditions": [{
        "type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/1 nodes are available",
    }] });
    assert_eq!(waiting(seen(Some(&running()), Some(&pod(unschedulable)))).reason, "Unschedulable");
    let creating = pod(json!({ "phase": "Pending", "containerStatuses": agent(json!({ "waiting": { "reason": "ContainerCreating" } })) }));
    let silent = waiting(seen(Some(&running()), Some(&creating)));
    assert_eq!(silent.reason, "PodNotStarted");
    assert_eq!(silent.from, start() + SignedDuration::try_from(limits::SILENT_START).unwrap(), "pods take their time");
    let pulled = |reason: &str, message: &str| {
        let status =
            json!({ "phase": "Pending", "containerStatuses": agent(json!({ "waiting": { "reason": reason, "message": message } })) });
        waiting(seen(Some(&running()), Some(&pod(status))))
    };
    let first = pulled("ErrImagePull", "rpc error: no such host");
    let later = pulled("ImagePullBackOff", "Back-off pulling image \"ghcr.io/example/agent:2\": ErrImagePull: rpc error: no such host");
    assert_eq!(first, later, "the kubelet's two ways of saying it are one status");
    assert_eq!(first.reason, "ImagePullFailed");
    assert!(first.message.contains("ghcr.io/example/agent:2") && first.message.contains("no such host"), "{}", first.message);
    assert_eq!(pulled("CreateContainerConfigError", "secret not found").reason, "ContainerNotStarted");

    let up = pod(json!({ "phase": "Running", "containerStatuses": agent(json!({ "running": {} })) }));
    let expected = WorkloadState::Running { id: "demo".into(), instance: Some("p1".into()), since: Some(start()) };
    assert_eq!(seen(Some(&running()), Some(&up)), expected);
    let mut foreign = up;
    foreign.metadata.owner_references.as_mut().unwrap()[0].uid = "s0".into();
    assert_eq!(waiting(seen(Some(&running()), Some(&foreign))).reason, "Starting", "the pod of another Sandbox");
}

#[test]
fn the_ends_of_a_pod() {
    let ended = |status: Value| match seen(Some(&running()), Some(&pod(status))) {
        WorkloadState::Failed { code, message, .. } | WorkloadState::Lost { code, message, .. } => (code, message),
        other => panic!("{other:?}"),
    };
    let exited = |code: i32, reason: &str, message: &str| {
        ended(
            json!({ "phase": "Failed", "containerStatuses": agent(json!({ "terminated": { "exitCode": code, "reason": reason, "message": message } })) }),
        )
    };
    for (code, reason, expected) in [
        (64, "Error", "BadBootstrap"),
        (69, "Error", "EnforcementUnavailable"),
        (70, "Error", "SupervisorDied"),
        (128, "StartError", "SupervisorNotStarted"),
        (0, "Completed", "SupervisorEnded"),
    ] {
        let (is, message) = exited(code, reason, "first\nlast line\n");
        assert_eq!(is, expected);
        assert!(message.ends_with("last line"), "{message}");
    }
    let typed = exited(70, "Error", r#"{"code":"LauncherDied","message":"the launcher died"}"#);
    assert_eq!(typed, ("LauncherDied".into(), "the launcher died".into()));
    let forged = r#"{"code":"Evicted","message":"the agent wrote this"}"#;
    assert_eq!(exited(137, "Error", forged).0, "SupervisorDied");
    assert_eq!(exited(0, "Completed", forged).0, "SupervisorEnded");
    let greedy = exited(137, "OOMKilled", forged);
    assert_eq!(greedy, ("OutOfMemory".into(), "the sandbox used more memory than its limit".into()), "what it said last is not why");
    assert_eq!(exited(70, "Error", r#"{"code":"no reason","message":"m"}"#).0, "SupervisorDied");
    let installer = json!({ "phase": "Failed", "initContainerStatuses": [{
        "name": "install-supervisor", "image": "s", "imageID": "", "ready": false, "restartCount": 0,
        "state": { "terminated": { "exitCode": 1, "reason": "Error" } },
    }], "containerStatuses": agent(json!({ "waiting": { "reason": "PodInitializing" } })) });
    assert_eq!(ended(installer).0, "SupervisorSideloadFailed");
    let lost = |status: Value| matches!(seen(Some(&running()), Some(&pod(status))), WorkloadState::Lost { .. });
    for reason in ["Evicted", "Terminated", "NodeShutdown", "OutOfcpu", "UnexpectedAdmissionError"] {
        assert!(lost(json!({ "phase": "Failed", "reason": reason, "message": "The node was low on resource: memory." })), "{reason}");
    }
    let disrupted =
        json!({ "phase": "Failed", "conditions": [{ "type": "DisruptionTarget", "status": "True", "reason": "PreemptionByScheduler" }] });
    assert!(lost(disrupted));
    assert!(!lost(json!({ "phase": "Failed" })));
}

#[test]
fn suspending_and_going() {
    let up = pod(json!({ "phase": "Running", "containerStatuses": agent(json!({ "running": {} })) }));
    let suspended = sandbox("Suspended", ready("SandboxSuspended", "", 3));
    assert_eq!(seen(Some(&suspended), None), WorkloadState::Suspended);
    assert_eq!(seen(Some(&suspended), Some(&up)), WorkloadState::Stopping);
    assert_eq!(seen(Some(&sandbox("Suspended", ready("DependenciesReady", "", 2))), None), WorkloadState::Stopping, "not taken up yet");
    let mut going = up.clone();
    going.metadata.deletion_timestamp = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(start()));
    assert_eq!(seen(Some(&running()), Some(&going)), WorkloadState::Stopping);
    assert_eq!(seen(None, Some(&up)), WorkloadState::Stopping, "garbage collection has not come to it yet");
    let mut deleting = running();
    deleting.metadata.deletion_timestamp = going.metadata.deletion_timestamp;
    assert_eq!(seen(Some(&deleting), None), WorkloadState::Stopping);
}

#[test]
fn what_is_not_ours_is_not_seen() {
    let mut labelled = running();
    labelled.metadata.owner_references = None;
    assert!(SandboxView::of(&labelled, start()).is_none(), "a label alone makes nobody the owner");
    let mut other = running();
    other.metadata.owner_references.as_mut().unwrap()[0].uid = "u2".into();
    assert!(SandboxView::of(&other, start()).is_none());
}

#[tokio::test]
async fn the_world_is_what_was_seen_and_written_last() {
    let world = World::new();
    world.pod(Event::Init);
    world.pod(Event::InitDone);
    world.sandbox(Event::Init);
    assert!(world.sandbox(Event::InitDone));
    world.set_api(Api::Served(Served::V1Beta1));
    assert_eq!(world.ready().await, Api::Served(Served::V1Beta1));
    let mut changes = world.changes();
    assert_eq!(world.state(UID), WorkloadState::Absent);

    world.wrote(&running());
    assert_eq!(waiting(world.state(UID)).reason, "Starting", "the answer to our write counts at once");
    let mut older = sandbox("Suspended", json!({}));
    older.metadata.resource_version = Some("6".into());
    world.sandbox(Event::Apply(older));
    assert_eq!(waiting(world.state(UID)).reason, "Starting", "what is older than our write does not");
    assert_eq!(changes.recv().await.unwrap(), UID);
    assert_eq!(world.sideload(UID), Some(SideloadMethod::InitContainer));

    world.sandbox(Event::Delete(running()));
    assert_eq!(world.state(UID), WorkloadState::Absent);
    world.wrote(&running());
    assert_eq!(world.state(UID), WorkloadState::Absent, "an answer that comes after the deletion");

    world.sandbox(Event::Init);
    let mut new = running();
    new.metadata.uid = Some("s2".into());
    world.wrote(&new);
    assert!(world.sandbox(Event::InitDone));
    assert_ne!(world.state(UID), WorkloadState::Absent, "written while the list was on its way");

    world.set_api(Api::Missing);
    assert_eq!(world.state(UID), WorkloadState::Absent);
    world.wait_for_api(UID);
    while changes.try_recv().is_ok() {}
    world.set_api(Api::Served(Served::V1Alpha1));
    assert_eq!(changes.recv().await.unwrap(), UID, "whoever waited for the API is told");
}

/// `spec.endpoint` and another port of the Service reach the supervisor; where a gateway has neither it is its Service.
#[test]
fn a_supervisor_calls_the_gateway_where_the_gateway_says() {
    let called = |spec: Value| {
        let mut blueprint = blueprint(json!({}), json!({ "image": "ghcr.io/example/sandbox:1" }));
        let mut gateway = OpenShellGateway::new("default", serde_json::from_value(spec).unwrap());
        gateway.metadata.namespace = Some("openshell".to_owned());
        let mut object = OpenShellSandbox::new("demo", serde_json::from_value(json!({})).unwrap());
        object.metadata.uid = Some(UID.to_owned());
        object.metadata.namespace = Some("agents".to_owned());
        blueprint.pod.gateway_endpoint = compose(&object, &gateway, &[], &[]).unwrap().pod.gateway_endpoint;
        let sandbox = serde_json::to_value(rendered(&blueprint, SideloadMethod::ImageVolume, Served::V1Beta1)).unwrap();
        let env = sandbox.pointer("/spec/podTemplate/spec/containers/0/env").unwrap().as_array().unwrap().clone();
        let value = |name: &str| env.iter().find(|e| e["name"] == name).unwrap()["value"].as_str().unwrap().to_owned();
        (value("OPENSHELL_GATEWAY_ENDPOINT"), value("OPENSHELL_GATEWAY_SERVER_NAME"))
    };
    let service = "default-gateway.openshell.svc";
    assert_eq!(called(json!({})), (format!("https://{service}:8080"), service.to_owned()));
    assert_eq!(called(json!({ "service": { "port": 443 } })), (format!("https://{service}:443"), service.to_owned()));
    assert_eq!(called(json!({ "endpoint": "https://gw.example:1" })), ("https://gw.example:1".to_owned(), "gw.example".to_owned()));
}
