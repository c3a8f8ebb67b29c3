//! A sandbox that is suspended when nothing happens in it: what it says of its activity, and how it
//! is woken.

#![allow(clippy::unwrap_used)]

mod support;

use std::time::{Duration, Instant};

use kube::api::{Api, Patch, PatchParams, PostParams};
use openshell_crds::{OpenShellSandbox, conditions};
use openshell_operator::LOCAL_NAMESPACE;
use openshell_proto::v1::{self, SandboxPhase};
use serde_json::{Value, json};
use support::{Gateway, Supervisor};
use tokio_stream::StreamExt as _;
use tonic_types::StatusExt as _;

/// Runs a pretended command to its end.
async fn exec(gateway: &Gateway) -> Result<(), tonic::Status> {
    let command = vec!["exit".to_owned(), "0".to_owned()];
    let request = v1::ExecSandboxRequest { sandbox: "quiet".into(), command, ..Default::default() };
    let mut events = gateway.api().await.exec_sandbox(request).await?.into_inner();
    while let Some(event) = events.next().await {
        event?;
    }
    Ok(())
}

/// When something was last done in it, as its object says, and the version of the object.
async fn seen(objects: &Api<OpenShellSandbox>) -> (Option<jiff::Timestamp>, String) {
    let object = objects.get("quiet").await.unwrap();
    let session = object.status.unwrap().session.unwrap();
    (session.last_activity.map(|last| last.0), object.metadata.resource_version.unwrap())
}

async fn until_activity(objects: &Api<OpenShellSandbox>, what: &str, holds: impl Fn(Option<jiff::Timestamp>) -> bool) {
    let begun = Instant::now();
    while !holds(seen(objects).await.0) {
        assert!(begun.elapsed() < Duration::from_secs(10), "{what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn quiet(gateway: &Gateway) -> (Api<OpenShellSandbox>, String, Supervisor) {
    let objects: Api<OpenShellSandbox> = Api::namespaced(gateway.objects(), LOCAL_NAMESPACE);
    let spec = serde_json::from_value(json!({ "idleTimeout": "1h" })).unwrap();
    let made = objects.create(&PostParams::default(), &OpenShellSandbox::new("quiet", spec)).await.unwrap();
    let uid = made.metadata.uid.unwrap();
    let supervisor = Supervisor::connect(gateway, &uid).await;
    gateway.wait("quiet", SandboxPhase::Ready).await;
    (objects, uid, supervisor)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn activity_is_said_at_once_and_then_together() {
    let mut gateway = Gateway::start().await;
    let (objects, _, _supervisor) = quiet(&gateway).await;
    let (began, _) = seen(&objects).await;
    assert!(began.is_some(), "a new supervisor begins an idle period");
    tokio::time::sleep(Duration::from_millis(1100)).await;
    exec(&gateway).await.unwrap();
    until_activity(&objects, "an exec is not said", |last| last > began).await;
    let first = seen(&objects).await;
    for _ in 0..5 {
        tokio::time::sleep(Duration::from_millis(300)).await;
        exec(&gateway).await.unwrap();
    }
    assert_eq!(seen(&objects).await, first, "each exec is written");
    // Nobody asks any more, and then somebody does again.
    for (timeout, said) in [(Value::Null, false), (json!("2h"), true)] {
        let patch = json!({ "spec": { "idleTimeout": timeout } });
        objects.patch("quiet", &PatchParams::default(), &Patch::Merge(&patch)).await.unwrap();
        until_activity(&objects, "what is said does not follow spec.idleTimeout", |last| last.is_some() == said).await;
    }
    assert!(seen(&objects).await.0 > first.0, "what was known and not written is said");
    gateway.clean().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_left_alone_is_suspended_and_a_start_wakes_it() {
    let mut gateway = Gateway::start().await;
    let (objects, uid, supervisor) = quiet(&gateway).await;
    let (last, _) = seen(&objects).await;
    // As if the last activity had been long ago.
    let long_ago = last.unwrap() - Duration::from_hours(2);
    let patch = json!({ "status": { "session": { "lastActivity": long_ago.to_string() } } });
    objects.patch_status("quiet", &PatchParams::default(), &Patch::Merge(&patch)).await.unwrap();
    gateway.wait("quiet", SandboxPhase::Stopped).await;
    drop(supervisor);
    let object = objects.get("quiet").await.unwrap();
    let status = object.status.unwrap();
    assert!(status.idle_since.is_some() && !object.spec.suspend, "the spec is its author's");
    let started = conditions::find(&status.conditions, conditions::STARTED).unwrap();
    assert_eq!(started.reason, "IdleTimeout", "{}", started.message);
    let refused = exec(&gateway).await.unwrap_err();
    assert_eq!(refused.get_error_details().error_info().unwrap().reason, "SANDBOX_NOT_RUNNING");

    // Neither a restart of the gateway nor time wakes it.
    gateway.stop().await;
    gateway.start_again().await.unwrap();
    tokio::time::sleep(Duration::from_millis(500)).await;
    gateway.wait("quiet", SandboxPhase::Stopped).await;

    let objects: Api<OpenShellSandbox> = Api::namespaced(gateway.objects(), LOCAL_NAMESPACE);
    let start = v1::StartSandboxRequest { name: "quiet".into(), ..Default::default() };
    let answer = gateway.api().await.start_sandbox(start).await.unwrap().into_inner().sandbox.unwrap();
    assert_ne!(answer.status.unwrap().phase(), SandboxPhase::Stopped);
    let _supervisor = Supervisor::connect(&gateway, &uid).await;
    gateway.wait("quiet", SandboxPhase::Ready).await;
    let object = objects.get("quiet").await.unwrap();
    assert_eq!((object.spec.suspend, object.status.unwrap().idle_since), (false, None));
    gateway.clean().await;
}
