//! What configurations are made of, kept up to date by watches.
//!
//! Watches fill stores; a change marks the sandboxes it may concern as dirty, and their
//! tasks compose again and push if the result differs. Marks are coalesced: however many
//! objects change at once, a sandbox composes once.

use std::{collections::HashSet, fmt::Debug, pin::pin, sync::Arc, time::Duration};

use futures::{StreamExt as _, join};
use k8s_openapi::api::core::v1::Secret;
use kube::{
    Api, Resource, ResourceExt as _,
    api::ListParams,
    core::DeserializeGuard,
    runtime::{
        reflector::{self, ObjectRef, Store, store::Writer},
        watcher,
    },
};
use openshell_crds::{OpenShellGateway, OpenShellSandbox, Policy, Provider, labels};
use openshell_operator::watching;
use openshell_proto::supervisor::Rejected;
use parking_lot::Mutex;
use serde::de::DeserializeOwned;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{Inner, service::not_found};

/// How long a supervisor that calls while the gateway starts waits for the first list.
const READY_WAIT: Duration = Duration::from_secs(8);

pub(super) struct Objects {
    /// As they were last readable.
    pub(super) sandboxes: Store<OpenShellSandbox>,
    pub(super) policies: Store<DeserializeGuard<Policy>>,
    pub(super) providers: Store<DeserializeGuard<Provider>>,
    pub(super) gateway: watch::Sender<Own>,
    /// Without their values.
    pub(super) secrets: Store<DeserializeGuard<Secret>>,
    /// UIDs of sandboxes that are there and do not decode. They are not gone.
    unreadable: Mutex<HashSet<String>>,
    writers: Mutex<Option<Writers>>,
}

/// The gateway's own object.
#[derive(Clone)]
pub(super) enum Own {
    /// Nobody has looked yet.
    NotYet,
    /// Not made yet, or deleted.
    Absent,
    /// As it was last readable.
    Readable(Arc<OpenShellGateway>),
    /// It was never readable as long as this process has looked, and why.
    Unreadable(String),
}

impl Own {
    fn is_now(&mut self, found: Option<DeserializeGuard<OpenShellGateway>>) {
        *self = match (found, &*self) {
            (None, _) => Self::Absent,
            (Some(DeserializeGuard(Ok(gateway))), _) => Self::Readable(Arc::new(gateway)),
            (Some(DeserializeGuard(Err(_))), Self::Readable(known)) => Self::Readable(Arc::clone(known)),
            (Some(DeserializeGuard(Err(invalid))), _) => Self::Unreadable(invalid.error),
        };
    }
}

struct Writers {
    sandboxes: Writer<OpenShellSandbox>,
    policies: Writer<DeserializeGuard<Policy>>,
    providers: Writer<DeserializeGuard<Provider>>,
    secrets: Writer<DeserializeGuard<Secret>>,
}

impl Objects {
    pub(super) fn new() -> Self {
        let (sandboxes, sandboxes_writer) = reflector::store();
        let (policies, policies_writer) = reflector::store();
        let (providers, providers_writer) = reflector::store();
        let (secrets, secrets_writer) = reflector::store();
        let writers =
            Writers { sandboxes: sandboxes_writer, policies: policies_writer, providers: providers_writer, secrets: secrets_writer };
        Self {
            sandboxes,
            policies,
            providers,
            gateway: watch::Sender::new(Own::NotYet),
            secrets,
            unreadable: Mutex::default(),
            writers: Mutex::new(Some(writers)),
        }
    }

    /// The sandbox with this uid, as last seen.
    pub(super) fn sandbox(&self, uid: &str, namespace: &str, name: Option<&str>) -> Option<Arc<OpenShellSandbox>> {
        let is_it = |s: &Arc<OpenShellSandbox>| s.metadata.uid.as_deref() == Some(uid);
        match name {
            Some(name) => self.sandboxes.get(&ObjectRef::new(name).within(namespace)).filter(is_it),
            None => self.sandboxes.find(|s| s.metadata.uid.as_deref() == Some(uid)),
        }
    }

    /// The sandbox with this uid as it was last readable, whatever it is called.
    fn known(&self, uid: &str) -> Option<OpenShellSandbox> {
        let known = self.sandboxes.find(|sandbox| sandbox.metadata.uid.as_deref() == Some(uid));
        known.map(|sandbox| OpenShellSandbox::clone(&sandbox))
    }

    /// Whether every store holds its first complete list.
    pub(super) async fn ready(&self) -> bool {
        let mut gateway = self.gateway.subscribe();
        let all = async {
            let _ = join!(
                self.sandboxes.wait_until_ready(),
                self.policies.wait_until_ready(),
                self.providers.wait_until_ready(),
                async { gateway.wait_for(|own| !matches!(own, Own::NotYet)).await.map(drop) },
                self.secrets.wait_until_ready()
            );
        };
        tokio::time::timeout(READY_WAIT, all).await.is_ok()
    }

