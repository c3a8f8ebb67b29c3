//! The policy controller: is it a policy, and who enforces it?
//!
//! Whether a policy is accepted is said at once. How many sandboxes use it changes with every
//! sandbox; that is counted in one pass for all policies and written at most once a second.

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use futures::stream::{self, BoxStream};
use futures::{FutureExt as _, StreamExt as _};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::Api;
use kube::runtime::controller::Action as Next;
use kube::runtime::reflector::ObjectRef;
use kube::{Resource as _, ResourceExt as _};
use openshell_crds::conditions::{self, Is};
use openshell_crds::policy::SandboxCounts;
use openshell_crds::{OpenShellSandbox, Policy, PolicyStatus};
use tokio_util::sync::CancellationToken;

use super::control::control;
use super::watched::{Guarded, refs};
use super::{Shared, api, status};
use crate::blueprint::{BlueprintError, PolicySource, parse_policy, policy_of};
use crate::limits;

/// What a sandbox does with the policy it uses.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Use {
    /// Hash of the newest revision recorded for it.
    hash: String,
    /// That revision is in force.
    acknowledged: bool,
    /// That revision was refused.
    failed: bool,
}

struct Context {
    api: Api<Guarded<Policy>>,
    shared: Arc<Shared>,
    /// Uses by policy, as last counted.
    uses: ArcSwap<HashMap<String, Vec<Use>>>,
}

/// Runs until shutdown.
pub(super) async fn run(shared: Arc<Shared>, shutdown: CancellationToken) {
    let seen = async { tokio::join!(shared.sandboxes.ready(), shared.policies.ready()) };
    tokio::select! {
        _ = seen => {}
        () = shutdown.cancelled() => return,
    }
    let uses = ArcSwap::from_pointee(count(&shared));
    let context = Arc::new(Context { api: api(&shared.config), uses, shared: Arc::clone(&shared) });
    let queue = stream::select(shared.policies.queue(), recounts(Arc::clone(&context)));
    let work = |object| reconcile(object, Arc::clone(&context));
    control("policy", &shared.config.metrics, &shared.policies, queue, shutdown, work).await;
}

/// Counts again an interval after sandboxes have changed, and gives the policies whose counts differ:
/// a sandbox that is created and takes its policy within that time is one write.
fn recounts(context: Arc<Context>) -> BoxStream<'static, ObjectRef<Guarded<Policy>>> {
    let changes = context.shared.sandboxes.changes().boxed();
    stream::unfold((changes, context), |(mut changes, context)| async move {
        changes.next().await?;
        tokio::time::sleep(limits::USAGE_INTERVAL).await;
        // Whatever has come until now is in this count.
        while let Some(Some(_)) = changes.next().now_or_never() {}
        let now = Arc::new(count(&context.shared));
        let before = context.uses.swap(Arc::clone(&now));
        let changed: Vec<_> =
            refs(context.shared.policies.store()).into_iter().filter(|policy| before.get(&policy.name) != now.get(&policy.name)).collect();
        Some((stream::iter(changed), (changes, context)))
    })
    .flatten()
    .boxed()
}

/// Who uses which policy. Sandboxes that are stopped or going enforce nothing and do not count.
fn count(shared: &Shared) -> HashMap<String, Vec<Use>> {
    let policies = shared.policies.store().state();
    let readable = || policies.iter().filter_map(|policy| policy.0.as_ref().ok());
    let mut uses: HashMap<String, Vec<Use>> = HashMap::new();
    for sandbox in shared.sandboxes.store().state() {
        let Ok(sandbox) = &sandbox.0 else { continue };
        if sandbox.is_suspended() || sandbox.metadata.deletion_timestamp.is_some() {
            continue;
        }
        if let Ok(PolicySource::Referenced(name) | PolicySource::Selected(name)) = policy_of(sandbox, &shared.config.namespace, readable())
        {
            uses.entry(name).or_default().push(use_of(sandbox));
        }
    }
    uses
}

