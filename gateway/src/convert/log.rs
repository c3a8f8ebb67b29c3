//! Log records of supervisors as clients see them.

use openshell_proto::{supervisor, v1};

/// `source` of every record: the reference system tells gateway and sandbox apart, and locally
/// only sandboxes have a log.
pub(crate) const SOURCE: &str = "sandbox";

/// A stored record.
pub(crate) fn to_wire(sandbox_id: &str, record: supervisor::LogRecord) -> v1::SandboxLogLine {
    let mut fields = record.fields;
    if !record.ocsf.is_empty() {
        fields.insert("ocsf".to_owned(), record.ocsf);
    }
    if record.gap > 0 {
        fields.insert("gap".to_owned(), record.gap.to_string());
    }
    v1::SandboxLogLine {
        sandbox_id: sandbox_id.to_owned(),
        level: record.level,
        target: record.target,
        message: record.message,
        source: SOURCE.to_owned(),
        fields,
        event_time: record.time,
    }
}
