//! The reconciler over real parts: the local API on SQLite, kube-runtime, processes, signals and
//! locks. Only the supervisor is a stand-in: this very binary, which the process driver runs as
//! `<binary> supervise` and which then keeps to the driver's contract and does nothing else.
#![allow(clippy::unwrap_used)]

#[cfg(feature = "failpoints")]
mod crash;
mod driver;
mod lifecycle;
mod lifetime;
mod objects;
mod rig;
#[path = "../common/said.rs"]
mod said;
mod spare;
mod stand_in;
