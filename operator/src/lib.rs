//! One reconciler: the API service, blueprints, the pure plan, drivers and controllers.
//!
//! ```text
//!   OpenShellSandbox ─┐
//!   OpenShellGateway ─┼─▶ blueprint::compose ─▶ desired ─┐
//!   Policy, Provider ─┘                                  ├─▶ reconcile::plan ─▶ actions ─▶ driver
//!              driver::observe, status.session ─▶ observed┘                  └▶ status  ─▶ API
//! ```
//!
//! Everything speaks `kube::Client`. In a cluster that is the API server; locally it is an
//! in-process service over SQLite. The controllers cannot tell which, and do not ask.
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod api;
pub mod blueprint;
pub mod controllers;
pub mod driver;
mod failpoint;
pub mod health;
pub mod lease;
pub mod limits;
mod lock;
pub mod metrics;
pub mod pki;
pub mod reconcile;
pub mod revisions;
pub mod watching;

/// Namespace of every local object.
pub const LOCAL_NAMESPACE: &str = "openshell";

/// Field manager of everything the controllers write.
pub const FIELD_MANAGER: &str = "openshell-operator";

/// Holds a sandbox object until the driver has removed what it keeps outside the API. Only for
/// drivers whose workloads the API's garbage collection cannot reach
/// ([`driver::Cleanup::Finalizer`]).
pub const WORKLOAD_FINALIZER: &str = "openshell.ai/workload";
