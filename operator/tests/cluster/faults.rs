//! An API server that does not answer as it should.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use http::{Method, Request, Response, StatusCode};
use kube::Client;
use kube::client::Body;
use openshell_crds::conditions;
use openshell_crds::sandbox::Phase;
use serde_json::json;
use tower::{ServiceExt as _, service_fn};

use crate::rig::{Rig, eventually};

/// A client whose requests are answered by `instead` where that has an answer.
pub(crate) fn between(
    client: Client,
    instead: impl Fn(&Request<Body>) -> Option<(StatusCode, &'static str)> + Send + Sync + 'static,
) -> Client {
    let instead = Arc::new(instead);
    let namespace = client.default_namespace().to_owned();
    let service = service_fn(move |request: Request<Body>| {
        let (client, instead) = (client.clone(), Arc::clone(&instead));
        async move {
            match instead(&request) {
                Some((code, reason)) => {
                    let status = json!({
                        "kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": reason, "code": code.as_u16(),
                        "message": "made up by a test",
                    });
                    let body = Body::from(status.to_string().into_bytes());
                    Ok::<_, tower::BoxError>(Response::builder().status(code).body(body)?)
                }
                None => Ok(client.send(request).await?),
            }
        }
    });
    Client::new(service.boxed_clone(), namespace)
}

#[tokio::test(flavor = "multi_thread")]
async fn agent_sandbox_that_comes_later() {
    let Some(mut rig) = Rig::idle(json!({})).await else { return };
    let there = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&there);
    let client = between(rig.client.clone(), move |request| {
        let missing = request.uri().path().starts_with("/apis/agents.x-k8s.io") && !seen.load(Ordering::SeqCst);
        missing.then_some((StatusCode::NOT_FOUND, "NotFound"))
    });
    rig.operate(client);
    let uid = rig.create("demo", json!({})).await;
    let message = rig.reason("demo", conditions::READY, "AgentSandboxMissing").await;
    assert!(message.contains("install agent-sandbox"), "{message}");
    assert_eq!(rig.get("demo").await.status.unwrap().phase, Some(Phase::Provisioning));
    there.store(true, Ordering::SeqCst);
    rig.ready("demo", &uid, None).await;
    rig.stop().await;
}

/// A cluster that serves `v1alpha1` alone, as agent-sandbox before 0.5.0: whether a pod runs is said in
/// `replicas`.
#[tokio::test(flavor = "multi_thread")]
async fn agent_sandbox_of_the_older_version() {
    let Some(mut rig) = Rig::idle(json!({})).await else { return };
    if rig.client.list_api_group_resources("agents.x-k8s.io/v1alpha1").await.is_err() {
        eprintln!("skipped: this agent-sandbox has no v1alpha1 any more");
        return rig.stop().await;
    }
    let client = between(rig.client.clone(), |request| {
        request.uri().path().starts_with("/apis/agents.x-k8s.io/v1beta1").then_some((StatusCode::NOT_FOUND, "NotFound"))
    });
    rig.operate(client);
    let (uid, pod) = rig.create_ready("demo", json!({})).await;
    rig.halt("demo").await;
    rig.suspend("demo", false).await;
    rig.pod(&uid, Some(&pod)).await;
    rig.stop().await;
}

/// Every other write fails in one way or another, and some are carried out although they fail.
#[tokio::test(flavor = "multi_thread")]
async fn writes_that_fail_in_bursts() {
    let Some(mut rig) = Rig::idle(json!({})).await else { return };
    let writes = Arc::new(AtomicU32::new(0));
    let client = between(rig.client.clone(), move |request| {
        if matches!(*request.method(), Method::GET | Method::HEAD) {
            return None;
        }
        match writes.fetch_add(1, Ordering::SeqCst) % 6 {
            0 => Some((StatusCode::TOO_MANY_REQUESTS, "TooManyRequests")),
            1 => Some((StatusCode::CONFLICT, "Conflict")),
            2 => Some((StatusCode::INTERNAL_SERVER_ERROR, "InternalError")),
            _ => None,
        }
    });
    rig.operate(client);
    let mut uids = Vec::new();
    for name in ["a", "b", "c"] {
        uids.push((name, rig.create(name, json!({})).await));
    }
    for (name, uid) in &uids {
        rig.ready(name, uid, None).await;
        assert_eq!(rig.pods(uid).await.len(), 1);
        rig.suspend(name, true).await;
    }
    for (name, uid) in &uids {
        rig.phase(name, Phase::Stopped).await;
        assert!(rig.pods(uid).await.is_empty());
        rig.delete(name).await;
    }
    eventually("nothing is left", async || rig.agents().list(&kube::api::ListParams::default()).await.unwrap().items.is_empty()).await;
    rig.stop().await;
}
