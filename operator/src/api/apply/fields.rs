//! Sets of fields, as `metav1.FieldsV1` writes them.
//!
//! A set is a tree. A step is `f:<field>`, `k:<keys of a list entry>` or `v:<value of a set>`;
//! `.` marks a node that is in the set itself beside what is below it. Which lists have keys and
//! which are one value comes from the schema (`x-kubernetes-list-type`), as in
//! `sigs.k8s.io/structured-merge-diff`.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::api::validate::tree;

/// A set of fields: this node, and those below.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Fields {
    member: bool,
    below: BTreeMap<String, Fields>,
}

/// How a list is merged.
enum ListKind<'a> {
    Map(Vec<&'a str>),
    Set,
    Atomic,
}

fn list_kind<'a>(schema: Option<&'a Value>, list: &[Value]) -> ListKind<'a> {
    match schema {
        Some(schema) if tree::is_set(schema) => ListKind::Set,
        Some(schema) => match tree::list_keys(schema) {
            // Without its keys an entry cannot be told from another; validation refuses it.
            Some(keys) if list.iter().all(|item| keys.iter().all(|k| item.get(k).is_some())) => ListKind::Map(keys),
            _ => ListKind::Atomic,
        },
        None => ListKind::Atomic,
    }
}

fn key_step(keys: &[&str], item: &Value) -> String {
    let mut sorted: Vec<&&str> = keys.iter().collect();
    sorted.sort_unstable();
    let key: Map<String, Value> = sorted.into_iter().filter_map(|k| Some(((*k).to_owned(), item.get(*k)?.clone()))).collect();
    format!("k:{}", Value::Object(key))
}

fn is_atomic_map(schema: Option<&Value>) -> bool {
    schema.and_then(|s| s.get("x-kubernetes-map-type")).and_then(Value::as_str) == Some("atomic")
}

impl Fields {
    fn leaf() -> Self {
        Self { member: true, below: BTreeMap::new() }
    }

