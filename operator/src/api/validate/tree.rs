//! Walks over schema and value together: defaults, unknown fields, keys of lists.

use std::collections::HashSet;

use serde_json::Value;

use crate::api::error::{Cause, CauseReason};

/// The schema of an object's field: by name, or that of every value.
pub(crate) fn field<'a>(schema: &'a Value, name: &str) -> Option<&'a Value> {
    schema.get("properties").and_then(|p| p.get(name)).or_else(|| schema.get("additionalProperties").filter(|s| s.is_object()))
}

/// Whether unknown fields are kept at this node.
pub(crate) fn preserves(schema: &Value) -> bool {
    schema.get("x-kubernetes-preserve-unknown-fields") == Some(&Value::Bool(true))
        || schema.get("additionalProperties") == Some(&Value::Bool(true))
}

/// The path of a field below another.
pub(crate) fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

/// Puts in defaults, outermost first. A null where none may be gives way to the default, or goes
/// (`k8s.io/apiextensions-apiserver/pkg/apiserver/schema/defaulting`).
pub(crate) fn default(schema: &Value, value: &mut Value) {
    match value {
        Value::Object(map) => {
            for (name, property) in schema.get("properties").and_then(Value::as_object).into_iter().flatten() {
                if let Some(default) = property.get("default")
                    && map.get(name).is_none_or(Value::is_null)
                {
                    map.insert(name.clone(), default.clone());
                }
            }
            map.retain(|name, value| {
                let may_be_null = field(schema, name).is_none_or(|field| field.get("nullable") == Some(&Value::Bool(true)));
                !value.is_null() || may_be_null
            });
            for (name, inner) in map {
                if let Some(schema) = field(schema, name) {
                    default(schema, inner);
                }
            }
        }
        Value::Array(list) => {
            if let Some(items) = schema.get("items") {
                for item in list {
                    default(items, item);
                }
            }
        }
        _ => {}
    }
}

/// Paths of fields that no schema names.
pub(crate) fn unknown(schema: &Value, value: &Value) -> Vec<String> {
    let mut found = Vec::new();
    find_unknown(schema, value, "", &mut found);
    found
}

fn find_unknown(schema: &Value, value: &Value, path: &str, found: &mut Vec<String>) {
    match value {
        Value::Object(map) => {
            for (name, inner) in map {
                match field(schema, name) {
                    Some(schema) => find_unknown(schema, inner, &join(path, name), found),
                    None if preserves(schema) => {}
                    None => found.push(join(path, name)),
                }
            }
        }
        Value::Array(list) => {
            if let Some(items) = schema.get("items") {
                for (index, item) in list.iter().enumerate() {
                    find_unknown(items, item, &format!("{path}[{index}]"), found);
                }
            }
        }
        _ => {}
    }
}

/// Entries that a list of type `map` or `set` has twice.
pub(crate) fn duplicates(schema: &Value, value: &Value) -> Vec<Cause> {
    let mut causes = Vec::new();
    find_duplicates(schema, value, "", &mut causes);
    causes
}

/// The keys of a list of type `map`.
pub(crate) fn list_keys(schema: &Value) -> Option<Vec<&str>> {
    (schema.get("x-kubernetes-list-type")?.as_str()? == "map").then(|| {
        schema.get("x-kubernetes-list-map-keys").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect()
    })
}

/// Whether the list is of type `set`.
pub(crate) fn is_set(schema: &Value) -> bool {
    schema.get("x-kubernetes-list-type").and_then(Value::as_str) == Some("set")
}

fn find_duplicates(schema: &Value, value: &Value, path: &str, causes: &mut Vec<Cause>) {
    match value {
        Value::Object(map) => {
            for (name, inner) in map {
                if let Some(schema) = field(schema, name) {
                    find_duplicates(schema, inner, &join(path, name), causes);
                }
            }
        }
        Value::Array(list) => {
            let keys = list_keys(schema);
            let mut seen = HashSet::new();
            for (index, item) in list.iter().enumerate() {
                let identity = match &keys {
                    Some(keys) => {
                        let key: serde_json::Map<String, Value> =
                            keys.iter().filter_map(|k| Some(((*k).to_owned(), item.get(k)?.clone()))).collect();
                        Some(Value::Object(key).to_string())
                    }
                    None => is_set(schema).then(|| item.to_string()),
                };
                let at = format!("{path}[{index}]");
                if let Some(identity) = identity
                    && !seen.insert(identity.clone())
                {
                    causes.push(Cause::new(CauseReason::Duplicate, at.clone(), format!("Duplicate value: {identity}")));
                }
                if let Some(items) = schema.get("items") {
                    find_duplicates(items, item, &at, causes);
                }
            }
        }
        _ => {}
    }
}
