//! Server-side apply: who set which field, and what an apply may change.
//!
//! As in an API server, with one of its own modes: an object is tracked from its first apply on
//! (`managedFields` appears then; what was there before belongs to `before-first-apply`).
//! Objects that no one applies carry no such list, and their writes pay nothing for it.

pub(crate) mod fields;

use serde_json::{Map, Value, json};

use self::fields::Fields;
use super::error::{ApiError, Cause, CauseReason};
use super::kinds::{Family, Kind};
use super::patch::Force;
use super::secrets;
use super::write::{Clock, Part, metadata_mut, metadata_of};

/// Manager of what was there before the first apply
/// (`k8s.io/apimachinery/pkg/util/managedfields`).
const BEFORE_FIRST_APPLY: &str = "before-first-apply";

/// How a manager writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operation {
    Apply,
    Update,
}

impl Operation {
    fn as_str(self) -> &'static str {
        match self {
            Self::Apply => "Apply",
            Self::Update => "Update",
        }
    }
}

/// One entry of `managedFields`.
#[derive(Clone, Debug)]
struct Entry {
    manager: String,
    operation: Operation,
    part: Part,
    time: String,
    fields: Fields,
}

impl Entry {
    fn is(&self, manager: &str, operation: Operation, part: Part) -> bool {
        self.manager == manager && self.operation == operation && self.part == part
    }

    fn parse(value: &Value) -> Option<Self> {
        Some(Self {
            manager: value.get("manager")?.as_str()?.to_owned(),
            operation: if value.get("operation")?.as_str()? == "Apply" { Operation::Apply } else { Operation::Update },
            part: if value.get("subresource").and_then(Value::as_str) == Some("status") { Part::Status } else { Part::Main },
            time: value.get("time").and_then(Value::as_str).unwrap_or_default().to_owned(),
            fields: Fields::from_json(value.get("fieldsV1")?),
        })
    }

    fn to_json(&self, kind: &Kind) -> Value {
        let mut value = json!({
            "manager": self.manager, "operation": self.operation.as_str(), "apiVersion": kind.api_version(),
            "time": self.time, "fieldsType": "FieldsV1", "fieldsV1": self.fields.to_json(),
        });
        if self.part == Part::Status {
            value["subresource"] = json!("status");
        }
        value
    }
}

fn entries(object: &Value) -> Vec<Entry> {
    let list = metadata_of(object).and_then(|m| m.get("managedFields")).and_then(Value::as_array);
    list.into_iter().flatten().filter_map(Entry::parse).collect()
}

fn store(kind: &Kind, object: &mut Value, entries: &[Entry]) {
    let list: Vec<Value> = entries.iter().filter(|e| !e.fields.is_empty()).map(|e| e.to_json(kind)).collect();
    if let Some(meta) = metadata_mut(object) {
        if list.is_empty() {
            meta.remove("managedFields");
        } else {
            meta.insert("managedFields".into(), Value::Array(list));
        }
    }
}

/// The fields of one part that a manager can own.
fn owned(kind: &Kind, object: &Value, part: Part) -> Fields {
    let mut fields = Fields::of(Some(kind.rules.schema()), object);
    if part == Part::Status {
        fields.only("f:status");
        return fields;
    }
    for path in [&["f:apiVersion"][..], &["f:kind"]] {
        fields.cut(path);
    }
    if kind.has_status {
        fields.cut(&["f:status"]);
    }
    for field in [
        "name",
        "namespace",
        "generateName",
        "uid",
        "resourceVersion",
        "generation",
        "creationTimestamp",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "selfLink",
        "managedFields",
    ] {
        fields.cut(&["f:metadata", &format!("f:{field}")]);
    }
    if fields.get("f:metadata").is_some_and(|m| m == &Fields::of(None, &json!({}))) {
        fields.cut(&["f:metadata"]);
    }
    fields
}

fn prepare(kind: &Kind, config: &Value) -> Result<Value, ApiError> {
    let mut config = config.clone();
    let managed = metadata_of(&config).and_then(|m| m.get("managedFields"));
    if managed.is_some_and(|m| m.as_array().is_none_or(|list| !list.is_empty())) {
        return Err(ApiError::bad_request("metadata.managedFields must be nil"));
    }
    if let Some(meta) = metadata_mut(&mut config) {
        meta.remove("managedFields");
        if meta.get("creationTimestamp") == Some(&Value::Null) {
            meta.remove("creationTimestamp");
        }
    }
    if kind.family == Family::Secret {
        secrets::plain_to_data(&mut config);
    }
    Ok(config)
}

