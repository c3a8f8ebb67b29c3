//! Every method of `openshell.v1.OpenShell`: who serves it, and which are not served yet.

use std::future::Future;
use std::pin::Pin;

use futures::stream::BoxStream;
use openshell_proto::v1::open_shell_server::OpenShell;
use openshell_proto::{sandbox, v1};
use tonic::{Request, Response, Status, Streaming};

use super::{Api, attach, config, exec, info, lifecycle, logs, providers, sandboxes, watch, workspaces};
use crate::errors;

/// Output of an exec.
pub(super) type ExecStream = BoxStream<'static, Result<v1::ExecSandboxEvent, Status>>;
/// Bytes of a forwarded connection.
pub(super) type ForwardStream = BoxStream<'static, Result<v1::TcpForwardFrame, Status>>;
/// What happens to a sandbox.
pub(super) type WatchStream = BoxStream<'static, Result<v1::SandboxStreamEvent, Status>>;

/// The service from a table. The signatures are what `#[async_trait]` makes of `async fn`, which
/// it cannot do for what a macro expands to.
macro_rules! methods {
    (
        served { $($name:ident($request:ty) -> $response:ty => $handler:path;)* }
        unimplemented { $($missing:ident($wanted:ty) -> $answer:ty = $method:literal;)* }
    ) => {
        impl OpenShell for Api {
            type ExecSandboxStream = ExecStream;
            type ExecSandboxInteractiveStream = ExecStream;
            type ForwardTcpStream = ForwardStream;
            type WatchSandboxStream = WatchStream;

            $(
                fn $name<'life0, 'async_trait>(
                    &'life0 self,
                    request: Request<$request>,
                ) -> Pin<Box<dyn Future<Output = Result<Response<$response>, Status>> + Send + 'async_trait>>
                where
                    'life0: 'async_trait,
                    Self: 'async_trait,
                {
                    Box::pin(async move { super::bounded($handler(self, request)).await.map(Response::new) })
                }
            )*

            $(
                fn $missing<'life0, 'async_trait>(
                    &'life0 self,
                    _: Request<$wanted>,
                ) -> Pin<Box<dyn Future<Output = Result<Response<$answer>, Status>> + Send + 'async_trait>>
                where
                    'life0: 'async_trait,
                    Self: 'async_trait,
                {
                    Box::pin(async move { Err(errors::unimplemented($method)) })
                }
            )*
        }
    };
}

