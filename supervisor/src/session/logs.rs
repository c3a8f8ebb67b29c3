//! Records on their way: sent in order, kept until acknowledged, sent again if they are not.

use openshell_proto::supervisor::LogBatch;
use tokio::time::Instant;

use crate::{
    audit::AuditQueue,
    limits::session::{LOG_BATCH, LOG_BATCHES_UNACKNOWLEDGED, LOG_RESEND},
};

/// What of the queue this session has sent.
pub(super) struct Shipping<'a> {
    queue: &'a AuditQueue,
    acked: u64,
    sent: u64,
    /// When something that was sent last made progress.
    progress: Instant,
}

impl<'a> Shipping<'a> {
    /// Continues after what the gateway has stored.
    pub(super) fn new(queue: &'a AuditQueue, acked: u64) -> Self {
        queue.ack(acked);
        Self { queue, acked, sent: acked, progress: Instant::now() }
    }

    pub(super) fn ack(&mut self, seq: u64) {
        // A gateway that lost its store may know less than was sent; never more.
        if seq > self.acked && seq <= self.sent {
            self.queue.ack(seq);
            self.acked = seq;
            self.progress = Instant::now();
        }
    }

    /// The next batch, unless too many are on their way.
    pub(super) fn next(&mut self) -> Option<LogBatch> {
        let waiting = self.sent.saturating_sub(self.acked);
        if waiting > 0 && self.progress.elapsed() >= LOG_RESEND {
            self.sent = self.acked;
            self.progress = Instant::now();
        } else if waiting >= (LOG_BATCH * LOG_BATCHES_UNACKNOWLEDGED) as u64 {
            return None;
        }
        let records = self.queue.unacked_after(self.sent, LOG_BATCH);
        let last = records.last()?;
        if self.sent == self.acked {
            self.progress = Instant::now();
        }
        self.sent = last.seq;
        Some(LogBatch { records })
    }

    /// Whether everything is stored.
    pub(super) fn done(&self) -> bool {
        self.queue.unacked_after(self.acked, 1).is_empty()
    }

    /// When to look again for what was not acknowledged.
    pub(super) fn resend_at(&self) -> Option<Instant> {
        (self.sent > self.acked).then_some(self.progress + LOG_RESEND)
    }

    /// Waits for something to send.
    pub(super) async fn recorded(&self) {
        self.queue.notified().await;
    }
}
