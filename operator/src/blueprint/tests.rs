//! Composition: what goes together, what does not, and that it is always the same.

use kube::core::error_boundary::InvalidObject;
use kube::core::{DeserializeGuard, ObjectMeta};
use openshell_crds::policy::PolicyDocument;
use openshell_crds::{OpenShellGateway, OpenShellSandbox, Policy, Provider};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

const SPACE: &str = "openshell";

fn object<K: serde::de::DeserializeOwned>(kind: &str, name: &str, labels: &Value, spec: &Value) -> K {
    serde_json::from_value(json!({
        "apiVersion": "openshell.ai/v1alpha1", "kind": kind,
        "metadata": { "name": name, "namespace": SPACE, "uid": format!("uid-{name}"), "generation": 3, "labels": labels },
        "spec": spec,
    }))
    .unwrap()
}

fn sandbox(spec: &Value) -> OpenShellSandbox {
    object("OpenShellSandbox", "demo", &json!({ "team": "a" }), spec)
}

fn gateway(spec: &Value) -> OpenShellGateway {
    object("OpenShellGateway", "local", &json!({}), spec)
}

fn document(host: &str) -> Value {
    json!({
        "version": 1,
        "network_policies": { "web": { "endpoints": [{ "host": host, "port": 443 }], "binaries": [{ "path": "/usr/bin/curl" }] } },
    })
}

fn policy(name: &str, host: &str, selector: Option<Value>) -> Policy {
    let mut spec = json!({ "policy": document(host) });
    if let Some(labels) = selector {
        spec["selector"] = json!({ "matchLabels": labels });
    }
    object("Policy", name, &json!({}), &spec)
}

fn provider(name: &str, credential: &str, config: &Value) -> Provider {
    object(
        "Provider",
        name,
        &json!({}),
        &json!({
            "type": "github",
            "credentials": [{ "name": credential, "secretKeyRef": { "name": format!("osprov-{name}"), "key": credential } }],
            "endpoints": [{ "host": "API.github.com" }, { "host": "*.github.com", "port": 8443, "path": "/repos/**" }],
            "config": config,
        }),
    )
}

fn refused(sandbox: &OpenShellSandbox, policies: &[Policy], providers: &[Provider]) -> (Reason, String) {
    let error = compose(sandbox, &gateway(&json!({})), policies, providers).unwrap_err();
    (error.reason, error.message)
}

#[test]
fn one_policy_decides() {
    let bare = gateway(&json!({}));
    let inline = compose(&sandbox(&json!({ "policy": document("a.example.com") })), &bare, &[], &[]).unwrap();
    assert_eq!(inline.policy_source, PolicySource::Inline);
    assert_eq!(inline.policy_hash, inline.policy.hash());
    let policies = [policy("web", "b.example.com", None), policy("team", "c.example.com", Some(json!({ "team": "a" })))];
    let referenced = compose(&sandbox(&json!({ "policyRef": { "name": "web" } })), &bare, &policies, &[]).unwrap();
    assert_eq!(referenced.policy_source, PolicySource::Referenced("web".into()));
    let selected = compose(&sandbox(&json!({})), &bare, &policies, &[]).unwrap();
    assert_eq!(selected.policy_source, PolicySource::Selected("team".into()));
    let default = compose(&sandbox(&json!({})), &bare, &policies[..1], &[]).unwrap();
    assert_eq!((default.policy_source, default.policy), (PolicySource::Default, openshell_policy::Policy::restrictive_default()));
}

#[test]
fn policies_that_cannot_be_used_refuse() {
    let both = [policy("x", "a.example.com", Some(json!({ "team": "a" }))), policy("y", "a.example.com", Some(json!({ "team": "a" })))];
    let (reason, message) = refused(&sandbox(&json!({})), &both, &[]);
    assert_eq!(reason, Reason::PolicyConflict);
    assert!(message.contains("x, y"), "{message}");
    assert_eq!(refused(&sandbox(&json!({ "policyRef": { "name": "z" } })), &both, &[]).0, Reason::PolicyNotFound);
    let ambiguous = sandbox(&json!({ "policyRef": { "name": "x" }, "policy": document("a.example.com") }));
    assert_eq!(refused(&ambiguous, &both, &[]).0, Reason::PolicyAmbiguous);
    let mut elsewhere = both[0].clone();
    elsewhere.metadata.namespace = Some("other".into());
    assert_eq!(refused(&sandbox(&json!({ "policyRef": { "name": "x" } })), &[elsewhere], &[]).0, Reason::PolicyNotFound);
    let mut typo = both[0].clone();
    typo.spec.policy = PolicyDocument(json!({ "version": 1, "network_polices": {} }));
    let error = compose(&sandbox(&json!({ "policyRef": { "name": "x" } })), &gateway(&json!({})), &[typo], &[]).unwrap_err();
    assert_eq!(error.reason, Reason::PolicyRefused);
    assert!(error.message.contains("Policy \"x\"") && error.message.contains("network_polices"), "{error}");
    assert!(!error.findings.is_empty());
    let nothing = policy("all", "a.example.com", Some(json!({})));
    let composed = compose(&sandbox(&json!({})), &gateway(&json!({})), &[nothing], &[]).unwrap();
    assert_eq!(composed.policy_source, PolicySource::Default, "an empty selector selects nothing");
}

