//! A document as a tree that remembers where everything stands.
//!
//! YAML and JSON give the same tree. It is read by [`crate::shape`], which knows what may stand where.

pub(crate) mod json;
pub(crate) mod path;
pub(crate) mod yaml;

/// Where something stands in the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// From 1.
    pub line: usize,
    /// From 1, in characters.
    pub column: usize,
}

/// A value and its place; data that never was text has none.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub place: Option<Place>,
    pub value: Value,
}

#[derive(Clone, Debug)]
pub(crate) enum Value {
    Null,
    Flag(bool),
    Number(serde_json::Number),
    Text(String),
    List(Vec<Node>),
    /// In the order of the text; keys may repeat.
    Map(Vec<Entry>),
}

#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub key: String,
    pub key_place: Option<Place>,
    pub node: Node,
}

impl Node {
    pub(crate) fn new(place: Option<Place>, value: Value) -> Self {
        Self { place, value }
    }

    /// What it is, for people.
    pub(crate) fn describe(&self) -> String {
        match &self.value {
            Value::Null => "nothing (null)".to_owned(),
            Value::Flag(flag) => format!("`{flag}`"),
            Value::Number(number) => format!("the number {number}"),
            Value::Text(text) => format!("the text `{}`", shortened(text)),
            Value::List(_) => "a list".to_owned(),
            Value::Map(_) => "a mapping".to_owned(),
        }
    }

    /// Whether both are the same data, wherever it stands.
    pub(crate) fn same_data(&self, other: &Self) -> bool {
        match (&self.value, &other.value) {
            (Value::Null, Value::Null) => true,
            (Value::Flag(a), Value::Flag(b)) => a == b,
            (Value::Number(a), Value::Number(b)) => a == b,
            (Value::Text(a), Value::Text(b)) => a == b,
            (Value::List(a), Value::List(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.same_data(b)),
            (Value::Map(a), Value::Map(b)) => {
                a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.key == b.key && a.node.same_data(&b.node))
            }
            _ => false,
        }
    }

    /// The place of what `path` names, or of the nearest thing around it that exists.
    pub(crate) fn locate(&self, path: &str) -> Option<Place> {
        let mut here = self;
        let mut so_far = String::new();
        'descend: loop {
            if so_far == path {
                return here.place;
            }
            let children: Vec<(String, &Node)> = match &here.value {
                Value::Map(entries) => entries.iter().map(|e| (path::key(&so_far, &e.key), &e.node)).collect(),
                Value::List(items) => items.iter().enumerate().map(|(i, node)| (path::index(&so_far, i), node)).collect(),
                _ => Vec::new(),
            };
            for (child, node) in children {
                if path::covers(&child, path) {
                    so_far = child;
                    here = node;
                    continue 'descend;
                }
            }
            return here.place;
        }
    }
}

impl From<&serde_json::Value> for Node {
    fn from(value: &serde_json::Value) -> Self {
        use serde_json::Value as Json;
        let value = match value {
            Json::Null => Value::Null,
            Json::Bool(flag) => Value::Flag(*flag),
            Json::Number(number) => Value::Number(number.clone()),
            Json::String(text) => Value::Text(text.clone()),
            Json::Array(items) => Value::List(items.iter().map(Self::from).collect()),
            Json::Object(map) => {
                Value::Map(map.iter().map(|(key, value)| Entry { key: key.clone(), key_place: None, node: value.into() }).collect())
            }
        };
        Self::new(None, value)
    }
}

/// At most a line's worth of a text that somebody else wrote, without its control characters.
pub(crate) fn shortened(text: &str) -> String {
    const MOST: usize = 60;
    let mut short: String = text.chars().take(MOST).map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect();
    if text.chars().nth(MOST).is_some() {
        short.push('…');
    }
    short
}
