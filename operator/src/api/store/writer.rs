//! The writer: one task that plans, commits and publishes, one write after the other.

use std::sync::Arc;

use bytes::Bytes;
use http::StatusCode;
use jiff::Timestamp;
use parking_lot::RwLock;
use rand::Rng as _;
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use super::sqlite::{self, Database, SecretChange};
use super::state::{Change, Event, Key, State, Stored};
use crate::api::error::{ApiError, Cause, CauseReason};
use crate::api::kinds::{Kind, Kinds};
use crate::api::limits;
use crate::api::write::{self, Clock, Persist, Planned, Verb, Write};

/// Alphabet of generated names: it spells no words (apimachinery's).
const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";

/// What readers share with the writer.
pub(crate) struct Core {
    pub(crate) kinds: Arc<Kinds>,
    pub(crate) state: RwLock<State>,
    /// The newest version; watches wait on it.
    pub(crate) version: watch::Sender<u64>,
}

/// A write and where its result goes.
pub(crate) struct Job {
    pub(crate) write: Write,
    pub(crate) reply: oneshot::Sender<Result<Written, ApiError>>,
}

/// The answer to a write.
pub(crate) struct Written {
    pub(crate) code: StatusCode,
    pub(crate) bytes: Bytes,
}

pub(crate) struct Writer {
    pub(crate) core: Arc<Core>,
    pub(crate) database: Database,
    pub(crate) jobs: mpsc::Receiver<Job>,
    pub(crate) shutdown: CancellationToken,
}

impl Writer {
    /// Runs until the store is closed; what is queued then is refused, not lost silently.
    pub(crate) async fn run(mut self) {
        loop {
            let job = tokio::select! {
                biased;
                () = self.shutdown.cancelled() => break,
                job = self.jobs.recv() => job,
            };
            let Some(Job { write, reply }) = job else { break };
            let result = self.write(write).await;
            // The client may be gone; the write stands all the same.
            let _ = reply.send(result);
        }
        self.jobs.close();
        while let Ok(job) = self.jobs.try_recv() {
            let _ = job.reply.send(Err(ApiError::closed()));
        }
        self.database.close().await;
    }

    async fn write(&mut self, mut write: Write) -> Result<Written, ApiError> {
        if write.name.is_empty() {
            write.name = self.choose_name(&write)?;
        }
        let kind = write.kind.clone();
        let key = Key { kind: kind.id, namespace: write.namespace.clone(), name: write.name.clone() };
        let (before, resource_version, full) = {
            let state = self.core.state.read();
            (state.get(&key), state.resource_version(), state.len() >= limits::MAX_OBJECTS)
        };
        let persist = write.persist;
        let creates = before.is_none();
        let deletes = matches!(write.verb, Verb::Delete(_));
        let parsed: Option<Value> = match &before {
            Some(stored) => Some(serde_json::from_slice(&stored.bytes).map_err(|error| ApiError::store(&error))?),
            None => None,
        };
        let planned = write::plan(write, parsed.as_ref(), Clock { now: Timestamp::now() })?;
        let (change, mut object, mut secrets) = match (planned, &before) {
            (Planned::Unchanged, Some(stored)) => return Ok(Written { code: StatusCode::OK, bytes: stored.bytes.clone() }),
            (Planned::Unchanged, None) => return Err(ApiError::not_found(&kind, &key.name)),
            (Planned::Write { change, object, secrets }, _) => (change, object, secrets),
        };
        if change == Change::Added && full {
            return Err(ApiError::too_many(format!("the store holds {} objects, which is its limit; delete some", limits::MAX_OBJECTS)));
        }
        if change != Change::Deleted {
            self.settle_secrets(&kind, &key, before.as_ref(), &mut secrets).await?;
        }
        if let (Change::Modified, true, Some(stored)) = (change, secrets.is_empty() && parsed.as_ref() == Some(&object), &before) {
            return Ok(Written { code: StatusCode::OK, bytes: stored.bytes.clone() });
        }
        let code = if creates { StatusCode::CREATED } else { StatusCode::OK };
        let next = resource_version + 1;
        if let (Persist::Yes, Some(meta)) = (persist, write::metadata_mut(&mut object)) {
            meta.insert("resourceVersion".into(), next.to_string().into());
        }
        let bytes = Bytes::from(serde_json::to_vec(&object).map_err(|error| ApiError::store(&error))?);
        write::check_size(bytes.len())?;
        if persist == Persist::Yes {
            let stored = Stored::from_bytes(bytes.clone()).map_err(|error| ApiError::store(&error))?;
            let event = Event { resource_version: next, change, key: key.clone(), object: Arc::new(stored), before };
            self.commit(event, &secrets).await?;
        }
        let bytes = if deletes && change == Change::Deleted { deleted(&kind, &key.name, &object) } else { bytes };
        Ok(Written { code, bytes })
    }

