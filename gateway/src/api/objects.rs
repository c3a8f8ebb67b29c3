//! Objects of the API server, with its errors as clients of ours see them.

use std::fmt::Debug;

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{DeleteParams, ListParams, ObjectList, Patch, PatchParams, PostParams, Preconditions};
use kube::core::DeserializeGuard;
use kube::{Resource, ResourceExt as _};
use openshell_crds::{OpenShellGateway, OpenShellSandbox, Policy, Provider};
use openshell_operator::blueprint::{self, BlueprintError, Reason, SandboxBlueprint};
use serde::de::DeserializeOwned;
use serde_json::json;
use tonic::Status;

use super::managed::{self, Force};
use super::{Api, FIELD_MANAGER, SUSPEND_MANAGER};
use crate::errors::{self, Violations};
use crate::{convert, limits};

/// What a change function did to an object.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    /// The object is to be written.
    Write,
    /// It already says what was asked for.
    Nothing,
}

/// What `spec.suspend` is to say.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Suspend {
    Yes,
    No,
}

impl Api {
    pub(super) fn objects<K>(&self) -> kube::Api<K>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
    {
        kube::Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// The objects of a kind, each behind a guard: what is stored may be older than its definition.
    pub(super) fn guarded<K>(&self) -> kube::Api<DeserializeGuard<K>>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
    {
        kube::Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// The objects of a kind that can be read. One that cannot hides no other; the operator says on
    /// it what is wrong with it.
    pub(super) async fn listed<K>(&self, params: &ListParams) -> kube::Result<ObjectList<K>>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + Debug + DeserializeOwned,
    {
        let ObjectList { types, metadata, items } = self.guarded::<K>().list(params).await?;
        let readable = |object: DeserializeGuard<K>| match object.0 {
            Ok(object) => Some(object),
            Err(invalid) => {
                tracing::warn!(kind = %K::kind(&()), name = invalid.metadata.name, error = invalid.error, "an object cannot be read and is not listed");
                None
            }
        };
        Ok(ObjectList { types, metadata, items: items.into_iter().filter_map(readable).collect() })
    }

    pub(super) fn secrets(&self) -> kube::Api<Secret> {
        self.objects()
    }

    /// The sandbox of this name.
    pub(super) async fn sandbox(&self, name: &str) -> Result<OpenShellSandbox, Status> {
        usable_name("name", name)?;
        self.objects::<OpenShellSandbox>().get(name).await.map_err(|e| failed("sandbox", name, e))
    }

    /// Writes what `change` makes of the sandbox, over other writers. `expected` is the
    /// resource version that the caller has seen; 0 does not check. What is managed elsewhere is not
    /// written, unless it is forced.
    pub(super) async fn change_sandbox(
        &self,
        name: &str,
        expected: u64,
        force: Force,
        mut change: impl FnMut(&mut OpenShellSandbox) -> Result<Change, Status>,
    ) -> Result<(OpenShellSandbox, Change), Status> {
        let api = self.objects::<OpenShellSandbox>();
        for _ in 0..limits::CONFLICT_RETRIES {
            let mut object = self.living_sandbox(name).await?;
            if expected != 0 && object.resource_version().and_then(|v| v.parse().ok()) != Some(expected) {
                return Err(errors::conflict(format!("sandbox '{name}' has changed since resource version {expected}; read it again")));
            }
            if change(&mut object)? == Change::Nothing {
                return Ok((object, Change::Nothing));
            }
            managed::check("sandbox", name, &object.metadata, force)?;
            // The resource version in it makes this fail when somebody else wrote in between.
            match api.replace(name, &post(), &object).await {
                Ok(written) => return Ok((written, Change::Write)),
                Err(kube::Error::Api(status)) if status.is_conflict() => {}
                Err(error) => return Err(failed("sandbox", name, error)),
            }
        }
        Err(busy(name))
    }

    /// Writes `spec.suspend` and nothing else, under a field manager of its own: whoever manages the
    /// rest of the object keeps it, and does not undo this unless it says something about it, too.
    pub(super) async fn suspend_sandbox(
        &self,
        name: &str,
        suspend: Suspend,
        decide: impl Fn(&OpenShellSandbox) -> Result<Change, Status>,
    ) -> Result<OpenShellSandbox, Status> {
        let api = self.objects::<OpenShellSandbox>();
        // A patch and not an apply: both take over this one field, and a patch does not make a local
        // object one whose managers are kept.
        let params = PatchParams { field_manager: Some(SUSPEND_MANAGER.to_owned()), ..PatchParams::default() };
        for _ in 0..limits::CONFLICT_RETRIES {
            let object = self.living_sandbox(name).await?;
            if decide(&object)? == Change::Nothing {
                return Ok(object);
            }
            let patch = json!({
                "metadata": { "resourceVersion": object.resource_version() },
                "spec": { "suspend": suspend == Suspend::Yes },
            });
            match api.patch(name, &params, &Patch::Merge(&patch)).await {
                Ok(written) => return Ok(written),
                Err(kube::Error::Api(status)) if status.is_conflict() => {}
                Err(error) => return Err(failed("sandbox", name, error)),
            }
        }
        Err(busy(name))
    }

    async fn living_sandbox(&self, name: &str) -> Result<OpenShellSandbox, Status> {
        let object = self.sandbox(name).await?;
        if object.metadata.deletion_timestamp.is_some() {
            return Err(errors::failed_precondition("SANDBOX_DELETING", format!("sandbox '{name}' is being deleted")));
        }
        Ok(object)
    }

    /// `params` for what was looked at: it may be deleted by this API, or it is forced.
    pub(super) async fn deletion<K>(&self, kind: &str, name: &str, force: Force, params: DeleteParams) -> Result<DeleteParams, Status>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + DeserializeOwned + Debug,
    {
        if force == Force::Yes {
            return Ok(params);
        }
        // That it is not there is for the deletion to find out.
        let Some(found) = self.objects::<K>().get_metadata_opt(name).await.map_err(|e| failed(kind, name, e))? else { return Ok(params) };
        if found.metadata.deletion_timestamp.is_none() {
            managed::check(kind, name, &found.metadata, force)?;
        }
        let uid = found.metadata.uid;
        Ok(DeleteParams { preconditions: Some(Preconditions { uid, resource_version: None }), ..params })
    }

    /// Composes what the sandbox would be, from the objects as they are now, and asks the
    /// driver whether it can run it. `field` is the path of the spec in the request.
    pub(super) async fn admit(&self, sandbox: &OpenShellSandbox, field: &str) -> Result<SandboxBlueprint, Status> {
        let list = ListParams::default();
        let policies = if sandbox.spec.policy.is_some() {
            Vec::new()
        } else {
            self.listed::<Policy>(&list).await.map_err(|e| failed("policy", "", e))?.items
        };
        let mut providers = Vec::with_capacity(sandbox.spec.provider_refs.len());
        for reference in &sandbox.spec.provider_refs {
            match self.objects::<Provider>().get_opt(&reference.name).await {
                Ok(found) => providers.extend(found),
                Err(error) => return Err(failed("provider", &reference.name, error)),
            }
        }
        let gateway = self.gateway().await?;
        let blueprint = blueprint::compose(sandbox, &gateway, &policies, &providers).map_err(|e| refused(field, &e))?;
        let bound: Vec<(&str, u16)> =
            blueprint.providers.iter().flat_map(|p| &p.credentials).flat_map(|c| &c.bindings).map(|b| (b.host.as_str(), b.port)).collect();
        let mut violations = Violations::default();
        if let Err(error) = blueprint.policy.check_credentials(&bound) {
            convert::policy::violations(&format!("{field}policy"), &error, &mut violations);
        }
        if let Err(error) = self.placement.admit(&blueprint) {
            let part = if error.code.starts_with("Policy") || error.code.starts_with("RunAs") { "policy" } else { "template" };
            violations.add(format!("{field}{part}"), error.message);
        }
        violations.into_result()?;
        Ok(blueprint)
    }

    /// The gateway's own object.
    pub(super) async fn gateway(&self) -> Result<OpenShellGateway, Status> {
        let name = &self.gateway_name;
        kube::Api::<OpenShellGateway>::namespaced(self.client.clone(), &self.gateway_namespace)
            .get(name)
            .await
            .map_err(|e| failed("gateway", name, e))
    }
}

fn busy(name: &str) -> Status {
    errors::conflict(format!("sandbox '{name}' is being changed by others all the time; try again"))
}

pub(super) fn post() -> PostParams {
    PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() }
}

/// Names become parts of paths: only what a DNS subdomain may hold passes.
pub(super) fn usable_name(field: &str, name: &str) -> Result<(), Status> {
    if name.is_empty() {
        return Err(errors::invalid(field, "it is empty: name an object"));
    }
    let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'.';
    if name.len() > limits::OBJECT_NAME_LENGTH || !name.bytes().all(allowed) || name.starts_with('.') || name.ends_with('.') {
        return Err(errors::invalid(field, "a name has lower-case letters, digits, '-' and '.', and at most 253 of them"));
    }
    Ok(())
}

/// Why the objects do not make a sandbox.
fn refused(field: &str, error: &BlueprintError) -> Status {
    let mut violations = Violations::default();
    match error.reason {
        Reason::PolicyRefused if !error.findings.is_empty() => {
            for finding in &error.findings {
                violations.add(format!("{field}policy.{}", finding.path), finding.message.clone());
            }
        }
        Reason::ProviderNotFound | Reason::ProviderRefused | Reason::ProviderConflict => {
            violations.add(format!("{field}providers"), &error.message);
        }
        Reason::EnvironmentReserved | Reason::EnvironmentInvalid => violations.add(format!("{field}environment"), &error.message),
        Reason::PodInvalid => violations.add(format!("{field}template"), &error.message),
        Reason::QuotaExceeded => return errors::resource_exhausted("QUOTA_EXCEEDED", &error.message),
        Reason::PolicyConflict => return errors::failed_precondition("POLICY_CONFLICT", &error.message),
        Reason::PolicyRefused | Reason::PolicyNotFound | Reason::PolicyAmbiguous | Reason::InvalidObject => {
            violations.add(format!("{field}policy"), &error.message);
        }
    }
    violations.into_result().err().unwrap_or_else(|| errors::internal(&error.message))
}

/// An error of the API server about the object `name`.
pub(super) fn failed(kind: &str, name: &str, error: kube::Error) -> Status {
    match error {
        kube::Error::Api(status) => {
            if status.is_not_found() {
                return errors::not_found(kind, name);
            }
            if status.is_already_exists() {
                return errors::already_exists(kind, name);
            }
            if status.is_conflict() {
                return errors::conflict(format!("{kind} '{name}' was changed by somebody else at the same time; try again"));
            }
            match status.code {
                400 | 422 => {
                    let mut violations = Violations::default();
                    for cause in status.details.iter().flat_map(|d| &d.causes) {
                        violations.add(&cause.field, &cause.message);
                    }
                    violations.into_result().err().unwrap_or_else(|| errors::invalid(kind, &status.message))
                }
                403 => errors::permission_denied("FORBIDDEN", status.message),
                413 => errors::resource_exhausted("TOO_LARGE", status.message),
                507 => errors::resource_exhausted("STORAGE_FULL", status.message),
                429 | 503 => errors::unavailable("STORE_UNAVAILABLE", status.message, std::time::Duration::from_secs(1)),
                _ => errors::internal(format!("the store answered about {kind} '{name}': {}", status.message)),
            }
        }
        other => errors::internal(format!("the store could not be asked about {kind} '{name}': {other}")),
    }
}
