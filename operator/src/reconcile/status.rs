//! What the operator says of a sandbox: one phase for people, conditions for machines.
//!
//! | Condition | `True` when |
//! |---|---|
//! | `Scheduled` | a driver has taken the sandbox |
//! | `Started` | a supervisor is there |
//! | `Ready` | its session is live and it has acknowledged its policy; absent where it is not meant to be, and is at rest |
//! | `Reconciling` | (only then present) work is going on |
//! | `Stalled` | (only then present) nothing changes without someone's help |

use std::time::Duration;

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
    /// Since when nothing has happened in it, if that is why it is suspended.
    pub(super) idle_since: Option<Time>,
}

/// Why a sandbox is suspended.
pub(super) struct Suspension {
    reason: &'static str,
    stopping: String,
    stopped: String,
}

impl Suspension {
    /// Its spec says so.
    pub(super) fn asked_for() -> Self {
        Self {
            reason: "Suspended",
            stopping: "the workload is being stopped".to_owned(),
            stopped: "stopped; the workspace is kept".to_owned(),
        }
    }

    /// Nothing has happened in it for this long.
    pub(super) fn idle(timeout: Duration) -> Self {
        let why = format!("nothing has happened in it for {}", shown(timeout));
        Self {
            reason: IDLE_TIMEOUT,
            stopping: format!("{why}: the workload is being stopped"),
            stopped: format!("{why}; the workspace is kept, and `openshell sandbox start` goes on with it"),
        }
    }

    /// On its way there.
    pub(super) fn stopping(&self) -> Report {
        let reason = if self.reason == IDLE_TIMEOUT { IDLE_TIMEOUT } else { "Stopping" };
        Report::scheduled(Phase::Stopping, reason, &self.stopping)
    }

    /// Stopped; the workspace is kept.
    pub(super) fn stopped(&self) -> Report {
        Report { reconciling: None, ..Report::scheduled(Phase::Stopped, self.reason, &self.stopped) }
    }
}

/// Reason of a suspension that nobody asked for.
const IDLE_TIMEOUT: &str = "IdleTimeout";

/// Reasons of what is on its way, where nothing speaks against it: no supervisor is there yet, its
/// session is not, its policy is not in force.
const STARTING: &str = "Starting";
pub(super) const NOT_CONNECTED: &str = "SessionNotConnected";
pub(super) const NOT_ACKNOWLEDGED: &str = "PolicyNotAcknowledged";

/// As people write it.
fn shown(time: Duration) -> String {
    let seconds = time.as_secs();
    let parts = [(seconds / 3600, "h"), (seconds % 3600 / 60, "m"), (seconds % 60, "s")];
    let parts: Vec<_> = parts.into_iter().filter(|(amount, _)| *amount > 0).map(|(amount, unit)| format!("{amount}{unit}")).collect();
    parts.concat()
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
            idle_since: None,
        }
    }

    /// It was begun a moment ago.
    pub(super) fn starting(phase: Phase) -> Self {
        Self::scheduled(phase, STARTING, "the workload is being started")
    }

    /// Nothing is to be said of it but that it is on its way.
    pub(super) fn is_start(&self) -> bool {
        let (_, (reason, _)) = &self.ready;
        [STARTING, NOT_CONNECTED, NOT_ACKNOWLEDGED].contains(&reason.as_str()) && self.stalled.is_none()
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
            idle_since: None,
        }
    }

    /// The main process ended with 0.
    pub(super) fn completed() -> Self {
        let (reason, message) = ("Completed", "the main process ended with exit code 0");
        Self {
            phase: Phase::Completed,
            started: (Is::False, because(reason, message)),
            ready: (Is::False, because(reason, message)),
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
            idle_since: None,
        }
    }

    /// The objects do not make a sandbox.
    pub(super) fn refused(reason: &str, message: &str) -> Self {
        Self { scheduled: (Is::False, because(reason, message)), ..Self::failed(reason, message) }
    }

    /// Its time is over, and its object is being deleted.
    pub(super) fn expired(phase: Phase) -> Self {
        Self::scheduled(phase, "Expired", "its ttl is over; it is being deleted")
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
        status.idle_since = self.idle_since;
        status.stopped_instance = match (self.phase, status.stopped_instance.take()) {
            (Phase::Stopping | Phase::Stopped, _) => Some(status.session.as_ref().map(|s| s.instance_id.clone()).unwrap_or_default()),
            // It was to be stopped, and was not.
            (_, Some(stopped)) if observed.runs(&stopped) => None,
            (_, stopped) => stopped,
        };
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
        // To kstatus an object is on its way as long as `Ready` is not true, and current without it.
        let at_rest = matches!(self.phase, Phase::Stopped | Phase::Completed) && self.reconciling.is_none() && self.stalled.is_none();
        if at_rest {
            conditions::remove(&mut status.conditions, conditions::READY);
        } else {
            put(conditions::READY, self.ready.0, self.ready.1);
        }
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
