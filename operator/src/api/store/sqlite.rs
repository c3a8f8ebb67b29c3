//! SQLite: opening, migrations, loading, and the transaction of one write.
//!
//! WAL with `synchronous=NORMAL`: a commit survives the death of this process at any moment; a
//! loss of power may take the last commits but never half of one.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{Connection as _, Row as _, SqliteConnection, SqlitePool};
use zeroize::Zeroizing;

use super::seal::{SealKeyError, Sealer, WhenMissing};
use super::state::{Change, Event, Key, Stored};
use crate::api::kinds::{DefinitionError, Kinds};
use crate::api::limits;
use crate::lock::FileLock;

/// Why a store cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it.
    #[error("the database {} is in use by another process; stop the other gateway, or use another state directory", .0.display())]
    Locked(PathBuf),
    /// A newer release wrote it.
    #[error(
        "the database {} has schema version {found}, and this binary knows versions up to {known}; use the newer binary that wrote it, or another state directory", .path.display()
    )]
    Newer {
        /// The database.
        path: PathBuf,
        /// Its version.
        found: i64,
        /// The newest version of this binary.
        known: i64,
    },
    /// Directory or file cannot be made, read or written.
    #[error("the database {} cannot be opened: {source}; check the owner and the mode of its directory", .path.display())]
    Access {
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The disk is full.
    #[error("the database {} cannot be opened because the disk is full; free space and try again", .0.display())]
    DiskFull(PathBuf),
    /// Not a database, or a damaged one.
    #[error("the database {} is damaged: {why}; restore it from a backup, or move it away to start empty", .path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// The key of the sealed values cannot be used.
    #[error("the seal key {} cannot be used: {source}", .path.display())]
    SealKey {
        /// The file.
        path: PathBuf,
        /// Why.
        source: SealKeyError,
    },
    /// A definition cannot be served.
    #[error(transparent)]
    Definition(#[from] DefinitionError),
}

/// Schema changes in order; the index is the version that it starts from.
const MIGRATIONS: &[&[&str]] = &[&[
    "CREATE TABLE objects (kind TEXT NOT NULL, namespace TEXT NOT NULL, name TEXT NOT NULL, body BLOB NOT NULL, PRIMARY KEY (kind, namespace, name)) STRICT",
    "CREATE TABLE secret_values (uid TEXT NOT NULL, key TEXT NOT NULL, nonce BLOB NOT NULL, sealed BLOB NOT NULL, PRIMARY KEY (uid, key)) STRICT, WITHOUT ROWID",
    "CREATE TABLE resource_version (id INTEGER PRIMARY KEY CHECK (id = 1), version INTEGER NOT NULL) STRICT",
    "INSERT INTO resource_version (id, version) VALUES (1, 1)",
]];

/// Component name of this schema in `schema_versions`.
const COMPONENT: &str = "api";

/// What a write does to the values of a Secret.
#[derive(Default)]
pub(crate) struct SecretChange {
    /// New values.
    pub(crate) set: Vec<(String, Zeroizing<Vec<u8>>)>,
    /// Keys that no longer exist.
    pub(crate) remove: Vec<String>,
}

/// The open database.
pub(crate) struct Database {
    connection: SqliteConnection,
    pub(crate) pool: SqlitePool,
    pub(crate) sealer: Sealer,
    /// Held for as long as the store is open.
    _lock: FileLock,
}

/// What was in it.
pub(crate) struct Loaded {
    pub(crate) resource_version: u64,
    pub(crate) objects: BTreeMap<Key, Arc<Stored>>,
}

impl Database {
    /// Opens or makes the database, brings its schema up to date and reads every object.
    pub(crate) async fn open(path: &Path, seal_key: &Path, pages: u32, kinds: &Kinds) -> Result<(Self, Loaded), OpenError> {
        let access = |path: &Path| {
            let path = path.to_owned();
            move |source| OpenError::Access { path, source }
        };
        if let Some(parent) = path.parent().filter(|p| !p.as_os_str().is_empty()) {
            std::fs::DirBuilder::new().recursive(true).mode(0o700).create(parent).map_err(access(parent))?;
        }
        let lock = take_lock(path)?;
        // Made here, so that it is never readable by others, not even for a moment.
        OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path).map_err(access(path))?;

        let options = SqliteConnectOptions::new()
            .filename(path)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Normal)
            .busy_timeout(limits::BUSY_TIMEOUT)
            .pragma("secure_delete", "ON")
            .pragma("max_page_count", pages.to_string());
        let explain = |error: sqlx::Error| open_error(path, &error);
        let mut connection = SqliteConnection::connect_with(&options).await.map_err(explain)?;
        migrate(path, &mut connection).await?;
        let loaded = load(path, &mut connection, kinds).await?;

        let sealed: i64 = sqlx::query_scalar("SELECT count(*) FROM secret_values").fetch_one(&mut connection).await.map_err(explain)?;
        let missing = if sealed == 0 { WhenMissing::Create } else { WhenMissing::Refuse };
        let sealer = Sealer::open(seal_key, missing).map_err(|source| OpenError::SealKey { path: seal_key.to_owned(), source })?;
        let pool = SqlitePoolOptions::new().max_connections(limits::POOL).min_connections(0).connect_lazy_with(options);
        Ok((Self { connection, pool, sealer, _lock: lock }, loaded))
    }

    /// Makes one event durable, with the values of a Secret, in one transaction.
    ///
    /// The transaction is written out and not left to `sqlx`: SQLite rolls some failures back by
    /// itself (a full disk), after which sqlx believes that the transaction is still open.
    pub(crate) async fn commit(&mut self, kinds: &Kinds, event: &Event, secrets: &SecretChange) -> Result<(), sqlx::Error> {
        sqlx::query("BEGIN IMMEDIATE").execute(&mut self.connection).await?;
        let mut result = self.write(kinds, event, secrets).await;
        if result.is_ok() {
            result = sqlx::query("COMMIT").execute(&mut self.connection).await.map(drop);
        }
        if result.is_err() {
            // Fails when SQLite has rolled back already: then there is nothing left to do.
            let _ = sqlx::query("ROLLBACK").execute(&mut self.connection).await;
        }
        result
    }

    async fn write(&mut self, kinds: &Kinds, event: &Event, secrets: &SecretChange) -> Result<(), sqlx::Error> {
        let connection = &mut self.connection;
        let kind = kinds.by_id(event.key.kind).map(|k| k.qualified()).unwrap_or_default();
        let (Key { namespace, name, .. }, uid) = (&event.key, &event.object.uid);
        match event.change {
            Change::Deleted => {
                let statement = "DELETE FROM objects WHERE kind = ? AND namespace = ? AND name = ?";
                sqlx::query(statement).bind(kind).bind(namespace).bind(name).execute(&mut *connection).await?;
                sqlx::query("DELETE FROM secret_values WHERE uid = ?").bind(uid).execute(&mut *connection).await?;
            }
            Change::Added | Change::Modified => {
                let statement =
                    "INSERT INTO objects (kind, namespace, name, body) VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE SET body = excluded.body";
                let body = &event.object.bytes[..];
                sqlx::query(statement).bind(kind).bind(namespace).bind(name).bind(body).execute(&mut *connection).await?;
            }
        }
        for key in &secrets.remove {
            sqlx::query("DELETE FROM secret_values WHERE uid = ? AND key = ?").bind(uid).bind(key).execute(&mut *connection).await?;
        }
        for (key, value) in &secrets.set {
            let (nonce, sealed) = self.sealer.seal(uid, key, value).map_err(|error| sqlx::Error::Encode(error.into()))?;
            let statement = "INSERT INTO secret_values (uid, key, nonce, sealed) VALUES (?, ?, ?, ?) \
                             ON CONFLICT DO UPDATE SET nonce = excluded.nonce, sealed = excluded.sealed";
            sqlx::query(statement).bind(uid).bind(key).bind(&nonce[..]).bind(sealed).execute(&mut *connection).await?;
        }
        sqlx::query("UPDATE resource_version SET version = ?").bind(event.resource_version as i64).execute(connection).await?;
        Ok(())
    }

    /// The values of a Secret.
    pub(crate) async fn values(&mut self, uid: &str) -> Result<BTreeMap<String, Zeroizing<Vec<u8>>>, sqlx::Error> {
        values(&mut self.connection, &self.sealer, uid).await
    }

    /// Closes it; the write-ahead log is folded into the database.
    pub(crate) async fn close(self) {
        self.pool.close().await;
        if let Err(error) = self.connection.close().await {
            tracing::warn!(%error, "closing the database");
        }
    }
}

