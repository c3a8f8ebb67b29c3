//! What a write does to one object: pure, from the object before to the object after.
//!
//! The order is the apiserver's: identity and preconditions, then server-owned metadata, then
//! defaults, unknown fields, schema and rules, then generation and finalizers. A write that
//! changes nothing writes nothing and keeps its resourceVersion.

use jiff::Timestamp;
use serde_json::{Map, Value, json};
use std::sync::Arc;

use super::apply::{self, Apply};
use super::error::{ApiError, Cause, CauseReason};
use super::kinds::{Family, Kind};
use super::limits;
use super::metadata;
use super::patch::Patch;
use super::secrets;
use super::store::sqlite::SecretChange;
use super::store::state::Change;

/// Finalizer of a foreground deletion (`k8s.io/apimachinery/pkg/apis/meta/v1`).
pub(crate) const FOREGROUND: &str = "foregroundDeletion";
/// Finalizer of an orphaning deletion.
pub(crate) const ORPHAN: &str = "orphan";

/// The part of an object that a write may change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    Main,
    Status,
}

/// Whether the result is stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Persist {
    #[default]
    Yes,
    DryRun,
}

/// What happens to dependents (`DeletionPropagation`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Propagation {
    #[default]
    Background,
    Foreground,
    Orphan,
}

/// Options of a deletion.
#[derive(Clone, Debug, Default)]
pub(crate) struct Deletion {
    pub(crate) uid: Option<String>,
    pub(crate) resource_version: Option<String>,
    pub(crate) propagation: Option<Propagation>,
}

/// What to do.
pub(crate) enum Verb {
    Create(Value),
    Replace(Value, Part),
    Patch(Patch, Part),
    Delete(Deletion),
}

/// One write.
pub(crate) struct Write {
    pub(crate) kind: Arc<Kind>,
    pub(crate) namespace: String,
    /// Empty for a create that takes the name from the object.
    pub(crate) name: String,
    pub(crate) verb: Verb,
    /// Field manager, as the client named it or as its agent string begins.
    pub(crate) manager: String,
    pub(crate) persist: Persist,
}

/// The result of planning.
pub(crate) enum Planned {
    /// Nothing changes.
    Unchanged,
    /// The object after the write; its resourceVersion is not set yet.
    Write { change: Change, object: Value, secrets: SecretChange },
}

/// When and under which version a write happens.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    pub(crate) now: Timestamp,
}

impl Clock {
    /// RFC 3339 with seconds, as Kubernetes writes times.
    pub(crate) fn stamp(self) -> String {
        format!("{:.0}", self.now)
    }
}

/// Plans a write on the object as it is.
pub(crate) fn plan(write: Write, before: Option<&Value>, clock: Clock) -> Result<Planned, ApiError> {
    let Write { kind, namespace, name, verb, manager, .. } = write;
    match (verb, before) {
        (Verb::Create(_), Some(_)) => Err(ApiError::already_exists(&kind, &name)),
        (Verb::Create(object), None) => create(&kind, &namespace, &name, object, None, clock),
        (Verb::Patch(Patch::Apply { config, .. }, Part::Main), None) => {
            check_identity(&kind, &namespace, &name, &config)?;
            let (object, managed) = apply::create(&kind, &config, &manager, clock)?;
            create(&kind, &namespace, &name, object, Some(managed), clock)
        }
        (_, None) => Err(ApiError::not_found(&kind, &name)),
        (Verb::Replace(object, part), Some(before)) => {
            check_identity(&kind, &namespace, &name, &object)?;
            if resource_version(&object).is_none() {
                let cause =
                    Cause::new(CauseReason::Invalid, "metadata.resourceVersion", "Invalid value: 0: must be specified for an update");
                return Err(ApiError::invalid(&kind, &name, &[cause]));
            }
            update(&kind, &name, before, object, part, Tracking::Manager(&manager), clock)
        }
        (Verb::Patch(Patch::Apply { config, force }, part), Some(before)) => {
            check_identity(&kind, &namespace, &name, &config)?;
            let apply = Apply { kind: &kind, name: &name, manager: &manager, force, part, clock };
            let after = apply.merge(before, &config)?;
            update(&kind, &name, before, after, part, Tracking::Done, clock)
        }
        (Verb::Patch(patch, part), Some(before)) => {
            let after = patch.apply(&kind, &name, before)?;
            check_identity(&kind, &namespace, &name, &after)?;
            update(&kind, &name, before, after, part, Tracking::Manager(&manager), clock)
        }
        (Verb::Delete(deletion), Some(before)) => delete(&kind, &name, &deletion, before, clock),
    }
}

