use jiff::Timestamp;
use serde_json::{Value, json};

use super::fields::{self, Fields};
use crate::api::kinds::Kinds;
use crate::api::patch::{Force, Patch};
use crate::api::store::state::Change;
use crate::api::write::{self, Clock, Part, Persist, Planned, Verb, Write};

struct Object {
    kinds: std::sync::Arc<Kinds>,
    now: Option<Value>,
}

impl Object {
    fn new() -> Self {
        Self { kinds: Kinds::shared().unwrap(), now: None }
    }

    fn write(&mut self, manager: &str, verb: Verb) -> Result<(), String> {
        let kind = self.kinds.by_plural("openshell.ai", "v1alpha1", "openshellsandboxes").unwrap().clone();
        let write = Write { kind, namespace: "n".into(), name: "a".into(), verb, manager: manager.into(), persist: Persist::Yes };
        let planned = write::plan(write, self.now.as_ref(), Clock { now: Timestamp::UNIX_EPOCH });
        match planned.map_err(|e| e.to_string())? {
            Planned::Unchanged => {}
            Planned::Write { change: Change::Deleted, .. } => self.now = None,
            Planned::Write { mut object, .. } => {
                object["metadata"]["resourceVersion"] = json!("1");
                self.now = Some(object);
            }
        }
        Ok(())
    }

    fn apply(&mut self, manager: &str, force: Force, spec: &Value) -> Result<(), String> {
        let config =
            json!({ "apiVersion": "openshell.ai/v1alpha1", "kind": "OpenShellSandbox", "metadata": { "name": "a" }, "spec": spec });
        self.write(manager, Verb::Patch(Patch::Apply { config, force }, Part::Main))
    }

    fn spec(&self) -> Value {
        self.now.as_ref().unwrap()["spec"].clone()
    }

    fn managers(&self) -> Vec<String> {
        super::entries(self.now.as_ref().unwrap())
            .into_iter()
            .map(|e| format!("{} {:?} {}", e.manager, e.operation, e.fields.paths().join(" ")))
            .collect()
    }
}

#[test]
fn fields_are_written_as_kubernetes_writes_them() {
    let kinds = Kinds::shared().unwrap();
    let schema = kinds.by_plural("openshell.ai", "v1alpha1", "openshellsandboxes").unwrap().rules.schema();
    let object = json!({ "spec": { "command": ["a", "b"], "env": [{ "name": "A", "value": "1" }], "policy": { "x": { "y": [1] } } } });
    let fields = Fields::of(Some(schema), &object);
    let written = json!({ "f:spec": {
        "f:command": {},
        "f:env": { "k:{\"name\":\"A\"}": { ".": {}, "f:name": {}, "f:value": {} } },
        "f:policy": { "f:x": { "f:y": {} } },
    }});
    assert_eq!(fields.to_json(), written);
    assert_eq!(Fields::from_json(&written), fields);
    assert_eq!(fields.paths()[1], ".spec.env[name=\"A\"].name");
}

#[test]
fn an_apply_creates_changes_and_takes_back() {
    let mut object = Object::new();
    object
        .apply("one", Force::No, &json!({ "command": ["a"], "providerRefs": [{ "name": "x" }, { "name": "y" }], "suspend": true }))
        .unwrap();
    assert_eq!(object.now.as_ref().unwrap()["metadata"]["generation"], 1);
    object.apply("one", Force::No, &json!({ "command": ["a"], "providerRefs": [{ "name": "y" }] })).unwrap();
    assert_eq!(object.spec(), json!({ "command": ["a"], "providerRefs": [{ "name": "y" }] }));
    assert_eq!(object.now.as_ref().unwrap()["metadata"]["generation"], 2);
    let before = object.now.clone();
    object.apply("one", Force::No, &json!({ "command": ["a"], "providerRefs": [{ "name": "y" }] })).unwrap();
    assert_eq!(object.now, before, "the same apply changes nothing");
}

