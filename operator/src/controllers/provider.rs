//! The provider controller: can its credentials be used as it says?
//!
//! Locally, key names are looked at, values never: the API does not return them. In a cluster the
//! operator reads no Secret, and the gateway is the one who finds out.

use std::collections::BTreeSet;
use std::sync::Arc;

use futures::StreamExt as _;
use futures::stream::{self, BoxStream};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::Api;
use kube::runtime::controller::Action as Next;
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Resource as _, ResourceExt as _};
use openshell_crds::conditions::{self, Is};
use openshell_crds::{Provider, ProviderStatus, labels};
use tokio_util::sync::CancellationToken;

use super::control::control;
use super::watched::Guarded;
use super::{Setting, Shared, api, status};
use crate::blueprint::{BlueprintError, check_provider};
use crate::{limits, watching};

struct Context {
    api: Api<Guarded<Provider>>,
    /// The Secrets, where they may be looked at.
    secrets: Option<Api<Secret>>,
    shared: Arc<Shared>,
}

/// Runs until shutdown.
pub(super) async fn run(shared: Arc<Shared>, shutdown: CancellationToken) {
    let secrets = match shared.config.setting {
        Setting::Local { .. } => Some(api(&shared.config)),
        Setting::Cluster { .. } => None,
    };
    let changes = secrets.clone().map_or_else(|| stream::empty().boxed(), secret_changes);
    let context = Arc::new(Context { api: api(&shared.config), secrets, shared: Arc::clone(&shared) });
    let own = shared.providers.queue();
    let of_secrets = shared.providers.concerned(changes, |secret: &String, provider| {
        provider.spec.credentials.iter().any(|credential| credential.secret_key_ref.name == *secret)
    });
    let work = |object| reconcile(object, Arc::clone(&context));
    control("provider", &shared.config.metrics, &shared.providers, stream::select(own, of_secrets), shutdown, work).await;
}

/// Names of credential Secrets that change.
fn secret_changes(secrets: Api<Secret>) -> BoxStream<'static, String> {
    let labelled = watcher::Config::default().labels(&format!("{}=true", labels::CREDENTIAL));
    watching::watch(secrets, labelled)
        .touched_objects()
        .filter_map(|event| std::future::ready(event.ok().map(|secret| secret.name_any())))
        .boxed()
}

async fn reconcile(object: Arc<Guarded<Provider>>, context: Arc<Context>) -> Result<Next, kube::Error> {
    let (meta, shared) = (object.meta(), &context.shared);
    if meta.deletion_timestamp.is_some() {
        return Ok(Next::await_change());
    }
    let (before, (is, reason, message)) = match &object.0 {
        Ok(provider) => (provider.status.clone().unwrap_or_default(), verdict(provider, context.secrets.as_ref()).await?),
        Err(invalid) => {
            let Some(before) = status::unread(&context.api, shared, meta).await? else { return Ok(Next::requeue(limits::RESYNC)) };
            (before, refused(BlueprintError::unreadable("the provider", &invalid.error)))
        }
    };
    let mut after: ProviderStatus = before.clone();
    let generation = meta.generation;
    after.observed_generation = generation;
    let now = Time(Timestamp::now());
    conditions::set(&mut after.conditions, conditions::condition(conditions::ACCEPTED, is, &reason, &message, generation, now.clone()));
    if is == Is::False {
        conditions::set(&mut after.conditions, conditions::condition(conditions::STALLED, Is::True, &reason, &message, generation, now));
    } else {
        conditions::remove(&mut after.conditions, conditions::STALLED);
    }
    Ok(Next::requeue(status::say(&context.api, &shared.events, meta, &before, &after).await?))
}

fn refused(error: BlueprintError) -> (Is, String, String) {
    (Is::False, error.reason.to_string(), error.message)
}

/// Whether a provider can be used.
async fn verdict(provider: &Provider, secrets: Option<&Api<Secret>>) -> Result<(Is, String, String), kube::Error> {
    if let Err(error) = check_provider(provider) {
        return Ok(refused(error));
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
