//! Printer columns: the small part of JSONPath that definitions use.

use jiff::Timestamp;
use serde_json::Value;

/// The text of a column: a date is shown as an age, what is absent as nothing.
pub(crate) fn cell(object: &Value, heading: &str, path: &str) -> String {
    match lookup(object, path) {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) if heading == "Age" => crate::output::age(text.parse::<Timestamp>().ok()),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    }
}

/// `.a.b` and `.a[?(@.key=="value")].b`.
pub(crate) fn lookup<'a>(object: &'a Value, path: &str) -> Option<&'a Value> {
    let mut at = object;
    let mut rest = path;
    while !rest.is_empty() {
        if let Some(filter) = rest.strip_prefix("[?(@.") {
            let (key, after) = filter.split_once("==\"")?;
            let (wanted, after) = after.split_once("\")]")?;
            at = at.as_array()?.iter().find(|e| e.get(key).and_then(Value::as_str) == Some(wanted))?;
            rest = after;
        } else {
            let name = rest.strip_prefix('.')?;
            let end = name.find(['.', '[']).unwrap_or(name.len());
            at = at.get(&name[..end])?;
            rest = &name[end..];
        }
    }
    Some(at)
}
