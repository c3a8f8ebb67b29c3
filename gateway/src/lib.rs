//! The gateway: serves `openshell.v1`, authenticates, stores, pushes configuration and relays.
//!
//! ```text
//!           gRPC, HTTP (one port, TLS)                     supervisors (same port)
//!                    │                                              │
//!   serve ── TLS, HTTP/1.1 and HTTP/2, the client's certificate ────┤
//!   auth  ── who is it, and may it call this method? ───────────────┤
//!                    │                                              │
//!   api ── one file per group of methods            session ── the supervisors' streams
//!     │  convert: objects ◂▸ wire                     │
//!     ▼                                               ▼
//!   kube::Client ────── the API service: the in-process one locally, an apiserver in a cluster
//! ```
//!
//! The gateway keeps no state of its own: everything it says comes from objects, and everything
//! it does is a write to an object that the controllers act on. [`local`] is the wiring of a
//! gateway on one machine, with the controllers in the same process; [`cluster`] that of one in a
//! cluster, whose controllers are the operator's.
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod auth;
pub mod cluster;
pub mod errors;
pub mod limits;
pub mod local;
pub mod pki;
pub mod process;
pub mod serve;
pub mod session;
pub mod settings;
pub mod start;
pub mod state;

mod addresses;
mod api;
mod convert;
mod health;
mod http;
mod port;
mod running;
