//! What the main process has written: its newest part kept, every part passed on.

use std::{collections::VecDeque, sync::Arc};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::broadcast;

use super::streams::Stream;
use crate::limits::session::{ATTACH_CHUNKS, RING_BYTES};

/// A piece of output.
pub(super) type Chunk = (Stream, Bytes);

/// Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct History(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    chunks: VecDeque<Chunk>,
    bytes: usize,
    /// `None` when there will be no more.
    live: Option<broadcast::Sender<Chunk>>,
}

impl History {
    pub(super) fn new() -> Self {
        let live = Some(broadcast::channel(ATTACH_CHUNKS).0);
        Self(Arc::new(Mutex::new(State { chunks: VecDeque::new(), bytes: 0, live })))
    }

    pub(super) fn push(&self, stream: Stream, bytes: &Bytes) {
        let mut state = self.0.lock();
        if let Some(live) = &state.live {
            // Nobody attached is no failure.
            let _ = live.send((stream, bytes.clone()));
        }
        state.bytes += bytes.len();
        // A copy of its own size: a slice would keep the whole buffer it was read into.
        state.chunks.push_back((stream, Bytes::copy_from_slice(bytes)));
        while state.bytes > RING_BYTES
            && let Some((_, oldest)) = state.chunks.pop_front()
        {
            state.bytes -= oldest.len();
        }
    }

    /// There will be no more.
    pub(super) fn close(&self) {
        self.0.lock().live = None;
    }

    /// What is kept, and what follows exactly after it (`None`: nothing will).
    pub(super) fn subscribe(&self) -> (Vec<Chunk>, Option<broadcast::Receiver<Chunk>>) {
        let state = self.0.lock();
        (state.chunks.iter().cloned().collect(), state.live.as_ref().map(broadcast::Sender::subscribe))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn keeps_the_newest_and_continues_exactly_after_it() {
        let history = History::new();
        history.push(Stream::Stdout, &Bytes::from(vec![b'a'; RING_BYTES]));
        history.push(Stream::Stderr, &Bytes::from_static(b"b"));
        let (kept, live) = history.subscribe();
        assert_eq!(kept, [(Stream::Stderr, Bytes::from_static(b"b"))]);
        history.push(Stream::Stdout, &Bytes::from_static(b"c"));
        history.close();
        let mut live = live.unwrap();
        assert_eq!(live.recv().await.unwrap(), (Stream::Stdout, Bytes::from_static(b"c")));
        assert!(live.recv().await.is_err());
        assert!(history.subscribe().1.is_none());
    }
}
