//! The real `openshell` program against a gateway made for these tests.
#![allow(missing_docs, clippy::unwrap_used)] // Tests: a panic is their way to fail.

mod commands;
mod exec;
mod support;
