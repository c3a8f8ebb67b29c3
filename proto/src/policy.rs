//! A policy on the wire: `openshell.sandbox.v1.SandboxPolicy` and back.
//!
//! [`to_wire`] is total: the wire form says everything that a valid policy says. [`from_wire`] is not:
//! what the message says and a policy cannot say (an unknown enum value, fields that only the
//! reference's own components set) is an error with the path of the key it would have been, and what
//! comes out is validated like a file. Absent and default are the same on the wire, as in a file.

use std::collections::HashMap;

use openshell_policy::limits::MAX_BYTES;
use openshell_policy::model::{
    AccessPreset, Binary, CredentialBinding, CredentialSigning, Endpoint, Enforcement, FilesystemPolicy, GraphqlOperation, JsonRpcOptions,
    LandlockCompatibility, LandlockPolicy, Matcher, McpOptions, Middleware, MiddlewareEndpoints, NetworkPolicy, OnError, OperationType,
    PersistedQueries, ProcessPolicy, Protocol, RequestMatch, Rule, TlsMode,
};
use openshell_policy::{Finding, Policy, PolicyError};
use prost::Message as _;

use crate::sandbox as wire;
use crate::value::{object_from_wire, object_to_wire};

#[cfg(test)]
mod tests;

/// The wire form of a policy.
pub fn to_wire(policy: &Policy) -> wire::SandboxPolicy {
    let policy = policy.normalized();
    wire::SandboxPolicy {
        version: policy.version,
        filesystem: policy.filesystem_policy.map(|f| wire::FilesystemPolicy {
            include_workdir: f.include_workdir,
            read_only: f.read_only,
            read_write: f.read_write,
        }),
        landlock: policy.landlock.map(|l| wire::LandlockPolicy { compatibility: l.compatibility.as_str().to_owned() }),
        process: policy.process.map(|p| wire::ProcessPolicy {
            run_as_user: p.run_as_user.unwrap_or_default(),
            run_as_group: p.run_as_group.unwrap_or_default(),
        }),
        network_policies: policy.network_policies.into_iter().map(|(key, network)| (key.clone(), network_to_wire(key, network))).collect(),
        network_middlewares: policy
            .network_middlewares
            .into_iter()
            .map(|(key, middleware)| (key.clone(), middleware_to_wire(key, middleware)))
            .collect(),
    }
}

fn network_to_wire(key: String, network: NetworkPolicy) -> wire::NetworkPolicyRule {
    wire::NetworkPolicyRule {
        name: network.name.unwrap_or(key),
        endpoints: network.endpoints.into_iter().map(endpoint_to_wire).collect(),
        binaries: network.binaries.into_iter().map(|b| wire::NetworkBinary { path: b.path }).collect(),
    }
}

fn endpoint_to_wire(endpoint: Endpoint) -> wire::NetworkEndpoint {
    let json_rpc = endpoint.json_rpc.as_ref().and_then(|o| o.max_body_bytes);
    let mcp = endpoint.mcp.as_ref().and_then(|o| o.max_body_bytes);
    wire::NetworkEndpoint {
        port: endpoint.port.map(u32::from).unwrap_or_default(),
        ports: endpoint.ports.iter().map(|p| u32::from(*p)).collect(),
        protocol: endpoint.protocol.as_str().to_owned(),
        tls: match endpoint.tls {
            TlsMode::Auto => wire::NetworkTlsMode::Unspecified,
            TlsMode::Skip => wire::NetworkTlsMode::Skip,
        }
        .into(),
        enforcement: match endpoint.enforcement {
            Enforcement::Audit => wire::NetworkEnforcementMode::Audit,
            Enforcement::Enforce => wire::NetworkEnforcementMode::Enforce,
        }
        .into(),
        access: match endpoint.access {
            None => wire::NetworkAccessPreset::Unspecified,
            Some(AccessPreset::ReadOnly) => wire::NetworkAccessPreset::ReadOnly,
            Some(AccessPreset::ReadWrite) => wire::NetworkAccessPreset::ReadWrite,
            Some(AccessPreset::Full) => wire::NetworkAccessPreset::Full,
        }
        .into(),
        rules: endpoint.rules.unwrap_or_default().into_iter().map(|r| wire::L7Rule { allow: r.allow.map(allow_to_wire) }).collect(),
        deny_rules: endpoint.deny_rules.unwrap_or_default().into_iter().map(deny_to_wire).collect(),
        allowed_ips: endpoint.allowed_ips,
        allow_encoded_slash: endpoint.allow_encoded_slash,
        persisted_queries: endpoint.persisted_queries.map(PersistedQueries::as_str).unwrap_or_default().to_owned(),
        graphql_persisted_queries: endpoint
            .graphql_persisted_queries
            .into_iter()
            .map(|(key, o)| {
                let operation_type = o.operation_type.map(OperationType::as_str).unwrap_or_default().to_owned();
                (key, wire::GraphqlOperation { operation_type, operation_name: o.operation_name.unwrap_or_default(), fields: o.fields })
            })
            .collect(),
        graphql_max_body_bytes: endpoint.graphql_max_body_bytes.unwrap_or_default(),
        path: endpoint.path,
        websocket_credential_rewrite: endpoint.websocket_credential_rewrite,
        request_body_credential_rewrite: endpoint.request_body_credential_rewrite,
        credential_signing: endpoint.credential_signing.map(CredentialSigning::as_str).unwrap_or_default().to_owned(),
        signing_service: endpoint.signing_service.unwrap_or_default(),
        signing_region: endpoint.signing_region.unwrap_or_default(),
        // One field carries the limit of both families; an endpoint has one protocol.
        json_rpc_max_body_bytes: json_rpc.or(mcp).unwrap_or_default(),
        mcp: endpoint.mcp.map(|o| wire::McpOptions {
            strict_tool_names: o.strict_tool_names,
            allow_all_known_mcp_methods: o.allow_all_known_mcp_methods,
            versions: Vec::new(),
        }),
        credential_binding: endpoint.credential_binding.map(|b| wire::NetworkCredentialBinding { provider: b.provider }),
        allow_uninspected_credentials: endpoint.allow_uninspected_credentials,
        host: endpoint.host,
        advisor_proposed: false,
        provider_credentialed: false,
        token_grant_owner: String::new(),
    }
}

