//! The `process` driver: sandboxes as processes of this machine.

mod config;

pub use config::{BootstrapError, BootstrapSource, GatewayAccess, Grace, ProcessDriverConfig, UidRange};

use futures::StreamExt as _;
use futures::future::BoxFuture;
use futures::stream::BoxStream;

use super::{Capabilities, Cleanup, ComputeDriver, DriverError, WorkloadState};
use crate::blueprint::SandboxBlueprint;

/// Runs sandboxes as processes of this machine.
pub struct ProcessDriver {
    config: ProcessDriverConfig,
}

impl ProcessDriver {
    /// A driver over a directory that exists or can be made.
    pub fn new(config: ProcessDriverConfig) -> Result<Self, DriverError> {
        Ok(Self { config })
    }
}

impl ComputeDriver for ProcessDriver {
    fn name(&self) -> &'static str {
        "process"
    }
    fn capabilities(&self) -> Capabilities {
        Capabilities { cleanup: Cleanup::Finalizer }
    }
    fn admit(&self, _blueprint: &SandboxBlueprint) -> Result<(), DriverError> {
        Ok(())
    }
    fn ensure<'a>(&'a self, _blueprint: &'a SandboxBlueprint) -> BoxFuture<'a, Result<(), DriverError>> {
        let supervisor = self.config.supervisor.display().to_string();
        Box::pin(async move { Err(DriverError::never("NotBuilt", format!("{supervisor} cannot be started by this build"))) })
    }
    fn observe<'a>(&'a self, _uid: &'a str) -> BoxFuture<'a, Result<WorkloadState, DriverError>> {
        Box::pin(async { Ok(WorkloadState::Absent) })
    }
    fn suspend<'a>(&'a self, _uid: &'a str) -> BoxFuture<'a, Result<(), DriverError>> {
        Box::pin(async { Ok(()) })
    }
    fn delete<'a>(&'a self, _uid: &'a str) -> BoxFuture<'a, Result<(), DriverError>> {
        Box::pin(async { Ok(()) })
    }
    fn list(&self) -> BoxFuture<'_, Result<Vec<String>, DriverError>> {
        Box::pin(async { Ok(Vec::new()) })
    }
    fn watch(&self) -> BoxStream<'static, String> {
        futures::stream::pending().boxed()
    }
}
