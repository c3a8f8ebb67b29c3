//! Following a sandbox: its state, and what it records.
//!
//! ```text
//!   kube watch of one object ──┐
//!                              ├──▶ one stream; every event carries a cursor
//!   log store (tail, follow) ──┘    `v<resource version>.l<log record>`
//! ```
//!
//! The first event is the sandbox as it is, unless the client resumes and nothing has changed.
//! With the cursor of the last event it saw, a client gets what came after: log records without
//! loss or repetition, and the newest state. A reader that is too slow for the live log is
//! caught up from the store.

use std::pin::pin;

use futures::StreamExt as _;
use kube::ResourceExt as _;
use kube::runtime::watcher;
use openshell_crds::OpenShellSandbox;
use openshell_proto::v1::{self, SandboxPhase, sandbox_stream_event::Payload};
use tokio::sync::{broadcast, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Status};

use super::logs::{self, Wanted};
use super::methods::WatchStream;
use super::{Api, scope};
use crate::convert::{log, sandbox as convert};
use crate::errors;
use crate::limits;
use crate::session::{LogQuery, StoredLog};

/// How far a client has seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Cursor {
    version: u64,
    log: i64,
}

impl Cursor {
    fn parse(text: &str) -> Option<Self> {
        let (version, log) = text.strip_prefix('v')?.split_once(".l")?;
        Some(Self { version: version.parse().ok()?, log: log.parse().ok()? })
    }
}

impl std::fmt::Display for Cursor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "v{}.l{}", self.version, self.log)
    }
}

/// Which changes of the object a client wants to see.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Follow {
    Changes,
    Nothing,
}

/// When the stream ends by itself.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Until {
    Deleted,
    Terminal,
}

pub(super) async fn watch(api: &Api, request: Request<v1::WatchSandboxRequest>) -> Result<WatchStream, Status> {
    let request = request.into_inner();
    scope::one(request.workspace_scope.as_ref())?;
    let cursor = match request.resume_after_cursor.as_str() {
        "" => None,
        text => Some(Cursor::parse(text).ok_or_else(|| errors::invalid("resume_after_cursor", "it is not a cursor of this stream"))?),
    };
    let object = api.sandbox(&request.sandbox).await?;
    let tail = if request.log_tail_lines == 0 { limits::WATCH_TAIL as u32 } else { request.log_tail_lines.min(limits::LOG_LINES as u32) };
    let query = match logs::query(tail, &request.log_sources, &request.log_min_level, request.since_time)? {
        Wanted::Some(query) if request.follow_logs => Some(query),
        _ => None,
    };
    let (events, stream) = mpsc::channel(limits::WATCH_QUEUE);
    let watch = Watch {
        api: api.clone(),
        name: object.name_any(),
        uid: object.uid().unwrap_or_default(),
        cursor: cursor.unwrap_or_default(),
        follow: if request.follow_status { Follow::Changes } else { Follow::Nothing },
        until: if request.stop_on_terminal { Until::Terminal } else { Until::Deleted },
        events,
    };
    tokio::spawn(watch.run(object, query));
    Ok(ReceiverStream::new(stream).boxed())
}

struct Watch {
    api: Api,
    name: String,
    uid: String,
    cursor: Cursor,
    follow: Follow,
    until: Until,
    events: mpsc::Sender<Result<v1::SandboxStreamEvent, Status>>,
}

/// Whether there is more to come.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Next {
    More,
    End,
}

impl Watch {
    async fn run(mut self, object: OpenShellSandbox, query: Option<LogQuery>) {
        let mut follower = match &query {
            Some(query) => match self.tail(query).await {
                Some(follower) => Some(follower),
                None => return,
            },
            None => None,
        };
        if self.changed(&object).await == Next::End || (self.follow == Follow::Nothing && follower.is_none()) {
            return;
        }
        let config = watcher::Config::default().fields(&format!("metadata.name={}", self.name));
        let mut objects = pin!(watcher(self.api.objects::<OpenShellSandbox>(), config));
        let shutdown = self.api.shutdown.clone();
        let mut present = false;
        loop {
            let next = tokio::select! {
                () = shutdown.cancelled() => {
                    let ending = errors::unavailable("GATEWAY_ENDING", "the gateway is ending; watch again with the last cursor", std::time::Duration::from_secs(1));
                    let _ = self.events.send(Err(ending)).await;
                    return;
                }
                () = self.events.closed() => return,
                event = objects.next() => match event {
                    Some(Ok(watcher::Event::Init)) => { present = false; Next::More }
                    Some(Ok(watcher::Event::InitApply(object) | watcher::Event::Apply(object))) => { present = true; self.changed(&object).await }
                    Some(Ok(watcher::Event::InitDone)) if present => Next::More,
                    // Gone while nobody looked, or just now.
                    Some(Ok(watcher::Event::InitDone)) | None => Next::End,
                    Some(Ok(watcher::Event::Delete(object))) => self.deleted(&object).await,
                    Some(Err(error)) => { tracing::debug!(%error, "a watch is taken up again"); Next::More }
                },
                log = follow(follower.as_mut()) => self.logged(log, query.as_ref()).await,
            };
            if next == Next::End {
                return;
            }
        }
    }

