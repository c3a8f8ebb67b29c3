//! The `kubernetes` driver: sandboxes as pods, by the `Sandbox` of `agents.x-k8s.io`.
//!
//! ```text
//!   OpenShellSandbox ─owns▶ Sandbox ─owns▶ Pod, claim of the workspace
//!      blueprint ──render──▶ server-side apply      (render)
//!      watches of Sandboxes, pods, nodes ──▶ world ──▶ state      (watching, world, view)
//! ```
//!
//! What is true is in the API alone; what this process keeps is what its watches have seen, and
//! the answers to its own writes. Nothing is asked for on the way of a sandbox but what has to be
//! written.
//!
//! Never two: a `Sandbox` has the name of its sandbox, and is applied under a field manager of
//! that sandbox's UID without force. Whoever else has that name, the `Sandbox` of an earlier
//! sandbox of the same name included, makes it a conflict.
//!
//! What the agent-sandbox controller does not do is done here: failed and evicted pods become
//! states, what keeps a pod from starting is told in words, and a deleted sandbox's pod is ended
//! at once instead of by garbage collection.

mod network;
mod nodes;
mod render;
mod sideload;
mod view;
mod watching;
mod world;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use futures::StreamExt as _;
use futures::future::BoxFuture;
use futures::stream::{self, BoxStream};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Event, Pod};
use k8s_openapi::api::node::v1::RuntimeClass;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, Preconditions};
use kube::core::params::ValidationDirective;
use kube::{Client, ResourceExt as _};
use openshell_crds::agents::{OperatingMode, Sandbox, SandboxSpec, Served};
use openshell_crds::pod::SideloadMethod;
use parking_lot::Mutex;
use serde_json::json;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

pub use render::Gateway;

use super::{Capabilities, Cleanup, ComputeDriver, DriverError, WorkloadState};
use crate::blueprint::SandboxBlueprint;
use crate::limits;
use nodes::NodeFacts;
use sideload::{Evidence, Runtime, Version};
use view::{SandboxView, View as _};
use world::World;

/// Longest name of a sandbox: its pod's host name is a DNS label.
const LONGEST_NAME: usize = 63;

/// Configuration of the kubernetes driver.
#[derive(Clone)]
pub struct KubernetesDriverConfig {
    /// The API.
    pub client: Client,
    /// Namespace of the sandboxes and their pods.
    pub namespace: String,
    /// The gateway that their supervisors call.
    pub gateway: Gateway,
    /// Image of the supervisor where the gateway's defaults name none.
    pub supervisor_image: Option<String>,
}

/// Runs sandboxes as pods.
pub struct KubernetesDriver {
    cluster: Arc<Cluster>,
}

/// What the driver and its watches share.
struct Cluster {
    client: Client,
    namespace: String,
    gateway: Gateway,
    supervisor_image: Option<String>,
    world: World,
    nodes: watch::Sender<Nodes>,
    server: Mutex<Option<Version>>,
}

/// The nodes, as far as they can be seen.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Nodes {
    /// They have not been listed yet.
    NotYet,
    /// We may not look at them.
    Unseen,
    /// All of them.
    Seen(Vec<NodeFacts>),
}

impl Cluster {
    fn set_server(&self, version: Option<Version>) {
        *self.server.lock() = version;
    }

    fn set_nodes(&self, nodes: Nodes) {
        self.nodes.send_replace(nodes);
    }

    fn nodes(&self) -> watch::Receiver<Nodes> {
        self.nodes.subscribe()
    }

    fn sandboxes(&self, served: Served) -> Api<Sandbox> {
        Api::namespaced_with(self.client.clone(), &self.namespace, &served)
    }

    fn pods(&self) -> Api<Pod> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// The API, once everything in it has been seen.
    async fn served(&self) -> Result<world::Api, DriverError> {
        tokio::time::timeout(limits::FIRST_LIST, self.world.ready()).await.map_err(|_| {
            DriverError::later(
                "ApiUnavailable",
                "the Sandboxes and pods of the cluster could not be listed yet; the operator's log says why",
            )
        })
    }

