//! What a supervisor is told: the blueprint of its sandbox, and the values of its credentials.
//!
//! The blueprint is composed from the same objects by the same function as the operator's. Three
//! things are decided here:
//!
//! * *A credential that is taken away is gone.* A sandbox that runs loses the values of a Secret that was
//!   deleted, or is not ours any more, and what a Provider brought that was deleted; its placeholders
//!   stand for nothing then, whatever became of its policy. One that cannot be read at the moment is not
//!   deleted: what the supervisor has stays.
//! * *Credentials wait for enforcement.* Until the supervisor has reported what its kernel
//!   holds, it gets placeholders and no values, and is told to hold the agent back. Where the
//!   agent could read the supervisor's secrets, it never gets any.
//! * *A running sandbox keeps its static part.* A policy whose filesystem, process or Landlock
//!   part cannot be changed on a running sandbox is recorded and shown, and not pushed: the
//!   revision in force goes on, and everything else of the configuration stays current.

use std::{collections::HashMap, sync::Arc};

use k8s_openapi::api::core::v1::Secret;
use kube::{Api, Resource as _, ResourceExt as _, runtime::reflector::ObjectRef};
use openshell_crds::{
    OpenShellGateway, OpenShellSandbox, Policy, Provider, policy::PolicyDocument, provider::SecretKeyRef, sandbox::LocalRef,
};
use openshell_operator::{
    api::{SecretBytes, SecretError},
    blueprint::{self, BlueprintError, CredentialBinding, SandboxBlueprint},
    revisions::{self, Numbered},
};
use openshell_proto::supervisor::{self, Config, Credential, MainCommand};
use sha2::{Digest as _, Sha256};

use super::{
    HubConfig, Inner,
    sandbox::{Problem, Revision, Task},
    watch::Own,
};

/// On a sandbox: hold the main process until someone attaches.
const AWAIT_ATTACHMENT: &str = "openshell.ai/await-attachment";

/// Reason of a configuration that lacks a credential, or is not made for want of one.
const CREDENTIAL_UNAVAILABLE: &str = "CredentialUnavailable";

/// Reason of a reduced level at which the agent could read what the supervisor holds.
const SECRETS_READABLE: &str = "secrets-readable";

/// Why there is no configuration.
pub(super) enum Failure {
    /// The objects do not make one.
    Problem(Problem),
    /// The sandbox is not there.
    Absent,
}

impl From<BlueprintError> for Problem {
    fn from(error: BlueprintError) -> Self {
        Self { reason: error.reason.as_str().to_owned(), message: error.message }
    }
}

impl From<BlueprintError> for Failure {
    fn from(error: BlueprintError) -> Self {
        Self::Problem(error.into())
    }
}

/// What a sandbox shall be, with its policy recorded.
pub(super) struct Prepared {
    sandbox: Arc<OpenShellSandbox>,
    blueprint: SandboxBlueprint,
    /// The revision to push: the newest, or the one in force where the newest has to wait.
    revision: Revision,
    /// Why it is not what the objects ask for.
    problem: Option<Problem>,
}

/// Composes the blueprint and records its policy. Needs no session: when the supervisor comes,
/// this is done.
pub(super) async fn prepare(task: &mut Task, held: Held) -> Result<Prepared, Failure> {
    let sandbox = task.sandbox().ok_or(Failure::Absent)?;
    let inner = Arc::clone(&task.inner);
    let (gateway, policies, providers) = (gateway(&inner)?, policies(&inner, &sandbox), providers(&inner, &sandbox)?);
    let blueprint = match policies.and_then(|policies| blueprint::compose(&sandbox, &gateway, &policies, &providers)) {
        Ok(blueprint) => blueprint,
        // It has what another gateway pushed, and may have what is gone since.
        Err(error) if held == Held::Something && task.pushed.is_none() => {
            let rest = task.in_force.clone().and_then(|in_force| {
                let rest = rest(&sandbox, &in_force, &providers)?;
                Some((blueprint::compose(&rest, &gateway, &[], &providers).ok()?, in_force))
            });
            let Some((blueprint, revision)) = rest else { return Err(error.into()) };
            return Ok(Prepared { sandbox, blueprint, revision, problem: Some(error.into()) });
        }
        Err(error) => return Err(error.into()),
    };
    let newest = newest(task, &inner, &sandbox, &blueprint).await?;
    task.known_policy = Some(newest.clone());
    // Of a sandbox that was stopped nothing runs that could differ: it starts under the newest.
    let runs = !sandbox.is_suspended() || task.session().is_some();
    let revision = match &task.in_force {
        Some(in_force) if runs && in_force.number != newest.number => match in_force.policy.check_live_change(&newest.policy) {
            Ok(()) => {
                task.held_back = None;
                newest
            }
            Err(error) => {
                let why = format!(
                    "revision {} cannot be applied to the running sandbox: {error}; it is applied when the sandbox is stopped and started",
                    newest.number
                );
                task.refuse_revision(newest.number, &why);
                task.held_back = Some(why);
                in_force.clone()
            }
        },
        _ => {
            task.held_back = None;
            newest
        }
    };
    Ok(Prepared { sandbox, blueprint, revision, problem: None })
}