fn use_of(sandbox: &OpenShellSandbox) -> Use {
    let policy = sandbox.status.as_ref().and_then(|status| status.policy.clone()).unwrap_or_default();
    Use {
        acknowledged: policy.acknowledged_revision.is_some_and(|revision| revision == policy.revision),
        failed: policy.error.is_some(),
        hash: policy.hash,
    }
}

async fn reconcile(object: Arc<Guarded<Policy>>, context: Arc<Context>) -> Result<Next, kube::Error> {
    let (name, meta, shared) = (object.name_any(), object.meta(), &context.shared);
    if meta.deletion_timestamp.is_some() {
        return Ok(Next::await_change());
    }
    let (before, parsed) = match &object.0 {
        Ok(policy) => {
            let parsed = parse_policy(&policy.spec.policy.0, "spec.policy").map(|parsed| parsed.hash().to_string());
            (policy.status.clone().unwrap_or_default(), parsed)
        }
        Err(invalid) => {
            let Some(before) = status::unread(&context.api, shared, meta).await? else { return Ok(Next::requeue(limits::RESYNC)) };
            (before, Err(BlueprintError::unreadable("the policy", &invalid.error)))
        }
    };
    let uses = context.uses.load();
    let after = judged(&before, meta.generation, parsed, uses.get(&name).map_or(&[], Vec::as_slice), Timestamp::now());
    Ok(Next::requeue(status::say(&context.api, &shared.events, meta, &before, &after).await?))
}

/// The status of a policy.
fn judged(
    before: &PolicyStatus,
    generation: Option<i64>,
    parsed: Result<String, BlueprintError>,
    uses: &[Use],
    now: Timestamp,
) -> PolicyStatus {
    let mut after = before.clone();
    after.observed_generation = generation;
    let set = |after: &mut PolicyStatus, kind, is, reason: &str, message: &str| {
        conditions::set(&mut after.conditions, conditions::condition(kind, is, reason, message, generation, Time(now)));
    };
    match parsed {
        Ok(hash) => {
            if after.hash.as_deref() != Some(&hash) {
                after.revision = Some(after.revision.unwrap_or_default() + 1);
                after.hash = Some(hash);
            }
            set(&mut after, conditions::ACCEPTED, Is::True, "Accepted", "the policy is valid");
            conditions::remove(&mut after.conditions, conditions::STALLED);
        }
        Err(error) => {
            let before = match after.revision {
                Some(revision) => format!("; revision {revision} stays in force"),
                None => String::new(),
            };
            let message = format!("{}{before}", error.message);
            set(&mut after, conditions::ACCEPTED, Is::False, error.reason.as_str(), &message);
            set(&mut after, conditions::STALLED, Is::True, error.reason.as_str(), &message);
        }
    }
    let current = |of: &&Use| Some(of.hash.as_str()) == after.hash.as_deref();
    let counts = SandboxCounts {
        in_use: bounded(uses.len()),
        acknowledged: bounded(uses.iter().filter(current).filter(|of| of.acknowledged).count()),
        failed: bounded(uses.iter().filter(current).filter(|of| of.failed).count()),
    };
    let waiting = counts.in_use - counts.acknowledged;
    if conditions::is_true(&after.conditions, conditions::ACCEPTED) && waiting == 0 {
        set(&mut after, conditions::PROGRAMMED, Is::True, "Programmed", "every sandbox that uses it enforces it");
        conditions::remove(&mut after.conditions, conditions::RECONCILING);
    } else if conditions::is_true(&after.conditions, conditions::ACCEPTED) {
        let message = format!("{} of {} sandboxes enforce it, {} refused it", counts.acknowledged, counts.in_use, counts.failed);
        set(&mut after, conditions::PROGRAMMED, Is::False, "Pending", &message);
        set(&mut after, conditions::RECONCILING, Is::True, "Pending", &message);
    } else {
        set(&mut after, conditions::PROGRAMMED, Is::False, "NotAccepted", "the newest revision is not accepted and is enforced nowhere");
        conditions::remove(&mut after.conditions, conditions::RECONCILING);
    }
    after.sandboxes = Some(counts);
    after
}

fn bounded(count: usize) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX)
}
