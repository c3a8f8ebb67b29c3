//! A compiled policy.

use crate::{CompileError, ConnectDecision, Policy, PolicyHash, Process, RequestDecision, RequestFacts, Verdict};

/// A compiled policy: decides, never changes. Cheap to clone, shared between threads.
#[derive(Clone, Debug)]
pub struct Engine {
    policy: std::sync::Arc<Policy>,
    hash: PolicyHash,
}

impl Engine {
    /// Compiles a validated policy.
    pub fn compile(policy: &Policy) -> Result<Self, CompileError> {
        Ok(Self { policy: std::sync::Arc::new(policy.clone()), hash: policy.hash() })
    }

    /// The policy that was compiled.
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// Its hash.
    pub fn hash(&self) -> &PolicyHash {
        &self.hash
    }

    /// May `process` open a connection to `host:port`? `host` is a name or an IP literal.
    pub fn connect(&self, _process: Process<'_>, host: &str, port: u16) -> ConnectDecision {
        ConnectDecision { verdict: Verdict::Deny, policy: None, reason: format!("endpoint {host}:{port} is not allowed by any policy"), endpoint: None }
    }

    /// May `process` send this request on a connection to `host:port`?
    pub fn request(&self, _process: Process<'_>, _host: &str, _port: u16, _request: RequestFacts<'_>) -> RequestDecision {
        RequestDecision { verdict: Verdict::Deny, policy: None, rule: None, reason: "not allowed by any policy".to_owned() }
    }

    /// Whether any rule could grant a connection to this name: policy DNS answers no others.
    pub fn resolvable(&self, _name: &str) -> bool {
        false
    }
}
