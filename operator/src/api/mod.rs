//! The in-process API service: a Kubernetes API for our kinds, without a cluster.
//!
//! ```text
//!   controllers, gateway, tests ── kube::Client ─┐
//!   openshell apply|get (HTTPS, via the gateway) ┴─▶ ApiService ──▶ writer ──▶ SQLite
//!                                                        │             │
//!                                                        └── State ◀───┘  get, list, watch
//! ```
//!
//! The same controllers run on this and on an API server, so the semantics are an API server's:
//! one resourceVersion over the store, optimistic locking, status as a subresource, generation,
//! paging, selectors, watches with bookmarks and 410, merge and JSON patches, server-side apply,
//! finalizers, owner-reference collection, validation by the definitions that we ship.
//!
//! What differs, on purpose: an unknown field is refused whatever `fieldValidation` says (the
//! local store prunes nothing), a Secret's values are never served, any namespace exists, there
//! is no authorization (the gateway authenticates before it forwards), and there is no
//! admission, conversion or protobuf.

mod apply;
mod body;
mod discovery;
mod error;
mod gc;
mod kinds;
pub mod limits;
mod list;
mod metadata;
mod patch;
mod render;
mod request;
mod secrets;
mod selector;
mod service;
mod store;
mod table;
mod validate;
mod watch;
mod write;

use std::path::Path;
use std::sync::Arc;

use parking_lot::RwLock;
use sqlx::SqlitePool;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use error::ApiError;
pub use kinds::DefinitionError;
pub use secrets::{KubeSecrets, SecretBytes, SecretError, SecretValues};
pub use service::{ApiBody, ApiService};
pub use store::seal::SealKeyError;
pub use store::sqlite::OpenError;

use kinds::Kinds;
use store::seal::Sealer;
use store::sqlite::Database;
use store::state::{Ring, State};
use store::writer::{Core, Job, Writer, Written};
use watch::Watches;
use write::Write;

/// What the handles of one store share.
pub(crate) struct Inner {
    core: Arc<Core>,
    queue: mpsc::Sender<Job>,
    pool: SqlitePool,
    sealer: Sealer,
    watches: Watches,
    shutdown: CancellationToken,
    tasks: TaskTracker,
}

impl Inner {
    async fn submit(&self, write: Write) -> Result<Written, ApiError> {
        submit(&self.queue, write).await
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

async fn submit(queue: &mpsc::Sender<Job>, write: Write) -> Result<Written, ApiError> {
    let (reply, result) = oneshot::channel();
    queue.send(Job { write, reply }).await.map_err(|_| ApiError::closed())?;
    result.await.map_err(|_| ApiError::closed())?
}

/// The local store and its API. Cloning gives another handle to the same store.
#[derive(Clone)]
pub struct LocalApi {
    inner: Arc<Inner>,
}

/// Bounds of a store. The defaults are the ones in [`limits`].
#[derive(Clone, Copy, Debug)]
pub struct Options {
    ring: Ring,
    pages: u32,
}

impl Default for Options {
    fn default() -> Self {
        Self { ring: Ring::default(), pages: limits::DATABASE_PAGES }
    }
}

impl Options {
    /// Keeps at most so many events for watches that resume.
    #[must_use]
    pub fn events(mut self, events: usize) -> Self {
        self.ring.events = events;
        self
    }

    /// Lets the database grow to so many pages of 4 KiB.
    #[must_use]
    pub fn pages(mut self, pages: u32) -> Self {
        self.pages = pages;
        self
    }
}

impl LocalApi {
    /// Opens the database and the key that seals Secret values; makes what does not exist.
    ///
    /// Must be called inside a tokio runtime: the writer and the collector run on it. One
    /// process at a time may have a store open.
    pub async fn open(db: &Path, seal_key: &Path) -> Result<Self, OpenError> {
        Self::open_with(db, seal_key, Options::default()).await
    }

    /// [`LocalApi::open`] with other bounds.
    pub async fn open_with(db: &Path, seal_key: &Path, options: Options) -> Result<Self, OpenError> {
        let kinds = Kinds::shared()?;
        let (database, loaded) = Database::open(db, seal_key, options.pages, &kinds).await?;
        let version = tokio::sync::watch::Sender::new(loaded.resource_version);
        let state = RwLock::new(State::new(loaded.resource_version, loaded.objects, options.ring));
        let core = Arc::new(Core { kinds, state, version });
        let (queue, jobs) = mpsc::channel(limits::WRITE_QUEUE);
        let shutdown = CancellationToken::new();
        let tasks = TaskTracker::new();
        let inner = Inner {
            core: core.clone(),
            queue: queue.clone(),
            pool: database.pool.clone(),
            sealer: database.sealer.clone(),
            watches: Watches::default(),
            shutdown: shutdown.clone(),
            tasks: tasks.clone(),
        };
        tasks.spawn(Writer { core: core.clone(), database, jobs, shutdown: shutdown.clone() }.run());
        tasks.spawn(gc::run(core, queue, shutdown));
        tasks.close();
        Ok(Self { inner: Arc::new(inner) })
    }

    /// A client of this API, as controllers use it in a cluster. Its default namespace is
    /// [`crate::LOCAL_NAMESPACE`].
    pub fn client(&self) -> kube::Client {
        kube::Client::new(self.service(), crate::LOCAL_NAMESPACE)
    }

    /// The API as a service, to be put behind a server that authenticates.
    pub fn service(&self) -> ApiService {
        ApiService(self.inner.clone())
    }

    /// Reads the values of credential Secrets.
    pub fn secrets(&self) -> Arc<dyn SecretValues> {
        Arc::new(secrets::LocalSecrets(self.inner.clone()))
    }

    /// The database, for tables of other components (each has its row in `schema_versions`).
    pub fn pool(&self) -> SqlitePool {
        self.inner.pool.clone()
    }

    /// Ends every watch, refuses further writes and closes the database; returns when the files
    /// may be opened again.
    pub async fn close(self) {
        self.inner.shutdown.cancel();
        self.inner.tasks.wait().await;
    }
}
