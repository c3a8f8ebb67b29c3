//! The table of manifests that an API server must take or refuse.
//!
//! `crds/tests/cases/*.yaml`, run against the in-process API service and against a real API
//! server alike, so that both give the same verdict. A file has a head of comments and one or
//! more documents:
//!
//! ```yaml
//! # what: a name that is no shell identifier
//! # expect: 422 Invalid
//! # field: spec.env[0].name
//! # message: spec.env[0].name in body should match
//! apiVersion: openshell.ai/v1alpha1
//! ...
//! ```
//!
//! With more than one document, the earlier ones are created (they must be taken) and the last
//! one replaces the object of its name. `expect: accepted` is a manifest that must be taken. What is
//! wrong with one all the same, the object itself says, with the status `False` of a condition:
//!
//! ```yaml
//! # expect: accepted
//! # condition: Accepted PolicyRefused
//! # message: network_policies.web.endpoints[0].port
//! ```

use std::io;
use std::path::Path;

use serde_json::Value;

/// What must happen to the last document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expected {
    /// It is stored.
    Accepted,
    /// It is refused.
    Refused {
        /// HTTP code.
        code: u16,
        /// `reason` of the status.
        reason: String,
        /// Field of one of the causes; empty when the status has none.
        field: String,
        /// Part of the message.
        message: String,
    },
}

impl Expected {
    /// Whether an answer to the last document is the one that must come; what it is instead otherwise.
    pub fn judge(&self, code: u16, body: &Value) -> Result<(), String> {
        let causes = body["details"]["causes"].as_array().cloned().unwrap_or_default();
        let as_expected = match self {
            Self::Accepted => (200..300).contains(&code),
            Self::Refused { code: expected, reason, field, message } => {
                code == *expected
                    && body["reason"] == *reason.as_str()
                    && (field.is_empty() || causes.iter().any(|cause| cause["field"] == *field.as_str()))
                    && body["message"].as_str().unwrap_or_default().contains(message)
            }
        };
        if as_expected { Ok(()) } else { Err(format!("{code} {} {}", body["message"], body["details"]["causes"])) }
    }
}

/// What an object says of itself: a condition with the status `False`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said {
    /// Its type.
    pub condition: String,
    /// Its reason.
    pub reason: String,
    /// Part of its message.
    pub message: String,
}

impl Said {
    /// Whether the object says so; what it says instead otherwise.
    pub fn judge(&self, object: &Value) -> Result<(), String> {
        let conditions = &object["status"]["conditions"];
        let found = conditions.as_array().into_iter().flatten().find(|condition| condition["type"] == *self.condition);
        let as_expected = found.is_some_and(|found| {
            found["status"] == "False"
                && found["reason"] == *self.reason
                && found["message"].as_str().unwrap_or_default().contains(&self.message)
        });
        if as_expected { Ok(()) } else { Err(conditions.to_string()) }
    }
}

/// One case.
#[derive(Clone, Debug)]
pub struct Case {
    /// Name of the file.
    pub file: String,
    /// What it is about.
    pub what: String,
    /// What must happen.
    pub expected: Expected,
    /// What the last document comes to say of itself.
    pub said: Option<Said>,
    /// The documents.
    pub documents: Vec<Value>,
}

impl Case {
    /// The path under which objects of its kind are created in a namespace.
    pub fn collection(&self, namespace: &str) -> String {
        let kind = self.documents.first().and_then(|document| document["kind"].as_str()).unwrap_or_default();
        let plural = match kind {
            "OpenShellSandbox" => "openshellsandboxes",
            "OpenShellGateway" => "openshellgateways",
            "Policy" => "policies",
            "Provider" => "providers",
            other => other,
        };
        format!("/apis/openshell.ai/v1alpha1/namespaces/{namespace}/{plural}")
    }
}

/// Why the table cannot be read.
#[derive(Debug)]
pub struct CaseError(String);

impl std::fmt::Display for CaseError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for CaseError {}

/// Reads every case of a directory, in order of the files' names.
pub fn read(directory: &Path) -> Result<Vec<Case>, CaseError> {
    let explain = |error: io::Error| CaseError(format!("{}: {error}", directory.display()));
    let mut files: Vec<_> = std::fs::read_dir(directory)
        .and_then(Iterator::collect::<io::Result<Vec<_>>>)
        .map_err(explain)?
        .into_iter()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|e| e == "yaml"))
        .collect();
    files.sort();
    files
        .into_iter()
        .map(|path| {
            let text = std::fs::read_to_string(&path).map_err(explain)?;
            let file = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            parse(&file, &text).map_err(|why| CaseError(format!("{file}: {why}")))
        })
        .collect()
}

fn parse(file: &str, text: &str) -> Result<Case, String> {
    let head = |name: &str| {
        text.lines()
            .take_while(|line| line.starts_with('#'))
            .find_map(|line| line.strip_prefix("# ")?.strip_prefix(name)?.strip_prefix(": "))
            .map(|value| value.trim().to_owned())
    };
    let what = head("what").ok_or("the head has no `what`")?;
    let expected = match head("expect").ok_or("the head has no `expect`")?.as_str() {
        "accepted" => Expected::Accepted,
        refusal => {
            let (code, reason) = refusal.split_once(' ').ok_or("`expect` is `accepted` or a code and a reason")?;
            Expected::Refused {
                code: code.parse().map_err(|error| format!("`expect`: {error}"))?,
                reason: reason.to_owned(),
                field: head("field").unwrap_or_default(),
                message: head("message").ok_or("a refusal needs a `message`")?,
            }
        }
    };
    let said = match head("condition") {
        None => None,
        Some(condition) => {
            let (condition, reason) = condition.split_once(' ').ok_or("`condition` is a type and a reason")?;
            let message = head("message").ok_or("a condition needs a `message`")?;
            Some(Said { condition: condition.to_owned(), reason: reason.to_owned(), message })
        }
    };
    let documents =
        text.split("\n---\n").map(serde_saphyr::from_str).collect::<Result<Vec<Value>, _>>().map_err(|error| error.to_string())?;
    if documents.iter().any(|d| !d.is_object()) {
        return Err("every document must be an object".to_owned());
    }
    Ok(Case { file: file.to_owned(), what, expected, said, documents })
}
