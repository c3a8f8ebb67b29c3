//! One kind, watched once for all who need it.

use std::fmt::Debug;
use std::sync::Arc;

use futures::stream::{self, BoxStream};
use futures::{Stream, StreamExt as _};
use kube::core::DeserializeGuard;
use kube::runtime::reflector::{self, ObjectRef, Store};
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, ResourceExt as _};
use serde::de::DeserializeOwned;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{broadcast, watch};
use tokio_util::sync::CancellationToken;

use crate::{limits, watching};

/// An object that may not be readable as what it says it is.
pub(super) type Guarded<K> = DeserializeGuard<K>;

/// What has changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Changed {
    /// The object of this name, which may be gone.
    One(String),
    /// Possibly all of them.
    All,
}

/// The objects of a kind as last seen, and notice of every change.
pub(super) struct Watched<K>
where
    K: kube::Resource<DynamicType = ()> + 'static,
{
    store: Store<Guarded<K>>,
    changes: broadcast::Sender<Changed>,
    /// Whether everything that is there has been seen once. The store has a flag of its own, but
    /// that one wakes only the last of those who wait for it.
    seen: watch::Receiver<bool>,
    namespace: String,
}

impl<K> Watched<K>
where
    K: kube::Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
{
    /// Watches until shutdown. The watch is taken up again with backoff whenever it breaks.
    pub(super) fn start(api: Api<Guarded<K>>, shutdown: &CancellationToken) -> Self {
        let (store, mut writer) = reflector::store();
        let (changes, _) = broadcast::channel(limits::EVENT_BUFFER);
        let namespace = api.namespace().unwrap_or_default().to_owned();
        let (now_seen, seen) = watch::channel(false);
        let (tell, until) = (changes.clone(), shutdown.clone());
        tokio::spawn(async move {
            let events = watching::watch(api, watcher::Config::default());
            // Nobody here asks who wrote what, and it is half of an object's size.
            let events = events.modify(|object| object.managed_fields_mut().clear());
            let mut events = events.take_until(until.cancelled_owned()).boxed();
            while let Some(event) = events.next().await {
                let event = match event {
                    Ok(event) => event,
                    Err(error) => {
                        tracing::warn!(kind = %K::kind(&()), %error, "the watch broke and is taken up again");
                        continue;
                    }
                };
                writer.apply_watcher_event(&event);
                let changed = match event {
                    watcher::Event::Apply(object) | watcher::Event::Delete(object) => Changed::One(object.name_any()),
                    // What came before this is in the store only now.
                    watcher::Event::InitDone => Changed::All,
                    watcher::Event::Init | watcher::Event::InitApply(_) => continue,
                };
                if changed == Changed::All {
                    now_seen.send_replace(true);
                }
                // Nobody listens: nobody needs to know.
                let _ = tell.send(changed);
            }
        });
        Self { store, changes, seen, namespace }
    }

    /// The objects as last seen.
    pub(super) fn store(&self) -> &Store<Guarded<K>> {
        &self.store
    }

    /// One object as last seen.
    pub(super) fn find(&self, name: &str) -> Option<Arc<Guarded<K>>> {
        self.store.get(&ObjectRef::new(name).within(&self.namespace))
    }

    /// One object as last seen, if it can be read.
    pub(super) fn get(&self, name: &str) -> Option<K> {
        self.find(name)?.0.clone().ok()
    }

    /// Waits until everything that is there has been seen once.
    pub(super) async fn ready(&self) {
        // The watch goes only at shutdown, which ends whoever waits here as well.
        let _ = self.seen.clone().wait_for(|seen| *seen).await;
    }

    /// Everything that is there now, and every change from now on.
    pub(super) fn changes(&self) -> impl Stream<Item = Changed> + Send + 'static {
        // Subscribed first: what has been seen before is in the store, the rest will be told.
        let later = stream::unfold(self.changes.subscribe(), |mut changes| async move {
            match changes.recv().await {
                Ok(changed) => Some((changed, changes)),
                Err(RecvError::Lagged(_)) => Some((Changed::All, changes)),
                Err(RecvError::Closed) => None,
            }
        });
        stream::once(std::future::ready(Changed::All)).chain(later)
    }

    /// The objects of this kind that change, to reconcile them.
    pub(super) fn queue(&self) -> BoxStream<'static, ObjectRef<Guarded<K>>> {
        let (store, namespace) = (self.store.clone(), self.namespace.clone());
        self.changes()
            .map(move |changed| match changed {
                Changed::One(name) => stream::iter(vec![ObjectRef::new(&name).within(&namespace)]),
                Changed::All => stream::iter(refs(&store)),
            })
            .flatten()
            .boxed()
    }

    /// Objects of this kind that a change elsewhere concerns.
    pub(super) fn concerned<'a, S>(
        &self,
        elsewhere: S,
        concerns: impl Fn(&S::Item, &K) -> bool + Send + 'static,
    ) -> BoxStream<'static, ObjectRef<Guarded<K>>>
    where
        S: Stream + Send + 'static,
        S::Item: Send + 'a,
    {
        let store = self.store.clone();
        elsewhere
            .map(move |change| {
                let hit: Vec<_> = store
                    .state()
                    .iter()
                    .filter(|object| object.0.as_ref().is_ok_and(|object| concerns(&change, object)))
                    .map(|object| ObjectRef::from_obj(Arc::as_ref(object)))
                    .collect();
                stream::iter(hit)
            })
            .flatten()
            .boxed()
    }
}

/// References to everything in a store.
pub(super) fn refs<K>(store: &Store<Guarded<K>>) -> Vec<ObjectRef<Guarded<K>>>
where
    K: kube::Resource<DynamicType = ()> + Clone + 'static,
{
    store.state().iter().map(|object| ObjectRef::from_obj(Arc::as_ref(object))).collect()
}
