//! Who sent what waits at an emulated datagram socket.
//!
//! The kernel keeps the datagrams, we keep their senders. The agent may take a datagram without us
//! (`read`), so the two are brought together by the bytes that still wait; datagrams without bytes
//! cannot be told apart that way, and the bound forgets the oldest.

use std::{collections::VecDeque, net::SocketAddr};

use crate::limits::broker::SENDERS;

/// Senders and sizes, oldest first.
#[derive(Debug, Default)]
pub(super) struct Sources(VecDeque<(SocketAddr, usize)>);

impl Sources {
    /// One more waits.
    pub(super) fn push(&mut self, source: SocketAddr, length: usize) {
        if self.0.len() >= SENDERS {
            self.0.pop_front();
        }
        self.0.push_back((source, length));
    }

    /// Forgets the senders of datagrams that are not among the `queued` bytes any more.
    pub(super) fn sync(&mut self, queued: usize) {
        let mut known: usize = self.0.iter().map(|(_, length)| length).sum();
        while known > queued {
            let Some((_, length)) = self.0.pop_front() else { return };
            known -= length;
        }
    }

    /// The sender of the datagram that is taken now.
    pub(super) fn pop(&mut self) -> Option<SocketAddr> {
        self.0.pop_front().map(|(source, _)| source)
    }

    /// The sender of the datagram that is looked at now.
    pub(super) fn peek(&self) -> Option<SocketAddr> {
        self.0.front().map(|(source, _)| *source)
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}
