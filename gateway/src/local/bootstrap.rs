//! What a supervisor is started with: where its gateway is, and a token of its own.

use std::sync::Arc;

use openshell_operator::driver::process::{BootstrapError, BootstrapSource, GatewayAccess};

use crate::pki::SandboxTokens;

/// Mints the tokens of the supervisors of this machine.
pub(super) struct Bootstrap {
    pub(super) tokens: Arc<SandboxTokens>,
    pub(super) endpoint: String,
    pub(super) ca_pem: String,
}

impl BootstrapSource for Bootstrap {
    fn bootstrap(&self, uid: &str, _: &str) -> Result<GatewayAccess, BootstrapError> {
        Ok(GatewayAccess {
            endpoint: self.endpoint.clone(),
            server_name: "localhost".to_owned(),
            ca_pem: self.ca_pem.clone(),
            token: self.tokens.mint(uid).map_err(|e| BootstrapError(e.to_string()))?,
        })
    }
}
