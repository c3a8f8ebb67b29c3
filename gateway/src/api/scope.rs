//! Workspaces of requests. Locally there is one, `default`.

use openshell_crds::labels::DEFAULT_WORKSPACE;
use openshell_proto::datamodel::{WorkspaceSelector, workspace_selector::Selection};
use tonic::Status;

use crate::errors;

/// The request is about one workspace.
pub(super) fn one(scope: Option<&WorkspaceSelector>) -> Result<(), Status> {
    match scope.and_then(|s| s.selection.as_ref()) {
        None => Ok(()),
        Some(Selection::Workspace(name)) => named(name),
        Some(Selection::AllWorkspaces(_)) => Err(errors::invalid("workspace_scope", "this call is about one workspace: name it")),
    }
}

/// The request may be about all of them.
pub(super) fn one_or_all(scope: Option<&WorkspaceSelector>) -> Result<(), Status> {
    match scope.and_then(|s| s.selection.as_ref()) {
        Some(Selection::AllWorkspaces(_)) => Ok(()),
        _ => one(scope),
    }
}

fn named(name: &str) -> Result<(), Status> {
    if name.is_empty() || name == DEFAULT_WORKSPACE { Ok(()) } else { Err(errors::not_found("workspace", name)) }
}
