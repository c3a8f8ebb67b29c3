//! Garbage collection by owner references, as the controller manager does it.
//!
//! * An object all of whose owners are gone is deleted; if some are left, the others are taken
//!   from its references.
//! * A foreground deletion waits until dependents with `blockOwnerDeletion` are gone, an
//!   orphaning one until no dependent names the owner.
//! * Owners of kinds that are not served here are left alone: nobody here can say whether they
//!   exist.
//!
//! Driven by events; after compaction, and at the start, every object is looked at once.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::error::ApiError;
use super::patch::Patch;
use super::store::state::{Change, Key, Owner, State, Stored};
use super::store::writer::{Core, Job};
use super::write::{Deletion, FOREGROUND, ORPHAN, Part, Persist, Propagation, Verb, Write};

/// How long to wait after the store refused a write.
const RETRY: Duration = Duration::from_secs(1);

/// Collects until the store is closed.
pub(crate) async fn run(core: Arc<Core>, queue: mpsc::Sender<Job>, shutdown: CancellationToken) {
    let mut version = core.version.subscribe();
    let collector = Collector { core, queue };
    let mut cursor = 0;
    let mut again = BTreeSet::new();
    loop {
        version.borrow_and_update();
        let mut keys = std::mem::take(&mut again);
        {
            let state = collector.core.state.read();
            match state.all_events_after(cursor) {
                Ok(events) => events.iter().for_each(|e| {
                    keys.insert(e.key.clone());
                    // Dependents of what is gone, and owners that wait for it.
                    if e.change == Change::Deleted {
                        keys.extend(state.dependents(&e.object.uid));
                    }
                    let owners = e.object.owners.iter().chain(e.before.iter().flat_map(|b| &b.owners));
                    keys.extend(owners.filter_map(|o| state.place(&o.uid).cloned()));
                }),
                Err(_) => keys.extend(state.all().map(|(key, _)| key.clone())),
            }
            cursor = state.resource_version();
        }
        for key in keys {
            let step = collector.step(&key);
            if let Err(error) = collector.carry_out(&key, step).await {
                tracing::warn!(%error, name = key.name, "garbage collection");
                again.insert(key);
            }
        }
        tokio::select! {
            () = shutdown.cancelled() => return,
            changed = version.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(RETRY), if !again.is_empty() => {}
        }
    }
}

struct Collector {
    core: Arc<Core>,
    queue: mpsc::Sender<Job>,
}

/// What an object needs.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    Nothing,
    Delete {
        uid: String,
        resource_version: u64,
    },
    /// New owner references.
    Disown {
        resource_version: u64,
        gone: Vec<String>,
    },
    DeleteDependents(Vec<(Key, String)>),
    OrphanDependents {
        owner: String,
        dependents: Vec<Key>,
    },
    /// Its deletion may go on.
    Finish {
        resource_version: u64,
        finalizer: &'static str,
    },
}

impl Collector {
    fn step(&self, key: &Key) -> Step {
        let state = self.core.state.read();
        let Some(object) = state.get(key) else { return Step::Nothing };
        if object.deleting {
            return deletion_step(&state, &object);
        }
        let gone: Vec<String> = object.owners.iter().filter(|o| self.is_gone(&state, key, o)).map(|o| o.uid.clone()).collect();
        if gone.is_empty() {
            Step::Nothing
        } else if gone.len() == object.owners.len() {
            Step::Delete { uid: object.uid.clone(), resource_version: object.resource_version }
        } else {
            Step::Disown { resource_version: object.resource_version, gone }
        }
    }

    fn is_gone(&self, state: &State, dependent: &Key, owner: &Owner) -> bool {
        let Some(kind) = self.core.kinds.by_kind(&owner.api_version, &owner.kind) else { return false };
        let expected = Key { kind: kind.id, namespace: dependent.namespace.clone(), name: owner.name.clone() };
        state.place(&owner.uid) != Some(&expected)
    }

