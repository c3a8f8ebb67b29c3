//! Who runs the sandboxes of this gateway.

use std::sync::Arc;

use openshell_operator::blueprint::SandboxBlueprint;
use openshell_operator::driver::{Cleanup, ComputeDriver, DriverError};

/// Who runs the sandboxes.
#[derive(Clone)]
pub(crate) enum Placement {
    /// This process, by a driver.
    Here(Arc<dyn ComputeDriver>),
    /// The operator of the cluster. What it cannot run it says in the object's conditions.
    Operator,
}

/// What a sandbox is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Workload {
    /// Processes of a machine: no image, no node, no limits.
    Processes,
    /// A pod.
    Pod,
}

impl Placement {
    /// What it makes of a sandbox.
    pub(crate) fn workload(&self) -> Workload {
        match self {
            Self::Here(_) => Workload::Processes,
            Self::Operator => Workload::Pod,
        }
    }

    /// The driver's name.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Here(driver) => driver.name(),
            Self::Operator => "kubernetes",
        }
    }

    /// Whether it can run this.
    pub(crate) fn admit(&self, blueprint: &SandboxBlueprint) -> Result<(), DriverError> {
        match self {
            Self::Here(driver) => driver.admit(blueprint),
            Self::Operator => Ok(()),
        }
    }

    /// How what runs is cleaned up.
    pub(crate) fn cleanup(&self) -> Cleanup {
        match self {
            Self::Here(driver) => driver.capabilities().cleanup,
            Self::Operator => Cleanup::OwnerReferences,
        }
    }
}
