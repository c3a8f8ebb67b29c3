//! Label selectors and field selectors.
//!
//! Grammar: `k8s.io/apimachinery/pkg/labels/selector.go`. Fields: `metadata.name` and
//! `metadata.namespace`, as for every custom resource.

use std::collections::BTreeMap;

use super::error::ApiError;
use super::limits;
use super::metadata;
use super::store::state::{Key, Stored};

#[derive(Clone, Debug, PartialEq, Eq)]
enum Requirement {
    In(String, Vec<String>),
    NotIn(String, Vec<String>),
    Exists(String),
    Absent(String),
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Field {
    Name,
    Namespace,
}

/// What a list or a watch selects.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Selector {
    labels: Vec<Requirement>,
    /// Field, whether it must be equal, value.
    fields: Vec<(Field, Equality, String)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Equality {
    Equal,
    Differs,
}

impl Selector {
    /// Parses both parameters; absent and empty ones select everything.
    pub(crate) fn parse(labels: &str, fields: &str) -> Result<Self, ApiError> {
        if labels.len() > limits::MAX_SELECTOR || fields.len() > limits::MAX_SELECTOR {
            return Err(ApiError::bad_request(format!("a selector may have at most {} bytes", limits::MAX_SELECTOR)));
        }
        let labels = split_terms(labels).into_iter().map(|term| requirement(term.trim())).collect::<Result<_, _>>()?;
        let fields = fields.split(',').map(str::trim).filter(|t| !t.is_empty()).map(field).collect::<Result<_, _>>()?;
        Ok(Self { labels, fields })
    }

    pub(crate) fn matches(&self, key: &Key, stored: &Stored) -> bool {
        self.labels.iter().all(|r| r.matches(&stored.labels))
            && self.fields.iter().all(|(field, equality, value)| {
                let is = match field {
                    Field::Name => &key.name,
                    Field::Namespace => &key.namespace,
                };
                (is == value) == (*equality == Equality::Equal)
            })
    }
}

impl Requirement {
    fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        match self {
            Self::In(key, values) => labels.get(key).is_some_and(|v| values.contains(v)),
            Self::NotIn(key, values) => labels.get(key).is_none_or(|v| !values.contains(v)),
            Self::Exists(key) => labels.contains_key(key),
            Self::Absent(key) => !labels.contains_key(key),
        }
    }
}

/// Splits at commas that are outside parentheses.
fn split_terms(text: &str) -> Vec<&str> {
    let mut terms = Vec::new();
    let mut depth = 0_usize;
    let mut start = 0;
    for (index, character) in text.char_indices() {
        match character {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            ',' if depth == 0 => {
                terms.push(&text[start..index]);
                start = index + 1;
            }
            _ => {}
        }
    }
    if !text.trim().is_empty() {
        terms.push(&text[start..]);
    }
    terms
}

fn refuse(term: &str, why: &str) -> ApiError {
    ApiError::bad_request(format!("unable to parse requirement {term:?}: {why}"))
}

fn requirement(term: &str) -> Result<Requirement, ApiError> {
    let key = |text: &str| -> Result<String, ApiError> {
        let text = text.trim();
        metadata::qualified_name(text).map_err(|why| refuse(term, &format!("the key {text:?} {why}")))?;
        Ok(text.to_owned())
    };
    let value = |text: &str| -> Result<String, ApiError> {
        let text = text.trim();
        metadata::label_value(text).map_err(|why| refuse(term, &why))?;
        Ok(text.to_owned())
    };
    if let Some(name) = term.strip_prefix('!') {
        return Ok(Requirement::Absent(key(name)?));
    }
    if let Some((head, set)) = term.split_once('(') {
        let set = set.trim_end().strip_suffix(')').ok_or_else(|| refuse(term, "expected ')'"))?;
        let values = set.split(',').map(value).collect::<Result<Vec<_>, _>>()?;
        let mut words = head.split_whitespace();
        return match (words.next(), words.next(), words.next()) {
            (Some(name), Some("in"), None) => Ok(Requirement::In(key(name)?, values)),
            (Some(name), Some("notin"), None) => Ok(Requirement::NotIn(key(name)?, values)),
            _ => Err(refuse(term, "expected 'in' or 'notin'")),
        };
    }
    if let Some((name, text)) = term.split_once("!=") {
        return Ok(Requirement::NotIn(key(name)?, vec![value(text)?]));
    }
    if let Some((name, text)) = term.split_once("==").or_else(|| term.split_once('=')) {
        return Ok(Requirement::In(key(name)?, vec![value(text)?]));
    }
    Ok(Requirement::Exists(key(term)?))
}

fn field(term: &str) -> Result<(Field, Equality, String), ApiError> {
    let (name, equality, value) = if let Some((name, value)) = term.split_once("!=") {
        (name, Equality::Differs, value)
    } else if let Some((name, value)) = term.split_once("==").or_else(|| term.split_once('=')) {
        (name, Equality::Equal, value)
    } else {
        return Err(ApiError::bad_request(format!("invalid field selector {term:?}: expected name=value")));
    };
    let field = match name.trim() {
        "metadata.name" => Field::Name,
        "metadata.namespace" => Field::Namespace,
        other => {
            return Err(ApiError::bad_request(format!("field label not supported: {other}; supported: metadata.name, metadata.namespace")));
        }
    };
    Ok((field, equality, value.trim().to_owned()))
}
