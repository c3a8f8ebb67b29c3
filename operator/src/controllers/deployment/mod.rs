//! Deploys the gateway that an `OpenShellGateway` describes, and says how it is.
//!
//! ```text
//!   OpenShellGateway ──▶ keys::keep ──▶ Secrets        made once, never replaced unread
//!                    ──▶ render     ──▶ ConfigMaps, ServiceAccount, Service, claim, Deployment
//!   Deployment, pods ──▶ verdict    ──▶ status, Events
//! ```
//!
//! Everything but the Secrets is applied server-side under a field manager of our own, so that
//! what others add (an autoscaler's annotation, a mesh's label) stays. Each object is watched by
//! its name: what is deleted or changed by hand comes back at once. Everything belongs to the
//! `OpenShellGateway`, and goes with it by the API's own garbage collection: there is no
//! finalizer, so nothing waits for an operator that is gone.
//!
//! It grants nothing. Roles and their bindings come with the chart: an operator that may bind a
//! role can give its rights to anybody, and what is bound in another namespace has no owner that
//! would take it away.

mod events;
mod keys;
mod render;
mod secrets;
#[cfg(test)]
mod tests;
mod verdict;
mod watches;

use std::fmt::Debug;
use std::sync::Arc;

use futures::StreamExt as _;
use futures::stream::BoxStream;
use jiff::Timestamp;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Pod, Secret};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::{Api, ListParams, Patch, PatchParams};
use kube::core::error_boundary::InvalidObject;
use kube::runtime::controller::Action as Next;
use kube::runtime::reflector::ObjectRef;
use kube::{Client, Resource, ResourceExt as _};
use openshell_crds::conditions::{self, Is};
use openshell_crds::deployment::CertificatesStatus;
use openshell_crds::{OpenShellGateway, OpenShellGatewayStatus};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio_util::sync::CancellationToken;

use super::control::control;
use super::watched::Guarded;
use super::{Shared, status};
use crate::blueprint::BlueprintError;
use crate::limits;
use keys::{Kept, KeyError, Slot, Wanted};
use render::{Objects, Trust};
use verdict::{Obstacle, Progress, Verdict};

/// Field manager of everything that a gateway consists of.
const FIELD_MANAGER: &str = "openshell-operator-deployment";

/// How the gateway is deployed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeploymentConfig {
    /// Its image, where the object names none.
    pub image: String,
}

struct Context {
    client: Client,
    config: DeploymentConfig,
    /// The one gateway that is deployed.
    name: String,
    /// Its namespace, and that of everything that is made for it.
    namespace: String,
    gateways: Api<Guarded<OpenShellGateway>>,
    shared: Arc<Shared>,
}

/// Deploys the gateway until shutdown.
pub(super) async fn run(shared: Arc<Shared>, config: DeploymentConfig, shutdown: CancellationToken) {
    let controllers = &shared.config;
    let (client, name, namespace) = (controllers.client.clone(), controllers.gateway_name.clone(), controllers.gateway_namespace.clone());
    let gateways = Api::namespaced(client.clone(), &namespace);
    let this = ObjectRef::new(&name).within(&namespace);
    let client_secrets = client_secrets(&shared, &name);
    let parts = watches::of(&client, &namespace, &controllers.namespace, &name, client_secrets).map(move |()| this.clone());
    let queue = futures::stream::select(shared.gateways.queue(), parts);
    let context = Arc::new(Context { shared: Arc::clone(&shared), client, config, name, namespace, gateways });
    let work = |object| reconcile(object, Arc::clone(&context));
    control("gateway", &controllers.metrics, &shared.gateways, queue, shutdown, work).await;
}

/// Under which name the users of the gateway `name` find their certificate, whenever that may have changed.
fn client_secrets(shared: &Arc<Shared>, name: &str) -> BoxStream<'static, String> {
    let (shared, name) = (Arc::clone(shared), name.to_owned());
    let changes = shared.gateways.changes();
    changes.filter_map(move |_| std::future::ready(shared.gateways.get(&name).map(|gateway| gateway.client_secret_name()))).boxed()
}

/// What the gateway's pod is like.
enum Serving {
    Judged(Verdict),
    /// There is no Deployment.
    NotDeployed,
    /// It cannot be read.
    Unknown,
}

/// What was found out about a gateway.
struct Findings {
    serving: Serving,
    /// Why what is there is not what should be.
    obstacle: Option<Verdict>,
    certificates: Option<CertificatesStatus>,
    recheck: Option<Timestamp>,
}

