//! Policy revisions as they are printed.

use openshell_proto::v1::{PolicyStatus, SandboxPolicyRevision};
use serde_json::{Value, json};

use super::table::{Details, Table};
use super::{age, time, timestamp};
use crate::error::CliError;
use crate::policy_file;

/// The state of a revision, in the word that programs read.
pub(crate) fn status_word(revision: &SandboxPolicyRevision) -> &'static str {
    match PolicyStatus::try_from(revision.status).unwrap_or_default() {
        PolicyStatus::Unspecified => "unknown",
        PolicyStatus::Pending => "pending",
        PolicyStatus::Loaded => "loaded",
        PolicyStatus::Failed => "failed",
        PolicyStatus::Superseded => "superseded",
    }
}

/// The keys of `policy get`.
pub(crate) fn value(sandbox: &str, active: u32, revision: &SandboxPolicyRevision) -> Result<Value, CliError> {
    let millis = |t| timestamp(t).map(jiff::Timestamp::as_millisecond);
    Ok(json!({
        "scope": "sandbox",
        "sandbox": sandbox,
        "version": revision.version,
        "hash": revision.policy_hash,
        "status": status_word(revision),
        "active_version": active,
        "created_at_ms": millis(revision.created_time.as_ref()),
        "loaded_at_ms": millis(revision.loaded_time.as_ref()),
        "load_error": if revision.load_error.is_empty() { Value::Null } else { json!(revision.load_error) },
        "provenance": super::sandbox::sorted(&revision.provenance),
        "policy": revision.policy.as_ref().map(policy_file::value).transpose()?,
    }))
}

/// `policy get`.
pub(crate) fn details(sandbox: &str, active: u32, revision: &SandboxPolicyRevision) -> String {
    let mut details = Details::default();
    details.add("Sandbox", sandbox);
    details.add("Revision", revision.version.to_string());
    details.add("Status", status_word(revision));
    details.add("Active revision", active.to_string());
    details.add("Hash", revision.policy_hash.as_str());
    details.add("Created", time(revision.created_time.as_ref()).unwrap_or_default());
    details.add("Loaded", time(revision.loaded_time.as_ref()).unwrap_or_default());
    details.add("Error", revision.load_error.as_str());
    details.render()
}

/// `policy list`.
pub(crate) fn table(revisions: &[SandboxPolicyRevision]) -> String {
    let mut table = Table::new(["revision", "status", "hash", "age", "error"]);
    for revision in revisions {
        let hash: String = revision.policy_hash.trim_start_matches("sha256:").chars().take(12).collect();
        table.row([
            revision.version.to_string(),
            status_word(revision).to_owned(),
            hash,
            age(timestamp(revision.created_time.as_ref())),
            revision.load_error.clone(),
        ]);
    }
    table.render()
}
