//! The table, and its version beside those of the other users of the database.

use sqlx::SqlitePool;

use super::LogError;

/// Component name in `schema_versions`.
const COMPONENT: &str = "sandbox-logs";
/// The version that this build makes and reads.
const VERSION: i64 = 1;

pub(super) async fn migrate(pool: &SqlitePool) -> Result<(), LogError> {
    sqlx::query("CREATE TABLE IF NOT EXISTS schema_versions (component TEXT PRIMARY KEY, version INTEGER NOT NULL) STRICT")
        .execute(pool)
        .await?;
    let found: Option<i64> =
        sqlx::query_scalar("SELECT version FROM schema_versions WHERE component = ?").bind(COMPONENT).fetch_optional(pool).await?;
    match found {
        Some(found) if found > VERSION => return Err(LogError::Newer { found, known: VERSION }),
        Some(_) => return Ok(()),
        None => {}
    }
    for statement in [
        "CREATE TABLE IF NOT EXISTS sandbox_logs (
            id INTEGER PRIMARY KEY AUTOINCREMENT,
            sandbox TEXT NOT NULL,
            instance TEXT NOT NULL,
            seq INTEGER NOT NULL,
            time_ns INTEGER NOT NULL,
            level TEXT NOT NULL,
            severity INTEGER NOT NULL,
            target TEXT NOT NULL,
            message TEXT NOT NULL,
            fields TEXT NOT NULL,
            ocsf TEXT NOT NULL,
            gap INTEGER NOT NULL
        )",
        "CREATE UNIQUE INDEX IF NOT EXISTS sandbox_logs_record ON sandbox_logs (sandbox, instance, seq)",
        "CREATE INDEX IF NOT EXISTS sandbox_logs_order ON sandbox_logs (sandbox, id)",
    ] {
        sqlx::query(statement).execute(pool).await?;
    }
    sqlx::query("INSERT INTO schema_versions (component, version) VALUES (?, ?)").bind(COMPONENT).bind(VERSION).execute(pool).await?;
    Ok(())
}
