//! A namespace of a real cluster, with the controllers working in it.

use std::fmt::Debug;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Pod};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config, ResourceExt as _};
use openshell_crds::agents::{Sandbox, Served};
use openshell_crds::sandbox::Phase;
use openshell_crds::{OpenShellGateway, OpenShellSandbox, conditions};
use openshell_operator::controllers::{self, ControllerConfig, DeploymentConfig, Setting};
use openshell_operator::driver::kubernetes::{Gateway, KubernetesDriver, KubernetesDriverConfig};
use openshell_operator::metrics::Metrics;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

/// As the supervisor of the tests and as the image of their agents.
pub(crate) const IMAGE: &str = "localhost/openshell-test/stand-in:1";

/// The cluster, if there is one to test on. `KUBECONFIG` is not asked: it may name one that people use.
pub(crate) fn kubeconfig() -> Option<PathBuf> {
    let named = std::env::var_os("OPENSHELL_TEST_KUBECONFIG");
    if named.is_none() {
        eprintln!("skipped: OPENSHELL_TEST_KUBECONFIG names no cluster; `make cluster` starts one");
    }
    named.map(PathBuf::from)
}

pub(crate) async fn client(kubeconfig: &Path) -> Client {
    let read = Kubeconfig::read_from(kubeconfig).unwrap();
    Client::try_from(Config::from_custom_kubeconfig(read, &KubeConfigOptions::default()).await.unwrap()).unwrap()
}

/// A namespace, and the operator of it.
pub(crate) struct Rig {
    /// Ours, without what is put between the operator and the API server.
    pub(crate) client: Client,
    pub(crate) namespace: String,
    pub(crate) operator: Option<Operator>,
}

/// The controllers of a namespace, at work.
pub(crate) struct Operator {
    shutdown: CancellationToken,
    done: tokio::task::JoinHandle<()>,
}

impl Operator {
    pub(crate) fn start(client: Client, namespace: &str) -> Self {
        Self::with(client, namespace, None)
    }

    /// One that deploys the gateway as well. The image is the stand-in's, which is no gateway: its pod ends at once.
    pub(crate) fn deploying(client: Client, namespace: &str) -> Self {
        Self::with(client, namespace, Some(DeploymentConfig { image: IMAGE.into() }))
    }

    fn with(client: Client, namespace: &str, deployment: Option<DeploymentConfig>) -> Self {
        let shutdown = CancellationToken::new();
        let driver = KubernetesDriverConfig {
            client: client.clone(),
            namespace: namespace.to_owned(),
            gateway: Gateway { name: "default".into(), namespace: namespace.to_owned() },
            supervisor_image: Some(IMAGE.into()),
        };
        let config = ControllerConfig {
            metrics: Metrics::default(),
            client,
            driver: Arc::new(KubernetesDriver::start(driver, &shutdown)),
            gateway_name: "default".into(),
            gateway_namespace: namespace.to_owned(),
            namespace: namespace.to_owned(),
            setting: Setting::Cluster { deployment },
        };
        let until = shutdown.clone();
        Self { done: tokio::spawn(async move { controllers::run(config, until).await.unwrap() }), shutdown }
    }

    pub(crate) async fn stop(self) {
        self.shutdown.cancel();
        tokio::time::timeout(Duration::from_secs(10), self.done).await.unwrap().unwrap();
    }

    /// It is gone, in the middle of whatever it did.
    pub(crate) fn kill(self) {
        self.done.abort();
        self.shutdown.cancel();
    }
}

impl Rig {
    /// A namespace that holds pods to `restricted`, and an operator for it. `None` without a cluster.
    pub(crate) async fn start(defaults: Value) -> Option<Self> {
        let mut rig = Self::idle(defaults).await?;
        rig.operate(rig.client.clone());
        Some(rig)
    }

    /// The same, and nobody works in it yet.
    pub(crate) async fn idle(defaults: Value) -> Option<Self> {
        let kubeconfig = kubeconfig()?;
        let _ = tracing_subscriber::fmt().with_env_filter(tracing_subscriber::EnvFilter::from_default_env()).with_test_writer().try_init();
        image(&kubeconfig);
        let client = client(&kubeconfig).await;
        definitions(&client).await;
        let namespace = format!("operator-test-{:08x}", rand::random::<u32>());
        let object: Namespace = serde_json::from_value(json!({
            "metadata": { "name": namespace, "labels": { "pod-security.kubernetes.io/enforce": "restricted" } },
        }))
        .unwrap();
        Api::all(client.clone()).create(&PostParams::default(), &object).await.unwrap();
        let rig = Self { client, namespace, operator: None };
        let authority = json!({ "metadata": { "name": "default-gateway-ca" }, "data": { "ca.crt": "pem" } });
        rig.make::<ConfigMap>(serde_json::from_value(authority).unwrap()).await;
        let mut all = json!({ "image": IMAGE, "imagePullPolicy": "Never" });
        all.as_object_mut().unwrap().extend(defaults.as_object().unwrap().clone());
        rig.make(OpenShellGateway::new("default", serde_json::from_value(json!({ "sandboxDefaults": all })).unwrap())).await;
        Some(rig)
    }