/// Who records which manager changed what.
#[derive(Clone, Copy)]
enum Tracking<'a> {
    /// This update does, for this manager.
    Manager(&'a str),
    /// The apply already did.
    Done,
}

pub(crate) fn metadata_of(object: &Value) -> Option<&Map<String, Value>> {
    object.get("metadata").and_then(Value::as_object)
}

pub(crate) fn metadata_mut(object: &mut Value) -> Option<&mut Map<String, Value>> {
    object.get_mut("metadata").and_then(Value::as_object_mut)
}

pub(crate) fn text<'a>(object: &'a Value, field: &str) -> Option<&'a str> {
    metadata_of(object)?.get(field)?.as_str().filter(|s| !s.is_empty())
}

fn resource_version(object: &Value) -> Option<&str> {
    // "0" is how some clients write "unset".
    text(object, "resourceVersion").filter(|v| *v != "0")
}

/// The object is what the path says it is.
pub(crate) fn check_identity(kind: &Kind, namespace: &str, name: &str, object: &Value) -> Result<(), ApiError> {
    let Some(map) = object.as_object() else {
        return Err(ApiError::bad_request("the body must be a JSON object"));
    };
    let (Some(api_version), Some(kind_name)) = (map.get("apiVersion").and_then(Value::as_str), map.get("kind").and_then(Value::as_str))
    else {
        return Err(ApiError::bad_request("the body must have apiVersion and kind"));
    };
    if api_version != kind.api_version() || kind_name != kind.name {
        return Err(ApiError::bad_request(format!(
            "the object is a {kind_name} of {api_version}, and the path is for a {} of {}",
            kind.name,
            kind.api_version()
        )));
    }
    match map.get("metadata") {
        None | Some(Value::Object(_)) => {}
        Some(_) => return Err(ApiError::bad_request("metadata must be an object")),
    }
    if text(object, "namespace").is_some_and(|n| n != namespace) {
        return Err(ApiError::bad_request("the namespace of the provided object does not match the namespace sent on the request"));
    }
    if !name.is_empty()
        && let Some(other) = text(object, "name").filter(|n| *n != name)
    {
        return Err(ApiError::bad_request(format!("the name of the object ({other}) does not match the name on the URL ({name})")));
    }
    Ok(())
}

fn create(kind: &Kind, namespace: &str, name: &str, mut object: Value, managed: Option<Value>, clock: Clock) -> Result<Planned, ApiError> {
    check_identity(kind, namespace, "", &object)?;
    if resource_version(&object).is_some() {
        return Err(ApiError::bad_request("resourceVersion should not be set on objects to be created"));
    }
    if let Some(root) = object.as_object_mut() {
        root.entry("metadata").or_insert_with(|| json!({}));
        if kind.has_status {
            root.remove("status");
        }
    }
    if let Some(meta) = metadata_mut(&mut object) {
        for field in ["selfLink", "deletionTimestamp", "deletionGracePeriodSeconds", "resourceVersion", "generation", "managedFields"] {
            meta.remove(field);
        }
        if let Some(managed) = managed {
            meta.insert("managedFields".into(), managed);
        }
        meta.insert("name".into(), name.into());
        meta.insert("namespace".into(), namespace.into());
        meta.insert("uid".into(), uuid::Uuid::new_v4().to_string().into());
        meta.insert("creationTimestamp".into(), clock.stamp().into());
        if kind.family == Family::Custom {
            meta.insert("generation".into(), 1.into());
        }
    }
    validate(kind, name, &mut object, None)?;
    let secrets = secret_change(kind, name, &mut object, None)?;
    Ok(Planned::Write { change: Change::Added, object, secrets })
}

