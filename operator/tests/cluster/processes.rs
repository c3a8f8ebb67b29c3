//! The program itself, as a Deployment runs it: two replicas, and no more rights than it needs.

use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Secret, ServiceAccount};
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, Role, RoleBinding};
use kube::api::{Api, DeleteParams, PostParams};
use serde_json::{Value, json};

use crate::rig::{IMAGE, Rig, eventually, kubeconfig};

/// What the operator may do in the namespace of the sandboxes.
fn rules() -> Value {
    let read = ["get", "list", "watch"];
    json!([
        { "apiGroups": ["openshell.ai"], "resources": ["openshellsandboxes", "policies", "providers", "openshellgateways"], "verbs": read },
        { "apiGroups": ["openshell.ai"], "resources": ["openshellsandboxes/status", "policies/status", "providers/status"], "verbs": ["patch"] },
        // Owner references that block deletion need it where OwnerReferencesPermissionEnforcement is on.
        { "apiGroups": ["openshell.ai"], "resources": ["openshellsandboxes/finalizers"], "verbs": ["update"] },
        { "apiGroups": ["agents.x-k8s.io"], "resources": ["sandboxes"], "verbs": ["get", "list", "watch", "create", "patch", "delete"] },
        { "apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list", "watch", "delete"] },
        { "apiGroups": [""], "resources": ["events"], "verbs": ["list"] },
        { "apiGroups": ["events.k8s.io"], "resources": ["events"], "verbs": ["create", "patch"] },
        { "apiGroups": ["networking.k8s.io"], "resources": ["networkpolicies"], "verbs": ["get", "create", "patch"] },
        // In the namespace of the gateway.
        { "apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["get", "create", "update"] },
    ])
}

/// What it may see of the cluster.
fn cluster_rules() -> Value {
    json!([
        { "apiGroups": [""], "resources": ["nodes"], "verbs": ["get", "list", "watch"] },
        { "apiGroups": ["node.k8s.io"], "resources": ["runtimeclasses"], "verbs": ["get"] },
        { "apiGroups": ["apiextensions.k8s.io"], "resources": ["customresourcedefinitions"], "resourceNames": ["openshellsandboxes.openshell.ai"], "verbs": ["get"] },
        // In the namespace `default`: where the API server is.
        { "apiGroups": [""], "resources": ["services"], "resourceNames": ["kubernetes"], "verbs": ["get"] },
        { "apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["list"] },
    ])
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
    fn start(rig: &Rig, kubeconfig: &std::path::Path, name: &str) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_openshell-operator"));
        command
            .args(["--gateway-namespace", &rig.namespace, "--supervisor-image", IMAGE, "--health", "127.0.0.1:0"])
            .env("KUBECONFIG", kubeconfig)
            .env("POD_NAME", name)
            .stdout(Stdio::null())
            .process_group(0);
        Self(command.spawn().unwrap())
    }

    fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_raw(self.0.id() as i32).unwrap();
        rustix::process::kill_process(pid, signal).unwrap();
    }
}

/// A kubeconfig of a service account with the rights above and no others.
async fn account(rig: &Rig) -> tempfile::NamedTempFile {
    let name = &rig.namespace;
    let meta = json!({ "name": name });
    rig.make::<ServiceAccount>(serde_json::from_value(json!({ "metadata": { "name": "operator" } })).unwrap()).await;
    let subjects = json!([{ "kind": "ServiceAccount", "name": "operator", "namespace": name }]);
    let reference = |kind: &str| json!({ "apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": name });
    rig.make::<Role>(serde_json::from_value(json!({ "metadata": meta, "rules": rules() })).unwrap()).await;
    let bound = json!({ "metadata": meta, "subjects": subjects, "roleRef": reference("Role") });
    rig.make::<RoleBinding>(serde_json::from_value(bound).unwrap()).await;
    let role: ClusterRole = serde_json::from_value(json!({ "metadata": meta, "rules": cluster_rules() })).unwrap();
    Api::<ClusterRole>::all(rig.client.clone()).create(&PostParams::default(), &role).await.unwrap();
    let bound: ClusterRoleBinding =
        serde_json::from_value(json!({ "metadata": meta, "subjects": subjects, "roleRef": reference("ClusterRole") })).unwrap();
    Api::<ClusterRoleBinding>::all(rig.client.clone()).create(&PostParams::default(), &bound).await.unwrap();

    let request =
        TokenRequest { spec: Some(TokenRequestSpec { expiration_seconds: Some(3600), ..Default::default() }), ..Default::default() };
    let accounts = rig.api::<ServiceAccount>();
    let token = accounts.create_token_request("operator", &PostParams::default(), &request).await.unwrap().status.unwrap().token;
    let mut config: Value = serde_saphyr::from_str(&std::fs::read_to_string(kubeconfig().unwrap()).unwrap()).unwrap();
    for user in config["users"].as_array_mut().unwrap() {
        user["user"] = json!({ "token": token });
    }
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(config.to_string().as_bytes()).unwrap();
    file
}

#[tokio::test(flavor = "multi_thread")]
async fn two_replicas_with_the_least_rights() {
    let Some(rig) = Rig::idle(json!({})).await else { return };
    let config = account(&rig).await;
    let secret = json!({ "metadata": { "name": "osprov-x", "labels": { "openshell.ai/credential": "true" } }, "stringData": { "a": "b" } });
    rig.make::<Secret>(serde_json::from_value(secret).unwrap()).await;
    let holder = async || {
        let lease = rig.api::<Lease>().get_opt("openshell-operator-default").await.unwrap();
        lease.and_then(|lease| lease.spec).and_then(|spec| spec.holder_identity).unwrap_or_default()
    };
    let first = Operator::start(&rig, config.path(), "first");
    eventually("the first leads", async || holder().await.starts_with("first_")).await;
    let second = Operator::start(&rig, config.path(), "second");
    let (uid, pod) = rig.create_ready("demo", json!({})).await;

    let begin = Instant::now();
    first.signal(rustix::process::Signal::TERM);
    eventually("the second leads", async || holder().await.starts_with("second_")).await;
    eprintln!("the second leads after {:?}", begin.elapsed());
    assert!(begin.elapsed() < Duration::from_secs(6), "a lease that is given back is taken at once");
    rig.halt("demo").await;

    let third = Operator::start(&rig, config.path(), "third");
    second.signal(rustix::process::Signal::KILL);
    rig.suspend("demo", false).await;
    eventually("the third leads", async || holder().await.starts_with("third_")).await;
    rig.ready("demo", &uid, Some(&pod)).await;
    assert_eq!(rig.pods(&uid).await.len(), 1);
    drop((first, second, third));
    leave_cluster(&rig).await;
    rig.stop().await;
}

/// What no namespace takes with it.
async fn leave_cluster(rig: &Rig) {
    Api::<ClusterRole>::all(rig.client.clone()).delete(&rig.namespace, &DeleteParams::default()).await.unwrap();
    Api::<ClusterRoleBinding>::all(rig.client.clone()).delete(&rig.namespace, &DeleteParams::default()).await.unwrap();
}