/// The object that an apply creates, and its managers.
pub(crate) fn create(kind: &Kind, config: &Value, manager: &str, clock: Clock) -> Result<(Value, Value), ApiError> {
    let mut object = prepare(kind, config)?;
    let entry = Entry {
        manager: manager.to_owned(),
        operation: Operation::Apply,
        part: Part::Main,
        time: clock.stamp(),
        fields: owned(kind, &object, Part::Main),
    };
    if let Some(root) = object.as_object_mut() {
        root.entry("metadata").or_insert_with(|| Value::Object(Map::new()));
    }
    Ok((object, json!([entry.to_json(kind)])))
}

/// An apply to an object that exists.
pub(crate) struct Apply<'a> {
    pub(crate) kind: &'a Kind,
    pub(crate) name: &'a str,
    pub(crate) manager: &'a str,
    pub(crate) force: Force,
    pub(crate) part: Part,
    pub(crate) clock: Clock,
}

impl Apply<'_> {
    /// The object after it, with its managers.
    pub(crate) fn merge(&self, before: &Value, config: &Value) -> Result<Value, ApiError> {
        let kind = self.kind;
        let config = prepare(kind, config)?;
        let mut entries = entries(before);
        if entries.is_empty() {
            // Of the other part nothing is protected, as in an API server.
            entries.push(Entry {
                manager: BEFORE_FIRST_APPLY.into(),
                operation: Operation::Update,
                part: self.part,
                time: self.clock.stamp(),
                fields: owned(kind, before, self.part),
            });
        }
        let mine = owned(kind, &config, self.part);
        let changed = mine.changed(Some(before), Some(&config));
        let is_mine = |entry: &Entry| entry.is(self.manager, Operation::Apply, self.part);
        let mut causes = Vec::new();
        for entry in entries.iter_mut().filter(|e| !is_mine(e)) {
            let conflict = entry.fields.common(&changed);
            if conflict.is_empty() {
                continue;
            }
            if self.force == Force::Yes {
                entry.fields.subtract(&conflict);
                continue;
            }
            let with = if entry.part == Part::Status { " with subresource \"status\"" } else { "" };
            for path in conflict.paths() {
                let message = format!("conflict with {:?}{with} using {}", entry.manager, kind.api_version());
                causes.push(Cause::new(CauseReason::ManagerConflict, path, message));
            }
        }
        if !causes.is_empty() {
            return Err(ApiError::manager_conflict(kind, self.name, &causes));
        }

        let mut after = before.clone();
        let mut laid = config;
        let kept: &[&str] = if self.part == Part::Status { &["status"] } else { &[] };
        if let Some(root) = laid.as_object_mut() {
            root.retain(|name, _| kept.is_empty() || kept.contains(&name.as_str()));
        }
        fields::merge(Some(kind.rules.schema()), &mut after, &laid);

        let mut others = Fields::default();
        entries.iter().filter(|e| !is_mine(e)).for_each(|e| others.add(&e.fields));
        let previous = entries.iter().position(is_mine).map(|index| entries.remove(index));
        if let Some(previous) = &previous {
            let mut gone = previous.fields.clone();
            gone.subtract(&mine);
            let mut kept = others;
            kept.add(&mine);
            gone.remove_from(&mut after, Some(&kept));
        }
        let time = previous.filter(|p| p.fields == mine).map_or_else(|| self.clock.stamp(), |p| p.time);
        entries.push(Entry { manager: self.manager.to_owned(), operation: Operation::Apply, part: self.part, time, fields: mine });
        store(kind, &mut after, &entries);
        Ok(after)
    }
}

/// Records an update (not an apply) of an object that is tracked.
pub(crate) fn track_update(kind: &Kind, before: &Value, after: &mut Value, manager: &str, part: Part, clock: Clock) {
    let mut entries = entries(before);
    if entries.is_empty() {
        return;
    }
    let (old, new) = (owned(kind, before, part), owned(kind, after, part));
    let changed = new.changed(Some(before), Some(after));
    let mut removed = old;
    removed.subtract(&new);
    if changed.is_empty() && removed.is_empty() {
        return;
    }
    let is_mine = |entry: &Entry| entry.is(manager, Operation::Update, part);
    for entry in &mut entries {
        entry.fields.subtract(&removed);
        if !is_mine(entry) {
            entry.fields.subtract(&changed);
        }
    }
    if !changed.is_empty() {
        match entries.iter_mut().find(|e| is_mine(e)) {
            Some(entry) => {
                entry.fields.add(&changed);
                entry.time = clock.stamp();
            }
            None => entries.push(Entry {
                manager: manager.to_owned(),
                operation: Operation::Update,
                part,
                time: clock.stamp(),
                fields: changed,
            }),
        }
    }
    store(kind, after, &entries);
}

#[cfg(test)]
mod tests;
