//! How objects are shown: whole, only their metadata, or as a table.

use bytes::Bytes;
use serde_json::{Value, json};

use super::kinds::Kind;
use super::list::Page;
use super::store::state::Stored;
use super::table;

/// The form that the client asked for in `Accept`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum View {
    /// The object.
    Object,
    /// `meta.k8s.io/v1 PartialObjectMetadata`.
    Metadata,
    /// `meta.k8s.io/v1 Table`.
    Table,
}

impl View {
    /// Chooses the first form of `Accept` that is served.
    pub(crate) fn parse(accept: &str) -> Option<Self> {
        if accept.trim().is_empty() {
            return Some(Self::Object);
        }
        accept.split(',').find_map(|range| {
            let mut parts = range.split(';').map(str::trim);
            let media = parts.next()?;
            let (mut form, mut other) = (None, false);
            for part in parts {
                match part.split_once('=') {
                    Some(("as", "PartialObjectMetadata" | "PartialObjectMetadataList")) => form = Some(Self::Metadata),
                    Some(("as", "Table")) => form = Some(Self::Table),
                    Some(("as", _)) => other = true,
                    Some(("g", group)) => other |= group != "meta.k8s.io",
                    Some(("v", version)) => other |= version != "v1",
                    _ => {}
                }
            }
            let served = matches!(media, "application/json" | "application/*" | "*/*");
            (served && !other).then(|| form.unwrap_or(Self::Object))
        })
    }

    /// One object.
    pub(crate) fn object(self, kind: &Kind, bytes: &Bytes) -> Bytes {
        if self == Self::Object {
            return bytes.clone();
        }
        match serde_json::from_slice::<Value>(bytes) {
            // A `Status` (the answer to a deletion) stays what it is.
            Ok(value) if value.get("kind").and_then(Value::as_str) == Some(&kind.name) => {
                let shown = if self == Self::Metadata { partial(&value) } else { table::table(kind, &metadata(&value), [value]) };
                Bytes::from(shown.to_string())
            }
            _ => bytes.clone(),
        }
    }

    pub(crate) fn event(self, kind: &Kind, stored: &Stored) -> Bytes {
        self.object(kind, &stored.bytes)
    }

    /// A bookmark's object.
    pub(crate) fn bookmark(self, kind: &Kind, metadata: &Value) -> Value {
        match self {
            Self::Object => json!({ "apiVersion": kind.api_version(), "kind": kind.name, "metadata": metadata }),
            Self::Metadata => json!({ "apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata", "metadata": metadata }),
            Self::Table => table::table(kind, metadata, []),
        }
    }

    /// A list.
    pub(crate) fn list(self, kind: &Kind, page: &Page) -> Bytes {
        match self {
            Self::Object => page.render(kind),
            Self::Table => Bytes::from(table::of_page(kind, page).to_string()),
            Self::Metadata => {
                let items: Vec<Value> =
                    page.items.iter().filter_map(|(_, s)| serde_json::from_slice(&s.bytes).ok()).map(|v: Value| partial(&v)).collect();
                let list = json!({
                    "apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadataList",
                    "metadata": page.metadata(), "items": items,
                });
                Bytes::from(list.to_string())
            }
        }
    }
}

/// Of a list of one.
fn metadata(object: &Value) -> Value {
    json!({ "resourceVersion": object["metadata"]["resourceVersion"] })
}

fn partial(object: &Value) -> Value {
    json!({ "apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata", "metadata": object.get("metadata") })
}