    /// The API's version, or that it is missing.
    async fn required(&self, uid: &str) -> Result<Served, DriverError> {
        match self.served().await? {
            world::Api::Served(served) => Ok(served),
            world::Api::Missing | world::Api::Unknown => {
                self.world.wait_for_api(uid);
                Err(missing())
            }
        }
    }

    async fn ensure(&self, blueprint: &SandboxBlueprint) -> Result<(), DriverError> {
        let uid = &blueprint.uid;
        let served = self.required(uid).await?;
        let (known, pod) = self.world.parts(uid);
        match self.world.state(uid) {
            WorkloadState::Absent | WorkloadState::Suspended | WorkloadState::Failed { .. } => {}
            WorkloadState::Lost { .. } => {
                if let Some(pod) = pod {
                    self.delete_pod(uid, &pod.name, &pod.uid, None).await?;
                }
            }
            WorkloadState::Stopping => {
                return Err(DriverError::later("Stopping", "the workload before it is still ending; it is started after that"));
            }
            WorkloadState::Starting { .. } | WorkloadState::Running { .. } => return Ok(()),
        }
        let (sideload, because) = self.sideload(blueprint).await?;
        tracing::info!(sandbox = blueprint.name, uid, sideload = sideload.as_str(), because, "applying the Sandbox");
        let settings = render::Settings {
            gateway: &self.gateway,
            image: blueprint.pod.image.as_deref().ok_or_else(no_image)?,
            supervisor_image: self.supervisor(blueprint).ok_or_else(no_supervisor)?,
            sideload,
            because: &because,
            claims: known.as_ref().map(|known| known.claims.as_slice()),
            served,
        };
        let wanted = render::sandbox(blueprint, &settings);
        let applied = self.apply(served, &wanted, uid, known.as_ref()).await?;
        self.world.wrote(&applied);
        Ok(())
    }

    /// Applies it: with force if it is known to be ours, without if there should be none.
    async fn apply(&self, served: Served, wanted: &Sandbox, uid: &str, known: Option<&SandboxView>) -> Result<Sandbox, DriverError> {
        let name = wanted.name_any();
        let apply = async |known: Option<&str>| {
            let mut wanted = wanted.clone();
            wanted.metadata.uid = known.map(str::to_owned);
            let params = PatchParams {
                field_validation: Some(ValidationDirective::Strict),
                force: known.is_some(),
                ..PatchParams::apply(&manager(uid))
            };
            self.sandboxes(served).patch(&name, &params, &Patch::Apply(&wanted)).await
        };
        match apply(known.map(|known| known.uid.as_str())).await {
            Ok(applied) => Ok(applied),
            Err(kube::Error::Api(status)) if status.code == 409 => {
                let there = self.sandboxes(served).get_opt(&name).await.map_err(|error| refused("read", &error))?;
                match there.as_ref().and_then(|there| SandboxView::of(there, Timestamp::now())) {
                    // Changed by someone, or not yet seen here.
                    Some((owner, view)) if owner == uid && !view.deleting => {
                        apply(Some(&view.uid)).await.map_err(|error| refused("applied", &error))
                    }
                    Some(_) => Err(DriverError::later(
                        "NameInUse",
                        format!("the Sandbox of an earlier sandbox \"{name}\" is still being removed; this one is started after that"),
                    )),
                    None if there.is_none() => Err(refused("applied", &kube::Error::Api(status))),
                    None => Err(DriverError::later(
                        "NameConflict",
                        format!("there is a Sandbox \"{name}\" that is not ours; delete it, or give this sandbox another name"),
                    )),
                }
            }
            Err(kube::Error::Api(status)) if status.code == 404 => {
                self.world.wait_for_api(uid);
                Err(missing())
            }
            Err(error) => Err(refused("applied", &error)),
        }
    }

