//! Failures of a request, as `metav1.Status`: code, reason, message, and causes by field.
//!
//! Reasons and messages are the apiserver's
//! (`k8s.io/apimachinery/pkg/api/errors`), because clients and people know them.

use http::StatusCode;
use serde_json::{Value, json};

use super::kinds::Kind;
use super::limits;

/// One field that is wrong (`metav1.StatusCause`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cause {
    /// `FieldValueInvalid`, `FieldValueRequired`, ...
    pub reason: CauseReason,
    /// What is wrong, without the field (`Invalid value: 0: must be ...`).
    pub message: String,
    /// Path of the field (`spec.env[0].name`).
    pub field: String,
}

/// The kinds of causes that are used here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CauseReason {
    /// The value is wrong.
    Invalid,
    /// The value has the wrong type.
    TypeInvalid,
    /// The field must be set.
    Required,
    /// The same entry twice.
    Duplicate,
    /// None of the known values.
    NotSupported,
    /// May not be set here.
    Forbidden,
    /// Longer than allowed.
    TooLong,
    /// More entries than allowed.
    TooMany,
    /// Another field manager owns it.
    ManagerConflict,
    /// No such field.
    Unknown,
}

impl CauseReason {
    /// The wire's spelling.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Invalid => "FieldValueInvalid",
            Self::TypeInvalid => "FieldValueTypeInvalid",
            Self::Required => "FieldValueRequired",
            Self::Duplicate => "FieldValueDuplicate",
            Self::NotSupported => "FieldValueNotSupported",
            Self::Forbidden => "FieldValueForbidden",
            Self::TooLong => "FieldValueTooLong",
            Self::TooMany => "FieldValueTooMany",
            Self::ManagerConflict => "FieldManagerConflict",
            Self::Unknown => "UnexpectedServerResponse",
        }
    }
}

impl Cause {
    /// A cause at a field.
    pub fn new(reason: CauseReason, field: impl Into<String>, message: impl Into<String>) -> Self {
        Self { reason, field: field.into(), message: message.into() }
    }

    /// `Invalid value: <value>: <why>`.
    pub fn invalid(field: impl Into<String>, value: &Value, why: impl std::fmt::Display) -> Self {
        Self::new(CauseReason::Invalid, field, format!("Invalid value: {}: {why}", shown(value)))
    }

    /// `Forbidden: <why>`.
    pub fn forbidden(field: impl Into<String>, why: impl std::fmt::Display) -> Self {
        Self::new(CauseReason::Forbidden, field, format!("Forbidden: {why}"))
    }

    /// `Required value`, or with a reason.
    pub fn required(field: impl Into<String>, why: &str) -> Self {
        let message = if why.is_empty() { "Required value".to_owned() } else { format!("Required value: {why}") };
        Self::new(CauseReason::Required, field, message)
    }
}

/// A value as an error shows it: short, and objects only by their type.
pub(crate) fn shown(value: &Value) -> String {
    match value {
        Value::Object(_) => "\"object\"".to_owned(),
        Value::Array(_) => "\"array\"".to_owned(),
        Value::String(text) if text.chars().count() > 128 => {
            let head: String = text.chars().take(128).collect();
            Value::String(format!("{head}...")).to_string()
        }
        other => other.to_string(),
    }
}

/// A refused or failed request.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    code: StatusCode,
    reason: &'static str,
    message: String,
    details: Option<Value>,
}

impl ApiError {
    fn new(code: StatusCode, reason: &'static str, message: impl Into<String>) -> Self {
        Self { code, reason, message: message.into(), details: None }
    }

    fn about(mut self, kind: &Kind, name: &str, causes: &[Cause]) -> Self {
        let mut details = json!({ "name": name, "group": kind.group, "kind": if causes.is_empty() { &kind.plural } else { &kind.name } });
        if !causes.is_empty() {
            details["causes"] = causes
                .iter()
                .take(limits::MAX_CAUSES)
                .map(|c| json!({ "reason": c.reason.as_str(), "message": c.message, "field": c.field }))
                .collect();
        }
        self.details = Some(details);
        self
    }