    /// Leaves only the values that really change, and holds the bound of the whole Secret.
    async fn settle_secrets(
        &mut self,
        kind: &Kind,
        key: &Key,
        before: Option<&Arc<Stored>>,
        secrets: &mut SecretChange,
    ) -> Result<(), ApiError> {
        let (Some(before), false) = (before, secrets.set.is_empty()) else { return Ok(()) };
        let old = self.database.values(&before.uid).await.map_err(|error| ApiError::store(&error))?;
        let changed: usize = secrets.set.iter().map(|(_, value)| value.len()).sum();
        let kept: usize = old.iter().filter(|(key, _)| secrets.keeps(key)).map(|(_, value)| value.len()).sum();
        if changed + kept > limits::MAX_SECRET {
            let why = format!("Too long: may not be more than {} bytes", limits::MAX_SECRET);
            return Err(ApiError::invalid(kind, &key.name, &[Cause::new(CauseReason::TooLong, "data", why)]));
        }
        secrets.set.retain(|(key, value)| old.get(key) != Some(value));
        Ok(())
    }

    async fn commit(&mut self, event: Event, secrets: &SecretChange) -> Result<(), ApiError> {
        let version = event.resource_version;
        if let Err(error) = self.database.commit(&self.core.kinds, &event, secrets).await {
            tracing::error!(%error, "a write failed");
            return Err(if sqlite::is_full(&error) { ApiError::disk_full() } else { ApiError::store(&error) });
        }
        self.core.state.write().apply(event);
        self.core.version.send_replace(version);
        Ok(())
    }

    fn choose_name(&self, write: &Write) -> Result<String, ApiError> {
        let Verb::Create(object) = &write.verb else {
            return Err(ApiError::bad_request("the path must name an object"));
        };
        write::check_identity(&write.kind, &write.namespace, "", object)?;
        if let Some(name) = write::text(object, "name") {
            return Ok(name.to_owned());
        }
        let Some(prefix) = write::text(object, "generateName") else {
            let cause = Cause::required("metadata.name", "name or generateName is required");
            return Err(ApiError::invalid(&write.kind, "", &[cause]));
        };
        // Five characters are added, and a name may be a label of 63.
        let prefix: String = prefix.chars().take(58).collect();
        let mut random = rand::rng();
        for _ in 0..limits::GENERATE_NAME_ATTEMPTS {
            let suffix: String = (0..5).map(|_| char::from(ALPHABET[random.random_range(0..ALPHABET.len())])).collect();
            let name = format!("{prefix}{suffix}");
            let key = Key { kind: write.kind.id, namespace: write.namespace.clone(), name };
            if self.core.state.read().get(&key).is_none() {
                return Ok(key.name);
            }
        }
        Err(ApiError::already_exists(&write.kind, &prefix))
    }
}

fn deleted(kind: &Kind, name: &str, object: &Value) -> Bytes {
    let status = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success",
        "details": { "name": name, "group": kind.group, "kind": kind.plural, "uid": object["metadata"]["uid"] },
    });
    Bytes::from(status.to_string())
}