    /// How the supervisor gets into the pod, and why so.
    async fn sideload(&self, blueprint: &SandboxBlueprint) -> Result<(SideloadMethod, String), DriverError> {
        let asked = &blueprint.pod;
        let runtime = match &asked.runtime_class_name {
            None => Runtime::Default,
            Some(name) => {
                let classes: Api<RuntimeClass> = Api::all(self.client.clone());
                match classes.get_opt(name).await {
                    Ok(Some(class)) => Runtime::Handler(class.handler, class.scheduling.and_then(|s| s.node_selector).unwrap_or_default()),
                    // Whether there is one is said by the API server when the pod is made.
                    Ok(None) | Err(_) => Runtime::Unknown,
                }
            }
        };
        if let Some(handler) = sideload::unsupported(&runtime) {
            return Err(DriverError::never(
                "NotifyUnsupported",
                format!(
                    "runtimeClassName \"{}\": the runtime \"{handler}\" has no seccomp user notification, by which every connection of the agent is decided; choose another class",
                    asked.runtime_class_name.as_deref().unwrap_or_default()
                ),
            ));
        }
        let mut nodes = self.nodes();
        // Only a start in the first moment of this process waits.
        let seen = tokio::time::timeout(limits::FIRST_NODES, nodes.wait_for(|nodes| *nodes != Nodes::NotYet)).await;
        let nodes = match seen {
            Ok(Ok(nodes)) => nodes.clone(),
            _ => Nodes::Unseen,
        };
        let nodes = match &nodes {
            Nodes::Seen(nodes) => Some(nodes.as_slice()),
            Nodes::NotYet | Nodes::Unseen => None,
        };
        let evidence = Evidence { server: *self.server.lock(), nodes, runtime };
        Ok(sideload::decide(asked.sideload_method, &asked.node_selector, &asked.tolerations, &evidence))
    }

    fn supervisor<'a>(&'a self, blueprint: &'a SandboxBlueprint) -> Option<&'a str> {
        blueprint.pod.supervisor_image.as_deref().or(self.supervisor_image.as_deref())
    }

    async fn suspend(&self, uid: &str) -> Result<(), DriverError> {
        let served = self.required(uid).await?;
        let (Some(sandbox), _) = self.world.parts(uid) else { return Ok(()) };
        if sandbox.mode == OperatingMode::Running {
            let mut spec = SandboxSpec::default();
            spec.set_running(served, OperatingMode::Suspended);
            let patch = json!({
                "metadata": { "uid": sandbox.uid },
                "spec": { "operatingMode": spec.operating_mode, "replicas": spec.replicas },
            });
            let params = PatchParams { field_manager: Some(manager(uid)), ..PatchParams::default() };
            match self.sandboxes(served).patch(&sandbox.name, &params, &Patch::Merge(&without_nulls(patch))).await {
                Ok(patched) => self.world.wrote(&patched),
                Err(kube::Error::Api(status)) if status.code == 404 => return Ok(()),
                Err(error) => return Err(refused("suspended", &error)),
            }
        }
        Ok(())
    }

    async fn delete(&self, uid: &str) -> Result<(), DriverError> {
        let (sandbox, pod) = self.world.parts(uid);
        // The pod first: garbage collection gives it its whole grace period, and whoever comes first is
        // whom the kubelet follows.
        if let Some(pod) = pod {
            self.delete_pod(uid, &pod.name, &pod.uid, Some(limits::POD_DELETE_GRACE.as_secs() as u32)).await?;
        }
        if let (Some(sandbox), world::Api::Served(served)) = (sandbox.filter(|sandbox| !sandbox.deleting), self.world.api()) {
            let params = DeleteParams::background().preconditions(exactly(&sandbox.uid));
            settle("deleted", self.sandboxes(served).delete(&sandbox.name, &params).await.map(|_| ()))?;
        }
        Ok(())
    }

