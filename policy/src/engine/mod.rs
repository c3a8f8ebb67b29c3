//! A compiled policy.
//!
//! ```text
//!                      ┌────────────── Engine ──────────────┐
//!   connect(process,   │  index   what a decision touches,  │   ConnectDecision
//!   host, port)  ────▶ │          found by hashing: the way │ ────▶
//!   request(...)       │          of every decision         │   RequestDecision
//!                      │  rego    the rules themselves,     │
//!                      │          policy/rego over the file │
//!                      └────────────────────────────────────┘
//! ```
//!
//! The rules are the Rego modules in `policy/rego`; the policy file is their data. Asking them takes
//! about a millisecond and decisions have ten microseconds, so the index decides in their place, and
//! is held to them: the differential tests compare every part of both answers over generated
//! policies, and [`Engine::verify`] compares them about the very policy at hand. Loading the rules
//! takes ten milliseconds and several times the memory of the index, so an engine does not keep them:
//! [`Engine::authority`] loads them for those who want to ask them.

mod binaries;
mod index;
mod rego;
mod sentence;

#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::sync::Arc;

use crate::host::canonical_host;
use crate::{CompileError, ConnectDecision, Policy, PolicyHash, Process, RequestDecision, RequestFacts};

pub use rego::Authority;

/// A compiled policy: decides, never changes. Cheap to clone, shared between threads.
#[derive(Clone, Debug)]
pub struct Engine {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    policy: Policy,
    hash: PolicyHash,
    binaries: Vec<Vec<String>>,
    index: index::Index,
}

impl Engine {
    /// Compiles a policy, which has to be valid.
    pub fn compile(policy: &Policy) -> Result<Self, CompileError> {
        Self::compile_with_links(policy, |_| Vec::new())
    }

    /// Compiles a policy for a sandbox in which configured executables may be symbolic
    /// links: `targets` names what a configured path stands for besides itself. An executable is
    /// known by the path that the kernel reports, which is never a link.
    pub fn compile_with_links(policy: &Policy, targets: impl Fn(&str) -> Vec<String>) -> Result<Self, CompileError> {
        policy.validate().map_err(|e| CompileError(e.to_string()))?;
        let policy = policy.normalized();
        let binaries = binaries::resolve(&policy, targets);
        let index = index::Index::build(&policy, &binaries)?;
        Ok(Self { shared: Arc::new(Shared { hash: policy.hash(), policy, binaries, index }) })
    }

    /// The policy that was compiled.
    pub fn policy(&self) -> &Policy {
        &self.shared.policy
    }

    /// Its hash.
    pub fn hash(&self) -> &PolicyHash {
        &self.shared.hash
    }

    /// Loads the rules in Rego, which this engine's decisions equal. For proofs and explanations: slow.
    pub fn authority(&self) -> Result<Authority, CompileError> {
        Authority::load(&self.shared.policy, &self.shared.binaries)
    }

    /// Asks index and rules about endpoints of this very policy; an error means that this engine must
    /// not decide. Takes tens of milliseconds: for the background, after the engine is in use.
    pub fn verify(&self) -> Result<(), CompileError> {
        self.authority()?.check(&self.shared.index)
    }

    /// May `process` open a connection to `host:port`? `host` is a name or an IP literal.
    pub fn connect(&self, process: Process<'_>, host: &str, port: u16) -> ConnectDecision {
        self.shared.index.connect(process, &canonical_host(host), port)
    }

    /// May `process` send this request on a connection to `host:port`?
    pub fn request(&self, process: Process<'_>, host: &str, port: u16, request: RequestFacts<'_>) -> RequestDecision {
        let method: Cow<'_, str> = upper_case(request.method);
        let facts = RequestFacts { method: &method, ..request };
        self.shared.index.request(process, &canonical_host(host), port, facts)
    }

    /// Whether any rule could grant a connection to this name: policy DNS answers no others.
    pub fn resolvable(&self, name: &str) -> bool {
        self.shared.index.names(&canonical_host(name))
    }
}

/// Methods are compared in upper case: a server that accepts `delete` must not be a way around a
/// rule about `DELETE`.
fn upper_case(method: &str) -> Cow<'_, str> {
    if method.bytes().any(|b| b.is_ascii_lowercase()) { Cow::Owned(method.to_ascii_uppercase()) } else { Cow::Borrowed(method) }
}
