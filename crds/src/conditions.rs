//! Conditions: types, and the one way to set them.
//!
//! Written by two owners that meet only in the API: the operator writes `Scheduled`, `Started`
//! and `Ready` (with kstatus `Reconciling` / `Stalled`), the gateway writes `Connected`,
//! `PolicyAcknowledged` and `Enforced`.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use schemars::{Schema, SchemaGenerator, json_schema};

/// Summary: the agent runs under its accepted policy, and the session is live.
pub const READY: &str = "Ready";
/// A driver has taken the sandbox.
pub const SCHEDULED: &str = "Scheduled";
/// The supervisor was started.
pub const STARTED: &str = "Started";
/// A supervisor session is live (written by the gateway).
pub const CONNECTED: &str = "Connected";
/// The policy in the spec is the one in force (written by the gateway).
pub const POLICY_ACKNOWLEDGED: &str = "PolicyAcknowledged";
/// The machine holds everything that is promised (written by the gateway).
pub const ENFORCED: &str = "Enforced";
/// The spec was understood (Policy, Provider).
pub const ACCEPTED: &str = "Accepted";
/// Every sandbox that uses the object has acknowledged its present revision.
pub const PROGRAMMED: &str = "Programmed";
/// kstatus: work is going on. Present only while true.
pub const RECONCILING: &str = "Reconciling";
/// kstatus: nothing will change without someone's help. Present only while true.
pub const STALLED: &str = "Stalled";

/// The schema of a list of conditions, with the bounds of `metav1.Condition`
/// (`k8s.io/apimachinery/pkg/apis/meta/v1/types.go`).
pub(crate) fn schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "description": "One entry for each type.",
        "type": "array",
        "maxItems": 32,
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["type"],
        "items": {
            "type": "object",
            "required": ["type", "status", "lastTransitionTime", "reason", "message"],
            "properties": {
                "type": {
                    "description": "What the condition is about, in CamelCase.",
                    "type": "string",
                    "maxLength": 316,
                    "pattern": r"^([a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*/)?(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])$",
                },
                "status": { "description": "Whether it holds.", "type": "string", "enum": ["True", "False", "Unknown"] },
                "observedGeneration": { "description": "Generation that was looked at.", "type": "integer", "format": "int64", "minimum": 0 },
                "lastTransitionTime": { "description": "When the status last changed.", "type": "string", "format": "date-time" },
                "reason": {
                    "description": "Stable reason, in CamelCase.",
                    "type": "string",
                    "minLength": 1,
                    "maxLength": 1024,
                    "pattern": r"^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$",
                },
                "message": { "description": "A sentence for people.", "type": "string", "maxLength": 32768 },
            },
        },
    })
}

/// Status of a condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Is {
    /// It holds.
    True,
    /// It does not hold.
    False,
    /// Not known yet.
    Unknown,
}

impl Is {
    /// The API's spelling.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::True => "True",
            Self::False => "False",
            Self::Unknown => "Unknown",
        }
    }
}

/// Longest message, in bytes (`metav1.Condition` allows 32768 characters).
const MAX_MESSAGE: usize = 32_768;

/// A condition as it should stand now. A message that is too long is cut, so that a status is
/// never refused for its length.
pub fn condition(kind: &str, is: Is, reason: &str, message: impl Into<String>, generation: Option<i64>, now: Time) -> Condition {
    let mut message = message.into();
    if message.len() > MAX_MESSAGE {
        message.truncate(message.floor_char_boundary(MAX_MESSAGE - '…'.len_utf8()));
        message.push('…');
    }
    Condition {
        type_: kind.to_owned(),
        status: is.as_str().to_owned(),
        reason: reason.to_owned(),
        message,
        observed_generation: generation,
        last_transition_time: now,
    }
}

/// Puts `next` into `list`: keeps the transition time unless the status changed, and says
/// whether anything changed at all (so that a status is written only when it did).
pub fn set(list: &mut Vec<Condition>, mut next: Condition) -> bool {
    let Some(old) = list.iter_mut().find(|c| c.type_ == next.type_) else {
        list.push(next);
        return true;
    };
    if old.status == next.status {
        next.last_transition_time = old.last_transition_time.clone();
    }
    let changed = *old != next;
    *old = next;
    changed
}

/// Takes a condition away; says whether it was there.
pub fn remove(list: &mut Vec<Condition>, kind: &str) -> bool {
    let before = list.len();
    list.retain(|c| c.type_ != kind);
    list.len() != before
}

/// Finds a condition by type.
pub fn find<'a>(list: &'a [Condition], kind: &str) -> Option<&'a Condition> {
    list.iter().find(|c| c.type_ == kind)
}

/// Whether the condition is there and `True`.
pub fn is_true(list: &[Condition], kind: &str) -> bool {
    find(list, kind).is_some_and(|c| c.status == Is::True.as_str())
}

#[cfg(test)]
mod tests {
    use super::{Is, READY, condition, is_true, remove, set};
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    use k8s_openapi::jiff::Timestamp;

    fn at(second: i64) -> Time {
        Time(Timestamp::from_second(second).unwrap_or_default())
    }

    #[test]
    fn the_transition_time_moves_with_the_status_alone() {
        let mut list = Vec::new();
        assert!(set(&mut list, condition(READY, Is::False, "Starting", "", Some(1), at(1))));
        assert!(!set(&mut list, condition(READY, Is::False, "Starting", "", Some(1), at(2))), "nothing changed");
        assert!(set(&mut list, condition(READY, Is::False, "Waiting", "", Some(1), at(3))));
        assert_eq!(list[0].last_transition_time, at(1));
        assert!(set(&mut list, condition(READY, Is::True, "Ready", "", Some(1), at(4))));
        assert_eq!(list[0].last_transition_time, at(4));
        assert!(is_true(&list, READY));
        assert!(remove(&mut list, READY) && !remove(&mut list, READY));
    }

    #[test]
    fn long_messages_are_cut_at_a_character() {
        let long = condition(READY, Is::False, "X", "ä".repeat(40_000), None, at(0));
        assert!(long.message.len() <= 32_768 && long.message.ends_with('…'));
    }
}