async fn reconcile(object: Arc<Guarded<OpenShellGateway>>, context: Arc<Context>) -> Result<Next, kube::Error> {
    if object.meta().deletion_timestamp.is_some() {
        return Ok(Next::await_change());
    }
    let now = Timestamp::now();
    let gateway = match &object.0 {
        Ok(gateway) => gateway,
        Err(invalid) => return unreadable(&context, invalid, &Time(now)).await,
    };
    let findings = if gateway.name_any() == context.name {
        deploy(&context, gateway, now).await?
    } else {
        let message = format!(
            "the operator of this namespace deploys the gateway `{}` only; install the chart in another namespace for another gateway",
            context.name
        );
        Findings { serving: Serving::NotDeployed, obstacle: Some(Verdict::stuck("NotServed", message)), certificates: None, recheck: None }
    };
    let recheck = findings.recheck;
    let before = gateway.status.clone().unwrap_or_default();
    let after = conclude(gateway, before.clone(), findings, &context.config.image, &Time(now));
    let pause = status::say(&context.gateways, &context.shared.events, &gateway.metadata, &before, &after).await?;
    let due = recheck.map(|at| at.duration_since(now).unsigned_abs()).filter(|_| recheck > Some(now));
    Ok(Next::requeue(due.unwrap_or(pause).min(pause)))
}

/// Nothing is changed for an object that cannot be read: what serves goes on.
async fn unreadable(context: &Context, invalid: &InvalidObject, now: &Time) -> Result<Next, kube::Error> {
    let meta = &invalid.metadata;
    let before: Option<OpenShellGatewayStatus> = status::unread(&context.gateways, &context.shared, meta).await?;
    let Some(before) = before else { return Ok(Next::requeue(limits::RESYNC)) };
    let mut after = before.clone();
    after.observed_generation = meta.generation;
    let error = BlueprintError::unreadable("the gateway", &invalid.error);
    let stalled = conditions::condition(conditions::STALLED, Is::True, error.reason.as_str(), &error.message, meta.generation, now.clone());
    conditions::set(&mut after.conditions, stalled);
    conditions::remove(&mut after.conditions, conditions::RECONCILING);
    Ok(Next::requeue(status::say(&context.gateways, &context.shared.events, meta, &before, &after).await?))
}

/// Makes everything as it should be, as far as it goes.
async fn deploy(context: &Context, gateway: &OpenShellGateway, now: Timestamp) -> Result<Findings, kube::Error> {
    let (kept, obstacle) = match keep_keys(context, gateway, now).await {
        Ok(kept) => (Some(kept), None),
        Err(Obstacle::Stuck(verdict)) => (None, Some(verdict)),
        Err(Obstacle::Passing(error)) => return Err(error),
    };
    let mut findings = Findings { serving: Serving::NotDeployed, obstacle, certificates: None, recheck: None };
    let mut deployment = None;
    if let Some(kept) = kept {
        findings.recheck = Some(kept.recheck);
        findings.certificates =
            Some(CertificatesStatus { server_ends: Some(Time(kept.server_ends)), authority_ends: Some(Time(kept.authority_ends)) });
        let trust = Trust { bundle: &kept.bundle, checksum: &kept.checksum };
        match apply_all(context, render::render(gateway, &trust, &context.config.image)).await {
            Ok(applied) => deployment = Some(applied),
            Err(Obstacle::Stuck(verdict)) => findings.obstacle = Some(verdict),
            Err(Obstacle::Passing(error)) => return Err(error),
        }
    }
    // Whatever is in the way of a change, what runs goes on, and is told of.
    if deployment.is_none() {
        let api: Api<Deployment> = Api::namespaced(context.client.clone(), &context.namespace);
        match api.get_opt(&gateway.deployment_name()).await {
            Ok(found) => deployment = found,
            Err(error) => {
                tracing::warn!(%error, "the Deployment of the gateway cannot be read");
                findings.serving = Serving::Unknown;
            }
        }
    }
    if let Some(deployment) = deployment {
        findings.serving = Serving::Judged(verdict::judge(&deployment, &pods(context, gateway).await?));
    }
    // Nothing tells when what is in the way has gone: a permission, a quota.
    if findings.obstacle.is_some() {
        findings.recheck = findings.recheck.into_iter().chain([now + limits::BACKOFF_LONGEST]).min();
    }
    Ok(findings)
}

async fn keep_keys(context: &Context, gateway: &OpenShellGateway, now: Timestamp) -> Result<Kept, Obstacle> {
    let api: Api<Secret> = Api::namespaced(context.client.clone(), &context.namespace);
    let wanted = Wanted {
        names: render::server_names(gateway),
        certificate_days: gateway.spec.tls.certificate_days(),
        authority_days: gateway.spec.tls.authority_days(),
    };
    for _ in 0..limits::STATUS_ATTEMPTS {
        let found = secrets::read(&api, gateway).await?;
        let data = found.iter().map(|(slot, read)| (*slot, read.data.clone())).collect();
        let kept = keys::keep(&data, &wanted, now).map_err(|error| Obstacle::Stuck(unusable(gateway, error)))?;
        if secrets::write(&api, gateway, &found, &kept.data).await? {
            continue;
        }
        context.shared.events.tell::<OpenShellGateway>(&gateway.metadata, events::made(&kept.changes));
        return Ok(kept);
    }
    Err(Obstacle::Stuck(Verdict::stuck("SecretsContended", "somebody else writes the gateway's Secrets all the time; find out who")))
}

