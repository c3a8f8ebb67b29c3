//! Creating, reading, listing and deleting sandboxes.

use std::collections::BTreeMap;

use kube::ResourceExt as _;
use kube::api::{DeleteParams, ListParams, ObjectMeta};
use openshell_crds::OpenShellSandbox;
use openshell_operator::WORKLOAD_FINALIZER;
use openshell_operator::driver::Cleanup;
use openshell_proto::v1;
use tonic::{Request, Status};

use super::check::{self, Environment};
use super::managed::Force;
use super::objects::{self, usable_name};
use super::{Api, Placement, Workload, names, page, scope};
use crate::convert::meta::{AWAIT_ATTACHMENT, REQUEST_ID};
use crate::convert::sandbox as convert;
use crate::convert::template::{self, Pod};
use crate::errors::{self, Violations};
use crate::limits;

/// Names that are tried before a creation without a name is given up.
const INVENTIONS: u8 = 8;

pub(super) async fn create(api: &Api, request: Request<v1::CreateSandboxRequest>) -> Result<v1::SandboxResponse, Status> {
    let request = request.into_inner();
    let id = request.request_id.clone();
    api.requests.once("CreateSandbox", &id, request.clone(), Box::pin(create_once(api, request))).await
}

async fn create_once(api: &Api, request: v1::CreateSandboxRequest) -> Result<v1::SandboxResponse, Status> {
    scope::one(request.workspace_scope.as_ref())?;
    let wanted = wanted(&request, &api.placement)?;
    // The objects around it are looked at before anything is written: what cannot run is
    // refused now, with its reason, and not found out later by a controller.
    let mut probe = wanted.clone();
    probe.metadata.uid = Some("00000000-0000-0000-0000-000000000000".to_owned());
    probe.metadata.namespace = Some(api.namespace.clone());
    api.admit(&probe, "spec.").await?;
    quota(api).await?;
    let created =
        if request.name.is_empty() { create_unnamed(api, wanted, &request.request_id).await? } else { create_named(api, wanted).await? };
    tracing::info!(sandbox = created.name_any(), uid = created.uid().unwrap_or_default(), "created");
    Ok(response(&created))
}

/// The object that the request asks for, or everything that is wrong with the request.
fn wanted(request: &v1::CreateSandboxRequest, placement: &Placement) -> Result<OpenShellSandbox, Status> {
    let mut v = Violations::default();
    if !request.name.is_empty()
        && let Some(why) = names::wrong(&request.name)
    {
        v.add("name", why);
    }
    check::labels("labels", &request.labels, &mut v);
    check::annotations("annotations", &request.annotations, &mut v);
    if !request.workload_template.is_empty() {
        v.add("workload_template", "templates are not supported by the driver of this gateway; leave it out");
    }
    if !request.service_exposures.is_empty() {
        v.add("service_exposures", "exposing services is not supported yet; leave it out");
    }
    let Some(spec) = &request.spec else {
        v.add("spec", "it is missing; an empty one is enough");
        return Err(v.into_result().expect_err("a violation was just added"));
    };
    not_supported(spec, placement, &mut v);
    let mut pod = Pod::default();
    if placement.workload() == Workload::Pod {
        if let Some(template) = &spec.template {
            pod = template::from_wire(template, &mut v);
        }
        template::gpu_from_wire(spec.resource_requirements.as_ref(), &mut pod, &mut v);
    }
    check::environment("spec.environment", Environment::Sandbox, &spec.environment, &mut v);
    check::command("spec.command", &spec.command, &check::MAIN, &mut v);
    if spec.tty && spec.command.is_empty() {
        v.add("spec.tty", "a terminal is for a main process; give a command as well");
    }
    if spec.providers.len() > limits::PROVIDERS_PER_SANDBOX {
        v.add("spec.providers", format!("{} providers; at most {}", spec.providers.len(), limits::PROVIDERS_PER_SANDBOX));
    }
    for (i, provider) in spec.providers.iter().enumerate() {
        if usable_name("", provider).is_err() {
            v.add(format!("spec.providers[{i}]"), "it is no name of a provider");
        }
    }
    let policy = spec.policy.as_ref().and_then(|p| check::policy("spec.policy", p, &mut v));
    v.into_result()?;

    let mut annotations: BTreeMap<String, String> = request.annotations.clone().into_iter().collect();
    if !request.request_id.is_empty() {
        annotations.insert(REQUEST_ID.to_owned(), request.request_id.clone());
    }
    if request.await_main_process_attachment && !spec.command.is_empty() {
        annotations.insert(AWAIT_ATTACHMENT.to_owned(), "true".to_owned());
    }
    Ok(OpenShellSandbox {
        metadata: ObjectMeta {
            name: Some(request.name.clone()),
            labels: Some(request.labels.clone().into_iter().collect()),
            annotations: Some(annotations),
            ..ObjectMeta::default()
        },
        spec: convert::spec_from_wire(spec, policy.as_ref(), pod),
        status: None,
    })
}

