//! JSON objects in messages: `google.protobuf.Struct`.

use prost_types::value::Kind;
use prost_types::{ListValue, Struct};
use serde_json::{Map, Value};

/// The message that says the same.
pub fn object_to_wire(object: Map<String, Value>) -> Struct {
    Struct { fields: object.into_iter().map(|(key, value)| (key, value_to_wire(value))).collect() }
}

fn value_to_wire(value: Value) -> prost_types::Value {
    let kind = match value {
        Value::Null => Kind::NullValue(0),
        Value::Bool(value) => Kind::BoolValue(value),
        Value::Number(value) => Kind::NumberValue(value.as_f64().unwrap_or_default()),
        Value::String(value) => Kind::StringValue(value),
        Value::Array(values) => Kind::ListValue(ListValue { values: values.into_iter().map(value_to_wire).collect() }),
        Value::Object(object) => Kind::StructValue(object_to_wire(object)),
    };
    prost_types::Value { kind: Some(kind) }
}

/// The object that a message means. Whole numbers come back as such, as far as a double holds them.
pub fn object_from_wire(object: &Struct) -> Map<String, Value> {
    object.fields.iter().map(|(key, value)| (key.clone(), value_from_wire(value))).collect()
}

fn value_from_wire(value: &prost_types::Value) -> Value {
    /// Beyond it a double does not hold every integer.
    const EXACT: f64 = 9_007_199_254_740_992.0;
    match &value.kind {
        None | Some(Kind::NullValue(_)) => Value::Null,
        Some(Kind::BoolValue(value)) => Value::Bool(*value),
        Some(Kind::NumberValue(value)) if value.fract() == 0.0 && value.abs() <= EXACT => Value::from(*value as i64),
        Some(Kind::NumberValue(value)) => Value::from(*value),
        Some(Kind::StringValue(value)) => Value::String(value.clone()),
        Some(Kind::ListValue(list)) => Value::Array(list.values.iter().map(value_from_wire).collect()),
        Some(Kind::StructValue(object)) => Value::Object(object_from_wire(object)),
    }
}
