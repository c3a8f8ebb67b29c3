//! The pure plan: from what shall be and what is to what to do next.
//!
//! ```text
//!   plan(desired, observed, now) ──▶ Plan { actions, status, recheck_at }
//! ```
//!
//! The plan does no I/O and keeps no memory: whatever it must know across a crash is in the
//! object or with the driver. Its actions are idempotent by sandbox UID and are carried out in
//! order; after a crash between any two of them the next plan, made from what is then observed,
//! goes on from there.
//!
//! What it holds to:
//!
//! * A workload is started only from a complete [`SandboxBlueprint`], so never without an
//!   accepted policy, and never while another one of the same sandbox may still be there.
//! * What runs is not stopped because its objects were changed into something unusable: it goes
//!   on under its last good policy and the status says so.
//! * A supervisor that failed is not started again silently, because its agent was lost with it.
//!   A workload that is simply *absent* while it should run (the machine was restarted, or the
//!   gateway was before the start was done) is started. A finished one is not. One that its node
//!   ended (evicted) is as one whose machine was restarted.

mod plan;
mod status;

#[cfg(test)]
mod tests;

use std::time::Duration;

use jiff::Timestamp;
use openshell_crds::OpenShellSandboxStatus;
use openshell_crds::pod::SideloadMethod;

pub use plan::plan;

use crate::blueprint::{BlueprintError, SandboxBlueprint};
use crate::driver::{Cleanup, DriverError, WorkloadState};

/// What shall be.
#[derive(Clone, Debug, PartialEq)]
pub struct Desired {
    /// Generation of the spec that this follows from.
    pub generation: i64,
    /// When the object was made, by the API server's clock.
    pub made_at: Option<Timestamp>,
    /// What is wanted.
    pub intent: Intent,
    /// For how long.
    pub lifetime: Lifetime,
}

/// For how long a sandbox is wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lifetime {
    /// When its time is over.
    pub until: Option<Timestamp>,
    /// How long nothing may happen in it until it is suspended.
    pub idle: Option<Duration>,
}

/// What is wanted of a sandbox.
#[derive(Clone, Debug, PartialEq)]
pub enum Intent {
    /// It shall run.
    Run(Box<SandboxBlueprint>),
    /// It shall be stopped and keep its workspace.
    Suspend,
    /// Its objects do not make a sandbox.
    Refused(Refusal),
    /// It shall be gone.
    Remove,
}

/// Why objects do not make a sandbox that this driver can run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Stable, CamelCase.
    pub reason: String,
    /// What is wrong, and what to do about it.
    pub message: String,
}

impl From<BlueprintError> for Refusal {
    fn from(error: BlueprintError) -> Self {
        Self { reason: error.reason.to_string(), message: error.message }
    }
}

impl From<DriverError> for Refusal {
    fn from(error: DriverError) -> Self {
        Self { reason: error.code.to_owned(), message: error.message }
    }
}

/// What is.
#[derive(Clone, Debug, PartialEq)]
pub struct Observed {
    /// Name of the driver.
    pub driver: String,
    /// How the driver's workloads are cleaned up.
    pub cleanup: Cleanup,
    /// Whether our finalizer holds the object.
    pub hold: Hold,
    /// What the driver sees.
    pub workload: WorkloadState,
    /// The object's status: the gateway's part says what its session sees, the operator's own
    /// part is what was written last.
    pub status: OpenShellSandboxStatus,
    /// How the supervisor gets into the workload, where there was a choice.
    pub sideload_method: Option<SideloadMethod>,
    /// What the driver answered to the last action of this plan, if it failed.
    pub failure: Option<DriverError>,
}

impl Observed {
    /// Whether this very instance of a supervisor runs.
    fn runs(&self, instance: &str) -> bool {
        matches!(&self.workload, WorkloadState::Running { instance: Some(running), .. } if running == instance)
    }
}

/// Whether our finalizer holds the object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hold {
    /// It does.
    Held,
    /// It does not.
    Free,
}

/// What to do, and what to say.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// In this order.
    pub actions: Vec<Action>,
    /// The status as it should stand; the parts that the gateway owns are as observed.
    pub status: OpenShellSandboxStatus,
    /// When to plan again even if nothing is seen to change.
    pub recheck_at: Option<Timestamp>,
}

/// One step; idempotent by sandbox UID.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Put our finalizer on the object, before anything exists that it must outlive.
    Hold,
    /// Make the workload run.
    Ensure(Box<SandboxBlueprint>),
    /// End the workload, keep its workspace.
    Suspend,
    /// End the workload and remove everything of it.
    Delete,
    /// Take our finalizer off: nothing is left outside the API.
    Release,
    /// Delete the object, unless it has changed since it was read: its time is over.
    Expire,
}
