//! From objects to what is wanted.

use std::fmt::Debug;

use jiff::SignedDuration;
use k8s_openapi::NamespaceResourceScope;
use kube::Resource;
use kube::api::ListParams;
use kube::core::{DeserializeGuard, ObjectMeta};
use openshell_crds::duration::Duration;
use openshell_crds::sandbox::LocalRef;
use openshell_crds::{OpenShellGateway, OpenShellGatewaySpec, OpenShellSandbox};
use serde::de::DeserializeOwned;

use super::watched::Watched;
use super::{ControllerConfig, Shared, api};
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
            match blueprint_of(shared, sandbox, read).await {
                Ok(blueprint) => Intent::Run(Box::new(blueprint)),
                Err(Missing::Refused(refusal)) => Intent::Refused(refusal),
                Err(Missing::Api(error)) => return Err(error),
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

/// Why there is no blueprint.
enum Missing {
    /// The objects make none that this driver can run.
    Refused(Refusal),
    /// The API did not give them.
    Api(kube::Error),
}

impl<E: Into<Refusal>> From<E> for Missing {
    fn from(error: E) -> Self {
        Self::Refused(error.into())
    }
}

/// The blueprint of a sandbox.
async fn blueprint_of(shared: &Shared, sandbox: &OpenShellSandbox, read: Read) -> Result<SandboxBlueprint, Missing> {
    let config = &shared.config;
    let gateway = shared.gateways.find(&config.gateway_name);
    let gateway = BlueprintError::unless_unreadable(gateway.as_deref(), &config.gateway_name)?
        .unwrap_or_else(|| OpenShellGateway::new(&config.gateway_name, OpenShellGatewaySpec::default()));
    let policies = match (&sandbox.spec.policy_ref, &sandbox.spec.policy) {
        (Some(LocalRef { name }), _) => named(config, &shared.policies, read, name).await?.into_iter().collect(),
        (None, Some(_)) => Vec::new(),
        // Any may select it.
        (None, None) => BlueprintError::unless_any_unreadable(&all(config, &shared.policies, read).await?)?,
    };
    let mut providers = Vec::new();
    for LocalRef { name } in &sandbox.spec.provider_refs {
        providers.extend(named(config, &shared.providers, read, name).await?);
    }
    if read == Read::Live && gateway.spec.quotas.sandboxes.is_some() {
        let all = all(config, &shared.sandboxes, read).await?;
        let all: Vec<_> = all.into_iter().filter_map(|sandbox| sandbox.0.ok()).collect();
        blueprint::quota::admit(sandbox, &gateway, &all)?;
    }
    let blueprint = compose(sandbox, &gateway, &policies, &providers)?;
    config.driver.admit(&blueprint)?;
    Ok(blueprint)
}

/// One object by name. That it is not there is for [`compose`] to say.
async fn named<K>(config: &ControllerConfig, seen: &Watched<K>, read: Read, name: &str) -> Result<Option<K>, Missing>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
{
    Ok(match read {
        Read::Seen => BlueprintError::unless_unreadable(seen.find(name).as_deref(), name)?,
        Read::Live => {
            let found = api::<DeserializeGuard<K>>(config).get_opt(name).await.map_err(Missing::Api)?;
            BlueprintError::unless_unreadable(found.as_ref(), name)?
        }
    })
}

/// All that are there.
async fn all<K>(config: &ControllerConfig, seen: &Watched<K>, read: Read) -> Result<Vec<DeserializeGuard<K>>, Missing>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
{
    Ok(match read {
        Read::Seen => seen.store().state().iter().map(|object| DeserializeGuard::clone(object)).collect(),
        Read::Live => api::<DeserializeGuard<K>>(config).list(&ListParams::default()).await.map_err(Missing::Api)?.items,
    })
}
