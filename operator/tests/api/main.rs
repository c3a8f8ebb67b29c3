//! The API service as its clients see it: through kube-rs, unchanged.
#![allow(missing_docs, clippy::unwrap_used, clippy::pedantic)]

mod cases;
mod collecting;
mod common;
mod crud;
mod hostile;
mod listing;
mod model;
mod opening;
mod secrets;
mod watching;
