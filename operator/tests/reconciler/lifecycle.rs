//! Sandboxes through their life: the controllers over the local API and the process driver.

use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Secret;
use kube::api::{Api, DeleteParams, ObjectMeta, Patch, PatchParams, PostParams};
use kube::{Client, ResourceExt as _};
use openshell_crds::conditions::{self, is_true};
use openshell_crds::policy::PolicyDocument;
use openshell_crds::sandbox::{LocalRef, Phase};
use openshell_crds::{OpenShellGateway, OpenShellSandbox, OpenShellSandboxSpec, Policy, PolicySpec, Provider, ProviderSpec};
use openshell_operator::api::LocalApi;
use openshell_operator::controllers::{self, ControllerConfig, Setting};
use openshell_operator::metrics::Metrics;
use openshell_operator::revisions::{self, Numbered, Revision};
use openshell_operator::{LOCAL_NAMESPACE, WORKLOAD_FINALIZER};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::rig::{PATIENCE, Rig, eventually, is_empty, kill};

/// The reconciler, and the API it works on.
pub(crate) struct Reconciler {
    pub(crate) client: Client,
    shutdown: CancellationToken,
    done: tokio::task::JoinHandle<()>,
    api: LocalApi,
}

impl Reconciler {
    pub(crate) async fn start(rig: &Rig) -> Self {
        let _ = tracing_subscriber::fmt().with_env_filter(tracing_subscriber::EnvFilter::from_default_env()).with_test_writer().try_init();
        let api = LocalApi::open(&rig.root.join("openshell.db"), &rig.root.join("seal.key")).await.unwrap();
        let client = api.client();
        let shutdown = CancellationToken::new();
        let config = ControllerConfig {
            metrics: Metrics::default(),
            client: client.clone(),
            driver: Arc::new(rig.driver()),
            gateway_name: "local".to_owned(),
            gateway_namespace: LOCAL_NAMESPACE.to_owned(),
            namespace: LOCAL_NAMESPACE.to_owned(),
            setting: Setting::Local { endpoint: Some("https://127.0.0.1:17670".to_owned()) },
        };
        let until = shutdown.clone();
        let done = tokio::spawn(async move { controllers::run(config, until).await.unwrap() });
        Self { client, shutdown, done, api }
    }

    pub(crate) async fn stop(self) {
        self.shutdown.cancel();
        tokio::time::timeout(Duration::from_secs(10), self.done).await.unwrap().unwrap();
        self.api.close().await;
    }

    pub(crate) fn sandboxes(&self) -> Api<OpenShellSandbox> {
        Api::namespaced(self.client.clone(), LOCAL_NAMESPACE)
    }

    fn policies(&self) -> Api<Policy> {
        Api::namespaced(self.client.clone(), LOCAL_NAMESPACE)
    }

    pub(crate) async fn create(&self, name: &str, spec: OpenShellSandboxSpec) -> String {
        self.sandboxes().create(&PostParams::default(), &OpenShellSandbox::new(name, spec)).await.unwrap().uid().unwrap()
    }

    pub(crate) async fn get(&self, name: &str) -> OpenShellSandbox {
        self.sandboxes().get(name).await.unwrap()
    }

    pub(crate) async fn suspend(&self, name: &str, suspend: bool) {
        let patch = json!({ "spec": { "suspend": suspend } });
        self.sandboxes().patch(name, &PatchParams::default(), &Patch::Merge(&patch)).await.unwrap();
    }

    pub(crate) async fn phase(&self, name: &str, phase: Phase) {
        eventually(&format!("{name} is {phase:?}"), async || self.get(name).await.status.is_some_and(|status| status.phase == Some(phase)))
            .await;
    }

    /// Waits for the supervisor and says what the gateway would say of its session.
    pub(crate) async fn connect(&self, rig: &Rig, name: &str, uid: &str, extra: serde_json::Value) {
        let instance = instance(rig, uid).await;
        let mut status = json!({
            "session": { "instanceId": instance, "connected": true },
            "policy": { "revision": 1, "hash": "sha256:0", "acknowledgedRevision": 1 },
            "mainProcess": null,
        });
        json_merge(&mut status, extra);
        self.say(name, status).await;
    }

    pub(crate) async fn say(&self, name: &str, status: serde_json::Value) {
        let gateway = PatchParams { field_manager: Some("openshell-gateway".to_owned()), ..PatchParams::default() };
        self.sandboxes().patch_status(name, &gateway, &Patch::Merge(&json!({ "status": status }))).await.unwrap();
    }

