//! The sandbox controller: observe, compose, plan, act, say.
//!
//! What is started is started from an object that was read afresh: after the finalizer was put
//! on it under its resource version, or by a read that found it there. An object in a watch's
//! store may have been deleted, finalizer and all, a moment ago.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::{self, BoxStream};
use jiff::Timestamp;
use kube::ResourceExt as _;
use kube::api::{Api, DeleteParams, Preconditions};
use kube::runtime::controller::Action as Next;
use kube::runtime::reflector::ObjectRef;
use openshell_crds::{OpenShellSandbox, OpenShellSandboxStatus};
use parking_lot::Mutex;
use serde_json::{Map, Value};
use tokio_util::sync::CancellationToken;

use super::control::control;
use super::desired::{Subject, desired};
use super::events::{Tells, Turn};
use super::status::{self, Written};
use super::watched::{Changed, Guarded};
use super::{Shared, api};
use crate::WORKLOAD_FINALIZER;
use crate::driver::{Cleanup, DriverError, Retry};
use crate::failpoint;
use crate::limits;
use crate::reconcile::{Action, Hold, Observed, plan};

/// What the reconciler needs at hand.
struct Context {
    shared: Arc<Shared>,
    api: Api<Guarded<OpenShellSandbox>>,
    /// UIDs and names, for what the driver tells and for what is gone.
    names: Mutex<Names>,
    /// What we wrote last, by UID, until the watch has it too: what is decided from before that is a
    /// conflict.
    written: Mutex<HashMap<String, Guarded<OpenShellSandbox>>>,
}

impl Context {
    /// The object as the watch has it, or as we wrote it after that.
    fn latest(&self, uid: &str, seen: &Guarded<OpenShellSandbox>) -> Guarded<OpenShellSandbox> {
        let mut written = self.written.lock();
        match written.get(uid) {
            Some(newer) if version(newer) > version(seen) => newer.clone(),
            Some(_) => {
                written.remove(uid);
                seen.clone()
            }
            None => seen.clone(),
        }
    }
}

/// Resource versions of one API server grow (KEP-5504).
fn version(object: &Guarded<OpenShellSandbox>) -> Option<u64> {
    object.resource_version()?.parse().ok()
}

/// Which sandboxes there are, by UID and by name.
#[derive(Default)]
struct Names {
    by_uid: HashMap<String, String>,
    by_name: HashMap<String, String>,
    /// UIDs whose name another sandbox has now.
    replaced: Vec<String>,
}

impl Names {
    fn insert(&mut self, uid: &str, name: &str) {
        if self.by_uid.get(uid).is_none_or(|known| known != name) {
            self.by_uid.insert(uid.to_owned(), name.to_owned());
        }
        if self.by_name.get(name).is_none_or(|known| known != uid) {
            self.replaced.extend(self.by_name.insert(name.to_owned(), uid.to_owned()));
        }
    }

    fn remove(&mut self, uid: &str) {
        if let Some(name) = self.by_uid.remove(uid)
            && self.by_name.get(&name).is_some_and(|known| known == uid)
        {
            self.by_name.remove(&name);
        }
    }
}

