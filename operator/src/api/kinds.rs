//! The kinds that are served, and what is known of each.
//!
//! Our own kinds come from the definitions that we ship ([`openshell_crds::all`]); beside them
//! stand core `v1 Secret` (values sealed, write-only) and `apps/v1 ControllerRevision` (policy
//! history). Nothing else is stored: `events.k8s.io` answers 404, which event recorders survive.

use std::sync::{Arc, OnceLock};

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use serde_json::json;

use super::validate::Rules;

/// Position of a kind in [`Kinds`]; small, stable for the life of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct KindId(pub(crate) u8);

/// What is special about a kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Family {
    /// From a definition of ours.
    Custom,
    /// Core `v1 Secret`.
    Secret,
    /// `apps/v1 ControllerRevision`.
    Revision,
}

/// A served kind.
pub struct Kind {
    pub(crate) id: KindId,
    pub(crate) family: Family,
    /// API group; empty for the core.
    pub(crate) group: String,
    pub(crate) version: String,
    /// The kind's own name (`Policy`).
    pub(crate) name: String,
    pub(crate) plural: String,
    pub(crate) singular: String,
    pub(crate) short_names: Vec<String>,
    pub(crate) categories: Vec<String>,
    /// `status` is a subresource of its own.
    pub(crate) has_status: bool,
    pub(crate) columns: Vec<Column>,
    pub(crate) rules: Rules,
}

/// A column that `get` prints.
pub(crate) struct Column {
    pub(crate) name: String,
    pub(crate) type_: String,
    pub(crate) description: String,
    pub(crate) priority: i32,
    pub(crate) path: String,
}

impl std::fmt::Debug for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.qualified())
    }
}

impl Kind {
    /// `group/version`, or the version alone in the core group.
    pub(crate) fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.clone() } else { format!("{}/{}", self.group, self.version) }
    }

    /// `plural.group`: how errors name it, and the store's key.
    pub(crate) fn qualified(&self) -> String {
        if self.group.is_empty() { self.plural.clone() } else { format!("{}.{}", self.plural, self.group) }
    }
}

/// All served kinds.
pub(crate) struct Kinds(Vec<Arc<Kind>>);

/// A definition of ours cannot be served. A test holds that this cannot happen with the ones we
/// ship.
#[derive(Debug, thiserror::Error)]
#[error("the definition of {kind} cannot be served: {why}")]
pub struct DefinitionError {
    pub(crate) kind: String,
    pub(crate) why: String,
}

impl Kinds {
    /// The kinds of this binary, compiled once in a process.
    pub(crate) fn shared() -> Result<Arc<Self>, DefinitionError> {
        static KINDS: OnceLock<Arc<Kinds>> = OnceLock::new();
        if let Some(kinds) = KINDS.get() {
            return Ok(kinds.clone());
        }
        let kinds = Arc::new(Self::new()?);
        Ok(KINDS.get_or_init(|| kinds).clone())
    }