    async fn send(&mut self, payload: Payload) -> Next {
        let event = v1::SandboxStreamEvent { payload: Some(payload), cursor: self.cursor.to_string() };
        if self.events.send(Ok(event)).await.is_ok() { Next::More } else { Next::End }
    }

    /// The object changed, or is seen for the first time.
    async fn changed(&mut self, object: &OpenShellSandbox) -> Next {
        if object.uid().as_deref() != Some(&self.uid) {
            return Next::End;
        }
        let version = object.resource_version().and_then(|v| v.parse().ok()).unwrap_or_default();
        let first = self.cursor.version == 0;
        if version > self.cursor.version && (first || self.follow == Follow::Changes) {
            self.cursor.version = version;
            if self.send(Payload::Sandbox(convert::to_wire(object))).await == Next::End {
                return Next::End;
            }
        }
        let terminal = matches!(convert::phase(object), SandboxPhase::Ready | SandboxPhase::Error | SandboxPhase::Completed);
        if self.until == Until::Terminal && terminal { Next::End } else { Next::More }
    }

    async fn deleted(&mut self, object: &OpenShellSandbox) -> Next {
        if self.follow == Follow::Changes && object.uid().as_deref() == Some(&self.uid) {
            let mut last = convert::to_wire(object);
            if let Some(status) = &mut last.status {
                status.phase = SandboxPhase::Deleting.into();
            }
            self.send(Payload::Sandbox(last)).await;
        }
        Next::End
    }

    /// Sends what is stored, from the cursor on or the newest lines, and follows from there.
    async fn tail(&mut self, query: &LogQuery) -> Option<broadcast::Receiver<StoredLog>> {
        let mut query = query.clone();
        if self.cursor.log > 0 {
            query.after = Some(self.cursor.log);
            query.lines = 0;
        }
        match self.api.hub.logs().tail_and_follow(&self.uid, &query).await {
            Ok((stored, follower)) => {
                for log in stored {
                    if self.line(log).await == Next::End {
                        return None;
                    }
                }
                Some(follower)
            }
            Err(error) => {
                let _ = self.events.send(Err(logs::failed(&error))).await;
                None
            }
        }
    }

    async fn line(&mut self, stored: StoredLog) -> Next {
        self.cursor.log = stored.id;
        let line = log::to_wire(&self.uid, stored.record);
        self.send(Payload::Log(line)).await
    }

    async fn logged(&mut self, log: Result<StoredLog, broadcast::error::RecvError>, query: Option<&LogQuery>) -> Next {
        let Some(query) = query else { return Next::More };
        match log {
            Ok(stored) if stored.id > self.cursor.log && query.matches(&stored) => self.line(stored).await,
            Ok(_) => Next::More,
            Err(broadcast::error::RecvError::Lagged(missed)) => {
                // Everything is in the store; only what was trimmed there is lost.
                let query = LogQuery { lines: 0, after: Some(self.cursor.log), ..query.clone() };
                tracing::debug!(missed, "a slow reader of a log is caught up");
                match self.api.hub.logs().tail(&self.uid, &query).await {
                    Ok(stored) => {
                        for log in stored {
                            if self.line(log).await == Next::End {
                                return Next::End;
                            }
                        }
                        Next::More
                    }
                    Err(error) => {
                        let _ = self.events.send(Err(logs::failed(&error))).await;
                        Next::End
                    }
                }
            }
            // The sandbox is gone, and its log with it.
            Err(broadcast::error::RecvError::Closed) => Next::End,
        }
    }
}

/// The next live record; never, without a follower.
async fn follow(follower: Option<&mut broadcast::Receiver<StoredLog>>) -> Result<StoredLog, broadcast::error::RecvError> {
    match follower {
        Some(follower) => follower.recv().await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_read_back_and_nothing_else_is() {
        let cursor = Cursor { version: 17, log: 4 };
        assert_eq!(Cursor::parse(&cursor.to_string()), Some(cursor));
        for bad in ["", "17", "v1", "v1.l", "vx.l1", "v1.lx", "v-1.l1"] {
            assert_eq!(Cursor::parse(bad), None, "{bad}");
        }
    }
}
