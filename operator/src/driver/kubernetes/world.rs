//! The cluster as last seen, as far as it concerns our sandboxes, and notice of every change.
//!
//! Only views are kept ([`super::view`]), by the UID of the sandbox: a pod with its managed fields
//! has ten times their size. What we write ourselves is put in at once from the API server's
//! answer, so that nobody acts on what was true before.

use std::collections::{HashMap, HashSet, VecDeque};
use std::time::Instant;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource as _;
use kube::runtime::watcher::Event;
use openshell_crds::agents::{Sandbox, Served};
use openshell_crds::pod::SideloadMethod;
use parking_lot::Mutex;
use tokio::sync::{broadcast, watch};

use super::view::{PodView, SandboxView, View, state};
use crate::driver::WorkloadState;
use crate::limits;

/// Whether `agents.x-k8s.io` is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Api {
    /// Not looked for yet.
    Unknown,
    /// The API server does not have it.
    Missing,
    /// It has it in this version.
    Served(Served),
}

/// What has been seen.
pub(super) struct World {
    seen: Mutex<Seen>,
    changed: broadcast::Sender<String>,
    /// The API, once all its objects have been seen.
    api: watch::Sender<Api>,
    /// Whether all pods have been seen once.
    pods: watch::Sender<bool>,
}

#[derive(Default)]
struct Seen {
    sandboxes: Objects<SandboxView>,
    pods: Objects<PodView>,
    /// `Sandbox`es that were deleted lately: the answer to a write may come after that.
    gone: VecDeque<String>,
    /// Sandboxes that wait for the API.
    waiting: HashSet<String>,
}

/// The objects of one kind, by the UID of the sandbox that they are for.
struct Objects<V> {
    known: HashMap<String, Entry<V>>,
    listing: Option<Listing<V>>,
}

struct Entry<V> {
    view: V,
    version: Option<u64>,
    /// When we wrote it, if it is an answer of the API server and not of a watch.
    written: Option<Instant>,
}

/// A list that is not complete yet.
struct Listing<V> {
    began: Instant,
    found: HashMap<String, Entry<V>>,
}

impl<V> Default for Objects<V> {
    fn default() -> Self {
        Self { known: HashMap::new(), listing: None }
    }
}

impl<V: View> Objects<V> {
    fn get(&self, uid: &str) -> Option<&V> {
        self.known.get(uid).map(|entry| &entry.view)
    }

    /// The sandbox that an object is for, and what it is now.
    fn entry(&self, object: &V::Object, written: Option<Instant>) -> Option<(String, Entry<V>)> {
        let (uid, view) = V::of(object, Timestamp::now())?;
        let view = match self.get(&uid) {
            Some(before) => view.after(before),
            None => view,
        };
        Some((uid, Entry { view, version: version(object.meta()), written }))
    }

    /// Keeps what is not older than what is kept. The sandbox that it is for.
    fn keep(&mut self, object: &V::Object, written: Option<Instant>) -> Option<String> {
        let (uid, entry) = self.entry(object, written)?;
        if !self.known.get(&uid).is_some_and(|known| newer(known.version, entry.version)) {
            self.known.insert(uid.clone(), entry);
        }
        Some(uid)
    }

    fn forget(&mut self, object: &V::Object) -> Option<String> {
        let (uid, view) = V::of(object, Timestamp::now())?;
        if self.get(&uid).is_some_and(|known| known.uid() == view.uid()) {
            self.known.remove(&uid);
        }
        Some(uid)
    }

    /// Takes in what a watch says. The sandboxes that it is about.
    fn take_in(&mut self, event: Event<V::Object>) -> Vec<String> {
        match event {
            Event::Init => self.listing = Some(Listing { began: Instant::now(), found: HashMap::new() }),
            Event::InitApply(object) => {
                if let (Some((uid, entry)), Some(listing)) = (self.entry(&object, None), &mut self.listing) {
                    listing.found.insert(uid, entry);
                }
            }
            Event::InitDone => return self.listed(),
            Event::Apply(object) => return Vec::from_iter(self.keep(&object, None)),
            Event::Delete(object) => return Vec::from_iter(self.forget(&object)),
        }
        Vec::new()
    }

    /// The list takes the place of what was known, but for what has been written since it began.
    fn listed(&mut self) -> Vec<String> {
        let Some(Listing { began, found }) = self.listing.take() else { return Vec::new() };
        let before = std::mem::replace(&mut self.known, found);
        let mut changed: Vec<String> = before.keys().cloned().collect();
        changed.extend(self.known.keys().filter(|uid| !before.contains_key(*uid)).cloned());
        for (uid, entry) in before {
            if entry.written.is_some_and(|written| written >= began) {
                self.known.entry(uid).or_insert(entry);
            }
        }
        changed
    }
}

