//! What is part of the language and not enforced in this release: refused by name, never ignored.

use super::Report;
use crate::Policy;
use crate::model::{Endpoint, Protocol};

const CODE: &str = "not-supported-yet";

pub(super) fn endpoint(endpoint: &Endpoint, report: &mut Report<'_>) {
    if !matches!(endpoint.protocol, Protocol::Opaque | Protocol::Tcp | Protocol::Rest) {
        let protocol = endpoint.protocol.as_str();
        let message = format!(
            "`{protocol}` is not supported yet; `rest` looks at method, path and query, without a protocol only host and port count"
        );
        report.at("protocol", CODE, message);
    }
    let keys = [
        (endpoint.websocket_credential_rewrite, "websocket_credential_rewrite"),
        (endpoint.request_body_credential_rewrite, "request_body_credential_rewrite"),
        (endpoint.persisted_queries.is_some(), "persisted_queries"),
        (!endpoint.graphql_persisted_queries.is_empty(), "graphql_persisted_queries"),
        (endpoint.graphql_max_body_bytes.is_some(), "graphql_max_body_bytes"),
        (endpoint.json_rpc.is_some(), "json_rpc"),
        (endpoint.mcp.is_some(), "mcp"),
        (endpoint.credential_signing.is_some(), "credential_signing"),
        (endpoint.signing_service.is_some(), "signing_service"),
        (endpoint.signing_region.is_some(), "signing_region"),
        (endpoint.credential_binding.is_some(), "credential_binding"),
    ];
    for (_, key) in keys.into_iter().filter(|(set, _)| *set) {
        report.at(key, CODE, "is not supported yet; leave it out");
    }
}

pub(super) fn middlewares(policy: &Policy, report: &mut Report<'_>) {
    let mut report = report.key("network_middlewares");
    for key in policy.network_middlewares.keys() {
        report.at(key, CODE, "middlewares are not supported yet; leave it out");
    }
}
