//! What is told of an object: its Events, and how many sandboxes enforce a policy.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::{Method, StatusCode};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::events::v1::Event;
use kube::ResourceExt as _;
use kube::api::{ListParams, Patch, PatchParams};
use openshell_crds::conditions::{self, PROGRAMMED, is_true};
use openshell_crds::sandbox::Phase;
use openshell_crds::{Policy, Provider};
use serde_json::{Value, json};

use crate::faults::between;
use crate::rig::{Rig, eventually};

impl Rig {
    /// Type and reason of the Events about an object, in the order in which they were told.
    async fn told(&self, kind: &str, name: &str) -> Vec<String> {
        let mut events = self.api::<Event>().list(&ListParams::default()).await.unwrap().items;
        events.retain(|event| {
            let regarding = event.regarding.clone().unwrap_or_default();
            let ours = event.reporting_controller.as_deref() == Some("openshell-operator");
            ours && regarding.kind.as_deref() == Some(kind) && regarding.name.as_deref() == Some(name)
        });
        events.sort_by_key(|event| event.event_time.clone().unwrap().0);
        let word = |event: &Event| format!("{} {}", event.type_.as_deref().unwrap(), event.reason.as_deref().unwrap());
        events.iter().map(word).collect()
    }

    async fn tells(&self, kind: &str, name: &str, wanted: &[&str]) {
        eventually(&format!("{kind} {name}: {wanted:?}"), async || self.told(kind, name).await == wanted).await;
    }

    async fn patch_sandbox(&self, name: &str, spec: Value) {
        self.sandboxes().patch(name, &PatchParams::default(), &Patch::Merge(&json!({ "spec": spec }))).await.unwrap();
    }
}