#[test]
fn a_refusal_of_many_findings_fits_into_a_condition() {
    let mut rules = serde_json::Map::new();
    for i in 0..2000 {
        rules.insert(format!("rule-{i}"), json!({ "endpoint": [] }));
    }
    let (reason, message) = refused(&sandbox(&json!({ "policy": { "version": 1, "network_policies": rules } })), &[], &[]);
    assert_eq!(reason, Reason::PolicyRefused);
    assert!(message.chars().count() <= crate::limits::CONDITION_MESSAGE + 64, "{}", message.len());
}

#[test]
fn providers_bring_references_and_bindings() {
    let wants = sandbox(&json!({ "providerRefs": [{ "name": "gh" }], "env": [{ "name": "A", "value": "own" }] }));
    let defaults = gateway(&json!({ "sandboxDefaults": {
        "env": [{ "name": "A", "value": "default" }, { "name": "B", "value": "default" }, { "name": "GITHUB_TOKEN", "value": "default" }],
        "enforcement": "Full",
    } }));
    let composed =
        compose(&wants, &defaults, &[], &[provider("gh", "GITHUB_TOKEN", &json!([{ "name": "GH_HOST", "value": "github.com" }]))]).unwrap();
    assert!(composed.require_full);
    assert_eq!(composed.generation, 3);
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    assert_eq!(composed.env, [pair("A", "own"), pair("B", "default")], "a default gives way to a provider");
    assert_eq!(composed.environment(), [pair("A", "own"), pair("B", "default"), pair("GH_HOST", "github.com")]);
    let [credential] = &composed.providers[0].credentials[..] else { panic!("{:?}", composed.providers) };
    assert_eq!((credential.env.as_str(), credential.secret_name.as_str()), ("GITHUB_TOKEN", "osprov-gh"));
    let bound: Vec<_> = credential.bindings.iter().map(|b| (b.host.as_str(), b.port, b.path.as_str())).collect();
    assert_eq!(bound, [("api.github.com", 443, ""), ("*.github.com", 8443, "/repos/**")]);
}

#[test]
fn nobody_gives_way_between_sandbox_and_providers() {
    let two = sandbox(&json!({ "providerRefs": [{ "name": "a" }, { "name": "b" }] }));
    let same = [provider("a", "TOKEN", &json!([])), provider("b", "TOKEN", &json!([]))];
    let (reason, message) = refused(&two, &[], &same);
    assert_eq!(reason, Reason::ProviderConflict);
    assert!(message.contains("TOKEN") && message.contains("\"a\"") && message.contains("\"b\""), "{message}");
    let clash = sandbox(&json!({ "providerRefs": [{ "name": "a" }], "env": [{ "name": "TOKEN", "value": "x" }] }));
    assert_eq!(refused(&clash, &[], &same).0, Reason::ProviderConflict);
    let twice = sandbox(&json!({ "providerRefs": [{ "name": "a" }, { "name": "a" }] }));
    assert_eq!(refused(&twice, &[], &same).0, Reason::ProviderConflict);
    let within = [provider("a", "TOKEN", &json!([{ "name": "TOKEN", "value": "x" }]))];
    assert_eq!(refused(&sandbox(&json!({ "providerRefs": [{ "name": "a" }] })), &[], &within).0, Reason::ProviderConflict);
    assert_eq!(refused(&two, &[], &same[..1]).0, Reason::ProviderNotFound);
}