fn update(
    kind: &Kind,
    name: &str,
    before: &Value,
    mut after: Value,
    part: Part,
    tracking: Tracking<'_>,
    clock: Clock,
) -> Result<Planned, ApiError> {
    if let Some(wanted) = text(&after, "uid")
        && let Some(is) = text(before, "uid").filter(|is| *is != wanted)
    {
        return Err(ApiError::conflict(
            kind,
            name,
            format!("Precondition failed: UID in precondition: {wanted}, UID in object meta: {is}"),
        ));
    }
    if resource_version(&after).is_some_and(|wanted| Some(wanted) != text(before, "resourceVersion")) {
        return Err(ApiError::modified(kind, name));
    }
    let managed = metadata_of(&after).and_then(|m| m.get("managedFields")).cloned();
    match part {
        Part::Main => keep(&mut after, before, kind.has_status),
        Part::Status => {
            let mut kept = before.clone();
            if let Some(root) = kept.as_object_mut() {
                match after.get_mut("status").map(Value::take) {
                    Some(status) if !status.is_null() => root.insert("status".into(), status),
                    _ => root.remove("status"),
                };
            }
            after = kept;
        }
    }
    validate(kind, name, &mut after, Some(before))?;
    let secrets = secret_change(kind, name, &mut after, Some(before))?;
    if kind.family == Family::Revision && after.get("data") != before.get("data") {
        let cause = Cause::forbidden("data", "a revision is immutable; record another one");
        return Err(ApiError::invalid(kind, name, &[cause]));
    }
    if kind.family == Family::Custom && part == Part::Main && content(&after) != content(before) {
        bump_generation(&mut after);
    }
    match tracking {
        Tracking::Manager(manager) => apply::track_update(kind, before, &mut after, manager, part, clock),
        Tracking::Done => {
            if let (Some(meta), Some(managed)) = (metadata_mut(&mut after), managed) {
                meta.insert("managedFields".into(), managed);
            }
        }
    }
    let deleting = text(before, "deletionTimestamp").is_some();
    if deleting {
        let old = strings(before, "finalizers");
        let new = strings(&after, "finalizers");
        if let Some(added) = new.iter().find(|f| !old.contains(f)) {
            let why = format!("no new finalizers can be added if the object is being deleted, found new finalizers []string{{{added:?}}}");
            return Err(ApiError::invalid(kind, name, &[Cause::forbidden("metadata.finalizers", why)]));
        }
        if new.is_empty() {
            return Ok(Planned::Write { change: Change::Deleted, object: after, secrets: SecretChange::default() });
        }
    }
    if secrets.is_empty() && after == *before {
        return Ok(Planned::Unchanged);
    }
    Ok(Planned::Write { change: Change::Modified, object: after, secrets })
}

/// Puts back what only the server writes.
fn keep(after: &mut Value, before: &Value, status_too: bool) {
    if let Some(root) = after.as_object_mut() {
        root.entry("metadata").or_insert_with(|| json!({}));
        if status_too {
            match before.get("status") {
                Some(status) => root.insert("status".into(), status.clone()),
                None => root.remove("status"),
            };
        }
    }
    let old = metadata_of(before);
    if let Some(meta) = metadata_mut(after) {
        meta.remove("selfLink");
        for field in [
            "name",
            "namespace",
            "generateName",
            "uid",
            "creationTimestamp",
            "generation",
            "resourceVersion",
            "deletionTimestamp",
            "deletionGracePeriodSeconds",
            "managedFields",
        ] {
            match old.and_then(|m| m.get(field)) {
                Some(value) => meta.insert(field.into(), value.clone()),
                None => meta.remove(field),
            };
        }
    }
}