/// The sandbox under the policy that it enforces, without providers that are gone.
fn rest(sandbox: &OpenShellSandbox, in_force: &Revision, providers: &[Provider]) -> Option<OpenShellSandbox> {
    let mut rest = sandbox.clone();
    rest.spec.provider_refs.retain(|reference| providers.iter().any(|provider| provider.name_any() == reference.name));
    let policy = serde_json::from_slice(&in_force.policy.canonical_json()).ok()?;
    (rest.spec.policy_ref, rest.spec.policy) = (None, Some(PolicyDocument(policy)));
    Some(rest)
}

fn gateway(inner: &Inner) -> Result<Arc<OpenShellGateway>, BlueprintError> {
    let name = &inner.config.gateway_name;
    match &*inner.objects.gateway.borrow() {
        Own::Readable(gateway) => Ok(Arc::clone(gateway)),
        // Nothing is defaulted.
        Own::NotYet | Own::Absent => Ok(Arc::new(OpenShellGateway::new(name, openshell_crds::OpenShellGatewaySpec::default()))),
        // What it demands of sandboxes is not known, so none is configured.
        Own::Unreadable(error) => Err(BlueprintError::unreadable_other::<OpenShellGateway>(name, error)),
    }
}

/// The policies that can concern the sandbox: the one it names, or those that select.
fn policies(inner: &Inner, sandbox: &OpenShellSandbox) -> Result<Vec<Policy>, BlueprintError> {
    let all = &inner.objects.policies;
    match (&sandbox.spec.policy_ref, &sandbox.spec.policy) {
        (Some(LocalRef { name }), _) => {
            let found = all.get(&ObjectRef::new(name).within(&inner.config.namespace));
            Ok(BlueprintError::unless_unreadable(found.as_deref(), name)?.into_iter().collect())
        }
        (None, Some(_)) => Ok(Vec::new()),
        // Any may select it.
        (None, None) => BlueprintError::unless_any_unreadable(all.state().iter().map(Arc::as_ref)),
    }
}

fn providers(inner: &Inner, sandbox: &OpenShellSandbox) -> Result<Vec<Provider>, BlueprintError> {
    let get = |LocalRef { name }: &LocalRef| {
        let found = inner.objects.providers.get(&ObjectRef::new(name).within(&inner.config.namespace));
        BlueprintError::unless_unreadable(found.as_deref(), name).transpose()
    };
    sandbox.spec.provider_refs.iter().filter_map(get).collect()
}

/// The newest revision of the policy, recorded if it is new.
async fn newest(task: &Task, inner: &Inner, sandbox: &OpenShellSandbox, blueprint: &SandboxBlueprint) -> Result<Revision, Failure> {
    if let Some(known) = task.known_policy.as_ref().filter(|known| known.hash == blueprint.policy_hash) {
        return Ok(known.clone());
    }
    let of = |numbered: Numbered| Revision {
        number: numbered.number,
        hash: blueprint.policy_hash.clone(),
        policy: Arc::new(blueprint.policy.clone()),
        recorded: numbered.recorded,
    };
    let said = sandbox.status.as_ref().and_then(|status| status.policy.as_ref());
    if let Some(said) = said.filter(|said| said.hash == blueprint.policy_hash.as_str()) {
        return Ok(of(Numbered { number: said.revision, recorded: said.document.is_none() }));
    }
    // What was the first until now may not have come to the status yet.
    let first = task.known_policy.as_ref().filter(|known| !known.recorded);
    let first = first.and_then(|known| revisions::Revision::of(known.number, &known.policy).ok());
    let first = first.or_else(|| revisions::kept(sandbox));
    let (json, hash) = (blueprint.policy.canonical_json(), blueprint.policy_hash.as_str());
    let numbered = revisions::record(&inner.config.client, sandbox, first.as_ref(), &json, hash).await;
    numbered.map(of).map_err(|error| Failure::Problem(Problem { reason: "RevisionNotRecorded".to_owned(), message: error.to_string() }))
}

