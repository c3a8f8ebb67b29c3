//! Logs of the sandboxes, in the gateway's database.
//!
//! ```text
//!  supervisor ── LogBatch ──▶ append ── one transaction ──▶ LogAck
//!                               └── broadcast ──▶ followers
//! ```
//!
//! A record is identified by (sandbox, instance, sequence number): a batch that is sent again
//! after a lost acknowledgement changes nothing. Acknowledged means committed. Each sandbox
//! keeps its newest records up to a bound; they go when the sandbox goes.

mod query;
mod schema;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    path::Path,
    sync::Arc,
};

use openshell_proto::supervisor::LogRecord;
use parking_lot::Mutex;
use sqlx::{
    Row as _, SqlitePool,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};
use tokio::sync::broadcast;

pub use query::{Level, LogQuery};

use crate::limits::{LOG_BUSY_TIMEOUT, LOG_CONNECTIONS, LOG_FOLLOW_QUEUE, LOG_MESSAGE_BYTES, LOG_RECORDS_PER_SANDBOX};

/// The log database could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The database answered with an error.
    #[error("the log database failed: {0}")]
    Database(#[from] sqlx::Error),
    /// A newer gateway made the table.
    #[error("the log table has version {found}, and this gateway knows {known}; use the newer gateway, or move the database away")]
    Newer {
        /// Version of the table.
        found: i64,
        /// Version of this build.
        known: i64,
    },
    /// A stored record does not decode.
    #[error("a stored log record is damaged: {0}")]
    Damaged(#[from] serde_json::Error),
}

/// A record with its place in the store.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredLog {
    /// Grows over all records of the store; the order in which they were committed.
    pub id: i64,
    /// As the supervisor sent it.
    pub record: LogRecord,
}

/// Logs of all sandboxes. Cheap to clone.
#[derive(Clone, Debug)]
pub struct LogStore {
    pool: SqlitePool,
    shared: Arc<Mutex<Shared>>,
}

#[derive(Debug, Default)]
struct Shared {
    followers: HashMap<String, broadcast::Sender<StoredLog>>,
    /// Records appended since the sandbox was last trimmed.
    untrimmed: HashMap<String, u32>,
}

/// Trimming is a scan: it is done once for so many records.
const TRIM_EVERY: u32 = 256;

