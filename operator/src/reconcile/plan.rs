//! [`plan`]: every state of a workload against every wish.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use openshell_crds::conditions::{self, Is};
use openshell_crds::sandbox::{MainProcessState, MainProcessStatus, Phase, SessionStatus};
use openshell_proto::ENDED_WITH_SANDBOX;

use super::status::{NOT_ACKNOWLEDGED, NOT_CONNECTED, Report, Suspension};
use super::{Action, Desired, Hold, Intent, Observed, Plan, Refusal};
use crate::blueprint::SandboxBlueprint;
use crate::driver::{Cleanup, Retry, WorkloadState};
use crate::limits;

/// Actions, what to say, and when to look again.
struct Step {
    actions: Vec<Action>,
    report: Report,
    recheck_at: Option<Timestamp>,
}

/// What to do next for one sandbox, and what to say about it.
pub fn plan(desired: &Desired, observed: &Observed, now: Timestamp) -> Plan {
    let removed = matches!(desired.intent, Intent::Remove);
    let idle = Idleness::of(desired, observed, now);
    let mut step = match &desired.intent {
        Intent::Remove => remove(observed, now),
        _ if desired.lifetime.until.is_some_and(|until| until <= now) => expire(observed),
        Intent::Suspend => suspend(&Suspension::asked_for(), observed, now),
        Intent::Refused(error) => refused(error, observed, now),
        Intent::Run(blueprint) => match (&idle, desired.lifetime.idle) {
            (Idleness::Since(_), Some(timeout)) => suspend(&Suspension::idle(timeout), observed, now),
            (Idleness::From(_), Some(timeout)) => idle_from_now(timeout, now),
            _ => run(blueprint, observed, now),
        },
    };
    let ends = [desired.lifetime.until.filter(|_| !removed), idle.ends()];
    step.recheck_at = ends.into_iter().flatten().filter(|end| *end > now).chain(step.recheck_at).min();
    step.report.idle_since = idle.since();
    let report = match &observed.failure {
        Some(failure) if failure.retry == Retry::Never => step.report.stalled_by(failure.code, &failure.message),
        Some(failure) => step.report.delayed_by(failure.code, &failure.message),
        None => step.report,
    };
    match unsaid_until(desired, observed, &report, now) {
        Some(until) => {
            let recheck_at = step.recheck_at.map_or(until, |at| at.min(until));
            Plan { actions: step.actions, status: observed.status.clone(), recheck_at: Some(recheck_at) }
        }
        None => Plan { actions: step.actions, status: report.write(desired.generation, observed, now), recheck_at: step.recheck_at },
    }
}

/// Until when nothing is said of a new sandbox that is being started: it usually runs before anybody
/// has read that, and each status costs a write. A clock that is behind the API server's says it
/// at once.
fn unsaid_until(desired: &Desired, observed: &Observed, report: &Report, now: Timestamp) -> Option<Timestamp> {
    let said = conditions::find(&observed.status.conditions, conditions::SCHEDULED).is_some();
    let made = desired.made_at.filter(|made| *made <= now && !said && report.is_start())?;
    let until = after(made, limits::FIRST_STATUS);
    (now < until).then_some(until)
}

/// The object is being deleted.
fn remove(observed: &Observed, now: Timestamp) -> Step {
    let gone = observed.workload == WorkloadState::Absent || observed.cleanup == Cleanup::OwnerReferences;
    match (gone, observed.hold) {
        (true, Hold::Free) => Step { actions: Vec::new(), report: Report::deleting(), recheck_at: None },
        // Nothing runs, but something may be left of a start that was cut short.
        (true, Hold::Held) => Step { actions: vec![Action::Delete, Action::Release], report: Report::deleting(), recheck_at: None },
        (false, _) => {
            Step { actions: vec![Action::Delete], report: Report::deleting(), recheck_at: Some(after(now, limits::STOPPING_RECHECK)) }
        }
    }
}

/// Its time is over. Deleting the object is what everybody else would do, and the rest follows.
fn expire(observed: &Observed) -> Step {
    Step { actions: vec![Action::Expire], report: Report::expired(observed.status.phase.unwrap_or_default()), recheck_at: None }
}

