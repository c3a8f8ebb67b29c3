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
    pub(super) sandboxes: Store<OpenShellSandbox>,
    pub(super) policies: Store<Policy>,
    pub(super) providers: Store<Provider>,
    pub(super) gateway: watch::Sender<Own>,
    /// Without their values.
    pub(super) secrets: Store<Secret>,
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
    policies: Writer<Policy>,
    providers: Writer<Provider>,
    secrets: Writer<Secret>,
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
            follow(api(inner), any(), writers.policies, |_| {}, |_| mark_all(inner)),
            follow(api(inner), any(), writers.providers, |_| {}, |_| mark_all(inner)),
            follow_gateway(inner),
            follow(api(inner), credentials, writers.secrets, |_| {}, |_| mark_all(inner)),
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

/// Follows one kind. An object that does not decode is reported and left as it was: one bad
/// object must not stop a list. `seen` is told of every event, `changed` of what decodes.
async fn follow<K>(
    objects: Api<DeserializeGuard<K>>,
    config: watcher::Config,
    mut writer: Writer<K>,
    mut seen: impl FnMut(&watcher::Event<DeserializeGuard<K>>),
    mut changed: impl FnMut(&watcher::Event<K>),
) where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + 'static,
{
    let mut events = pin!(watching::watch(objects, config));
    while let Some(event) = events.next().await {
        match event {
            Ok(event) => {
                seen(&event);
                let Some(event) = decoded(event, &writer.as_reader()) else { continue };
                writer.apply_watcher_event(&event);
                if !matches!(event, watcher::Event::Init | watcher::Event::InitApply(_)) {
                    changed(&event);
                }
            }
            Err(error) => tracing::warn!(kind = %K::kind(&()), %error, "the watch failed and is tried again"),
        }
    }
}

fn decoded<K>(event: watcher::Event<DeserializeGuard<K>>, known: &Store<K>) -> Option<watcher::Event<K>>
where
    K: Resource<DynamicType = ()> + Clone + 'static,
{
    let good = |guard: DeserializeGuard<K>| match guard.0 {
        Ok(object) => Some(object),
        Err(invalid) => {
            tracing::warn!(kind = %K::kind(&()), name = invalid.metadata.name, error = invalid.error, "an object does not decode; what was known of it stays");
            None
        }
    };
    Some(match event {
        watcher::Event::Apply(object) => watcher::Event::Apply(good(object)?),
        // Whatever it had become: what was known of it goes.
        watcher::Event::Delete(object) => match object.0 {
            Ok(object) => watcher::Event::Delete(object),
            Err(invalid) => {
                watcher::Event::Delete(known.find(|known| known.meta().uid == invalid.metadata.uid).map(|known| K::clone(&known))?)
            }
        },
        watcher::Event::InitApply(object) => watcher::Event::InitApply(good(object)?),
        watcher::Event::Init => watcher::Event::Init,
        watcher::Event::InitDone => watcher::Event::InitDone,
    })
}

async fn watch_sandboxes(inner: &Arc<Inner>, writer: Writer<OpenShellSandbox>) {
    let changed = |event: &watcher::Event<OpenShellSandbox>| match event {
        watcher::Event::Apply(sandbox) => {
            if let Some(uid) = &sandbox.metadata.uid {
                let handle = inner.handle(uid);
                if handle.concerns(sandbox.metadata.generation, sandbox.labels()) {
                    handle.dirty.notify_one();
                }
            }
        }
        watcher::Event::Delete(sandbox) => {
            if let Some(uid) = &sandbox.metadata.uid {
                forget(inner, uid);
            }
        }
        watcher::Event::InitDone => relisted(inner),
        watcher::Event::Init | watcher::Event::InitApply(_) => {}
    };
    let seen = |event: &watcher::Event<DeserializeGuard<OpenShellSandbox>>| {
        let mut unreadable = inner.objects.unreadable.lock();
        match event {
            watcher::Event::Init => unreadable.clear(),
            watcher::Event::Apply(sandbox) | watcher::Event::InitApply(sandbox) => {
                let Some(uid) = sandbox.uid() else { return };
                if sandbox.0.is_ok() {
                    unreadable.remove(&uid);
                } else {
                    unreadable.insert(uid);
                }
            }
            watcher::Event::Delete(sandbox) => {
                let uid = sandbox.uid().filter(|uid| unreadable.remove(uid));
                drop(unreadable);
                if let Some(uid) = uid {
                    forget(inner, &uid);
                }
            }
            watcher::Event::InitDone => {}
        }
    };
    follow(api(inner), watcher::Config::default(), writer, seen, changed).await;
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
