//! Garbage collection by owner references.

use std::sync::Arc;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::store::writer::{Core, Job};

pub(crate) async fn run(_core: Arc<Core>, _queue: mpsc::Sender<Job>, shutdown: CancellationToken) {
    shutdown.cancelled().await;
}
