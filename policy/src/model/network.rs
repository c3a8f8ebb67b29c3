//! A named grant: endpoints, and the binaries that may reach them.

use serde::{Deserialize, Serialize};

use super::Endpoint;

/// Endpoints, and the binaries that may reach them.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetworkPolicy {
    /// Shown in logs; the map key unless said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// What may be reached.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub endpoints: Vec<Endpoint>,
    /// Who may reach it, by executable. Empty: any executable.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub binaries: Vec<Binary>,
}

impl NetworkPolicy {
    /// The name that logs show.
    pub fn display_name<'a>(&'a self, key: &'a str) -> &'a str {
        self.name.as_deref().unwrap_or(key)
    }
}

/// An executable that may use a policy's endpoints, itself or through its descendants.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Binary {
    /// Absolute path, or a glob whose `*` stays inside one component and whose `**` does not.
    #[serde(default)]
    pub path: String,
    /// Had a meaning once, has none today: refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub harness: Option<bool>,
}
