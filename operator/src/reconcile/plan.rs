//! [`plan`]: every state of a workload against every wish.

use jiff::{SignedDuration, Timestamp};
use openshell_crds::conditions;
use openshell_crds::sandbox::{MainProcessState, Phase};

use super::status::{Progress, Report};
use super::{Action, Desired, Hold, Intent, Observed, Plan};
use crate::driver::{Cleanup, Retry, WorkloadState};
use crate::limits;

/// What to do next for one sandbox, and what to say about it.
pub fn plan(desired: &Desired, observed: &Observed, now: Timestamp) -> Plan {
    let step = match &desired.intent {
        Intent::Remove => remove(observed, now),
        Intent::Suspend => suspend(observed, now),
        Intent::Refused(error) => match observed.workload {
            // What runs goes on under its last good configuration; the status says that the
            // newest one is not in force.
            WorkloadState::Starting | WorkloadState::Running { .. } => {
                let mut step = running(None, observed, now);
                step.report.stalled = Some((error.reason.as_str().to_owned(), error.message.clone()));
                step
            }
            WorkloadState::Stopping => Step {
                actions: Vec::new(),
                report: Report::refused(error.reason.as_str(), &error.message),
                recheck_at: Some(after(now, limits::STOPPING_RECHECK.as_secs())),
            },
            WorkloadState::Absent | WorkloadState::Suspended | WorkloadState::Failed { .. } => {
                Step::settled(Report::refused(error.reason.as_str(), &error.message))
            }
        },
        Intent::Run(blueprint) => match &observed.workload {
            WorkloadState::Failed { code, message, .. } => Step::settled(Report::failed(code, message)),
            WorkloadState::Absent if finished(observed) => Step::settled(outcome(observed).unwrap_or_else(Report::completed)),
            WorkloadState::Absent | WorkloadState::Suspended => {
                let mut actions = hold(observed);
                actions.push(Action::Ensure(blueprint.clone()));
                Step { actions, report: Report::starting(phase_on_the_way(observed)), recheck_at: None }
            }
            WorkloadState::Stopping => Step {
                actions: Vec::new(),
                report: Report::starting(Phase::Starting),
                recheck_at: Some(after(now, limits::STOPPING_RECHECK.as_secs())),
            },
            WorkloadState::Starting | WorkloadState::Running { .. } => running(Some(!blueprint.command.is_empty()), observed, now),
        },
    };
    let report = match &observed.failure {
        Some(failure) => step.report.after_failure(failure.code, &failure.message, failure.retry == Retry::Never),
        None => step.report,
    };
    Plan { actions: step.actions, status: report.write(desired.generation, observed, now), recheck_at: step.recheck_at }
}