#[test]
fn managers_share_an_object_and_conflict_over_a_field() {
    let mut object = Object::new();
    object.apply("one", Force::No, &json!({ "command": ["a"], "suspend": false, "providerRefs": [{ "name": "x" }] })).unwrap();
    object.apply("two", Force::No, &json!({ "providerRefs": [{ "name": "y" }] })).unwrap();
    assert_eq!(object.spec()["providerRefs"], json!([{ "name": "x" }, { "name": "y" }]));
    let refused = object.apply("two", Force::No, &json!({ "suspend": true })).unwrap_err();
    assert_eq!(refused, "Apply failed with 1 conflict: conflict with \"one\" using openshell.ai/v1alpha1: .spec.suspend");
    object.apply("two", Force::Yes, &json!({ "suspend": true })).unwrap();
    assert_eq!(object.spec()["providerRefs"], json!([{ "name": "x" }]), "two no longer wants y");
    assert_eq!(object.managers(), ["one Apply .spec.command .spec.providerRefs[name=\"x\"].name", "two Apply .spec.suspend"]);
    // Equal values may be owned together.
    object.apply("one", Force::No, &json!({ "command": ["a"], "suspend": true })).unwrap();
    object.apply("two", Force::No, &json!({})).unwrap();
    assert_eq!(object.spec()["suspend"], json!(true), "one still wants it");
}

#[test]
fn an_update_takes_fields_from_those_who_applied_them() {
    let mut object = Object::new();
    object.apply("one", Force::No, &json!({ "command": ["a"], "suspend": false })).unwrap();
    object.write("editor", Verb::Patch(Patch::Merge(json!({ "spec": { "suspend": true } })), Part::Main)).unwrap();
    assert_eq!(object.managers(), ["one Apply .spec.command", "editor Update .spec.suspend"]);
    let refused = object.apply("one", Force::No, &json!({ "command": ["a"], "suspend": false })).unwrap_err();
    assert!(refused.contains("conflict with \"editor\""), "{refused}");
    object.write("hub", Verb::Patch(Patch::Merge(json!({ "status": { "phase": "Ready" } })), Part::Status)).unwrap();
    assert_eq!(object.managers()[2], "hub Update .status.phase");
    object.apply("one", Force::No, &json!({ "command": ["a"] })).unwrap();
    assert_eq!(object.spec(), json!({ "command": ["a"], "suspend": true }), "not one's any more");
}

#[test]
fn what_was_there_before_the_first_apply_is_protected() {
    let mut object = Object::new();
    let made = json!({ "apiVersion": "openshell.ai/v1alpha1", "kind": "OpenShellSandbox", "metadata": { "name": "a" }, "spec": { "suspend": true } });
    object.write("someone", Verb::Create(made)).unwrap();
    assert!(object.managers().is_empty());
    let refused = object.apply("one", Force::No, &json!({ "suspend": false })).unwrap_err();
    assert!(refused.contains("before-first-apply"), "{refused}");
    object.apply("one", Force::Yes, &json!({ "suspend": false })).unwrap();
    assert_eq!(object.managers(), ["one Apply .spec.suspend"]);
}

#[test]
fn removal_keeps_what_others_hold_below() {
    let mut value = json!({ "a": { "b": 1, "c": 2 }, "l": [{ "name": "x", "v": 1 }] });
    let schema =
        json!({ "properties": { "l": { "type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"] } } });
    let mine = Fields::of(Some(&schema), &json!({ "a": { "b": 1 }, "l": [{ "name": "x", "v": 1 }] }));
    let others = Fields::of(Some(&schema), &json!({ "a": { "c": 2 }, "l": [{ "name": "x" }] }));
    let mut gone = mine;
    gone.subtract(&others);
    gone.remove_from(&mut value, Some(&others));
    assert_eq!(value, json!({ "a": { "c": 2 }, "l": [{ "name": "x" }] }));
    let mut live = json!({ "l": [{ "name": "x", "v": 1 }, { "name": "y" }] });
    fields::merge(Some(&schema), &mut live, &json!({ "l": [{ "name": "z" }, { "name": "x", "v": 2 }] }));
    assert_eq!(live, json!({ "l": [{ "name": "x", "v": 2 }, { "name": "y" }, { "name": "z" }] }));
}
