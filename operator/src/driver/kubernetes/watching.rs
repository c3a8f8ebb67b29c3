//! The watches of the driver: `Sandbox`es in whatever version is served, pods, nodes; and the
//! NetworkPolicy, which follows the nodes.
//!
//! Each goes on until shutdown and is taken up again with backoff whenever it breaks. Where we
//! may not look at nodes, nothing is known of them, which is an answer too.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use futures::StreamExt as _;
use k8s_openapi::api::core::v1::{Node, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::{Api, ListParams, Patch, PatchParams};
use kube::core::params::ValidationDirective;
use kube::runtime::watcher::{self, Event};
use kube::{Resource as _, ResourceExt as _};
use openshell_crds::agents::{self, Sandbox, Served};
use openshell_crds::{OpenShellSandbox, labels};
use tokio_util::sync::CancellationToken;

use super::nodes::NodeFacts;
use super::sideload::Version;
use super::{Cluster, Nodes, network, world};
use crate::watching::watch;
use crate::{FIELD_MANAGER, limits};

/// Watches until shutdown.
pub(super) fn start(cluster: &Arc<Cluster>, shutdown: &CancellationToken) {
    spawn(shutdown, sandboxes(Arc::clone(cluster)));
    spawn(shutdown, pods(Arc::clone(cluster)));
    spawn(shutdown, nodes(Arc::clone(cluster)));
    spawn(shutdown, keep_policy(Arc::clone(cluster)));
}

fn spawn(shutdown: &CancellationToken, task: impl Future<Output = ()> + Send + 'static) {
    let until = shutdown.clone();
    tokio::spawn(async move { until.run_until_cancelled_owned(task).await });
}

/// What is ours.
fn ours(cluster: &Cluster) -> watcher::Config {
    let selector = format!("{}={FIELD_MANAGER},{}={}", labels::MANAGED_BY, labels::GATEWAY, cluster.gateway.name);
    watcher::Config::default().labels(&selector)
}

/// Looks for the API, watches it, and looks again when it is gone.
async fn sandboxes(cluster: Arc<Cluster>) {
    loop {
        match discover(&cluster.client).await {
            Ok(Some(served)) => {
                remember_server(&cluster).await;
                watch_sandboxes(&cluster, served).await;
            }
            Ok(None) => {
                cluster.world.set_api(world::Api::Missing);
                tokio::time::sleep(limits::DISCOVERY_INTERVAL).await;
            }
            Err(error) => {
                tracing::warn!(%error, "agents.x-k8s.io could not be looked for and is looked for again");
                tokio::time::sleep(limits::DISCOVERY_INTERVAL).await;
            }
        }
    }
}

/// The version of `Sandbox` to use, if there is one.
pub(super) async fn discover(client: &kube::Client) -> Result<Option<Served>, kube::Error> {
    for served in Served::KNOWN {
        match client.list_api_group_resources(&served.api_version()).await {
            Ok(resources) if resources.resources.iter().any(|resource| resource.kind == agents::KIND) => return Ok(Some(served)),
            Ok(_) => {}
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

async fn remember_server(cluster: &Cluster) {
    match cluster.client.apiserver_version().await {
        Ok(info) => cluster.set_server(Version::parse(&info.git_version)),
        Err(error) => tracing::warn!(%error, "the version of the API server is not known; supervisors get into pods by an init container"),
    }
}

/// Watches until the API is gone, or until it is time to see whether a better version has come.
async fn watch_sandboxes(cluster: &Cluster, served: Served) {
    let api: Api<Sandbox> = Api::namespaced_with(cluster.client.clone(), &cluster.namespace, &served);
    let mut events = watch(api, ours(cluster)).boxed();
    let upgrade = tokio::time::sleep(limits::RESYNC);
    tokio::pin!(upgrade);
    loop {
        let event = tokio::select! {
            event = events.next() => event,
            () = &mut upgrade, if served == Served::V1Alpha1 => return,
        };
        match event {
            Some(Ok(event)) => {
                if cluster.world.sandbox(event) {
                    cluster.world.set_api(world::Api::Served(served));
                }
            }
            Some(Err(error)) => {
                if not_found(&error) {
                    return;
                }
                tracing::warn!(%error, "the watch of Sandboxes broke and is taken up again");
            }
            None => return,
        }
    }
}

/// The API server does not know what is watched.
fn not_found(error: &watcher::Error) -> bool {
    match error {
        watcher::Error::InitialListFailed(kube::Error::Api(status))
        | watcher::Error::WatchStartFailed(kube::Error::Api(status))
        | watcher::Error::WatchFailed(kube::Error::Api(status)) => status.code == 404,
        _ => false,
    }
}

fn forbidden(error: &watcher::Error) -> bool {
    matches!(error, watcher::Error::InitialListFailed(kube::Error::Api(status)) if status.code == 403)
}

async fn pods(cluster: Arc<Cluster>) {
    let api: Api<Pod> = Api::namespaced(cluster.client.clone(), &cluster.namespace);
    let mut events = watch(api, ours(&cluster)).boxed();
    while let Some(event) = events.next().await {
        match event {
            Ok(event) => cluster.world.pod(event),
            Err(error) => tracing::warn!(%error, "the watch of pods broke and is taken up again"),
        }
    }
}

async fn nodes(cluster: Arc<Cluster>) {
    let api: Api<Node> = Api::all(cluster.client.clone());
    let mut events = watch(api, watcher::Config::default()).boxed();
    let mut known: HashMap<String, NodeFacts> = HashMap::new();
    let mut listed = false;
    while let Some(event) = events.next().await {
        let changed = match event {
            Ok(Event::Init) => {
                known.clear();
                listed = false;
                false
            }
            Ok(Event::InitDone) => {
                listed = true;
                true
            }
            Ok(Event::Apply(node) | Event::InitApply(node)) => {
                let facts = NodeFacts::from(&node);
                known.get(&facts.name) != Some(&facts) && {
                    known.insert(facts.name.clone(), facts);
                    true
                }
            }
            Ok(Event::Delete(node)) => known.remove(&node.name_any()).is_some(),
            Err(error) if forbidden(&error) => {
                tracing::warn!(
                    "nodes may not be listed; supervisors get into pods by an init container, and the NetworkPolicy names no node"
                );
                cluster.set_nodes(Nodes::Unseen);
                continue;
            }
            Err(error) => {
                tracing::warn!(%error, "the watch of nodes broke and is taken up again");
                continue;
            }
        };
        if listed && changed {
            cluster.set_nodes(Nodes::Seen(known.values().cloned().collect()));
        }
    }
}

/// Applies the NetworkPolicy whenever it differs from what was applied last, and now and then in
/// case someone has changed it.
async fn keep_policy(cluster: Arc<Cluster>) {
    let mut nodes = cluster.nodes();
    let mut applied = None;
    // A moment, so that it is not applied without nodes first.
    let _ = tokio::time::timeout(limits::FIRST_NODES, nodes.wait_for(|nodes| *nodes != Nodes::NotYet)).await;
    loop {
        let refused: BTreeSet<IpAddr> = match &*nodes.borrow_and_update() {
            Nodes::NotYet | Nodes::Unseen => BTreeSet::new(),
            Nodes::Seen(nodes) => nodes.iter().flat_map(|node| node.addresses.iter().copied()).collect(),
        };
        let refused: BTreeSet<IpAddr> = refused.into_iter().chain(api_server(&cluster.client).await).collect();
        let policy = network::policy(&cluster.namespace, &cluster.gateway.name, &refused, owner(&cluster.client).await);
        let mut pause = limits::RESYNC;
        if applied.as_ref() != Some(&policy) {
            match apply(&cluster, &policy).await {
                Ok(()) => applied = Some(policy),
                Err(error) => {
                    tracing::warn!(%error, "the NetworkPolicy of the sandboxes could not be applied and is tried again");
                    pause = limits::BACKOFF_LONGEST;
                }
            }
        }
        tokio::select! {
            changed = nodes.changed() => {
                if changed.is_err() {
                    return;
                }
                tokio::time::sleep(limits::NODES_SETTLE).await;
            }
            () = tokio::time::sleep(pause) => applied = None,
        }
    }
}

async fn apply(cluster: &Cluster, policy: &NetworkPolicy) -> Result<(), kube::Error> {
    let api: Api<NetworkPolicy> = Api::namespaced(cluster.client.clone(), &cluster.namespace);
    let params = PatchParams { field_validation: Some(ValidationDirective::Strict), ..PatchParams::apply(FIELD_MANAGER).force() };
    api.patch(network::NAME, &params, &Patch::Apply(policy)).await.map(|_| ())
}

/// Where the API server is: its Service and what is behind it.
async fn api_server(client: &kube::Client) -> Vec<IpAddr> {
    let mut found: Vec<IpAddr> = std::env::var("KUBERNETES_SERVICE_HOST").ok().and_then(|host| host.parse().ok()).into_iter().collect();
    let services: Api<Service> = Api::namespaced(client.clone(), "default");
    match services.get("kubernetes").await {
        Ok(service) => {
            let addresses = service.spec.into_iter().flat_map(|spec| spec.cluster_ips.unwrap_or_default());
            found.extend(addresses.filter_map(|address| address.parse::<IpAddr>().ok()));
        }
        Err(error) => tracing::debug!(%error, "the Service of the API server cannot be read"),
    }
    let slices: Api<EndpointSlice> = Api::namespaced(client.clone(), "default");
    match slices.list(&ListParams::default().labels("kubernetes.io/service-name=kubernetes")).await {
        Ok(slices) => found.extend(
            slices
                .items
                .into_iter()
                .flat_map(|slice| slice.endpoints.unwrap_or_default())
                .flat_map(|endpoint| endpoint.addresses)
                .filter_map(|a| a.parse::<IpAddr>().ok()),
        ),
        Err(error) => tracing::debug!(%error, "the endpoints of the API server cannot be read"),
    }
    found
}

/// The definition of sandboxes: the policy goes when there can be none any more.
async fn owner(client: &kube::Client) -> Option<OwnerReference> {
    let name = format!("{}.{}", OpenShellSandbox::plural(&()), OpenShellSandbox::group(&()));
    let api: Api<CustomResourceDefinition> = Api::all(client.clone());
    match api.get_metadata_opt(&name).await {
        Ok(Some(definition)) => Some(OwnerReference {
            api_version: CustomResourceDefinition::api_version(&()).into_owned(),
            kind: CustomResourceDefinition::kind(&()).into_owned(),
            uid: definition.metadata.uid?,
            name,
            ..OwnerReference::default()
        }),
        Ok(None) => None,
        Err(error) => {
            tracing::debug!(%error, "the definition of sandboxes cannot be read; their NetworkPolicy stays when it goes");
            None
        }
    }
}
