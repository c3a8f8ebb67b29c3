//! The policy file as types.

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};

/// A policy file.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    /// Always 1.
    pub version: u32,
    /// What the agent may read and write.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filesystem_policy: Option<FilesystemPolicy>,
    /// How strictly Landlock is needed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub landlock: Option<LandlockPolicy>,
    /// Who the agent runs as.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub process: Option<ProcessPolicy>,
    /// What the agent may reach. Empty: nothing.
    #[serde(default, skip_serializing_if = "IndexMap::is_empty")]
    pub network_policies: IndexMap<String, NetworkPolicy>,
}

/// What the agent may read and write.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FilesystemPolicy {
    /// Grant the working directory read-write.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub include_workdir: bool,
    /// Absolute paths.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub read_only: Vec<String>,
    /// Absolute paths.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub read_write: Vec<String>,
}

/// How strictly Landlock is needed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LandlockPolicy {
    /// What to do where it cannot hold everything.
    #[serde(default)]
    pub compatibility: LandlockCompatibility,
}

/// What to do where Landlock cannot hold everything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LandlockCompatibility {
    /// Use the highest ABI there is, and report.
    #[default]
    BestEffort,
    /// Refuse to start.
    HardRequirement,
}

/// Who the agent runs as.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProcessPolicy {
    /// `sandbox` or a numeric uid.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run_as_user: Option<String>,
    /// `sandbox` or a numeric gid.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run_as_group: Option<String>,
}

/// Endpoints, and the binaries that may reach them. The complete key set is in the
/// reference; the ones that are not enforced yet are parsed and refused by name.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetworkPolicy {
    /// Shown in logs; the map key unless said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

/// Hash of the canonical form: `sha256:` and 64 hex digits.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PolicyHash(String);

impl PolicyHash {
    /// The text form.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Display for PolicyHash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl Policy {
    /// What a sandbox gets that names no policy: no egress, a small read-only system.
    pub fn restrictive_default() -> Self {
        Self {
            version: 1,
            filesystem_policy: Some(FilesystemPolicy {
                include_workdir: true,
                read_only: ["/usr", "/lib", "/proc", "/dev/urandom", "/app", "/etc", "/var/log"].map(str::to_owned).to_vec(),
                read_write: ["/tmp", "/dev/null"].map(str::to_owned).to_vec(),
            }),
            landlock: Some(LandlockPolicy::default()),
            ..Self::default()
        }
    }

    /// Canonical JSON: keys sorted, defaults left out. Equal policies have equal bytes.
    pub fn canonical_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a policy is plain data with string keys")
    }

    /// Hash of [`Policy::canonical_json`].
    pub fn hash(&self) -> PolicyHash {
        use sha2::Digest as _;
        PolicyHash(format!("sha256:{}", hex::encode(sha2::Sha256::digest(self.canonical_json()))))
    }
}
