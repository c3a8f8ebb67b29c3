//! A service that looks at requests on their way out.

use serde::{Deserialize, Serialize};

use super::is_default;

/// A service that looks at requests on their way out.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Middleware {
    /// Shown in logs; the map key unless said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Which service; `openshell/…` are built in.
    #[serde(default)]
    pub middleware: String,
    /// Position in the chain, ascending.
    #[serde(default, skip_serializing_if = "is_default")]
    pub order: i32,
    /// Handed to the service.
    #[serde(default, skip_serializing_if = "serde_json::Map::is_empty")]
    pub config: serde_json::Map<String, serde_json::Value>,
    /// What happens to the request when the service fails.
    #[serde(default, skip_serializing_if = "is_default")]
    pub on_error: OnError,
    /// Which hosts it is for.
    #[serde(default, skip_serializing_if = "is_default")]
    pub endpoints: MiddlewareEndpoints,
}

/// Which hosts a middleware is for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MiddlewareEndpoints {
    /// Host patterns that it is for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub include: Vec<String>,
    /// Host patterns that it is not for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exclude: Vec<String>,
}

/// What happens to a request when a middleware fails.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnError {
    /// It is refused.
    #[default]
    FailClosed,
    /// It passes.
    FailOpen,
}

impl OnError {
    /// The word of the file.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::FailClosed => "fail_closed",
            Self::FailOpen => "fail_open",
        }
    }
}
