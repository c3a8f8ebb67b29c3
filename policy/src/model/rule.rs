//! What a request has to look like for a rule to speak about it.

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};

use super::OperationType;

/// One entry of `rules`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// What is allowed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allow: Option<RequestMatch>,
}

/// Conditions on a request; all that are given have to hold.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RequestMatch {
    /// HTTP method (or `*`); JSON-RPC and MCP method.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    /// Glob over the canonical path; `*` and `**` both cross `/`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// SQL command.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<String>,
    /// Conditions on decoded query parameters.
    #[serde(default, skip_serializing_if = "IndexMap::is_empty")]
    pub query: IndexMap<String, Matcher>,
    /// GraphQL operation kind.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operation_type: Option<OperationType>,
    /// GraphQL operation name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operation_name: Option<String>,
    /// GraphQL root fields.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fields: Vec<String>,
    /// MCP tool.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool: Option<Matcher>,
    /// JSON-RPC parameters; only `name`.
    #[serde(default, skip_serializing_if = "IndexMap::is_empty")]
    pub params: IndexMap<String, Matcher>,
}

impl RequestMatch {
    /// Whether it says nothing at all.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The rule in words, as logs show it: `GET /repos/**`.
    pub fn describe(&self) -> String {
        let mut words = vec![self.method.as_deref().unwrap_or("*").to_owned(), self.path.as_deref().unwrap_or("**").to_owned()];
        for (key, matcher) in &self.query {
            words.push(format!("{key}={}", matcher.globs().join("|")));
        }
        words.join(" ")
    }
}

/// A glob over a value, or several of which one has to match.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "MatcherForm", into = "MatcherForm")]
pub enum Matcher {
    /// One glob.
    Glob(String),
    /// Any of these globs.
    Any(Vec<String>),
}

impl Matcher {
    /// Its globs.
    pub fn globs(&self) -> &[String] {
        match self {
            Self::Glob(glob) => std::slice::from_ref(glob),
            Self::Any(globs) => globs,
        }
    }
}

/// The three ways to write a [`Matcher`].
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(untagged)]
enum MatcherForm {
    Text(String),
    Object(MatcherObject),
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "lowercase")]
enum MatcherObject {
    Glob(String),
    Any(Vec<String>),
}

impl From<MatcherForm> for Matcher {
    fn from(form: MatcherForm) -> Self {
        match form {
            MatcherForm::Text(glob) | MatcherForm::Object(MatcherObject::Glob(glob)) => Self::Glob(glob),
            MatcherForm::Object(MatcherObject::Any(globs)) => Self::Any(globs),
        }
    }
}

impl From<Matcher> for MatcherForm {
    fn from(matcher: Matcher) -> Self {
        match matcher {
            Matcher::Glob(glob) => Self::Text(glob),
            Matcher::Any(globs) => Self::Object(MatcherObject::Any(globs)),
        }
    }
}
