//! The supervisor: starts before the agent, confines it, and stays as its only way out.
//!
//! ```text
//!  guardian ── kills every descendant when the supervisor dies
//!   └ supervisor (app/) ── session/ ── gateway     audit/ ── records ──▶ session
//!      │   ├ sandbox  what is in force; config ─ checks what the gateway sends
//!      │   ├ broker/  answers the agent's socket calls ──▶ flow ──▶ egress/ ──▶ network
//!      │   └ process/ main process, execs, terminals, reaping
//!      └ launcher (confine/) ── enters the domain once, then forks
//!          ├ main process
//!          └ execs
//! ```
//!
//! It never links a Kubernetes client. The only unsafe code is in `confine/`.
#![deny(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

#[cfg(all(feature = "ablation", not(debug_assertions)))]
compile_error!("the `ablation` feature removes walls and must never be in a release build");

pub mod app;
pub mod assignment;
pub mod audit;
pub mod bootstrap;
pub mod broker;
pub mod command;
pub mod config;
pub mod confine;
pub mod egress;
pub mod flow;
pub mod limits;
pub mod pod;
pub mod process;
pub mod sandbox;
pub mod session;