/// The values of a Secret.
pub(crate) async fn values(
    connection: impl sqlx::SqliteExecutor<'_>,
    sealer: &Sealer,
    uid: &str,
) -> Result<BTreeMap<String, Zeroizing<Vec<u8>>>, sqlx::Error> {
    let rows = sqlx::query("SELECT key, nonce, sealed FROM secret_values WHERE uid = ?").bind(uid).fetch_all(connection).await?;
    let mut values = BTreeMap::new();
    for row in rows {
        let (key, nonce, sealed): (String, Vec<u8>, Vec<u8>) = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
        let value = sealer.open_value(uid, &key, &nonce, &sealed).map_err(|error| sqlx::Error::Decode(error.into()))?;
        values.insert(key, value);
    }
    Ok(values)
}

/// Whether the disk is full.
pub(crate) fn is_full(error: &sqlx::Error) -> bool {
    // SQLITE_FULL is 13 (sqlite.org/rescode.html); ENOSPC in the log appears as an I/O error.
    primary_code(error) == Some(13) || error.to_string().contains("No space left")
}

fn primary_code(error: &sqlx::Error) -> Option<i32> {
    let code: i32 = error.as_database_error()?.code()?.parse().ok()?;
    Some(code & 0xff)
}

fn open_error(path: &Path, error: &sqlx::Error) -> OpenError {
    let path = path.to_owned();
    if is_full(error) {
        return OpenError::DiskFull(path);
    }
    // sqlite.org/rescode.html: 5 BUSY, 6 LOCKED, 8 READONLY, 10 IOERR, 11 CORRUPT, 14 CANTOPEN, 26 NOTADB.
    match primary_code(error) {
        Some(5 | 6) => OpenError::Locked(path),
        Some(8 | 10 | 14) => OpenError::Access { path, source: std::io::Error::other(error.to_string()) },
        _ => OpenError::Damaged { path, why: error.to_string() },
    }
}

