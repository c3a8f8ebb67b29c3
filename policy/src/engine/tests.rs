//! Decisions over small policies, and index against rules.
#![allow(clippy::unwrap_used)]

use super::*;
use crate::{Inspection, Verdict};

const FORGE: &str = r#"
version: 1
network_policies:
  forge:
    name: forge-api
    endpoints:
      - host: API.forge.example
        port: 443
        protocol: rest
        enforcement: enforce
        rules:
          - allow: { method: GET, path: "/repos/acme/**" }
          - allow: { method: GET, path: /search/issues, query: { q: "repo:acme/*", sort: { any: [created, updated] } } }
          - allow: { method: POST, path: "/repos/acme/*/pulls" }
        deny_rules:
          - { method: "*", path: "/repos/acme/secrets/**" }
          - { method: GET, path: "/repos/**", query: { ref: { any: ["refs/private/*"] } } }
    binaries: [{ path: /usr/bin/git }, { path: "/usr/local/bin/agent-*" }]
  packages:
    endpoints:
      - { host: "*.pypi.example", port: 443 }
      - { host: pypi.example, port: 443, protocol: rest, access: read-only }
  range:
    endpoints: [{ ports: [8080, 9090], allowed_ips: [192.168.40.0/24] }]
"#;

fn process(path: &str) -> Process<'_> {
    Process { path, ancestors: &[] }
}

fn engine(text: &str) -> Engine {
    let engine = Engine::compile(&crate::from_yaml(text).unwrap()).unwrap();
    engine.verify().unwrap();
    engine
}

fn request(engine: &Engine, method: &str, path: &str, query: &[(&str, &str)]) -> RequestDecision {
    let query: Vec<(String, String)> = query.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    let facts = RequestFacts { method, path, query: &query };
    let decision = engine.request(process("/usr/bin/git"), "api.forge.example", 443, facts);
    assert_eq!(decision, engine.authority().unwrap().request(process("/usr/bin/git"), "api.forge.example", 443, facts).unwrap());
    decision
}

#[test]
fn connections_follow_host_port_and_binary() {
    let engine = engine(FORGE);
    let connect = |path: &str, host: &str, port| {
        let decision = engine.connect(process(path), host, port);
        assert_eq!(decision, engine.authority().unwrap().connect(process(path), host, port).unwrap());
        decision
    };
    let allowed = connect("/usr/bin/git", "api.FORGE.example", 443);
    assert_eq!((allowed.verdict, allowed.policy.as_deref()), (Verdict::Allow, Some("forge-api")));
    assert_eq!(allowed.endpoint.unwrap().inspection, Inspection::Http);
    assert_eq!(connect("/usr/bin/git", "api.forge.example", 80).reason, "endpoint api.forge.example:80 is not allowed by any policy");
    assert_eq!(connect("/bin/sh", "api.forge.example", 443).reason, "binary '/bin/sh' not allowed in policy 'forge-api' (ancestors: [])");
    assert_eq!(connect("/bin/sh", "files.pypi.example", 443).endpoint.unwrap().inspection, Inspection::Connection);
    assert_eq!(connect("/bin/sh", "a.b.pypi.example", 443).verdict, Verdict::Deny);
    let hostless = connect("/bin/sh", "anything.example", 8080).endpoint.unwrap();
    assert_eq!(hostless.allowed_ips, ["192.168.40.0/24".parse().unwrap()]);
    assert!(hostless.permits_address("::ffff:192.168.40.7".parse().unwrap()) && !hostless.permits_address("1.1.1.1".parse().unwrap()));
    assert_eq!(connect("/bin/sh", "192.168.40.7", 9090).verdict, Verdict::Allow);
    assert_eq!(connect("/bin/sh", "192.168.41.7", 9090).verdict, Verdict::Deny);
    let ancestors = ["/bin/sh".to_owned(), "/usr/local/bin/agent-7".to_owned()];
    let child = Process { path: "/usr/bin/curl", ancestors: &ancestors };
    assert_eq!(engine.connect(child, "api.forge.example", 443).verdict, Verdict::Allow);
    assert!(engine.resolvable("FILES.pypi.example.") && engine.resolvable("anything.example") && !engine.resolvable(""));
}

#[test]
fn requests_follow_method_path_and_query() {
    let engine = engine(FORGE);
    let allowed = request(&engine, "GET", "/repos/acme/tools/pulls/7", &[]);
    assert_eq!((allowed.verdict, allowed.rule.as_deref()), (Verdict::Allow, Some("GET /repos/acme/**")));
    assert_eq!(request(&engine, "HEAD", "/repos/acme/x", &[]).verdict, Verdict::Allow);
    assert_eq!(request(&engine, "DELETE", "/repos/acme/x", &[]).verdict, Verdict::Deny);
    assert_eq!(request(&engine, "POST", "/repos/acme/a/pulls", &[]).verdict, Verdict::Allow);
    let denied = request(&engine, "GET", "/repos/acme/secrets/key", &[]);
    assert_eq!((denied.verdict, denied.rule.as_deref()), (Verdict::Deny, Some("* /repos/acme/secrets/**")));
    assert_eq!(request(&engine, "GET", "/search/issues", &[("q", "repo:acme/x"), ("sort", "created")]).verdict, Verdict::Allow);
    assert_eq!(request(&engine, "GET", "/search/issues", &[("q", "repo:acme/x")]).verdict, Verdict::Deny);
    assert_eq!(
        request(&engine, "GET", "/search/issues", &[("q", "repo:acme/x"), ("q", "repo:evil"), ("sort", "created")]).verdict,
        Verdict::Deny
    );
    assert_eq!(request(&engine, "GET", "/repos/acme/x", &[("ref", "a"), ("ref", "refs/private/b")]).verdict, Verdict::Deny);
    assert_eq!(request(&engine, "GET", "/repos/acme/x", &[("ref", "refs/heads/b")]).verdict, Verdict::Allow);
}

#[test]
fn lower_case_methods_are_no_way_around() {
    let engine = engine(FORGE);
    let facts = RequestFacts { method: "get", path: "/repos/acme/secrets/k", query: &[] };
    assert_eq!(engine.request(process("/usr/bin/git"), "api.forge.example", 443, facts).verdict, Verdict::Deny);
}

#[test]
fn unset_enforcement_audits() {
    let engine = engine(FORGE);
    let facts = RequestFacts { method: "DELETE", path: "/simple/x", query: &[] };
    let decision = engine.request(process("/bin/sh"), "pypi.example", 443, facts);
    assert_eq!(decision.verdict, Verdict::Audit);
    assert_eq!(decision, engine.authority().unwrap().request(process("/bin/sh"), "pypi.example", 443, facts).unwrap());
}

#[test]
fn engines_are_shared_between_threads() {
    fn shared<T: Send + Sync + Clone>() {}
    shared::<Engine>();
}