/// Everything but metadata and status.
fn content(object: &Value) -> Map<String, Value> {
    let mut content = object.as_object().cloned().unwrap_or_default();
    content.remove("metadata");
    content.remove("status");
    content
}

fn bump_generation(object: &mut Value) {
    if let Some(meta) = metadata_mut(object) {
        let next = meta.get("generation").and_then(Value::as_i64).unwrap_or(0) + 1;
        meta.insert("generation".into(), next.into());
    }
}

pub(crate) fn strings<'a>(object: &'a Value, field: &str) -> Vec<&'a str> {
    metadata_of(object)
        .and_then(|m| m.get(field))
        .and_then(Value::as_array)
        .map(|list| list.iter().filter_map(Value::as_str).collect())
        .unwrap_or_default()
}

fn delete(kind: &Kind, name: &str, deletion: &Deletion, before: &Value, clock: Clock) -> Result<Planned, ApiError> {
    for (what, wanted, is) in
        [("UID", &deletion.uid, text(before, "uid")), ("ResourceVersion", &deletion.resource_version, text(before, "resourceVersion"))]
    {
        if let Some(wanted) = wanted.as_deref().filter(|w| Some(*w) != is) {
            let is = is.unwrap_or_default();
            return Err(ApiError::conflict(
                kind,
                name,
                format!("Precondition failed: {what} in precondition: {wanted}, {what} in object meta: {is}"),
            ));
        }
    }
    let mut after = before.clone();
    let mut finalizers: Vec<String> = strings(before, "finalizers").into_iter().map(str::to_owned).collect();
    if let Some(propagation) = deletion.propagation {
        // The last request decides, as in an apiserver.
        finalizers.retain(|f| f != FOREGROUND && f != ORPHAN);
        match propagation {
            Propagation::Background => {}
            Propagation::Foreground => finalizers.push(FOREGROUND.to_owned()),
            Propagation::Orphan => finalizers.push(ORPHAN.to_owned()),
        }
    }
    if finalizers.is_empty() {
        return Ok(Planned::Write { change: Change::Deleted, object: after, secrets: SecretChange::default() });
    }
    let first = text(before, "deletionTimestamp").is_none();
    if let Some(meta) = metadata_mut(&mut after) {
        meta.insert("finalizers".into(), json!(finalizers));
        if first {
            meta.insert("deletionTimestamp".into(), clock.stamp().into());
            meta.insert("deletionGracePeriodSeconds".into(), 0.into());
        }
    }
    if first && kind.family == Family::Custom {
        bump_generation(&mut after);
    }
    if after == *before {
        return Ok(Planned::Unchanged);
    }
    Ok(Planned::Write { change: Change::Modified, object: after, secrets: SecretChange::default() })
}

fn validate(kind: &Kind, name: &str, object: &mut Value, before: Option<&Value>) -> Result<(), ApiError> {
    kind.rules.default(object);
    let unknown = kind.rules.unknown_fields(object);
    if !unknown.is_empty() {
        return Err(ApiError::unknown_fields(kind, &unknown));
    }
    let mut causes = metadata::check(object);
    causes.extend(kind.rules.check(object, before));
    if causes.is_empty() { Ok(()) } else { Err(ApiError::invalid(kind, name, &causes)) }
}

fn secret_change(kind: &Kind, name: &str, object: &mut Value, before: Option<&Value>) -> Result<SecretChange, ApiError> {
    if kind.family != Family::Secret {
        return Ok(SecretChange::default());
    }
    secrets::take_values(object, before).map_err(|causes| ApiError::invalid(kind, name, &causes))
}

/// Refuses what is larger than the store takes.
pub(crate) fn check_size(bytes: usize) -> Result<(), ApiError> {
    if bytes > limits::MAX_OBJECT { Err(ApiError::too_large("the object is too large", limits::MAX_OBJECT)) } else { Ok(()) }
}
