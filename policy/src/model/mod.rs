//! The policy file as types, one file per noun.
//!
//! Every key of the language is here, also those that are not enforced yet: they are parsed, so
//! that the refusal can name them (`not-supported-yet`), and never ignored. Keys are snake_case as
//! in the file. A `Policy` that came out of [`crate::parse`] is valid and normalised: hosts in
//! lower case, ports in `ports`-or-`port` form, defaults left out (see [`crate::canonical`]).

mod endpoint;
mod filesystem;
mod middleware;
mod network;
mod process;
mod rule;

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};

pub(crate) use endpoint::parse_network;
pub use endpoint::{
    AccessPreset, CredentialBinding, CredentialSigning, Endpoint, Enforcement, GraphqlOperation, JsonRpcOptions, McpOptions, OperationType,
    PersistedQueries, Protocol, TlsMode,
};
pub use filesystem::{FilesystemPolicy, LandlockCompatibility, LandlockPolicy};
pub use middleware::{Middleware, MiddlewareEndpoints, OnError};
pub use network::{Binary, NetworkPolicy};
pub use process::ProcessPolicy;
pub use rule::{Matcher, RequestMatch, Rule};

/// The only version of the language.
pub const VERSION: u32 = 1;

/// A policy file.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    /// Always [`VERSION`].
    #[serde(default)]
    pub version: u32,
    /// What the agent may read and write.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filesystem_policy: Option<FilesystemPolicy>,
    /// How strictly Landlock is needed. Absent: best effort.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub landlock: Option<LandlockPolicy>,
    /// Who the agent runs as.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub process: Option<ProcessPolicy>,
    /// What the agent may reach. Empty: nothing.
    #[serde(default, skip_serializing_if = "IndexMap::is_empty")]
    pub network_policies: IndexMap<String, NetworkPolicy>,
    /// Services that look at requests on their way out.
    #[serde(default, skip_serializing_if = "IndexMap::is_empty")]
    pub network_middlewares: IndexMap<String, Middleware>,
}

impl Policy {
    /// What a sandbox gets that names no policy: no egress, a small read-only system.
    pub fn restrictive_default() -> Self {
        Self {
            version: VERSION,
            filesystem_policy: Some(FilesystemPolicy {
                include_workdir: true,
                read_only: ["/usr", "/lib", "/proc", "/dev/urandom", "/app", "/etc", "/var/log"].map(str::to_owned).to_vec(),
                read_write: ["/tmp", "/dev/null"].map(str::to_owned).to_vec(),
            }),
            ..Self::default()
        }
    }

    /// How strictly Landlock is needed.
    pub fn landlock_compatibility(&self) -> LandlockCompatibility {
        self.landlock.map(|l| l.compatibility).unwrap_or_default()
    }
}

/// For `skip_serializing_if`: whether a value is its type's default.
fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}
