//! What the process driver is told.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use zeroize::Zeroize as _;

use crate::limits;

/// Configuration of the process driver.
#[derive(Clone)]
pub struct ProcessDriverConfig {
    /// Directory that holds one directory per sandbox (`…/openshell/sandboxes`).
    pub state_dir: PathBuf,
    /// The supervisor's executable (`openshell-sandbox`).
    pub supervisor: PathBuf,
    /// Directories that no policy may grant: state, keys, configuration.
    pub protected_paths: Vec<PathBuf>,
    /// Gives each supervisor its way to the gateway.
    pub bootstrap: Arc<dyn BootstrapSource>,
    /// Variables of the supervisor's own environment, which is empty otherwise but for `PATH`,
    /// `LANG` and `OPENSHELL_ABLATE` (which only ablation builds read). The agent sees none of them.
    pub environment: Vec<(String, String)>,
    /// The uids of sandboxes when the driver runs as root.
    pub uids: UidRange,
    /// Times to wait.
    pub grace: Grace,
}

impl ProcessDriverConfig {
    /// The usual configuration.
    pub fn new(state_dir: PathBuf, supervisor: PathBuf, protected_paths: Vec<PathBuf>, bootstrap: Arc<dyn BootstrapSource>) -> Self {
        Self {
            state_dir,
            supervisor,
            protected_paths,
            bootstrap,
            environment: Vec::new(),
            uids: UidRange::default(),
            grace: Grace::default(),
        }
    }
}

/// Uids (and gids of the same number) that sandboxes may have, one each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UidRange {
    /// The first one.
    pub first: u32,
    /// How many.
    pub count: u32,
}

impl Default for UidRange {
    fn default() -> Self {
        Self { first: limits::FIRST_UID, count: limits::UID_COUNT }
    }
}

/// How long a supervisor is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grace {
    /// From SIGTERM to SIGKILL when suspending.
    pub stop: Duration,
    /// From SIGTERM to SIGKILL when deleting.
    pub delete: Duration,
    /// From SIGKILL until it is reported that the workload will not go.
    pub kill: Duration,
}

impl Default for Grace {
    fn default() -> Self {
        Self { stop: limits::STOP_GRACE, delete: limits::DELETE_GRACE, kill: limits::KILL_GRACE }
    }
}

/// Gives supervisors their way to the gateway.
pub trait BootstrapSource: Send + Sync {
    /// The gateway's endpoint and a token for this sandbox alone.
    fn bootstrap(&self, uid: &str, name: &str) -> Result<GatewayAccess, BootstrapError>;
}

/// A supervisor cannot be given access.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BootstrapError(pub String);

/// A supervisor's way to its gateway. The token is a secret: it leaves through a pipe only.
#[derive(Clone)]
pub struct GatewayAccess {
    /// `https://127.0.0.1:17670`.
    pub endpoint: String,
    /// Name that the gateway's certificate must carry.
    pub server_name: String,
    /// The gateway's CA.
    pub ca_pem: String,
    /// Token of this sandbox.
    pub token: String,
}

impl fmt::Debug for GatewayAccess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GatewayAccess")
            .field("endpoint", &self.endpoint)
            .field("server_name", &self.server_name)
            .field("token", &"<redacted>")
            .finish_non_exhaustive()
    }
}

impl Drop for GatewayAccess {
    fn drop(&mut self) {
        self.token.zeroize();
    }
}
