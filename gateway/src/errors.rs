//! Errors as clients see them: a gRPC status with `google.rpc` details.
//!
//! Every status says what failed and what to do about it in its message; `ErrorInfo.reason` is
//! the stable code for programs, `BadRequest` names the fields, `RetryInfo` says when another
//! try makes sense. Details never carry a secret.

use std::collections::HashMap;
use std::time::Duration;

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, FieldViolation, StatusExt as _};

/// `ErrorInfo.domain`.
pub const DOMAIN: &str = "openshell.ai";

fn status(code: Code, reason: &str, message: String, details: Option<ErrorDetails>) -> Status {
    let mut details = details.unwrap_or_default();
    details.set_error_info(reason, DOMAIN, HashMap::<String, String>::new());
    Status::with_error_details(code, message, details)
}

/// `UNIMPLEMENTED`, naming the method.
pub fn unimplemented(method: &str) -> Status {
    status(Code::Unimplemented, "METHOD_NOT_IMPLEMENTED", format!("{method} is not implemented by this version of the gateway"), None)
}

/// `UNIMPLEMENTED` for a form of a method that is implemented otherwise.
pub fn unimplemented_form(method: &str, form: &str) -> Status {
    let message = format!("{method}: {form} is not implemented by this version of the gateway");
    status(Code::Unimplemented, "FORM_NOT_IMPLEMENTED", message, None)
}

/// `UNAUTHENTICATED`.
pub fn unauthenticated(message: String) -> Status {
    status(Code::Unauthenticated, "UNAUTHENTICATED", message, None)
}

/// `PERMISSION_DENIED`.
pub fn permission_denied(reason: &str, message: String) -> Status {
    status(Code::PermissionDenied, reason, message, None)
}

/// `NOT_FOUND` for a `kind` of this name.
pub fn not_found(kind: &str, name: &str) -> Status {
    let reason = format!("{}_NOT_FOUND", kind.to_ascii_uppercase().replace(' ', "_"));
    status(Code::NotFound, &reason, format!("{kind} '{name}' does not exist"), None)
}

/// `ALREADY_EXISTS` for a `kind` of this name.
pub fn already_exists(kind: &str, name: &str) -> Status {
    let reason = format!("{}_ALREADY_EXISTS", kind.to_ascii_uppercase().replace(' ', "_"));
    status(Code::AlreadyExists, &reason, format!("{kind} '{name}' already exists; choose another name or delete it first"), None)
}

/// `FAILED_PRECONDITION` with a stable reason.
pub fn failed_precondition(reason: &str, message: impl Into<String>) -> Status {
    status(Code::FailedPrecondition, reason, message.into(), None)
}

/// `FAILED_PRECONDITION`: the object is managed elsewhere. `tool` and `name` say by whom, for programs.
pub fn managed_elsewhere(message: impl Into<String>, tool: &str, name: &str) -> Status {
    let mut details = ErrorDetails::new();
    let by = [("manager".to_owned(), tool.to_owned()), ("name".to_owned(), name.to_owned())];
    details.set_error_info("MANAGED_ELSEWHERE", DOMAIN, HashMap::from(by));
    details.add_help_link("Change it where it is managed. With --force it is changed here, and whoever manages it may undo that.", "");
    Status::with_error_details(Code::FailedPrecondition, message, details)
}

/// `RESOURCE_EXHAUSTED` with a stable reason.
pub fn resource_exhausted(reason: &str, message: impl Into<String>) -> Status {
    status(Code::ResourceExhausted, reason, message.into(), None)
}

/// `ABORTED`: somebody else wrote first.
pub fn conflict(message: impl Into<String>) -> Status {
    let details = ErrorDetails::with_retry_info(Some(Duration::from_millis(100)));
    status(Code::Aborted, "CONFLICT", message.into(), Some(details))
}

/// `UNAVAILABLE`: not now, but after `after`.
pub fn unavailable(reason: &str, message: impl Into<String>, after: Duration) -> Status {
    status(Code::Unavailable, reason, message.into(), Some(ErrorDetails::with_retry_info(Some(after))))
}

/// `DEADLINE_EXCEEDED`.
pub fn deadline_exceeded(message: impl Into<String>) -> Status {
    status(Code::DeadlineExceeded, "TIMEOUT", message.into(), None)
}

/// `INTERNAL`: a defect of ours.
pub fn internal(message: impl Into<String>) -> Status {
    status(Code::Internal, "INTERNAL", message.into(), None)
}

/// What is wrong with a request, field by field.
#[derive(Debug, Default)]
pub struct Violations(Vec<FieldViolation>);

impl Violations {
    /// Notes that `field` (a path such as `spec.environment["A"]`) is wrong.
    pub fn add(&mut self, field: impl Into<String>, description: impl Into<String>) {
        self.0.push(FieldViolation::new(field, description));
    }

    /// `INVALID_ARGUMENT` if anything is wrong.
    pub fn into_result(self) -> Result<(), Status> {
        let Some(first) = self.0.first() else { return Ok(()) };
        let more = match self.0.len() {
            1 => String::new(),
            n => format!(" (and {} more)", n - 1),
        };
        let message = format!("{}: {}{more}", first.field, first.description);
        Err(status(Code::InvalidArgument, "INVALID_ARGUMENT", message, Some(ErrorDetails::with_bad_request(self.0))))
    }
}

/// `INVALID_ARGUMENT` for one field.
pub fn invalid(field: impl Into<String>, description: impl Into<String>) -> Status {
    let mut violations = Violations::default();
    violations.add(field, description);
    violations.into_result().expect_err("a violation was just added")
}