impl LogStore {
    /// Opens a database of its own, making it where it is missing.
    pub async fn at(path: &Path) -> Result<Self, LogError> {
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Normal)
            .busy_timeout(LOG_BUSY_TIMEOUT);
        Self::open(SqlitePoolOptions::new().max_connections(LOG_CONNECTIONS).connect_with(options).await?).await
    }

    /// Opens the store, making its table where it is missing.
    pub async fn open(pool: SqlitePool) -> Result<Self, LogError> {
        schema::migrate(&pool).await?;
        Ok(Self { pool, shared: Arc::default() })
    }

    /// Stores a batch and returns the highest sequence number that is now stored for this
    /// instance. A record that is stored already is passed over.
    pub async fn append(&self, sandbox: &str, instance: &str, records: Vec<LogRecord>) -> Result<u64, LogError> {
        let mut stored = Vec::with_capacity(records.len());
        let mut highest = 0;
        let mut tx = self.pool.begin_with("BEGIN IMMEDIATE").await?;
        for mut record in records {
            truncate(&mut record.message, LOG_MESSAGE_BYTES);
            highest = highest.max(record.seq);
            // Sorted, so that equal records have equal bytes.
            let fields: BTreeMap<_, _> = record.fields.iter().collect();
            let id = sqlx::query(
                "INSERT INTO sandbox_logs (sandbox, instance, seq, time_ns, level, severity, target, message, fields, ocsf, gap)
                 VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING RETURNING id",
            )
            .bind(sandbox)
            .bind(instance)
            .bind(record.seq as i64)
            .bind(query::nanoseconds(record.time.as_ref()))
            .bind(&record.level)
            .bind(Level::of(&record.level) as i64)
            .bind(&record.target)
            .bind(&record.message)
            .bind(if fields.is_empty() { String::new() } else { serde_json::to_string(&fields)? })
            .bind(&record.ocsf)
            .bind(record.gap as i64)
            .fetch_optional(&mut *tx)
            .await?;
            if let Some(row) = id {
                stored.push(StoredLog { id: row.get(0), record });
            }
        }
        let known: Option<i64> = sqlx::query("SELECT max(seq) FROM sandbox_logs WHERE sandbox = ? AND instance = ?")
            .bind(sandbox)
            .bind(instance)
            .fetch_one(&mut *tx)
            .await?
            .get(0);
        tx.commit().await?;
        let highest = highest.max(known.unwrap_or(0) as u64);
        if self.publish(sandbox, stored) {
            self.trim(sandbox).await?;
        }
        Ok(highest)
    }

    /// Tells followers, and says whether it is time to trim.
    fn publish(&self, sandbox: &str, stored: Vec<StoredLog>) -> bool {
        let mut shared = self.shared.lock();
        let untrimmed = shared.untrimmed.entry(sandbox.to_owned()).or_default();
        *untrimmed += stored.len() as u32;
        let trim = *untrimmed >= TRIM_EVERY;
        if trim {
            *untrimmed = 0;
        }
        if let Some(followers) = shared.followers.get(sandbox) {
            let mut anyone = true;
            for log in stored {
                anyone = followers.send(log).is_ok();
            }
            if !anyone {
                shared.followers.remove(sandbox);
            }
        }
        trim
    }

    async fn trim(&self, sandbox: &str) -> Result<(), LogError> {
        sqlx::query(
            "DELETE FROM sandbox_logs WHERE sandbox = ?1 AND id <=
             (SELECT id FROM sandbox_logs WHERE sandbox = ?1 ORDER BY id DESC LIMIT 1 OFFSET ?2)",
        )
        .bind(sandbox)
        .bind(LOG_RECORDS_PER_SANDBOX)
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// Highest sequence number stored for an instance; 0 before the first.
    pub async fn acknowledged(&self, sandbox: &str, instance: &str) -> Result<u64, LogError> {
        let highest: Option<i64> = sqlx::query("SELECT max(seq) FROM sandbox_logs WHERE sandbox = ? AND instance = ?")
            .bind(sandbox)
            .bind(instance)
            .fetch_one(&self.pool)
            .await?
            .get(0);
        Ok(highest.unwrap_or(0) as u64)
    }

    /// The newest records that match, oldest first.
    pub async fn tail(&self, sandbox: &str, query: &LogQuery) -> Result<Vec<StoredLog>, LogError> {
        query::tail(&self.pool, sandbox, query).await
    }

    /// Records as they are committed, from now on. A follower that is too far behind is told
    /// how many it missed; it can read them with [`LogStore::tail`].
    pub fn follow(&self, sandbox: &str) -> broadcast::Receiver<StoredLog> {
        let mut shared = self.shared.lock();
        shared.followers.entry(sandbox.to_owned()).or_insert_with(|| broadcast::channel(LOG_FOLLOW_QUEUE).0).subscribe()
    }

    /// [`LogStore::tail`], and a follower that continues exactly after it: take from the
    /// receiver what has an `id` above that of the last record returned here.
    pub async fn tail_and_follow(
        &self,
        sandbox: &str,
        query: &LogQuery,
    ) -> Result<(Vec<StoredLog>, broadcast::Receiver<StoredLog>), LogError> {
        let follower = self.follow(sandbox);
        Ok((self.tail(sandbox, query).await?, follower))
    }

    /// Forgets a sandbox.
    pub async fn delete(&self, sandbox: &str) -> Result<(), LogError> {
        {
            let mut shared = self.shared.lock();
            shared.followers.remove(sandbox);
            shared.untrimmed.remove(sandbox);
        }
        sqlx::query("DELETE FROM sandbox_logs WHERE sandbox = ?").bind(sandbox).execute(&self.pool).await?;
        Ok(())
    }

    /// Forgets every sandbox that is not in `existing`: those deleted in the moment in which
    /// the gateway was killed.
    pub async fn retain(&self, existing: &HashSet<String>) -> Result<(), LogError> {
        let rows = sqlx::query("SELECT DISTINCT sandbox FROM sandbox_logs").fetch_all(&self.pool).await?;
        for row in rows {
            let sandbox: String = row.get(0);
            if !existing.contains(&sandbox) {
                self.delete(&sandbox).await?;
            }
        }
        Ok(())
    }
}

/// Cuts `text` at a character boundary.
fn truncate(text: &mut String, limit: usize) {
    if text.len() > limit {
        let mut end = limit;
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text.truncate(end);
        text.push('…');
    }
}