fn ago(seconds: i64) -> String {
    Timestamp::from_second(Timestamp::now().as_second() - seconds).unwrap().to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_life_is_told_once_and_a_restart_tells_nothing() {
    let Some(mut rig) = Rig::start(json!({})).await else { return };
    let (uid, pod) = rig.create_ready("demo", json!({ "idleTimeout": "1h", "ttl": "2h" })).await;
    rig.tells("OpenShellSandbox", "demo", &["Normal Ready"]).await;

    // Left alone: suspended without its spec, and its pod is gone.
    rig.say("demo", json!({ "session": { "lastActivity": ago(7200) } })).await;
    rig.reason("demo", conditions::STARTED, "IdleTimeout").await;
    rig.phase("demo", Phase::Stopped).await;
    eventually("its pod is gone", async || rig.pods(&uid).await.is_empty()).await;
    assert!(!rig.get("demo").await.spec.suspend);
    let life = ["Normal Ready", "Normal IdleTimeout"];
    rig.tells("OpenShellSandbox", "demo", &life).await;

    // Another operator takes over: it stays as it is, and nothing is told again.
    rig.rest().await;
    rig.operate(rig.client.clone());
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(rig.told("OpenShellSandbox", "demo").await, life);
    assert!(rig.pods(&uid).await.is_empty());

    // Woken as the gateway does it.
    rig.say("demo", json!({ "session": { "lastActivity": ago(0) } })).await;
    let second = rig.pod(&uid, Some(&pod)).await;
    let status = json!({ "session": { "instanceId": second.uid().unwrap(), "connected": true, "lastActivity": ago(0) } });
    rig.say("demo", status).await;
    rig.phase("demo", Phase::Ready).await;
    assert_eq!(rig.get("demo").await.status.unwrap().idle_since, None);
    rig.halt("demo").await;
    rig.patch_sandbox("demo", json!({ "ttl": "1s" })).await;
    eventually("it is deleted", async || rig.sandboxes().get_opt("demo").await.unwrap().is_none()).await;
    eventually("all of it is told", async || {
        let told = rig.told("OpenShellSandbox", "demo").await;
        // A start that takes longer than a moment is told as well.
        let told: Vec<_> = told.iter().map(String::as_str).filter(|word| *word != "Normal Started").collect();
        told == ["Normal Ready", "Normal IdleTimeout", "Normal Resumed", "Normal Ready", "Normal Suspended", "Normal Expired"]
    })
    .await;
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sandbox_goes_when_its_time_is_over_although_its_operator_was_away() {
    let Some(mut rig) = Rig::start(json!({})).await else { return };
    let uid = rig.create("brief", json!({ "ttl": "25s" })).await;
    rig.pod(&uid, None).await;
    let begun = rig.get("brief").await.creation_timestamp().unwrap().0;
    rig.rest().await;
    rig.operate(rig.client.clone());
    while Timestamp::now().duration_since(begun) < SignedDuration::from_millis(24_500) {
        assert!(rig.sandboxes().get_opt("brief").await.unwrap().is_some(), "deleted before its time");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    eventually("it is gone", async || rig.sandboxes().get_opt("brief").await.unwrap().is_none()).await;
    eprintln!("its deadline to its deletion: {:?}", Timestamp::now().duration_since(begun) - SignedDuration::from_secs(25));
    eventually("its pod is gone", async || rig.pods(&uid).await.is_empty()).await;
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_refused_is_told_with_its_reason() {
    let Some(rig) = Rig::start(json!({})).await else { return };
    rig.create("demo", json!({ "policyRef": { "name": "web" } })).await;
    rig.tells("OpenShellSandbox", "demo", &["Warning PolicyNotFound"]).await;
    let spec = json!({ "policy": { "version": 1, "netwrk_policies": {} } });
    rig.make(Policy::new("web", serde_json::from_value(spec).unwrap())).await;
    rig.tells("Policy", "web", &["Warning PolicyRefused"]).await;
    let refused = rig.api::<Policy>().get("web").await.unwrap().status.unwrap();
    let accepted = conditions::find(&refused.conditions, conditions::ACCEPTED).unwrap();
    assert!(accepted.status == "False" && accepted.message.starts_with("spec.policy is refused: netwrk_policies: "), "{accepted:?}");
    rig.tells("OpenShellSandbox", "demo", &["Warning PolicyNotFound", "Warning PolicyRefused"]).await;
    let mend = json!({ "spec": { "policy": { "netwrk_policies": null } } });
    rig.api::<Policy>().patch("web", &PatchParams::default(), &Patch::Merge(&mend)).await.unwrap();
    rig.tells("Policy", "web", &["Warning PolicyRefused", "Normal Accepted"]).await;
    let spec = json!({
        "type": "github", "endpoints": [{ "host": "api.github.com" }],
        "credentials": [{ "name": "GITHUB_TOKEN", "secretKeyRef": { "name": "gh", "key": "t" } }],
    });
    rig.make(Provider::new("gh", serde_json::from_value(spec).unwrap())).await;
    rig.tells("Provider", "gh", &["Normal Accepted"]).await;
    rig.stop().await;
}

/// The API server takes no status for an object that does not fit its definition, where that became
/// stricter: an Event tells, and nobody tries again and again.
#[tokio::test(flavor = "multi_thread")]
async fn an_object_that_takes_no_status_is_told_of_by_an_event() {
    let Some(mut rig) = Rig::idle(json!({})).await else { return };
    let tried = Arc::new(AtomicU32::new(0));
    let seen = Arc::clone(&tried);
    let client = between(rig.client.clone(), move |request| {
        let path = request.uri().path();
        let status = *request.method() == Method::PATCH && (path.ends_with("/malformed/status") || path.ends_with("/idle/status"));
        status.then(|| seen.fetch_add(1, Ordering::SeqCst));
        status.then_some((StatusCode::UNPROCESSABLE_ENTITY, "Invalid"))
    });
    rig.operate(client);
    rig.create("malformed", json!({ "policyRef": { "name": "nowhere" } })).await;
    rig.make(Policy::new("malformed", serde_json::from_value(json!({ "policy": { "version": 1 } })).unwrap())).await;
    // What is wrong with it otherwise is told all the same.
    rig.tells("OpenShellSandbox", "malformed", &["Warning PolicyNotFound"]).await;
    rig.tells("Policy", "malformed", &["Warning StatusRefused"]).await;
    let events = rig.api::<Event>().list(&ListParams::default()).await.unwrap().items;
    assert!(events.iter().all(|event| event.note.as_ref().unwrap().ends_with("takes no status for it: made up by a test")));
    rig.create_ready("other", json!({})).await;

    // Nor where something is due from what the status cannot keep.
    let uid = rig.create("idle", json!({ "idleTimeout": "1h" })).await;
    let pod = rig.pod(&uid, None).await;
    rig.connect("idle", &pod).await;
    rig.say("idle", json!({ "session": { "lastActivity": ago(0) } })).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    let tried = tried.load(Ordering::SeqCst);
    assert!((3..=20).contains(&tried), "tried {tried} times");
    rig.stop().await;
}

/// Many sandboxes take up a policy within a moment: each is counted, and not each is written.
#[tokio::test(flavor = "multi_thread")]
async fn a_policy_counts_who_enforces_it_once_a_second() {
    const SANDBOXES: i32 = 12;
    let Some(mut rig) = Rig::idle(json!({})).await else { return };
    let writes = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&writes);
    let client = between(rig.client.clone(), move |request| {
        if *request.method() != Method::GET && request.uri().path().contains("/policies/web/status") {
            seen.lock().unwrap().push(std::time::Instant::now());
        }
        None
    });
    rig.operate(client);
    rig.make(Policy::new("web", serde_json::from_value(json!({ "policy": { "version": 1 } })).unwrap())).await;
    let status = async || rig.api::<Policy>().get("web").await.unwrap().status.unwrap_or_default();
    let counted = async |what: &str, wanted: (i32, i32, i32)| {
        eventually(what, async || {
            let counts = status().await.sandboxes.unwrap_or_default();
            (counts.in_use, counts.acknowledged, counts.failed) == wanted
        })
        .await;
        status().await
    };
    eventually("it is accepted", async || status().await.revision == Some(1)).await;
    let names: Vec<String> = (0..SANDBOXES).map(|i| format!("s{i}")).collect();
    for name in &names {
        rig.create(name, json!({ "policyRef": { "name": "web" } })).await;
    }
    let pending = counted("all are counted", (SANDBOXES, 0, 0)).await;
    assert!(!is_true(&pending.conditions, PROGRAMMED) && is_true(&pending.conditions, conditions::RECONCILING));

    let hash = pending.hash.unwrap();
    let say = |acknowledged: Value, error: Value| json!({ "session": { "instanceId": "i", "connected": true }, "policy": { "revision": 1, "hash": hash, "acknowledgedRevision": acknowledged, "error": error } });
    let begun = std::time::Instant::now();
    for name in &names[1..] {
        rig.say(name, say(json!(1), Value::Null)).await;
    }
    rig.say(&names[0], say(Value::Null, json!("no"))).await;
    let counts = counted("one refuses it", (SANDBOXES, SANDBOXES - 1, 1)).await;
    let programmed = conditions::find(&counts.conditions, PROGRAMMED).unwrap();
    assert_eq!(programmed.message, "11 of 12 sandboxes enforce it, 1 refused it");
    let took = begun.elapsed();
    rig.say(&names[0], say(json!(1), Value::Null)).await;
    let done = counted("all enforce it", (SANDBOXES, SANDBOXES, 0)).await;
    assert!(is_true(&done.conditions, PROGRAMMED) && conditions::find(&done.conditions, conditions::RECONCILING).is_none());

    // One that is stopped enforces nothing.
    rig.suspend(&names[0], true).await;
    counted("the stopped one does not count", (SANDBOXES - 1, SANDBOXES - 1, 0)).await;
    let writes = writes.lock().unwrap().clone();
    eprintln!("{} writes; {SANDBOXES} acknowledgements were counted {took:?} after the first", writes.len());
    // By seconds: never more than the two that its spec and its count are worth.
    let mut by_second: BTreeMap<u64, usize> = BTreeMap::new();
    for at in &writes {
        *by_second.entry(at.duration_since(writes[0]).as_secs()).or_default() += 1;
    }
    assert!(by_second.values().all(|in_it| *in_it <= 2), "{by_second:?}");
    let seconds = writes.last().unwrap().duration_since(writes[0]).as_secs_f64().ceil() as usize;
    assert!(writes.len() <= seconds + 2, "{} writes in {seconds} s for {} changes", writes.len(), 3 * SANDBOXES);
    rig.stop().await;
}
