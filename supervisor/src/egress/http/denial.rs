//! What a client is told when it is refused: a status, a JSON body, and what to do next.

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use http_body_util::Full;
use serde_json::{Value, json};

use crate::egress::active::Denial;

/// Names the policy that refused, for clients that look at headers only.
pub(in crate::egress) const POLICY_HEADER: &str = "x-openshell-policy";

/// What was asked for, as far as it is known.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::egress) struct Context<'a> {
    /// `l4` for a connection, `l7` for a request.
    pub(in crate::egress) layer: &'a str,
    pub(in crate::egress) protocol: &'a str,
    pub(in crate::egress) method: &'a str,
    pub(in crate::egress) path: &'a str,
    pub(in crate::egress) host: &'a str,
    pub(in crate::egress) port: u16,
    pub(in crate::egress) binary: &'a str,
}

/// The refusal as a response. The connection ends with it.
pub(in crate::egress) fn response(denial: &Denial, context: &Context<'_>) -> Response<Full<Bytes>> {
    let mut body = body(denial, context).to_string();
    body.push('\n');
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = denial.status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    let policy = denial.policy.as_deref().unwrap_or("-");
    headers.insert(POLICY_HEADER, HeaderValue::from_str(policy).unwrap_or(HeaderValue::from_static("-")));
    response
}

/// The refusal as bytes, for where no HTTP server is running.
pub(in crate::egress) fn bytes(denial: &Denial, context: &Context<'_>) -> Vec<u8> {
    let mut body = body(denial, context).to_string();
    body.push('\n');
    let policy = denial.policy.as_deref().filter(|policy| policy.bytes().all(|byte| byte.is_ascii_graphic())).unwrap_or("-");
    format!(
        "HTTP/1.1 {} {}\r\ncontent-type: application/json\r\nconnection: close\r\n{POLICY_HEADER}: {policy}\r\ncontent-length: {}\r\n\r\n{body}",
        denial.status.as_str(),
        denial.status.canonical_reason().unwrap_or("Refused"),
        body.len(),
    )
    .into_bytes()
}

fn body(denial: &Denial, context: &Context<'_>) -> Value {
    let mut body = json!({
        "error": denial.code,
        "detail": detail(denial, context),
        "reason": denial.reason,
        "policy": denial.policy,
        "rule": denial.rule,
        "layer": context.layer,
        "protocol": context.protocol,
        "method": context.method,
        "path": context.path,
        "host": context.host,
        "port": context.port,
        "binary": context.binary,
        "next_steps": next_steps(denial, context),
        "agent_guidance": guidance(denial),
    });
    if denial.code == "policy_denied" && denial.rule.is_none() {
        body["rule_missing"] = if context.layer == "l7" {
            json!({ "type": "rest_allow", "method": context.method, "path": context.path, "host": context.host, "port": context.port })
        } else {
            json!({ "type": "endpoint", "host": context.host, "port": context.port, "binary": context.binary })
        };
    }
    body
}

fn detail(denial: &Denial, context: &Context<'_>) -> String {
    let place = crate::audit::ocsf::join(context.host, context.port);
    if context.host.is_empty() {
        denial.reason.clone()
    } else if context.layer == "l7" {
        format!("{} {}{} not permitted: {}", context.method, place, context.path, denial.reason)
    } else if denial.code == "ssrf_denied" {
        format!("{} {}", context.method, denial.reason)
    } else {
        format!("{} {place}: {}", context.method, denial.reason)
    }
}

fn next_steps(denial: &Denial, context: &Context<'_>) -> Vec<String> {
    let place = crate::audit::ocsf::join(context.host, context.port);
    let steps: &[&str] = match denial.code {
        "policy_denied" => &[
            "If the task needs this, ask the sandbox's owner to allow it: `openshell policy set <sandbox> --policy <file>`.",
            "`openshell logs <sandbox>` shows the decision and the policy that made it.",
        ],
        "ssrf_denied" => &["If this address is meant to be reached, list it in `allowed_ips` of the endpoint."],
        "upstream_unreachable" => &["The policy allows this; the server or the network does not answer. Try again later."],
        "credential_endpoint_mismatch" => &["Send this credential only to the endpoints that its provider names."],
        "credential_unavailable" => &["Start a new process to get the current placeholders, or renew the provider's credential."],
        "invalid_credential_placeholder" => {
            &["Send the placeholder as a whole header value, as `Bearer <placeholder>`, or in Basic credentials."]
        }
        "request_authority_mismatch" => &["Open a connection of its own for each host."],
        "unsupported_l7_protocol" => &["Use HTTP/1.1 for this endpoint, or have the policy carry it without inspection."],
        "unsupported_proxy_scheme" => &["Use CONNECT for https."],
        "binary_changed" => &["Restart the sandbox to trust the new executable."],
        _ => &["Correct the request."],
    };
    let mut steps: Vec<String> = steps.iter().map(|step| (*step).to_owned()).collect();
    if denial.code == "policy_denied" && context.layer == "l4" {
        steps.insert(0, format!("No policy grants {place} to {}.", context.binary));
    }
    steps
}

fn guidance(denial: &Denial) -> &'static str {
    match denial.status {
        StatusCode::FORBIDDEN => {
            "This sandbox's policy refuses this. Retrying, another client or another route will be refused as well; do the task without it or report what is missing."
        }
        StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT => {
            "The policy is not the reason. Retry a few times with a growing pause."
        }
        _ => "The request itself is not acceptable. Correct it before trying again.",
    }
}