/// What the wire can ask for and a sandbox here cannot have.
fn not_supported(spec: &v1::SandboxSpec, placement: &Placement, v: &mut Violations) {
    let (driver, workload) = (placement.name(), placement.workload());
    let mut refuse = |set: bool, field: &str, why: String| {
        if set {
            v.add(field, why);
        }
    };
    refuse(!spec.log_level.is_empty(), "spec.log_level", "a log level of its own is not supported; leave it out".to_owned());
    refuse(
        !spec.provider_attachment_epoch.is_empty(),
        "spec.provider_attachment_epoch",
        "it is set by the gateway; leave it out".to_owned(),
    );
    refuse(
        workload == Workload::Processes && spec.resource_requirements.as_ref().is_some_and(|r| r.gpu.is_some()),
        template::GPU,
        format!("the {driver} driver gives no GPU; leave it out"),
    );
    let restart = v1::SandboxRestartPolicy::try_from(spec.restart_policy);
    refuse(
        !matches!(restart, Ok(v1::SandboxRestartPolicy::Unspecified | v1::SandboxRestartPolicy::Never)),
        "spec.restart_policy",
        "only NEVER is supported: a main process that ends is not started again".to_owned(),
    );
    let Some(template) = &spec.template else { return };
    refuse(!template.agent_socket.is_empty(), "spec.template.agent_socket", "it is not supported; leave it out".to_owned());
    refuse(!template.environment.is_empty(), "spec.template.environment", "use spec.environment".to_owned());
    for (set, what) in [(!template.labels.is_empty(), "labels"), (!template.annotations.is_empty(), "annotations")] {
        let why = match workload {
            Workload::Processes => format!("there is no pod that would carry them; use the {what} of the request"),
            Workload::Pod => format!("the {driver} driver gives its pods only its own; use the {what} of the request"),
        };
        refuse(set, &format!("spec.template.{what}"), why);
    }
    let namespaces = match workload {
        Workload::Processes => format!("the {driver} driver uses them where it can; leave it out"),
        Workload::Pod => format!("the {driver} driver has no setting for them; leave it out"),
    };
    refuse(template.user_namespaces.is_some(), "spec.template.user_namespaces", namespaces);
    if workload == Workload::Processes {
        let image = format!("the {driver} driver runs the programs of this machine, no images; leave it out");
        refuse(!template.image.is_empty(), "spec.template.image", image);
        let class = format!("the {driver} driver has no runtime classes; leave it out");
        refuse(!template.runtime_class_name.is_empty(), "spec.template.runtime_class_name", class);
        refuse(template.resources.is_some(), "spec.template.resources", format!("the {driver} driver sets no limits; leave it out"));
        refuse(
            template.driver_config.is_some(),
            "spec.template.driver_config",
            format!("the {driver} driver has no settings; leave it out"),
        );
    }
}

async fn quota(api: &Api) -> Result<(), Status> {
    let Some(quota) = api.gateway().await?.spec.quotas.sandboxes else { return Ok(()) };
    let present = api.guarded::<OpenShellSandbox>().list(&ListParams::default()).await.map_err(|e| objects::failed("sandbox", "", e))?;
    if present.items.len() < usize::try_from(quota).unwrap_or(0) {
        return Ok(());
    }
    Err(errors::resource_exhausted(
        "QUOTA_EXCEEDED",
        format!("this gateway allows {quota} sandboxes and there are as many; delete one first"),
    ))
}

async fn create_named(api: &Api, wanted: OpenShellSandbox) -> Result<OpenShellSandbox, Status> {
    let name = wanted.name_any();
    match write(api, &wanted).await? {
        Written::Created(created) => Ok(*created),
        Written::Taken => made_before(api, &wanted).await?.ok_or_else(|| errors::already_exists("sandbox", &name)),
    }
}

async fn create_unnamed(api: &Api, mut wanted: OpenShellSandbox, request_id: &str) -> Result<OpenShellSandbox, Status> {
    let seed: Vec<u8> = if request_id.is_empty() { rand::random::<[u8; 16]>().to_vec() } else { request_id.as_bytes().to_vec() };
    for attempt in 0..INVENTIONS {
        wanted.metadata.name = Some(names::invent(&seed, attempt));
        match write(api, &wanted).await? {
            Written::Created(created) => return Ok(*created),
            Written::Taken => {
                if let Some(found) = made_before(api, &wanted).await? {
                    return Ok(found);
                }
            }
        }
    }
    Err(errors::resource_exhausted("NO_FREE_NAME", "no free name was found; give the sandbox a name"))
}

enum Written {
    Created(Box<OpenShellSandbox>),
    Taken,
}

