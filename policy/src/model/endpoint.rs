//! One destination and how connections to it are treated.

use std::collections::BTreeSet;

use indexmap::IndexMap;
use ipnet::IpNet;
use serde::{Deserialize, Deserializer, Serialize};

use super::{RequestMatch, Rule, is_default};

/// One destination: host and ports, how the connection is carried, what may be said on it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Endpoint {
    /// Name, IP literal or wildcard. Empty (any name) only together with `allowed_ips`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub host: String,
    /// A single port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// Several ports; not together with `port`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<u16>,
    /// Selects the requests that this endpoint governs. Empty: all.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub path: String,
    /// What is spoken; empty means nobody looks (L4).
    #[serde(default, skip_serializing_if = "is_default")]
    pub protocol: Protocol,
    /// Whether TLS is terminated.
    #[serde(default, skip_serializing_if = "is_default")]
    pub tls: TlsMode,
    /// Whether a request that no rule allows is refused or only recorded. Unset: `audit`.
    #[serde(default, skip_serializing_if = "is_default")]
    pub enforcement: Enforcement,
    /// A ready-made set of allow rules; not together with `rules`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub access: Option<AccessPreset>,
    /// What is allowed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rules: Option<Vec<Rule>>,
    /// What is taken away again; beats every allow rule.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deny_rules: Option<Vec<RequestMatch>>,
    /// Addresses and networks (CIDR) in which the host has to resolve; the only way to private ranges.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allowed_ips: Vec<String>,
    /// `%2F` stays encoded in a path instead of being refused.
    #[serde(default, skip_serializing_if = "is_default")]
    pub allow_encoded_slash: bool,
    /// Placeholders in client WebSocket text frames are replaced.
    #[serde(default, skip_serializing_if = "is_default")]
    pub websocket_credential_rewrite: bool,
    /// Placeholders in request bodies are replaced.
    #[serde(default, skip_serializing_if = "is_default")]
    pub request_body_credential_rewrite: bool,
    /// Accept that credentials may reach an endpoint whose requests nobody looks at.
    #[serde(default, skip_serializing_if = "is_default")]
    pub allow_uninspected_credentials: bool,
    /// GraphQL: what happens to persisted queries.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub persisted_queries: Option<PersistedQueries>,
    /// GraphQL: the registered persisted queries.
    #[serde(default, skip_serializing_if = "IndexMap::is_empty")]
    pub graphql_persisted_queries: IndexMap<String, GraphqlOperation>,
    /// GraphQL: largest body that is parsed, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub graphql_max_body_bytes: Option<u32>,
    /// JSON-RPC options.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub json_rpc: Option<JsonRpcOptions>,
    /// MCP options.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mcp: Option<McpOptions>,
    /// Requests are signed on their way out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credential_signing: Option<CredentialSigning>,
    /// Service name of the signature.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signing_service: Option<String>,
    /// Region of the signature.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signing_region: Option<String>,
    /// Which provider's credentials are meant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credential_binding: Option<CredentialBinding>,
}

impl Endpoint {
    /// All its ports, sorted.
    pub fn all_ports(&self) -> BTreeSet<u16> {
        self.port.iter().chain(&self.ports).copied().collect()
    }

    /// `allowed_ips` as networks. Entries that are none (refused by validation) are left out.
    pub fn networks(&self) -> Vec<IpNet> {
        self.allowed_ips.iter().filter_map(|text| parse_network(text)).collect()
    }

    /// Whether every request on it is looked at.
    pub fn is_inspected(&self) -> bool {
        !matches!(self.protocol, Protocol::Opaque | Protocol::Tcp)
    }

    /// The endpoint in words: `api.example.com:443/v1/**`.
    pub fn describe(&self) -> String {
        let host = if self.host.is_empty() { "(any host)" } else { &self.host };
        let ports: Vec<String> = self.all_ports().iter().map(u16::to_string).collect();
        format!("{host}:{}{}", ports.join(","), self.path)
    }
}

/// A network from `10.0.0.0/8` or a single address; host bits are cut off.
pub(crate) fn parse_network(text: &str) -> Option<IpNet> {
    text.parse::<IpNet>().ok().or_else(|| text.parse::<std::net::IpAddr>().ok().map(IpNet::from)).map(|net| net.trunc())
}

/// What is spoken on an endpoint. Read in any case.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize)]
pub enum Protocol {
    /// Not said: host and port decide, nobody looks inside.
    #[default]
    #[serde(rename = "")]
    Opaque,
    /// Said to be raw TCP: relayed as it is.
    #[serde(rename = "tcp")]
    Tcp,
    /// HTTP requests by method, path and query.
    #[serde(rename = "rest")]
    Rest,
    /// WebSocket.
    #[serde(rename = "websocket")]
    Websocket,
    /// GraphQL over HTTP.
    #[serde(rename = "graphql")]
    Graphql,
    /// SQL.
    #[serde(rename = "sql")]
    Sql,
    /// JSON-RPC over HTTP.
    #[serde(rename = "json-rpc")]
    JsonRpc,
    /// Model Context Protocol.
    #[serde(rename = "mcp")]
    Mcp,
}