    async fn carry_out(&self, key: &Key, step: Step) -> Result<(), ApiError> {
        match step {
            Step::Nothing => Ok(()),
            Step::Delete { uid, resource_version } => {
                let deletion = Deletion {
                    uid: Some(uid),
                    resource_version: Some(resource_version.to_string()),
                    propagation: Some(Propagation::Background),
                };
                self.submit(key, Verb::Delete(deletion)).await
            }
            Step::Disown { resource_version, gone } => self.disown(key, resource_version, &gone).await,
            Step::DeleteDependents(dependents) => {
                for (key, uid) in dependents {
                    let deletion = Deletion { uid: Some(uid), resource_version: None, propagation: Some(Propagation::Foreground) };
                    self.submit(&key, Verb::Delete(deletion)).await?;
                }
                Ok(())
            }
            Step::OrphanDependents { owner, dependents } => {
                for key in dependents {
                    let stored = self.core.state.read().get(&key);
                    if let Some(stored) = stored {
                        self.disown(&key, stored.resource_version, std::slice::from_ref(&owner)).await?;
                    }
                }
                // The changes bring this object back to our attention.
                Ok(())
            }
            Step::Finish { resource_version, finalizer } => self.finish(key, resource_version, finalizer).await,
        }
    }

    async fn disown(&self, key: &Key, resource_version: u64, gone: &[String]) -> Result<(), ApiError> {
        let kept = |owner: &Value| !owner.get("uid").and_then(Value::as_str).is_some_and(|uid| gone.iter().any(|g| g == uid));
        self.retain(key, resource_version, "ownerReferences", kept).await
    }

    async fn finish(&self, key: &Key, resource_version: u64, finalizer: &str) -> Result<(), ApiError> {
        self.retain(key, resource_version, "finalizers", |value| value.as_str() != Some(finalizer)).await
    }

    /// Keeps only some entries of a list in the metadata.
    async fn retain(&self, key: &Key, resource_version: u64, field: &str, keep: impl Fn(&Value) -> bool) -> Result<(), ApiError> {
        let Some(stored) = self.core.state.read().get(key) else { return Ok(()) };
        let object: Value = serde_json::from_slice(&stored.bytes).map_err(|error| ApiError::store(&error))?;
        let list = object["metadata"][field].as_array();
        let left: Vec<&Value> = list.into_iter().flatten().filter(|v| keep(v)).collect();
        let left = if left.is_empty() { Value::Null } else { json!(left) };
        let patch = json!({ "metadata": { "resourceVersion": resource_version.to_string(), field: left } });
        self.submit(key, Verb::Patch(Patch::Merge(patch), Part::Main)).await
    }

    async fn submit(&self, key: &Key, verb: Verb) -> Result<(), ApiError> {
        let Some(kind) = self.core.kinds.by_id(key.kind).cloned() else { return Ok(()) };
        let write = Write {
            kind,
            namespace: key.namespace.clone(),
            name: key.name.clone(),
            verb,
            manager: "garbage-collector".to_owned(),
            persist: Persist::Yes,
        };
        match super::submit(&self.queue, write).await {
            Ok(_) => Ok(()),
            // It changed meanwhile: its event brings it back.
            Err(error) if matches!(error.code(), StatusCode::NOT_FOUND | StatusCode::CONFLICT) => Ok(()),
            Err(error) if error.code() == StatusCode::SERVICE_UNAVAILABLE => Ok(()),
            Err(error) => Err(error),
        }
    }
}

fn deletion_step(state: &State, object: &Stored) -> Step {
    let has = |finalizer: &str| object.finalizers.iter().any(|f| f == finalizer);
    let dependents: Vec<(Key, Arc<Stored>)> =
        state.dependents(&object.uid).into_iter().filter_map(|key| state.get(&key).map(|stored| (key, stored))).collect();
    if has(ORPHAN) {
        return if dependents.is_empty() {
            Step::Finish { resource_version: object.resource_version, finalizer: ORPHAN }
        } else {
            Step::OrphanDependents { owner: object.uid.clone(), dependents: dependents.into_iter().map(|(key, _)| key).collect() }
        };
    }
    if !has(FOREGROUND) {
        return Step::Nothing;
    }
    let blocks = |stored: &Stored| stored.owners.iter().any(|o| o.uid == object.uid && o.block_owner_deletion == Some(true));
    if !dependents.iter().any(|(_, stored)| blocks(stored)) {
        return Step::Finish { resource_version: object.resource_version, finalizer: FOREGROUND };
    }
    let alive = dependents.into_iter().filter(|(_, stored)| !stored.deleting);
    Step::DeleteDependents(alive.map(|(key, stored)| (key, stored.uid.clone())).collect())
}
