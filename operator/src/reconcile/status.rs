//! What the operator says of a sandbox: one phase for people, conditions for machines.
//!
//! | Condition | `True` when |
//! |---|---|
//! | `Scheduled` | a driver has taken the sandbox |
//! | `Started` | a supervisor is there |
//! | `Ready` | its session is live and it has acknowledged its policy |
//! | `Reconciling` | (only then present) work is going on |
//! | `Stalled` | (only then present) nothing changes without someone's help |

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use openshell_crds::OpenShellSandboxStatus;
use openshell_crds::conditions::{self, Is};
use openshell_crds::sandbox::Phase;

use super::Observed;
use crate::driver::WorkloadState;

/// Reason and message.
type Because = (String, String);

/// What to say.
pub(super) struct Report {
    phase: Phase,
    scheduled: (Is, Because),
    started: (Is, Because),
    ready: (Is, Because),
    reconciling: Option<Because>,
    /// Why nothing changes without help.
    pub(super) stalled: Option<Because>,
}

impl Report {
    /// A driver has it, and nothing is there yet.
    pub(super) fn scheduled(phase: Phase, reason: &str, message: &str) -> Self {
        Self {
            phase,
            scheduled: taken(),
            started: (Is::False, because(reason, message)),
            ready: (Is::False, because(reason, message)),
            reconciling: Some(because(reason, message)),
            stalled: None,
        }
    }

    /// It was begun a moment ago.
    pub(super) fn starting(phase: Phase) -> Self {
        Self::scheduled(phase, "Starting", "the workload is being started")
    }

    /// A supervisor is there, and its session is not (or not yet).
    pub(super) fn started(phase: Phase, reason: &str, message: &str) -> Self {
        Self { started: up(), ..Self::scheduled(phase, reason, message) }
    }

    /// All is well.
    pub(super) fn ready() -> Self {
        Self {
            phase: Phase::Ready,
            scheduled: taken(),
            started: up(),
            ready: (Is::True, because("Ready", "the session is live and the policy is in force")),
            reconciling: None,
            stalled: None,
        }
    }

    /// The main process ended with 0.
    pub(super) fn completed() -> Self {
        Self {
            phase: Phase::Completed,
            ready: (Is::False, because("Completed", "the main process ended with exit code 0")),
            ..Self::ready()
        }
    }

    /// The main process ended otherwise, or never began.
    pub(super) fn main_failed(reason: &str, message: &str) -> Self {
        Self { phase: Phase::Error, ready: (Is::False, because(reason, message)), stalled: Some(because(reason, message)), ..Self::ready() }
    }

    /// The workload failed.
    pub(super) fn failed(reason: &str, message: &str) -> Self {
        Self {
            phase: Phase::Error,
            scheduled: taken(),
            started: (Is::False, because(reason, message)),
            ready: (Is::False, because(reason, message)),
            reconciling: None,
            stalled: Some(because(reason, message)),
        }
    }

    /// The objects do not make a sandbox.
    pub(super) fn refused(reason: &str, message: &str) -> Self {
        Self { scheduled: (Is::False, because(reason, message)), ..Self::failed(reason, message) }
    }

    /// On its way to stopped.
    pub(super) fn stopping() -> Self {
        Self::scheduled(Phase::Stopping, "Stopping", "the workload is being stopped")
    }

    /// Stopped; the workspace is kept.
    pub(super) fn stopped() -> Self {
        Self { phase: Phase::Stopped, reconciling: None, ..Self::scheduled(Phase::Stopped, "Suspended", "stopped; the workspace is kept") }
    }

    /// Going.
    pub(super) fn deleting() -> Self {
        Self::scheduled(Phase::Deleting, "Deleting", "the workload is being removed")
    }

    /// An action failed and will be tried again: the phase stays what it was on its way to.
    pub(super) fn delayed_by(self, reason: &str, message: &str) -> Self {
        Self { ready: (Is::False, because(reason, message)), reconciling: Some(because(reason, message)), ..self }
    }

    /// Nothing changes without someone's help.
    pub(super) fn stalled_by(self, reason: &str, message: &str) -> Self {
        let phase = match self.phase {
            Phase::Deleting => Phase::Deleting,
            _ => Phase::Error,
        };
        Self { phase, ready: (Is::False, because(reason, message)), reconciling: None, stalled: Some(because(reason, message)), ..self }
    }

    /// The status with the operator's part as this report has it, and the rest untouched.
    pub(super) fn write(self, generation: i64, observed: &Observed, now: Timestamp) -> OpenShellSandboxStatus {
        let mut status = observed.status.clone();
        status.observed_generation = Some(generation);
        status.phase = Some(self.phase);
        if self.scheduled.0 == Is::True {
            status.driver = Some(observed.driver.clone());
        }
        status.workload = match &observed.workload {
            WorkloadState::Running { id, .. } if self.started.0 == Is::True => Some(id.clone()),
            _ => None,
        };
        if observed.sideload_method.is_some() {
            status.sideload_method = observed.sideload_method;
        }
        let mut put = |kind, is, (reason, message): Because| {
            conditions::set(&mut status.conditions, conditions::condition(kind, is, &reason, message, Some(generation), Time(now)));
        };
        put(conditions::SCHEDULED, self.scheduled.0, self.scheduled.1);
        put(conditions::STARTED, self.started.0, self.started.1);
        put(conditions::READY, self.ready.0, self.ready.1);
        for (kind, is_there) in [(conditions::RECONCILING, self.reconciling), (conditions::STALLED, self.stalled)] {
            match is_there {
                Some((reason, message)) => {
                    conditions::set(
                        &mut status.conditions,
                        conditions::condition(kind, Is::True, &reason, message, Some(generation), Time(now)),
                    );
                }
                None => {
                    conditions::remove(&mut status.conditions, kind);
                }
            }
        }
        status
    }
}

fn because(reason: &str, message: &str) -> Because {
    (reason.to_owned(), message.to_owned())
}

fn taken() -> (Is, Because) {
    (Is::True, because("Scheduled", "a driver has taken the sandbox"))
}

fn up() -> (Is, Because) {
    (Is::True, because("Started", "the supervisor was started"))
}
