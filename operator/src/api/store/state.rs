//! The state in memory: every object as its bytes, and the ring of recent events.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;
use serde::Deserialize;

use crate::api::kinds::KindId;
use crate::api::limits;

/// Where an object is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Key {
    pub(crate) kind: KindId,
    pub(crate) namespace: String,
    pub(crate) name: String,
}

/// An owner reference, as far as garbage collection reads it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Owner {
    pub(crate) api_version: String,
    pub(crate) kind: String,
    pub(crate) name: String,
    pub(crate) uid: String,
    #[serde(default)]
    pub(crate) block_owner_deletion: Option<bool>,
}

/// One version of an object.
#[derive(Debug)]
pub(crate) struct Stored {
    pub(crate) resource_version: u64,
    pub(crate) uid: String,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) owners: Vec<Owner>,
    pub(crate) finalizers: Vec<String>,
    pub(crate) deleting: bool,
    /// The object as JSON, as it is served. A Secret's values are not in it.
    pub(crate) bytes: Bytes,
}

#[derive(Deserialize)]
struct Head {
    metadata: Meta,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Meta {
    uid: String,
    resource_version: String,
    #[serde(default)]
    labels: BTreeMap<String, String>,
    #[serde(default)]
    owner_references: Vec<Owner>,
    #[serde(default)]
    finalizers: Vec<String>,
    #[serde(default)]
    deletion_timestamp: Option<String>,
}

impl Stored {
    /// Reads the metadata that lists, watches and collection need.
    pub(crate) fn from_bytes(bytes: Bytes) -> Result<Self, serde_json::Error> {
        let Head { metadata } = serde_json::from_slice(&bytes)?;
        Ok(Self {
            resource_version: metadata.resource_version.parse().map_err(serde::de::Error::custom)?,
            uid: metadata.uid,
            labels: metadata.labels,
            owners: metadata.owner_references,
            finalizers: metadata.finalizers,
            deleting: metadata.deletion_timestamp.is_some(),
            bytes,
        })
    }
}

/// What happened to an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    Added,
    Modified,
    Deleted,
}

/// One event: the object after it, and before it (for selectors and for lists of the past).
#[derive(Clone, Debug)]
pub(crate) struct Event {
    pub(crate) resource_version: u64,
    pub(crate) change: Change,
    pub(crate) key: Key,
    pub(crate) object: Arc<Stored>,
    pub(crate) before: Option<Arc<Stored>>,
}

impl Event {
    fn weight(&self) -> usize {
        self.object.bytes.len() + self.before.as_ref().map_or(0, |b| b.bytes.len())
    }
}

/// Bounds of the event ring.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ring {
    pub(crate) events: usize,
    pub(crate) bytes: usize,
}

impl Default for Ring {
    fn default() -> Self {
        Self { events: limits::EVENTS, bytes: limits::EVENT_BYTES }
    }
}

/// All objects, and recent history.
pub(crate) struct State {
    resource_version: u64,
    /// Events up to and including this version are compacted.
    compacted: u64,
    objects: BTreeMap<Key, Arc<Stored>>,
    /// Where the object with a UID is.
    places: HashMap<String, Key>,
    /// Objects by the UID of an owner they name.
    dependents: HashMap<String, BTreeSet<Key>>,
    events: VecDeque<Event>,
    weight: usize,
    ring: Ring,
}

/// The version is compacted; the oldest that is still there is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Compacted {
    pub(crate) oldest: u64,
}

/// The part of the keys that a request is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Scope {
    pub(crate) kind: KindId,
    /// `None`: every namespace.
    pub(crate) namespace: Option<String>,
}

impl Scope {
    pub(crate) fn contains(&self, key: &Key) -> bool {
        key.kind == self.kind && self.namespace.as_ref().is_none_or(|n| *n == key.namespace)
    }

    fn start(&self) -> Key {
        Key { kind: self.kind, namespace: self.namespace.clone().unwrap_or_default(), name: String::new() }
    }
}

impl State {
    pub(crate) fn new(resource_version: u64, objects: BTreeMap<Key, Arc<Stored>>, ring: Ring) -> Self {
        let mut state = Self {
            resource_version,
            compacted: resource_version,
            objects: BTreeMap::new(),
            places: HashMap::new(),
            dependents: HashMap::new(),
            events: VecDeque::new(),
            weight: 0,
            ring,
        };
        for (key, stored) in objects {
            state.index(&key, &stored);
            state.objects.insert(key, stored);
        }
        state
    }

