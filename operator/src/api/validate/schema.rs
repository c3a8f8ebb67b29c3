//! The OpenAPI part of a schema, by `jsonschema`, in an API server's words
//! (`k8s.io/kube-openapi/pkg/validation/errors`, `apiextensions/.../validation.go`).

use jsonschema::error::{TypeKind, ValidationErrorKind};
use jsonschema::paths::LocationSegment;
use jsonschema::{Draft, ValidationError, Validator};
use serde_json::{Map, Value};

use super::tree::join;
use crate::api::error::{Cause, CauseReason, shown};
use crate::api::limits;

/// Under this name a width of an integer stays in a schema: JSON Schema knows no such formats, and
/// an API server names them.
const WIDTH: &str = "x-width";

/// A compiled schema.
pub(crate) struct Structure {
    validator: Validator,
    schema: Value,
}

impl Structure {
    pub(crate) fn new(schema: &Value) -> Result<Self, String> {
        // OpenAPI 3.0 took its keywords from draft 4 (`exclusiveMinimum` is a boolean there).
        let schema = plain(schema);
        let validator = jsonschema::options().with_draft(Draft::Draft4).should_validate_formats(true).build(&schema);
        validator.map(|validator| Self { validator, schema }).map_err(|error| error.to_string())
    }

    pub(crate) fn check(&self, object: &Value) -> Vec<Cause> {
        if self.validator.is_valid(object) {
            return Vec::new();
        }
        self.validator.iter_errors(object).take(limits::MAX_CAUSES).map(|error| cause(&error, self.width(&error))).collect()
    }

    /// The width of the integer that an error is about.
    fn width(&self, error: &ValidationError<'_>) -> Option<&str> {
        let (node, _) = error.schema_path().as_str().rsplit_once('/')?;
        self.schema.pointer(node)?.get(WIDTH)?.as_str()
    }
}

/// The schema without what JSON Schema does not know or understands differently.
fn plain(schema: &Value) -> Value {
    let Some(map) = schema.as_object() else { return schema.clone() };
    let mut out = Map::new();
    for (keyword, value) in map {
        if keyword == "format" && matches!(value.as_str(), Some("int32" | "int64")) {
            out.insert(WIDTH.to_owned(), value.clone());
        }
        let value = match keyword.as_str() {
            "properties" => Value::Object(value.as_object().into_iter().flatten().map(|(n, s)| (n.clone(), plain(s))).collect()),
            "items" | "additionalProperties" | "not" => plain(value),
            "allOf" | "anyOf" | "oneOf" => value.as_array().into_iter().flatten().map(plain).collect(),
            // Widths of integers are bounds of the schema; the walk over the tree does the rest.
            "format" if !matches!(value.as_str(), Some("date-time")) => continue,
            "type" if map.get("nullable") == Some(&Value::Bool(true)) => serde_json::json!([value, "null"]),
            "default" | "description" | "title" | "nullable" | "example" => continue,
            name if name.starts_with("x-kubernetes-") => continue,
            _ => value.clone(),
        };
        out.insert(keyword.clone(), value);
    }
    if map.get("x-kubernetes-int-or-string") == Some(&Value::Bool(true)) {
        out.insert("type".to_owned(), serde_json::json!(["integer", "string"]));
    }
    Value::Object(out)
}

fn path_of(error: &ValidationError<'_>) -> String {
    error.instance_path().iter().fold(String::new(), |path, segment| match segment {
        LocationSegment::Property(name) => join(&path, &name),
        LocationSegment::Index(index) => format!("{path}[{index}]"),
    })
}

fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

fn cause(error: &ValidationError<'_>, width: Option<&str>) -> Cause {
    let path = path_of(error);
    let instance = error.instance().as_ref();
    let body =
        |why: String| Cause::new(CauseReason::Invalid, path.clone(), format!("Invalid value: {}: {path} in body {why}", shown(instance)));
    let length = || instance.as_array().map_or(0, Vec::len);
    match error.kind() {
        ValidationErrorKind::Type { .. } if width.is_some() && instance.is_f64() => {
            let wanted = width.unwrap_or_default();
            let message = format!("Invalid value: \"float64\": {path} in body must be of type {wanted}: \"float64\"");
            Cause::new(CauseReason::TypeInvalid, path.clone(), message)
        }
        ValidationErrorKind::Type { kind } => {
            let wanted = match kind {
                TypeKind::Single(one) => one.to_string(),
                TypeKind::Multiple(_) => "one of the allowed types".to_owned(),
            };
            let is = type_name(instance);
            Cause::new(
                CauseReason::TypeInvalid,
                path.clone(),
                format!("Invalid value: {is:?}: {path} in body must be of type {wanted}: {is:?}"),
            )
        }
        ValidationErrorKind::Required { property } => Cause::required(join(&path, property.as_str().unwrap_or_default()), ""),
        ValidationErrorKind::Enum { options } => {
            let known: Vec<String> = options.as_array().into_iter().flatten().map(Value::to_string).collect();
            let message = format!("Unsupported value: {}: supported values: {}", shown(instance), known.join(", "));
            Cause::new(CauseReason::NotSupported, path, message)
        }
        ValidationErrorKind::MaxLength { limit } => {
            Cause::new(CauseReason::TooLong, path, format!("Too long: may not be more than {limit} bytes"))
        }
        ValidationErrorKind::MinLength { limit } => body(format!("should be at least {limit} chars long")),
        ValidationErrorKind::Pattern { pattern } => body(format!("should match '{pattern}'")),
        ValidationErrorKind::Minimum { limit } => body(format!("should be greater than or equal to {limit}")),
        ValidationErrorKind::Maximum { limit } => body(format!("should be less than or equal to {limit}")),
        ValidationErrorKind::ExclusiveMinimum { limit } => body(format!("should be greater than {limit}")),
        ValidationErrorKind::ExclusiveMaximum { limit } => body(format!("should be less than {limit}")),
        ValidationErrorKind::MaxItems { limit } => {
            Cause::new(CauseReason::TooMany, path, format!("Too many: {}: must have at most {limit} items", length()))
        }
        ValidationErrorKind::MinItems { limit } => {
            let message = format!("Invalid value: {}: {path} in body should have at least {limit} items", length());
            Cause::new(CauseReason::Invalid, path, message)
        }
        ValidationErrorKind::MaxProperties { limit } => {
            let count = instance.as_object().map_or(0, Map::len);
            Cause::new(CauseReason::TooMany, path, format!("Too many: {count}: must have at most {limit} items"))
        }
        ValidationErrorKind::MinProperties { limit } => {
            let count = instance.as_object().map_or(0, Map::len);
            let message = format!("Invalid value: {count}: {path} in body should have at least {limit} properties");
            Cause::new(CauseReason::Invalid, path, message)
        }
        ValidationErrorKind::Format { format } => body(format!("must be of type {format}: {}", shown(instance))),
        _ => body(format!("{}", error.masked())),
    }
}
