//! Compute drivers: where workloads run.
//!
//! A driver makes a workload be there, be gone, or be suspended, and says what it sees. It
//! decides nothing: [`crate::reconcile::plan`] does. Every operation is idempotent by sandbox
//! UID and returns as soon as the work is under way; the end of it is an item of
//! [`ComputeDriver::watch`] and visible in [`ComputeDriver::observe`].

pub mod kubernetes;
pub mod process;
mod registry;

use futures::future::BoxFuture;
use futures::stream::BoxStream;
use jiff::Timestamp;
use openshell_crds::pod::SideloadMethod;

pub use registry::{Registry, RegistryError};

use crate::blueprint::SandboxBlueprint;

/// A place where workloads run.
pub trait ComputeDriver: Send + Sync {
    /// Its name in the registry, in configuration and in `status.driver`.
    fn name(&self) -> &'static str;

    /// What it can do.
    fn capabilities(&self) -> Capabilities;

    /// Whether this driver can run this sandbox as it is asked for. Pure and quick: it is asked
    /// when a sandbox is created or its policy changes, so that the answer comes at once.
    fn admit(&self, blueprint: &SandboxBlueprint) -> Result<(), DriverError>;

    /// Makes the workload run. Nothing happens if it does.
    fn ensure<'a>(&'a self, blueprint: &'a SandboxBlueprint) -> BoxFuture<'a, Result<(), DriverError>>;

    /// What is there now.
    fn observe<'a>(&'a self, uid: &'a str) -> BoxFuture<'a, Result<WorkloadState, DriverError>>;

    /// Ends the workload and keeps its workspace.
    fn suspend<'a>(&'a self, uid: &'a str) -> BoxFuture<'a, Result<(), DriverError>>;

    /// Ends the workload and removes everything of it. For a workload that is
    /// [`WorkloadState::Absent`] everything is removed when this returns.
    fn delete<'a>(&'a self, uid: &'a str) -> BoxFuture<'a, Result<(), DriverError>>;

    /// UIDs of all sandboxes that the driver holds anything for.
    fn list(&self) -> BoxFuture<'_, Result<Vec<String>, DriverError>>;

    /// How the supervisor gets into the workload, where there was a choice.
    fn sideload_method(&self, _uid: &str) -> Option<SideloadMethod> {
        None
    }

    /// UIDs of sandboxes whose workload has changed, from now on. A slow reader is told of
    /// sandboxes that have not changed, never left without one that has.
    fn watch(&self) -> BoxStream<'static, String>;
}

/// What a driver can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capabilities {
    /// How what it made is cleaned up.
    pub cleanup: Cleanup,
}

/// How what a driver made is cleaned up when its sandbox object goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cleanup {
    /// The objects are owned by the sandbox object; the API's garbage collection does it.
    OwnerReferences,
    /// Outside the API: a finalizer holds the object until the driver is done.
    Finalizer,
}

/// What a driver sees of a workload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WorkloadState {
    /// Nothing runs, and nothing says that it should not.
    Absent,
    /// Ended on request; the workspace is kept.
    Suspended,
    /// Begun; the supervisor has not identified itself yet.
    Starting {
        /// What keeps it, if anything does.
        waiting: Option<Waiting>,
    },
    /// The supervisor runs.
    Running {
        /// As the driver names it: a process id, a container, a pod.
        id: String,
        /// Instance id that the supervisor's session will carry, where the driver can know it.
        instance: Option<String>,
        /// Since when it has been seen to run. Absent where nothing is gained by waiting a moment
        /// for its session before its start is said.
        since: Option<Timestamp>,
    },
    /// On its way out; nothing may be started in its place yet.
    Stopping,
    /// It ended by no doing of its own, as when a machine is restarted: evicted, or its node is
    /// gone. What is left of it has to be ended before it can be started again.
    Lost {
        /// Stable code in CamelCase.
        code: String,
        /// A sentence for people.
        message: String,
        /// When that was seen.
        at: Timestamp,
    },
    /// It ended without being asked to, or could not start.
    Failed {
        /// Stable code in CamelCase.
        code: String,
        /// A sentence for people.
        message: String,
        /// When.
        at: Timestamp,
    },
}

/// What keeps a workload from starting, while that may still pass.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// Stable, CamelCase.
    pub reason: String,
    /// A sentence for people.
    pub message: String,
    /// From when on it is worth saying: most of what a start waits for passes in a moment.
    pub from: Timestamp,
}

/// A driver could not do what was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct DriverError {
    /// Stable code in CamelCase: the reason of a condition.
    pub code: &'static str,
    /// What failed, why, and what to do next.
    pub message: String,
    /// Whether trying again can help.
    pub retry: Retry,
}

/// Whether trying again can help.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// The cause may pass (disk full, out of descriptors).
    Later,
    /// Not until someone changes something.
    Never,
}

impl DriverError {
    /// An error whose cause may pass.
    pub fn later(code: &'static str, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), retry: Retry::Later }
    }

    /// An error that stays until someone changes something.
    pub fn never(code: &'static str, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), retry: Retry::Never }
    }
}
