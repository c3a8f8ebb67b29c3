//! The gateway object of a local gateway: where it is reached, what serves, and that it does.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt as _;
use kube::api::Api;
use kube::runtime::controller::Action as Next;
use openshell_crds::OpenShellGateway;
use openshell_crds::conditions::{self, Is};
use tokio_util::sync::CancellationToken;

use super::control::control;
use super::watched::Guarded;
use super::{Setting, Shared, status};

struct Context {
    shared: Arc<Shared>,
    api: Api<Guarded<OpenShellGateway>>,
    /// Where clients reach it.
    endpoint: Option<String>,
}

/// Runs until shutdown. Where the gateway is another process there is nothing to say for it.
pub(super) async fn run(shared: Arc<Shared>, shutdown: CancellationToken) {
    let Setting::Local { endpoint } = shared.config.setting.clone() else {
        shutdown.cancelled().await;
        return;
    };
    let context = Arc::new(Context {
        api: Api::namespaced(shared.config.client.clone(), &shared.config.gateway_namespace),
        endpoint,
        shared: Arc::clone(&shared),
    });
    let work = |object| reconcile(object, Arc::clone(&context));
    control("gateway", &shared.config.metrics, &shared.gateways, shared.gateways.queue(), shutdown, work).await;
}

async fn reconcile(object: Arc<Guarded<OpenShellGateway>>, context: Arc<Context>) -> Result<Next, kube::Error> {
    let name = object.name_any();
    let gateway = match &object.0 {
        Ok(gateway) => gateway,
        Err(invalid) => {
            tracing::warn!(
                gateway = name,
                error = invalid.error,
                "the gateway's object cannot be read; apply it again as the API documents it"
            );
            return Ok(Next::await_change());
        }
    };
    if name != context.shared.config.gateway_name || gateway.metadata.deletion_timestamp.is_some() {
        return Ok(Next::await_change());
    }
    let before = gateway.status.clone().unwrap_or_default();
    let mut after = before.clone();
    after.observed_generation = gateway.metadata.generation;
    after.endpoint.clone_from(&context.endpoint);
    after.version = Some(env!("CARGO_PKG_VERSION").to_owned());
    conditions::set(
        &mut after.conditions,
        conditions::condition(
            conditions::READY,
            Is::True,
            "Serving",
            "the gateway serves",
            gateway.metadata.generation,
            Time(Timestamp::now()),
        ),
    );
    Ok(Next::requeue(status::say(&context.api, &context.shared.events, &gateway.metadata, &before, &after).await?))
}
