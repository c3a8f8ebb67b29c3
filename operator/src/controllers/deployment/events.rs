//! What there is to tell of a gateway: what was made, and every turn of its condition.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use openshell_crds::OpenShellGatewayStatus;
use openshell_crds::conditions::{self, READY, STALLED};

use super::keys::{Change, Slot};
use crate::controllers::events::{Tells, Turn};

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
