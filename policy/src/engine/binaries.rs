//! Who may use a policy: executables by path or glob, of the process itself or of an ancestor.

use std::collections::HashSet;

use crate::glob::Glob;
use crate::model::Policy;
use crate::{CompileError, Process};

/// The configured paths of each policy with what they stand for, in the order of the policies.
pub(super) fn resolve(policy: &Policy, targets: impl Fn(&str) -> Vec<String>) -> Vec<Vec<String>> {
    let resolved = |network: &crate::model::NetworkPolicy| {
        let mut paths = Vec::new();
        for binary in &network.binaries {
            paths.extend(targets(&binary.path));
            paths.push(binary.path.clone());
        }
        paths.sort_unstable();
        paths.dedup();
        paths
    };
    policy.network_policies.values().map(resolved).collect()
}

/// The executables of one policy.
#[derive(Debug)]
pub(super) enum Binaries {
    /// The list is empty: any executable.
    Any,
    /// Only these.
    Listed { exact: HashSet<String>, globs: Vec<Glob> },
}

impl Binaries {
    pub(super) fn compile(paths: &[String]) -> Result<Self, CompileError> {
        if paths.is_empty() {
            return Ok(Self::Any);
        }
        let (mut exact, mut globs) = (HashSet::new(), Vec::new());
        for path in paths {
            let glob = Glob::path(path).map_err(|e| CompileError(format!("binary `{path}`: {e}")))?;
            if glob.is_literal() {
                exact.insert(path.clone());
            } else {
                globs.push(glob);
            }
        }
        Ok(Self::Listed { exact, globs })
    }

    /// Whether the process, or one that it descends from, is listed.
    pub(super) fn grant(&self, process: Process<'_>) -> bool {
        match self {
            Self::Any => true,
            Self::Listed { exact, globs } => std::iter::once(process.path)
                .chain(process.ancestors.iter().map(String::as_str))
                .any(|path| exact.contains(path) || globs.iter().any(|glob| glob.matches(path))),
        }
    }
}
