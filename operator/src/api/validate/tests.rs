use serde_json::{Value, json};

use super::Rules;
use crate::api::kinds::Kinds;

fn sandbox(spec: &Value) -> Value {
    json!({ "apiVersion": "openshell.ai/v1alpha1", "kind": "OpenShellSandbox", "metadata": { "name": "a", "namespace": "b" }, "spec": spec })
}

fn check(spec: &Value, before: Option<&Value>) -> Vec<String> {
    let kinds = Kinds::shared().unwrap();
    let rules: &Rules = &kinds.by_plural("openshell.ai", "v1alpha1", "openshellsandboxes").unwrap().rules;
    let mut object = sandbox(spec);
    rules.default(&mut object);
    let unknown = rules.unknown_fields(&object).into_iter().map(|f| format!("unknown {f}"));
    let before = before.map(|spec| {
        let mut object = sandbox(spec);
        rules.default(&mut object);
        object
    });
    let causes = rules.check(&object, before.as_ref());
    unknown.chain(causes.into_iter().map(|c| format!("{}: {}", c.field, c.message))).collect()
}

#[test]
fn a_good_object_passes() {
    assert_eq!(
        check(&json!({ "command": ["sh"], "env": [{ "name": "A" }], "policy": { "version": 1, "whatever": {} } }), None),
        Vec::<String>::new()
    );
}

#[test]
fn unknown_fields_have_their_path() {
    let found = check(&json!({ "comand": [], "env": [{ "name": "A", "valueFrom": {} }] }), None);
    assert_eq!(found, ["unknown comand", "unknown env[0].valueFrom"].map(|f| f.replacen("unknown ", "unknown spec.", 1)));
}

#[test]
fn messages_are_an_api_servers() {
    assert_eq!(
        check(&json!({ "tty": "yes" }), None),
        ["spec.tty: Invalid value: \"string\": spec.tty in body must be of type boolean: \"string\""]
    );
    assert_eq!(
        check(&json!({ "env": [{ "name": "1A" }] }), None),
        ["spec.env[0].name: Invalid value: \"1A\": spec.env[0].name in body should match '^[A-Za-z_][A-Za-z0-9_]*$'"]
    );
    assert_eq!(check(&json!({ "env": [{ "value": "x" }] }), None), ["spec.env[0].name: Required value"]);
    assert_eq!(check(&json!({ "env": [{ "name": "A" }, { "name": "A" }] }), None), ["spec.env[1]: Duplicate value: {\"name\":\"A\"}"]);
    assert_eq!(
        check(&json!({ "env": [{ "name": "OPENSHELL_X" }] }), None),
        ["spec.env[0].name: Invalid value: \"string\": names beginning with OPENSHELL_ are reserved"]
    );
    assert_eq!(
        check(&json!({ "policy": { "version": 1 }, "policyRef": { "name": "p" } }), None),
        ["spec.policyRef: Invalid value: \"object\": set policy or policyRef, not both: an inline policy replaces a referenced one"]
    );
}

#[test]
fn transitions_are_checked() {
    let old = json!({ "command": ["a"], "env": [{ "name": "A", "value": "1" }] });
    assert!(check(&old, Some(&old)).is_empty());
    assert!(check(&json!({ "command": [] }), Some(&json!({}))).is_empty(), "an empty list is an absent one");
    assert!(check(&json!({ "command": ["a"], "env": [{ "name": "A", "value": "1" }], "suspend": true }), Some(&old)).is_empty());
    assert_eq!(
        check(&json!({ "command": ["b"], "env": [{ "name": "A", "value": "1" }] }), Some(&old)),
        ["spec.command: Invalid value: \"array\": command is fixed when the sandbox is created; create another sandbox"]
    );
    assert_eq!(check(&json!({ "env": [{ "name": "A", "value": "1" }] }), Some(&old)).len(), 1);
    assert_eq!(check(&json!({ "command": ["a"], "tty": true, "env": [{ "name": "A", "value": "2" }] }), Some(&old)).len(), 2);
}