/// What there is to say of a sandbox in which nothing happens (adr/0007).
enum Idleness {
    /// Something happens, or nobody asks.
    No,
    /// Nothing has happened for a while; if it stays so, its idle period ends then.
    Until(Timestamp),
    /// It has ended: nothing has happened since then. Said first, acted on when it is written: whoever
    /// was active meanwhile has changed the object, so that the writing fails.
    From(Time),
    /// That is written.
    Since(Time),
}

impl Idleness {
    fn of(desired: &Desired, observed: &Observed, now: Timestamp) -> Self {
        let Some(timeout) = desired.lifetime.idle else { return Self::No };
        let last = observed.status.session.as_ref().and_then(|session| session.last_activity.clone());
        match (&desired.intent, &observed.status.idle_since) {
            // Stopped by somebody: the next start begins anew.
            (Intent::Suspend, _) => return Self::No,
            // What has begun goes on, unless something has happened since.
            (_, Some(since)) if last.as_ref().is_none_or(|last| *last <= *since) => return Self::Since(since.clone()),
            (Intent::Run(_), _) => {}
            _ => return Self::No,
        }
        // Whoever knows must be there, and must have said something: silence is no idleness.
        let known = current_session(observed).filter(|session| session.connected).and(last);
        let main = observed.status.main_process.as_ref();
        let Some(last) = known.filter(|_| main.is_none_or(|main| main.state != MainProcessState::Running)) else { return Self::No };
        let last = main.and_then(|main| main.ended_at.clone()).map_or(last.clone(), |ended| ended.max(last));
        match after(last.0, timeout) {
            end if end <= now => Self::From(last),
            end => Self::Until(end),
        }
    }

    /// When the period ends.
    fn ends(&self) -> Option<Timestamp> {
        match self {
            Self::Until(end) => Some(*end),
            _ => None,
        }
    }

    /// What the status says of it.
    fn since(&self) -> Option<Time> {
        match self {
            Self::From(since) | Self::Since(since) => Some(since.clone()),
            Self::No | Self::Until(_) => None,
        }
    }
}

/// Nothing has happened for too long. Once that is written, it is suspended.
fn idle_from_now(timeout: Duration, now: Timestamp) -> Step {
    Step { actions: Vec::new(), report: Suspension::idle(timeout).stopping(), recheck_at: Some(now) }
}

/// It shall be stopped, for this reason.
fn suspend(because: &Suspension, observed: &Observed, now: Timestamp) -> Step {
    match observed.workload {
        WorkloadState::Absent | WorkloadState::Suspended => settled(because.stopped()),
        // Asked for again even while it is stopping: whoever counted the grace period may have
        // been killed.
        WorkloadState::Stopping
        | WorkloadState::Starting { .. }
        | WorkloadState::Running { .. }
        | WorkloadState::Lost { .. }
        | WorkloadState::Failed { .. } => {
            Step { actions: vec![Action::Suspend], report: because.stopping(), recheck_at: Some(after(now, limits::STOPPING_RECHECK)) }
        }
    }
}

/// Its objects do not make a sandbox. What runs goes on under its last good configuration;
/// nothing is started.
fn refused(error: &Refusal, observed: &Observed, now: Timestamp) -> Step {
    if let Some(mut step) = over(observed, now) {
        step.report.stalled = Some((error.reason.clone(), error.message.clone()));
        return step;
    }
    match &observed.workload {
        WorkloadState::Starting { .. } | WorkloadState::Running { .. } => {
            let mut step = alive(observed, now);
            step.report.stalled = Some((error.reason.clone(), format!("{}; what runs keeps its last good configuration", error.message)));
            step
        }
        WorkloadState::Stopping => Step {
            actions: Vec::new(),
            report: Report::refused(&error.reason, &error.message),
            recheck_at: Some(after(now, limits::STOPPING_RECHECK)),
        },
        WorkloadState::Absent | WorkloadState::Suspended | WorkloadState::Lost { .. } | WorkloadState::Failed { .. } => {
            settled(Report::refused(&error.reason, &error.message))
        }
    }
}