/// The revision with this hash: what a supervisor says it enforces.
pub(super) async fn recall(task: &mut Task, hash: &str) -> Option<Revision> {
    // Without it nothing is held back here; the supervisor refuses by itself what it cannot apply.
    let sandbox = task.sandbox()?;
    let recorded = revisions::list(&task.inner.config.client, &sandbox)
        .await
        .inspect_err(|error| tracing::warn!(sandbox = task.uid, %error, "what the supervisor enforces could not be looked up"))
        .ok()?;
    let found = recorded.into_iter().rev().find(|r| r.hash == hash)?;
    let policy = openshell_policy::from_value(&found.policy).ok()?;
    Some(Revision { number: found.number, hash: policy.hash(), policy: Arc::new(policy), recorded: true })
}

/// Whether a supervisor has a configuration: what it has, it keeps until it gets another one.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Held {
    Nothing,
    Something,
}

/// A configuration, and what is missing from it.
pub(super) struct Composed {
    pub(super) config: Config,
    /// Why it is not what the objects ask for.
    pub(super) problem: Option<Problem>,
}

/// Why a credential is not given.
enum Unusable {
    /// There is none: whoever has had it must not have it any longer.
    Revoked(Problem),
    /// It cannot be told at the moment.
    Unknown(Problem),
}

fn revoked(message: String) -> Unusable {
    Unusable::Revoked(Problem { reason: CREDENTIAL_UNAVAILABLE.to_owned(), message })
}

fn unknown(message: String) -> Unusable {
    Unusable::Unknown(Problem { reason: CREDENTIAL_UNAVAILABLE.to_owned(), message })
}

/// Whether values may go to the supervisor.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Release {
    /// What its kernel holds is not known yet.
    Wait,
    Give,
    /// The agent could read them.
    Withhold,
}

/// The configuration, without its revision number. A supervisor that has none yet gets it only whole.
pub(super) async fn config(task: &Task, prepared: Prepared, held: Held) -> Result<Composed, Failure> {
    let Prepared { sandbox, blueprint, revision, mut problem } = prepared;
    let inner = &task.inner;
    let release = match &task.enforcement {
        None => Release::Wait,
        Some(report) if report.reasons.iter().any(|r| r == SECRETS_READABLE) => Release::Withhold,
        Some(_) => Release::Give,
    };
    let mut environment: HashMap<String, String> = blueprint.environment().into_iter().collect();
    let mut credentials = Vec::new();
    let mut values = Values::default();
    let mut withheld = false;
    for provider in &blueprint.providers {
        for binding in &provider.credentials {
            let found = match placeholder(inner, binding).await {
                Ok(placeholder) if release == Release::Give => {
                    values.get(inner, &provider.provider, binding).await.map(|value| (placeholder, Some(value)))
                }
                Ok(placeholder) => Ok((placeholder, None)),
                Err(unusable) => Err(unusable),
            };
            let (placeholder, value) = match found {
                Ok(found) => found,
                Err(Unusable::Revoked(why)) if held == Held::Something => {
                    problem.get_or_insert(why);
                    continue;
                }
                Err(Unusable::Revoked(why) | Unusable::Unknown(why)) => return Err(Failure::Problem(why)),
            };
            environment.insert(binding.env.clone(), placeholder.clone());
            if let Some(value) = value {
                credentials.push(Credential {
                    env: binding.env.clone(),
                    placeholder,
                    value,
                    bindings: binding
                        .bindings
                        .iter()
                        .map(|b| supervisor::CredentialBinding { host: b.host.clone(), port: u32::from(b.port), path: b.path.clone() })
                        .collect(),
                    provider: provider.provider.clone(),
                    expires: None,
                });
            } else {
                withheld = true;
            }
        }
    }
    let config = Config {
        revision: 0,
        policy_json: revision.policy.canonical_json(),
        policy_hash: revision.hash.to_string(),
        policy_version: u32::try_from(revision.number).unwrap_or(u32::MAX),
        environment,
        credentials,
        main: Some(MainCommand {
            command: blueprint.command,
            tty: blueprint.tty,
            await_attach: sandbox.annotations().get(AWAIT_ATTACHMENT).is_some_and(|v| v == "true"),
            ..MainCommand::default()
        }),
        require_full_enforcement: blueprint.require_full,
        host_aliases: HashMap::new(),
        forbidden_destinations: forbidden(&inner.config),
        await_enforcement: withheld && release == Release::Wait,
    };
    Ok(Composed { config, problem })
}