/// A reconcile that has to be tried again.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("the API: {0}")]
    Api(#[from] Box<kube::Error>),
    #[error("the driver: {0}")]
    Driver(#[from] DriverError),
    #[error("the object does not fit its definition, and takes no finalizer: {0}")]
    Refused(String),
    #[error("the object was changed by others faster than its status could be written")]
    Contended,
}

impl From<kube::Error> for Error {
    fn from(error: kube::Error) -> Self {
        Self::Api(Box::new(error))
    }
}

/// Runs until shutdown.
pub(super) async fn run(shared: Arc<Shared>, shutdown: CancellationToken) {
    let context =
        Arc::new(Context { api: api(&shared.config), names: Mutex::default(), written: Mutex::default(), shared: Arc::clone(&shared) });
    let queue = triggers(&context);
    // What a sandbox is composed from must have been seen before the first one is.
    let seen = async {
        shared.policies.ready().await;
        shared.providers.ready().await;
        shared.gateways.ready().await;
    };
    tokio::select! {
        () = seen => {}
        () = shutdown.cancelled() => return,
    }
    tokio::spawn(end_the_gone(Arc::clone(&context), shutdown.clone()));
    let work = |object| reconcile(object, Arc::clone(&context));
    control("sandbox", &shared.config.metrics, &shared.sandboxes, queue, shutdown, work).await;
}

/// Has the workloads of sandboxes that are gone ended at once, where nothing holds the object
/// until they are. Garbage collection would do it too, later and with the pod's whole grace
/// period; so what fails here is not tried again.
async fn end_the_gone(context: Arc<Context>, shutdown: CancellationToken) {
    let shared = &context.shared;
    if shared.config.driver.capabilities().cleanup != Cleanup::OwnerReferences {
        return;
    }
    let driver = &shared.config.driver;
    shared
        .sandboxes
        .changes()
        .take_until(shutdown.cancelled_owned())
        .flat_map(|changed| stream::iter(gone(&context, &changed)))
        .for_each_concurrent(usize::from(limits::RECONCILE_CONCURRENCY), |uid| async move {
            if let Err(error) = driver.delete(&uid).await {
                tracing::warn!(sandbox = uid, %error, "the workload of a deleted sandbox is left to garbage collection");
            }
        })
        .await;
}

/// UIDs of sandboxes that were there and are not any more.
fn gone(context: &Context, changed: &Changed) -> Vec<String> {
    let store = context.shared.sandboxes.store();
    let namespace = &context.shared.config.namespace;
    let there = |name: &str| store.get(&ObjectRef::new(name).within(namespace)).and_then(|object| object.uid());
    let mut names = context.names.lock();
    let of = |name: &String, uid: &String| there(name).is_none_or(|now| now != *uid).then(|| uid.clone());
    let mut gone: Vec<String> = match changed {
        Changed::One(name) => names.by_name.get(name).and_then(|uid| of(name, uid)).into_iter().collect(),
        Changed::All => names.by_uid.iter().filter_map(|(uid, name)| of(name, uid)).collect(),
    };
    gone.append(&mut names.replaced);
    for uid in &gone {
        names.remove(uid);
        context.written.lock().remove(uid);
    }
    gone
}

/// Everything that can concern a sandbox.
fn triggers(context: &Arc<Context>) -> BoxStream<'static, ObjectRef<Guarded<OpenShellSandbox>>> {
    let shared = &context.shared;
    let own = shared.sandboxes.queue();
    let of_policies = shared.sandboxes.concerned(shared.policies.changes(), |changed, sandbox| match changed {
        _ if sandbox.spec.policy.is_some() => false,
        Changed::All => true,
        Changed::One(name) => sandbox.spec.policy_ref.as_ref().is_none_or(|reference| reference.name == *name),
    });
    let of_providers = shared.sandboxes.concerned(shared.providers.changes(), |changed, sandbox| match changed {
        Changed::All => !sandbox.spec.provider_refs.is_empty(),
        Changed::One(name) => sandbox.spec.provider_refs.iter().any(|reference| reference.name == *name),
    });
    let gateway = shared.config.gateway_name.clone();
    let of_gateways = shared.sandboxes.concerned(shared.gateways.changes(), move |changed, _| {
        matches!(changed, Changed::All) || *changed == Changed::One(gateway.clone())
    });
    let names = Arc::clone(context);
    let of_driver = shared
        .config
        .driver
        .watch()
        .filter_map(move |uid| {
            let name = names.names.lock().by_uid.get(&uid).cloned();
            let namespace = names.shared.config.namespace.clone();
            async move { name.map(|name| ObjectRef::new(&name).within(&namespace)) }
        })
        .boxed();
    stream::select_all([own, of_policies, of_providers, of_gateways, of_driver]).boxed()
}

/// Brings one sandbox a step nearer to what is wanted.
async fn reconcile(object: Arc<Guarded<OpenShellSandbox>>, context: Arc<Context>) -> Result<Next, Error> {
    let name = object.name_any();
    let Some(uid) = object.uid() else { return Ok(Next::await_change()) };
    context.names.lock().insert(&uid, &name);
    let mut attempt =
        Attempt { context: &context, name: &name, uid: &uid, subject: Subject::from(context.latest(&uid, &object)), fresh: Fresh::No };
    let Some(next) = attempt.run().await? else {
        context.written.lock().remove(&uid);
        if context.shared.config.driver.capabilities().cleanup == Cleanup::Finalizer {
            context.names.lock().remove(&uid);
        }
        return Ok(Next::await_change());
    };
    Ok(next)
}

/// Whether the object at hand was read for this attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fresh {
    Yes,
    No,
}

/// One reconcile of one sandbox.
struct Attempt<'a> {
    context: &'a Context,
    name: &'a str,
    uid: &'a str,
    subject: Subject,
    fresh: Fresh,
}

/// What came of an action.
enum Outcome {
    /// It is done or under way.
    Done,
    /// The object has changed; plan again.
    Changed,
    /// The object is gone.
    Gone,
}

