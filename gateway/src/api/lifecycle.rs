//! Stopping and starting sandboxes: `spec.suspend`, and the controllers do the rest.
//!
//! Always allowed, whoever manages the object: whether a sandbox runs now is not what it is. One that
//! was suspended because nothing happened in it is not stopped in its spec: it is woken (adr/0007).

use kube::ResourceExt as _;
use openshell_proto::v1::{self, SandboxPhase};
use tonic::{Request, Status};

use super::objects::{self, Change, Suspend};
use super::sandboxes::response;
use super::{Api, scope};
use crate::convert::sandbox::phase;
use crate::errors;

pub(super) async fn stop(api: &Api, request: Request<v1::StopSandboxRequest>) -> Result<v1::SandboxResponse, Status> {
    let request = request.into_inner();
    scope::one(request.workspace_scope.as_ref())?;
    let id = request.request_id.clone();
    let call = async {
        let object = api
            .suspend_sandbox(&request.name, Suspend::Yes, |sandbox| match phase(sandbox) {
                SandboxPhase::Ready | SandboxPhase::Completed => Ok(Change::Write),
                SandboxPhase::Stopping | SandboxPhase::Stopped => Ok(Change::Nothing),
                other => Err(refused(&request.name, "stopped", other)),
            })
            .await?;
        Ok(response(&object))
    };
    api.requests.once("StopSandbox", &id, request.clone(), Box::pin(call)).await
}

pub(super) async fn start(api: &Api, request: Request<v1::StartSandboxRequest>) -> Result<v1::SandboxResponse, Status> {
    let request = request.into_inner();
    scope::one(request.workspace_scope.as_ref())?;
    let id = request.request_id.clone();
    let call = async {
        let object = api
            .suspend_sandbox(&request.name, Suspend::No, |sandbox| match phase(sandbox) {
                SandboxPhase::Stopped if sandbox.spec.suspend => Ok(Change::Write),
                SandboxPhase::Stopped | SandboxPhase::Starting | SandboxPhase::Ready => Ok(Change::Nothing),
                other => Err(refused(&request.name, "started", other)),
            })
            .await?;
        let asleep = phase(&object) == SandboxPhase::Stopped && !object.spec.suspend && object.is_suspended();
        let Some(uid) = object.uid().filter(|_| asleep) else { return Ok(response(&object)) };
        api.hub.wake(&uid).await.map_err(|e| objects::failed("sandbox", &request.name, e))?;
        Ok(response(&api.sandbox(&request.name).await?))
    };
    api.requests.once("StartSandbox", &id, request.clone(), Box::pin(call)).await
}

fn refused(name: &str, what: &str, phase: SandboxPhase) -> Status {
    let word = phase.as_str_name().trim_start_matches("SANDBOX_PHASE_").to_ascii_lowercase();
    let next = match phase {
        SandboxPhase::Error => "its conditions say why; delete it and create another",
        SandboxPhase::Provisioning | SandboxPhase::Starting | SandboxPhase::Stopping => "wait until it is ready or stopped",
        SandboxPhase::Completed => "its main process has ended; stop it first, or create another",
        _ => "create another sandbox",
    };
    errors::failed_precondition("WRONG_PHASE", format!("sandbox '{name}' cannot be {what} while it is {word}: {next}"))
}