fn allow_to_wire(request: RequestMatch) -> wire::L7Allow {
    let deny = deny_to_wire(request);
    wire::L7Allow {
        method: deny.method,
        path: deny.path,
        command: deny.command,
        query: deny.query,
        operation_type: deny.operation_type,
        operation_name: deny.operation_name,
        fields: deny.fields,
        params: deny.params,
    }
}

fn deny_to_wire(request: RequestMatch) -> wire::L7DenyRule {
    let mut params = matchers_to_wire(request.params);
    // The wire has no `tool`: it is the parameter `name`, with which a file may not combine it.
    params.extend(request.tool.map(|tool| ("name".to_owned(), matcher_to_wire(tool))));
    wire::L7DenyRule {
        method: request.method.unwrap_or_default(),
        path: request.path.unwrap_or_default(),
        command: request.command.unwrap_or_default(),
        query: matchers_to_wire(request.query),
        operation_type: request.operation_type.map(OperationType::as_str).unwrap_or_default().to_owned(),
        operation_name: request.operation_name.unwrap_or_default(),
        fields: request.fields,
        params,
    }
}

fn matchers_to_wire(matchers: impl IntoIterator<Item = (String, Matcher)>) -> HashMap<String, wire::L7QueryMatcher> {
    matchers.into_iter().map(|(key, matcher)| (key, matcher_to_wire(matcher))).collect()
}

fn matcher_to_wire(matcher: Matcher) -> wire::L7QueryMatcher {
    match matcher {
        Matcher::Glob(glob) => wire::L7QueryMatcher { glob, any: Vec::new() },
        Matcher::Any(any) => wire::L7QueryMatcher { glob: String::new(), any },
    }
}

fn middleware_to_wire(key: String, middleware: Middleware) -> wire::NetworkMiddlewareConfig {
    wire::NetworkMiddlewareConfig {
        name: middleware.name.unwrap_or(key),
        middleware: middleware.middleware,
        config: (!middleware.config.is_empty()).then(|| object_to_wire(middleware.config)),
        on_error: middleware.on_error.as_str().to_owned(),
        endpoints: Some(wire::MiddlewareEndpointSelector { include: middleware.endpoints.include, exclude: middleware.endpoints.exclude }),
        order: middleware.order,
    }
}

/// The policy that a message means, validated.
pub fn from_wire(message: &wire::SandboxPolicy) -> Result<Policy, PolicyError> {
    let bytes = message.encoded_len();
    if bytes > MAX_BYTES {
        return Err(refusal("too-large", format!("the policy has {bytes} bytes; at most {MAX_BYTES} are possible, so it was not read")));
    }
    let mut reader = Reader::default();
    let policy = reader.policy(message);
    if !reader.findings.is_empty() {
        return Err(PolicyError { findings: reader.findings });
    }
    // As data it meets the same bounds as a file: what is taken here can be stored and read again.
    let value = serde_json::to_value(policy.normalized()).map_err(|e| refusal("invalid", format!("this is not a policy: {e}")))?;
    openshell_policy::from_value(&value)
}

