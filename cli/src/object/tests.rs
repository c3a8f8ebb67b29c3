//! Objects from files, and their columns.

use std::fmt::Write as _; // Into a String, which cannot fail.

use serde_json::json;

use super::column::{cell, lookup};
use super::{Kind, documents};

const TWO: &str = "\
apiVersion: openshell.ai/v1alpha1
kind: Policy
metadata: {name: web}
spec: {policy: {version: 1}}
---
---
apiVersion: v1
kind: Secret
metadata: {name: token, namespace: elsewhere, labels: {openshell.ai/credential: 'true'}}
stringData: {TOKEN: x}
";

#[test]
fn every_document_of_a_file() {
    let all = documents("f", TWO, "openshell").expect("two objects");
    let seen: Vec<_> = all.iter().map(|d| (d.kind.resource.plural.as_str(), d.name.as_str(), d.namespace.as_str())).collect();
    assert_eq!(seen, [("policies", "web", "openshell"), ("secrets", "token", "elsewhere")]);
    assert_eq!(all[0].kind.display("web"), "policy.openshell.ai/web");
    assert_eq!(all[1].kind.display("token"), "secret/token");
    assert_eq!(all[1].object.data["stringData"]["TOKEN"], "x", "nothing of an object is lost");
}

#[test]
fn a_list_is_its_items_and_json_is_yaml() {
    let list = json!({ "apiVersion": "v1", "kind": "List", "items": [
        { "apiVersion": "openshell.ai/v1alpha1", "kind": "OpenShellSandbox", "metadata": { "name": "a" }, "spec": {} },
    ]});
    assert_eq!(documents("f", &list.to_string(), "n").expect("one object")[0].name, "a");
}

#[test]
fn what_is_refused_says_which_object_and_why() {
    for (text, reason) in [
        ("", "it has no object"),
        ("---\n---\n", "it has no object"),
        ("a: [", "line"),
        ("kind: Policy", "apiVersion and kind are missing"),
        ("apiVersion: v1\nkind: Pod\nmetadata: {name: a}", "v1 Pod is not stored here"),
        ("apiVersion: openshell.ai/v1beta1\nkind: Policy\nmetadata: {name: a}", "openshell.ai/v1beta1 Policy is not stored here"),
        ("apiVersion: v1\nkind: Secret\nmetadata: {}", "metadata.name is missing"),
        ("apiVersion: v1\nkind: Secret\nmetadata: {name: a}\n---\nkind: x", "object 2: apiVersion and kind are missing"),
        ("apiVersion: v1\napiVersion: v1\nkind: Secret", "duplicate"),
    ] {
        let text = documents("f.yaml", text, "n").err().unwrap_or_else(|| panic!("{text} is accepted")).plain();
        assert!(text.contains("f.yaml") && text.to_lowercase().contains(&reason.to_lowercase()), "{reason} in\n{text}");
    }
}

#[test]
fn a_policy_with_a_typo_is_refused_before_it_is_sent() {
    let check = |policy: &str| {
        let text = format!("apiVersion: openshell.ai/v1alpha1\nkind: Policy\nmetadata: {{name: web}}\nspec: {{policy: {policy}}}\n");
        documents("f", &text, "n").expect("an object")[0].check()
    };
    assert!(check("{version: 1}").is_ok());
    let text = check("{version: 1, netwrk_policies: {}}").expect_err("a typo").plain();
    assert!(text.contains("policy.openshell.ai/web was not applied.") && text.contains("netwrk_policies"), "{text}");
    assert!(documents("f", TWO, "n").expect("objects").iter().all(|d| d.check().is_ok()));
}

#[test]
fn an_alias_bomb_is_refused_quickly() {
    let mut bomb = String::from("a: &a [x, x, x, x, x, x, x, x, x, x]\n");
    for (from, to) in ["a", "b", "c", "d", "e", "f", "g", "h"].iter().zip(["b", "c", "d", "e", "f", "g", "h", "i"]) {
        let _ = writeln!(bomb, "{to}: &{to} [*{from}, *{from}, *{from}, *{from}, *{from}, *{from}, *{from}, *{from}, *{from}, *{from}]");
    }
    let began = std::time::Instant::now();
    assert!(documents("bomb", &bomb, "n").is_err());
    assert!(began.elapsed().as_secs() < 60, "it was expanded");
}

#[test]
fn kinds_have_all_their_names() {
    for (name, plural) in [
        ("ossb", "openshellsandboxes"),
        ("OpenShellSandbox", "openshellsandboxes"),
        ("policies", "policies"),
        ("policy", "policies"),
        ("ospol", "policies"),
        ("providers.openshell.ai", "providers"),
        ("osg", "openshellgateways"),
        ("secret", "secrets"),
    ] {
        assert_eq!(Kind::named(name).expect(name).resource.plural, plural);
    }
    assert_eq!(Kind::named("pods").expect_err("not ours").stable_code(), "usage");
}

#[test]
fn columns_of_the_definitions_can_all_be_read() {
    let object = json!({ "spec": { "type": "x" }, "status": { "phase": "Ready", "conditions": [
        { "type": "Accepted", "status": "False" },
        { "type": "Ready", "status": "True", "reason": "AllGood" },
    ], "policy": { "acknowledgedRevision": 3 } } });
    assert_eq!(cell(&object, "Ready", ".status.conditions[?(@.type==\"Ready\")].status"), "True");
    assert_eq!(cell(&object, "Policy", ".status.policy.acknowledgedRevision"), "3");
    assert_eq!(cell(&object, "None", ".status.nothing.here"), "");
    assert!(lookup(&object, ".status.conditions[?(@.type==\"Gone\")].status").is_none());
    for kind in Kind::all() {
        for (heading, path) in kind.columns {
            // A path of a form that is not understood would always be absent.
            let understood = path.starts_with('.') && !path.contains('*') && !path.contains("..");
            assert!(understood, "{heading}: {path}");
        }
    }
}