    async fn reason(&self, name: &str, kind: &str, reason: &str) {
        let mut found = None;
        let waited = tokio::time::timeout(PATIENCE, async {
            while found.as_deref() != Some(reason) {
                tokio::time::sleep(Duration::from_millis(5)).await;
                let status = self.get(name).await.status.unwrap_or_default();
                found = conditions::find(&status.conditions, kind).map(|c| c.reason.clone());
            }
        });
        let waited = waited.await;
        assert!(waited.is_ok(), "{name} has {kind} for {found:?}, not for {reason}");
    }
}

fn json_merge(target: &mut serde_json::Value, other: serde_json::Value) {
    if let (Some(target), serde_json::Value::Object(other)) = (target.as_object_mut(), other) {
        target.extend(other);
    }
}

/// Instance id of the stand-in that runs.
pub(crate) async fn instance(rig: &Rig, uid: &str) -> String {
    let path = rig.directory(uid).join("supervisor.json");
    eventually("a supervisor is there", async || path.exists()).await;
    let record: serde_json::Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    record["instance"].as_str().unwrap().to_owned()
}

fn egress(host: &str) -> PolicyDocument {
    PolicyDocument(json!({
        "version": 1,
        "network_policies": { "web": { "endpoints": [{ "host": host, "port": 443 }], "binaries": [{ "path": "/usr/bin/curl" }] } },
    }))
}