/// It shall run.
fn run(blueprint: &SandboxBlueprint, observed: &Observed, now: Timestamp) -> Step {
    if let Some(step) = over(observed, now) {
        return step;
    }
    match &observed.workload {
        WorkloadState::Starting { .. } | WorkloadState::Running { .. } => alive(observed, now),
        WorkloadState::Failed { code, message, .. } => settled(Report::failed(code, message)),
        WorkloadState::Stopping => Step {
            actions: Vec::new(),
            report: Report::scheduled(on_the_way(observed), "Stopping", "the workload before it is still ending"),
            recheck_at: Some(after(now, limits::STOPPING_RECHECK)),
        },
        WorkloadState::Lost { code, message, at } if now < after(*at, limits::LOST_PAUSE) => Step {
            actions: Vec::new(),
            report: Report::scheduled(on_the_way(observed), code, message),
            recheck_at: Some(after(*at, limits::LOST_PAUSE)),
        },
        WorkloadState::Absent | WorkloadState::Suspended | WorkloadState::Lost { .. } => {
            let mut actions = Vec::with_capacity(2);
            if observed.cleanup == Cleanup::Finalizer && observed.hold == Hold::Free {
                actions.push(Action::Hold);
            }
            actions.push(Action::Ensure(Box::new(blueprint.clone())));
            Step { actions, report: Report::starting(on_the_way(observed)), recheck_at: None }
        }
    }
}

/// What is finished, and whose supervisor is gone, keeps its outcome. The driver's platform may make
/// a workload anew when it was taken away, as Kubernetes does with a pod: that one is held back.
fn over(observed: &Observed, now: Timestamp) -> Option<Step> {
    let outcome = finished(observed)?;
    let anew = match &observed.workload {
        WorkloadState::Absent | WorkloadState::Lost { .. } => return Some(settled(outcome)),
        WorkloadState::Suspended if platform_restarts(observed) => return Some(settled(outcome)),
        WorkloadState::Stopping | WorkloadState::Starting { .. } => true,
        WorkloadState::Running { .. } => current_session(observed).is_none(),
        WorkloadState::Suspended | WorkloadState::Failed { .. } => false,
    };
    (anew && platform_restarts(observed)).then(|| Step {
        actions: vec![Action::Suspend],
        report: outcome,
        recheck_at: Some(after(now, limits::STOPPING_RECHECK)),
    })
}

fn platform_restarts(observed: &Observed) -> bool {
    observed.cleanup == Cleanup::OwnerReferences
}

/// A supervisor is there. What it says of itself is in the status that the gateway writes.
fn alive(observed: &Observed, now: Timestamp) -> Step {
    let phase = on_the_way(observed);
    if let WorkloadState::Starting { waiting: Some(waiting) } = &observed.workload {
        return if now < waiting.from {
            Step { actions: Vec::new(), report: Report::starting(phase), recheck_at: Some(waiting.from) }
        } else {
            settled(Report::scheduled(phase, &waiting.reason, &waiting.message))
        };
    }
    let Some(session) = current_session(observed) else {
        return waiting(phase, NOT_CONNECTED, "the supervisor has not connected to its gateway yet", observed, now);
    };
    if let Some(outcome) = observed.status.main_process.as_ref().and_then(outcome) {
        return settled(outcome);
    }
    if !session.connected {
        return waiting(phase, "SessionLost", "the supervisor has lost its gateway; it goes on enforcing its policy", observed, now);
    }
    match &observed.status.policy {
        Some(policy) if policy.acknowledged_revision.is_some() => settled(Report::ready()),
        Some(policy) if policy.error.is_some() => settled(Report::failed(
            "PolicyRejected",
            &format!("the supervisor refused the policy: {}", policy.error.as_deref().unwrap_or_default()),
        )),
        _ => waiting(phase, NOT_ACKNOWLEDGED, "the supervisor has not acknowledged its policy yet", observed, now),
    }
}

