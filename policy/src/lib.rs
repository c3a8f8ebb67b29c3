//! The policy language: parse, validate, compile, decide. No I/O, no async.
//!
//! ```text
//!   file (YAML / JSON) --parse--> Policy --validate--> Policy --compile--> Engine
//!                        |                    |                     |
//!             place of every error   what cannot be enforced   Rego decides
//!             (line, column, path)    is refused with its path
//! ```
//!
//! A policy grants; what it does not grant is denied. Nothing in a file is ignored: an unknown
//! key, an impossible combination or a key that is not enforced yet refuses the whole file.
#![forbid(unsafe_code)]

mod canonical;
pub mod checks;
pub mod decision;
mod document;
pub mod engine;
pub mod error;
pub mod glob;
pub mod host;
pub mod limits;
pub mod model;
pub mod parse;
pub mod schema;
mod shape;
mod validate;

pub use canonical::PolicyHash;
pub use decision::{ConnectDecision, EndpointPlan, Inspection, Process, RequestDecision, RequestFacts, Verdict};
pub use engine::Engine;
pub use error::{CompileError, Finding, PolicyError};
pub use model::Policy;
pub use parse::{from_json, from_value, from_yaml};
