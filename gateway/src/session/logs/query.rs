//! Reading: the newest records that match, in order.

use std::collections::HashMap;

use openshell_proto::supervisor::LogRecord;
use prost_types::Timestamp;
use sqlx::{QueryBuilder, Row as _, Sqlite, SqlitePool, sqlite::SqliteRow};

use super::{LogError, StoredLog};
use crate::limits::LOG_RECORDS_PER_SANDBOX;

/// Severity, ordered. OCSF events are findings and decisions: no filter by level hides them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Everything.
    #[default]
    Trace = 0,
    /// Details for the developers of the supervisor.
    Debug = 1,
    /// What happens.
    Info = 2,
    /// What someone should look at.
    Warn = 3,
    /// What failed.
    Error = 4,
    /// A decision or finding.
    Ocsf = 5,
}

impl Level {
    /// The level that a text names, in any case; an unknown one is `Info`.
    pub fn of(text: &str) -> Self {
        match text.to_ascii_uppercase().as_str() {
            "TRACE" => Self::Trace,
            "DEBUG" => Self::Debug,
            "WARN" | "WARNING" => Self::Warn,
            "ERROR" => Self::Error,
            "OCSF" => Self::Ocsf,
            _ => Self::Info,
        }
    }
}

/// Which records.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogQuery {
    /// At most so many, the newest; 0: all that are kept.
    pub lines: u32,
    /// Not older than this.
    pub since: Option<Timestamp>,
    /// Only these targets (`stdout`, `proxy`, ...); empty: all.
    pub targets: Vec<String>,
    /// Only this level and above.
    pub min_level: Level,
    /// Only records committed after this one.
    pub after: Option<i64>,
}

impl LogQuery {
    /// Whether a record that comes in while following matches.
    pub fn matches(&self, log: &StoredLog) -> bool {
        Level::of(&log.record.level) >= self.min_level
            && (self.targets.is_empty() || self.targets.contains(&log.record.target))
            && self.since.as_ref().is_none_or(|since| nanoseconds(log.record.time.as_ref()) >= nanoseconds(Some(since)))
            && self.after.is_none_or(|after| log.id > after)
    }
}

pub(super) fn nanoseconds(time: Option<&Timestamp>) -> i64 {
    time.map_or(0, |t| t.seconds.saturating_mul(1_000_000_000).saturating_add(i64::from(t.nanos)))
}

pub(super) async fn tail(pool: &SqlitePool, sandbox: &str, query: &LogQuery) -> Result<Vec<StoredLog>, LogError> {
    let mut sql = QueryBuilder::<Sqlite>::new(
        "SELECT id, seq, time_ns, level, target, message, fields, ocsf, gap FROM sandbox_logs WHERE sandbox = ",
    );
    sql.push_bind(sandbox);
    if let Some(since) = &query.since {
        sql.push(" AND time_ns >= ").push_bind(nanoseconds(Some(since)));
    }
    if query.min_level > Level::Trace {
        sql.push(" AND severity >= ").push_bind(query.min_level as i64);
    }
    if let Some(after) = query.after {
        sql.push(" AND id > ").push_bind(after);
    }
    if !query.targets.is_empty() {
        sql.push(" AND target IN (");
        let mut list = sql.separated(", ");
        for target in &query.targets {
            list.push_bind(target);
        }
        sql.push(")");
    }
    let lines = if query.lines == 0 { LOG_RECORDS_PER_SANDBOX } else { query.lines.min(LOG_RECORDS_PER_SANDBOX) };
    sql.push(" ORDER BY id DESC LIMIT ").push_bind(lines);
    let rows = sql.build().fetch_all(pool).await?;
    rows.iter().rev().map(stored).collect()
}

fn stored(row: &SqliteRow) -> Result<StoredLog, LogError> {
    let time: i64 = row.get("time_ns");
    let fields: &str = row.get("fields");
    let fields: HashMap<String, String> = if fields.is_empty() { HashMap::new() } else { serde_json::from_str(fields)? };
    Ok(StoredLog {
        id: row.get("id"),
        record: LogRecord {
            seq: row.get::<i64, _>("seq") as u64,
            time: Some(Timestamp { seconds: time.div_euclid(1_000_000_000), nanos: time.rem_euclid(1_000_000_000) as i32 }),
            level: row.get("level"),
            target: row.get("target"),
            message: row.get("message"),
            fields,
            ocsf: row.get("ocsf"),
            gap: row.get::<i64, _>("gap") as u64,
        },
    })
}