    /// Compiles the kinds of this binary.
    pub(crate) fn new() -> Result<Self, DefinitionError> {
        let mut kinds = Vec::new();
        for definition in openshell_crds::all() {
            kinds.push(Arc::new(custom(KindId(kinds.len() as u8), &definition)?));
        }
        kinds.push(Arc::new(secret(KindId(kinds.len() as u8))?));
        kinds.push(Arc::new(revision(KindId(kinds.len() as u8))?));
        Ok(Self(kinds))
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Arc<Kind>> {
        self.0.iter()
    }

    pub(crate) fn by_id(&self, id: KindId) -> Option<&Arc<Kind>> {
        self.0.get(usize::from(id.0))
    }

    pub(crate) fn by_plural(&self, group: &str, version: &str, plural: &str) -> Option<&Arc<Kind>> {
        self.0.iter().find(|k| k.group == group && k.version == version && k.plural == plural)
    }

    pub(crate) fn by_kind(&self, api_version: &str, kind: &str) -> Option<&Arc<Kind>> {
        self.0.iter().find(|k| k.name == kind && k.api_version() == api_version)
    }

    pub(crate) fn by_qualified(&self, qualified: &str) -> Option<&Arc<Kind>> {
        self.0.iter().find(|k| k.qualified() == qualified)
    }
}

fn custom(id: KindId, definition: &CustomResourceDefinition) -> Result<Kind, DefinitionError> {
    let spec = &definition.spec;
    let refuse = |why: &str| DefinitionError { kind: spec.names.kind.clone(), why: why.to_owned() };
    let version = spec.versions.iter().find(|v| v.served && v.storage).ok_or_else(|| refuse("it has no served storage version"))?;
    let schema = version.schema.as_ref().and_then(|s| s.open_api_v3_schema.as_ref()).ok_or_else(|| refuse("it has no schema"))?;
    let schema = serde_json::to_value(schema).map_err(|error| refuse(&error.to_string()))?;
    let columns = version.additional_printer_columns.iter().flatten();
    Ok(Kind {
        id,
        family: Family::Custom,
        group: spec.group.clone(),
        version: version.name.clone(),
        name: spec.names.kind.clone(),
        plural: spec.names.plural.clone(),
        singular: spec.names.singular.clone().unwrap_or_else(|| spec.names.kind.to_lowercase()),
        short_names: spec.names.short_names.clone().unwrap_or_default(),
        categories: spec.names.categories.clone().unwrap_or_default(),
        has_status: version.subresources.as_ref().is_some_and(|s| s.status.is_some()),
        columns: columns
            .map(|c| Column {
                name: c.name.clone(),
                type_: c.type_.clone(),
                description: c.description.clone().unwrap_or_default(),
                priority: c.priority.unwrap_or_default(),
                path: c.json_path.clone(),
            })
            .collect(),
        rules: Rules::new(&spec.names.kind, schema)?,
    })
}

fn secret(id: KindId) -> Result<Kind, DefinitionError> {
    let strings = json!({ "type": "object", "additionalProperties": { "type": "string" } });
    let schema = json!({
        "type": "object",
        "properties": {
            "apiVersion": { "type": "string" }, "kind": { "type": "string" }, "metadata": { "type": "object" },
            "type": { "type": "string", "default": "Opaque", "maxLength": 253 },
            "immutable": { "type": "boolean" },
            "data": strings, "stringData": strings,
        },
    });
    Ok(Kind {
        id,
        family: Family::Secret,
        group: String::new(),
        version: "v1".into(),
        name: "Secret".into(),
        plural: "secrets".into(),
        singular: "secret".into(),
        short_names: Vec::new(),
        categories: Vec::new(),
        has_status: false,
        columns: vec![column("Type", ".type"), age()],
        rules: Rules::new("Secret", schema)?,
    })
}

fn revision(id: KindId) -> Result<Kind, DefinitionError> {
    let schema = json!({
        "type": "object",
        "required": ["revision"],
        "properties": {
            "apiVersion": { "type": "string" }, "kind": { "type": "string" }, "metadata": { "type": "object" },
            "revision": { "type": "integer", "format": "int64", "minimum": 0 },
            "data": { "type": "object", "x-kubernetes-preserve-unknown-fields": true },
        },
    });
    Ok(Kind {
        id,
        family: Family::Revision,
        group: "apps".into(),
        version: "v1".into(),
        name: "ControllerRevision".into(),
        plural: "controllerrevisions".into(),
        singular: "controllerrevision".into(),
        short_names: Vec::new(),
        categories: Vec::new(),
        has_status: false,
        columns: vec![column("Revision", ".revision"), age()],
        rules: Rules::new("ControllerRevision", schema)?,
    })
}

fn column(name: &str, path: &str) -> Column {
    Column { name: name.into(), type_: "string".into(), description: String::new(), priority: 0, path: path.into() }
}

fn age() -> Column {
    Column { type_: "date".into(), ..column("Age", ".metadata.creationTimestamp") }
}
