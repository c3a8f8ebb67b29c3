//! Events (`events.k8s.io/v1`): what has turned, told once.
//!
//! A turn is the difference between the status that was there and the one that was written, so a
//! restart tells nothing twice. An Event has the reason and the message of the condition that it
//! tells of, and nothing that is not in the object; only of an object that takes no status an Event
//! is told as long as that is so. The local API has no Events: there nothing is told.
//!
//! They are written beside the controllers, in their order, and nobody waits for it: one that cannot
//! be written is lost, and the condition stays.

use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::Client;
use kube::core::ObjectMeta;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use openshell_crds::conditions::{self, ACCEPTED, READY, SCHEDULED, STALLED, STARTED};
use openshell_crds::sandbox::Phase;
use openshell_crds::{OpenShellSandboxStatus, PolicyStatus, ProviderStatus};
use tokio::sync::mpsc;

use super::Setting;
use crate::limits;

/// Longest note of an Event, in bytes (`events.k8s.io/v1`).
const NOTE: usize = 1024;

/// Whoever tells.
#[derive(Clone)]
pub(super) struct Events(Option<mpsc::Sender<(ObjectReference, Turn)>>);

/// What has turned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Turn {
    pub(super) kind: EventType,
    pub(super) reason: String,
    /// What was done or attempted, in UpperCamelCase.
    pub(super) action: &'static str,
    pub(super) note: String,
}

impl Turn {
    pub(super) fn normal(action: &'static str, reason: &str, note: &str) -> Self {
        Self { kind: EventType::Normal, reason: reason.to_owned(), action, note: note.to_owned() }
    }

    pub(super) fn warning(action: &'static str, reason: &str, note: &str) -> Self {
        Self { kind: EventType::Warning, ..Self::normal(action, reason, note) }
    }
}

impl Events {
    /// Tells until the last of its clones is gone.
    pub(super) fn start(client: Client, setting: &Setting) -> Self {
        if matches!(setting, Setting::Local { .. }) {
            return Self(None);
        }
        let (tell, mut told) = mpsc::channel::<(ObjectReference, Turn)>(limits::EVENTS_WAITING);
        let reporter = Reporter { controller: crate::FIELD_MANAGER.to_owned(), instance: std::env::var("HOSTNAME").ok() };
        let recorder = Recorder::new(client, reporter);
        tokio::spawn(async move {
            while let Some((regarding, turn)) = told.recv().await {
                let Turn { kind, reason, action, note } = turn;
                let note = note[..note.floor_char_boundary(NOTE)].to_owned();
                let event = Event { type_: kind, reason, note: Some(note), action: action.to_owned(), secondary: None };
                if let Err(error) = recorder.publish(&event, &regarding).await {
                    tracing::warn!(object = regarding.name, reason = event.reason, %error, "an Event could not be written");
                }
            }
        });
        Self(Some(tell))
    }

    /// Tells of an object.
    pub(super) fn tell<K>(&self, object: &ObjectMeta, turns: impl IntoIterator<Item = Turn>)
    where
        K: kube::Resource<DynamicType = ()>,
    {
        let Some(tell) = &self.0 else { return };
        for turn in turns {
            let regarding = ObjectReference {
                api_version: Some(K::api_version(&()).into_owned()),
                kind: Some(K::kind(&()).into_owned()),
                name: object.name.clone(),
                namespace: object.namespace.clone(),
                resource_version: object.resource_version.clone(),
                uid: object.uid.clone(),
                ..ObjectReference::default()
            };
            if let Err(error) = tell.try_send((regarding, turn)) {
                tracing::warn!(object = object.name, %error, "an Event is lost: too many wait to be written");
            }
        }
    }
}

