//! Providers of a sandbox: which, one more, one less.

use openshell_crds::sandbox::LocalRef;
use openshell_proto::v1;
use tonic::{Request, Status};

use super::managed::Force;
use super::objects::{Change, usable_name};
use super::{Api, page, scope};
use crate::convert::{provider, sandbox};
use crate::errors;
use crate::limits;

pub(super) async fn list(api: &Api, request: Request<v1::ListSandboxProvidersRequest>) -> Result<v1::ListSandboxProvidersResponse, Status> {
    let request = request.into_inner();
    scope::one(request.workspace_scope.as_ref())?;
    page::size(request.page_size, limits::PAGE_DEFAULT)?;
    if !request.page_token.is_empty() {
        return Err(errors::invalid("page_token", "it is not a token of this list: all fit on one page"));
    }
    let object = api.sandbox(&request.sandbox).await?;
    let mut providers = Vec::with_capacity(object.spec.provider_refs.len());
    for reference in &object.spec.provider_refs {
        match api.provider("providers", &reference.name).await {
            Ok(found) => providers.push(provider::to_wire(&found)),
            // Deleted behind the API's back; the sandbox's conditions say so.
            Err(status) if status.code() == tonic::Code::NotFound => {}
            Err(status) => return Err(status),
        }
    }
    Ok(v1::ListSandboxProvidersResponse { providers, next_page_token: String::new() })
}

pub(super) async fn attach(
    api: &Api,
    request: Request<v1::AttachSandboxProviderRequest>,
) -> Result<v1::AttachSandboxProviderResponse, Status> {
    let force = Force::of(&request)?;
    let request = request.into_inner();
    scope::one(request.workspace_scope.as_ref())?;
    let id = request.request_id.clone();
    let call = async {
        let name = request.provider.as_str();
        api.provider("provider", name).await?;
        // Two providers may want the same variable: found out before anything is written.
        let mut probe = api.sandbox(&request.sandbox).await?;
        if !probe.spec.provider_refs.iter().any(|p| p.name == name) {
            probe.spec.provider_refs.push(LocalRef { name: name.to_owned() });
            api.admit(&probe, "").await?;
        }
        let (object, change) = api
            .change_sandbox(&request.sandbox, request.expected_resource_version, force, |sandbox| {
                let refs = &mut sandbox.spec.provider_refs;
                if refs.iter().any(|p| p.name == name) {
                    return Ok(Change::Nothing);
                }
                if refs.len() >= limits::PROVIDERS_PER_SANDBOX {
                    let why = format!("a sandbox has at most {} providers; detach one first", limits::PROVIDERS_PER_SANDBOX);
                    return Err(errors::resource_exhausted("TOO_MANY_PROVIDERS", why));
                }
                refs.push(LocalRef { name: name.to_owned() });
                Ok(Change::Write)
            })
            .await?;
        let attached = change == Change::Write;
        Ok(v1::AttachSandboxProviderResponse { sandbox: Some(sandbox::to_wire(&object)), attached, receipt: None })
    };
    api.requests.once("AttachSandboxProvider", &id, request.clone(), Box::pin(call)).await
}

pub(super) async fn detach(
    api: &Api,
    request: Request<v1::DetachSandboxProviderRequest>,
) -> Result<v1::DetachSandboxProviderResponse, Status> {
    let force = Force::of(&request)?;
    let request = request.into_inner();
    scope::one(request.workspace_scope.as_ref())?;
    let id = request.request_id.clone();
    let call = async {
        usable_name("provider", &request.provider)?;
        let (object, change) = api
            .change_sandbox(&request.sandbox, request.expected_resource_version, force, |sandbox| {
                let refs = &mut sandbox.spec.provider_refs;
                let before = refs.len();
                refs.retain(|p| p.name != request.provider);
                Ok(if refs.len() == before { Change::Nothing } else { Change::Write })
            })
            .await?;
        let detached = change == Change::Write;
        Ok(v1::DetachSandboxProviderResponse { sandbox: Some(sandbox::to_wire(&object)), detached, receipt: None })
    };
    api.requests.once("DetachSandboxProvider", &id, request.clone(), Box::pin(call)).await
}