    /// What the last warning about a pod says, where its own status is silent.
    async fn with_events(&self, uid: &str, state: WorkloadState) -> WorkloadState {
        let WorkloadState::Starting { waiting: Some(mut waiting) } = state else { return state };
        if waiting.reason == view::NOT_STARTED
            && waiting.from <= Timestamp::now()
            && let (_, Some(pod)) = self.world.parts(uid)
        {
            let events: Api<Event> = Api::namespaced(self.client.clone(), &self.namespace);
            let about = ListParams::default().fields(&format!("involvedObject.uid={},type=Warning", pod.uid));
            match events.list(&about).await {
                Ok(events) => {
                    let when =
                        |event: &Event| event.last_timestamp.clone().map(|time| time.0).or(event.event_time.clone().map(|time| time.0));
                    if let Some(message) = events.items.into_iter().max_by_key(when).and_then(|event| event.message) {
                        waiting.message = format!("the containers of pod \"{}\" cannot be started: {message}", pod.name);
                    }
                }
                Err(error) => tracing::debug!(%error, "the events of a pod cannot be read"),
            }
        }
        WorkloadState::Starting { waiting: Some(waiting) }
    }

    async fn delete_pod(&self, uid: &str, name: &str, pod: &str, grace: Option<u32>) -> Result<(), DriverError> {
        let params = DeleteParams { grace_period_seconds: grace, ..DeleteParams::background() }.preconditions(exactly(pod));
        settle("deleted", self.pods().delete(name, &params).await.map(|_| ()))?;
        self.world.deleted_pod(uid, pod);
        Ok(())
    }
}

/// Who applies the `Sandbox` of this sandbox. Another one for every sandbox, so that one of the
/// same name cannot be taken over by mistake.
fn manager(uid: &str) -> String {
    format!("{}/{uid}", crate::FIELD_MANAGER)
}

/// Only the object of this UID.
fn exactly(uid: &str) -> Preconditions {
    Preconditions { uid: Some(uid.to_owned()), resource_version: None }
}

/// What is gone, or is another one by now, is deleted.
fn settle(what: &str, answer: Result<(), kube::Error>) -> Result<(), DriverError> {
    match answer {
        Err(kube::Error::Api(status)) if status.code == 404 || status.code == 409 => Ok(()),
        other => other.map_err(|error| refused(what, &error)),
    }
}

/// The merge patch without what shall not be touched.
fn without_nulls(mut patch: serde_json::Value) -> serde_json::Value {
    if let Some(spec) = patch["spec"].as_object_mut() {
        spec.retain(|_, value| !value.is_null());
    }
    patch
}

fn missing() -> DriverError {
    DriverError::later(
        "AgentSandboxMissing",
        "the cluster does not have agents.x-k8s.io Sandboxes; install agent-sandbox (https://github.com/kubernetes-sigs/agent-sandbox, sandbox.yaml of release 0.5.2 or later), and this sandbox is started",
    )
}

fn no_image() -> DriverError {
    DriverError::never("ImageMissing", "no image: set spec.image, or sandboxDefaults.image of the gateway")
}

fn no_supervisor() -> DriverError {
    DriverError::never(
        "SupervisorImageMissing",
        "no image of the supervisor: set sandboxDefaults.supervisorImage of the gateway, or --supervisor-image of the operator",
    )
}

/// What an answer of the API server means.
fn refused(what: &str, error: &kube::Error) -> DriverError {
    let kube::Error::Api(status) = error else {
        return DriverError::later("ApiUnavailable", format!("the workload could not be {what}: {error}"));
    };
    let message = format!("the workload could not be {what}: {}", status.message);
    let terminating = status.details.iter().flat_map(|details| &details.causes).any(|cause| cause.reason == "NamespaceTerminating");
    match status.code {
        403 if terminating => DriverError::later("NamespaceTerminating", message),
        403 if status.message.contains("exceeded quota") => DriverError::later("QuotaExceeded", message),
        403 => DriverError::later("Forbidden", format!("{message}; give the operator's role that verb")),
        400 | 422 => DriverError::never("SandboxRefused", message),
        _ => DriverError::later("ApiUnavailable", message),
    }
}