impl Events {
    /// Tells of an object for which the API server takes no status (most often because it does not
    /// fit its definition): what its conditions would say can be said nowhere else.
    pub(super) fn untold<K>(&self, object: &ObjectMeta, conditions: &[Condition], why: &str)
    where
        K: kube::Resource<DynamicType = ()>,
    {
        let (reason, message) = match conditions::find(conditions, STALLED) {
            Some(stalled) => (stalled.reason.as_str(), format!("{}. The API server takes no status for it: {why}", stalled.message)),
            None => ("StatusRefused", format!("the API server takes no status for it: {why}")),
        };
        tracing::warn!(kind = %K::kind(&()), object = object.name, reason, message, "an object takes no status");
        self.tell::<K>(object, [Turn::warning("WriteStatus", reason, &message)]);
    }
}

/// A status, and what of it is told.
pub(super) trait Tells {
    fn conditions(&self) -> &[Condition];
    /// What has turned between the two.
    fn turned(before: &Self, after: &Self) -> Vec<Turn>;
}

impl Tells for OpenShellSandboxStatus {
    fn conditions(&self) -> &[Condition] {
        &self.conditions
    }

    fn turned(before: &Self, after: &Self) -> Vec<Turn> {
        let of = |status: &OpenShellSandboxStatus, kind: &str| conditions::find(&status.conditions, kind).cloned();
        let became = |kind: &str| conditions::is_true(&after.conditions, kind) && !conditions::is_true(&before.conditions, kind);
        let mut turns = Vec::new();
        let was_stopped = matches!(before.phase, Some(Phase::Stopped | Phase::Stopping));
        if was_stopped && after.phase == Some(Phase::Starting) {
            turns.push(Turn::normal("Resume", "Resumed", "the sandbox goes on in its workspace"));
        }
        if became(READY) {
            turns.extend(of(after, READY).map(|ready| Turn::normal("Run", "Ready", &ready.message)));
        } else if became(STARTED) {
            // One that is ready at once was started.
            turns.extend(of(after, STARTED).map(|started| Turn::normal("Run", "Started", &started.message)));
        }
        if let Some(rest) = of(after, STARTED)
            && before.phase != after.phase
            && matches!(after.phase, Some(Phase::Stopped | Phase::Completed))
        {
            let action = if after.phase == Some(Phase::Stopped) { "Suspend" } else { "Run" };
            turns.push(Turn::normal(action, &rest.reason, &rest.message));
        }
        if let Some(stalled) = of(after, STALLED)
            && of(before, STALLED).is_none_or(|before| before.reason != stalled.reason)
        {
            let taken = conditions::is_true(&after.conditions, SCHEDULED);
            turns.push(Turn::warning(if taken { "Run" } else { "Refuse" }, &stalled.reason, &stalled.message));
        }
        turns
    }
}

impl Tells for PolicyStatus {
    fn conditions(&self) -> &[Condition] {
        &self.conditions
    }

    /// Who enforces it turns with every sandbox and is not told.
    fn turned(before: &Self, after: &Self) -> Vec<Turn> {
        let same = before.revision == after.revision;
        let note = after.revision.map(|revision| format!("revision {revision} is accepted"));
        accepted("ReadPolicy", &before.conditions, &after.conditions, same, note.as_deref())
    }
}

impl Tells for ProviderStatus {
    fn conditions(&self) -> &[Condition] {
        &self.conditions
    }

    fn turned(before: &Self, after: &Self) -> Vec<Turn> {
        accepted("ReadProvider", &before.conditions, &after.conditions, true, None)
    }
}

