//! `x-kubernetes-validations`, by `kube-cel`.
//!
//! A rule that does not compile makes the definition unusable, and one that cannot be evaluated
//! refuses the object: fail closed.

use kube_cel::{CompiledSchema, Validator};
use serde_json::Value;

use super::tree;
use crate::api::error::{Cause, CauseReason};

pub(crate) struct CelRules {
    /// `None` when the schema has no rule at all.
    compiled: Option<CompiledSchema>,
    validator: Validator,
}

impl CelRules {
    pub(crate) fn new(schema: &Value) -> Result<Self, String> {
        let with_rules = only_rules(schema);
        let compiled = with_rules.as_ref().map(kube_cel::compile_schema);
        if let Some(error) = compiled.as_ref().and_then(first_error) {
            return Err(error);
        }
        Ok(Self { compiled, validator: Validator::new() })
    }

    pub(crate) fn check(&self, schema: &Value, object: &Value, before: Option<&Value>) -> Vec<Cause> {
        let Some(compiled) = &self.compiled else { return Vec::new() };
        let Err(errors) = self.validator.validate_compiled(compiled, object, before) else { return Vec::new() };
        errors
            .into_iter()
            .map(|error| {
                let field = error.field_path.trim_start_matches('.').to_owned();
                let kind = type_at(schema, &field);
                let reason = match error.reason.as_deref() {
                    Some("FieldValueForbidden") => CauseReason::Forbidden,
                    Some("FieldValueRequired") => CauseReason::Required,
                    Some("FieldValueDuplicate") => CauseReason::Duplicate,
                    _ => CauseReason::Invalid,
                };
                Cause::new(reason, field, format!("Invalid value: {kind:?}: {}", error.message))
            })
            .collect()
    }
}

/// The schema reduced to the branches that lead to a rule, so that the rest is not walked.
/// What the rules of a node can see below it (`self.a.b`) is kept whole.
fn only_rules(schema: &Value) -> Option<Value> {
    let map = schema.as_object()?;
    if map.contains_key("x-kubernetes-validations") {
        return Some(schema.clone());
    }
    let mut out = map.clone();
    let mut any = false;
    if let Some(properties) = out.get_mut("properties").and_then(Value::as_object_mut) {
        properties.retain(|_, property| match only_rules(property) {
            Some(reduced) => {
                *property = reduced;
                any = true;
                true
            }
            None => false,
        });
    }
    for inner in ["items", "additionalProperties"] {
        match out.get(inner).and_then(only_rules) {
            Some(reduced) => {
                out.insert(inner.to_owned(), reduced);
                any = true;
            }
            None => {
                out.remove(inner);
            }
        }
    }
    any.then_some(Value::Object(out))
}

fn first_error(schema: &CompiledSchema) -> Option<String> {
    if let Some(error) = schema.compilation_errors().first() {
        return Some(error.to_string());
    }
    let mut inner = schema.properties.values().chain(schema.items.as_deref()).chain(schema.additional_properties.as_deref());
    inner.find_map(first_error)
}

/// The type of the field at a path, for the message.
fn type_at<'a>(schema: &'a Value, path: &str) -> &'a str {
    let found = path.split('.').filter(|s| !s.is_empty()).try_fold(schema, |schema, segment| {
        let (name, indexes) = segment.split_once('[').map_or((segment, 0), |(name, rest)| (name, 1 + rest.matches('[').count()));
        let field = tree::field(schema, name)?;
        (0..indexes).try_fold(field, |schema, _| schema.get("items"))
    });
    found.and_then(|s| s.get("type")).and_then(Value::as_str).unwrap_or("object")
}