impl KubernetesDriver {
    /// A driver whose watches go on until `shutdown`. Must be called within a tokio runtime.
    pub fn start(config: KubernetesDriverConfig, shutdown: &CancellationToken) -> Self {
        let KubernetesDriverConfig { client, namespace, gateway, supervisor_image } = config;
        let cluster = Arc::new(Cluster {
            client,
            namespace,
            gateway,
            supervisor_image,
            world: World::new(),
            nodes: watch::Sender::new(Nodes::NotYet),
            server: Mutex::new(None),
        });
        watching::start(&cluster, shutdown);
        Self { cluster }
    }
}

impl ComputeDriver for KubernetesDriver {
    fn name(&self) -> &'static str {
        "kubernetes"
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { cleanup: Cleanup::OwnerReferences }
    }

    fn admit(&self, blueprint: &SandboxBlueprint) -> Result<(), DriverError> {
        admit(blueprint, self.cluster.supervisor(blueprint))
    }

    fn ensure<'a>(&'a self, blueprint: &'a SandboxBlueprint) -> BoxFuture<'a, Result<(), DriverError>> {
        Box::pin(self.cluster.ensure(blueprint))
    }

    fn observe<'a>(&'a self, uid: &'a str) -> BoxFuture<'a, Result<WorkloadState, DriverError>> {
        Box::pin(async move {
            self.cluster.served().await?;
            Ok(self.cluster.with_events(uid, self.cluster.world.state(uid)).await)
        })
    }

    fn suspend<'a>(&'a self, uid: &'a str) -> BoxFuture<'a, Result<(), DriverError>> {
        Box::pin(self.cluster.suspend(uid))
    }

    fn delete<'a>(&'a self, uid: &'a str) -> BoxFuture<'a, Result<(), DriverError>> {
        Box::pin(self.cluster.delete(uid))
    }

    fn list(&self) -> BoxFuture<'_, Result<Vec<String>, DriverError>> {
        Box::pin(async move {
            self.cluster.served().await?;
            Ok(self.cluster.world.uids())
        })
    }

    fn sideload_method(&self, uid: &str) -> Option<SideloadMethod> {
        self.cluster.world.sideload(uid)
    }

    fn watch(&self) -> BoxStream<'static, String> {
        let cluster = Arc::clone(&self.cluster);
        stream::unfold((cluster.world.changes(), cluster), |(mut changes, cluster)| async move {
            let changed = match changes.recv().await {
                Ok(uid) => vec![uid],
                // Too slow: any of them may have changed.
                Err(RecvError::Lagged(_)) => cluster.world.uids(),
                Err(RecvError::Closed) => return None,
            };
            Some((stream::iter(changed), (changes, cluster)))
        })
        .flatten()
        .boxed()
    }
}

/// What a pod cannot be.
fn admit(blueprint: &SandboxBlueprint, supervisor: Option<&str>) -> Result<(), DriverError> {
    if blueprint.name.len() > LONGEST_NAME {
        return Err(DriverError::never(
            "NameTooLong",
            format!(
                "the name has {} characters, and that of a pod's host at most {LONGEST_NAME}; choose a shorter one",
                blueprint.name.len()
            ),
        ));
    }
    blueprint.pod.image.as_deref().ok_or_else(no_image)?;
    supervisor.ok_or_else(no_supervisor)?;
    if let Some(process) = &blueprint.policy.process {
        for (key, value) in [("run_as_user", &process.run_as_user), ("run_as_group", &process.run_as_group)] {
            if let Some(value) = value
                && value != "sandbox"
                && value != "1000"
            {
                return Err(DriverError::never(
                    "RunAsUnsupported",
                    format!("process.{key}: a pod's agent runs as 1000 and cannot run as \"{value}\"; write \"sandbox\" or leave it out"),
                ));
            }
        }
    }
    Ok(())
}