fn refusal(code: &'static str, message: String) -> PolicyError {
    PolicyError { findings: vec![Finding { code, path: String::new(), line: None, column: None, message }] }
}

/// Collects what a message says that a policy cannot say.
#[derive(Default)]
struct Reader {
    findings: Vec<Finding>,
}

impl Reader {
    fn refuse(&mut self, code: &'static str, path: String, message: String) {
        self.findings.push(Finding { code, path, line: None, column: None, message });
    }

    /// A word of the language, by its list of words; empty is the default.
    fn word<T: Copy>(&mut self, text: &str, path: impl FnOnce() -> String, all: &[T], word: fn(T) -> &'static str) -> Option<T> {
        if text.is_empty() {
            return None;
        }
        let found = all.iter().copied().find(|t| word(*t) == text);
        if found.is_none() {
            let known: Vec<_> = all.iter().map(|t| format!("`{}`", word(*t))).collect();
            self.refuse("unknown-value", path(), format!("`{text}` is not known; use one of {}", known.join(", ")));
        }
        found
    }

    fn policy(&mut self, message: &wire::SandboxPolicy) -> Policy {
        let landlock = message.landlock.as_ref().map(|l| LandlockPolicy {
            compatibility: self
                .word(
                    &l.compatibility,
                    || "landlock.compatibility".to_owned(),
                    &[LandlockCompatibility::BestEffort, LandlockCompatibility::HardRequirement],
                    LandlockCompatibility::as_str,
                )
                .unwrap_or_default(),
        });
        Policy {
            version: message.version,
            filesystem_policy: message.filesystem.as_ref().map(|f| FilesystemPolicy {
                include_workdir: f.include_workdir,
                read_only: f.read_only.clone(),
                read_write: f.read_write.clone(),
            }),
            landlock,
            process: message
                .process
                .as_ref()
                .map(|p| ProcessPolicy { run_as_user: filled(&p.run_as_user), run_as_group: filled(&p.run_as_group) }),
            network_policies: in_order(&message.network_policies)
                .map(|(key, rule)| (key.clone(), self.network(&format!("network_policies.{key}"), rule)))
                .collect(),
            network_middlewares: in_order(&message.network_middlewares)
                .map(|(key, config)| (key.clone(), self.middleware(&format!("network_middlewares.{key}"), config)))
                .collect(),
        }
    }

    fn network(&mut self, path: &str, rule: &wire::NetworkPolicyRule) -> NetworkPolicy {
        NetworkPolicy {
            name: filled(&rule.name),
            endpoints: rule.endpoints.iter().enumerate().map(|(i, e)| self.endpoint(&format!("{path}.endpoints[{i}]"), e)).collect(),
            binaries: rule.binaries.iter().map(|b| Binary { path: b.path.clone(), harness: None }).collect(),
        }
    }