    /// An operator begins.
    pub(crate) fn operate(&mut self, client: Client) {
        self.operator = Some(Operator::start(client, &self.namespace));
    }

    /// It ends.
    pub(crate) async fn rest(&mut self) {
        if let Some(operator) = self.operator.take() {
            operator.stop().await;
        }
    }

    /// Everything of it goes.
    pub(crate) async fn stop(mut self) {
        self.rest().await;
        Api::<Namespace>::all(self.client.clone()).delete(&self.namespace, &DeleteParams::background()).await.unwrap();
    }

    pub(crate) fn api<K>(&self) -> Api<K>
    where
        K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// Changes the spec of the gateway.
    pub(crate) async fn patch_gateway(&self, spec: Value) {
        let patch = Patch::Merge(json!({ "spec": spec }));
        self.api::<OpenShellGateway>().patch("default", &PatchParams::default(), &patch).await.unwrap();
    }

    /// Takes away what the rig has in place of a gateway's authority: the operator makes it.
    pub(crate) async fn without_authority(&self) {
        self.api::<ConfigMap>().delete("default-gateway-ca", &DeleteParams::default()).await.unwrap();
    }

    pub(crate) fn sandboxes(&self) -> Api<OpenShellSandbox> {
        self.api()
    }

    pub(crate) fn agents(&self) -> Api<Sandbox> {
        Api::namespaced_with(self.client.clone(), &self.namespace, &Served::V1Beta1)
    }

    /// Creates an object in the namespace.
    pub(crate) async fn make<K>(&self, object: K) -> K
    where
        K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>,
        K: Clone + Debug + DeserializeOwned + Serialize,
    {
        self.api().create(&PostParams::default(), &object).await.unwrap()
    }

    pub(crate) async fn create(&self, name: &str, spec: Value) -> String {
        self.make(OpenShellSandbox::new(name, serde_json::from_value(spec).unwrap())).await.uid().unwrap()
    }

    /// Creates a sandbox that comes to be Ready. Its UID, and its pod.
    pub(crate) async fn create_ready(&self, name: &str, spec: Value) -> (String, Pod) {
        let uid = self.create(name, spec).await;
        let pod = self.ready(name, &uid, None).await;
        (uid, pod)
    }

    /// The pod in which a sandbox comes to be Ready; another one than `before`.
    pub(crate) async fn ready(&self, name: &str, uid: &str, before: Option<&Pod>) -> Pod {
        let pod = self.pod(uid, before).await;
        self.connect(name, &pod).await;
        self.phase(name, Phase::Ready).await;
        pod
    }

    pub(crate) async fn delete(&self, name: &str) {
        self.sandboxes().delete(name, &DeleteParams::default()).await.unwrap();
    }

    pub(crate) async fn get(&self, name: &str) -> OpenShellSandbox {
        self.sandboxes().get(name).await.unwrap()
    }

    pub(crate) async fn suspend(&self, name: &str, suspend: bool) {
        let patch = json!({ "spec": { "suspend": suspend } });
        self.sandboxes().patch(name, &PatchParams::default(), &Patch::Merge(&patch)).await.unwrap();
    }

    /// Suspends a sandbox, and waits until it is Stopped.
    pub(crate) async fn halt(&self, name: &str) {
        self.suspend(name, true).await;
        self.phase(name, Phase::Stopped).await;
    }

    pub(crate) async fn phase(&self, name: &str, phase: Phase) {
        let what = format!("{name} is {phase:?}");
        self.until(name, &what, |sandbox| sandbox.status.as_ref().is_some_and(|status| status.phase == Some(phase))).await;
    }