#[tokio::test(flavor = "multi_thread")]
async fn create_ready_stop_start_delete() {
    let rig = Rig::new();
    let reconciler = Reconciler::start(&rig).await;
    let begin = Instant::now();
    let uid = reconciler.create("demo", OpenShellSandboxSpec { command: vec!["sleep".into()], ..Default::default() }).await;
    eventually("spawned", async || rig.started(&uid) > 0).await;
    eprintln!("create to a running stand-in: {:?}", begin.elapsed());
    reconciler.phase("demo", Phase::Provisioning).await;
    let object = reconciler.get("demo").await;
    assert_eq!(object.finalizers(), [WORKLOAD_FINALIZER]);
    reconciler.connect(&rig, "demo", &uid, json!({})).await;
    reconciler.phase("demo", Phase::Ready).await;
    let status = reconciler.get("demo").await.status.unwrap();
    for kind in [conditions::SCHEDULED, conditions::STARTED, conditions::READY] {
        assert!(is_true(&status.conditions, kind), "{kind}: {:?}", status.conditions);
    }
    assert!(conditions::find(&status.conditions, conditions::RECONCILING).is_none());
    assert_eq!((status.driver.as_deref(), status.observed_generation), (Some("process"), Some(1)));
    assert_eq!(status.workload.unwrap(), rig.living(&uid)[0].to_string());

    reconciler.suspend("demo", true).await;
    reconciler.phase("demo", Phase::Stopped).await;
    assert!(rig.living(&uid).is_empty());
    assert!(rig.directory(&uid).join("workspace").is_dir());
    reconciler.suspend("demo", false).await;
    reconciler.phase("demo", Phase::Starting).await;
    reconciler.connect(&rig, "demo", &uid, json!({})).await;
    reconciler.phase("demo", Phase::Ready).await;

    let begin = Instant::now();
    reconciler.sandboxes().delete("demo", &DeleteParams::default()).await.unwrap();
    let acknowledged = begin.elapsed();
    eventually("gone", async || reconciler.sandboxes().get_opt("demo").await.unwrap().is_none()).await;
    eprintln!("delete acknowledged after {acknowledged:?}, gone after {:?}", begin.elapsed());
    assert!(rig.living(&uid).is_empty());
    eventually("removed", async || is_empty(&rig.root.join("sandboxes/.removed"))).await;
    assert!(!rig.directory(&uid).exists());
    reconciler.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_of_the_reconciler_changes_nothing_that_runs() {
    let rig = Rig::new();
    let reconciler = Reconciler::start(&rig).await;
    let uid = reconciler.create("demo", OpenShellSandboxSpec::default()).await;
    reconciler.connect(&rig, "demo", &uid, json!({})).await;
    reconciler.phase("demo", Phase::Ready).await;
    let before = reconciler.get("demo").await.metadata.resource_version;
    reconciler.stop().await;
    let reconciler = Reconciler::start(&rig).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(reconciler.get("demo").await.metadata.resource_version, before, "a status was written although nothing had changed");
    assert_eq!((rig.living(&uid).len(), rig.started(&uid)), (1, 1));
    // And its end is noticed, although it is nobody's child any more.
    kill(rig.living(&uid)[0]);
    reconciler.phase("demo", Phase::Error).await;
    reconciler.reason("demo", conditions::READY, "SupervisorDied").await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(rig.started(&uid), 1, "a supervisor that lost its agent is not started again silently");
    reconciler.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_main_process_decides_how_it_ends() {
    let rig = Rig::new();
    let reconciler = Reconciler::start(&rig).await;
    for (name, code, phase, kind, reason) in [
        ("well", 0, Phase::Completed, conditions::STARTED, "Completed"),
        ("badly", 3, Phase::Error, conditions::READY, "MainProcessFailed"),
    ] {
        let uid = reconciler.create(name, OpenShellSandboxSpec { command: vec!["true".into()], ..Default::default() }).await;
        reconciler.connect(&rig, name, &uid, json!({ "mainProcess": { "state": "Exited", "exitCode": code } })).await;
        reconciler.phase(name, phase).await;
        reconciler.reason(name, kind, reason).await;
    }
    let status = reconciler.get("badly").await.status.unwrap();
    assert!(conditions::find(&status.conditions, conditions::READY).unwrap().message.contains("exit code 3"));
    // Stop and start: it runs again.
    let uid = reconciler.get("well").await.uid().unwrap();
    reconciler.suspend("well", true).await;
    reconciler.phase("well", Phase::Stopped).await;
    reconciler.suspend("well", false).await;
    reconciler.phase("well", Phase::Starting).await;
    eventually("started again", async || rig.started(&uid) == 2).await;
    reconciler.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_say_why_and_mend_themselves() {
    let rig = Rig::new();
    let reconciler = Reconciler::start(&rig).await;
    let refers = OpenShellSandboxSpec { policy_ref: Some(LocalRef { name: "web".into() }), ..Default::default() };
    let uid = reconciler.create("demo", refers).await;
    reconciler.phase("demo", Phase::Error).await;
    reconciler.reason("demo", conditions::STALLED, "PolicyNotFound").await;
    assert_eq!(rig.started(&uid), 0);

    let spec = PolicySpec { policy: PolicyDocument(json!({ "version": 1, "netwrk_policies": {} })), selector: None };
    reconciler.policies().create(&PostParams::default(), &Policy::new("web", spec)).await.unwrap();
    reconciler.reason("demo", conditions::STALLED, "PolicyRefused").await;
    let accepted = async |reason: &str| {
        eventually(reason, async || {
            let status = reconciler.policies().get("web").await.unwrap().status.unwrap_or_default();
            conditions::find(&status.conditions, conditions::ACCEPTED).is_some_and(|c| c.reason == reason)
        })
        .await;
        reconciler.policies().get("web").await.unwrap().status.unwrap()
    };
    let status = accepted("PolicyRefused").await;
    assert!(conditions::find(&status.conditions, conditions::ACCEPTED).unwrap().message.contains("netwrk_policies"));
    assert_eq!((status.revision, rig.started(&uid)), (None, 0), "never a workload without an accepted policy");

    let mend =
        json!({ "spec": { "policy": { "netwrk_policies": null, "network_policies": egress("example.com").0["network_policies"] } } });
    reconciler.policies().patch("web", &PatchParams::default(), &Patch::Merge(&mend)).await.unwrap();
    let status = accepted("Accepted").await;
    assert_eq!(status.revision, Some(1));
    reconciler.phase("demo", Phase::Provisioning).await;
    let hash = status.hash.unwrap();
    reconciler.connect(&rig, "demo", &uid, json!({ "policy": { "revision": 1, "hash": hash, "acknowledgedRevision": 1 } })).await;
    reconciler.phase("demo", Phase::Ready).await;
    eventually("programmed", async || {
        let status = reconciler.policies().get("web").await.unwrap().status.unwrap_or_default();
        let counts = status.sandboxes.clone().unwrap_or_default();
        is_true(&status.conditions, conditions::PROGRAMMED) && (counts.in_use, counts.acknowledged, counts.failed) == (1, 1, 0)
    })
    .await;

    // What runs is not stopped by a policy that becomes unusable.
    let spoil = json!({ "spec": { "policy": { "filesytem_policy": {} } } });
    reconciler.policies().patch("web", &PatchParams::default(), &Patch::Merge(&spoil)).await.unwrap();
    reconciler.reason("demo", conditions::STALLED, "PolicyRefused").await;
    let status = reconciler.get("demo").await.status.unwrap();
    assert_eq!(status.phase, Some(Phase::Ready));
    assert_eq!(rig.living(&uid).len(), 1);
    assert_eq!(accepted("PolicyRefused").await.revision, Some(1));
    reconciler.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_api_takes_and_cannot_be_says_so() {
    let rig = Rig::new();
    let reconciler = Reconciler::start(&rig).await;
    crate::said::every_object_says_it(&reconciler.client, LOCAL_NAMESPACE).await;
    reconciler.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_made_together_need_no_order() {
    let rig = Rig::new();
    let reconciler = Reconciler::start(&rig).await;
    for i in 0..20 {
        let name = format!("both-{i}");
        let spec = PolicySpec { policy: egress("example.com"), selector: None };
        reconciler.policies().create(&PostParams::default(), &Policy::new(&name, spec)).await.unwrap();
        reconciler.create(&name, OpenShellSandboxSpec { policy_ref: Some(LocalRef { name: name.clone() }), ..Default::default() }).await;
        let status = eventually_status(&reconciler, &name).await;
        assert_eq!(status.phase, Some(Phase::Provisioning), "{status:?}");
    }
    reconciler.stop().await;
}

async fn eventually_status(reconciler: &Reconciler, name: &str) -> openshell_crds::OpenShellSandboxStatus {
    eventually("a status", async || reconciler.get(name).await.status.is_some_and(|status| status.phase.is_some())).await;
    reconciler.get(name).await.status.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn providers_are_checked_against_their_secrets() {
    let rig = Rig::new();
    let reconciler = Reconciler::start(&rig).await;
    let providers: Api<Provider> = Api::namespaced(reconciler.client.clone(), LOCAL_NAMESPACE);
    let secrets: Api<Secret> = Api::namespaced(reconciler.client.clone(), LOCAL_NAMESPACE);
    let spec: ProviderSpec = serde_json::from_value(json!({
        "type": "github",
        "credentials": [{ "name": "GITHUB_TOKEN", "secretKeyRef": { "name": "osprov-gh", "key": "GITHUB_TOKEN" } }],
        "endpoints": [{ "host": "api.github.com" }],
    }))
    .unwrap();
    providers.create(&PostParams::default(), &Provider::new("gh", spec)).await.unwrap();
    let accepted = async |reason: &str| {
        eventually(reason, async || {
            let status = providers.get("gh").await.unwrap().status.unwrap_or_default();
            conditions::find(&status.conditions, conditions::ACCEPTED).is_some_and(|c| c.reason == reason)
        })
        .await;
    };
    accepted("SecretNotFound").await;
    let secret = Secret {
        metadata: ObjectMeta {
            name: Some("osprov-gh".into()),
            labels: Some([("openshell.ai/credential".to_owned(), "true".to_owned())].into()),
            ..Default::default()
        },
        string_data: Some([("OTHER".to_owned(), "x".to_owned())].into()),
        ..Default::default()
    };
    secrets.create(&PostParams::default(), &secret).await.unwrap();
    accepted("SecretKeyNotFound").await;
    let add = json!({ "stringData": { "GITHUB_TOKEN": "s3cret" } });
    secrets.patch("osprov-gh", &PatchParams::default(), &Patch::Merge(&add)).await.unwrap();
    accepted("Accepted").await;

    let needs = OpenShellSandboxSpec { provider_refs: vec![LocalRef { name: "nope".into() }], ..Default::default() };
    reconciler.create("demo", needs).await;
    reconciler.reason("demo", conditions::READY, "ProviderNotFound").await;
    reconciler.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn driver_failures_are_conditions_and_quotas_hold() {
    let rig = Rig::new();
    let reconciler = Reconciler::start(&rig).await;
    let gateways: Api<OpenShellGateway> = Api::namespaced(reconciler.client.clone(), LOCAL_NAMESPACE);
    let gateway: OpenShellGateway = serde_json::from_value(json!({
        "apiVersion": "openshell.ai/v1alpha1", "kind": "OpenShellGateway",
        "metadata": { "name": "local" }, "spec": { "quotas": { "sandboxes": 1 } },
    }))
    .unwrap();
    gateways.create(&PostParams::default(), &gateway).await.unwrap();
    eventually("the gateway has a status", async || {
        gateways.get("local").await.unwrap().status.is_some_and(|s| s.endpoint.is_some() && is_true(&s.conditions, conditions::READY))
    })
    .await;
    let first = reconciler.create("fails-1", OpenShellSandboxSpec::default()).await;
    reconciler.phase("fails-1", Phase::Error).await;
    reconciler.reason("fails-1", conditions::READY, "LandlockUnavailable").await;
    tokio::time::sleep(Duration::from_millis(1100)).await;
    reconciler.create("second", OpenShellSandboxSpec::default()).await;
    reconciler.reason("second", conditions::STALLED, "QuotaExceeded").await;
    assert_eq!(rig.started(&first), 1);
    reconciler.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_workload_without_an_object_is_ended_and_its_workspace_kept() {
    use openshell_operator::driver::ComputeDriver as _;
    let rig = Rig::new();
    let uid = "0b9f1f4e-6f5a-4f0e-8d29-5d1f6c1f7a99";
    rig.driver().ensure(&crate::objects::blueprint("lost", uid)).await.unwrap();
    instance(&rig, uid).await;
    std::fs::write(rig.directory(uid).join("workspace/work"), "x").unwrap();
    let reconciler = Reconciler::start(&rig).await;
    eventually("ended", async || rig.living(uid).is_empty()).await;
    assert!(rig.directory(uid).join("workspace/work").exists());
    reconciler.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn policy_history_is_numbered_bounded_and_owned() {
    let rig = Rig::new();
    let reconciler = Reconciler::start(&rig).await;
    reconciler.create("demo", OpenShellSandboxSpec::default()).await;
    let owner = reconciler.get("demo").await;
    let client = &reconciler.client;
    let first = Revision { number: 1, hash: "sha256:1".to_owned(), policy: json!({ "version": 1 }), created: None };
    let record = async |i: usize| {
        let policy = format!("{{\"version\":{i}}}");
        revisions::record(client, &owner, Some(&first), policy.as_bytes(), &format!("sha256:{i}")).await.unwrap().number
    };
    let alone = revisions::record(client, &owner, None, b"{\"version\":1}", "sha256:1").await.unwrap();
    assert_eq!(alone, Numbered { number: 1, recorded: false }, "the first one is worth no write");
    let long = format!("{{\"x\":\"{}\"}}", "x".repeat(openshell_operator::limits::POLICY_IN_STATUS));
    reconciler.create("long", OpenShellSandboxSpec::default()).await;
    let other = reconciler.get("long").await;
    assert!(
        revisions::record(client, &other, None, long.as_bytes(), "sha256:l").await.unwrap().recorded,
        "but for one that no status holds"
    );
    assert_eq!(record(1).await, 1);
    assert_eq!(revisions::list(client, &owner).await.unwrap(), []);
    assert_eq!(record(1).await, 1, "the same policy keeps its number");
    assert_eq!(record(2).await, 2);
    assert_eq!(record(1).await, 3, "going back is a change");
    let all = revisions::list(client, &owner).await.unwrap();
    assert_eq!(all.iter().map(|r| (r.number, r.hash.as_str())).collect::<Vec<_>>(), [(1, "sha256:1"), (2, "sha256:2"), (3, "sha256:1")]);
    let two = &all[1];
    assert_eq!(two.policy, json!({ "version": 2 }));
    assert!(two.created.is_some());
    let at_once = futures::future::join_all((10..14).map(&record)).await;
    let mut numbers = at_once.clone();
    numbers.sort_unstable();
    numbers.dedup();
    assert_eq!(numbers.len(), 4, "{at_once:?}");
    for i in 20..130 {
        record(i).await;
    }
    let all = revisions::list(client, &owner).await.unwrap();
    assert_eq!(all.len(), openshell_operator::limits::REVISIONS_KEPT);
    assert_eq!(all.last().unwrap().hash, "sha256:129");
    // Another sandbox of the same name begins anew, whatever is left of the first one's history.
    reconciler.sandboxes().delete("demo", &DeleteParams::default()).await.unwrap();
    eventually("gone", async || reconciler.sandboxes().get_opt("demo").await.unwrap().is_none()).await;
    reconciler.create("demo", OpenShellSandboxSpec::default()).await;
    let second = reconciler.get("demo").await;
    assert_eq!(
        revisions::record(client, &second, None, long.as_bytes(), "sha256:x").await.unwrap(),
        Numbered { number: 1, recorded: true }
    );
    reconciler.stop().await;
}
