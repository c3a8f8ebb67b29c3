//! The cluster as last seen, as far as it concerns our sandboxes, and notice of every change.
//!
//! Only views are kept ([`super::view`]), by the UID of the sandbox: a pod with its managed fields
//! has ten times their size. What we write ourselves is put in at once from the API server's
//! answer, so that nobody acts on what was true before.

use std::collections::{HashMap, HashSet, VecDeque};
use std::time::Instant;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::runtime::watcher::Event;
use openshell_crds::agents::{Sandbox, Served};
use openshell_crds::pod::SideloadMethod;
use parking_lot::Mutex;
use tokio::sync::{broadcast, watch};

use super::view::{PodView, SandboxView, state};
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
    sandboxes: HashMap<String, Entry<SandboxView>>,
    pods: HashMap<String, Entry<PodView>>,
    sandboxes_listed: Option<Listing<SandboxView>>,
    pods_listed: Option<Listing<PodView>>,
    /// `Sandbox`es that were deleted lately: the answer to a write may come after that.
    gone: VecDeque<String>,
    /// Sandboxes that wait for the API.
    waiting: HashSet<String>,
}

impl Seen {
    /// Keeps what is not older than what is kept.
    fn keep(&mut self, uid: String, view: SandboxView, written: Option<Instant>) {
        let view = match self.sandboxes.get(&uid) {
            Some(known) if newer(known.view.version, view.version) => return,
            Some(known) => view.after(&known.view),
            None => view,
        };
        self.sandboxes.insert(uid, Entry { view, written });
    }
}

#[derive(Clone)]
struct Entry<V> {
    view: V,
    /// When we wrote it, if it is an answer of the API server and not of a watch.
    written: Option<Instant>,
}

/// A list that is not complete yet.
struct Listing<V> {
    began: Instant,
    found: HashMap<String, Entry<V>>,
}

impl<V> Listing<V> {
    fn begin() -> Self {
        Self { began: Instant::now(), found: HashMap::new() }
    }

    /// Takes the place of what was known, but for what has been written since the list began.
    fn finish(self, known: &mut HashMap<String, Entry<V>>) -> Vec<String> {
        let mut changed: Vec<String> = known.keys().cloned().collect();
        let mut now = self.found;
        for (uid, entry) in known.drain() {
            if entry.written.is_some_and(|written| written >= self.began) {
                now.entry(uid).or_insert(entry);
            }
        }
        changed.extend(now.keys().filter(|uid| !changed.contains(uid)).cloned().collect::<Vec<_>>());
        *known = now;
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
                Api::Missing => {
                    seen.sandboxes_listed = None;
                    seen.sandboxes.drain().map(|(uid, _)| uid).collect()
                }
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
        state(seen.sandboxes.get(uid).map(|entry| &entry.view), seen.pods.get(uid).map(|entry| &entry.view))
    }

    /// What is there of a sandbox.
    pub(super) fn parts(&self, uid: &str) -> (Option<SandboxView>, Option<PodView>) {
        let seen = self.seen.lock();
        (seen.sandboxes.get(uid).map(|entry| entry.view.clone()), seen.pods.get(uid).map(|entry| entry.view.clone()))
    }

    /// How its supervisor gets into the pod.
    pub(super) fn sideload(&self, uid: &str) -> Option<SideloadMethod> {
        self.seen.lock().sandboxes.get(uid).and_then(|entry| entry.view.sideload)
    }

    /// Everything that anything is known of.
    pub(super) fn uids(&self) -> Vec<String> {
        let seen = self.seen.lock();
        seen.sandboxes.keys().chain(seen.pods.keys().filter(|uid| !seen.sandboxes.contains_key(*uid))).cloned().collect()
    }

    /// The answer to a write of ours.
    pub(super) fn wrote(&self, sandbox: &Sandbox) {
        let Some((uid, view)) = SandboxView::of(sandbox, Timestamp::now()) else { return };
        let mut seen = self.seen.lock();
        if !seen.gone.contains(&view.uid) {
            seen.keep(uid, view, Some(Instant::now()));
        }
    }

