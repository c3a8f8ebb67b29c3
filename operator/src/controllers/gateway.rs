//! The gateway object of a local gateway: where it is reached, what serves, and that it does.

use std::sync::Arc;

use futures::{FutureExt as _, StreamExt as _};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt as _;
use kube::api::Api;
use kube::runtime::applier;
use kube::runtime::controller::{Action as Next, Config};
use openshell_crds::OpenShellGateway;
use openshell_crds::conditions::{self, Is};
use serde_json::{Map, Value};
use tokio_util::sync::CancellationToken;

use super::backoff::Backoff;
use super::status::{self, Written};
use super::watched::Guarded;
use super::{Setting, Shared};
use crate::limits;

struct Context {
    shared: Arc<Shared>,
    api: Api<Guarded<OpenShellGateway>>,
    /// Where clients reach it.
    endpoint: Option<String>,
    backoff: Backoff,
}

/// Runs until shutdown. Where the gateway is another process there is nothing to say for it.
pub(super) async fn run(shared: Arc<Shared>, shutdown: CancellationToken) {
    let Setting::Local { endpoint } = shared.config.setting.clone() else {
        shutdown.cancelled().await;
        return;
    };
    let queue = shared.gateways.queue().map(Ok::<_, std::convert::Infallible>).take_until(shutdown.cancelled_owned());
    let context = Arc::new(Context {
        api: Api::namespaced(shared.config.client.clone(), &shared.config.gateway_namespace),
        endpoint,
        backoff: Backoff::default(),
        shared: Arc::clone(&shared),
    });
    let metrics = shared.config.metrics.clone();
    applier(
        move |object, context| metrics.timed("gateway", reconcile(object, context)).boxed(),
        |object, error: &kube::Error, context: Arc<Context>| {
            tracing::warn!(gateway = object.name_any(), %error, "the status of the gateway could not be written and is tried again");
            Next::requeue(context.backoff.failed(&object.name_any()))
        },
        context,
        shared.gateways.store().clone(),
        queue.boxed(),
        Config::default(),
    )
    .for_each(|_| async {})
    .await;
}

async fn reconcile(object: Arc<Guarded<OpenShellGateway>>, context: Arc<Context>) -> Result<Next, kube::Error> {
    let name = object.name_any();
    let Ok(gateway) = &object.0 else { return Ok(Next::await_change()) };
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
    if before != after {
        let fields: Map<String, Value> = match status::field(&after) {
            Value::Object(fields) => fields,
            _ => Map::new(),
        };
        if let Written::Conflict = status::write(&context.api, &name, gateway.metadata.resource_version.as_deref(), fields).await? {
            return Ok(Next::requeue(limits::BACKOFF_FIRST));
        }
    }
    context.backoff.settled(&name);
    Ok(Next::requeue(limits::RESYNC))
}
