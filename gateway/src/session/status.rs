//! What the session knows, written to the object.
//!
//! The gateway owns `status.session`, `status.policy`, `status.mainProcess`,
//! `status.enforcement` and the conditions `Connected`, `PolicyAcknowledged` and `Enforced`.
//! Conditions are one list with another owner in it: it is read, changed and written back only if nobody else
//! wrote in between (the resource version is sent along), and tried again otherwise.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{
    Api, ResourceExt as _,
    api::{Patch, PatchParams},
};
use openshell_crds::{
    OpenShellSandbox,
    conditions::{self, Is},
    sandbox::{
        EnforcementLevel, EnforcementStatus, MainProcessState, MainProcessStatus, OpenShellSandboxStatus, PolicyInForce, SessionStatus,
    },
};
use openshell_proto::supervisor::{EnforcementReport, MainProcess, config_result::Outcome, enforcement_report::Level, main_process::State};
use serde_json::{Map, Value, json};

use super::sandbox::Task;

/// Field manager of everything written here.
pub(super) const FIELD_MANAGER: &str = "openshell-gateway";

/// Attempts over conflicts, which others' writes make likely right after a creation.
const CONFLICT_ATTEMPTS: u32 = 8;

pub(super) fn now() -> Time {
    Time(k8s_openapi::jiff::Timestamp::now())
}

/// Writes what differs, if anything does.
pub(super) async fn write(task: &mut Task) -> Result<(), kube::Error> {
    let Some(mut sandbox) = task.sandbox() else { return Ok(()) };
    let api: Api<OpenShellSandbox> = Api::namespaced(task.inner.config.client.clone(), &task.inner.config.namespace);
    let name = sandbox.name_any();
    let params = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
    for _ in 0..CONFLICT_ATTEMPTS {
        let before = sandbox.status.clone().unwrap_or_default();
        let next = desired(task, &before, &sandbox);
        if next == before {
            return Ok(());
        }
        let status = difference(&json!(before), &json!(next));
        let patch = json!({ "metadata": { "resourceVersion": sandbox.metadata.resource_version }, "status": status });
        match api.patch_status(&name, &params, &Patch::Merge(&patch)).await {
            Ok(_) => return Ok(()),
            Err(kube::Error::Api(status)) if status.is_conflict() => match api.get_opt(&name).await? {
                Some(fresh) if fresh.metadata.uid.as_deref() == Some(&task.uid) => sandbox = fresh.into(),
                _ => return Ok(()),
            },
            Err(kube::Error::Api(status)) if status.is_not_found() => return Ok(()),
            Err(error) => return Err(error),
        }
    }
    tracing::debug!(sandbox = task.uid, "others keep writing the status; tried again later");
    Err(kube::Error::Service("the object kept changing while its status was written".into()))
}

/// The merge patch (RFC 7396) that makes `before` into `next`: what is gone is null.
fn difference(before: &Value, next: &Value) -> Value {
    let (Value::Object(before), Value::Object(next)) = (before, next) else { return next.clone() };
    let gone = before.keys().filter(|key| !next.contains_key(*key)).map(|key| (key.clone(), Value::Null));
    let changed = next.iter().filter_map(|(key, next)| match before.get(key) {
        Some(before) if before == next => None,
        Some(before) => Some((key.clone(), difference(before, next))),
        None => Some((key.clone(), next.clone())),
    });
    gone.chain(changed).collect::<Map<_, _>>().into()
}

/// The status as it should be, from the one there is.
fn desired(task: &Task, before: &OpenShellSandboxStatus, sandbox: &OpenShellSandbox) -> OpenShellSandboxStatus {
    let generation = sandbox.metadata.generation;
    let mut next = before.clone();
    let connected = task.session().is_some();
    next.session = session(task, before.session.as_ref(), connected, sandbox);
    if let Some(enforcement) = &task.enforcement {
        let enforcement = enforcement_status(enforcement);
        conditions::set(&mut next.conditions, enforced_condition(&enforcement, generation));
        next.enforcement = Some(enforcement);
    }
    if task.instance.is_some() {
        next.main_process = task.main.as_ref().map(main_status);
    }
    next.policy = policy(task, before.policy.as_ref());
    if next.session.is_some() {
        conditions::set(&mut next.conditions, connected_condition(task, connected, sandbox));
    }
    if let Some(condition) = acknowledged_condition(task, next.policy.as_ref(), generation) {
        conditions::set(&mut next.conditions, condition);
    }
    next
}

fn session(task: &Task, before: Option<&SessionStatus>, connected: bool, sandbox: &OpenShellSandbox) -> Option<SessionStatus> {
    let instance_id = match (&task.instance, before) {
        (Some(instance), _) => instance.id.clone(),
        // Nobody came back since the gateway started: what is known is who was there.
        (None, Some(before)) => before.instance_id.clone(),
        (None, None) => return None,
    };
    let unchanged = before.filter(|b| b.connected == connected && b.instance_id == instance_id);
    let since = match (unchanged, &task.instance, connected) {
        (Some(before), ..) => before.since.clone(),
        (None, Some(instance), true) => Some(instance.since.clone()),
        _ => Some(now()),
    };
    // Until a supervisor has come, what is known is who was there.
    let exchange = if task.instance.is_some() { task.exchange.clone() } else { before.and_then(|before| before.exchange.clone()) };
    let last_activity = sandbox.spec.idle_timeout.as_ref().and_then(|_| {
        // What the gateway before this one has said of the same supervisor holds.
        let before = before.filter(|before| before.instance_id == instance_id).and_then(|before| before.last_activity.clone());
        let last = task.said.last.and_then(|last| whole(last.as_second())).max(before);
        last.or_else(|| whole(task.instance.as_ref()?.since.0.as_second()))
    });
    Some(SessionStatus { instance_id, connected, since, last_activity, exchange })
}

