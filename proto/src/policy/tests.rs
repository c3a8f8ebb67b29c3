//! Policies survive the wire, and messages that say more than a policy are refused.
#![allow(clippy::unwrap_used)]

use super::*;

const POLICY: &str = r#"
version: 1
filesystem_policy: { include_workdir: true, read_only: [/usr], read_write: [/tmp] }
landlock: { compatibility: hard_requirement }
process: { run_as_user: sandbox, run_as_group: "1000" }
network_policies:
  forge:
    name: forge-api
    endpoints:
      - host: api.forge.example
        ports: [443, 8443]
        path: /v1/**
        protocol: rest
        enforcement: enforce
        allow_encoded_slash: true
        rules: [{ allow: { method: GET, path: "/v1/**", query: { q: "a*", s: { any: [asc, desc] } } } }]
        deny_rules: [{ method: "*", path: "/v1/private/**" }]
      - { host: files.example, port: 443, tls: skip, allow_uninspected_credentials: true, allowed_ips: [10.0.0.0/8] }
      - { host: audit.example, port: 443, protocol: rest, access: read-only }
    binaries: [{ path: /usr/bin/git }]
"#;

#[test]
fn a_policy_survives_the_wire() {
    for policy in [openshell_policy::from_yaml(POLICY).unwrap(), Policy::restrictive_default()] {
        let back = from_wire(&to_wire(&policy)).unwrap();
        assert_eq!(back, policy.normalized());
        assert_eq!(back.hash(), policy.hash());
    }
}

fn refused(change: impl FnOnce(&mut wire::NetworkEndpoint)) -> (String, &'static str) {
    let mut message = to_wire(&openshell_policy::from_yaml(POLICY).unwrap());
    change(&mut message.network_policies.get_mut("forge").unwrap().endpoints[2]);
    let findings = from_wire(&message).unwrap_err().findings;
    (findings[0].path.clone(), findings[0].code)
}

#[test]
fn what_a_policy_cannot_say_is_refused_with_its_path() {
    let at = |key: &str| format!("network_policies.forge.endpoints[2].{key}");
    assert_eq!(refused(|e| e.enforcement = 9), (at("enforcement"), "unknown-value"));
    assert_eq!(refused(|e| e.access = 9), (at("access"), "unknown-value"));
    assert_eq!(refused(|e| e.tls = 9), (at("tls"), "unknown-value"));
    assert_eq!(refused(|e| e.tls = wire::NetworkTlsMode::Passthrough.into()), (at("tls"), "deprecated-value"));
    assert_eq!(refused(|e| e.protocol = "gopher".into()), (at("protocol"), "unknown-value"));
    assert_eq!(refused(|e| e.port = 70000), (at("port"), "out-of-range"));
    assert_eq!(refused(|e| e.advisor_proposed = true), (at("advisor_proposed"), "derived-field"));
    assert_eq!(refused(|e| e.provider_credentialed = true), (at("provider_credentialed"), "derived-field"));
    assert_eq!(refused(|e| e.token_grant_owner = "x".into()), (at("token_grant_owner"), "derived-field"));
    assert_eq!(refused(|e| e.credential_signing = "v5".into()), (at("credential_signing"), "unknown-value"));
}

#[test]
fn a_message_is_validated_like_a_file() {
    let at = |key: &str| format!("network_policies.forge.endpoints[2].{key}");
    assert_eq!(refused(|e| e.host = "*.com".into()), (at("host"), "invalid-host"));
    assert_eq!(refused(|e| e.protocol = "graphql".into()), (at("protocol"), "not-supported-yet"));
}

#[test]
fn a_message_meets_the_bounds_of_a_file() {
    let at = |key: &str| format!("network_policies.forge.endpoints[2].{key}");
    assert_eq!(refused(|e| e.signing_service = "x".repeat(300)), (at("signing_service"), "too-long"));
    assert_eq!(refused(|e| e.ports = vec![80, 8443]), (at("port"), "conflicting-keys"));
    assert_eq!(refused(|e| e.ports = (1..=443).collect()), (at("ports"), "too-many"));
    assert_eq!(
        refused(|e| e.allowed_ips = (0..300).map(|i| format!("10.0.{}.{}", i / 250, i % 250)).collect()),
        (at("allowed_ips"), "too-many")
    );
    assert_eq!(refused(|e| e.path = "/x".repeat(200_000)), (String::new(), "too-large"));
}
