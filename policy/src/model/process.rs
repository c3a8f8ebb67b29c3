//! Who the agent runs as.

use serde::{Deserialize, Serialize};

/// Who the agent runs as. An identity is `sandbox` or a number from 1 to 4294967294.
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
