//! Policy files: read, checked here so that a mistake is shown in its line, and sent in their
//! wire form.

use std::io::Read as _;
use std::path::Path;

use miette::{LabeledSpan, SourceSpan};
use openshell_policy::{Policy, PolicyError};
use openshell_proto::sandbox::SandboxPolicy;
use serde_json::Value;

use crate::error::CliError;
use crate::limits;

/// Reads and checks a policy file.
pub(crate) fn read(path: &Path) -> Result<Policy, CliError> {
    let text = read_text(path, "policy file")?;
    openshell_policy::from_yaml(&text).map_err(|e| refused(&path.display().to_string(), &text, &e))
}

/// The wire form.
pub(crate) fn to_wire(policy: &Policy) -> SandboxPolicy {
    openshell_proto::policy::to_wire(policy)
}

/// A policy of the wire as data.
pub(crate) fn value(policy: &SandboxPolicy) -> Result<Value, CliError> {
    let policy = from_wire(policy)?;
    serde_json::to_value(&policy).map_err(|e| CliError::new("output", "The policy could not be printed.").because(e))
}

/// A policy of the wire as a policy file.
pub(crate) fn yaml(policy: &SandboxPolicy) -> Result<String, CliError> {
    crate::output::yaml(&from_wire(policy)?)
}

fn from_wire(policy: &SandboxPolicy) -> Result<Policy, CliError> {
    openshell_proto::policy::from_wire(policy).map_err(|e| {
        CliError::new("policy-unreadable", "The gateway's policy cannot be read by this version of the command.")
            .because(&e)
            .next("Use a command of the gateway's version (`openshell status`).")
    })
}

/// Text of at most [`limits::FILE_BYTES`]; `-` is standard input.
pub(crate) fn read_text(path: &Path, what: &str) -> Result<String, CliError> {
    let shown = path.display();
    let unreadable = |e: &dyn std::fmt::Display| {
        CliError::new("unreadable", format!("The {what} {shown} cannot be read."))
            .because(e)
            .next("Check the path and your right to read it; the file has to be UTF-8 text.")
    };
    let mut bytes = Vec::new();
    let limit = limits::FILE_BYTES + 1;
    let read = if path == Path::new("-") {
        std::io::stdin().lock().take(limit).read_to_end(&mut bytes)
    } else {
        std::fs::File::open(path).and_then(|f| f.take(limit).read_to_end(&mut bytes))
    };
    read.map_err(|e| unreadable(&e))?;
    if bytes.len() as u64 > limits::FILE_BYTES {
        let mib = limits::FILE_BYTES / (1024 * 1024);
        return Err(CliError::new("file-too-large", format!("The {what} {shown} is larger than {mib} MiB."))
            .next("Check that it is the right file: no policy and no list of objects needs this much."));
    }
    String::from_utf8(bytes).map_err(|e| unreadable(&e))
}

/// A refused policy with the places of its mistakes marked.
pub(crate) fn refused(name: &str, text: &str, error: &PolicyError) -> CliError {
    let what = match error.findings.as_slice() {
        [_] => format!("The policy {name} is refused."),
        all => format!("The policy {name} is refused for {} reasons.", all.len()),
    };
    let code = error.findings.first().map_or("invalid", |f| f.code);
    let mut labels = Vec::new();
    let mut refusal = CliError::new(&format!("policy::{code}"), what);
    for finding in &error.findings {
        refusal = refusal.because(finding);
        if let Some(span) = finding.line.and_then(|line| span(text, line, finding.column.unwrap_or(1))) {
            labels.push(LabeledSpan::new_with_span(Some(finding.message.clone()), span));
        }
    }
    if labels.is_empty() { refusal } else { refusal.at(name, text, labels) }
        .next("Nothing was changed. `openshell policy check -f FILE` checks a file without a gateway.")
}

/// The word at a line and column (from 1, in characters), as bytes of `text`.
fn span(text: &str, line: usize, column: usize) -> Option<SourceSpan> {
    let start = text.split_inclusive('\n').take(line.checked_sub(1)?).map(str::len).sum::<usize>();
    let rest = text.get(start..)?.lines().next()?;
    let at = rest.char_indices().nth(column.saturating_sub(1)).map_or(rest.len(), |(i, _)| i);
    let word = rest[at..].find(|c: char| c.is_whitespace() || matches!(c, ',' | ']' | '}')).unwrap_or(rest.len() - at).max(1);
    Some((start + at, word.min(text.len().saturating_sub(start + at))).into())
}

#[cfg(test)]
mod tests;
