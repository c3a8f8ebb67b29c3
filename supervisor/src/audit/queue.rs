//! The bounded queue between those who record and the session that sends.

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use openshell_proto::supervisor::LogRecord;
use parking_lot::Mutex;
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use tokio::sync::Notify;

use super::{AuditLimit, Level, Record};
use crate::limits::egress::AUDIT_TEXT_BYTES;

/// What a record costs besides its text: the structure, its map, its timestamps.
const RECORD_OVERHEAD: usize = 256;

/// Both ends hold this.
pub(super) struct Shared {
    limit: AuditLimit,
    state: Mutex<State>,
    notify: Notify,
}

struct State {
    /// Oldest first; sequence numbers grow. Only the first may be a gap marker.
    records: VecDeque<LogRecord>,
    bytes: usize,
    next: u64,
    /// Hash of the newest event, hex; empty before the first.
    previous: String,
}

impl Shared {
    pub(super) fn new(limit: AuditLimit) -> Self {
        let state = State { records: VecDeque::new(), bytes: 0, next: 1, previous: String::new() };
        Self { limit, state: Mutex::new(state), notify: Notify::new() }
    }

    pub(super) fn push(&self, record: Record) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        {
            let mut state = self.state.lock();
            let ocsf = record.ocsf.map(|event| state.chain(event)).unwrap_or_default();
            let record = LogRecord {
                seq: state.next,
                time: Some(prost_types::Timestamp { seconds: now.as_secs() as i64, nanos: now.subsec_nanos() as i32 }),
                level: record.level.as_str().to_owned(),
                target: record.target,
                message: shorten(record.message),
                fields: record.fields.into_iter().map(|(key, value)| (key, shorten(value))).collect(),
                ocsf,
                gap: 0,
            };
            state.next += 1;
            state.bytes += cost(&record);
            state.records.push_back(record);
            while state.records.len() > self.limit.records.max(2) || (state.bytes > self.limit.bytes && state.records.len() > 2) {
                state.drop_oldest();
            }
        }
        self.notify.notify_one();
    }
}

impl State {
    /// Links an event to the one before it and gives its bytes.
    fn chain(&mut self, mut event: Value) -> String {
        if let Value::Object(fields) = &mut event {
            fields.insert("prev".to_owned(), Value::String(self.previous.clone()));
        }
        let text = event.to_string();
        self.previous = hex::encode(Sha256::digest(text.as_bytes()));
        text
    }

    /// Replaces the oldest record (and the marker before it) by a marker that counts both.
    fn drop_oldest(&mut self) {
        let mut gap = 0;
        let mut last = None;
        while let Some(record) = self.records.pop_front() {
            self.bytes -= cost(&record);
            gap += record.gap.max(1);
            let was_marker = record.gap > 0;
            last = Some((record.seq, record.time));
            if !was_marker {
                break;
            }
        }
        let Some((seq, time)) = last else { return };
        let marker = LogRecord {
            seq,
            time,
            level: Level::Warn.as_str().to_owned(),
            target: "supervisor".to_owned(),
            message: format!("{gap} records were dropped: the gateway did not take them in time and the queue was full"),
            gap,
            ..LogRecord::default()
        };
        self.bytes += cost(&marker);
        self.records.push_front(marker);
    }
}

fn cost(record: &LogRecord) -> usize {
    RECORD_OVERHEAD
        + record.target.len()
        + record.message.len()
        + record.ocsf.len()
        + record.fields.iter().map(|(key, value)| key.len() + value.len()).sum::<usize>()
}

/// Cuts a text that the agent could make as long as it likes.
fn shorten(mut text: String) -> String {
    if text.len() > AUDIT_TEXT_BYTES {
        let end = (0..=AUDIT_TEXT_BYTES).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        text.truncate(end);
        text.push_str(" …(cut)");
    }
    text
}

/// The reading end, for the session.
pub struct AuditQueue {
    shared: Arc<Shared>,
}

impl std::fmt::Debug for AuditQueue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("AuditQueue")
    }
}

impl AuditQueue {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// Up to `max` records from the oldest that is not acknowledged. They stay in the queue.
    pub fn unacked(&self, max: usize) -> Vec<LogRecord> {
        self.unacked_after(0, max)
    }

    /// Like [`AuditQueue::unacked`], but only records after `seq`: those before it are on their
    /// way already.
    pub fn unacked_after(&self, seq: u64, max: usize) -> Vec<LogRecord> {
        let state = self.shared.state.lock();
        let start = state.records.partition_point(|record| record.seq <= seq);
        state.records.iter().skip(start).take(max).cloned().collect()
    }

    /// Forgets every record up to and including `seq`.
    pub fn ack(&self, seq: u64) {
        let mut state = self.shared.state.lock();
        while let Some(record) = state.records.pop_front_if(|record| record.seq <= seq) {
            state.bytes -= cost(&record);
        }
    }

    /// Waits until something has been recorded since the last call returned.
    pub async fn notified(&self) {
        self.shared.notify.notified().await;
    }
}