fn policy(task: &Task, before: Option<&PolicyInForce>) -> Option<PolicyInForce> {
    let Some(known) = &task.known_policy else { return before.cloned() };
    let refused = task.result.as_ref().filter(|r| r.outcome() == Outcome::Refused).map(|r| r.error.clone());
    let acknowledged = task.in_force.as_ref().map(|r| r.number);
    // A gateway that has just started does not know what was acknowledged to the one before.
    let acknowledged = acknowledged.or_else(|| before.filter(|_| task.instance.is_none()).and_then(|b| b.acknowledged_revision));
    let error = task.problem.as_ref().map(|p| p.message.clone()).or(refused).or_else(|| task.held_back.clone());
    let document = (!known.recorded).then(|| known.policy.canonical_json()).and_then(|json| String::from_utf8(json).ok());
    Some(PolicyInForce { revision: known.number, hash: known.hash.to_string(), document, acknowledged_revision: acknowledged, error })
}

fn connected_condition(task: &Task, connected: bool, sandbox: &OpenShellSandbox) -> Condition {
    let (is, reason, message) = match (&task.instance, connected) {
        (_, false) if sandbox.is_suspended() => (Is::False, "Stopped", "the sandbox is stopped, so it has no supervisor".to_owned()),
        (Some(instance), true) => (Is::True, "SessionLive", format!("supervisor {} is connected", instance.version)),
        (Some(_), false) => (
            Is::False,
            "SessionLost",
            "the supervisor is not connected; as long as it runs it goes on enforcing, and connects again by itself".to_owned(),
        ),
        (None, _) => (Is::False, "SessionLost", "the supervisor has not come back since the gateway started".to_owned()),
    };
    conditions::condition(conditions::CONNECTED, is, reason, message, sandbox.metadata.generation, now())
}

/// The level for people; its reasons are explained by `openshell doctor` on the same machine.
fn enforced_condition(enforcement: &EnforcementStatus, generation: Option<i64>) -> Condition {
    let (is, reason, message) = match enforcement.level {
        EnforcementLevel::Full => (Is::True, "Full", format!("{} walls stand", enforcement.walls.len())),
        EnforcementLevel::Reduced => {
            let reasons = enforcement.reasons.join(", ");
            (Is::False, "Reduced", format!("{reasons}; `openshell doctor` says what each means and what to do"))
        }
    };
    conditions::condition(conditions::ENFORCED, is, reason, message, generation, now())
}

fn acknowledged_condition(task: &Task, policy: Option<&PolicyInForce>, generation: Option<i64>) -> Option<Condition> {
    let (is, reason, message) = if let Some(problem) = &task.problem {
        (Is::False, problem.reason.clone(), problem.message.clone())
    } else {
        let policy = policy?;
        match (&policy.error, policy.acknowledged_revision) {
            (Some(error), _) => (Is::False, "Refused".to_owned(), error.clone()),
            (None, Some(acknowledged)) if acknowledged == policy.revision => {
                (Is::True, "Acknowledged".to_owned(), format!("policy revision {acknowledged} is in force"))
            }
            _ => (Is::Unknown, "Pending".to_owned(), format!("policy revision {} is not acknowledged yet", policy.revision)),
        }
    };
    Some(conditions::condition(conditions::POLICY_ACKNOWLEDGED, is, &reason, message, generation, now()))
}

fn enforcement_status(report: &EnforcementReport) -> EnforcementStatus {
    EnforcementStatus {
        // Anything but a clear "full" is not full.
        level: if report.level() == Level::Full { EnforcementLevel::Full } else { EnforcementLevel::Reduced },
        reasons: report.reasons.clone(),
        landlock_abi: i32::try_from(report.landlock_abi).unwrap_or(i32::MAX),
        walls: report.walls.clone(),
    }
}

fn main_status(main: &MainProcess) -> MainProcessStatus {
    let state = match main.state() {
        State::Running => MainProcessState::Running,
        State::Exited => MainProcessState::Exited,
        State::Failed => MainProcessState::Failed,
        State::None | State::Unspecified => MainProcessState::None,
    };
    let some = |text: &String| Some(text.clone()).filter(|t| !t.is_empty());
    MainProcessStatus {
        state,
        started_at: main.started.as_ref().and_then(time),
        ended_at: main.ended.as_ref().and_then(time),
        exit_code: (main.state() == State::Exited).then_some(main.exit_code),
        reason: some(&main.reason),
        message: some(&main.message),
    }
}

/// To whole seconds, as the API keeps times: a finer one would differ from what is read back.
fn time(timestamp: &prost_types::Timestamp) -> Option<Time> {
    whole(timestamp.seconds)
}

fn whole(seconds: i64) -> Option<Time> {
    k8s_openapi::jiff::Timestamp::from_second(seconds).ok().map(Time)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_names_what_changed_and_what_is_gone() {
        let before = json!({ "policy": { "revision": 1, "acknowledgedRevision": 1 }, "phase": "Ready", "conditions": [1] });
        let next = json!({ "policy": { "revision": 1 }, "phase": "Ready", "conditions": [1, 2] });
        assert_eq!(difference(&before, &next), json!({ "policy": { "acknowledgedRevision": null }, "conditions": [1, 2] }));
        assert_eq!(difference(&before, &before), json!({}));
    }
}
