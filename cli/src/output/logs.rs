//! Log lines as they are printed.

use std::fmt::Write as _; // Into a String, which cannot fail.

use openshell_proto::v1::SandboxLogLine;
use serde_json::{Value, json};

use super::{clean_line, time, timestamp};

/// One line for people: time, level, target, message, fields.
pub(crate) fn text(log: &SandboxLogLine) -> String {
    let time = timestamp(log.event_time.as_ref()).map_or_else(|| "-".to_owned(), |t| t.strftime("%Y-%m-%dT%H:%M:%S%.3fZ").to_string());
    let mut line = format!("{time} {:5} {}: {}", log.level.to_uppercase(), clean_line(&log.target), clean_line(&log.message));
    // The line of a decision says what its fields say; programs read them in `-o json`.
    if log.level.eq_ignore_ascii_case("ocsf") {
        return line;
    }
    let mut fields: Vec<_> = log.fields.iter().collect();
    fields.sort();
    for (key, value) in fields {
        // Quoted where it would read as more than one word.
        let value = clean_line(value);
        let quoted = if value.is_empty() || value.contains([' ', '"', '=']) { format!("{value:?}") } else { value.into_owned() };
        let _ = write!(line, " {}={quoted}", clean_line(key));
    }
    line
}

/// One object for programs.
pub(crate) fn value(log: &SandboxLogLine) -> Value {
    json!({
        "time": time(log.event_time.as_ref()),
        "level": log.level,
        "source": log.source,
        "target": log.target,
        "message": log.message,
        "fields": super::sandbox::sorted(&log.fields),
    })
}
