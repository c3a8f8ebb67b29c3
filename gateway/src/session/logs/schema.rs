//! The table.

use sqlx::SqlitePool;

use super::LogError;

pub(super) async fn migrate(pool: &SqlitePool) -> Result<(), LogError> {
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
    Ok(())
}
