//! The `process` driver: sandboxes as processes of this machine.
//!
//! ```text
//!   <state_dir>/<uid>/  lock  driver.json  supervisor.json  failure.json  suspended
//!                       supervisor.log{,.1}  workspace/  tmp/
//!   <state_dir>/.spare-<uuid>/  of a supervisor that waits for a sandbox
//!   <state_dir>/.removed/  what is being removed
//! ```
//!
//! A supervisor outlives the gateway. What is true is therefore never in this process: it is in
//! the directory, in the kernel's process table and in the lock, and [`inspect`] puts them
//! together. What this process keeps is only what makes it quick: the children it has to reap,
//! a watch on each living supervisor, and who is being stopped.
//!
//! Never two: everything that changes a sandbox holds that sandbox's slot here, one gateway at a
//! time holds the state directory's own lock, and whatever else goes wrong, a supervisor that
//! cannot take the lock of its directory ends at once.

mod admit;
mod config;
mod inspect;
mod kernel;
mod launch;
mod record;
mod removal;
mod sandboxes;
mod spare;
mod stop;
mod uids;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use futures::future::BoxFuture;
use futures::stream::{self, BoxStream};
use tokio::sync::broadcast::error::RecvError;

pub use config::{BootstrapError, BootstrapSource, GatewayAccess, Grace, ProcessDriverConfig, UidRange};

use super::{Capabilities, Cleanup, ComputeDriver, DriverError, WorkloadState};
use crate::blueprint::SandboxBlueprint;
use sandboxes::Sandboxes;

/// Runs sandboxes as processes of this machine. Must be used within a tokio runtime.
pub struct ProcessDriver {
    sandboxes: Arc<Sandboxes>,
}

impl ProcessDriver {
    /// A driver over `config.state_dir`, which is made if it is not there.
    pub fn new(config: ProcessDriverConfig) -> Result<Self, DriverError> {
        let sandboxes = Arc::new(Sandboxes::open(config)?);
        sandboxes.refill_after(Duration::ZERO);
        Ok(Self { sandboxes })
    }

    /// Runs file and process work where it may block.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Arc<Sandboxes>) -> Result<T, DriverError> + Send + 'static,
    ) -> Result<T, DriverError> {
        let sandboxes = Arc::clone(&self.sandboxes);
        tokio::task::spawn_blocking(move || work(&sandboxes))
            .await
            .unwrap_or_else(|error| Err(DriverError::later("Internal", format!("the process driver was interrupted: {error}"))))
    }
}

impl ComputeDriver for ProcessDriver {
    fn name(&self) -> &'static str {
        "process"
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { cleanup: Cleanup::Finalizer }
    }

    fn admit(&self, blueprint: &SandboxBlueprint) -> Result<(), DriverError> {
        let config = self.sandboxes.config();
        admit::admit(blueprint, &config.state_dir, &config.protected_paths)
    }

    fn ensure<'a>(&'a self, blueprint: &'a SandboxBlueprint) -> BoxFuture<'a, Result<(), DriverError>> {
        let blueprint = blueprint.clone();
        Box::pin(self.blocking(move |sandboxes| sandboxes.ensure(&blueprint)))
    }

    fn observe<'a>(&'a self, uid: &'a str) -> BoxFuture<'a, Result<WorkloadState, DriverError>> {
        let uid = uid.to_owned();
        Box::pin(self.blocking(move |sandboxes| sandboxes.observe(&uid)))
    }

    fn suspend<'a>(&'a self, uid: &'a str) -> BoxFuture<'a, Result<(), DriverError>> {
        let uid = uid.to_owned();
        Box::pin(self.blocking(move |sandboxes| sandboxes.end(&uid, stop::After::Keep)))
    }

    fn delete<'a>(&'a self, uid: &'a str) -> BoxFuture<'a, Result<(), DriverError>> {
        let uid = uid.to_owned();
        Box::pin(self.blocking(move |sandboxes| sandboxes.end(&uid, stop::After::Remove)))
    }

    fn list(&self) -> BoxFuture<'_, Result<Vec<String>, DriverError>> {
        Box::pin(self.blocking(Sandboxes::list))
    }

    fn watch(&self) -> BoxStream<'static, String> {
        let changes = self.sandboxes.changes();
        let state_dir: PathBuf = self.sandboxes.config().state_dir.clone();
        stream::unfold((changes, state_dir), |(mut changes, state_dir)| async move {
            let changed = match changes.recv().await {
                Ok(uid) => vec![uid],
                // Too slow: any of them may have changed.
                Err(RecvError::Lagged(_)) => sandboxes::uids_in(&state_dir).unwrap_or_default(),
                Err(RecvError::Closed) => return None,
            };
            Some((stream::iter(changed), (changes, state_dir)))
        })
        .flatten()
        .boxed()
    }
}