    fn endpoint(&mut self, path: &str, e: &wire::NetworkEndpoint) -> Endpoint {
        for (set, key) in [
            (e.advisor_proposed, "advisor_proposed"),
            (e.provider_credentialed, "provider_credentialed"),
            (!e.token_grant_owner.is_empty(), "token_grant_owner"),
            (e.mcp.as_ref().is_some_and(|m| !m.versions.is_empty()), "mcp.versions"),
        ] {
            if set {
                self.refuse(
                    "derived-field",
                    format!("{path}.{key}"),
                    "is set by the system and is no part of a policy; leave it out".to_owned(),
                );
            }
        }
        let protocol = Protocol::from_word(&e.protocol).unwrap_or_else(|| {
            let known: Vec<_> = Protocol::ALL.iter().map(|p| format!("`{}`", p.as_str())).collect();
            self.refuse(
                "unknown-value",
                format!("{path}.protocol"),
                format!("`{}` is not known; use one of {}", e.protocol, known.join(", ")),
            );
            Protocol::default()
        });
        let (port, ports) = self.ports(path, e);
        let limit = Some(e.json_rpc_max_body_bytes).filter(|n| *n != 0);
        let is_mcp = protocol == Protocol::Mcp || e.mcp.is_some();
        let mcp_limit = limit.filter(|_| is_mcp);
        let mcp = (e.mcp.is_some() || mcp_limit.is_some()).then(|| McpOptions {
            max_body_bytes: mcp_limit,
            strict_tool_names: e.mcp.as_ref().and_then(|m| m.strict_tool_names),
            allow_all_known_mcp_methods: e.mcp.as_ref().and_then(|m| m.allow_all_known_mcp_methods),
        });
        let rules: Vec<Rule> = e
            .rules
            .iter()
            .enumerate()
            .map(|(i, rule)| Rule { allow: rule.allow.as_ref().map(|a| self.allow(&format!("{path}.rules[{i}].allow"), a)) })
            .collect();
        let deny_rules: Vec<RequestMatch> =
            e.deny_rules.iter().enumerate().map(|(i, deny)| self.deny(&format!("{path}.deny_rules[{i}]"), deny)).collect();
        let registered = in_order(&e.graphql_persisted_queries)
            .map(|(key, o)| (key.clone(), self.operation(&format!("{path}.graphql_persisted_queries.{key}"), o)))
            .collect();
        Endpoint {
            host: e.host.clone(),
            port,
            ports,
            path: e.path.clone(),
            protocol,
            tls: self.tls(path, e.tls),
            enforcement: self.enforcement(path, e.enforcement),
            access: self.access(path, e.access),
            rules: Some(rules).filter(|r| !r.is_empty()),
            deny_rules: Some(deny_rules).filter(|r| !r.is_empty()),
            allowed_ips: e.allowed_ips.clone(),
            allow_encoded_slash: e.allow_encoded_slash,
            websocket_credential_rewrite: e.websocket_credential_rewrite,
            request_body_credential_rewrite: e.request_body_credential_rewrite,
            allow_uninspected_credentials: e.allow_uninspected_credentials,
            persisted_queries: self.word(
                &e.persisted_queries,
                || format!("{path}.persisted_queries"),
                &[PersistedQueries::Deny, PersistedQueries::AllowRegistered],
                PersistedQueries::as_str,
            ),
            graphql_persisted_queries: registered,
            graphql_max_body_bytes: Some(e.graphql_max_body_bytes).filter(|n| *n != 0),
            json_rpc: limit.filter(|_| !is_mcp).map(|n| JsonRpcOptions { max_body_bytes: Some(n) }),
            mcp,
            credential_signing: self.word(
                &e.credential_signing,
                || format!("{path}.credential_signing"),
                &[CredentialSigning::Sigv4, CredentialSigning::Sigv4Body, CredentialSigning::Sigv4NoBody],
                CredentialSigning::as_str,
            ),
            signing_service: filled(&e.signing_service),
            signing_region: filled(&e.signing_region),
            credential_binding: e.credential_binding.as_ref().map(|b| CredentialBinding { provider: b.provider.clone() }),
        }
    }

    /// `port` may repeat one of `ports`, as the reference's own components write it.
    fn ports(&mut self, path: &str, e: &wire::NetworkEndpoint) -> (Option<u16>, Vec<u16>) {
        let mut number = |n: u32, key: &str| {
            let port = u16::try_from(n).ok().filter(|p| *p != 0);
            if port.is_none() {
                self.refuse("out-of-range", format!("{path}.{key}"), format!("{n} is not a port; use 1 to 65535"));
            }
            port
        };
        let port = if e.port == 0 { None } else { number(e.port, "port") };
        let ports: Vec<u16> = e.ports.iter().enumerate().filter_map(|(i, n)| number(*n, &format!("ports[{i}]"))).collect();
        match port {
            Some(port) if ports.contains(&port) => (None, ports),
            Some(port) if !ports.is_empty() => {
                let message = format!("`port` is {port}, and `ports` are others; write all of them into `ports`");
                self.refuse("conflicting-keys", format!("{path}.port"), message);
                (None, ports)
            }
            port => (port, ports),
        }
    }

    fn tls(&mut self, path: &str, value: i32) -> TlsMode {
        match wire::NetworkTlsMode::try_from(value) {
            Ok(wire::NetworkTlsMode::Unspecified | wire::NetworkTlsMode::Terminate) => TlsMode::Auto,
            Ok(wire::NetworkTlsMode::Skip) => TlsMode::Skip,
            Ok(wire::NetworkTlsMode::Passthrough) => {
                self.refuse(
                    "deprecated-value",
                    format!("{path}.tls"),
                    "`passthrough` never passed TLS through; use `skip` for that, or leave it out".to_owned(),
                );
                TlsMode::Auto
            }
            Err(_) => self.unknown_number(path, "tls", value),
        }
    }

