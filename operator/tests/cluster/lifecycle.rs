//! Sandboxes through their life.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use http::Method;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::ResourceExt as _;
use kube::api::{Api, DeleteParams, LogParams};
use kube::runtime::watcher;
use openshell_crds::agents::OperatingMode;
use openshell_crds::conditions::{self, is_true};
use openshell_crds::pod::SideloadMethod;
use openshell_crds::sandbox::Phase;
use openshell_operator::limits;
use serde_json::json;

use crate::faults::between;
use crate::rig::{Rig, eventually};

/// How many seconds the first pod that goes is given to end.
async fn grace(pods: Api<Pod>) -> Option<i64> {
    let seen = watcher(pods, watcher::Config::default()).filter_map(async |event| match event.unwrap() {
        watcher::Event::Apply(pod) | watcher::Event::InitApply(pod) => pod.metadata.deletion_grace_period_seconds,
        _ => None,
    });
    let first = async { std::pin::pin!(seen).next().await };
    tokio::time::timeout(Duration::from_mins(1), first).await.ok().flatten()
}

/// Why the supervisor of `demo` gets into its pod as it does.
async fn because(rig: &Rig) -> String {
    rig.agents().get("demo").await.unwrap().annotations()["openshell.ai/sideload-because"].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn create_ready_and_delete() {
    let Some(rig) = Rig::start(json!({})).await else { return };
    let begin = Instant::now();
    let uid = rig.create("demo", json!({ "command": ["sleep"] })).await;
    let pod = rig.pod(&uid, None).await;
    eprintln!("created, and its supervisor runs: {:?}", begin.elapsed());
    rig.connect("demo", &pod).await;
    rig.phase("demo", Phase::Ready).await;
    let status = rig.get("demo").await.status.unwrap();
    assert!(is_true(&status.conditions, conditions::READY) && is_true(&status.conditions, conditions::STARTED));
    assert_eq!((status.driver.as_deref(), status.workload.as_deref()), (Some("kubernetes"), Some("demo")));
    assert_eq!(status.sideload_method, Some(SideloadMethod::ImageVolume), "a node of today has image volumes");
    assert_eq!(because(&rig).await, "the server and every node that the pod may land on have image volumes");

    let log = rig.api::<Pod>().logs("demo", &LogParams::default()).await.unwrap();
    for said in [
        format!("OPENSHELL_SANDBOX_ID={uid}"),
        format!("OPENSHELL_GATEWAY_ENDPOINT=https://default-gateway.{}.svc:8080", rig.namespace),
        format!("OPENSHELL_INSTANCE_ID={}", pod.uid().unwrap()),
        "/var/run/secrets/openshell/ca.crt: 3 bytes".to_owned(),
    ] {
        assert!(log.contains(&said), "{said}: {log}");
    }
    eventually("the NetworkPolicy is there", async || rig.api::<NetworkPolicy>().get_opt("openshell-sandboxes").await.unwrap().is_some())
        .await;

    let going = tokio::spawn(grace(rig.api::<Pod>()));
    let begin = Instant::now();
    rig.delete("demo").await;
    eventually("nothing is left", async || rig.pods(&uid).await.is_empty() && rig.agents().get_opt("demo").await.unwrap().is_none()).await;
    eprintln!("deleted, and nothing is left: {:?}", begin.elapsed());
    // The stand-in does not hear SIGTERM. Garbage collection alone would give the pod all of its own grace period, 10 s.
    assert_eq!(going.await.unwrap(), Some(2), "the pod is ended fast");
    rig.stop().await;
}

/// The `Sandbox`, and a status when it is ready; the third write of a creation is the gateway's.
#[tokio::test(flavor = "multi_thread")]
async fn a_creation_costs_the_operator_two_writes() {
    let Some(mut rig) = Rig::idle(json!({})).await else { return };
    let writes = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&writes);
    let client = between(rig.client.clone(), move |request| {
        let path = request.uri().path();
        if *request.method() != Method::GET && !path.contains("networkpolicies") && !path.contains("events.k8s.io") {
            seen.lock().unwrap().push(format!("{} {path}", request.method()));
        }
        None
    });
    rig.operate(client);
    let begun = Instant::now();
    let uid = rig.create("demo", json!({})).await;
    let pod = rig.pod(&uid, None).await;
    // In two steps, as a gateway says it.
    rig.say("demo", json!({ "session": { "instanceId": pod.uid().unwrap(), "connected": true } })).await;
    rig.connect("demo", &pod).await;
    rig.phase("demo", Phase::Ready).await;
    let took = begun.elapsed();
    tokio::time::sleep(Duration::from_secs(3)).await;
    let writes = writes.lock().unwrap().clone();
    // A machine that is slow has more to say: that it is being started, and that it was.
    let most = if took + Duration::from_secs(1) < limits::FIRST_STATUS { 2 } else { 4 };
    assert!(writes.len() <= most, "the Sandbox and its last status after {took:?}: {writes:#?}");
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stopped_and_started_in_its_workspace() {
    let Some(rig) = Rig::start(json!({ "sideloadMethod": "InitContainer" })).await else { return };
    let uid = rig.create("demo", json!({ "workspace": { "size": "16Mi" } })).await;
    let first = rig.pod(&uid, None).await;
    assert_eq!(first.spec.as_ref().unwrap().init_containers.as_ref().map(Vec::len), Some(1));
    rig.connect("demo", &first).await;
    rig.phase("demo", Phase::Ready).await;
    assert_eq!(rig.get("demo").await.status.unwrap().sideload_method, Some(SideloadMethod::InitContainer));
    assert_eq!(because(&rig).await, "the gateway's sandboxDefaults say so");

    rig.halt("demo").await;
    assert!(rig.pods(&uid).await.is_empty());
    assert!(rig.api::<PersistentVolumeClaim>().get_opt("workspace-demo").await.unwrap().is_some(), "the workspace is kept");

    rig.suspend("demo", false).await;
    let second = rig.pod(&uid, Some(&first)).await;
    rig.reason("demo", conditions::READY, "SessionNotConnected").await;
    assert_eq!(rig.get("demo").await.status.unwrap().phase, Some(Phase::Starting), "the session of the pod before counts for nothing");
    rig.connect("demo", &second).await;
    rig.phase("demo", Phase::Ready).await;
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_is_deleted_under_a_running_sandbox_is_made_anew() {
    let Some(rig) = Rig::start(json!({})).await else { return };
    let (uid, first) = rig.create_ready("demo", json!({})).await;
    rig.api::<Pod>().delete("demo", &DeleteParams::default().grace_period(1)).await.unwrap();
    let second = rig.pod(&uid, Some(&first)).await;
    rig.phase("demo", Phase::Provisioning).await;
    rig.connect("demo", &second).await;
    rig.phase("demo", Phase::Ready).await;
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_finished_sandbox_whose_pod_is_deleted_does_not_run_again() {
    let Some(rig) = Rig::start(json!({})).await else { return };
    let (uid, pod) = rig.create_ready("demo", json!({})).await;
    rig.say("demo", json!({ "mainProcess": { "state": "Exited", "exitCode": 0 } })).await;
    rig.phase("demo", Phase::Completed).await;
    rig.api::<Pod>().delete("demo", &DeleteParams::default().grace_period(1)).await.unwrap();
    eventually("it is held back", async || {
        rig.agents().get("demo").await.unwrap().spec.running() == OperatingMode::Suspended && rig.pods(&uid).await.is_empty()
    })
    .await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(rig.get("demo").await.status.unwrap().phase, Some(Phase::Completed));
    rig.halt("demo").await;
    rig.suspend("demo", false).await;
    rig.pod(&uid, Some(&pod)).await;
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_that_was_away_finds_everything_as_it_is() {
    let Some(mut rig) = Rig::start(json!({})).await else { return };
    let uid = rig.create("demo", json!({})).await;
    let gone = rig.create("gone", json!({})).await;
    let pod = rig.pod(&uid, None).await;
    rig.pod(&gone, None).await;
    rig.rest().await;
    rig.connect("demo", &pod).await;
    rig.delete("gone").await;
    rig.operate(rig.client.clone());
    rig.phase("demo", Phase::Ready).await;
    assert_eq!(rig.pods(&uid).await[0].metadata.uid, pod.metadata.uid, "what runs is left alone");
    eventually("what was deleted meanwhile is gone", async || rig.agents().get_opt("gone").await.unwrap().is_none()).await;
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_is_used_again_at_once() {
    let Some(rig) = Rig::start(json!({})).await else { return };
    let before = rig.create("demo", json!({})).await;
    let first = rig.pod(&before, None).await;
    rig.delete("demo").await;
    let uid = rig.create("demo", json!({})).await;
    let second = rig.pod(&uid, None).await;
    assert_ne!(first.metadata.uid, second.metadata.uid, "the pod of another sandbox is never taken over");
    let owner = &rig.agents().get("demo").await.unwrap().metadata.owner_references.unwrap();
    assert_eq!(owner.iter().map(|owner| owner.uid.as_str()).collect::<Vec<_>>(), [uid.as_str()]);
    rig.stop().await;
}
