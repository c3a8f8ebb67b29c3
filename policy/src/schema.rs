//! The structural schema of a policy for the CRDs, from the same table that the parser uses.
//!
//! It has types, bounds and words, so that an API server refuses most mistakes itself, and
//! `x-kubernetes-preserve-unknown-fields` on each of its objects: an unknown key must reach the strict
//! parser, not be pruned on the way, because a typo must never widen a policy.

use schemars::Schema;
use serde_json::{Value, json};

use crate::limits::MAX_NAME;
use crate::shape::{Case, Key, POLICY, Shape};

/// Structural OpenAPI schema of a policy file (Kubernetes apiextensions/v1).
pub fn structural() -> Schema {
    let mut schema = of(&POLICY);
    schema["required"] = json!(["version"]);
    Schema::try_from(schema).unwrap_or_default()
}

fn of(shape: &Shape) -> Value {
    match shape {
        Shape::Object { keys, .. } => {
            let properties: serde_json::Map<String, Value> = keys.iter().map(|key| (key.name.to_owned(), described(key))).collect();
            json!({ "type": "object", "properties": properties, "x-kubernetes-preserve-unknown-fields": true })
        }
        // Every key of a map is known to it, so there is nothing to preserve.
        Shape::Map { of: value, most } => json!({ "type": "object", "additionalProperties": of(value), "maxProperties": most }),
        Shape::List { of: item, most } => json!({ "type": "array", "items": of(item), "maxItems": most }),
        Shape::Text { most } => json!({ "type": "string", "maxLength": most }),
        Shape::Word { words, case: Case::Exact } => json!({ "type": "string", "enum": words }),
        Shape::Word { words, case: Case::Any } => json!({ "type": "string", "maxLength": MAX_NAME, "pattern": in_any_case(words) }),
        Shape::Flag => json!({ "type": "boolean" }),
        Shape::Integer { least, most } => json!({ "type": "integer", "format": "int64", "minimum": least, "maximum": most }),
        // Text or an object: a structural schema cannot say "either" of types.
        Shape::Matcher => json!({ "x-kubernetes-preserve-unknown-fields": true }),
        Shape::Free => json!({ "type": "object", "x-kubernetes-preserve-unknown-fields": true }),
    }
}

fn described(key: &Key) -> Value {
    let mut schema = of(key.shape);
    schema["description"] = json!(key.help);
    schema
}

/// A pattern in the syntax that API servers (RE2) and JSON Schema validators share.
fn in_any_case(words: &[&str]) -> String {
    let either =
        |c: char| if c.is_ascii_alphabetic() { format!("[{}{}]", c.to_ascii_lowercase(), c.to_ascii_uppercase()) } else { c.to_string() };
    let words: Vec<String> = words.iter().map(|word| word.chars().map(either).collect()).collect();
    format!("^({})$", words.join("|"))
}
