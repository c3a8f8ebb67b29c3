//! The operator on a real cluster: kubernetes driver, controllers, lease.
//!
//! Needs a cluster with agent-sandbox, named by `OPENSHELL_TEST_KUBECONFIG`; skipped without one.
//! `make cluster` starts one (docs/cluster.md). In place of the supervisor a stand-in runs, and the tests say what the gateway would.
#![allow(clippy::unwrap_used)]
// Documents are written where they are used.
#![allow(clippy::needless_pass_by_value)]

mod cases;
mod deployment;
mod election;
mod faults;
mod killed;
mod lifecycle;
mod processes;
mod rig;
#[path = "../common/said.rs"]
mod said;
mod starting;
mod telling;