    fn enforcement(&mut self, path: &str, value: i32) -> Enforcement {
        match wire::NetworkEnforcementMode::try_from(value) {
            Ok(wire::NetworkEnforcementMode::Unspecified | wire::NetworkEnforcementMode::Audit) => Enforcement::Audit,
            Ok(wire::NetworkEnforcementMode::Enforce) => Enforcement::Enforce,
            Err(_) => self.unknown_number(path, "enforcement", value),
        }
    }

    fn access(&mut self, path: &str, value: i32) -> Option<AccessPreset> {
        match wire::NetworkAccessPreset::try_from(value) {
            Ok(wire::NetworkAccessPreset::Unspecified) => None,
            Ok(wire::NetworkAccessPreset::ReadOnly) => Some(AccessPreset::ReadOnly),
            Ok(wire::NetworkAccessPreset::ReadWrite) => Some(AccessPreset::ReadWrite),
            Ok(wire::NetworkAccessPreset::Full) => Some(AccessPreset::Full),
            Err(_) => self.unknown_number(path, "access", value),
        }
    }

    fn unknown_number<T: Default>(&mut self, path: &str, key: &str, value: i32) -> T {
        let message = format!("the value {value} is not known to this version; update it or use a value that it knows");
        self.refuse("unknown-value", format!("{path}.{key}"), message);
        T::default()
    }

    fn operation_type(&mut self, path: &str, text: &str) -> Option<OperationType> {
        let all = [OperationType::Query, OperationType::Mutation, OperationType::Subscription, OperationType::Any];
        self.word(text, || format!("{path}.operation_type"), &all, OperationType::as_str)
    }

    fn operation(&mut self, path: &str, operation: &wire::GraphqlOperation) -> GraphqlOperation {
        GraphqlOperation {
            operation_type: self.operation_type(path, &operation.operation_type),
            operation_name: filled(&operation.operation_name),
            fields: operation.fields.clone(),
        }
    }

    fn allow(&mut self, path: &str, allow: &wire::L7Allow) -> RequestMatch {
        RequestMatch {
            method: filled(&allow.method),
            path: filled(&allow.path),
            command: filled(&allow.command),
            query: self.matchers(&format!("{path}.query"), &allow.query),
            operation_type: self.operation_type(path, &allow.operation_type),
            operation_name: filled(&allow.operation_name),
            fields: allow.fields.clone(),
            tool: None,
            params: self.matchers(&format!("{path}.params"), &allow.params),
        }
    }

    fn deny(&mut self, path: &str, deny: &wire::L7DenyRule) -> RequestMatch {
        RequestMatch {
            method: filled(&deny.method),
            path: filled(&deny.path),
            command: filled(&deny.command),
            query: self.matchers(&format!("{path}.query"), &deny.query),
            operation_type: self.operation_type(path, &deny.operation_type),
            operation_name: filled(&deny.operation_name),
            fields: deny.fields.clone(),
            tool: None,
            params: self.matchers(&format!("{path}.params"), &deny.params),
        }
    }

    fn matchers(&mut self, path: &str, matchers: &HashMap<String, wire::L7QueryMatcher>) -> indexmap::IndexMap<String, Matcher> {
        let mut read = indexmap::IndexMap::new();
        for (key, matcher) in in_order(matchers) {
            if matcher.glob.is_empty() == matcher.any.is_empty() {
                self.refuse("invalid-matcher", format!("{path}.{key}"), "needs exactly one of `glob` and `any`".to_owned());
            }
            let matcher = if matcher.any.is_empty() { Matcher::Glob(matcher.glob.clone()) } else { Matcher::Any(matcher.any.clone()) };
            read.insert(key.clone(), matcher);
        }
        read
    }

    fn middleware(&mut self, path: &str, config: &wire::NetworkMiddlewareConfig) -> Middleware {
        Middleware {
            name: filled(&config.name),
            middleware: config.middleware.clone(),
            order: config.order,
            config: config.config.as_ref().map(object_from_wire).unwrap_or_default(),
            on_error: self
                .word(&config.on_error, || format!("{path}.on_error"), &[OnError::FailClosed, OnError::FailOpen], OnError::as_str)
                .unwrap_or_default(),
            endpoints: config
                .endpoints
                .as_ref()
                .map(|e| MiddlewareEndpoints { include: e.include.clone(), exclude: e.exclude.clone() })
                .unwrap_or_default(),
        }
    }
}

fn filled(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

/// A wire map has no order; findings should.
fn in_order<V>(map: &HashMap<String, V>) -> impl Iterator<Item = (&String, &V)> {
    let mut entries: Vec<_> = map.iter().collect();
    entries.sort_unstable_by_key(|(key, _)| *key);
    entries.into_iter()
}