/// A configuration that stays although its objects make none any more: but for the credentials whose
/// Provider or Secret is gone.
pub(super) async fn still_given(task: &mut Task, mut config: Config) -> Config {
    let Some(sandbox) = task.sandbox() else { return config };
    let mut values = Values::default();
    let mut kept = Vec::with_capacity(config.credentials.len());
    for credential in std::mem::take(&mut config.credentials) {
        if is_given(&task.inner, &mut values, &sandbox, &credential).await {
            kept.push(credential);
        } else {
            config.environment.remove(&credential.env);
        }
    }
    config.credentials = kept;
    config
}

async fn is_given(inner: &Inner, values: &mut Values, sandbox: &OpenShellSandbox, credential: &Credential) -> bool {
    let name = &credential.provider;
    let provider = inner.objects.providers.get(&ObjectRef::new(name).within(&inner.config.namespace));
    let Some(provider) = provider.filter(|_| sandbox.spec.provider_refs.iter().any(|reference| reference.name == *name)) else {
        return false;
    };
    // Of one that cannot be read nothing is known.
    let Ok(provider) = &provider.0 else { return true };
    let Some(source) = provider.spec.credentials.iter().find(|source| source.name == credential.env) else { return false };
    let SecretKeyRef { name: secret_name, key: secret_key } = source.secret_key_ref.clone();
    let binding = CredentialBinding { env: credential.env.clone(), secret_name, secret_key, bindings: Vec::new() };
    match placeholder(inner, &binding).await {
        Ok(placeholder) if placeholder == credential.placeholder => {
            !matches!(values.get(inner, name, &binding).await, Err(Unusable::Revoked(_)))
        }
        Ok(_) | Err(Unusable::Revoked(_)) => false,
        Err(Unusable::Unknown(_)) => true,
    }
}

/// What no policy can grant, as it is now.
fn forbidden(config: &HubConfig) -> Vec<String> {
    let elsewhere = config.places.as_ref().map(|places| places.borrow().clone()).unwrap_or_default();
    config.forbidden_destinations.iter().cloned().chain(elsewhere).collect()
}

/// What the agent sees instead of the value. The number stands for the Secret, not for its
/// present value: a running agent's placeholder goes on working when the value is rotated, and
/// ends when the Secret is replaced by another.
async fn placeholder(inner: &Inner, binding: &CredentialBinding) -> Result<String, Unusable> {
    let (name, namespace) = (&binding.secret_name, &inner.config.namespace);
    let uid = match inner.objects.secrets.get(&ObjectRef::new(name).within(namespace)) {
        Some(secret) => secret.meta().uid.clone(),
        // The watch may be behind the provider that names it.
        None => Api::<Secret>::namespaced(inner.config.client.clone(), namespace)
            .get_opt(name)
            .await
            .map_err(|error| unknown(format!("the Secret {name} cannot be read: {error}")))?
            .and_then(|secret| secret.metadata.uid),
    };
    let uid = uid.ok_or_else(|| revoked(format!("the Secret {name} for {} does not exist", binding.env)))?;
    let digest = Sha256::digest(uid.as_bytes());
    let number = u32::from_be_bytes([digest[0], digest[1], digest[2], digest[3]]);
    Ok(format!("openshell:resolve:env:v{number}_{}", binding.env))
}

/// Each Secret is read once per configuration.
#[derive(Default)]
struct Values(HashMap<String, std::collections::BTreeMap<String, SecretBytes>>);

impl Values {
    async fn get(&mut self, inner: &Inner, provider: &str, binding: &CredentialBinding) -> Result<String, Unusable> {
        let says = |why: String| format!("provider {provider}: {}: {why}", binding.env);
        if !self.0.contains_key(&binding.secret_name) {
            let read = inner.config.secrets.read(&inner.config.namespace, &binding.secret_name).await;
            let values = read.map_err(|error| match error {
                SecretError::NotFound { .. } | SecretError::NotLabelled { .. } => revoked(says(error.to_string())),
                SecretError::Failed { .. } => unknown(says(error.to_string())),
            })?;
            self.0.insert(binding.secret_name.clone(), values);
        }
        let value = self.0.get(&binding.secret_name).and_then(|keys| keys.get(&binding.secret_key));
        let missing = || revoked(says(format!("the Secret {} has no key {}", binding.secret_name, binding.secret_key)));
        let text = value.ok_or_else(missing)?.expose_str().ok_or_else(|| revoked(says("the value is not text".to_owned())))?;
        Ok(text.to_owned())
    }
}
