//! The kinds that `apply`, `get` and `delete` know, and objects read from files.
//!
//! Names, scope and printer columns come from the very definitions that we ship, so that a table
//! here looks like `kubectl`'s.

pub(crate) mod column;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::core::{ApiResource, DynamicObject, GroupVersionKind};
use serde_json::Value;

use crate::error::CliError;
use crate::limits;

/// A kind that a gateway stores.
#[derive(Clone, Debug)]
pub(crate) struct Kind {
    pub(crate) resource: ApiResource,
    short: Vec<String>,
    /// Heading and JSON path.
    pub(crate) columns: Vec<(String, String)>,
}

impl Kind {
    /// Every kind.
    pub(crate) fn all() -> Vec<Self> {
        let mut kinds: Vec<Self> = openshell_crds::all().iter().filter_map(Self::from_definition).collect();
        let secret = GroupVersionKind::gvk("", "v1", "Secret");
        kinds.push(Self {
            resource: ApiResource::from_gvk_with_plural(&secret, "secrets"),
            short: Vec::new(),
            columns: vec![("Type".into(), ".type".into()), ("Age".into(), ".metadata.creationTimestamp".into())],
        });
        kinds
    }

    fn from_definition(definition: &CustomResourceDefinition) -> Option<Self> {
        let spec = &definition.spec;
        let version = spec.versions.iter().find(|v| v.served)?;
        let gvk = GroupVersionKind::gvk(&spec.group, &version.name, &spec.names.kind);
        let columns = version.additional_printer_columns.iter().flatten();
        let shown = columns.filter(|c| c.priority.unwrap_or_default() == 0);
        Some(Self {
            resource: ApiResource::from_gvk_with_plural(&gvk, &spec.names.plural),
            short: spec.names.short_names.clone().unwrap_or_default(),
            columns: shown.map(|c| (c.name.clone(), c.json_path.clone())).collect(),
        })
    }

    /// By any of its names, as `kubectl` takes them.
    pub(crate) fn named(name: &str) -> Result<Self, CliError> {
        let wanted = name.to_ascii_lowercase();
        let all = Self::all();
        let matches = |kind: &Self| {
            let singular = kind.resource.kind.to_ascii_lowercase();
            let full = format!("{}.{}", kind.resource.plural, kind.resource.group);
            wanted == singular || wanted == kind.resource.plural || wanted == full || kind.short.contains(&wanted)
        };
        if let Some(kind) = all.iter().find(|k| matches(k)) {
            return Ok(kind.clone());
        }
        let known: Vec<String> =
            all.iter().map(|k| k.short.first().map_or(k.resource.plural.clone(), |s| format!("{} ({s})", k.resource.plural))).collect();
        Err(CliError::usage(format!("There is no kind `{name}`.")).next(format!("Kinds: {}.", known.join(", "))))
    }

    fn of(api_version: &str, kind: &str) -> Option<Self> {
        Self::all().into_iter().find(|k| k.resource.api_version == api_version && k.resource.kind == kind)
    }

    /// `openshellsandbox.openshell.ai/demo`, as `kubectl` says it.
    pub(crate) fn display(&self, name: &str) -> String {
        let singular = self.resource.kind.to_ascii_lowercase();
        if self.resource.group.is_empty() { format!("{singular}/{name}") } else { format!("{singular}.{}/{name}", self.resource.group) }
    }
}

/// An object from a file.
#[derive(Clone, Debug)]
pub(crate) struct Document {
    pub(crate) kind: Kind,
    pub(crate) name: String,
    pub(crate) namespace: String,
    pub(crate) object: DynamicObject,
}

impl Document {
    /// Refuses a policy that could not be accepted. A server can only say so in a condition, since
    /// its schema keeps unknown keys of a policy; here it is known before anything is sent.
    pub(crate) fn check(&self) -> Result<(), CliError> {
        let Some(policy) = self.object.data.pointer("/spec/policy").filter(|_| self.kind.resource.group == openshell_crds::GROUP) else {
            return Ok(());
        };
        openshell_policy::from_value(policy).map(drop).map_err(|error| {
            let mut refusal = CliError::new("policy-refused", format!("{} was not applied.", self.kind.display(&self.name)));
            for finding in &error.findings {
                refusal = refusal.because(format_args!("spec.policy: {finding}"));
            }
            refusal.next("Correct the policy. Nothing was changed.")
        })
    }
}

/// Every object of a file. The file is taken whole or not at all.
pub(crate) fn documents(file: &str, text: &str, namespace: &str) -> Result<Vec<Document>, CliError> {
    let wrong = |why: &dyn std::fmt::Display| {
        CliError::new("bad-file", format!("The file {file} is refused.")).because(why).next("Nothing was changed.")
    };
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! { max_aliases: limits::ALIASES, max_events: limits::YAML_EVENTS },
        with_snippet: false,
    };
    let values: Vec<Value> = serde_saphyr::from_multiple_with_options(text, options).map_err(|e| wrong(&e))?;
    let mut objects = Vec::new();
    for value in values {
        match value {
            Value::Null => {}
            Value::Object(ref map) if map.get("kind").and_then(Value::as_str) == Some("List") => {
                objects.extend(map.get("items").and_then(Value::as_array).into_iter().flatten().cloned());
            }
            other => objects.push(other),
        }
        if objects.len() > limits::DOCUMENTS {
            return Err(wrong(&format_args!("it has more than {} objects", limits::DOCUMENTS)));
        }
    }
    if objects.is_empty() {
        return Err(wrong(&"it has no object"));
    }
    let document =
        |(index, value): (usize, Value)| document(value, namespace).map_err(|why| wrong(&format_args!("object {}: {why}", index + 1)));
    objects.into_iter().enumerate().map(document).collect()
}

fn document(value: Value, namespace: &str) -> Result<Document, String> {
    let text = |pointer: &str| value.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
    let (Some(api_version), Some(kind)) = (text("/apiVersion"), text("/kind")) else {
        return Err("apiVersion and kind are missing".to_owned());
    };
    let kind = Kind::of(&api_version, &kind).ok_or_else(|| {
        let known: Vec<String> = Kind::all().iter().map(|k| format!("{} {}", k.resource.api_version, k.resource.kind)).collect();
        format!("{api_version} {kind} is not stored here; known are {}", known.join(", "))
    })?;
    let name = text("/metadata/name").filter(|n| !n.is_empty()).ok_or("metadata.name is missing")?;
    let namespace = text("/metadata/namespace").unwrap_or_else(|| namespace.to_owned());
    let object = serde_json::from_value(value).map_err(|e| e.to_string())?;
    Ok(Document { kind, name, namespace, object })
}

#[cfg(test)]
mod tests;