    /// Waits for a condition's reason, and gives its message.
    pub(crate) async fn reason(&self, name: &str, kind: &str, reason: &str) -> String {
        let sandbox = self
            .until(name, &format!("{name} has {kind} for {reason}"), |sandbox| {
                let conditions = sandbox.status.iter().flat_map(|status| &status.conditions);
                conditions.into_iter().any(|c| c.type_ == kind && c.reason == reason)
            })
            .await;
        conditions::find(&sandbox.status.unwrap().conditions, kind).unwrap().message.clone()
    }

    async fn until(&self, name: &str, what: &str, holds: impl Fn(&OpenShellSandbox) -> bool) -> OpenShellSandbox {
        let end = Instant::now() + Duration::from_mins(1);
        loop {
            let sandbox = self.get(name).await;
            if holds(&sandbox) {
                return sandbox;
            }
            assert!(Instant::now() < end, "{what}: it does not come to that: {:#?}", sandbox.status);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// The pod of a sandbox, once its supervisor runs; another one than `before`.
    pub(crate) async fn pod(&self, uid: &str, before: Option<&Pod>) -> Pod {
        let running = |pod: &Pod| {
            let containers = pod.status.iter().flat_map(|status| status.container_statuses.iter().flatten());
            pod.metadata.deletion_timestamp.is_none()
                && before.is_none_or(|before| before.metadata.uid != pod.metadata.uid)
                && containers.into_iter().any(|c| c.state.as_ref().is_some_and(|state| state.running.is_some()))
        };
        let found = async || self.pods(uid).await.into_iter().find(running);
        eventually("the pod runs", async || found().await.is_some()).await;
        found().await.unwrap()
    }

    pub(crate) async fn pods(&self, uid: &str) -> Vec<Pod> {
        let params = ListParams::default().labels(&format!("openshell.ai/sandbox-id={uid}"));
        self.api::<Pod>().list(&params).await.unwrap().items
    }

    /// Says what the gateway would say of the session of that pod's supervisor.
    pub(crate) async fn connect(&self, name: &str, pod: &Pod) {
        let status = json!({
            "session": { "instanceId": pod.uid().unwrap(), "connected": true },
            "policy": { "revision": 1, "hash": "sha256:0", "acknowledgedRevision": 1 },
            "mainProcess": null,
        });
        self.say(name, status).await;
    }

    /// Says something in the gateway's part of a status.
    pub(crate) async fn say(&self, name: &str, status: Value) {
        let gateway = PatchParams { field_manager: Some("openshell-gateway".to_owned()), ..PatchParams::default() };
        self.sandboxes().patch_status(name, &gateway, &Patch::Merge(&json!({ "status": status }))).await.unwrap();
    }
}

pub(crate) async fn eventually(what: &str, holds: impl AsyncFn() -> bool) {
    eventually_or(holds, || what.to_owned()).await;
}

/// The same; what is missing is said by how it ended.
pub(crate) async fn eventually_or(holds: impl AsyncFn() -> bool, what: impl Fn() -> String) {
    let end = Instant::now() + Duration::from_mins(1);
    while !holds().await {
        assert!(Instant::now() < end, "{}: it does not come to that", what());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Our definitions, as installed.
async fn definitions(client: &Client) {
    let api: Api<CustomResourceDefinition> = Api::all(client.clone());
    for definition in openshell_crds::all() {
        let name = definition.name_any();
        api.patch(&name, &PatchParams::apply("operator-test").force(), &Patch::Apply(&definition)).await.unwrap();
        eventually(&format!("{name} is served"), async || {
            let status = api.get(&name).await.unwrap().status;
            status.is_some_and(|status| status.conditions.iter().flatten().any(|c| c.type_ == "Established" && c.status == "True"))
        })
        .await;
    }
}

/// Makes the image of the stand-in and puts it into the cluster, once.
fn image(kubeconfig: &Path) {
    static MADE: OnceLock<()> = OnceLock::new();
    MADE.get_or_init(|| {
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        let directory = tempfile::tempdir().unwrap();
        let binary = directory.path().join("openshell-sandbox");
        run(Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()))
            .args(["--edition", "2024", "-C", "target-feature=+crt-static", "-C", "strip=symbols", "-o"])
            .arg(&binary)
            .arg(here.join("tests/cluster/stand_in.rs")));
        // The test cluster keeps its kubeconfig in a directory of its name.
        let cluster = kubeconfig.parent().and_then(Path::file_name).unwrap_or_default();
        let mut import = Command::new(here.join("../e2e/cluster/image"));
        run(import.arg(IMAGE).arg(&binary).env("OPENSHELL_CLUSTER_NAME", cluster));
    });
}

fn run(command: &mut Command) {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}
