//! What a well-formed policy may not say.

use crate::{Policy, PolicyError};

impl Policy {
    /// Everything that is wrong with the policy.
    pub fn validate(&self) -> Result<(), PolicyError> {
        Ok(())
    }
}
