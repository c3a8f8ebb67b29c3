//! The program itself, as a Deployment runs it: two replicas, and no more rights than it needs.

use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Secret, ServiceAccount};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::node::v1::RuntimeClass;
use kube::ResourceExt as _;
use kube::api::{Api, ApiResource, DeleteParams, DynamicObject, GroupVersionKind, PostParams};
use openshell_crds::{OpenShellGateway, Policy, Provider, conditions};
use serde_json::{Value, json};

use crate::rig::{IMAGE, Rig, eventually, eventually_or, kubeconfig};

/// What the chart renders: gateway in the namespace `openshell`, sandboxes in `agents`.
const CHART: &str = "../charts/openshell/ci/snapshots/least.yaml";

/// The namespace of the gateway, beside the rig's, which is that of the sandboxes.
fn gateway_namespace(rig: &Rig) -> String {
    format!("{}-gateway", rig.namespace)
}

/// What the chart grants to the operator, in the namespaces of this test and under names of its own: whatever is not there,
/// the operator may not do.
fn granted(rig: &Rig) -> Vec<DynamicObject> {
    let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(CHART)).unwrap();
    let all: Vec<Value> = text.split("\n---\n").map(|document| serde_saphyr::from_str(document).unwrap()).collect();
    let place = |namespace: &Value| match namespace.as_str() {
        Some("openshell") => json!(gateway_namespace(rig)),
        Some("agents") => json!(rig.namespace),
        other => json!(other),
    };
    let name = |name: &Value| json!(format!("{}-{}", rig.namespace, name.as_str().unwrap().replace(':', "-")));
    let ours = |binding: &&Value| binding["subjects"].as_array().is_some_and(|all| all.iter().any(|s| s["name"] == "openshell-operator"));
    let mut grants = Vec::new();
    for binding in all.iter().filter(ours) {
        let (kind, role) = (&binding["roleRef"]["kind"], &binding["roleRef"]["name"]);
        let its = |object: &&Value| {
            object["kind"] == *kind
                && object["metadata"]["name"] == *role
                && object["metadata"]["namespace"] == binding["metadata"]["namespace"]
        };
        let mut role = all.iter().find(its).unwrap().clone();
        let mut binding = binding.clone();
        binding["roleRef"]["name"] = name(&binding["roleRef"]["name"]);
        for subject in binding["subjects"].as_array_mut().unwrap() {
            subject["namespace"] = place(&subject["namespace"]);
        }
        for object in [&mut role, &mut binding] {
            object["metadata"] = json!({ "name": name(&object["metadata"]["name"]), "namespace": place(&object["metadata"]["namespace"]) });
        }
        grants.extend([role, binding]);
    }
    assert_eq!(grants.len(), 8, "a role in each of three namespaces and one of the cluster, and their bindings");
    grants.into_iter().map(|grant| serde_json::from_value(grant).unwrap()).collect()
}

/// Where such an object is.
fn api_of(rig: &Rig, object: &DynamicObject) -> Api<DynamicObject> {
    let kind = ApiResource::from_gvk(&GroupVersionKind::try_from(object.types.as_ref().unwrap()).unwrap());
    match &object.metadata.namespace {
        Some(namespace) => Api::namespaced_with(rig.client.clone(), namespace, &kind),
        None => Api::all_with(rig.client.clone(), &kind),
    }
}

/// Ends with the test, however that ends.
struct Operator(Child);

impl Drop for Operator {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Operator {
    /// What it says goes to the end of `log`.
    fn start(rig: &Rig, kubeconfig: &Path, name: &str, log: &Path) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_openshell-operator"));
        command
            .args(["--gateway-namespace", &gateway_namespace(rig), "--sandbox-namespace", &rig.namespace])
            .args(["--supervisor-image", IMAGE, "--gateway-image", IMAGE, "--health", "127.0.0.1:0"])
            .args(["--log", "info,openshell_operator=debug"])
            .env("KUBECONFIG", kubeconfig)
            .env("POD_NAME", name)
            .stdout(Stdio::null())
            .stderr(std::fs::OpenOptions::new().create(true).append(true).open(log).unwrap())
            .process_group(0);
        Self(command.spawn().unwrap())
    }

    fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_raw(self.0.id() as i32).unwrap();
        rustix::process::kill_process(pid, signal).unwrap();
    }
}

/// The gateway's namespace as the chart leaves it, and a kubeconfig of the operator's service account, which may do what the
/// chart grants and nothing else.
async fn account(rig: &Rig, grants: &[DynamicObject]) -> tempfile::NamedTempFile {
    let namespace = gateway_namespace(rig);
    let object: Namespace = serde_json::from_value(json!({ "metadata": { "name": namespace } })).unwrap();
    Api::all(rig.client.clone()).create(&PostParams::default(), &object).await.unwrap();
    let accounts = Api::<ServiceAccount>::namespaced(rig.client.clone(), &namespace);
    let account = serde_json::from_value(json!({ "metadata": { "name": "openshell-operator" } })).unwrap();
    accounts.create(&PostParams::default(), &account).await.unwrap();
    let lease = serde_json::from_value(json!({ "metadata": { "name": "openshell-operator-default" } })).unwrap();
    leases(rig).create(&PostParams::default(), &lease).await.unwrap();
    for grant in grants {
        api_of(rig, grant).create(&PostParams::default(), grant).await.unwrap();
    }
    let spec = json!({
        "sandboxNamespace": rig.namespace,
        "sandboxDefaults": { "image": IMAGE, "imagePullPolicy": "Never" },
        // It is made, and no node takes its pod.
        "deployment": { "nodeSelector": { "example.com/there-is": "none" }, "storage": { "size": "16Mi" } },
    });
    let gateway = OpenShellGateway::new("default", serde_json::from_value(spec).unwrap());
    gateways(rig).create(&PostParams::default(), &gateway).await.unwrap();

    let request =
        TokenRequest { spec: Some(TokenRequestSpec { expiration_seconds: Some(3600), ..Default::default() }), ..Default::default() };
    let token = accounts.create_token_request("openshell-operator", &PostParams::default(), &request).await.unwrap().status.unwrap().token;
    let mut config: Value = serde_saphyr::from_str(&std::fs::read_to_string(kubeconfig().unwrap()).unwrap()).unwrap();
    for user in config["users"].as_array_mut().unwrap() {
        user["user"] = json!({ "token": token });
    }
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(config.to_string().as_bytes()).unwrap();
    file
}

fn leases(rig: &Rig) -> Api<Lease> {
    Api::namespaced(rig.client.clone(), &gateway_namespace(rig))
}

fn gateways(rig: &Rig) -> Api<OpenShellGateway> {
    Api::namespaced(rig.client.clone(), &gateway_namespace(rig))
}

