//! OCSF 1.8 events for what egress decides, and their one-line form.
//!
//! Three classes are used: Network Activity (4001) for connections and names, HTTP Activity (4002)
//! for inspected requests, Detection Finding (2004) for what a person should look at. The
//! one-line form is `CLASS:ACTIVITY [SEVERITY] ACTION actor -> target [key:value …]`.
//!
//! Addresses, hosts, methods and paths are in an event. Query strings, header values, bodies,
//! credentials and placeholders are not: no function here takes them.

use std::{
    collections::BTreeMap,
    time::{SystemTime, UNIX_EPOCH},
};

use serde_json::{Value, json};

use super::{Level, Record};

/// The process that acted.
#[derive(Clone, Copy, Debug)]
pub struct Actor<'a> {
    /// Process id.
    pub pid: u32,
    /// Executable.
    pub exe: &'a str,
    /// SHA-256 of the executable, hex; empty when unknown.
    pub sha256: &'a str,
}

/// Where it acted on.
#[derive(Clone, Copy, Debug)]
pub struct Target<'a> {
    /// Name or IP literal, as it was decided.
    pub host: &'a str,
    /// Port.
    pub port: u16,
    /// Address that was dialled, if it came to that.
    pub address: Option<std::net::IpAddr>,
}

/// What was done about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// It passed.
    Allowed,
    /// It passed although no rule grants it, because the endpoint only audits.
    Audited,
    /// It was refused.
    Denied,
    /// It was under way and was ended.
    Blocked,
    /// It was allowed and failed on its own.
    Failed,
}

impl Action {
    fn word(self) -> &'static str {
        match self {
            Self::Allowed | Self::Audited => "ALLOWED",
            Self::Denied => "DENIED",
            Self::Blocked => "BLOCKED",
            Self::Failed => "FAILED",
        }
    }

    /// `action_id`, `disposition_id` and `status_id` of the schema.
    fn ids(self) -> (u8, u8, u8) {
        match self {
            Self::Allowed => (1, 1, 1),
            Self::Audited => (1, 17, 1),
            Self::Denied | Self::Blocked => (2, 2, 2),
            Self::Failed => (1, 1, 2),
        }
    }

    fn severity(self) -> Severity {
        match self {
            Self::Allowed => Severity::Informational,
            Self::Audited | Self::Failed => Severity::Low,
            Self::Denied | Self::Blocked => Severity::Medium,
        }
    }
}

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// `INFO`
    Informational,
    /// `LOW`
    Low,
    /// `MED`
    Medium,
    /// `HIGH`
    High,
}

impl Severity {
    fn id(self) -> u8 {
        match self {
            Self::Informational => 1,
            Self::Low => 2,
            Self::Medium => 3,
            Self::High => 4,
        }
    }

    fn label(self) -> &'static str {
        match self {
            Self::Informational => "INFO",
            Self::Low => "LOW",
            Self::Medium => "MED",
            Self::High => "HIGH",
        }
    }
}

/// Why it was decided so.
#[derive(Clone, Copy, Debug, Default)]
pub struct Grounds<'a> {
    /// Policy that decided.
    pub policy: Option<&'a str>,
    /// Rule that decided.
    pub rule: Option<&'a str>,
    /// Stable code of a denial, e.g. `policy_denied`.
    pub code: Option<&'a str>,
    /// One sentence.
    pub reason: &'a str,
    /// Revision of the configuration that decided.
    pub revision: u64,
}

/// What a connection did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NetworkActivity {
    /// It was asked for.
    Open,
    /// It ended by itself, or was cut.
    Close,
    /// Something else was asked of the network: a name, a datagram, a socket.
    Other,
}

/// A connection, a name, a datagram (class 4001).
pub fn network(activity: NetworkActivity, action: Action, actor: Option<Actor<'_>>, target: Target<'_>, grounds: Grounds<'_>) -> Record {
    let (id, word) = match activity {
        NetworkActivity::Open => (1, "OPEN"),
        NetworkActivity::Close => (2, "CLOSE"),
        NetworkActivity::Other => (99, "OTHER"),
    };
    build(&Class { uid: 4001, category: 4, activity: id, short: "NET", word }, action, actor, target, grounds, Value::Null)
}

/// A request that was inspected (class 4002). `path` is canonical and has no query.
pub fn http(method: &str, path: &str, scheme: &str, action: Action, actor: Actor<'_>, target: Target<'_>, grounds: Grounds<'_>) -> Record {
    let id = match method {
        "CONNECT" => 1,
        "DELETE" => 2,
        "GET" => 3,
        "HEAD" => 4,
        "OPTIONS" => 5,
        "POST" => 6,
        "PUT" => 7,
        "TRACE" => 8,
        "PATCH" => 9,
        _ => 99,
    };
    let request = json!({
        "http_method": method,
        "url": { "scheme": scheme, "hostname": target.host, "port": target.port, "path": path },
    });
    build(&Class { uid: 4002, category: 4, activity: id, short: "HTTP", word: method }, action, Some(actor), target, grounds, request)
}