/// Waits for the session until the deadline, and calls it an error after that. It still
/// recovers when the session comes.
fn waiting(phase: Phase, reason: &str, message: &str, observed: &Observed, now: Timestamp) -> Step {
    if let Some(until) = brief_moment(observed, now) {
        return Step { actions: Vec::new(), report: Report::starting(phase), recheck_at: Some(until) };
    }
    let deadline = after(waiting_since(observed).unwrap_or(now), limits::SESSION_DEADLINE);
    if now < deadline {
        return Step { actions: Vec::new(), report: Report::started(phase, reason, message), recheck_at: Some(deadline) };
    }
    let seconds = limits::SESSION_DEADLINE.as_secs();
    settled(Report::started(phase, reason, message).stalled_by(
        "SessionTimeout",
        &format!("{message}, and {seconds} s have passed; see the supervisor's log, and stop and start the sandbox"),
    ))
}

/// Until when a start is not said yet, because its session usually comes before anybody has read
/// that: a status less for every sandbox.
fn brief_moment(observed: &Observed, now: Timestamp) -> Option<Timestamp> {
    let WorkloadState::Running { since: Some(since), .. } = observed.workload else { return None };
    let until = after(since, limits::SESSION_MOMENT);
    (now < until && !conditions::is_true(&observed.status.conditions, conditions::STARTED)).then_some(until)
}

/// Since when the sandbox has been waiting for its session: since it was started or since it
/// stopped being ready, whichever is later.
fn waiting_since(observed: &Observed) -> Option<Timestamp> {
    let started = conditions::find(&observed.status.conditions, conditions::STARTED).filter(|c| c.status == Is::True.as_str())?;
    let ready = conditions::find(&observed.status.conditions, conditions::READY).filter(|c| c.status == Is::False.as_str())?;
    Some(started.last_transition_time.0.max(ready.last_transition_time.0))
}

/// The session, if it is that of the supervisor which the driver sees. A status may still tell
/// of one that is gone.
fn current_session(observed: &Observed) -> Option<&SessionStatus> {
    let session = observed.status.session.as_ref()?;
    match &observed.workload {
        WorkloadState::Running { instance: Some(instance), .. } => (*instance == session.instance_id).then_some(session),
        WorkloadState::Running { instance: None, .. } => Some(session),
        _ => None,
    }
}

/// How the main process ended, if it did. One that was ended with its pod or its machine has come to
/// no outcome.
fn outcome(main: &MainProcessStatus) -> Option<Report> {
    match main.state {
        MainProcessState::None | MainProcessState::Running => None,
        MainProcessState::Exited if main.reason.as_deref() == Some(ENDED_WITH_SANDBOX) => None,
        MainProcessState::Exited => match main.exit_code.unwrap_or_default() {
            0 => Some(Report::completed()),
            code => Some(Report::main_failed("MainProcessFailed", &format!("the main process ended with exit code {code}"))),
        },
        MainProcessState::Failed => Some(Report::main_failed(
            main.reason.as_deref().filter(|reason| !reason.is_empty()).unwrap_or("MainProcessFailed"),
            main.message.as_deref().unwrap_or("the main process could not be started"),
        )),
    }
}

/// The outcome of a sandbox whose main process had ended before its workload went. It is not
/// started again, unless someone stopped it and wants it started.
fn finished(observed: &Observed) -> Option<Report> {
    if begins_anew(observed) { None } else { observed.status.main_process.as_ref().and_then(outcome) }
}

/// Whether it was stopped, and what the status tells of a main process is of the time before.
fn begins_anew(observed: &Observed) -> bool {
    match (&observed.status.session, &observed.status.stopped_instance) {
        (Some(session), Some(stopped)) => session.instance_id == *stopped,
        _ => says_stopped(observed),
    }
}

fn says_stopped(observed: &Observed) -> bool {
    matches!(observed.status.phase, Some(Phase::Stopped | Phase::Stopping | Phase::Starting))
}

/// `Starting` for one that was stopped before, `Provisioning` otherwise.
fn on_the_way(observed: &Observed) -> Phase {
    if says_stopped(observed) || begins_anew(observed) { Phase::Starting } else { Phase::Provisioning }
}

fn settled(report: Report) -> Step {
    Step { actions: Vec::new(), report, recheck_at: None }
}

fn after(time: Timestamp, wait: Duration) -> Timestamp {
    SignedDuration::try_from(wait).ok().and_then(|wait| time.checked_add(wait).ok()).unwrap_or(Timestamp::MAX)
}
