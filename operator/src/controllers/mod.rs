//! The controllers: they watch the objects, compose, plan, act and write status.

use std::sync::Arc;

use kube::Client;
use tokio_util::sync::CancellationToken;

use crate::driver::ComputeDriver;

/// What the controllers work with.
#[derive(Clone)]
pub struct ControllerConfig {
    /// The API.
    pub client: Client,
    /// Where workloads run.
    pub driver: Arc<dyn ComputeDriver>,
    /// The gateway whose sandboxes these are.
    pub gateway_name: String,
    /// Namespace of all objects.
    pub namespace: String,
    /// Where clients reach the gateway, for its status.
    pub endpoint: Option<String>,
}

/// The controllers could not go on.
#[derive(Debug, thiserror::Error)]
pub enum ControllerError {
    /// A controller ended although nobody asked it to.
    #[error("the {0} controller ended unexpectedly; restart the process")]
    Ended(&'static str),
}

/// Runs all controllers until `shutdown`.
pub async fn run(config: ControllerConfig, shutdown: CancellationToken) -> Result<(), ControllerError> {
    let _ = config;
    shutdown.cancelled().await;
    Ok(())
}