fn unusable(gateway: &OpenShellGateway, error: KeyError) -> Verdict {
    match error {
        KeyError::Unusable { slot: slot @ Slot::Token, reason } => Verdict::stuck(
            "TokenKeyUnusable",
            format!(
                "the Secret {} is not usable: {reason}. Restore it; or delete it, and running sandboxes get new tokens from a new key",
                secrets::name(gateway, slot)
            ),
        ),
        KeyError::Unusable { slot, reason } => Verdict::stuck(
            "AuthorityUnusable",
            format!(
                "the Secret {} is not usable: {reason}. Restore it; or delete it, and give every client the new ca.crt and certificate",
                secrets::name(gateway, slot)
            ),
        ),
        KeyError::Issue(reason) => Verdict::stuck("CertificateNotIssued", format!("{reason}. Check spec.tls")),
    }
}

/// Applies the objects in an order in which each finds what it needs; gives the Deployment as it is now.
async fn apply_all(context: &Context, objects: Objects) -> Result<Deployment, Obstacle> {
    apply(context, &objects.authority).await?;
    if let Some(authority) = &objects.authority_for_sandboxes {
        apply(context, authority).await?;
    }
    apply(context, &objects.service_account).await?;
    apply(context, &objects.service).await?;
    if let Some(claim) = &objects.claim {
        apply(context, claim).await?;
    }
    apply(context, &objects.deployment).await
}

async fn apply<K>(context: &Context, object: &K) -> Result<K, Obstacle>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + Serialize + DeserializeOwned,
{
    let (name, namespace) = (object.name_any(), object.namespace().unwrap_or_default());
    let api: Api<K> = Api::namespaced(context.client.clone(), &namespace);
    let applied = api.patch(&name, &PatchParams::apply(FIELD_MANAGER).force(), &Patch::Apply(object)).await;
    applied.map_err(|error| Obstacle::of(error, &format!("cannot apply the {} {namespace}/{name}", K::kind(&()))))
}

async fn pods(context: &Context, gateway: &OpenShellGateway) -> Result<Vec<Pod>, kube::Error> {
    let selector: Vec<String> = render::selector(gateway).iter().map(|(key, value)| format!("{key}={value}")).collect();
    let api: Api<Pod> = Api::namespaced(context.client.clone(), &context.namespace);
    Ok(api.list(&ListParams::default().labels(&selector.join(","))).await?.items)
}

/// The status that follows.
fn conclude(
    gateway: &OpenShellGateway,
    mut status: OpenShellGatewayStatus,
    findings: Findings,
    default_image: &str,
    now: &Time,
) -> OpenShellGatewayStatus {
    let generation = gateway.metadata.generation;
    let serving = match &findings.serving {
        Serving::Judged(verdict) => Some(verdict),
        Serving::NotDeployed | Serving::Unknown => None,
    };
    let ready = serving.is_some_and(|verdict| verdict.ready);
    let obstacle = findings.obstacle.as_ref();
    status.observed_generation = generation;
    status.endpoint = Some(gateway.callback_endpoint());
    if !matches!(findings.serving, Serving::Unknown) {
        status.ready_replicas = Some(i32::from(ready));
    }
    if ready && obstacle.is_none() {
        status.version = Some(tag(render::image(gateway, default_image)).to_owned());
    }
    if findings.certificates.is_some() {
        status.certificates = findings.certificates;
    }
    let list = &mut status.conditions;
    let is = |kind, is, verdict: &Verdict| conditions::condition(kind, is, verdict.reason, &verdict.message, generation, now.clone());
    let state = match findings.serving {
        Serving::Unknown => Is::Unknown,
        _ if ready => Is::True,
        _ => Is::False,
    };
    if let Some(summary) = serving.filter(|verdict| verdict.ready || obstacle.is_none()).or(obstacle) {
        conditions::set(list, is(conditions::READY, state, summary));
    }
    let blocked = obstacle.or(serving.filter(|verdict| verdict.progress == Progress::Stuck));
    match blocked {
        Some(verdict) => conditions::set(list, is(conditions::STALLED, Is::True, verdict)),
        None => conditions::remove(list, conditions::STALLED),
    };
    match serving.filter(|verdict| verdict.progress == Progress::Working && blocked.is_none()) {
        Some(verdict) => conditions::set(list, is(conditions::RECONCILING, Is::True, verdict)),
        None => conditions::remove(list, conditions::RECONCILING),
    };
    status
}

/// Tag or digest of an image.
fn tag(image: &str) -> &str {
    if let Some((_, digest)) = image.split_once('@') {
        return digest;
    }
    match image.rsplit_once(':') {
        Some((_, tag)) if !tag.contains('/') => tag,
        _ => "latest",
    }
}