    fn index(&mut self, key: &Key, stored: &Stored) {
        self.places.insert(stored.uid.clone(), key.clone());
        for owner in &stored.owners {
            self.dependents.entry(owner.uid.clone()).or_default().insert(key.clone());
        }
    }

    fn unindex(&mut self, key: &Key, stored: &Stored) {
        self.places.remove(&stored.uid);
        for owner in &stored.owners {
            if let Some(keys) = self.dependents.get_mut(&owner.uid) {
                keys.remove(key);
                if keys.is_empty() {
                    self.dependents.remove(&owner.uid);
                }
            }
        }
    }

    /// Where the object with a UID is.
    pub(crate) fn place(&self, uid: &str) -> Option<&Key> {
        self.places.get(uid)
    }

    /// The objects that name an owner.
    pub(crate) fn dependents(&self, uid: &str) -> Vec<Key> {
        self.dependents.get(uid).into_iter().flatten().cloned().collect()
    }

    pub(crate) fn resource_version(&self) -> u64 {
        self.resource_version
    }

    pub(crate) fn len(&self) -> usize {
        self.objects.len()
    }

    pub(crate) fn get(&self, key: &Key) -> Option<Arc<Stored>> {
        self.objects.get(key).cloned()
    }

    /// Every object, of every kind.
    pub(crate) fn all(&self) -> impl Iterator<Item = (&Key, &Arc<Stored>)> {
        self.objects.iter()
    }

    /// The objects of a scope in order of namespace and name, from `start` on.
    pub(crate) fn range<'a>(&'a self, scope: &'a Scope, start: Option<&Key>) -> impl Iterator<Item = (&'a Key, &'a Arc<Stored>)> {
        let start = start.cloned().unwrap_or_else(|| scope.start());
        self.objects.range((Bound::Included(start), Bound::Unbounded)).take_while(|(key, _)| scope.contains(key))
    }

    /// The objects of a scope as they were at a version, from `start` on.
    pub(crate) fn range_at(&self, scope: &Scope, start: Option<&Key>, version: u64) -> Result<Vec<(Key, Arc<Stored>)>, Compacted> {
        if version < self.compacted {
            return Err(Compacted { oldest: self.compacted });
        }
        let mut now: BTreeMap<Key, Arc<Stored>> = self.range(scope, start).map(|(k, v)| (k.clone(), v.clone())).collect();
        for event in self.events.iter().rev().take_while(|e| e.resource_version > version) {
            if !scope.contains(&event.key) || start.is_some_and(|s| event.key < *s) {
                continue;
            }
            match &event.before {
                Some(before) => now.insert(event.key.clone(), before.clone()),
                None => now.remove(&event.key),
            };
        }
        Ok(now.into_iter().collect())
    }

    /// Events after a version, oldest first, at most `limit` of a scope; and the version up to
    /// which they are complete.
    pub(crate) fn events_after(&self, scope: &Scope, version: u64, limit: usize) -> Result<(Vec<Event>, u64), Compacted> {
        if version < self.compacted {
            return Err(Compacted { oldest: self.compacted });
        }
        let first = self.events.partition_point(|e| e.resource_version <= version);
        let mut found = Vec::new();
        for event in self.events.range(first..) {
            if found.len() == limit {
                let complete = found.last().map_or(version, |e: &Event| e.resource_version);
                return Ok((found, complete));
            }
            if scope.contains(&event.key) {
                found.push(event.clone());
            }
        }
        Ok((found, self.resource_version.max(version)))
    }

    /// Every event after a version, of every kind.
    pub(crate) fn all_events_after(&self, version: u64) -> Result<Vec<Event>, Compacted> {
        if version < self.compacted {
            return Err(Compacted { oldest: self.compacted });
        }
        let first = self.events.partition_point(|e| e.resource_version <= version);
        Ok(self.events.range(first..).cloned().collect())
    }

    /// Takes in a durable change.
    pub(crate) fn apply(&mut self, event: Event) {
        self.resource_version = event.resource_version;
        if let Some(old) = self.objects.remove(&event.key) {
            self.unindex(&event.key, &old);
        }
        if event.change != Change::Deleted {
            self.index(&event.key, &event.object);
            self.objects.insert(event.key.clone(), event.object.clone());
        }
        self.weight += event.weight();
        self.events.push_back(event);
        while self.events.len() > self.ring.events || self.weight > self.ring.bytes {
            let Some(old) = self.events.pop_front() else { break };
            self.weight -= old.weight();
            self.compacted = old.resource_version;
        }
    }
}