#[test]
fn names_that_are_ours_are_refused_wherever_they_come_from() {
    let env = |name: &str, value: &str| sandbox(&json!({ "env": [{ "name": name, "value": value }] }));
    for (name, reason) in [
        ("OPENSHELL_X", Reason::EnvironmentReserved),
        ("1A", Reason::EnvironmentInvalid),
        ("A-B", Reason::EnvironmentInvalid),
        ("", Reason::EnvironmentInvalid),
        ("A=B", Reason::EnvironmentInvalid),
    ] {
        assert_eq!(refused(&env(name, ""), &[], &[]).0, reason, "{name}");
    }
    assert_eq!(refused(&env("A", "a\0b"), &[], &[]).0, Reason::EnvironmentInvalid);
    assert_eq!(refused(&env("A", &"x".repeat(8193)), &[], &[]).0, Reason::EnvironmentInvalid);
    let wants = sandbox(&json!({ "providerRefs": [{ "name": "a" }] }));
    for credential in ["OPENSHELL_TOKEN", "v12_TOKEN"] {
        assert_eq!(refused(&wants, &[], &[provider("a", credential, &json!([]))]).0, Reason::EnvironmentReserved, "{credential}");
    }
    let defaults = gateway(&json!({ "sandboxDefaults": { "env": [{ "name": "OPENSHELL_X", "value": "" }] } }));
    assert_eq!(compose(&sandbox(&json!({})), &defaults, &[], &[]).unwrap_err().reason, Reason::EnvironmentReserved);
}

#[test]
fn hosts_of_a_binding_are_hosts() {
    for good in [
        "example.com",
        "api.example.com",
        "*.example.com",
        "**.example.com",
        "api-*.example.com",
        "a.*.example.com",
        "localhost",
        "10.1.2.3",
        "[2001:db8::1]",
        "_acme.example.com",
    ] {
        assert_eq!(valid_host(good), Ok(()), "{good}");
    }
    for bad in [
        "",
        "*",
        "**",
        "*.com",
        "**.com",
        "a.**.example.com",
        "exa mple.com",
        "https://example.com",
        "example.com/path",
        "a..b",
        // What the supervisor would refuse, with everything else of the configuration.
        "*.*.com",
        "host.123",
        "1.2.3.4.5",
        "api.example.com.",
        "a.b*.example.com",
        "example.com:443",
        "ex\u{e4}mple.com",
    ] {
        assert!(valid_host(bad).is_err(), "{bad}");
    }
    for (path, fits) in [("", true), ("/v1/**", true), ("**/x", true), ("v1", false), ("/[a", false), ("/[z-a]", false)] {
        assert_eq!(valid_path(path).is_ok(), fits, "{path}");
    }
}

#[test]
fn quota_lets_the_oldest_in() {
    let defaults = gateway(&json!({ "quotas": { "sandboxes": 2 } }));
    let all: Vec<OpenShellSandbox> = (0..4)
        .map(|i| {
            let mut one: OpenShellSandbox = object("OpenShellSandbox", &format!("s{i}"), &json!({}), &json!({}));
            let time = format!("2026-01-01T00:00:0{}Z", i / 2);
            one.metadata.creation_timestamp = Some(serde_json::from_value(json!(time)).unwrap());
            one
        })
        .collect();
    let let_in: Vec<bool> = all.iter().map(|one| quota::admit(one, &defaults, &all).is_ok()).collect();
    assert_eq!(let_in, [true, true, false, false]);
    assert!(quota::admit(&all[3], &gateway(&json!({})), &all).is_ok());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// The same objects give the same bytes in whatever order they are listed, and a credential
    /// never comes without a policy and without a place where it may go.
    #[test]
    fn same_objects_same_bytes(rotation in 0_usize..4, count in 1_usize..4, inline in any::<bool>()) {
        let names: Vec<String> = (0..count).map(|i| format!("p{i}")).collect();
        let mut providers: Vec<Provider> = names.iter().map(|name| provider(name, &format!("TOKEN_{name}"), &json!([]))).collect();
        let mut policies = vec![policy("a", "a.example.com", None), policy("b", "b.example.com", Some(json!({ "team": "a" }))), policy("c", "c.example.com", None)];
        let mut spec = json!({ "providerRefs": names.iter().map(|name| json!({ "name": name })).collect::<Vec<_>>(), "env": [{ "name": "Z", "value": "1" }, { "name": "A", "value": "2" }] });
        if inline {
            spec["policy"] = document("inline.example.com");
        }
        let wants = sandbox(&spec);
        let before = compose(&wants, &gateway(&json!({})), &policies, &providers).unwrap();
        providers.rotate_left(rotation % count);
        policies.rotate_left(rotation % 3);
        let after = compose(&wants, &gateway(&json!({})), &policies, &providers).unwrap();
        prop_assert_eq!(serde_json::to_vec(&before).unwrap(), serde_json::to_vec(&after).unwrap());
        for credential in after.providers.iter().flat_map(|p| &p.credentials) {
            prop_assert!(!credential.bindings.is_empty());
        }
        prop_assert_eq!(after.policy.hash(), after.policy_hash);
    }
}

