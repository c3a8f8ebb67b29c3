//! The sandbox that a supervisor is for, whoever says so.

use std::path::PathBuf;

use crate::{
    bootstrap::{Bootstrap, GatewayAccess, RunAs},
    session::{Proof, ProofError},
};

/// Everything that a supervisor must know to begin.
pub struct Assignment {
    /// UID of the `OpenShellSandbox`.
    pub sandbox_id: String,
    /// Its name, for people.
    pub sandbox_name: String,
    /// Where the gateway is and how it is recognised.
    pub gateway: GatewayAccess,
    /// What is shown to it.
    pub proof: Proof,
    /// The sandbox's directory; held by an exclusive lock.
    pub directory: PathBuf,
    /// The agent's working directory and home.
    pub workspace: PathBuf,
    /// Who the agent runs as, if not as whoever we are.
    pub run_as: Option<RunAs>,
    /// Paths that no policy may grant.
    pub protected_paths: Vec<PathBuf>,
}

impl TryFrom<Bootstrap> for Assignment {
    type Error = ProofError;

    fn try_from(bootstrap: Bootstrap) -> Result<Self, ProofError> {
        let Bootstrap { sandbox_id, sandbox_name, gateway, token, directory, workspace, run_as, protected_paths, .. } = bootstrap;
        let proof = Proof::token(&token)?;
        Ok(Self { sandbox_id, sandbox_name, gateway, proof, directory, workspace, run_as, protected_paths })
    }
}
