//! Object metadata: the same rules for every kind
//! (`k8s.io/apimachinery/pkg/api/validation/objectmeta.go`).

use serde_json::{Map, Value, json};

use super::error::{Cause, CauseReason};
use super::limits;

/// The schema of `metadata`, put into the schema of every kind.
pub(crate) fn schema() -> Value {
    let strings = json!({ "type": "object", "additionalProperties": { "type": "string" } });
    json!({
        "type": "object",
        "properties": {
            "name": { "type": "string" },
            "generateName": { "type": "string" },
            "namespace": { "type": "string" },
            "uid": { "type": "string" },
            "resourceVersion": { "type": "string" },
            "selfLink": { "type": "string" },
            "generation": { "type": "integer", "format": "int64" },
            "creationTimestamp": { "type": "string", "format": "date-time", "nullable": true },
            "deletionTimestamp": { "type": "string", "format": "date-time" },
            "deletionGracePeriodSeconds": { "type": "integer", "format": "int64" },
            "labels": strings,
            "annotations": strings,
            "finalizers": { "type": "array", "items": { "type": "string" }, "maxItems": 64, "x-kubernetes-list-type": "set" },
            "ownerReferences": {
                "type": "array",
                "maxItems": 64,
                "x-kubernetes-list-type": "map",
                "x-kubernetes-list-map-keys": ["uid"],
                "items": {
                    "type": "object",
                    "required": ["apiVersion", "kind", "name", "uid"],
                    "properties": {
                        "apiVersion": { "type": "string", "minLength": 1 },
                        "kind": { "type": "string", "minLength": 1 },
                        "name": { "type": "string", "minLength": 1 },
                        "uid": { "type": "string", "minLength": 1 },
                        "controller": { "type": "boolean" },
                        "blockOwnerDeletion": { "type": "boolean" },
                    },
                },
            },
            "managedFields": { "type": "array", "items": { "type": "object", "x-kubernetes-preserve-unknown-fields": true } },
        },
    })
}

/// What the schema cannot say.
pub(crate) fn check(object: &Value) -> Vec<Cause> {
    let mut causes = Vec::new();
    let Some(meta) = object.get("metadata").and_then(Value::as_object) else {
        return vec![Cause::required("metadata", "")];
    };
    if let Some(name) = meta.get("name").and_then(Value::as_str)
        && let Err(why) = subdomain(name)
    {
        causes.push(Cause::invalid("metadata.name", &json!(name), why));
    }
    if let Some(namespace) = meta.get("namespace").and_then(Value::as_str)
        && let Err(why) = label_name(namespace)
    {
        causes.push(Cause::invalid("metadata.namespace", &json!(namespace), why));
    }
    for (key, value) in entries(meta, "labels") {
        if let Err(why) = qualified_name(key) {
            causes.push(Cause::invalid("metadata.labels", &json!(key), format!("name part {why}")));
        }
        if let Some(text) = value.as_str()
            && let Err(why) = label_value(text)
        {
            causes.push(Cause::invalid("metadata.labels", value, why));
        }
    }
    let mut size = 0;
    for (key, value) in entries(meta, "annotations") {
        if let Err(why) = qualified_name(&key.to_lowercase()) {
            causes.push(Cause::invalid("metadata.annotations", &json!(key), format!("name part {why}")));
        }
        size += key.len() + value.as_str().map_or(0, str::len);
    }
    if size > limits::MAX_ANNOTATIONS {
        causes.push(Cause::new(
            CauseReason::TooLong,
            "metadata.annotations",
            format!("Too long: may not be more than {} bytes", limits::MAX_ANNOTATIONS),
        ));
    }
    for (index, finalizer) in meta.get("finalizers").and_then(Value::as_array).into_iter().flatten().enumerate() {
        if let Some(text) = finalizer.as_str()
            && let Err(why) = qualified_name(text)
        {
            causes.push(Cause::invalid(format!("metadata.finalizers[{index}]"), finalizer, format!("name part {why}")));
        }
    }
    let owners = meta.get("ownerReferences").and_then(Value::as_array).into_iter().flatten();
    let controllers = owners.filter(|o| o.get("controller") == Some(&Value::Bool(true))).count();
    if controllers > 1 {
        causes.push(Cause::invalid("metadata.ownerReferences", &json!([]), "only one reference can have controller set to true"));
    }
    causes
}

fn entries<'a>(meta: &'a Map<String, Value>, field: &str) -> impl Iterator<Item = (&'a String, &'a Value)> {
    meta.get(field).and_then(Value::as_object).into_iter().flatten()
}

const SUBDOMAIN: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
const LABEL: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";
const QUALIFIED: &str = "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";

fn is_label(text: &str) -> bool {
    let bytes = text.as_bytes();
    let edge = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    bytes.first().is_some_and(edge) && bytes.last().is_some_and(edge) && bytes.iter().all(|b| edge(b) || *b == b'-')
}

fn is_name(text: &str) -> bool {
    let bytes = text.as_bytes();
    let edge = u8::is_ascii_alphanumeric;
    bytes.first().is_some_and(edge) && bytes.last().is_some_and(edge) && bytes.iter().all(|b| edge(b) || matches!(b, b'-' | b'_' | b'.'))
}

/// A DNS subdomain: object names.
pub(crate) fn subdomain(text: &str) -> Result<(), String> {
    if text.len() > 253 {
        return Err("must be no more than 253 characters".into());
    }
    if text.split('.').all(is_label) { Ok(()) } else { Err(SUBDOMAIN.into()) }
}

/// A DNS label: namespaces.
pub(crate) fn label_name(text: &str) -> Result<(), String> {
    if text.len() > 63 {
        return Err("must be no more than 63 characters".into());
    }
    if is_label(text) { Ok(()) } else { Err(LABEL.into()) }
}

/// `prefix/name`: keys of labels and annotations, finalizers.
pub(crate) fn qualified_name(text: &str) -> Result<(), String> {
    let name = match text.split_once('/') {
        None => text,
        Some((prefix, name)) => {
            subdomain(prefix)?;
            name
        }
    };
    if name.is_empty() {
        return Err("must be non-empty".into());
    }
    if name.len() > 63 {
        return Err("must be no more than 63 characters".into());
    }
    if is_name(name) { Ok(()) } else { Err(QUALIFIED.into()) }
}

/// A value of a label.
pub(crate) fn label_value(text: &str) -> Result<(), String> {
    if text.len() > 63 {
        return Err("must be no more than 63 characters".into());
    }
    if text.is_empty() || is_name(text) {
        Ok(())
    } else {
        Err("a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')".into())
    }
}