/// Everything that the operator does with objects other than the sandbox of the test.
async fn everything_else(rig: &Rig) {
    rig.make(Policy::new("web", serde_json::from_value(json!({ "policy": { "version": 1 } })).unwrap())).await;
    let spec = json!({
        "type": "github", "endpoints": [{ "host": "api.github.com" }],
        "credentials": [{ "name": "GITHUB_TOKEN", "secretKeyRef": { "name": "gh", "key": "t" } }],
    });
    rig.make(Provider::new("gh", serde_json::from_value(spec).unwrap())).await;
    rig.create("brief", json!({ "ttl": "1s" })).await;
    let class: RuntimeClass = serde_json::from_value(json!({ "metadata": { "name": rig.namespace }, "handler": "runsc" })).unwrap();
    Api::all(rig.client.clone()).create(&PostParams::default(), &class).await.unwrap();
    rig.create("classed", json!({ "runtimeClassName": rig.namespace })).await;

    eventually("the policy is accepted", async || rig.api::<Policy>().get("web").await.unwrap().status.is_some()).await;
    eventually("the provider is accepted", async || rig.api::<Provider>().get("gh").await.unwrap().status.is_some()).await;
    eventually("its time is over", async || rig.sandboxes().get_opt("brief").await.unwrap().is_none()).await;
    rig.reason("classed", conditions::STALLED, "NotifyUnsupported").await;
    eventually("the NetworkPolicy is there", async || rig.api::<NetworkPolicy>().get_opt("openshell-sandboxes").await.unwrap().is_some())
        .await;
    let owners = rig.api::<NetworkPolicy>().get("openshell-sandboxes").await.unwrap().owner_references().len();
    assert_eq!(owners, 1, "the definition of sandboxes, which it may read");
    let last = Mutex::new(None);
    let deployed = async || {
        let status = gateways(rig).get("default").await.unwrap().status.unwrap_or_default();
        let deployed = conditions::find(&status.conditions, conditions::STALLED).is_some_and(|c| c.reason == "Unschedulable");
        *last.lock().unwrap() = Some(status);
        deployed
    };
    eventually_or(deployed, || format!("the gateway is deployed: {:#?}", last.lock().unwrap())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_replicas_with_the_least_rights() {
    let Some(rig) = Rig::idle(json!({})).await else { return };
    rig.without_authority().await;
    let authority = json!({ "metadata": { "name": "default-gateway-ca" } });
    rig.make::<ConfigMap>(serde_json::from_value(authority).unwrap()).await;
    let grants = granted(&rig);
    let config = account(&rig, &grants).await;
    let log = tempfile::NamedTempFile::new().unwrap();
    let start = |name| Operator::start(&rig, config.path(), name, log.path());
    let secret = json!({ "metadata": { "name": "osprov-x", "labels": { "openshell.ai/credential": "true" } }, "stringData": { "a": "b" } });
    rig.make::<Secret>(serde_json::from_value(secret).unwrap()).await;
    let holder = async || {
        let lease = leases(&rig).get_opt("openshell-operator-default").await.unwrap();
        lease.and_then(|lease| lease.spec).and_then(|spec| spec.holder_identity).unwrap_or_default()
    };
    let first = start("first");
    eventually("the first leads", async || holder().await.starts_with("first_")).await;
    let second = start("second");
    let (uid, pod) = rig.create_ready("demo", json!({})).await;
    everything_else(&rig).await;

    let begin = Instant::now();
    first.signal(rustix::process::Signal::TERM);
    eventually("the second leads", async || holder().await.starts_with("second_")).await;
    eprintln!("the second leads after {:?}", begin.elapsed());
    assert!(begin.elapsed() < Duration::from_secs(6), "a lease that is given back is taken at once");
    rig.halt("demo").await;

    let third = start("third");
    second.signal(rustix::process::Signal::KILL);
    rig.suspend("demo", false).await;
    eventually("the third leads", async || holder().await.starts_with("third_")).await;
    rig.ready("demo", &uid, Some(&pod)).await;
    assert_eq!(rig.pods(&uid).await.len(), 1);
    rig.delete("demo").await;
    eventually("its pod is gone", async || rig.pods(&uid).await.is_empty()).await;
    drop((first, second, third));
    leave_cluster(&rig, &grants).await;
    // Some of what is not allowed is only said there, and worked around.
    let said = std::fs::read_to_string(log.path()).unwrap();
    let refused: Vec<&str> = said.lines().filter(|line| line.contains("is forbidden: User")).collect();
    assert!(refused.is_empty(), "the chart grants too little: {refused:#?}");
    assert!(said.contains("leading"), "it was not heard: {said}");
    rig.stop().await;
}

/// What the rig's namespace does not take with it.
async fn leave_cluster(rig: &Rig, grants: &[DynamicObject]) {
    for grant in grants {
        api_of(rig, grant).delete(&grant.name_any(), &DeleteParams::default()).await.unwrap();
    }
    Api::<RuntimeClass>::all(rig.client.clone()).delete(&rig.namespace, &DeleteParams::default()).await.unwrap();
    Api::<Namespace>::all(rig.client.clone()).delete(&gateway_namespace(rig), &DeleteParams::background()).await.unwrap();
}