    /// Whether a supervisor may have a session: its sandbox must exist. The watch may be
    /// behind the driver that has just started the supervisor, so absence is asked for.
    pub(super) async fn admit(&self, inner: &Inner, uid: &str) -> Option<Rejected> {
        let later = |message: &str| Some(Rejected { code: "NotReady".into(), message: message.into(), retry: true });
        if !self.ready().await {
            return later("the gateway has not read its objects yet");
        }
        let found = match self.sandbox(uid, &inner.config.namespace, None) {
            Some(sandbox) => Some(sandbox.metadata.deletion_timestamp.is_some()),
            None => match api::<OpenShellSandbox>(inner).list(&ListParams::default()).await {
                Ok(list) => list.items.iter().find(|s| s.meta().uid.as_deref() == Some(uid)).map(|s| s.meta().deletion_timestamp.is_some()),
                Err(error) => return later(&format!("the sandbox could not be looked up: {error}")),
            },
        };
        match found {
            Some(false) => None,
            Some(true) | None => Some(not_found()),
        }
    }
}

fn api<K>(inner: &Inner) -> Api<DeserializeGuard<K>>
where
    K: Resource<DynamicType = (), Scope = kube::core::NamespaceResourceScope>,
{
    Api::namespaced(inner.config.client.clone(), &inner.config.namespace)
}

/// Runs the watches until `shutdown`.
pub(super) async fn run(inner: &Arc<Inner>, shutdown: &CancellationToken) {
    let Some(writers) = inner.objects.writers.lock().take() else {
        tracing::error!("the session hub runs already; a second run does nothing");
        return;
    };
    let any = watcher::Config::default;
    let credentials = any().labels(&format!("{}=true", labels::CREDENTIAL));
    let watches = async {
        join!(
            watch_sandboxes(inner, writers.sandboxes),
            follow(inner, any(), writers.policies),
            follow(inner, any(), writers.providers),
            follow_gateway(inner),
            follow(inner, credentials, writers.secrets),
            places(inner),
        );
    };
    tokio::select! {
        () = watches => {}
        () = shutdown.cancelled() => {}
    }
}

/// Follows the gateway's own object.
async fn follow_gateway(inner: &Inner) {
    let api: Api<DeserializeGuard<OpenShellGateway>> = Api::namespaced(inner.config.client.clone(), &inner.config.gateway_namespace);
    let config = watcher::Config::default().fields(&format!("metadata.name={}", inner.config.gateway_name));
    let mut events = pin!(watching::watch(api, config));
    let mut listed = None;
    while let Some(event) = events.next().await {
        let found = match event {
            Ok(watcher::Event::Init) => {
                listed = None;
                continue;
            }
            Ok(watcher::Event::InitApply(gateway)) => {
                listed = Some(gateway);
                continue;
            }
            Ok(watcher::Event::InitDone) => listed.take(),
            Ok(watcher::Event::Apply(gateway)) => Some(gateway),
            Ok(watcher::Event::Delete(_)) => None,
            Err(error) => {
                tracing::warn!(kind = %OpenShellGateway::kind(&()), %error, "the watch failed and is tried again");
                continue;
            }
        };
        inner.objects.gateway.send_modify(|known| known.is_now(found));
        mark_all(inner);
    }
}

/// Follows what no policy can grant, where that changes.
async fn places(inner: &Inner) {
    let Some(mut places) = inner.config.places.clone() else { return };
    while places.changed().await.is_ok() {
        mark_all(inner);
    }
}

/// Any of the shared objects may concern any connected sandbox; composing is cheap, and only
/// a difference is pushed.
fn mark_all(inner: &Inner) {
    for handle in inner.sandboxes.lock().values() {
        handle.dirty.notify_one();
    }
}

/// Follows one kind that many sandboxes may need. An object that does not decode is there all the same.
async fn follow<K>(inner: &Inner, config: watcher::Config, mut writer: Writer<DeserializeGuard<K>>)
where
    K: Resource<DynamicType = (), Scope = kube::core::NamespaceResourceScope> + Clone + Debug + DeserializeOwned + Send + 'static,
{
    let mut events = pin!(watching::watch(api::<K>(inner), config));
    while let Some(event) = events.next().await {
        match event {
            Ok(event) => {
                writer.apply_watcher_event(&event);
                if !matches!(event, watcher::Event::Init | watcher::Event::InitApply(_)) {
                    mark_all(inner);
                }
            }
            Err(error) => tracing::warn!(kind = %K::kind(&()), %error, "the watch failed and is tried again"),
        }
    }
}

