//! Events (`events.k8s.io/v1`) of a gateway: what was made, and every turn of its condition.

use kube::Client;
use kube::Resource as _;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use openshell_crds::conditions::{self, READY, STALLED};
use openshell_crds::{OpenShellGateway, OpenShellGatewayStatus};

use super::keys::{Change, Slot};

/// Longest note of an Event, in bytes (`events.k8s.io/v1`).
const NOTE: usize = 1024;

/// Tells of a gateway.
pub(super) struct Events(Recorder);

impl Events {
    pub(super) fn new(client: Client) -> Self {
        let reporter = Reporter { controller: crate::FIELD_MANAGER.to_owned(), instance: std::env::var("HOSTNAME").ok() };
        Self(Recorder::new(client, reporter))
    }

    /// Keys and certificates that were made.
    pub(super) async fn made(&self, gateway: &OpenShellGateway, changes: &[Change]) {
        for (slot, what) in changes {
            let reason = match slot {
                Slot::Authority => "AuthorityChanged",
                Slot::Server | Slot::Client => "CertificateIssued",
                Slot::Token => "TokenKeyMade",
            };
            self.publish(gateway, EventType::Normal, reason, "IssueKeys", what).await;
        }
    }

    /// The condition, if it has turned.
    pub(super) async fn turned(&self, gateway: &OpenShellGateway, before: &OpenShellGatewayStatus, after: &OpenShellGatewayStatus) {
        for kind in [STALLED, READY] {
            let reason = |status: &OpenShellGatewayStatus| conditions::find(&status.conditions, kind).map(|c| c.reason.clone());
            let Some(now) = conditions::find(&after.conditions, kind) else { continue };
            if reason(before).as_ref() == Some(&now.reason) {
                continue;
            }
            let bad = conditions::is_true(&after.conditions, STALLED);
            let type_ = if bad { EventType::Warning } else { EventType::Normal };
            self.publish(gateway, type_, &now.reason, "DeployGateway", &now.message).await;
            if bad {
                return;
            }
        }
    }

    async fn publish(&self, gateway: &OpenShellGateway, type_: EventType, reason: &str, action: &str, note: &str) {
        let note = note[..note.floor_char_boundary(NOTE)].to_owned();
        let event = Event { type_, reason: reason.to_owned(), note: Some(note), action: action.to_owned(), secondary: None };
        if let Err(error) = self.0.publish(&event, &gateway.object_ref(&())).await {
            tracing::warn!(reason, %error, "an Event could not be written");
        }
    }
}
