//! Validation of an object by the definition of its kind.

use serde_json::Value;

use super::error::Cause;
use super::kinds::DefinitionError;

/// The rules of one kind.
pub(crate) struct Rules {
    schema: Value,
}

impl Rules {
    pub(crate) fn new(_kind: &str, schema: Value) -> Result<Self, DefinitionError> {
        Ok(Self { schema })
    }

    pub(crate) fn schema(&self) -> &Value {
        &self.schema
    }

    pub(crate) fn default(&self, _object: &mut Value) {}

    pub(crate) fn unknown_fields(&self, _object: &Value) -> Vec<String> {
        Vec::new()
    }

    pub(crate) fn check(&self, _object: &Value, _before: Option<&Value>) -> Vec<Cause> {
        Vec::new()
    }
}
