use sqlx::sqlite::{SqliteConnectOptions, SqlitePoolOptions};

use super::*;

async fn store(dir: &tempfile::TempDir) -> LogStore {
    let options = SqliteConnectOptions::new().filename(dir.path().join("logs.db")).create_if_missing(true);
    LogStore::open(SqlitePoolOptions::new().connect_with(options).await.unwrap()).await.unwrap()
}

fn record(seq: u64, level: &str, target: &str, message: &str) -> LogRecord {
    LogRecord {
        seq,
        time: Some(prost_types::Timestamp { seconds: 1_700_000_000 + seq as i64, nanos: 5 }),
        level: level.into(),
        target: target.into(),
        message: message.into(),
        fields: [("k".to_owned(), "v".to_owned())].into(),
        ocsf: String::new(),
        gap: 0,
    }
}

fn messages(logs: &[StoredLog]) -> Vec<&str> {
    logs.iter().map(|l| l.record.message.as_str()).collect()
}

#[tokio::test]
async fn a_batch_sent_again_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let logs = store(&dir).await;
    let batch = vec![record(1, "INFO", "stdout", "a"), record(2, "INFO", "stdout", "b")];
    assert_eq!(logs.append("s", "i", batch.clone()).await.unwrap(), 2);
    assert_eq!(logs.append("s", "i", batch).await.unwrap(), 2);
    assert_eq!(logs.append("s", "i", vec![record(2, "INFO", "stdout", "b"), record(3, "INFO", "stdout", "c")]).await.unwrap(), 3);
    // A new supervisor process counts from 1 again.
    assert_eq!(logs.append("s", "j", vec![record(1, "INFO", "stdout", "d")]).await.unwrap(), 1);
    let tail = logs.tail("s", &LogQuery::default()).await.unwrap();
    assert_eq!(messages(&tail), ["a", "b", "c", "d"]);
    assert_eq!(tail[0].record, record(1, "INFO", "stdout", "a"));
    assert_eq!(logs.acknowledged("s", "i").await.unwrap(), 3);
    assert_eq!(logs.acknowledged("s", "other").await.unwrap(), 0);
}

#[tokio::test]
async fn filters_by_count_level_target_and_time() {
    let dir = tempfile::tempdir().unwrap();
    let logs = store(&dir).await;
    let batch = vec![
        record(1, "DEBUG", "supervisor", "debug"),
        record(2, "INFO", "stdout", "out"),
        record(3, "ERROR", "stderr", "err"),
        record(4, "OCSF", "proxy", "denied"),
    ];
    logs.append("s", "i", batch).await.unwrap();
    let query = |q: LogQuery| {
        let logs = logs.clone();
        async move { logs.tail("s", &q).await.unwrap().into_iter().map(|l| l.record.message).collect::<Vec<_>>() }
    };
    assert_eq!(query(LogQuery { lines: 2, ..LogQuery::default() }).await, ["err", "denied"]);
    assert_eq!(query(LogQuery { min_level: Level::Warn, ..LogQuery::default() }).await, ["err", "denied"]);
    assert_eq!(query(LogQuery { targets: vec!["stdout".into(), "stderr".into()], ..LogQuery::default() }).await, ["out", "err"]);
    let since = prost_types::Timestamp { seconds: 1_700_000_004, nanos: 0 };
    assert_eq!(query(LogQuery { since: Some(since), ..LogQuery::default() }).await, ["denied"]);
}

#[tokio::test]
async fn survives_reopening_and_is_forgotten_with_its_sandbox() {
    let dir = tempfile::tempdir().unwrap();
    let logs = store(&dir).await;
    logs.append("s", "i", vec![record(1, "INFO", "stdout", "kept")]).await.unwrap();
    logs.append("t", "i", vec![record(1, "INFO", "stdout", "other")]).await.unwrap();
    drop(logs);
    let logs = store(&dir).await;
    assert_eq!(messages(&logs.tail("s", &LogQuery::default()).await.unwrap()), ["kept"]);
    logs.retain(&HashSet::from(["t".to_owned()])).await.unwrap();
    assert!(logs.tail("s", &LogQuery::default()).await.unwrap().is_empty());
    logs.delete("t").await.unwrap();
    assert!(logs.tail("t", &LogQuery::default()).await.unwrap().is_empty());
}

#[tokio::test]
async fn keeps_the_newest_up_to_the_bound() {
    let dir = tempfile::tempdir().unwrap();
    let logs = store(&dir).await;
    let total = u64::from(LOG_RECORDS_PER_SANDBOX) + 600;
    for first in (1..=total).step_by(500) {
        let batch = (first..(first + 500).min(total + 1)).map(|seq| record(seq, "INFO", "stdout", &seq.to_string())).collect();
        logs.append("s", "i", batch).await.unwrap();
    }
    let count: i64 = sqlx::query("SELECT count(*) FROM sandbox_logs").fetch_one(&logs.pool).await.unwrap().get(0);
    assert!(count <= i64::from(LOG_RECORDS_PER_SANDBOX + TRIM_EVERY), "{count}");
    assert_eq!(logs.tail("s", &LogQuery { lines: 1, ..LogQuery::default() }).await.unwrap()[0].record.seq, total);
}

#[tokio::test]
async fn a_follower_continues_where_the_tail_ends() {
    let dir = tempfile::tempdir().unwrap();
    let logs = store(&dir).await;
    logs.append("s", "i", vec![record(1, "INFO", "stdout", "before")]).await.unwrap();
    let (tail, mut follower) = logs.tail_and_follow("s", &LogQuery::default()).await.unwrap();
    logs.append("s", "i", vec![record(1, "INFO", "stdout", "before"), record(2, "INFO", "stdout", "after")]).await.unwrap();
    let next = follower.recv().await.unwrap();
    assert_eq!((next.record.message.as_str(), next.id > tail[0].id), ("after", true));
    assert!(follower.try_recv().is_err());
}

#[test]
fn long_messages_are_cut_at_a_character() {
    let mut text = "ä".repeat(10);
    truncate(&mut text, 5);
    assert_eq!(text, "ää…");
}
