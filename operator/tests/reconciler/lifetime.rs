//! Sandboxes whose time ends, and sandboxes that are left alone.

use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::{Patch, PatchParams};
use openshell_crds::OpenShellSandboxSpec;
use openshell_crds::duration::Duration as Span;
use openshell_crds::sandbox::Phase;
use serde_json::json;

use crate::lifecycle::Reconciler;
use crate::rig::{Rig, eventually};

fn lives(ttl: &str) -> OpenShellSandboxSpec {
    OpenShellSandboxSpec { ttl: Span::parse(ttl), ..Default::default() }
}

impl Reconciler {
    async fn patch(&self, name: &str, spec: serde_json::Value) {
        self.sandboxes().patch(name, &PatchParams::default(), &Patch::Merge(&json!({ "spec": spec }))).await.unwrap();
    }

    async fn is_there(&self, name: &str) -> bool {
        self.sandboxes().get_opt(name).await.unwrap().is_some_and(|sandbox| sandbox.metadata.deletion_timestamp.is_none())
    }

    async fn age(&self, name: &str) -> SignedDuration {
        Timestamp::now().duration_since(self.get(name).await.metadata.creation_timestamp.unwrap().0)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sandbox_lives_as_long_as_its_ttl_says_across_a_restart() {
    let rig = Rig::new();
    let reconciler = Reconciler::start(&rig).await;
    let uid = reconciler.create("brief", lives("4s")).await;
    reconciler.connect(&rig, "brief", &uid, json!({})).await;
    reconciler.phase("brief", Phase::Ready).await;
    let kept = reconciler.create("kept", lives("3s")).await;
    eventually("started", async || rig.started(&kept) == 1).await;
    reconciler.patch("kept", json!({ "ttl": "1h" })).await;
    // One that is stopped is as old as one that runs.
    reconciler.create("stopped", lives("3s")).await;
    reconciler.suspend("stopped", true).await;
    reconciler.stop().await;

    let reconciler = Reconciler::start(&rig).await;
    reconciler.phase("stopped", Phase::Stopped).await;
    while reconciler.age("brief").await < SignedDuration::from_millis(3800) {
        assert!(reconciler.is_there("brief").await, "deleted before its time");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    for name in ["brief", "stopped"] {
        eventually("gone", async || reconciler.sandboxes().get_opt(name).await.unwrap().is_none()).await;
    }
    assert!(rig.living(&uid).is_empty() && !rig.directory(&uid).exists());
    assert!(reconciler.is_there("kept").await && rig.living(&kept).len() == 1);
    // What is over already ends at once.
    reconciler.patch("kept", json!({ "ttl": "1s" })).await;
    eventually("gone", async || reconciler.sandboxes().get_opt("kept").await.unwrap().is_none()).await;
    reconciler.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sandbox_that_is_left_alone_is_suspended_at_its_deadline_and_woken_by_activity() {
    let rig = Rig::new();
    let reconciler = Reconciler::start(&rig).await;
    let spec = OpenShellSandboxSpec { idle_timeout: Span::parse("90s"), ..Default::default() };
    let uid = reconciler.create("quiet", spec).await;
    let ago = |seconds: i64| Time(Timestamp::from_second(Timestamp::now().as_second() - seconds).unwrap());
    let session = async |last: &Time| {
        let instance = crate::lifecycle::instance(&rig, &uid).await;
        json!({ "session": { "instanceId": instance, "connected": true, "lastActivity": last } })
    };
    // Its deadline is four seconds away, and two of them pass with nobody there.
    let last = ago(86);
    reconciler.connect(&rig, "quiet", &uid, session(&last).await).await;
    reconciler.phase("quiet", Phase::Ready).await;
    reconciler.stop().await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let reconciler = Reconciler::start(&rig).await;
    let deadline = last.0 + SignedDuration::from_secs(90);
    while Timestamp::now() < deadline - SignedDuration::from_millis(100) {
        assert_eq!(reconciler.get("quiet").await.status.unwrap().phase, Some(Phase::Ready), "suspended before its time");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let begun = Instant::now();
    reconciler.phase("quiet", Phase::Stopped).await;
    eprintln!("deadline to stopped: {:?}", begun.elapsed());
    let object = reconciler.get("quiet").await;
    assert!(!object.spec.suspend, "the spec is its author's");
    assert_eq!(object.status.unwrap().idle_since, Some(last));
    assert!(rig.living(&uid).is_empty() && rig.directory(&uid).join("workspace").is_dir());

    // What its author changes meanwhile does not wake it.
    reconciler.patch("quiet", json!({ "providerRefs": [], "ttl": "1h" })).await;
    eventually("seen", async || {
        let object = reconciler.get("quiet").await;
        object.status.unwrap().observed_generation == object.metadata.generation
    })
    .await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(rig.started(&uid), 1);

    let gateway = json!({ "session": { "lastActivity": ago(0) } });
    reconciler.say("quiet", gateway).await;
    eventually("started again", async || rig.started(&uid) == 2).await;
    reconciler.phase("quiet", Phase::Starting).await;
    assert_eq!(reconciler.get("quiet").await.status.unwrap().idle_since, None);
    reconciler.stop().await;
}