/// Follows the sandboxes. One that does not decode is reported, and what was known of it stays.
async fn watch_sandboxes(inner: &Arc<Inner>, mut writer: Writer<OpenShellSandbox>) {
    let mut events = pin!(watching::watch(api::<OpenShellSandbox>(inner), watcher::Config::default()));
    while let Some(event) = events.next().await {
        match event {
            Ok(watcher::Event::Init) => {
                inner.objects.unreadable.lock().clear();
                writer.apply_watcher_event(&watcher::Event::Init);
            }
            Ok(watcher::Event::InitApply(sandbox)) => {
                let uid = sandbox.uid().unwrap_or_default();
                if let Some(sandbox) = readable(inner, sandbox).or_else(|| inner.objects.known(&uid)) {
                    writer.apply_watcher_event(&watcher::Event::InitApply(sandbox));
                }
            }
            Ok(watcher::Event::InitDone) => {
                writer.apply_watcher_event(&watcher::Event::InitDone);
                relisted(inner);
            }
            Ok(watcher::Event::Apply(sandbox)) => {
                let Some(sandbox) = readable(inner, sandbox) else { continue };
                let handle = sandbox.metadata.uid.as_deref().map(|uid| inner.handle(uid));
                let concerned = handle.filter(|handle| handle.concerns(sandbox.metadata.generation, sandbox.labels()));
                writer.apply_watcher_event(&watcher::Event::Apply(sandbox));
                if let Some(handle) = concerned {
                    handle.dirty.notify_one();
                }
            }
            Ok(watcher::Event::Delete(sandbox)) => {
                let Some(uid) = sandbox.uid() else { continue };
                inner.objects.unreadable.lock().remove(&uid);
                // Whatever it had become: what was known of it goes.
                if let Some(sandbox) = sandbox.0.ok().or_else(|| inner.objects.known(&uid)) {
                    writer.apply_watcher_event(&watcher::Event::Delete(sandbox));
                }
                forget(inner, &uid);
            }
            Err(error) => tracing::warn!(kind = %OpenShellSandbox::kind(&()), %error, "the watch failed and is tried again"),
        }
    }
}

/// The sandbox, unless it does not decode, which is kept in mind.
fn readable(inner: &Inner, sandbox: DeserializeGuard<OpenShellSandbox>) -> Option<OpenShellSandbox> {
    let uid = sandbox.uid().unwrap_or_default();
    let mut unreadable = inner.objects.unreadable.lock();
    match sandbox.0 {
        Ok(sandbox) => {
            unreadable.remove(&uid);
            Some(sandbox)
        }
        Err(invalid) => {
            tracing::warn!(name = invalid.metadata.name, error = invalid.error, "a sandbox does not decode; what was known of it stays");
            unreadable.insert(uid);
            None
        }
    }
}

/// The list is complete: whatever is not in it is gone, and logs of the gone go too.
fn relisted(inner: &Arc<Inner>) {
    let mut existing: HashSet<String> = inner.objects.sandboxes.state().iter().filter_map(|s| s.metadata.uid.clone()).collect();
    existing.extend(inner.objects.unreadable.lock().iter().cloned());
    let gone: Vec<String> = inner.sandboxes.lock().keys().filter(|uid| !existing.contains(*uid)).cloned().collect();
    for uid in gone {
        forget(inner, &uid);
    }
    for uid in &existing {
        inner.handle(uid).dirty.notify_one();
    }
    let logs = inner.config.logs.clone();
    tokio::spawn(async move {
        if let Err(error) = logs.retain(&existing).await {
            tracing::warn!(%error, "logs of deleted sandboxes were not removed");
        }
    });
}

fn forget(inner: &Arc<Inner>, uid: &str) {
    let handle = inner.sandboxes.lock().remove(uid);
    let (logs, uid) = (inner.config.logs.clone(), uid.to_owned());
    tokio::spawn(async move {
        if let Some(handle) = handle {
            handle.end().await;
        }
        if let Err(error) = logs.delete(&uid).await {
            tracing::warn!(sandbox = uid, %error, "the logs of a deleted sandbox were not removed");
        }
    });
}

#[cfg(test)]
mod tests {
    use kube::core::{ObjectMeta, error_boundary::InvalidObject};
    use openshell_crds::OpenShellGatewaySpec;

    use super::*;

    #[test]
    fn a_gateway_that_cannot_be_read_is_no_absent_one_and_does_not_hide_what_was_known() {
        let bad = || Some(DeserializeGuard(Err(InvalidObject { error: "no list".into(), metadata: ObjectMeta::default() })));
        let good = || Some(DeserializeGuard(Ok(OpenShellGateway::new("g", OpenShellGatewaySpec::default()))));
        let mut own = Own::NotYet;
        own.is_now(bad());
        assert!(matches!(&own, Own::Unreadable(error) if error == "no list"));
        own.is_now(good());
        own.is_now(bad());
        assert!(matches!(own, Own::Readable(_)));
        own.is_now(None);
        assert!(matches!(own, Own::Absent));
        own.is_now(bad());
        assert!(matches!(own, Own::Unreadable(_)));
    }
}
