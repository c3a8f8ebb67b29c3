//! The store: objects in SQLite, mirrored in memory, one writer.
//!
//! ```text
//!   request ──▶ queue ──▶ writer task ──▶ SQLite (one transaction per write)
//!                              │ only after the commit
//!                              ▼
//!                            State (memory): objects, event ring ──▶ get, list, watch
//! ```
//!
//! Reads and watches never touch the disk, and see a write only after it is durable. One process
//! owns a store (an exclusive lock beside the database), so memory and disk cannot disagree. The
//! event ring is memory alone: after a restart a watch that resumes from an older version gets
//! 410 and lists again, as it does after compaction.

pub(crate) mod seal;
pub(crate) mod sqlite;
pub(crate) mod state;
pub(crate) mod writer;