methods! {
    served {
        health(v1::HealthRequest) -> v1::HealthResponse => info::health;
        get_current_user(v1::GetCurrentUserRequest) -> v1::GetCurrentUserResponse => info::current_user;
        get_gateway_info(v1::GetGatewayInfoRequest) -> v1::GetGatewayInfoResponse => info::gateway;
        create_sandbox(v1::CreateSandboxRequest) -> v1::SandboxResponse => sandboxes::create;
        get_sandbox(v1::GetSandboxRequest) -> v1::SandboxResponse => sandboxes::get;
        list_sandboxes(v1::ListSandboxesRequest) -> v1::ListSandboxesResponse => sandboxes::list;
        list_sandbox_providers(v1::ListSandboxProvidersRequest) -> v1::ListSandboxProvidersResponse => attach::list;
        attach_sandbox_provider(v1::AttachSandboxProviderRequest) -> v1::AttachSandboxProviderResponse => attach::attach;
        detach_sandbox_provider(v1::DetachSandboxProviderRequest) -> v1::DetachSandboxProviderResponse => attach::detach;
        delete_sandbox(v1::DeleteSandboxRequest) -> v1::DeleteSandboxResponse => sandboxes::delete;
        stop_sandbox(v1::StopSandboxRequest) -> v1::SandboxResponse => lifecycle::stop;
        start_sandbox(v1::StartSandboxRequest) -> v1::SandboxResponse => lifecycle::start;
        exec_sandbox(v1::ExecSandboxRequest) -> ExecStream => exec::exec;
        exec_sandbox_interactive(Streaming<v1::ExecSandboxInput>) -> ExecStream => exec::interactive;
        create_provider(v1::CreateProviderRequest) -> v1::ProviderResponse => providers::create;
        get_provider(v1::GetProviderRequest) -> v1::ProviderResponse => providers::get;
        list_providers(v1::ListProvidersRequest) -> v1::ListProvidersResponse => providers::list;
        delete_provider(v1::DeleteProviderRequest) -> v1::DeleteProviderResponse => providers::delete;
        get_sandbox_config(sandbox::GetSandboxConfigRequest) -> sandbox::GetSandboxConfigResponse => config::get;
        update_config(v1::UpdateConfigRequest) -> v1::UpdateConfigResponse => config::update;
        get_sandbox_policy_status(v1::GetSandboxPolicyStatusRequest) -> v1::GetSandboxPolicyStatusResponse => config::status;
        list_sandbox_policies(v1::ListSandboxPoliciesRequest) -> v1::ListSandboxPoliciesResponse => config::list;
        get_sandbox_logs(v1::GetSandboxLogsRequest) -> v1::GetSandboxLogsResponse => logs::get;
        watch_sandbox(v1::WatchSandboxRequest) -> WatchStream => watch::watch;
        get_workspace(v1::GetWorkspaceRequest) -> v1::GetWorkspaceResponse => workspaces::get;
        list_workspaces(v1::ListWorkspacesRequest) -> v1::ListWorkspacesResponse => workspaces::list;
    }
    unimplemented {
        begin_rootfs_tar_staging(v1::BeginRootfsTarStagingRequest) -> v1::BeginRootfsTarStagingResponse = "BeginRootfsTarStaging";
        create_sandbox_template(v1::CreateSandboxTemplateRequest) -> v1::SandboxTemplateResponse = "CreateSandboxTemplate";
        get_sandbox_template(v1::GetSandboxTemplateRequest) -> v1::SandboxTemplateResponse = "GetSandboxTemplate";
        list_sandbox_templates(v1::ListSandboxTemplatesRequest) -> v1::ListSandboxTemplatesResponse = "ListSandboxTemplates";
        delete_sandbox_template(v1::DeleteSandboxTemplateRequest) -> v1::DeleteSandboxTemplateResponse = "DeleteSandboxTemplate";
        get_sandbox_provider_status(v1::GetSandboxProviderStatusRequest) -> v1::GetSandboxProviderStatusResponse = "GetSandboxProviderStatus";
        create_ssh_session(v1::CreateSshSessionRequest) -> v1::CreateSshSessionResponse = "CreateSshSession";
        expose_service(v1::ExposeServiceRequest) -> v1::ServiceEndpointResponse = "ExposeService";
        get_service(v1::GetServiceRequest) -> v1::ServiceEndpointResponse = "GetService";
        list_services(v1::ListServicesRequest) -> v1::ListServicesResponse = "ListServices";
        delete_service(v1::DeleteServiceRequest) -> v1::DeleteServiceResponse = "DeleteService";
        revoke_ssh_session(v1::RevokeSshSessionRequest) -> v1::RevokeSshSessionResponse = "RevokeSshSession";
        forward_tcp(Streaming<v1::TcpForwardFrame>) -> ForwardStream = "ForwardTcp";
        list_provider_profiles(v1::ListProviderProfilesRequest) -> v1::ListProviderProfilesResponse = "ListProviderProfiles";
        get_provider_profile(v1::GetProviderProfileRequest) -> v1::ProviderProfileResponse = "GetProviderProfile";
        import_provider_profiles(v1::ImportProviderProfilesRequest) -> v1::ImportProviderProfilesResponse = "ImportProviderProfiles";
        update_provider_profiles(v1::UpdateProviderProfilesRequest) -> v1::UpdateProviderProfilesResponse = "UpdateProviderProfiles";
        lint_provider_profiles(v1::LintProviderProfilesRequest) -> v1::LintProviderProfilesResponse = "LintProviderProfiles";
        update_provider(v1::UpdateProviderRequest) -> v1::ProviderResponse = "UpdateProvider";
        get_provider_refresh_status(v1::GetProviderRefreshStatusRequest) -> v1::GetProviderRefreshStatusResponse = "GetProviderRefreshStatus";
        configure_provider_refresh(v1::ConfigureProviderRefreshRequest) -> v1::ConfigureProviderRefreshResponse = "ConfigureProviderRefresh";
        rotate_provider_credential(v1::RotateProviderCredentialRequest) -> v1::RotateProviderCredentialResponse = "RotateProviderCredential";
        delete_provider_refresh(v1::DeleteProviderRefreshRequest) -> v1::DeleteProviderRefreshResponse = "DeleteProviderRefresh";
        delete_provider_profile(v1::DeleteProviderProfileRequest) -> v1::DeleteProviderProfileResponse = "DeleteProviderProfile";
        get_gateway_config(sandbox::GetGatewayConfigRequest) -> sandbox::GetGatewayConfigResponse = "GetGatewayConfig";
        get_draft_policy(v1::GetDraftPolicyRequest) -> v1::GetDraftPolicyResponse = "GetDraftPolicy";
        approve_draft_chunk(v1::ApproveDraftChunkRequest) -> v1::ApproveDraftChunkResponse = "ApproveDraftChunk";
        reject_draft_chunk(v1::RejectDraftChunkRequest) -> v1::RejectDraftChunkResponse = "RejectDraftChunk";
        approve_all_draft_chunks(v1::ApproveAllDraftChunksRequest) -> v1::ApproveAllDraftChunksResponse = "ApproveAllDraftChunks";
        edit_draft_chunk(v1::EditDraftChunkRequest) -> v1::EditDraftChunkResponse = "EditDraftChunk";
        undo_draft_chunk(v1::UndoDraftChunkRequest) -> v1::UndoDraftChunkResponse = "UndoDraftChunk";
        clear_draft_chunks(v1::ClearDraftChunksRequest) -> v1::ClearDraftChunksResponse = "ClearDraftChunks";
        get_draft_history(v1::GetDraftHistoryRequest) -> v1::GetDraftHistoryResponse = "GetDraftHistory";
        create_workspace(v1::CreateWorkspaceRequest) -> v1::CreateWorkspaceResponse = "CreateWorkspace";
        delete_workspace(v1::DeleteWorkspaceRequest) -> v1::DeleteWorkspaceResponse = "DeleteWorkspace";
        add_workspace_member(v1::AddWorkspaceMemberRequest) -> v1::AddWorkspaceMemberResponse = "AddWorkspaceMember";
        remove_workspace_member(v1::RemoveWorkspaceMemberRequest) -> v1::RemoveWorkspaceMemberResponse = "RemoveWorkspaceMember";
        list_workspace_members(v1::ListWorkspaceMembersRequest) -> v1::ListWorkspaceMembersResponse = "ListWorkspaceMembers";
    }
}
