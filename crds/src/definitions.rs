//! The definitions, brought into the form that is served and shipped.
//!
//! The types give the schema. What no type can say is added here, in one place: an absent field
//! is absent and never `null`, and every string, list and number of a status has a bound, as
//! those of a spec have one each beside their field.

use crate::sandbox::Phase;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt as _;
use serde_json::{Value, json};

use crate::{OpenShellGateway, OpenShellSandbox, Policy, Provider};

/// Longest string of a status, in characters (that of a condition's message).
const STATUS_STRING: u64 = 32_768;
/// Longest list of a status.
const STATUS_LIST: u64 = 128;

/// The `observedGeneration` of an object that nobody has looked at yet.
const NOT_OBSERVED: i64 = -1;

/// The definitions that we ship, in the order in which they are applied.
pub fn all() -> Vec<CustomResourceDefinition> {
    [OpenShellGateway::crd(), Policy::crd(), Provider::crd(), OpenShellSandbox::crd()].into_iter().map(finish).collect()
}

fn finish(definition: CustomResourceDefinition) -> CustomResourceDefinition {
    let mut value = serde_json::to_value(definition).expect("a definition is plain data with string keys");
    for version in value["spec"]["versions"].as_array_mut().into_iter().flatten() {
        let schema = &mut version["schema"]["openAPIV3Schema"];
        each(schema, &mut |node| {
            if let Some(node) = node.as_object_mut() {
                node.remove("nullable");
                whole_numbers(node);
            }
        });
        if let Some(status) = schema.pointer_mut("/properties/status") {
            each(status, &mut bound);
            not_observed_yet(status);
        }
    }
    serde_json::from_value(value).expect("the same definition with fewer and other bounds")
}

/// Visits a schema and every schema in it.
fn each(schema: &mut Value, visit: &mut impl FnMut(&mut Value)) {
    visit(schema);
    for property in schema.get_mut("properties").and_then(Value::as_object_mut).into_iter().flat_map(serde_json::Map::values_mut) {
        each(property, visit);
    }
    for inner in ["items", "additionalProperties"] {
        if let Some(inner) = schema.get_mut(inner).filter(|s| s.is_object()) {
            each(inner, visit);
        }
    }
}

fn whole_numbers(node: &mut serde_json::Map<String, Value>) {
    for bound in ["minimum", "maximum"] {
        if let Some(number) = node.get(bound).and_then(Value::as_f64).filter(|n| n.fract() == 0.0 && n.abs() < 1e15) {
            node.insert(bound.to_owned(), json!(number as i64));
        }
    }
}

/// An object that nobody has looked at yet says so: without a status, tools that follow kstatus take it for
/// what it is to become. A sandbox is provisioned from the moment on at which it is made.
fn not_observed_yet(status: &mut Value) {
    status["default"] = json!({ "observedGeneration": NOT_OBSERVED });
    if status["properties"].get("phase").is_some() {
        status["default"]["phase"] = json!(Phase::default());
    }
    status["properties"]["observedGeneration"]["minimum"] = json!(NOT_OBSERVED);
}

fn bound(node: &mut Value) {
    let Some(node) = node.as_object_mut() else { return };
    match node.get("type").and_then(Value::as_str) {
        Some("string") if !node.contains_key("enum") && node.get("format") != Some(&json!("date-time")) => {
            node.entry("maxLength").or_insert(json!(STATUS_STRING));
        }
        Some("array") => {
            node.entry("maxItems").or_insert(json!(STATUS_LIST));
        }
        Some("integer") => {
            node.entry("minimum").or_insert(json!(0));
        }
        _ => {}
    }
}
