//! What there is to tell of a gateway: what was made, and every turn of its condition.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use openshell_crds::OpenShellGatewayStatus;
use openshell_crds::conditions::{self, READY, STALLED};

use super::keys::{Change, Slot};
use crate::controllers::events::{Tells, Turn};

/// Keys and certificates that were made, in one Event for each reason: of two about the same object for the same reason
/// only the first one's note is kept.
pub(super) fn made(changes: &[Change]) -> Vec<Turn> {
    let mut notes: Vec<(&str, String)> = Vec::new();
    for (slot, what) in changes {
        let reason = match slot {
            Slot::Authority => "AuthorityChanged",
            Slot::Server | Slot::Client => "CertificateIssued",
            Slot::Token => "TokenKeyMade",
        };
        match notes.iter_mut().find(|(known, _)| *known == reason) {
            Some((_, note)) => {
                note.push_str("; ");
                note.push_str(what);
            }
            None => notes.push((reason, what.clone())),
        }
    }
    notes.iter().map(|(reason, note)| Turn::normal("IssueKeys", reason, note)).collect()
}

impl Tells for OpenShellGatewayStatus {
    fn conditions(&self) -> &[Condition] {
        &self.conditions
    }

    fn turned(before: &Self, after: &Self) -> Vec<Turn> {
        let reason = |status: &Self, kind| conditions::find(&status.conditions, kind).map(|c| c.reason.clone());
        let now = [STALLED, READY].into_iter().filter_map(|kind| conditions::find(&after.conditions, kind));
        let turn = if conditions::is_true(&after.conditions, STALLED) { Turn::warning } else { Turn::normal };
        let turned = now.filter(|now| reason(before, &now.type_).as_ref() != Some(&now.reason));
        turned.take(1).map(|now| turn("DeployGateway", &now.reason, &now.message)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_that_was_made_is_told() {
        let change = |slot, what: &str| (slot, what.to_owned());
        let changes = [change(Slot::Authority, "a"), change(Slot::Server, "s"), change(Slot::Client, "c"), change(Slot::Token, "t")];
        let told: Vec<_> = made(&changes).into_iter().map(|turn| (turn.reason, turn.note)).collect();
        let told: Vec<_> = told.iter().map(|(reason, note)| (reason.as_str(), note.as_str())).collect();
        assert_eq!(told, [("AuthorityChanged", "a"), ("CertificateIssued", "s; c"), ("TokenKeyMade", "t")]);
    }
}