    /// 400: the request makes no sense.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "BadRequest", message)
    }

    /// 404: no such path.
    pub fn no_such_path() -> Self {
        Self::new(StatusCode::NOT_FOUND, "NotFound", "the server could not find the requested resource")
    }

    /// 404: no such object.
    pub fn not_found(kind: &Kind, name: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, "NotFound", format!("{} {name:?} not found", kind.qualified())).about(kind, name, &[])
    }

    /// 409: the name is taken.
    pub fn already_exists(kind: &Kind, name: &str) -> Self {
        Self::new(StatusCode::CONFLICT, "AlreadyExists", format!("{} {name:?} already exists", kind.qualified())).about(kind, name, &[])
    }

    /// 409: the object is not what the client thinks it is.
    pub fn conflict(kind: &Kind, name: &str, why: impl std::fmt::Display) -> Self {
        let message = format!("Operation cannot be fulfilled on {} {name:?}: {why}", kind.qualified());
        Self::new(StatusCode::CONFLICT, "Conflict", message).about(kind, name, &[])
    }

    /// 409: a newer version exists.
    pub fn modified(kind: &Kind, name: &str) -> Self {
        Self::conflict(kind, name, "the object has been modified; please apply your changes to the latest version and try again")
    }

    /// 409: other managers own fields that an apply would change.
    pub fn manager_conflict(kind: &Kind, name: &str, causes: &[Cause]) -> Self {
        let list: Vec<String> = causes.iter().take(limits::MAX_CAUSES).map(|c| format!("{}: {}", c.message, c.field)).collect();
        let plural = if causes.len() == 1 { "" } else { "s" };
        let message = format!("Apply failed with {} conflict{plural}: {}", causes.len(), list.join(", "));
        Self::new(StatusCode::CONFLICT, "Conflict", message).about(kind, name, causes)
    }

    /// 422: the object is not valid.
    pub fn invalid(kind: &Kind, name: &str, causes: &[Cause]) -> Self {
        let list: Vec<String> = causes.iter().take(limits::MAX_CAUSES).map(|c| format!("{}: {}", c.field, c.message)).collect();
        let list = match list.as_slice() {
            [one] => one.clone(),
            many => format!("[{}]", many.join(", ")),
        };
        let kind_name = if kind.group.is_empty() { kind.name.clone() } else { format!("{}.{}", kind.name, kind.group) };
        let message = format!("{kind_name} {name:?} is invalid: {list}");
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "Invalid", message).about(kind, name, causes)
    }

    /// 400: fields that do not exist.
    pub fn unknown_fields(kind: &Kind, fields: &[String]) -> Self {
        let list: Vec<String> = fields.iter().take(limits::MAX_CAUSES).map(|f| format!("unknown field {f:?}")).collect();
        Self::bad_request(format!(
            "{0} in version {1:?} cannot be handled as a {0}: strict decoding error: {2}",
            kind.name,
            kind.version,
            list.join(", ")
        ))
    }

    /// 403.
    pub fn forbidden(kind: &Kind, name: &str, why: impl std::fmt::Display) -> Self {
        Self::new(StatusCode::FORBIDDEN, "Forbidden", format!("{} {name:?} is forbidden: {why}", kind.qualified())).about(kind, name, &[])
    }

    /// 405.
    pub fn method_not_allowed() -> Self {
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed", "the server does not allow this method on the requested resource")
    }

    /// 410: the history that the client wants is compacted.
    pub fn expired(asked: u64, oldest: u64) -> Self {
        Self::new(StatusCode::GONE, "Expired", format!("too old resource version: {asked} ({oldest})"))
    }

    /// 504: the version does not exist yet.
    pub fn future_version(asked: u64, newest: u64) -> Self {
        let mut error =
            Self::new(StatusCode::GATEWAY_TIMEOUT, "Timeout", format!("Too large resource version: {asked}, current: {newest}"));
        error.details = Some(
            json!({ "causes": [{ "reason": "ResourceVersionTooLarge", "message": "Too large resource version" }], "retryAfterSeconds": 1 }),
        );
        error
    }

    /// 413.
    pub fn too_large(what: &str, limit: usize) -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "RequestEntityTooLarge", format!("{what}: limit is {limit} bytes"))
    }

    /// 415.
    pub fn unsupported_media_type(got: &str, accepted: &str) -> Self {
        Self::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "UnsupportedMediaType",
            format!("the body of the request was in an unknown format ({got}) - accepted media types include: {accepted}"),
        )
    }

    /// 406.
    pub fn not_acceptable() -> Self {
        Self::new(
            StatusCode::NOT_ACCEPTABLE,
            "NotAcceptable",
            "only the following media types are accepted: application/json, application/json;stream=watch",
        )
    }

    /// 429: as many as allowed are there.
    pub fn too_many(message: impl Into<String>) -> Self {
        Self::new(StatusCode::TOO_MANY_REQUESTS, "TooManyRequests", message)
    }

    /// 500: the store failed. Nothing was written.
    pub fn store(error: &dyn std::fmt::Display) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "InternalError", format!("the store failed and nothing was written: {error}"))
    }

    /// 507: the disk is full. Nothing was written.
    pub fn disk_full() -> Self {
        Self::new(
            StatusCode::INSUFFICIENT_STORAGE,
            "InternalError",
            "the store could not be written because the disk is full (or the database has its largest size); nothing was changed. Free space, or delete objects, and try again",
        )
    }

    /// 503: shutting down.
    pub fn closed() -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "ServiceUnavailable", "the API service is shutting down")
    }

    /// The HTTP code.
    pub fn code(&self) -> StatusCode {
        self.code
    }

    /// The `metav1.Status`.
    pub fn status(&self) -> Value {
        let mut status = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": self.message, "reason": self.reason,
        });
        if let Some(details) = &self.details {
            status["details"] = details.clone();
        }
        status["code"] = json!(self.code.as_u16());
        status
    }
}
