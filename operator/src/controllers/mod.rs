//! The controllers: they watch the objects, compose, plan, act and write status.
//!
//! ```text
//!   one watch per kind ─▶ store ─┬▶ sandbox    compose ▸ plan ▸ driver ▸ status
//!   driver.watch() ──────────────┤  (a Policy, Provider or Gateway change concerns its sandboxes)
//!                                ├▶ policy     parse ▸ Accepted, revision; counts once a second
//!                                ├▶ provider   check ▸ Accepted
//!                                └▶ gateway    endpoint, version, Ready; in a cluster `deployment`
//!                                               makes what it consists of
//! ```
//!
//! Each kind is watched once and every object is read through a guard, so that one that cannot
//! be parsed stops neither its list nor the others; it gets a status that says so. A status is
//! written only when it differs from what is there, under our own field manager, and with the
//! resource version it was computed from: the list of conditions is shared with the gateway.
//!
//! Nothing is polled on the way of a sandbox: a change is acted on when it arrives. Failures are
//! tried again per object with exponential backoff and jitter.

mod backoff;
mod control;
mod deployment;
mod desired;
mod events;
mod gateway;
mod orphans;
mod policy;
mod provider;
mod sandbox;
mod status;
mod watched;

use std::collections::BTreeMap;
use std::sync::Arc;

use kube::{Api, Client};
use openshell_crds::{OpenShellGateway, OpenShellSandbox, Policy, Provider};
use tokio_util::sync::CancellationToken;

use crate::driver::ComputeDriver;
use crate::metrics::Metrics;
pub use deployment::DeploymentConfig;
use events::Events;
use watched::Watched;

/// What the controllers work with.
#[derive(Clone)]
pub struct ControllerConfig {
    /// The API.
    pub client: Client,
    /// Where workloads run.
    pub driver: Arc<dyn ComputeDriver>,
    /// The gateway whose sandboxes these are.
    pub gateway_name: String,
    /// Namespace of the gateway.
    pub gateway_namespace: String,
    /// Namespace of sandboxes, policies and providers.
    pub namespace: String,
    /// Where all this runs.
    pub setting: Setting,
    /// Where it is counted what is done.
    pub metrics: Metrics,
}

/// What the controllers of this process are to the gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Setting {
    /// This process is the gateway as well: its status is written here, and a provider's Secrets
    /// are looked at.
    Local {
        /// Where clients reach it.
        endpoint: Option<String>,
    },
    /// The gateway is another process, whose object another controller looks after. No Secret is
    /// read: the gateway says what is wrong with a provider's.
    Cluster {
        /// Deploys the gateway. None: somebody else does.
        deployment: Option<DeploymentConfig>,
    },
}

/// The controllers could not go on.
#[derive(Debug, thiserror::Error)]
pub enum ControllerError {
    /// A controller ended although nobody asked it to.
    #[error("the {0} controller ended unexpectedly; restart the process")]
    Ended(&'static str),
}

/// What all controllers share.
struct Shared {
    config: ControllerConfig,
    sandboxes: Watched<OpenShellSandbox>,
    policies: Watched<Policy>,
    providers: Watched<Provider>,
    gateways: Watched<OpenShellGateway>,
    events: Events,
}

/// Runs all controllers until `shutdown`; reconciles that have begun are finished.
pub async fn run(config: ControllerConfig, shutdown: CancellationToken) -> Result<(), ControllerError> {
    let shared = Arc::new(Shared {
        sandboxes: Watched::start(api(&config), &shutdown),
        policies: Watched::start(api(&config), &shutdown),
        providers: Watched::start(api(&config), &shutdown),
        gateways: Watched::start(Api::namespaced(config.client.clone(), &config.gateway_namespace), &shutdown),
        events: Events::start(config.client.clone(), &config.setting),
        config,
    });
    count_sandboxes(&shared);
    let parts = [
        ("sandbox", tokio::spawn(sandbox::run(Arc::clone(&shared), shutdown.clone()))),
        ("policy", tokio::spawn(policy::run(Arc::clone(&shared), shutdown.clone()))),
        ("provider", tokio::spawn(provider::run(Arc::clone(&shared), shutdown.clone()))),
        ("gateway", gateway_controller(&shared, &shutdown)),
        ("orphan", tokio::spawn(orphans::run(shared, shutdown.clone()))),
    ];
    let (names, tasks): (Vec<_>, Vec<_>) = parts.into_iter().unzip();
    let (_, first, others) = futures::future::select_all(tasks).await;
    if !shutdown.is_cancelled() {
        shutdown.cancel();
        futures::future::join_all(others).await;
        return Err(ControllerError::Ended(names[first]));
    }
    futures::future::join_all(others).await;
    Ok(())
}

/// Sandboxes by phase, as they are when somebody asks.
fn count_sandboxes(shared: &Arc<Shared>) {
    let store = shared.sandboxes.store().clone();
    shared.config.metrics.count("sandboxes", "Sandboxes by phase; Unknown where nothing is known of it yet", "phase", move || {
        let mut phases = BTreeMap::<String, i64>::new();
        for object in store.state() {
            let phase = object.0.as_ref().ok().and_then(|sandbox| sandbox.status.as_ref()?.phase);
            *phases.entry(phase.map_or_else(|| "Unknown".to_owned(), |phase| format!("{phase:?}"))).or_default() += 1;
        }
        phases.into_iter().collect()
    });
}

/// What concerns the gateway object: this process, or the deployment of another.
fn gateway_controller(shared: &Arc<Shared>, shutdown: &CancellationToken) -> tokio::task::JoinHandle<()> {
    match &shared.config.setting {
        Setting::Cluster { deployment: Some(config) } => {
            tokio::spawn(deployment::run(Arc::clone(shared), config.clone(), shutdown.clone()))
        }
        _ => tokio::spawn(gateway::run(Arc::clone(shared), shutdown.clone())),
    }
}

/// The objects of a kind in the namespace of the controllers.
fn api<K>(config: &ControllerConfig) -> Api<K>
where
    K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>,
{
    Api::namespaced(config.client.clone(), &config.namespace)
}