fn accepted(action: &'static str, before: &[Condition], after: &[Condition], same: bool, note: Option<&str>) -> Vec<Turn> {
    let Some(now) = conditions::find(after, ACCEPTED) else { return Vec::new() };
    let is = conditions::is_true(after, ACCEPTED);
    let unchanged = conditions::find(before, ACCEPTED).is_some_and(|before| before.status == now.status && before.reason == now.reason);
    match (unchanged && same, is) {
        (true, _) => Vec::new(),
        (false, true) => vec![Turn::normal(action, &now.reason, note.unwrap_or(&now.message))],
        (false, false) => vec![Turn::warning(action, &now.reason, &now.message)],
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    use openshell_crds::conditions::Is;

    use super::*;

    fn status(phase: Phase, list: &[(&str, Is, &str)]) -> OpenShellSandboxStatus {
        let conditions = list
            .iter()
            .map(|(kind, is, reason)| conditions::condition(kind, *is, reason, format!("{reason}!"), None, Time(Timestamp::UNIX_EPOCH)))
            .collect();
        OpenShellSandboxStatus { phase: Some(phase), conditions, ..OpenShellSandboxStatus::default() }
    }

    #[test]
    fn a_life_is_told_in_a_few_words_and_a_restart_in_none() {
        let up = (STARTED, Is::True, "Started");
        let taken = (SCHEDULED, Is::True, "Scheduled");
        let life = [
            (status(Phase::Provisioning, &[taken, (READY, Is::False, "Starting")]), vec![]),
            (status(Phase::Provisioning, &[taken, up, (READY, Is::False, "SessionNotConnected")]), vec!["Started"]),
            (status(Phase::Ready, &[taken, up, (READY, Is::True, "Ready")]), vec!["Ready"]),
            (status(Phase::Stopping, &[taken, (READY, Is::False, "IdleTimeout")]), vec![]),
            (status(Phase::Stopped, &[taken, (STARTED, Is::False, "IdleTimeout")]), vec!["IdleTimeout"]),
            (status(Phase::Starting, &[taken, (READY, Is::False, "Starting")]), vec!["Resumed"]),
            (status(Phase::Ready, &[taken, up, (READY, Is::True, "Ready")]), vec!["Ready"]),
            (status(Phase::Completed, &[taken, (STARTED, Is::False, "Completed")]), vec!["Completed"]),
            (
                status(Phase::Error, &[taken, (READY, Is::False, "SupervisorDied"), (STALLED, Is::True, "SupervisorDied")]),
                vec!["SupervisorDied"],
            ),
            (status(Phase::Error, &[(READY, Is::False, "PolicyRefused"), (STALLED, Is::True, "PolicyRefused")]), vec!["PolicyRefused"]),
        ];
        let mut before = OpenShellSandboxStatus::default();
        for (after, told) in life {
            let turns = Tells::turned(&before, &after);
            assert_eq!(turns.iter().map(|turn| turn.reason.as_str()).collect::<Vec<_>>(), told);
            assert!(turns.iter().all(|turn| (turn.kind == EventType::Warning) == (after.phase == Some(Phase::Error))));
            assert_eq!(Tells::turned(&after, &after), []);
            before = after;
        }
    }

    #[test]
    fn each_revision_of_a_policy_is_told_once() {
        let status = |revision, is, reason: &str, waiting: bool| {
            let mut conditions = vec![conditions::condition(ACCEPTED, is, reason, "m", None, Time(Timestamp::UNIX_EPOCH))];
            let is = if waiting { Is::False } else { Is::True };
            conditions.push(conditions::condition(conditions::PROGRAMMED, is, "x", "m", None, Time(Timestamp::UNIX_EPOCH)));
            PolicyStatus { revision, conditions, ..PolicyStatus::default() }
        };
        let mut before = PolicyStatus::default();
        for (after, told) in [
            (status(None, Is::False, "PolicyRefused", true), Some((EventType::Warning, "m"))),
            (status(Some(1), Is::True, "Accepted", true), Some((EventType::Normal, "revision 1 is accepted"))),
            (status(Some(1), Is::True, "Accepted", false), None),
            (status(Some(2), Is::True, "Accepted", false), Some((EventType::Normal, "revision 2 is accepted"))),
            (status(Some(2), Is::False, "PolicyRefused", false), Some((EventType::Warning, "m"))),
            (status(Some(2), Is::True, "Accepted", false), Some((EventType::Normal, "revision 2 is accepted"))),
        ] {
            let turns = Tells::turned(&before, &after);
            assert_eq!(turns.first().map(|turn| (turn.kind, turn.note.as_str())), told);
            before = after;
        }
    }
}
