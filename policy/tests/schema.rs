//! The schema for the CRDs: structural, takes every policy file, refuses wrong types.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::Path;

use openshell_policy::schema::structural;
use serde_json::Value;

fn schema() -> Value {
    serde_json::to_value(structural()).unwrap()
}

fn file(path: &str) -> Value {
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(path)).unwrap();
    serde_saphyr::from_str(&text).unwrap()
}

#[test]
fn every_example_fits_the_schema() {
    let validator = jsonschema::validator_for(&schema()).unwrap();
    for path in [
        "good/rest.yaml",
        "good/ranges.yaml",
        "good/default.json",
        "bad/unsupported-coding-agent.yaml",
        "bad/unsupported-tool-server.yaml",
        "bad/unsupported-middleware.yaml",
    ] {
        let errors: Vec<String> = validator.iter_errors(&file(path)).map(|e| format!("{}: {e}", e.instance_path())).collect();
        assert!(errors.is_empty(), "{path}: {errors:#?}");
    }
}

#[test]
fn wrong_types_words_and_ranges_do_not() {
    let validator = jsonschema::validator_for(&schema()).unwrap();
    let errors = |path: &str| validator.iter_errors(&file(path)).map(|e| e.instance_path().to_string()).collect::<Vec<_>>();
    let types = errors("bad/wrong-types.yaml");
    for path in [
        "/filesystem_policy/include_workdir",
        "/filesystem_policy/read_only",
        "/filesystem_policy/read_write/0",
        "/process/run_as_user",
        "/network_policies/web/endpoints/0/host",
        "/network_policies/web/endpoints/0/port",
        "/network_policies/web/endpoints/1/port",
        "/network_policies/web/binaries",
        "/network_policies/other",
    ] {
        assert!(types.iter().any(|p| p == path), "{path} in {types:?}");
    }
    assert_eq!(errors("bad/unknown-words.yaml").len(), 5);
    assert_eq!(errors("bad/version-two.yaml"), ["/version"]);
    assert_eq!(errors("bad/ports.yaml").len(), 3);
    // An unknown key passes on purpose: the strict parser refuses it with its path.
    assert_eq!(errors("bad/unknown-keys.yaml"), Vec::<String>::new());
}

/// The rules of apiextensions.k8s.io/v1 for structural schemas that a policy could break.
fn check(schema: &Value, path: &str) {
    let object = schema.as_object().unwrap();
    let preserved = object.get("x-kubernetes-preserve-unknown-fields") == Some(&Value::Bool(true));
    let kind = object.get("type").and_then(Value::as_str);
    assert!(kind.is_some() || preserved, "{path} has a type or preserves");
    for key in object.keys() {
        let known = [
            "type",
            "properties",
            "required",
            "additionalProperties",
            "maxProperties",
            "items",
            "maxItems",
            "maxLength",
            "enum",
            "pattern",
            "format",
            "minimum",
            "maximum",
            "description",
            "x-kubernetes-preserve-unknown-fields",
        ];
        assert!(known.contains(&key.as_str()), "{path}: {key}");
    }
    assert!(!(object.contains_key("properties") && object.contains_key("additionalProperties")), "{path}");
    if let Some(properties) = object.get("properties").and_then(Value::as_object) {
        assert!(preserved, "{path} preserves unknown fields");
        for (key, child) in properties {
            assert!(child["description"].as_str().is_some_and(|d| d.ends_with('.')), "{path}.{key} is described");
            check(child, &format!("{path}.{key}"));
        }
    }
    for key in ["items", "additionalProperties"] {
        if let Some(child) = object.get(key) {
            check(child, &format!("{path}.{key}"));
        }
    }
    if kind == Some("array") {
        assert!(object.contains_key("items") && object.contains_key("maxItems"), "{path}");
    }
    if kind == Some("string") {
        assert!(object.contains_key("maxLength") || object.contains_key("enum"), "{path} is bounded");
    }
}

#[test]
fn the_schema_is_structural() {
    check(&schema(), "policy");
    assert_eq!(schema()["required"], serde_json::json!(["version"]));
}

/// The table of shapes and the types have the same keys: a value for every key of the schema is taken
/// by both, and nothing of it is lost on the way back.
#[test]
fn schema_and_types_have_the_same_keys() {
    fn sample(schema: &Value) -> Value {
        match schema["type"].as_str() {
            None => serde_json::json!("x"),
            Some("boolean") => Value::Bool(true),
            Some("integer") => Value::from(schema["minimum"].as_i64().unwrap().max(1)),
            Some("string") => schema["enum"].as_array().map_or_else(
                || Value::from(if schema["pattern"].is_null() { "x" } else { "rest" }),
                |words| {
                    words
                        .iter()
                        .rfind(|w| !["", "audit", "terminate", "best_effort", "fail_closed"].contains(&w.as_str().unwrap()))
                        .unwrap()
                        .clone()
                },
            ),
            Some("array") => Value::Array(vec![sample(&schema["items"])]),
            Some("object") => {
                let mut map = serde_json::Map::new();
                for (key, child) in schema["properties"].as_object().into_iter().flatten() {
                    map.insert(key.clone(), sample(child));
                }
                if schema["additionalProperties"].is_object() {
                    map.insert("entry".to_owned(), sample(&schema["additionalProperties"]));
                } else if map.is_empty() {
                    map.insert("mode".to_owned(), Value::from("x"));
                }
                Value::Object(map)
            }
            Some(other) => panic!("{other}"),
        }
    }
    let value = sample(&schema());
    let policy: openshell_policy::Policy = serde_json::from_value(value.clone()).unwrap();
    assert_eq!(serde_json::to_value(&policy).unwrap(), value);
}