fn take_lock(path: &Path) -> Result<FileLock, OpenError> {
    let mut lock = path.as_os_str().to_owned();
    lock.push(".lock");
    let lock = PathBuf::from(lock);
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&lock)
        .map_err(|source| OpenError::Access { path: lock.clone(), source })?;
    match FileLock::try_take(file) {
        Ok(Some(held)) => Ok(held),
        Ok(None) => Err(OpenError::Locked(path.to_owned())),
        Err(source) => Err(OpenError::Access { path: lock, source }),
    }
}

async fn migrate(path: &Path, connection: &mut SqliteConnection) -> Result<(), OpenError> {
    let explain = |error: sqlx::Error| open_error(path, &error);
    let known = MIGRATIONS.len() as i64;
    let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await.map_err(explain)?;
    sqlx::query("CREATE TABLE IF NOT EXISTS schema_versions (component TEXT PRIMARY KEY, version INTEGER NOT NULL) STRICT")
        .execute(&mut *transaction)
        .await
        .map_err(explain)?;
    let found: i64 = sqlx::query_scalar("SELECT version FROM schema_versions WHERE component = ?")
        .bind(COMPONENT)
        .fetch_optional(&mut *transaction)
        .await
        .map_err(explain)?
        .unwrap_or(0);
    if found > known {
        return Err(OpenError::Newer { path: path.to_owned(), found, known });
    }
    for step in MIGRATIONS.iter().skip(usize::try_from(found).unwrap_or_default()) {
        for statement in step.iter().copied() {
            sqlx::query(statement).execute(&mut *transaction).await.map_err(explain)?;
        }
    }
    sqlx::query("INSERT INTO schema_versions (component, version) VALUES (?, ?) ON CONFLICT DO UPDATE SET version = excluded.version")
        .bind(COMPONENT)
        .bind(known)
        .execute(&mut *transaction)
        .await
        .map_err(explain)?;
    transaction.commit().await.map_err(explain)
}

async fn load(path: &Path, connection: &mut SqliteConnection, kinds: &Kinds) -> Result<Loaded, OpenError> {
    let explain = |error: sqlx::Error| open_error(path, &error);
    let damaged = |why: String| OpenError::Damaged { path: path.to_owned(), why };
    let version: i64 = sqlx::query_scalar("SELECT version FROM resource_version").fetch_one(&mut *connection).await.map_err(explain)?;
    let rows = sqlx::query("SELECT kind, namespace, name, body FROM objects").fetch_all(connection).await.map_err(explain)?;
    let mut objects = BTreeMap::new();
    for row in rows {
        let (kind, namespace, name, body): (String, String, String, Vec<u8>) = (
            row.try_get(0).map_err(explain)?,
            row.try_get(1).map_err(explain)?,
            row.try_get(2).map_err(explain)?,
            row.try_get(3).map_err(explain)?,
        );
        let id = kinds.by_qualified(&kind).ok_or_else(|| damaged(format!("it holds objects of the unknown kind {kind}")))?.id;
        let stored = Stored::from_bytes(Bytes::from(body)).map_err(|error| damaged(format!("{kind} {namespace}/{name}: {error}")))?;
        objects.insert(Key { kind: id, namespace, name }, Arc::new(stored));
    }
    Ok(Loaded { resource_version: u64::try_from(version).unwrap_or(1), objects })
}