    /// The fields that a value sets.
    pub(crate) fn of(schema: Option<&Value>, value: &Value) -> Self {
        match value {
            Value::Object(map) if !map.is_empty() && !is_atomic_map(schema) => Self {
                member: false,
                below: map
                    .iter()
                    .map(|(name, inner)| (format!("f:{name}"), Self::of(schema.and_then(|s| tree::field(s, name)), inner)))
                    .collect(),
            },
            Value::Array(list) if !list.is_empty() => match list_kind(schema, list) {
                ListKind::Map(keys) => {
                    let items = schema.and_then(|s| s.get("items"));
                    let entry = |item: &Value| {
                        let mut fields = Self::of(items, item);
                        fields.member = true;
                        (key_step(&keys, item), fields)
                    };
                    Self { member: false, below: list.iter().map(entry).collect() }
                }
                ListKind::Set => Self { member: false, below: list.iter().map(|item| (format!("v:{item}"), Self::leaf())).collect() },
                ListKind::Atomic => Self::leaf(),
            },
            _ => Self::leaf(),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        !self.member && self.below.is_empty()
    }

    /// `fieldsV1`.
    pub(crate) fn to_json(&self) -> Value {
        let mut map = Map::new();
        if self.member && !self.below.is_empty() {
            map.insert(".".to_owned(), json!({}));
        }
        for (step, below) in &self.below {
            map.insert(step.clone(), below.to_json());
        }
        Value::Object(map)
    }

    /// Parses `fieldsV1`; what is no step is left out.
    pub(crate) fn from_json(value: &Value) -> Self {
        let mut fields = Self::default();
        let map = value.as_object();
        for (step, below) in map.into_iter().flatten() {
            if step == "." {
                fields.member = true;
            } else {
                let mut below = Self::from_json(below);
                below.member |= below.below.is_empty();
                fields.below.insert(step.clone(), below);
            }
        }
        fields
    }

    pub(crate) fn get(&self, step: &str) -> Option<&Self> {
        self.below.get(step)
    }

    /// Takes a branch away.
    pub(crate) fn cut(&mut self, path: &[&str]) {
        match path {
            [] => {}
            [last] => {
                self.below.remove(*last);
            }
            [first, rest @ ..] => {
                if let Some(below) = self.below.get_mut(*first) {
                    below.cut(rest);
                    if below.is_empty() {
                        self.below.remove(*first);
                    }
                }
            }
        }
    }

    /// Keeps one branch alone.
    pub(crate) fn only(&mut self, step: &str) {
        self.member = false;
        self.below.retain(|s, _| s == step);
    }

    pub(crate) fn add(&mut self, other: &Self) {
        self.member |= other.member;
        for (step, below) in &other.below {
            self.below.entry(step.clone()).or_default().add(below);
        }
    }

    pub(crate) fn subtract(&mut self, other: &Self) {
        self.member &= !other.member;
        for (step, below) in &other.below {
            if let Some(mine) = self.below.get_mut(step) {
                mine.subtract(below);
                if mine.is_empty() {
                    self.below.remove(step);
                }
            }
        }
    }

    /// What is in both.
    pub(crate) fn common(&self, other: &Self) -> Self {
        let below = self
            .below
            .iter()
            .filter_map(|(step, mine)| Some((step.clone(), mine.common(other.below.get(step)?))))
            .filter(|(_, both)| !both.is_empty())
            .collect();
        Self { member: self.member && other.member, below }
    }

    /// The leaves of this set whose value in `new` is not the one in `old`.
    pub(crate) fn changed(&self, old: Option<&Value>, new: Option<&Value>) -> Self {
        if self.below.is_empty() {
            let same = match (old, new) {
                // An empty container asks for nothing that a full one has not.
                (Some(old), Some(new)) => {
                    old == new || (is_empty_container(new) && old.is_object() == new.is_object() && old.is_array() == new.is_array())
                }
                _ => false,
            };
            return if same { Self::default() } else { self.clone() };
        }
        let below: BTreeMap<String, Self> = self
            .below
            .iter()
            .map(|(step, fields)| (step.clone(), fields.changed(old.and_then(|v| child(v, step)), new.and_then(|v| child(v, step)))))
            .filter(|(_, fields)| !fields.is_empty())
            .collect();
        Self { member: self.member && old.is_none(), below }
    }

    /// The paths of the leaves, as people read them (`.spec.env[name="A"].value`).
    pub(crate) fn paths(&self) -> Vec<String> {
        let mut paths = Vec::new();
        self.collect_paths("", &mut paths);
        paths
    }

    fn collect_paths(&self, path: &str, paths: &mut Vec<String>) {
        if self.below.is_empty() && self.member {
            paths.push(path.to_owned());
        }
        for (step, below) in &self.below {
            below.collect_paths(&format!("{path}{}", shown(step)), paths);
        }
    }

    /// Removes these fields from a value. What `kept` has at or below a node keeps the node.
    pub(crate) fn remove_from(&self, value: &mut Value, kept: Option<&Self>) {
        for (step, below) in &self.below {
            let others = kept.and_then(|k| k.get(step));
            let whole = others.is_none() && (below.below.is_empty() || below.member);
            if whole {
                remove_child(value, step);
                continue;
            }
            let Some(inner) = child_mut(value, step) else { continue };
            below.remove_from(inner, others);
            if others.is_none() && is_empty_container(inner) {
                remove_child(value, step);
            }
        }
    }
}

fn is_empty_container(value: &Value) -> bool {
    match value {
        Value::Object(map) => map.is_empty(),
        Value::Array(list) => list.is_empty(),
        _ => false,
    }
}

fn shown(step: &str) -> String {
    match step.split_at_checked(2) {
        Some(("f:", name)) => format!(".{name}"),
        Some(("k:", keys)) => {
            let keys: Map<String, Value> = serde_json::from_str(keys).unwrap_or_default();
            let keys: Vec<String> = keys.iter().map(|(name, value)| format!("{name}={value}")).collect();
            format!("[{}]", keys.join(","))
        }
        Some((_, value)) => format!("[={value}]"),
        None => step.to_owned(),
    }
}

fn position(list: &[Value], step: &str) -> Option<usize> {
    let (kind, rest) = step.split_at_checked(2)?;
    let wanted: Value = serde_json::from_str(rest).ok()?;
    match kind {
        "k:" => {
            let keys = wanted.as_object()?;
            list.iter().position(|item| keys.iter().all(|(name, value)| item.get(name) == Some(value)))
        }
        "v:" => list.iter().position(|item| *item == wanted),
        _ => None,
    }
}

pub(crate) fn child<'a>(value: &'a Value, step: &str) -> Option<&'a Value> {
    match value {
        Value::Object(map) => map.get(step.strip_prefix("f:")?),
        Value::Array(list) => list.get(position(list, step)?),
        _ => None,
    }
}

fn child_mut<'a>(value: &'a mut Value, step: &str) -> Option<&'a mut Value> {
    match value {
        Value::Object(map) => map.get_mut(step.strip_prefix("f:")?),
        Value::Array(list) => {
            let index = position(list, step)?;
            list.get_mut(index)
        }
        _ => None,
    }
}

fn remove_child(value: &mut Value, step: &str) {
    match value {
        Value::Object(map) => {
            if let Some(name) = step.strip_prefix("f:") {
                map.shift_remove(name);
            }
        }
        Value::Array(list) => {
            if let Some(index) = position(list, step) {
                list.remove(index);
            }
        }
        _ => {}
    }
}

/// Lays a configuration over a live value.
pub(crate) fn merge(schema: Option<&Value>, live: &mut Value, config: &Value) {
    match (live, config) {
        (Value::Object(live), Value::Object(config)) if !is_atomic_map(schema) => {
            for (name, value) in config {
                match live.get_mut(name) {
                    Some(old) => merge(schema.and_then(|s| tree::field(s, name)), old, value),
                    None => {
                        live.insert(name.clone(), value.clone());
                    }
                }
            }
        }
        (Value::Array(live), Value::Array(config)) => match list_kind(schema, config) {
            ListKind::Map(keys) => {
                let items = schema.and_then(|s| s.get("items"));
                for item in config {
                    match position(live, &key_step(&keys, item)) {
                        Some(index) => merge(items, &mut live[index], item),
                        None => live.push(item.clone()),
                    }
                }
            }
            ListKind::Set => {
                for item in config {
                    if !live.contains(item) {
                        live.push(item.clone());
                    }
                }
            }
            ListKind::Atomic => live.clone_from(config),
        },
        (live, config) => *live = config.clone(),
    }
}