#[test]
fn a_pods_wishes_go_before_the_gateways_defaults() {
    let defaults = json!({ "sandboxDefaults": {
        "image": "default:1", "imagePullPolicy": "Always", "imagePullSecrets": [{ "name": "a" }, { "name": "b" }],
        "supervisorImage": "supervisor:1", "sideloadMethod": "InitContainer", "runtimeClassName": "runc",
        "workspace": { "size": "1Gi" }, "resources": { "limits": { "memory": "1Gi" } },
    } });
    let pod = |spec: &Value, gateway_spec: &Value| compose(&sandbox(spec), &gateway(gateway_spec), &[], &[]).unwrap().pod;
    let plain = pod(&json!({}), &defaults);
    assert_eq!((plain.image.as_deref(), plain.supervisor_image.as_deref()), (Some("default:1"), Some("supervisor:1")));
    assert_eq!(plain.workspace.as_ref().map(|workspace| workspace.size.0.as_str()), Some("1Gi"));
    let own = pod(
        &json!({
            "image": "own:1", "imagePullSecrets": [{ "name": "own" }, { "name": "b" }], "runtimeClassName": "crun",
            "workspace": { "size": "2Gi" }, "resources": { "limits": { "cpu": 2 } },
        }),
        &defaults,
    );
    assert_eq!((own.image.as_deref(), own.runtime_class_name.as_deref()), (Some("own:1"), Some("crun")));
    assert_eq!(own.image_pull_secrets, ["own", "b", "a"]);
    assert_eq!(own.workspace.as_ref().map(|workspace| workspace.size.0.as_str()), Some("2Gi"));
    let limits = &own.resources.as_ref().unwrap().limits;
    assert_eq!(limits.keys().collect::<Vec<_>>(), ["cpu"], "resources are taken as a whole");
    assert_eq!(limits["cpu"].0, "2");
    assert_eq!(pod(&json!({}), &json!({})), PodRequest::default());
    assert_eq!(pod(&json!({}), &json!({})).first(), None);
}

#[test]
fn what_no_pod_can_be_is_refused_with_its_path() {
    for (spec, path) in [
        (json!({ "resources": { "limits": { "c p u": 1 } } }), "resources.limits"),
        (json!({ "resources": { "requests": { "/gpu": 1 } } }), "resources.requests"),
        (json!({ "resources": { "gpu": { "count": 1, "resourceName": "a..b/gpu" } } }), "resources.gpu.resourceName"),
        (
            json!({ "resources": { "limits": { "nvidia.com/gpu": 1 }, "gpu": { "count": 1 } } }),
            "resources: nvidia.com/gpu is asked for by gpu and by name",
        ),
        (json!({ "nodeSelector": { "a b": "c" } }), "nodeSelector"),
        (json!({ "hostAliases": [{ "ip": "10.0.0.256", "hostnames": ["a"] }] }), "hostAliases[0].ip"),
    ] {
        let (reason, message) = refused(&sandbox(&spec), &[], &[]);
        assert_eq!(reason, Reason::PodInvalid);
        assert!(message.starts_with(path), "{message}");
    }
}

#[test]
fn a_policy_that_cannot_be_read_may_be_the_one_that_selects() {
    let readable = |name: &str| DeserializeGuard(Ok(policy(name, "a.example", None)));
    let unreadable = || {
        let metadata = ObjectMeta { name: Some("bad".into()), ..Default::default() };
        DeserializeGuard::<Policy>(Err(InvalidObject { error: "no list".into(), metadata }))
    };
    assert_eq!(BlueprintError::unless_any_unreadable(&[readable("a"), readable("b")]).unwrap().len(), 2);
    let error = BlueprintError::unless_any_unreadable(&[readable("a"), unreadable()]).unwrap_err();
    assert_eq!(error.reason, Reason::InvalidObject);
    assert!(error.message.contains("Policy \"bad\" cannot be read: no list"), "{}", error.message);
}
