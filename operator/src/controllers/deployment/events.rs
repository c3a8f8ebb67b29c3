//! What there is to tell of a gateway: what was made, and every turn of its condition.

use openshell_crds::OpenShellGatewayStatus;
use openshell_crds::conditions::{self, READY, STALLED};

use super::keys::{Change, Slot};
use crate::controllers::events::Turn;

/// Keys and certificates that were made.
pub(super) fn made(changes: &[Change]) -> Vec<Turn> {
    let turn = |(slot, what): &Change| {
        let reason = match slot {
            Slot::Authority => "AuthorityChanged",
            Slot::Server | Slot::Client => "CertificateIssued",
            Slot::Token => "TokenKeyMade",
        };
        Turn::normal("IssueKeys", reason, what)
    };
    changes.iter().map(turn).collect()
}

/// The condition, if it has turned.
pub(super) fn turned(before: &OpenShellGatewayStatus, after: &OpenShellGatewayStatus) -> Option<Turn> {
    let reason = |status: &OpenShellGatewayStatus, kind| conditions::find(&status.conditions, kind).map(|c| c.reason.clone());
    let mut now = [STALLED, READY].into_iter().filter_map(|kind| conditions::find(&after.conditions, kind));
    let turned = now.find(|now| reason(before, &now.type_).as_ref() != Some(&now.reason))?;
    let turn = if conditions::is_true(&after.conditions, STALLED) { Turn::warning } else { Turn::normal };
    Some(turn("DeployGateway", &turned.reason, &turned.message))
}
