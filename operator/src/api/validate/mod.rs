//! Validation of an object by the definition of its kind.
//!
//! ```text
//!   object ─▶ defaults ─▶ unknown fields ─▶ schema ─▶ list keys ─▶ CEL rules
//!             tree.rs      tree.rs (400)    schema.rs  tree.rs      cel.rs    (422)
//! ```
//!
//! The verdicts and messages are an API server's with `fieldValidation=Strict`: one table of
//! manifests (`crds/tests/cases`) is run against both. A policy document is typed here and no
//! more; what it means is parsed strictly by the controllers.

mod cel;
mod schema;
pub(crate) mod tree;

use serde_json::Value;

use super::error::Cause;
use super::kinds::DefinitionError;
use super::metadata;

/// The rules of one kind.
pub(crate) struct Rules {
    schema: Value,
    structure: schema::Structure,
    cel: cel::CelRules,
}

impl Rules {
    /// Compiles a structural schema.
    pub(crate) fn new(kind: &str, mut schema: Value) -> Result<Self, DefinitionError> {
        let refuse = |why: String| DefinitionError { kind: kind.to_owned(), why };
        let properties = schema.get_mut("properties").and_then(Value::as_object_mut);
        let properties = properties.ok_or_else(|| refuse("its schema has no properties".to_owned()))?;
        for name in ["apiVersion", "kind"] {
            properties.insert(name.to_owned(), serde_json::json!({ "type": "string" }));
        }
        properties.insert("metadata".to_owned(), metadata::schema());
        let structure = schema::Structure::new(&schema).map_err(refuse)?;
        let cel = cel::CelRules::new(&schema).map_err(refuse)?;
        Ok(Self { schema, structure, cel })
    }

    /// The structural schema, with that of the metadata.
    pub(crate) fn schema(&self) -> &Value {
        &self.schema
    }

    /// Fills in defaults; a `null` gives way to one.
    pub(crate) fn default(&self, object: &mut Value) {
        tree::default(&self.schema, object);
        // Printed by most tools for an object that does not exist yet.
        if let Some(meta) = object.get_mut("metadata").and_then(Value::as_object_mut)
            && meta.get("creationTimestamp") == Some(&Value::Null)
        {
            meta.remove("creationTimestamp");
        }
    }

    /// Paths of fields that the schema does not have.
    pub(crate) fn unknown_fields(&self, object: &Value) -> Vec<String> {
        tree::unknown(&self.schema, object)
    }

    /// What is wrong with the object, as an update of `before` if there is one.
    pub(crate) fn check(&self, object: &Value, before: Option<&Value>) -> Vec<Cause> {
        let mut causes = self.structure.check(object);
        causes.extend(tree::duplicates(&self.schema, object));
        // Rules are for objects of the right shape.
        if causes.is_empty() {
            causes = self.cel.check(&self.schema, object, before);
        }
        causes
    }
}

#[cfg(test)]
mod tests;
