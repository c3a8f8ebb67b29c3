//! Watches: a cursor into the event ring per watcher, and no queue at all.
//!
//! A watcher that falls behind costs nothing: when the ring has passed its cursor, it gets 410
//! and lists again.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::Stream;
use http_body::Frame;
use serde_json::json;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::error::ApiError;
use super::kinds::Kind;
use super::limits;
use super::list;
use super::render::View;
use super::request::Query;
use super::store::state::{Change, Event, Key, Scope, Stored};
use super::store::writer::Core;

/// Counts the watches of a service.
#[derive(Clone, Default)]
pub(crate) struct Watches(Arc<AtomicUsize>);

/// One of the watches that are allowed.
pub(crate) struct Permit(Arc<AtomicUsize>);

impl Watches {
    /// Takes a place, if one is free.
    pub(crate) fn enter(&self) -> Result<Permit, ApiError> {
        let before = self.0.fetch_add(1, Ordering::Relaxed);
        let permit = Permit(self.0.clone());
        if before >= limits::WATCHES {
            return Err(ApiError::too_many(format!("{} watches are open, which is the limit; close some", limits::WATCHES)));
        }
        Ok(permit)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// One watch.
pub(crate) struct Watch {
    core: Arc<Core>,
    kind: Arc<Kind>,
    scope: Scope,
    query: Query,
    view: View,
    version: tokio::sync::watch::Receiver<u64>,
    shutdown: CancellationToken,
    /// Events up to here were sent or did not match.
    cursor: u64,
    ready: VecDeque<Bytes>,
    end: Instant,
    next_bookmark: Instant,
    finished: bool,
    _permit: Permit,
}

impl Watch {
    /// Starts where the query says.
    pub(crate) fn start(
        core: &Arc<Core>,
        kind: Arc<Kind>,
        scope: Scope,
        query: Query,
        view: View,
        shutdown: CancellationToken,
        permit: Permit,
    ) -> Result<Self, ApiError> {
        let from = query.resource_version.as_deref().map(list::version).transpose()?.unwrap_or(0);
        let initial = match query.initial_events {
            Some(true) if query.version_match.is_none() => {
                return Err(ApiError::bad_request("sendInitialEvents requires setting resourceVersionMatch to NotOlderThan"));
            }
            Some(wanted) => wanted,
            // Without a version, or with 0, a watch begins with what is there.
            None => from == 0,
        };
        let now = Instant::now();
        let lasts = query.timeout_seconds.map_or(limits::WATCH_DEFAULT, Duration::from_secs).min(limits::WATCH_MAX);
        let version = core.version.subscribe();
        let mut watch = Self {
            core: core.clone(),
            kind,
            scope,
            query,
            view,
            version,
            shutdown,
            cursor: from,
            ready: VecDeque::new(),
            end: now + lasts,
            next_bookmark: now + limits::BOOKMARK_INTERVAL,
            finished: false,
            _permit: permit,
        };
        if initial {
            watch.initial();
        } else if from == 0 {
            watch.cursor = watch.core.state.read().resource_version();
        }
        Ok(watch)
    }

    fn initial(&mut self) {
        let (present, newest) = {
            let state = self.core.state.read();
            let present: Vec<(Key, Arc<Stored>)> = state.range(&self.scope, None).map(|(k, s)| (k.clone(), s.clone())).collect();
            (present, state.resource_version())
        };
        for (key, stored) in present {
            if self.query.selector.matches(&key, &stored) {
                let line = self.line("ADDED", &stored);
                self.ready.push_back(line);
            }
        }
        self.cursor = newest;
        if self.query.initial_events == Some(true) && self.query.bookmarks {
            let line = self.bookmark(&json!({ "k8s.io/initial-events-end": "true" }));
            self.ready.push_back(line);
        }
    }

    fn line(&self, kind: &str, stored: &Stored) -> Bytes {
        let object = self.view.event(&self.kind, stored);
        let mut line = Vec::with_capacity(object.len() + 32);
        line.extend_from_slice(b"{\"type\":\"");
        line.extend_from_slice(kind.as_bytes());
        line.extend_from_slice(b"\",\"object\":");
        line.extend_from_slice(&object);
        line.extend_from_slice(b"}\n");
        Bytes::from(line)
    }

    fn bookmark(&self, annotations: &serde_json::Value) -> Bytes {
        let mut metadata = json!({ "resourceVersion": self.cursor.to_string(), "creationTimestamp": null });
        if annotations.as_object().is_some_and(|a| !a.is_empty()) {
            metadata["annotations"] = annotations.clone();
        }
        let object = self.view.bookmark(&self.kind, &metadata);
        Bytes::from(format!("{}\n", json!({ "type": "BOOKMARK", "object": object })))
    }

    /// How an event looks through the selector.
    fn visible(&self, event: &Event) -> Option<&'static str> {
        let now = event.change != Change::Deleted && self.query.selector.matches(&event.key, &event.object);
        let before = event.before.as_ref().is_some_and(|b| self.query.selector.matches(&event.key, b));
        match (before, now) {
            (false, false) => None,
            (false, true) => Some("ADDED"),
            (true, true) => Some("MODIFIED"),
            (true, false) => Some("DELETED"),
        }
    }

    /// Moves the cursor over what has happened; false when nothing had.
    fn collect(&mut self) -> bool {
        let found = self.core.state.read().events_after(&self.scope, self.cursor, limits::WATCH_BATCH);
        match found {
            Ok((events, complete)) => {
                for event in &events {
                    if let Some(kind) = self.visible(event) {
                        let line = self.line(kind, &event.object);
                        self.ready.push_back(line);
                    }
                }
                let moved = complete > self.cursor;
                self.cursor = complete;
                moved
            }
            Err(compacted) => {
                self.fail(&ApiError::expired(self.cursor, compacted.oldest));
                true
            }
        }
    }

    fn fail(&mut self, error: &ApiError) {
        let line = json!({ "type": "ERROR", "object": error.status() });
        self.ready.push_back(Bytes::from(format!("{line}\n")));
        self.finished = true;
    }

    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if let Some(line) = self.ready.pop_front() {
                return Some(line);
            }
            if self.finished {
                return None;
            }
            let newest = *self.version.borrow_and_update();
            if self.cursor > newest {
                // From a store that was since replaced by an older one: only a new list helps.
                self.fail(&ApiError::expired(self.cursor, newest));
                continue;
            }
            if self.cursor < newest && self.collect() {
                continue;
            }
            tokio::select! {
                changed = self.version.changed() => if changed.is_err() { return None },
                () = self.shutdown.cancelled() => return None,
                () = tokio::time::sleep_until(self.end) => {
                    self.finished = true;
                    if self.query.bookmarks {
                        return Some(self.bookmark(&json!({})));
                    }
                }
                () = tokio::time::sleep_until(self.next_bookmark), if self.query.bookmarks => {
                    self.next_bookmark = Instant::now() + limits::BOOKMARK_INTERVAL;
                    return Some(self.bookmark(&json!({})));
                }
            }
        }
    }

    /// The body of the response.
    pub(crate) fn into_stream(self) -> impl Stream<Item = Result<Frame<Bytes>, Infallible>> + Send {
        futures::stream::unfold(self, |mut watch| async move {
            let line = watch.next().await?;
            Some((Ok(Frame::data(line)), watch))
        })
    }
}
