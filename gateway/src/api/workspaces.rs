//! Workspaces. Locally `default` exists, and no other can be made.

use openshell_crds::labels::DEFAULT_WORKSPACE;
use openshell_proto::{datamodel, v1};
use tonic::{Request, Status};

use super::{Api, page};
use crate::convert::time;
use crate::errors;

async fn default(api: &Api) -> Result<datamodel::Workspace, Status> {
    // As old as the gateway's own object, which is made on first start.
    let gateway = api.gateway().await?;
    Ok(datamodel::Workspace {
        metadata: Some(datamodel::ObjectMeta {
            id: DEFAULT_WORKSPACE.to_owned(),
            name: DEFAULT_WORKSPACE.to_owned(),
            created_time: gateway.metadata.creation_timestamp.as_ref().map(time::to_wire),
            ..datamodel::ObjectMeta::default()
        }),
        status: Some(datamodel::WorkspaceStatus { phase: datamodel::WorkspacePhase::Active.into() }),
    })
}

pub(super) async fn get(api: &Api, request: Request<v1::GetWorkspaceRequest>) -> Result<v1::GetWorkspaceResponse, Status> {
    let name = request.into_inner().name;
    if !name.is_empty() && name != DEFAULT_WORKSPACE {
        return Err(errors::not_found("workspace", &name));
    }
    Ok(v1::GetWorkspaceResponse { workspace: Some(default(api).await?) })
}

pub(super) async fn list(api: &Api, request: Request<v1::ListWorkspacesRequest>) -> Result<v1::ListWorkspacesResponse, Status> {
    let request = request.into_inner();
    page::size(request.page_size, crate::limits::PAGE_DEFAULT)?;
    if !request.page_token.is_empty() {
        return Err(errors::invalid("page_token", "it is not a token of this list: begin with the first page"));
    }
    // The only workspace has no labels: any selector that asks for one matches nothing.
    let workspaces = if request.label_selector.is_empty() { vec![default(api).await?] } else { Vec::new() };
    Ok(v1::ListWorkspacesResponse { workspaces, next_page_token: String::new() })
}
