//! The gateway: serves openshell.v1, authenticates, stores, pushes configuration and relays.
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod limits;
pub mod session;