impl Protocol {
    /// Every protocol of the language.
    pub const ALL: [Self; 8] = [Self::Opaque, Self::Tcp, Self::Rest, Self::Websocket, Self::Graphql, Self::Sql, Self::JsonRpc, Self::Mcp];

    /// The word of the file.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Opaque => "",
            Self::Tcp => "tcp",
            Self::Rest => "rest",
            Self::Websocket => "websocket",
            Self::Graphql => "graphql",
            Self::Sql => "sql",
            Self::JsonRpc => "json-rpc",
            Self::Mcp => "mcp",
        }
    }

    /// From the word of the file, in any case.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|p| p.as_str().eq_ignore_ascii_case(word))
    }
}

impl<'de> Deserialize<'de> for Protocol {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let word = String::deserialize(deserializer)?;
        Self::from_word(&word).ok_or_else(|| serde::de::Error::custom(format_args!("unknown protocol `{word}`")))
    }
}

/// Whether TLS is terminated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum TlsMode {
    /// Found out, and terminated where somebody has to look. `terminate` is an old name for it.
    #[default]
    #[serde(rename = "", alias = "terminate")]
    Auto,
    /// Never terminated.
    #[serde(rename = "skip")]
    Skip,
}

impl TlsMode {
    /// The word of the file.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "",
            Self::Skip => "skip",
        }
    }
}

/// What happens to a request that no rule allows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Enforcement {
    /// It passes and is recorded.
    #[default]
    Audit,
    /// It is refused.
    Enforce,
}

impl Enforcement {
    /// The word of the file.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Audit => "audit",
            Self::Enforce => "enforce",
        }
    }
}

/// A ready-made set of allow rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AccessPreset {
    /// GET, HEAD, OPTIONS.
    ReadOnly,
    /// Those and POST, PUT, PATCH; no DELETE.
    ReadWrite,
    /// Everything.
    Full,
}

impl AccessPreset {
    /// The word of the file.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ReadOnly => "read-only",
            Self::ReadWrite => "read-write",
            Self::Full => "full",
        }
    }

    /// Methods that it allows for `rest`; `*` is any.
    pub fn rest_methods(self) -> &'static [&'static str] {
        match self {
            Self::ReadOnly => &["GET", "HEAD", "OPTIONS"],
            Self::ReadWrite => &["GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH"],
            Self::Full => &["*"],
        }
    }
}

/// What happens to GraphQL persisted queries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PersistedQueries {
    /// Refused.
    Deny,
    /// Allowed when registered in the policy.
    AllowRegistered,
}

impl PersistedQueries {
    /// The word of the file.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Deny => "deny",
            Self::AllowRegistered => "allow_registered",
        }
    }
}

/// Kind of a GraphQL operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum OperationType {
    /// `query`.
    #[serde(rename = "query")]
    Query,
    /// `mutation`.
    #[serde(rename = "mutation")]
    Mutation,
    /// `subscription`.
    #[serde(rename = "subscription")]
    Subscription,
    /// Any of them.
    #[serde(rename = "*")]
    Any,
}

impl OperationType {
    /// The word of the file.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Query => "query",
            Self::Mutation => "mutation",
            Self::Subscription => "subscription",
            Self::Any => "*",
        }
    }
}

/// A GraphQL operation that a persisted query stands for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GraphqlOperation {
    /// Its kind.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operation_type: Option<OperationType>,
    /// Its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operation_name: Option<String>,
    /// Its root fields.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fields: Vec<String>,
}

/// JSON-RPC options.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JsonRpcOptions {
    /// Largest body that is parsed, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_body_bytes: Option<u32>,
}

/// MCP options.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct McpOptions {
    /// Largest body that is parsed, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_body_bytes: Option<u32>,
    /// Tool names are compared by the strict grammar.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub strict_tool_names: Option<bool>,
    /// Every method of the protocol is allowed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allow_all_known_mcp_methods: Option<bool>,
}

/// How requests are signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum CredentialSigning {
    /// AWS Signature Version 4, body by need.
    #[serde(rename = "sigv4")]
    Sigv4,
    /// With the body signed.
    #[serde(rename = "sigv4:body")]
    Sigv4Body,
    /// Without it.
    #[serde(rename = "sigv4:no_body")]
    Sigv4NoBody,
}

impl CredentialSigning {
    /// The word of the file.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Sigv4 => "sigv4",
            Self::Sigv4Body => "sigv4:body",
            Self::Sigv4NoBody => "sigv4:no_body",
        }
    }
}

/// Which provider's credentials are meant.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CredentialBinding {
    /// Name of a provider.
    #[serde(default)]
    pub provider: String,
}