/// Something that a person should look at (class 2004). `id` is stable, e.g.
/// `openshell.provider_credential.endpoint_mismatch`.
pub fn finding(id: &str, severity: Severity, actor: Option<Actor<'_>>, target: Target<'_>, grounds: Grounds<'_>) -> Record {
    let mut record = build(
        &Class { uid: 2004, category: 2, activity: 1, short: "FINDING", word: "CREATE" },
        Action::Denied,
        actor,
        target,
        grounds,
        Value::Null,
    );
    let label = severity.label();
    record.message = format!("FINDING:CREATE [{label}] {id} {}", record.message.split_once("DENIED ").map_or("", |(_, rest)| rest));
    record.fields.insert("finding".to_owned(), id.to_owned());
    if let Some(Value::Object(event)) = &mut record.ocsf {
        event.insert("severity_id".to_owned(), json!(severity.id()));
        event.insert("finding_info".to_owned(), json!({ "uid": id, "title": id, "desc": grounds.reason }));
        event.insert("message".to_owned(), json!(record.message));
    }
    record
}

struct Class<'a> {
    uid: u32,
    category: u8,
    activity: u32,
    short: &'static str,
    word: &'a str,
}

fn build(
    class: &Class<'_>,
    action: Action,
    actor: Option<Actor<'_>>,
    target: Target<'_>,
    grounds: Grounds<'_>,
    http_request: Value,
) -> Record {
    let severity = action.severity();
    let endpoint = if target.port == 0 { target.host.to_owned() } else { join(target.host, target.port) };
    let place = match &http_request {
        Value::Object(request) => {
            let url = &request["url"];
            format!("{}://{endpoint}{}", url["scheme"].as_str().unwrap_or(""), url["path"].as_str().unwrap_or(""))
        }
        _ => endpoint,
    };
    let who = actor.map_or_else(|| "-".to_owned(), |actor| format!("{}({})", actor.exe, actor.pid));
    let mut message = format!("{}:{} [{}] {} {who} -> {place} [", class.short, class.word, severity.label(), action.word());
    message.push_str("policy:");
    message.push_str(grounds.policy.unwrap_or("-"));
    message.push_str(" engine:opa");
    if let Some(rule) = grounds.rule {
        message.push_str(" rule:");
        message.push_str(rule);
    }
    if action == Action::Audited {
        message.push_str(" audit:would-deny");
    }
    message.push(']');
    if action != Action::Allowed && !grounds.reason.is_empty() {
        message.push_str(" reason: ");
        message.push_str(grounds.reason);
    }
    let message = printable(&message);

    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let (action_id, disposition, status) = action.ids();
    let mut event = json!({
        "metadata": { "version": "1.8.0", "product": { "name": "OpenShell Sandbox Supervisor", "vendor_name": "OpenShell", "version": env!("CARGO_PKG_VERSION") } },
        "category_uid": class.category,
        "class_uid": class.uid,
        "activity_id": class.activity,
        "type_uid": class.uid * 100 + class.activity,
        "severity_id": severity.id(),
        "time": now.as_millis() as u64,
        "action_id": action_id,
        "disposition_id": disposition,
        "status_id": status,
        "status_detail": grounds.reason,
        "message": message,
        "unmapped": { "engine": "opa", "config_revision": grounds.revision },
    });
    let mut fields: BTreeMap<String, String> = BTreeMap::new();
    fields.insert("action".to_owned(), action.word().to_lowercase());
    fields.insert("reason".to_owned(), grounds.reason.to_owned());
    if !target.host.is_empty() {
        event["dst_endpoint"] = json!({ "hostname": target.host, "port": target.port });
        if let Some(address) = target.address {
            event["dst_endpoint"]["ip"] = json!(address.to_string());
        }
        fields.insert("host".to_owned(), target.host.to_owned());
        fields.insert("port".to_owned(), target.port.to_string());
    }
    if let Some(actor) = actor {
        let mut file = json!({ "path": actor.exe, "name": actor.exe.rsplit('/').next().unwrap_or(actor.exe), "type_id": 1 });
        if !actor.sha256.is_empty() {
            file["hashes"] = json!([{ "algorithm_id": 3, "algorithm": "SHA-256", "value": actor.sha256 }]);
        }
        event["actor"] = json!({ "process": { "pid": actor.pid, "file": file } });
        fields.insert("binary".to_owned(), actor.exe.to_owned());
        fields.insert("pid".to_owned(), actor.pid.to_string());
    }
    if let Some(policy) = grounds.policy {
        event["firewall_rule"] = json!({ "name": policy, "type": "policy" });
        if let Some(rule) = grounds.rule {
            event["firewall_rule"]["match_details"] = json!([rule]);
        }
        fields.insert("policy".to_owned(), policy.to_owned());
    }
    if let Some(rule) = grounds.rule {
        fields.insert("rule".to_owned(), rule.to_owned());
    }
    if let Some(code) = grounds.code {
        event["status_code"] = json!(code);
        fields.insert("code".to_owned(), code.to_owned());
    }
    if let Value::Object(request) = http_request {
        fields.insert("method".to_owned(), request["http_method"].as_str().unwrap_or("").to_owned());
        fields.insert("path".to_owned(), request["url"]["path"].as_str().unwrap_or("").to_owned());
        event["http_request"] = Value::Object(request);
    }
    Record { level: Level::Ocsf, target: "proxy".to_owned(), message, fields, ocsf: Some(event) }
}

/// `host:port`, with brackets around an IPv6 literal.
pub fn join(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

/// The agent chooses some of the text; it must not be able to forge lines or drive a terminal.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}
