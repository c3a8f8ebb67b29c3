//! Errors with their place.

use std::fmt;

/// One thing that is wrong with a policy.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Finding {
    /// Stable code, e.g. `unknown-key`, `wrong-type`, `not-supported-yet`.
    pub code: &'static str,
    /// Where in the document: `network_policies.forge.endpoints[0].port`.
    pub path: String,
    /// Line from 1, when the text is known.
    pub line: Option<usize>,
    /// Column from 1, when the text is known.
    pub column: Option<usize>,
    /// What is wrong, and what to do about it.
    pub message: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let (Some(line), Some(column)) = (self.line, self.column) {
            write!(f, "line {line}, column {column}: ")?;
        }
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.message)
    }
}

/// A policy that is refused, with everything that is wrong with it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct PolicyError {
    /// At least one.
    pub findings: Vec<Finding>,
}

impl fmt::Display for PolicyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, finding) in self.findings.iter().enumerate() {
            if i > 0 {
                f.write_str("; ")?;
            }
            finding.fmt(f)?;
        }
        Ok(())
    }
}

/// A valid policy that could not be compiled: a defect of ours, reported and failing closed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the policy could not be compiled: {0}")]
pub struct CompileError(pub String);
