//! The provider controller: can its credentials be used as it says?
//!
//! Locally, key names are looked at, values never: the API does not return them. In a cluster the
//! operator reads no Secret, and the gateway is the one who finds out.

use std::collections::BTreeSet;
use std::sync::Arc;

use futures::stream::{self, BoxStream};
use futures::{FutureExt as _, StreamExt as _};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt as _;
use kube::api::Api;
use kube::runtime::controller::{Action as Next, Config};
use kube::runtime::reflector::ObjectRef;
use kube::runtime::{WatchStreamExt as _, applier, watcher};
use openshell_crds::conditions::{self, Is};
use openshell_crds::{Provider, labels};
use serde_json::{Map, Value};
use tokio_util::sync::CancellationToken;

use super::backoff::Backoff;
use super::events::{self, Events};
use super::status::{self, Written};
use super::watched::Guarded;
use super::{Setting, Shared, api};
use crate::blueprint::check_provider;
use crate::limits;

struct Context {
    api: Api<Guarded<Provider>>,
    /// The Secrets, where they may be looked at.
    secrets: Option<Api<Secret>>,
    backoff: Backoff,
    events: Events,
}

/// Runs until shutdown.
pub(super) async fn run(shared: Arc<Shared>, shutdown: CancellationToken) {
    let secrets = match shared.config.setting {
        Setting::Local { .. } => Some(api(&shared.config)),
        Setting::Cluster { .. } => None,
    };
    let changes = secrets.clone().map_or_else(|| stream::empty().boxed(), secret_changes);
    let context = Arc::new(Context { api: api(&shared.config), secrets, backoff: Backoff::default(), events: shared.events.clone() });
    let own = shared.providers.queue();
    let of_secrets = shared.providers.concerned(changes, |secret: &String, provider| {
        provider.spec.credentials.iter().any(|credential| credential.secret_key_ref.name == *secret)
    });
    let queue = stream::select(own, of_secrets).map(Ok::<_, std::convert::Infallible>).take_until(shutdown.cancelled_owned());
    let metrics = shared.config.metrics.clone();
    applier(
        move |object, context| metrics.timed("provider", reconcile(object, context)).boxed(),
        |object, error: &kube::Error, context: Arc<Context>| {
            tracing::warn!(provider = object.name_any(), %error, "a provider could not be looked at and is tried again");
            Next::requeue(context.backoff.failed(&object.name_any()))
        },
        context,
        shared.providers.store().clone(),
        queue.boxed(),
        Config::default().concurrency(limits::RECONCILE_CONCURRENCY),
    )
    .for_each(|_: Result<(ObjectRef<Guarded<Provider>>, Next), _>| async {})
    .await;
}

/// Names of credential Secrets that change.
fn secret_changes(secrets: Api<Secret>) -> BoxStream<'static, String> {
    let labelled = watcher::Config::default().labels(&format!("{}=true", labels::CREDENTIAL));
    watcher(secrets, labelled)
        .default_backoff()
        .touched_objects()
        .filter_map(|event| std::future::ready(event.ok().map(|secret| secret.name_any())))
        .boxed()
}

async fn reconcile(object: Arc<Guarded<Provider>>, context: Arc<Context>) -> Result<Next, kube::Error> {
    let name = object.name_any();
    let Ok(provider) = &object.0 else { return Ok(Next::await_change()) };
    if provider.metadata.deletion_timestamp.is_some() {
        return Ok(Next::await_change());
    }
    let (is, reason, message) = verdict(provider, context.secrets.as_ref()).await?;
    let before = provider.status.clone().unwrap_or_default();
    let mut after = before.clone();
    let generation = provider.metadata.generation;
    after.observed_generation = generation;
    let now = Time(Timestamp::now());
    conditions::set(&mut after.conditions, conditions::condition(conditions::ACCEPTED, is, &reason, &message, generation, now.clone()));
    if is == Is::False {
        conditions::set(&mut after.conditions, conditions::condition(conditions::STALLED, Is::True, &reason, &message, generation, now));
    } else {
        conditions::remove(&mut after.conditions, conditions::STALLED);
    }
    if before != after {
        let fields: Map<String, Value> = match status::field(&after) {
            Value::Object(fields) => fields,
            _ => Map::new(),
        };
        match status::write(&context.api, &name, provider.metadata.resource_version.as_deref(), fields).await? {
            Written::Done(_) => context.events.tell::<Provider>(&provider.metadata, events::of_provider(&before, &after)),
            Written::Conflict => return Ok(Next::requeue(limits::BACKOFF_FIRST)),
            Written::Gone => {}
        }
    }
    context.backoff.settled(&name);
    Ok(Next::requeue(limits::RESYNC))
}

/// Whether a provider can be used.
async fn verdict(provider: &Provider, secrets: Option<&Api<Secret>>) -> Result<(Is, String, String), kube::Error> {
    if let Err(error) = check_provider(provider) {
        return Ok((Is::False, error.reason.to_string(), error.message));
    }
    let Some(secrets) = secrets else {
        let unseen = "accepted; the Secrets are checked by the gateway, which may read them";
        return Ok((Is::True, "Accepted".to_owned(), unseen.to_owned()));
    };
    for credential in &provider.spec.credentials {
        let wanted = &credential.secret_key_ref;
        let refuse = |reason: &str, message: String| Ok((Is::False, reason.to_owned(), message));
        let secret = match secrets.get_opt(&wanted.name).await {
            Ok(Some(secret)) => secret,
            Ok(None) => {
                return refuse(
                    "SecretNotFound",
                    format!("credential {}: there is no Secret \"{}\"; create it", credential.name, wanted.name),
                );
            }
            Err(error) => return Err(error),
        };
        if secret.labels().get(labels::CREDENTIAL).is_none_or(|value| value != "true") {
            return refuse(
                "SecretNotLabelled",
                format!(
                    "credential {}: Secret \"{}\" is not for us; label it {}: \"true\" if it is",
                    credential.name,
                    wanted.name,
                    labels::CREDENTIAL
                ),
            );
        }
        let keys: BTreeSet<&String> =
            secret.data.iter().flatten().map(|(key, _)| key).chain(secret.string_data.iter().flatten().map(|(key, _)| key)).collect();
        if !keys.contains(&wanted.key) {
            return refuse(
                "SecretKeyNotFound",
                format!(
                    "credential {}: Secret \"{}\" has no key \"{}\"; add it, or change the reference",
                    credential.name, wanted.name, wanted.key
                ),
            );
        }
    }
    Ok((Is::True, "Accepted".to_owned(), "every credential can be used for the endpoints that are named".to_owned()))
}
