//! Tables (`meta.k8s.io/v1 Table`): what `kubectl get` prints, from the columns of a definition.

use serde_json::{Value, json};

use super::kinds::{Column, Kind};
use super::list::Page;

/// The table of some objects.
pub(crate) fn table(kind: &Kind, metadata: &Value, objects: impl IntoIterator<Item = Value>) -> Value {
    let mut columns =
        vec![json!({ "name": "Name", "type": "string", "format": "name", "description": "Name of the object.", "priority": 0 })];
    columns.extend(kind.columns.iter().map(|column| {
        json!({ "name": column.name, "type": column.type_, "format": "", "description": column.description, "priority": column.priority })
    }));
    let rows: Vec<Value> = objects
        .into_iter()
        .map(|object| {
            let mut cells = vec![object["metadata"]["name"].clone()];
            cells.extend(kind.columns.iter().map(|column| cell(column, &object)));
            json!({
                "cells": cells,
                "object": { "apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata", "metadata": object["metadata"] },
            })
        })
        .collect();
    json!({ "apiVersion": "meta.k8s.io/v1", "kind": "Table", "metadata": metadata, "columnDefinitions": columns, "rows": rows })
}

/// The table of one page of a list.
pub(crate) fn of_page(kind: &Kind, page: &Page) -> Value {
    let objects = page.items.iter().filter_map(|(_, stored)| serde_json::from_slice(&stored.bytes).ok());
    table(kind, &page.metadata(), objects)
}

fn cell(column: &Column, object: &Value) -> Value {
    let Some(value) = find(object, &column.path) else { return Value::Null };
    match (column.type_.as_str(), value) {
        ("string", Value::String(_)) | ("integer" | "number", Value::Number(_)) | ("boolean", Value::Bool(_)) => value.clone(),
        ("date", Value::String(time)) => json!(age(time)),
        ("string", other) => json!(other.to_string()),
        _ => Value::Null,
    }
}

/// How long ago a time was, as `kubectl` writes it.
fn age(time: &str) -> String {
    let Ok(time) = time.parse::<jiff::Timestamp>() else { return "<unknown>".to_owned() };
    let seconds = jiff::Timestamp::now().duration_since(time).as_secs().max(0);
    let (minute, hour, day, year) = (60, 3600, 86_400, 365 * 86_400);
    match seconds {
        s if s < 2 * minute => format!("{s}s"),
        s if s < 10 * minute && s % minute != 0 => format!("{}m{}s", s / minute, s % minute),
        s if s < 3 * hour => format!("{}m", s / minute),
        s if s < 8 * hour && s % hour >= minute => format!("{}h{}m", s / hour, s % hour / minute),
        s if s < 2 * day => format!("{}h", s / hour),
        s if s < 8 * day && s % day >= hour => format!("{}d{}h", s / day, s % day / hour),
        s if s < 2 * year => format!("{}d", s / day),
        s => format!("{}y{}d", s / year, s % year / day),
    }
}

/// The value at a JSON path of the kind that printer columns use: fields, and the entry of a
/// list in which a field has a value (`.a[?(@.type=="Ready")].status`).
pub(crate) fn find<'a>(object: &'a Value, path: &str) -> Option<&'a Value> {
    let mut value = object;
    let mut rest = path;
    while !rest.is_empty() {
        if let Some(after) = rest.strip_prefix("[?(@.") {
            let (condition, after) = after.split_once(")]")?;
            let (field, wanted) = condition.split_once("==")?;
            let wanted = wanted.trim_matches(['"', '\'']);
            value = value.as_array()?.iter().find(|item| item.get(field).and_then(Value::as_str) == Some(wanted))?;
            rest = after;
        } else {
            let after = rest.strip_prefix('.').unwrap_or(rest);
            let end = after.find(['.', '[']).unwrap_or(after.len());
            let (name, after) = after.split_at(end);
            if name.is_empty() {
                return None;
            }
            value = value.get(name)?;
            rest = after;
        }
    }
    Some(value)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::find;

    #[test]
    fn paths_of_columns_are_found() {
        let object = json!({ "status": { "phase": "Ready", "conditions": [{ "type": "A", "status": "x" }, { "type": "Ready", "status": "True" }] } });
        assert_eq!(find(&object, ".status.phase"), Some(&json!("Ready")));
        assert_eq!(find(&object, ".status.conditions[?(@.type==\"Ready\")].status"), Some(&json!("True")));
        for nothing in [".status.conditions[?(@.type==\"B\")].status", ".spec", ".status..phase", ".status.phase.x", ".status[?(@.x"] {
            assert_eq!(find(&object, nothing), None, "{nothing}");
        }
    }
}
