//! Workloads without an object.
//!
//! The finalizer keeps an object until its workload is gone, so there are none, unless the store
//! was lost or restored, or the finalizer taken off by hand. Such a workload is ended, because
//! nobody can say any more what it may do. Its workspace is kept, because nobody said it may go.

use std::collections::HashSet;
use std::sync::Arc;

use kube::ResourceExt as _;
use kube::api::{Api, ListParams};
use openshell_crds::OpenShellSandbox;
use tokio_util::sync::CancellationToken;

use super::watched::Guarded;
use super::{Shared, api};
use crate::driver::{Cleanup, WorkloadState};
use crate::limits;

/// Runs until shutdown.
pub(super) async fn run(shared: Arc<Shared>, shutdown: CancellationToken) {
    if shared.config.driver.capabilities().cleanup == Cleanup::OwnerReferences {
        shutdown.cancelled().await;
        return;
    }
    loop {
        if let Err(error) = look(&shared).await {
            tracing::warn!(%error, "workloads without an object could not be looked for");
        }
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(limits::ORPHAN_INTERVAL) => {}
        }
    }
}

async fn look(shared: &Shared) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let driver = &shared.config.driver;
    // Workloads first: one that begins after this has an object that the list below contains.
    let workloads = driver.list().await?;
    let sandboxes: Api<Guarded<OpenShellSandbox>> = api(&shared.config);
    let known: HashSet<String> = sandboxes.list(&ListParams::default()).await?.items.iter().filter_map(Guarded::uid).collect();
    for uid in workloads.into_iter().filter(|uid| !known.contains(uid)) {
        match driver.observe(&uid).await? {
            WorkloadState::Starting { .. } | WorkloadState::Running { .. } => {
                tracing::warn!(sandbox = uid, "a workload has no sandbox object any more; it is ended and its workspace kept");
                driver.suspend(&uid).await?;
            }
            _ => {}
        }
    }
    Ok(())
}
