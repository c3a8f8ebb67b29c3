//! Each definition is one that an API server takes: the rules of structural schemas, of list
//! types and of CEL costs (`apiextensions-apiserver/pkg/apiserver/schema`), and ours: everything
//! in a spec has a bound and a sentence that says what it is.
#![allow(clippy::unwrap_used)]

use serde_json::Value;

/// A schema, and where it is.
struct Node<'a> {
    path: String,
    schema: &'a Value,
}

fn nodes<'a>(path: String, schema: &'a Value, found: &mut Vec<Node<'a>>) {
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        nodes(format!("{path}.{name}"), property, found);
    }
    for (keyword, suffix) in [("items", "[]"), ("additionalProperties", "{}")] {
        if schema[keyword].is_object() {
            nodes(format!("{path}{suffix}"), &schema[keyword], found);
        }
    }
    found.push(Node { path, schema });
}

fn each(check: impl Fn(&Node<'_>) -> Result<(), String>) {
    let mut wrong = Vec::new();
    for definition in openshell_crds::all() {
        let value = serde_json::to_value(&definition).unwrap();
        let mut found = Vec::new();
        nodes(definition.spec.names.kind.clone(), &value["spec"]["versions"][0]["schema"]["openAPIV3Schema"], &mut found);
        wrong.extend(found.iter().filter_map(|node| check(node).err().map(|why| format!("{}: {why}", node.path))));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The one form that has no type of its own (`apiextensions-apiserver/pkg/apiserver/schema/validation.go`).
fn int_or_string(node: &Node<'_>) -> bool {
    node.schema["x-kubernetes-int-or-string"] == Value::Bool(true) && node.schema.get("anyOf").is_none()
}

fn in_spec(node: &Node<'_>) -> bool {
    node.path.contains(".spec")
}

#[test]
fn every_node_is_typed() {
    each(|node| {
        let preserved = node.schema["x-kubernetes-preserve-unknown-fields"] == Value::Bool(true);
        let Some(kind) = node.schema["type"].as_str() else {
            return if preserved || int_or_string(node) { Ok(()) } else { Err("no type".into()) };
        };
        if !["object", "array", "string", "integer", "boolean", "number"].contains(&kind) {
            return Err(format!("type {kind}"));
        }
        for banned in
            ["$ref", "definitions", "patternProperties", "dependencies", "additionalItems", "id", "$schema", "uniqueItems", "nullable"]
        {
            if node.schema.get(banned).is_some() {
                return Err(format!("{banned} is not for structural schemas, or not for ours"));
            }
        }
        if node.schema.get("properties").is_some() && node.schema.get("additionalProperties").is_some() {
            return Err("properties and additionalProperties exclude each other".into());
        }
        if kind == "array" && !node.schema["items"].is_object() {
            return Err("a list without items".into());
        }
        if kind == "object" && !preserved && node.schema.get("properties").is_none() && node.schema.get("additionalProperties").is_none() {
            return Err("an object that can hold nothing".into());
        }
        Ok(())
    });
}

#[test]
fn logical_junctors_repeat_no_types() {
    each(|node| {
        for junctor in ["allOf", "anyOf", "oneOf", "not"] {
            let branches = node.schema.get(junctor).map(|j| j.as_array().cloned().unwrap_or_else(|| vec![j.clone()])).unwrap_or_default();
            for branch in branches {
                for banned in ["type", "default", "description", "additionalProperties", "nullable"] {
                    if branch.get(banned).is_some() {
                        return Err(format!("{banned} within {junctor}"));
                    }
                }
            }
        }
        Ok(())
    });
}

#[test]
fn lists_of_type_map_have_required_scalar_keys() {
    each(|node| {
        let kind = node.schema["x-kubernetes-list-type"].as_str();
        if node.schema["type"] == "array" && in_spec(node) && kind.is_none() && !node.path.contains(".policy.") {
            return Err("a list of a spec must say its type".into());
        }
        if kind != Some("map") {
            return Ok(());
        }
        let keys = node.schema["x-kubernetes-list-map-keys"].as_array().ok_or("no keys")?;
        let items = &node.schema["items"];
        for key in keys {
            let key = key.as_str().unwrap();
            let required = items["required"].as_array().is_some_and(|r| r.iter().any(|name| name == key));
            if !required && items["properties"][key].get("default").is_none() {
                return Err(format!("the key {key} is neither required nor has a default"));
            }
            if !matches!(items["properties"][key]["type"].as_str(), Some("string" | "integer" | "boolean")) {
                return Err(format!("the key {key} is no scalar"));
            }
        }
        Ok(())
    });
}

#[test]
fn everything_has_a_bound() {
    each(|node| {
        let has = |keyword: &str| node.schema.get(keyword).is_some();
        match node.schema["type"].as_str() {
            Some("string") if !has("maxLength") && !has("enum") && !has("format") => Err("a text without maxLength".into()),
            Some("array") if !has("maxItems") => Err("a list without maxItems".into()),
            Some("object") if node.schema["additionalProperties"].is_object() && !has("maxProperties") => {
                Err("a map without maxProperties".into())
            }
            Some("integer") if in_spec(node) && !(has("minimum") && has("maximum")) => Err("a number without bounds".into()),
            Some("integer") if node.schema["format"] != "int32" && node.schema["format"] != "int64" && !node.path.contains(".policy") => {
                Err("a number without format".into())
            }
            _ => Ok(()),
        }
    });
}

#[test]
fn everything_is_explained() {
    each(|node| {
        let named = node.path.rsplit('.').next().is_some_and(|last| !last.ends_with(']') && !last.ends_with('}'));
        if named && node.schema["description"].as_str().is_none_or(str::is_empty) && !node.path.contains(".policy.") {
            return Err("no description".into());
        }
        Ok(())
    });
}

#[test]
fn definitions_say_how_they_are_shown_and_served() {
    for definition in openshell_crds::all() {
        let spec = &definition.spec;
        let kind = &spec.names.kind;
        assert_eq!(definition.metadata.name.as_deref(), Some(format!("{}.{}", spec.names.plural, spec.group).as_str()), "{kind}");
        assert_eq!(spec.names.categories.as_deref(), Some(&["openshell".to_owned()][..]), "{kind}");
        assert_eq!(spec.names.short_names.as_ref().map(Vec::len), Some(1), "{kind}");
        assert_eq!(spec.scope, "Namespaced", "{kind}");
        let version = &spec.versions[0];
        assert!(version.served && version.storage && version.subresources.as_ref().unwrap().status.is_some(), "{kind}");
        let columns = version.additional_printer_columns.as_ref().unwrap();
        assert_eq!(columns.last().unwrap().name, "Age", "{kind}");
        assert!(columns.iter().all(|c| c.json_path.starts_with('.')), "{kind}");
    }
}

/// A manifest that the types write is one that they read.
#[test]
fn manifests_are_definitions() {
    for (file, text) in openshell_crds::manifests::all() {
        let read: k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition =
            serde_saphyr::from_str(&text).unwrap_or_else(|error| panic!("{file}: {error}"));
        assert!(openshell_crds::all().contains(&read), "{file}");
    }
}