async fn write(api: &Api, wanted: &OpenShellSandbox) -> Result<Written, Status> {
    let mut object = wanted.clone();
    if api.placement.cleanup() == Cleanup::Finalizer {
        // There from the beginning, the controller need not write it before it starts anything.
        object.metadata.finalizers = Some(vec![WORKLOAD_FINALIZER.to_owned()]);
    }
    match api.objects::<OpenShellSandbox>().create(&objects::post(), &object).await {
        Ok(created) => Ok(Written::Created(Box::new(created))),
        Err(kube::Error::Api(status)) if status.is_already_exists() => Ok(Written::Taken),
        Err(error) => Err(refused(&wanted.name_any(), error)),
    }
}

/// What the API server has against it, with the paths that the request has for it.
fn refused(name: &str, mut error: kube::Error) -> Status {
    if let kube::Error::Api(status) = &mut error {
        for cause in status.details.iter_mut().flat_map(|d| &mut d.causes) {
            cause.field = template::field(&cause.field);
        }
    }
    objects::failed("sandbox", name, error)
}

/// The sandbox of this name, if this very request made it.
async fn made_before(api: &Api, wanted: &OpenShellSandbox) -> Result<Option<OpenShellSandbox>, Status> {
    let Some(id) = wanted.annotations().get(REQUEST_ID) else { return Ok(None) };
    match api.sandbox(&wanted.name_any()).await {
        Ok(found) if found.annotations().get(REQUEST_ID) == Some(id) && found.spec == wanted.spec => Ok(Some(found)),
        Ok(_) => Ok(None),
        // Deleted in between.
        Err(status) if status.code() == tonic::Code::NotFound => Ok(None),
        Err(status) => Err(status),
    }
}

pub(super) fn response(object: &OpenShellSandbox) -> v1::SandboxResponse {
    v1::SandboxResponse { sandbox: Some(convert::to_wire(object)), ..v1::SandboxResponse::default() }
}

pub(super) async fn get(api: &Api, request: Request<v1::GetSandboxRequest>) -> Result<v1::SandboxResponse, Status> {
    let request = request.into_inner();
    scope::one(request.workspace_scope.as_ref())?;
    Ok(response(&api.sandbox(&request.name).await?))
}

pub(super) async fn list(api: &Api, request: Request<v1::ListSandboxesRequest>) -> Result<v1::ListSandboxesResponse, Status> {
    let request = request.into_inner();
    scope::one_or_all(request.workspace_scope.as_ref())?;
    let params = page::params(request.page_size, &request.page_token, &request.label_selector)?;
    let found = api.listed::<OpenShellSandbox>(&params).await;
    let found = found.map_err(|e| match e {
        kube::Error::Api(status) if status.code == 400 && request.page_token.is_empty() => {
            errors::invalid("label_selector", status.message)
        }
        other => page::failed("sandbox", &request.page_token, other),
    })?;
    Ok(v1::ListSandboxesResponse {
        sandboxes: found.items.iter().map(convert::to_wire).collect(),
        next_page_token: page::next(found.metadata.continue_.as_deref(), &request.label_selector),
    })
}

pub(super) async fn delete(api: &Api, request: Request<v1::DeleteSandboxRequest>) -> Result<v1::DeleteSandboxResponse, Status> {
    let force = Force::of(&request)?;
    let request = request.into_inner();
    let id = request.request_id.clone();
    api.requests.once("DeleteSandbox", &id, request.clone(), Box::pin(delete_once(api, request, force))).await
}

async fn delete_once(api: &Api, request: v1::DeleteSandboxRequest, force: Force) -> Result<v1::DeleteSandboxResponse, Status> {
    scope::one(request.workspace_scope.as_ref())?;
    let name = request.name.as_str();
    usable_name("name", name)?;
    let answer = |outcome: v1::DeletionOutcome, sandbox_id: String| v1::DeleteSandboxResponse { outcome: outcome.into(), sandbox_id };
    let params = api.deletion::<OpenShellSandbox>("sandbox", name, force, DeleteParams::default()).await?;
    match api.objects::<OpenShellSandbox>().delete(name, &params).await {
        Ok(gone) => {
            tracing::info!(sandbox = name, "being deleted");
            // Accepted: the driver cleans up in the background, and the object goes when it is
            // done. Completed: nothing held it.
            Ok(gone.either(
                |object| answer(v1::DeletionOutcome::Accepted, object.uid().unwrap_or_default()),
                |status| answer(v1::DeletionOutcome::Completed, status.details.map(|d| d.uid).unwrap_or_default()),
            ))
        }
        Err(kube::Error::Api(status)) if status.is_not_found() && request.allow_missing => {
            Ok(answer(v1::DeletionOutcome::AlreadyAbsent, String::new()))
        }
        Err(error) => Err(objects::failed("sandbox", name, error)),
    }
}

#[cfg(test)]
mod tests;