impl World {
    pub(super) fn new() -> Self {
        Self {
            seen: Mutex::default(),
            changed: broadcast::channel(limits::DRIVER_EVENTS).0,
            api: watch::Sender::new(Api::Unknown),
            pods: watch::Sender::new(false),
        }
    }

    /// The API as last found.
    pub(super) fn api(&self) -> Api {
        *self.api.borrow()
    }

    /// Waits until it is known what there is.
    pub(super) async fn ready(&self) -> Api {
        let _ = self.pods.subscribe().wait_for(|seen| *seen).await;
        self.api.subscribe().wait_for(|api| *api != Api::Unknown).await.map_or(Api::Unknown, |api| *api)
    }

    /// Says whether the API is there. Whoever waits for it is told.
    pub(super) fn set_api(&self, api: Api) {
        let woken: Vec<String> = {
            let mut seen = self.seen.lock();
            match api {
                Api::Missing => std::mem::take(&mut seen.sandboxes).known.into_keys().collect(),
                Api::Served(_) => seen.waiting.drain().collect(),
                Api::Unknown => Vec::new(),
            }
        };
        let before = self.api.send_replace(api);
        if before != api {
            tracing::info!(?api, "agents.x-k8s.io");
        }
        self.tell(woken);
    }

    /// Somebody waits for the API.
    pub(super) fn wait_for_api(&self, uid: &str) {
        self.seen.lock().waiting.insert(uid.to_owned());
        // It may have come in between.
        if let Api::Served(_) = self.api() {
            self.tell(self.seen.lock().waiting.take(uid));
        }
    }

    /// Changes, from now on.
    pub(super) fn changes(&self) -> broadcast::Receiver<String> {
        self.changed.subscribe()
    }

    /// The state of a sandbox.
    pub(super) fn state(&self, uid: &str) -> WorkloadState {
        let seen = self.seen.lock();
        state(seen.sandboxes.get(uid), seen.pods.get(uid))
    }

    /// What is there of a sandbox.
    pub(super) fn parts(&self, uid: &str) -> (Option<SandboxView>, Option<PodView>) {
        let seen = self.seen.lock();
        (seen.sandboxes.get(uid).cloned(), seen.pods.get(uid).cloned())
    }

    /// How its supervisor gets into the pod.
    pub(super) fn sideload(&self, uid: &str) -> Option<SideloadMethod> {
        self.seen.lock().sandboxes.get(uid).and_then(|view| view.sideload)
    }

    /// Everything that anything is known of.
    pub(super) fn uids(&self) -> Vec<String> {
        let seen = self.seen.lock();
        let (sandboxes, pods) = (&seen.sandboxes.known, &seen.pods.known);
        sandboxes.keys().chain(pods.keys().filter(|uid| !sandboxes.contains_key(*uid))).cloned().collect()
    }

    /// The answer to a write of ours.
    pub(super) fn wrote(&self, sandbox: &Sandbox) {
        let mut seen = self.seen.lock();
        if sandbox.metadata.uid.as_ref().is_some_and(|uid| !seen.gone.contains(uid)) {
            seen.sandboxes.keep(sandbox, Some(Instant::now()));
        }
    }

    /// A pod that we deleted.
    pub(super) fn deleted_pod(&self, uid: &str, pod: &str) {
        if let Some(entry) = self.seen.lock().pods.known.get_mut(uid).filter(|entry| entry.view.uid == pod) {
            entry.view.deleting = true;
        }
    }

    /// Takes in what a watch of `Sandbox`es says. True when all of them have been seen.
    pub(super) fn sandbox(&self, event: Event<Sandbox>) -> bool {
        let listed = matches!(event, Event::InitDone);
        let mut seen = self.seen.lock();
        if let Event::Delete(sandbox) = &event
            && let Some((_, view)) = SandboxView::of(sandbox, Timestamp::now())
        {
            if seen.gone.len() >= limits::DRIVER_EVENTS {
                seen.gone.pop_front();
            }
            seen.gone.push_back(view.uid);
        }
        self.tell(seen.sandboxes.take_in(event));
        listed
    }

    /// Takes in what the watch of pods says.
    pub(super) fn pod(&self, event: Event<Pod>) {
        let listed = matches!(event, Event::InitDone);
        let mut seen = self.seen.lock();
        let changed = seen.pods.take_in(event);
        if listed {
            self.pods.send_replace(true);
        }
        self.tell(changed);
    }

    fn tell(&self, uids: impl IntoIterator<Item = String>) {
        for uid in uids {
            // Nobody listens: nobody needs to know.
            let _ = self.changed.send(uid);
        }
    }
}

/// Resource versions of one API server grow (KEP-5504).
fn version(meta: &ObjectMeta) -> Option<u64> {
    meta.resource_version.as_ref()?.parse().ok()
}

fn newer(known: Option<u64>, seen: Option<u64>) -> bool {
    matches!((known, seen), (Some(known), Some(seen)) if known > seen)
}
