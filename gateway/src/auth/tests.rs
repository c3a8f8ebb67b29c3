use http::{HeaderMap, HeaderValue, Uri, header};

use super::rules::Denied;
use super::*;
use crate::session::SandboxPrincipal;

fn user(roles: Vec<Role>, scopes: &[&str]) -> Principal {
    Principal::User(User {
        subject: "u".to_owned(),
        display_name: "u".to_owned(),
        provider: "mtls",
        roles,
        scopes: scopes.iter().map(|&s| s.to_owned()).collect(),
    })
}

/// Every method against every kind of caller: what is allowed follows from the mode alone for
/// callers that may do everything, and from role and scope for those that may not.
#[test]
fn every_method_against_every_caller() {
    let rules = Rules::read(openshell_proto::DESCRIPTORS).unwrap();
    let owner = Principal::User(User::from_certificate(&CertificateSubject { common_name: "c".into(), units: vec![USER_UNIT.into()] }));
    let stranger = Principal::User(User::from_certificate(&CertificateSubject { common_name: "c".into(), units: vec!["other".into()] }));
    let sandbox = Principal::Sandbox(SandboxPrincipal { sandbox_id: "s".to_owned(), exchange: None });
    let plain = user(vec![Role::User], &["openshell:all"]);
    let scopeless = user(vec![Role::PlatformAdmin], &["sandbox:none"]);
    let mut counted = 0;
    for (path, rule) in rules.iter() {
        counted += 1;
        let allowed = |p: Option<&Principal>| rule.check(path, p).is_ok();
        let open = rule.mode == Mode::Unauthenticated;
        let users = matches!(rule.mode, Mode::User | Mode::Dual);
        assert_eq!(allowed(None), open, "{path} by nobody");
        assert_eq!(allowed(Some(&sandbox)), open || rule.mode != Mode::User, "{path} by a sandbox");
        assert_eq!(allowed(Some(&owner)), open || users, "{path} by the owner");
        assert_eq!(allowed(Some(&stranger)), open || (users && rule.role.is_none() && rule.scope.is_none()), "{path} by a stranger");
        assert_eq!(allowed(Some(&plain)), open || (users && rule.role != Some(Role::PlatformAdmin)), "{path} by a plain user");
        assert_eq!(allowed(Some(&scopeless)), open || (users && rule.scope.is_none()), "{path} without the scope");
    }
    assert!(counted >= 66, "only {counted} methods");
    let mut open: Vec<_> = rules.iter().filter(|(_, r)| r.mode == Mode::Unauthenticated).map(|(p, _)| p).collect();
    open.sort_unstable();
    // Who exchanges a token proves who it is by what it exchanges.
    assert_eq!(open, ["/openshell.supervisor.v1.SupervisorSession/Exchange", "/openshell.v1.OpenShell/Health"]);
    assert_eq!(rules.get("/openshell.supervisor.v1.SupervisorSession/Control").unwrap().mode, Mode::Sandbox);
}

#[test]
fn a_refusal_says_what_is_missing() {
    let rules = Rules::read(openshell_proto::DESCRIPTORS).unwrap();
    let path = "/openshell.v1.OpenShell/CreateSandbox";
    let why = |p: Option<&Principal>| rules.get(path).unwrap().check(path, p).unwrap_err();
    assert!(matches!(why(None), Denied::Unauthenticated(m) if m.contains("client certificate")));
    assert!(matches!(why(Some(&user(vec![], &[]))), Denied::Forbidden(m) if m.contains("role 'openshell-user'")));
    assert!(matches!(why(Some(&user(vec![Role::User], &[]))), Denied::Forbidden(m) if m.contains("scope 'sandbox:write'")));
}

#[test]
fn a_method_without_the_option_keeps_the_gateway_from_starting() {
    use prost::Message as _;
    // prost drops options that it does not know: the methods of the copy say nothing.
    let stripped = prost_types::FileDescriptorSet::decode(openshell_proto::DESCRIPTORS).unwrap().encode_to_vec();
    let error = Rules::read(&stripped).unwrap_err().to_string();
    assert!(error.contains("authorization option: it is missing"), "{error}");
    assert!(Rules::read(b"").is_err());
}

#[test]
fn only_our_own_names_are_answered() {
    let hosts = Hosts::new(["localhost", "127.0.0.1", "::1", "*.openshell.localhost"].map(str::to_owned));
    let ask = |uri: &str, host: Option<&'static str>, origin: Option<&'static str>| {
        let mut headers = HeaderMap::new();
        if let Some(host) = host {
            headers.insert(header::HOST, HeaderValue::from_static(host));
        }
        if let Some(origin) = origin {
            headers.insert(header::ORIGIN, HeaderValue::from_static(origin));
        }
        hosts.foreign(&uri.parse::<Uri>().unwrap(), &headers).is_none()
    };
    assert!(ask("https://127.0.0.1:17670/x", None, None));
    assert!(ask("https://[::1]:17670/x", None, None));
    assert!(ask("/x", Some("LOCALHOST:17670"), None));
    assert!(ask("/x", Some("web.openshell.localhost"), Some("https://localhost:17670")));
    assert!(!ask("/x", Some("rebound.example:17670"), None));
    assert!(!ask("https://rebound.example/x", Some("localhost"), None));
    assert!(!ask("/x", Some("localhost.evil.example"), None));
    assert!(!ask("/x", Some(".openshell.localhost"), None));
    assert!(!ask("/x", Some("localhost"), Some("https://evil.example")));
    assert!(!ask("/x", Some("localhost"), Some("null")));
    assert!(!ask("/x", None, None));
}
