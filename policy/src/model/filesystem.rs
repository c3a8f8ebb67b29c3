//! What the agent may read and write, and how strictly the kernel has to hold it.

use serde::{Deserialize, Serialize};

use super::is_default;

/// What the agent may read and write.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FilesystemPolicy {
    /// Grant the working directory read-write.
    #[serde(default, skip_serializing_if = "is_default")]
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
    #[serde(default, skip_serializing_if = "is_default")]
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

impl LandlockCompatibility {
    /// The word of the file.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::BestEffort => "best_effort",
            Self::HardRequirement => "hard_requirement",
        }
    }
}
