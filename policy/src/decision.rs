//! What is asked of a policy and what it answers.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::Serialize;

/// Who is asking: the executable that opened the connection and those above it.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Process<'a> {
    /// Absolute path of the executable.
    pub path: &'a str,
    /// Executables of its ancestors inside the sandbox, nearest first.
    pub ancestors: &'a [String],
}

/// Allowed or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Granted by a rule.
    Allow,
    /// Not granted, or taken away by a deny rule.
    Deny,
    /// Not granted, but the endpoint only audits: it passes and is recorded.
    Audit,
}

/// May this process open a connection to this host and port?
#[derive(Clone, Debug, PartialEq)]
pub struct ConnectDecision {
    /// `Allow` or `Deny`; never `Audit`.
    pub verdict: Verdict,
    /// Lexicographically smallest policy that matched.
    pub policy: Option<String>,
    /// Why, in one sentence, for logs and for the client.
    pub reason: String,
    /// How to carry the connection, when it is allowed.
    pub endpoint: Option<EndpointPlan>,
}

/// How an allowed connection is carried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointPlan {
    /// What to look at.
    pub inspection: Inspection,
    /// Not empty: every address that the name resolves to has to lie in one of these networks, and
    /// private ones are reachable in them. Empty: public addresses only.
    pub allowed_ips: Vec<IpNet>,
    /// The rule names the host exactly (no wildcard).
    pub exact_host: bool,
    /// `%2F` may stay in paths.
    pub allow_encoded_slash: bool,
    /// The policy accepts that credentials reach this endpoint although nobody looks at its requests.
    pub allow_uninspected_credentials: bool,
}

impl EndpointPlan {
    /// Whether [`EndpointPlan::allowed_ips`] permits this address. What may never be reached
    /// (loopback, link-local, metadata) and, without networks, what is not public is for the
    /// destination check to refuse besides.
    pub fn permits_address(&self, address: IpAddr) -> bool {
        self.allowed_ips.is_empty() || self.allowed_ips.iter().any(|net| net.contains(&address.to_canonical()))
    }
}

/// What the proxy looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inspection {
    /// Host and port only. TLS, where it is seen, is still terminated if credentials are bound.
    Connection,
    /// `tls: skip`: the server name is checked, the rest passes through.
    ServerName,
    /// Every HTTP request is decided.
    Http,
}

/// An HTTP request in canonical form.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct RequestFacts<'a> {
    /// Method, upper case as sent.
    pub method: &'a str,
    /// Canonical path: decoded, no dot segments.
    pub path: &'a str,
    /// Decoded query parameters in order.
    pub query: &'a [(String, String)],
}

/// May this request pass?
#[derive(Clone, Debug, PartialEq)]
pub struct RequestDecision {
    /// The verdict.
    pub verdict: Verdict,
    /// Policy that decided.
    pub policy: Option<String>,
    /// Rule that decided, as the file says it (`GET /repos/**`), if one did.
    pub rule: Option<String>,
    /// Why, in one sentence.
    pub reason: String,
}
