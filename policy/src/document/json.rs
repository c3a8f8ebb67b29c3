//! JSON to a tree.
//!
//! `serde_json` decides what is JSON, and keeps repeated keys for the reader to refuse. JSON is also
//! YAML, so the places come from reading it as that, as long as both readings are the same data.

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};

use super::{Entry, Node, Value, yaml};
use crate::Finding;

pub(crate) fn read(bytes: &[u8]) -> Result<Node, Finding> {
    let node: Node = serde_json::from_slice(bytes).map_err(|e| Finding {
        code: "syntax",
        path: String::new(),
        line: Some(e.line()),
        column: Some(e.column()),
        message: format!("this is not JSON: {e}"),
    })?;
    let placed = std::str::from_utf8(bytes).ok().and_then(|text| yaml::read(text).ok());
    Ok(placed.filter(|placed| placed.same_data(&node)).unwrap_or(node))
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NodeVisitor).map(|value| Self::new(None, value))
    }
}

struct NodeVisitor;

impl<'de> Visitor<'de> for NodeVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, flag: bool) -> Result<Value, E> {
        Ok(Value::Flag(flag))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Value, E> {
        Ok(Value::Number(number.into()))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Value, E> {
        Ok(Value::Number(number.into()))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Value, E> {
        Ok(serde_json::Number::from_f64(number).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(Value::Text(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(node) = items.next_element()? {
            list.push(node);
        }
        Ok(Value::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut map = Vec::new();
        while let Some((key, node)) = entries.next_entry()? {
            map.push(Entry { key, key_place: None, node });
        }
        Ok(Value::Map(map))
    }
}
