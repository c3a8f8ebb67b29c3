//! What is recorded, and the bounded queue that carries it to the session.
//!
//! ```text
//!  egress, broker, process ── Audit::record ──▶ queue ── AuditQueue::unacked ──▶ session ──▶ gateway
//!     never waits                               bounded        ◀── ack(seq) ───────┘
//! ```
//!
//! Every record has a sequence number from 1. Nothing is dropped before the gateway has said that
//! it is stored, unless the queue is full: then the oldest go, and one record stands for them and
//! says how many they were. Security decisions carry an OCSF event; each event holds the hash of
//! the one before it, so that a removed or altered event shows.
//!
//! A record never holds a credential, a placeholder or a query string: whoever records leaves them
//! out (see [`ocsf`]).

pub mod ocsf;
mod queue;

use std::{collections::BTreeMap, sync::Arc};

use serde_json::Value;

pub use queue::AuditQueue;

use crate::limits::egress::{AUDIT_BYTES, AUDIT_RECORDS};

/// How important a record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// A security decision, with its event.
    Ocsf,
    /// Something failed.
    Error,
    /// Something is not as it should be.
    Warn,
    /// Worth knowing.
    Info,
    /// For whoever looks for a defect.
    Debug,
}

impl Level {
    /// The text on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ocsf => "OCSF",
            Self::Error => "ERROR",
            Self::Warn => "WARN",
            Self::Info => "INFO",
            Self::Debug => "DEBUG",
        }
    }
}

/// One thing to record.
#[derive(Clone, Debug)]
pub struct Record {
    /// How important it is.
    pub level: Level,
    /// Who records: `supervisor`, `proxy`, `broker`, `stdout`, `stderr`.
    pub target: String,
    /// One line for people.
    pub message: String,
    /// The same for programs.
    pub fields: BTreeMap<String, String>,
    /// The OCSF event, for [`Level::Ocsf`].
    pub ocsf: Option<Value>,
}

/// How much may wait for the gateway.
#[derive(Clone, Copy, Debug)]
pub struct AuditLimit {
    /// Records.
    pub records: usize,
    /// Bytes, as [`AuditQueue`] counts them.
    pub bytes: usize,
}

impl Default for AuditLimit {
    fn default() -> Self {
        Self { records: AUDIT_RECORDS, bytes: AUDIT_BYTES }
    }
}

/// The writing end. Cheap to clone; never waits.
#[derive(Clone)]
pub struct Audit {
    queue: Arc<queue::Shared>,
}

impl std::fmt::Debug for Audit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Audit")
    }
}

impl Audit {
    /// An empty queue and its two ends.
    pub fn new(limit: AuditLimit) -> (Self, AuditQueue) {
        let queue = Arc::new(queue::Shared::new(limit));
        (Self { queue: queue.clone() }, AuditQueue::new(queue))
    }

    /// Records. When the queue is full the oldest unacknowledged records give way.
    pub fn record(&self, record: Record) {
        self.queue.push(record);
    }

    /// Records a line that is no security decision.
    pub fn log(&self, level: Level, target: &str, message: impl Into<String>) {
        self.record(Record { level, target: target.to_owned(), message: message.into(), fields: BTreeMap::new(), ocsf: None });
    }
}

#[cfg(test)]
mod tests;