impl Attempt<'_> {
    /// `None`: the object is gone.
    async fn run(&mut self) -> Result<Option<Next>, Error> {
        let driver = &self.context.shared.config.driver;
        let mut done: Vec<Action> = Vec::new();
        let mut failure: Option<DriverError> = None;
        let mut seen = None;
        for _ in 0..limits::STATUS_ATTEMPTS {
            let workload = match seen.take() {
                Some(workload) => workload,
                None => driver.observe(self.uid).await?,
            };
            let Some(observed) = self.observed(workload, failure.clone()).await? else { return Ok(Some(Next::requeue(limits::RESYNC))) };
            let desired = desired(&self.context.shared, &self.subject, &observed.workload).await?;
            let plan = plan(&desired, &observed, Timestamp::now());
            let repeated = plan.actions == done;
            if failure.is_none() && !plan.actions.is_empty() && !repeated {
                if self.fresh == Fresh::No && plan.actions.iter().any(|action| matches!(action, Action::Ensure(_))) {
                    if !self.read_again().await? {
                        return Ok(None);
                    }
                    // The driver looks again before it starts anything.
                    seen = Some(observed.workload);
                    continue;
                }
                match self.carry_out(&plan.actions).await? {
                    (Outcome::Gone, _) => return Ok(None),
                    (Outcome::Changed, _) => {
                        if !self.read_again().await? {
                            return Ok(None);
                        }
                    }
                    (Outcome::Done, failed) => {
                        failure = failed;
                        done = plan.actions;
                    }
                }
                continue;
            }
            let said = self.say(&observed.status, &plan.status).await?;
            match said {
                Said::Conflict => {
                    if !self.read_again().await? {
                        return Ok(None);
                    }
                    continue;
                }
                Said::Gone => return Ok(None),
                Said::Done | Said::Refused => {}
            }
            return match failure {
                Some(failure) if failure.retry == Retry::Later => Err(failure.into()),
                // What the plan counts from its status is not there: it would be due again at once.
                _ if said == Said::Refused => Ok(Some(Next::requeue(limits::BACKOFF_LONGEST))),
                // An action that has to be repeated (a start that came to nothing) is not
                // repeated at once.
                _ if repeated && !plan.actions.is_empty() && plan.recheck_at.is_none() => Ok(Some(Next::requeue(limits::BACKOFF_FIRST))),
                _ => Ok(Some(Next::requeue(pause_until(plan.recheck_at)))),
            };
        }
        Err(Error::Contended)
    }

    /// Reads the object again; false if it is gone or another one has its name.
    async fn read_again(&mut self) -> Result<bool, Error> {
        match self.context.api.get_opt(self.name).await? {
            Some(object) if object.uid().as_deref() == Some(self.uid) => {
                self.subject = object.into();
                self.fresh = Fresh::Yes;
                Ok(true)
            }
            _ => Ok(false),
        }
    }

    /// What is, from the driver and from the object. `None` if the object's status cannot be
    /// told from its bytes.
    async fn observed(&self, workload: crate::driver::WorkloadState, failure: Option<DriverError>) -> Result<Option<Observed>, Error> {
        let driver = &self.context.shared.config.driver;
        let status = match &self.subject.sandbox {
            Ok(sandbox) => sandbox.status.clone().unwrap_or_default(),
            Err(_) => match status::unread(&self.context.api, &self.context.shared, &self.subject.meta).await? {
                Some(status) => status,
                None => return Ok(None),
            },
        };
        let held = self.subject.meta.finalizers.iter().flatten().any(|finalizer| finalizer == WORKLOAD_FINALIZER);
        Ok(Some(Observed {
            driver: driver.name().to_owned(),
            cleanup: driver.capabilities().cleanup,
            hold: if held { Hold::Held } else { Hold::Free },
            workload,
            sideload_method: driver.sideload_method(self.uid),
            status,
            failure,
        }))
    }

    /// Carries the actions out in order, up to the first that fails.
    async fn carry_out(&mut self, actions: &[Action]) -> Result<(Outcome, Option<DriverError>), Error> {
        let driver = Arc::clone(&self.context.shared.config.driver);
        for action in actions {
            let result = match action {
                Action::Hold => match self.hold().await? {
                    Outcome::Done => {
                        failpoint::reached("sandbox-held");
                        Ok(())
                    }
                    other => return Ok((other, None)),
                },
                Action::Release => {
                    failpoint::reached("sandbox-releasing");
                    return Ok((self.release().await?, None));
                }
                Action::Expire => {
                    failpoint::reached("sandbox-expiring");
                    return Ok((self.expire().await?, None));
                }
                Action::Ensure(blueprint) => {
                    failpoint::reached("sandbox-starting");
                    let started = driver.ensure(blueprint).await;
                    failpoint::reached("sandbox-started");
                    started
                }
                Action::Suspend => driver.suspend(self.uid).await,
                Action::Delete => {
                    failpoint::reached("sandbox-deleting");
                    driver.delete(self.uid).await
                }
            };
            if let Err(error) = result {
                return Ok((Outcome::Done, Some(error)));
            }
        }
        Ok((Outcome::Done, None))
    }

    /// Puts our finalizer on.
    async fn hold(&mut self) -> Result<Outcome, Error> {
        let mut finalizers = self.subject.meta.finalizers.clone().unwrap_or_default();
        finalizers.push(WORKLOAD_FINALIZER.to_owned());
        self.set_finalizers(&finalizers).await
    }

    /// Takes our finalizer off.
    async fn release(&mut self) -> Result<Outcome, Error> {
        let mut finalizers = self.subject.meta.finalizers.clone().unwrap_or_default();
        finalizers.retain(|finalizer| finalizer != WORKLOAD_FINALIZER);
        match self.set_finalizers(&finalizers).await? {
            Outcome::Changed => Ok(Outcome::Changed),
            _ => Ok(Outcome::Gone),
        }
    }

    fn tell(&self, turns: impl IntoIterator<Item = Turn>) {
        self.context.shared.events.tell::<OpenShellSandbox>(&self.subject.meta, turns);
    }

    /// Deletes the object that was read. If it has changed since, it is looked at again: its time
    /// may have been extended.
    async fn expire(&mut self) -> Result<Outcome, Error> {
        let preconditions = Preconditions { uid: Some(self.uid.to_owned()), resource_version: self.subject.meta.resource_version.clone() };
        let params = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::background() };
        match self.context.api.delete(self.name, &params).await {
            Ok(_) => {
                tracing::info!(sandbox = self.name, "its ttl is over: deleted");
                self.tell([Turn::normal("Delete", "Expired", "its ttl is over: it is deleted, and its workspace with it")]);
                Ok(Outcome::Changed)
            }
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(Outcome::Changed),
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(Outcome::Gone),
            Err(error) => Err(error.into()),
        }
    }

    async fn set_finalizers(&mut self, finalizers: &[String]) -> Result<Outcome, Error> {
        let version = self.subject.meta.resource_version.as_deref();
        match status::set_finalizers(&self.context.api, self.name, version, finalizers).await? {
            Written::Done(object) => {
                self.subject = Subject::from(*object);
                self.fresh = Fresh::Yes;
                Ok(Outcome::Done)
            }
            Written::Conflict => Ok(Outcome::Changed),
            Written::Gone => Ok(Outcome::Gone),
            Written::Refused(why) => Err(Error::Refused(why)),
        }
    }

    /// Writes the operator's part of the status, if it differs.
    async fn say(&mut self, before: &OpenShellSandboxStatus, after: &OpenShellSandboxStatus) -> Result<Said, Error> {
        if before == after {
            return Ok(Said::Done);
        }
        failpoint::reached("sandbox-status");
        let fields: Map<String, Value> = [
            ("observedGeneration", status::field(&after.observed_generation)),
            ("phase", status::field(&after.phase)),
            ("driver", status::field(&after.driver)),
            ("workload", status::field(&after.workload)),
            ("sideloadMethod", status::field(&after.sideload_method)),
            ("idleSince", status::field(&after.idle_since)),
            ("stoppedInstance", status::field(&after.stopped_instance)),
            ("conditions", status::field(&after.conditions)),
        ]
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value))
        .collect();
        let version = self.subject.meta.resource_version.as_deref();
        match status::write(&self.context.api, self.name, version, fields).await? {
            Written::Done(object) => {
                self.tell(Tells::turned(before, after));
                self.context.written.lock().insert(self.uid.to_owned(), *object);
                Ok(Said::Done)
            }
            Written::Conflict => Ok(Said::Conflict),
            Written::Gone => Ok(Said::Gone),
            Written::Refused(why) => {
                self.context.shared.events.untold::<OpenShellSandbox>(&self.subject.meta, &after.conditions, &why);
                Ok(Said::Refused)
            }
        }
    }
}

/// What became of a status.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Said {
    Done,
    Conflict,
    Gone,
    /// The API server takes no status for the object.
    Refused,
}

/// How long until then; never longer than the resync.
fn pause_until(time: Option<Timestamp>) -> Duration {
    let until = time.map_or(limits::RESYNC, |time| Duration::try_from(time.duration_since(Timestamp::now())).unwrap_or(Duration::ZERO));
    until.min(limits::RESYNC)
}