    /// A pod that we deleted.
    pub(super) fn deleted_pod(&self, uid: &str, pod: &str) {
        if let Some(entry) = self.seen.lock().pods.get_mut(uid).filter(|entry| entry.view.uid == pod) {
            entry.view.deleting = true;
        }
    }

    /// Takes in what a watch of `Sandbox`es says. True when all of them have been seen.
    pub(super) fn sandbox(&self, event: Event<Sandbox>) -> bool {
        let now = Timestamp::now();
        let mut seen = self.seen.lock();
        let changed = match event {
            Event::Init => {
                seen.sandboxes_listed = Some(Listing::begin());
                Vec::new()
            }
            Event::InitApply(sandbox) => {
                let seen = &mut *seen;
                if let (Some((uid, view)), Some(listing)) = (SandboxView::of(&sandbox, now), &mut seen.sandboxes_listed) {
                    let view = match seen.sandboxes.get(&uid) {
                        Some(before) => view.after(&before.view),
                        None => view,
                    };
                    listing.found.insert(uid, Entry { view, written: None });
                }
                Vec::new()
            }
            Event::InitDone => {
                let seen = &mut *seen;
                let changed = seen.sandboxes_listed.take().map(|listing| listing.finish(&mut seen.sandboxes)).unwrap_or_default();
                self.tell(changed);
                return true;
            }
            Event::Apply(sandbox) => match SandboxView::of(&sandbox, now) {
                Some((uid, view)) => {
                    seen.keep(uid.clone(), view, None);
                    vec![uid]
                }
                None => Vec::new(),
            },
            Event::Delete(sandbox) => match SandboxView::of(&sandbox, now) {
                Some((uid, view)) => {
                    if seen.gone.len() >= limits::DRIVER_EVENTS {
                        seen.gone.pop_front();
                    }
                    seen.gone.push_back(view.uid.clone());
                    if seen.sandboxes.get(&uid).is_some_and(|known| known.view.uid == view.uid) {
                        seen.sandboxes.remove(&uid);
                    }
                    vec![uid]
                }
                None => Vec::new(),
            },
        };
        self.tell(changed);
        false
    }

    /// Takes in what the watch of pods says.
    pub(super) fn pod(&self, event: Event<Pod>) {
        let now = Timestamp::now();
        let mut seen = self.seen.lock();
        let changed = match event {
            Event::Init => {
                seen.pods_listed = Some(Listing::begin());
                Vec::new()
            }
            Event::InitApply(pod) => {
                let seen = &mut *seen;
                if let (Some((uid, view)), Some(listing)) = (PodView::of(&pod, now), &mut seen.pods_listed) {
                    let view = match seen.pods.get(&uid) {
                        Some(before) => view.after(&before.view),
                        None => view,
                    };
                    listing.found.insert(uid, Entry { view, written: None });
                }
                Vec::new()
            }
            Event::InitDone => {
                let changed = {
                    let seen = &mut *seen;
                    seen.pods_listed.take().map(|listing| listing.finish(&mut seen.pods)).unwrap_or_default()
                };
                self.pods.send_replace(true);
                changed
            }
            Event::Apply(pod) => match PodView::of(&pod, now) {
                Some((uid, view)) => {
                    let view = match seen.pods.get(&uid) {
                        Some(before) => view.after(&before.view),
                        None => view,
                    };
                    seen.pods.insert(uid.clone(), Entry { view, written: None });
                    vec![uid]
                }
                None => Vec::new(),
            },
            Event::Delete(pod) => match PodView::of(&pod, now) {
                Some((uid, view)) => {
                    if seen.pods.get(&uid).is_some_and(|known| known.view.uid == view.uid) {
                        seen.pods.remove(&uid);
                    }
                    vec![uid]
                }
                None => Vec::new(),
            },
        };
        self.tell(changed);
    }

    fn tell(&self, uids: impl IntoIterator<Item = String>) {
        for uid in uids {
            // Nobody listens: nobody needs to know.
            let _ = self.changed.send(uid);
        }
    }
}

fn newer(known: Option<u64>, seen: Option<u64>) -> bool {
    matches!((known, seen), (Some(known), Some(seen)) if known > seen)
}
