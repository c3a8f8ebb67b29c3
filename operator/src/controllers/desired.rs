//! From objects to what is wanted.

use jiff::SignedDuration;
use k8s_openapi::NamespaceResourceScope;
use kube::Api;
use kube::core::{DeserializeGuard, ObjectMeta};
use openshell_crds::duration::Duration;
use openshell_crds::{OpenShellGateway, OpenShellGatewaySpec, OpenShellSandbox, Policy, Provider};
use serde::de::DeserializeOwned;

use super::{Shared, api};
use crate::blueprint::{self, BlueprintError, SandboxBlueprint, compose};
use crate::driver::WorkloadState;
use crate::reconcile::{Desired, Intent, Lifetime, Refusal};

/// A sandbox object as it was read.
pub(super) struct Subject {
    pub(super) meta: ObjectMeta,
    /// The object, or why it cannot be read.
    pub(super) sandbox: Result<OpenShellSandbox, String>,
}

impl From<DeserializeGuard<OpenShellSandbox>> for Subject {
    fn from(object: DeserializeGuard<OpenShellSandbox>) -> Self {
        match object.0 {
            Ok(sandbox) => Self { meta: sandbox.metadata.clone(), sandbox: Ok(sandbox) },
            Err(invalid) => Self { meta: invalid.metadata, sandbox: Err(invalid.error) },
        }
    }
}

/// Where the other objects are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Read {
    /// As the watches have seen them: for a workload that runs, a change comes as an event.
    Seen,
    /// From the API: what a workload is started from must be what is true now. The watch of
    /// another kind may be behind the sandbox's.
    Live,
}

/// What is wanted of a sandbox.
pub(super) async fn desired(shared: &Shared, subject: &Subject, workload: &WorkloadState) -> Result<Desired, kube::Error> {
    let generation = subject.meta.generation.unwrap_or_default();
    let intent = match &subject.sandbox {
        _ if subject.meta.deletion_timestamp.is_some() => Intent::Remove,
        Err(error) => Intent::Refused(BlueprintError::unreadable("the object", error).into()),
        Ok(sandbox) if sandbox.spec.suspend => Intent::Suspend,
        Ok(sandbox) => {
            let read = match workload {
                WorkloadState::Absent | WorkloadState::Suspended => Read::Live,
                _ => Read::Seen,
            };
            match blueprint_of(shared, sandbox, read).await? {
                Ok(blueprint) => Intent::Run(Box::new(blueprint)),
                Err(refusal) => Intent::Refused(refusal),
            }
        }
    };
    let made_at = subject.meta.creation_timestamp.as_ref().map(|time| time.0);
    Ok(Desired { generation, made_at, intent, lifetime: subject.sandbox.as_ref().map(lifetime).unwrap_or_default() })
}

/// For how long it is wanted. The clock of its age is the API server's, as everybody sees it.
fn lifetime(sandbox: &OpenShellSandbox) -> Lifetime {
    let until = |ttl: &Duration| {
        let ttl = SignedDuration::try_from(ttl.get()).ok()?;
        sandbox.metadata.creation_timestamp.as_ref()?.0.checked_add(ttl).ok()
    };
    Lifetime { until: sandbox.spec.ttl.as_ref().and_then(until), idle: sandbox.spec.idle_timeout.as_ref().map(Duration::get) }
}

/// The blueprint of a sandbox, if its objects make one that this driver can run.
async fn blueprint_of(shared: &Shared, sandbox: &OpenShellSandbox, read: Read) -> Result<Result<SandboxBlueprint, Refusal>, kube::Error> {
    let config = &shared.config;
    let gateway = match shared.gateways.find(&config.gateway_name).as_deref() {
        Some(DeserializeGuard(Ok(gateway))) => gateway.clone(),
        Some(DeserializeGuard(Err(invalid))) => {
            let error = BlueprintError::unreadable_other::<OpenShellGateway>(&config.gateway_name, &invalid.error);
            return Ok(Err(error.into()));
        }
        None => OpenShellGateway::new(&config.gateway_name, OpenShellGatewaySpec::default()),
    };
    let mut unreadable: Vec<BlueprintError> = Vec::new();
    let (policies, providers) = match read {
        Read::Seen => {
            let mut policies = Vec::new();
            let mut providers = Vec::new();
            match &sandbox.spec.policy_ref {
                Some(reference) => sort(shared.policies.find(&reference.name).as_deref(), &reference.name, &mut policies, &mut unreadable),
                None => policies = shared.policies.all(),
            }
            for reference in &sandbox.spec.provider_refs {
                sort(shared.providers.find(&reference.name).as_deref(), &reference.name, &mut providers, &mut unreadable);
            }
            (policies, providers)
        }
        Read::Live => {
            let mut policies = Vec::new();
            let mut providers = Vec::new();
            match (&sandbox.spec.policy, &sandbox.spec.policy_ref) {
                (_, Some(reference)) => take::<Policy>(&api(config), &reference.name, &mut policies, &mut unreadable).await?,
                (None, None) => {
                    let all: Api<DeserializeGuard<Policy>> = api(config);
                    policies = all.list(&kube::api::ListParams::default()).await?.items.into_iter().filter_map(|p| p.0.ok()).collect();
                }
                (Some(_), None) => {}
            }
            for reference in &sandbox.spec.provider_refs {
                take::<Provider>(&api(config), &reference.name, &mut providers, &mut unreadable).await?;
            }
            (policies, providers)
        }
    };
    if let Some(error) = unreadable.into_iter().next() {
        return Ok(Err(error.into()));
    }
    if read == Read::Live && gateway.spec.quotas.sandboxes.is_some() {
        let all: Api<DeserializeGuard<OpenShellSandbox>> = api(config);
        let all: Vec<_> = all.list(&kube::api::ListParams::default()).await?.items.into_iter().filter_map(|s| s.0.ok()).collect();
        if let Err(error) = blueprint::quota::admit(sandbox, &gateway, &all) {
            return Ok(Err(error.into()));
        }
    }
    Ok(compose(sandbox, &gateway, &policies, &providers)
        .map_err(Refusal::from)
        .and_then(|blueprint| config.driver.admit(&blueprint).map_err(Refusal::from).map(|()| blueprint)))
}

/// Reads one object by name. That it is not there is for [`compose`] to say.
async fn take<K>(
    api: &Api<DeserializeGuard<K>>,
    name: &str,
    into: &mut Vec<K>,
    unreadable: &mut Vec<BlueprintError>,
) -> Result<(), kube::Error>
where
    K: kube::Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + std::fmt::Debug + DeserializeOwned,
{
    sort(api.get_opt(name).await?.as_ref(), name, into, unreadable);
    Ok(())
}

fn sort<K>(found: Option<&DeserializeGuard<K>>, name: &str, into: &mut Vec<K>, unreadable: &mut Vec<BlueprintError>)
where
    K: kube::Resource<DynamicType = ()> + Clone,
{
    match found {
        Some(DeserializeGuard(Ok(object))) => into.push(object.clone()),
        Some(DeserializeGuard(Err(invalid))) => {
            unreadable.push(BlueprintError::unreadable_other::<K>(name, &invalid.error));
        }
        None => {}
    }
}
