//! What egress records, in terms of egress.

use std::net::IpAddr;

use super::{active::Denial, connections::Live, identity::Identity};
use crate::audit::{
    Audit,
    ocsf::{self, Action, Actor, Grounds, NetworkActivity, Severity, Target},
};

fn actor(identity: &Identity) -> Actor<'_> {
    Actor { pid: identity.pid, exe: &identity.exe, sha256: &identity.sha256 }
}

fn grounds(denial: &Denial, revision: u64) -> Grounds<'_> {
    Grounds { policy: denial.policy.as_deref(), rule: denial.rule.as_deref(), code: Some(denial.code), reason: &denial.reason, revision }
}

fn target(live: &Live) -> Target<'_> {
    Target { host: &live.host, port: live.port, address: live.address() }
}

/// A request's words for the record: no query.
#[derive(Clone, Copy, Debug)]
pub(super) struct RequestLine<'a> {
    pub(super) method: &'a str,
    pub(super) path: &'a str,
    pub(super) scheme: &'a str,
}

/// Writes records for one sandbox.
#[derive(Clone, Debug)]
pub(super) struct Recorder(pub(super) Audit);

impl Recorder {
    pub(super) fn opened(&self, live: &Live, revision: u64) {
        let grounds = Grounds { policy: live.granted.policy.as_deref(), reason: "", revision, ..Grounds::default() };
        self.0.record(ocsf::network(NetworkActivity::Open, Action::Allowed, Some(actor(&live.identity)), target(live), grounds));
    }

    /// A connection that was not opened, or one that was opened and is refused by what it carries.
    pub(super) fn refused(&self, identity: &Identity, host: &str, port: u16, address: Option<IpAddr>, denial: &Denial, revision: u64) {
        let action = if denial.is_failure() { Action::Failed } else { Action::Denied };
        let target = Target { host, port, address };
        let grounds = grounds(denial, revision);
        self.0.record(ocsf::network(NetworkActivity::Open, action, Some(actor(identity)), target, grounds));
        if denial.code == "binary_changed" {
            self.0.record(ocsf::finding("openshell.binary.changed", Severity::High, Some(actor(identity)), target, grounds));
        }
    }

    pub(super) fn refused_live(&self, live: &Live, denial: &Denial, revision: u64) {
        self.refused(&live.identity, &live.host, live.port, live.address(), denial, revision);
    }

    pub(super) fn cut(&self, live: &Live, denial: &Denial, revision: u64) {
        let record =
            ocsf::network(NetworkActivity::Close, Action::Blocked, Some(actor(&live.identity)), target(live), grounds(denial, revision));
        self.0.record(record);
    }

    pub(super) fn name_refused(&self, identity: &Identity, name: &str, reason: &str, revision: u64) {
        let target = Target { host: name, port: 53, address: None };
        let grounds = Grounds { code: Some("name_denied"), reason, revision, ..Grounds::default() };
        self.0.record(ocsf::network(NetworkActivity::Other, Action::Denied, Some(actor(identity)), target, grounds));
    }

    /// Something that the broker refused by itself.
    pub(super) fn call_refused(&self, identity: Option<&Identity>, what: &str, target: &str, reason: &str, revision: u64) {
        let reason = format!("{what}: {reason}");
        let grounds = Grounds { code: Some("call_denied"), reason: &reason, revision, ..Grounds::default() };
        let target = Target { host: target, port: 0, address: None };
        let mut record = ocsf::network(NetworkActivity::Other, Action::Denied, identity.map(actor), target, grounds);
        "broker".clone_into(&mut record.target);
        self.0.record(record);
    }

    pub(super) fn request(&self, live: &Live, line: RequestLine<'_>, action: Action, grounds: Grounds<'_>) {
        self.0.record(ocsf::http(line.method, line.path, line.scheme, action, actor(&live.identity), target(live), grounds));
    }

    pub(super) fn request_refused(&self, live: &Live, line: RequestLine<'_>, denial: &Denial, revision: u64) {
        let action = if denial.is_failure() { Action::Failed } else { Action::Denied };
        self.request(live, line, action, grounds(denial, revision));
        if denial.code == "credential_endpoint_mismatch" {
            self.finding(live, "openshell.provider_credential.endpoint_mismatch", Severity::High, &denial.reason, revision);
        }
    }

    pub(super) fn finding(&self, live: &Live, id: &str, severity: Severity, reason: &str, revision: u64) {
        let grounds = Grounds { policy: live.granted.policy.as_deref(), reason, revision, ..Grounds::default() };
        self.0.record(ocsf::finding(id, severity, Some(actor(&live.identity)), target(live), grounds));
    }
}
