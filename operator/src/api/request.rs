//! What a request asks for: its path and its query, parsed strictly.

use std::sync::Arc;

use serde_json::Value;

use super::error::ApiError;
use super::kinds::{Kind, Kinds};
use super::patch::Force;
use super::selector::Selector;
use super::write::{Deletion, Part, Persist, Propagation};

/// Where a path leads.
#[derive(Debug)]
pub(crate) enum Target {
    /// Discovery and the like: the path without slashes around it.
    Info(Vec<String>),
    /// A collection, in one namespace or in all.
    Collection { kind: Arc<Kind>, namespace: Option<String> },
    /// One object, or its status.
    Object { kind: Arc<Kind>, namespace: String, name: String, part: Part },
}

impl Target {
    /// Parses a path. Unknown kinds and subresources are not found.
    pub(crate) fn parse(path: &str, kinds: &Kinds) -> Result<Self, ApiError> {
        let decoded = percent_decode(path).ok_or_else(|| ApiError::bad_request("the path is not valid"))?;
        let segments: Vec<&str> = decoded.split('/').filter(|s| !s.is_empty()).collect();
        let (group, version, rest) = match segments.as_slice() {
            ["api", version, rest @ ..] => ("", *version, rest),
            ["apis", group, version, rest @ ..] => (*group, *version, rest),
            _ => ("", "", &[][..]),
        };
        if rest.is_empty() {
            return Ok(Self::Info(segments.into_iter().map(str::to_owned).collect()));
        }
        let find = |plural: &str| kinds.by_plural(group, version, plural).cloned().ok_or_else(ApiError::no_such_path);
        match rest {
            [plural] => Ok(Self::Collection { kind: find(plural)?, namespace: None }),
            ["namespaces", namespace, plural] => Ok(Self::Collection { kind: find(plural)?, namespace: Some((*namespace).to_owned()) }),
            ["namespaces", namespace, plural, name, sub @ ..] => {
                let kind = find(plural)?;
                let part = match sub {
                    [] => Part::Main,
                    ["status"] if kind.has_status => Part::Status,
                    _ => return Err(ApiError::no_such_path()),
                };
                Ok(Self::Object { kind, namespace: (*namespace).to_owned(), name: (*name).to_owned(), part })
            }
            _ => Err(ApiError::no_such_path()),
        }
    }
}

/// Decodes `%XX`, and `+` as it is.
fn percent_decode(text: &str) -> Option<String> {
    decode(text, PlusMeans::Plus)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum PlusMeans {
    Plus,
    Space,
}

fn decode(text: &str, plus: PlusMeans) -> Option<String> {
    let mut bytes = text.bytes();
    let mut out = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        match byte {
            b'%' => {
                let high = char::from(bytes.next()?).to_digit(16)?;
                let low = char::from(bytes.next()?).to_digit(16)?;
                out.push((high * 16 + low) as u8);
            }
            b'+' if plus == PlusMeans::Space => out.push(b' '),
            other => out.push(other),
        }
    }
    String::from_utf8(out).ok()
}

/// How a list relates to the version that it names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum VersionMatch {
    NotOlderThan,
    Exact,
}

/// The query of a request. Parameters that an apiserver knows and that mean nothing here
/// (`pretty`, `timeout`) are taken and ignored; others are refused.
#[derive(Debug, Default)]
pub(crate) struct Query {
    pub(crate) selector: Selector,
    pub(crate) watch: bool,
    pub(crate) bookmarks: bool,
    pub(crate) initial_events: Option<bool>,
    pub(crate) resource_version: Option<String>,
    pub(crate) version_match: Option<VersionMatch>,
    pub(crate) timeout_seconds: Option<u64>,
    pub(crate) limit: Option<usize>,
    pub(crate) token: Option<String>,
    pub(crate) persist: Persist,
    pub(crate) force: Option<Force>,
    pub(crate) manager: Option<String>,
    pub(crate) propagation: Option<Propagation>,
}

impl Query {
    /// Parses a query string.
    pub(crate) fn parse(query: &str) -> Result<Self, ApiError> {
        let mut parsed = Self::default();
        let (mut labels, mut fields) = (String::new(), String::new());
        for pair in query.split('&').filter(|p| !p.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let bad = || ApiError::bad_request(format!("the query parameter {name:?} is not valid"));
            let name_text = decode(name, PlusMeans::Space).ok_or_else(bad)?;
            let value = decode(value, PlusMeans::Space).ok_or_else(bad)?;
            let flag = || match value.as_str() {
                "" | "true" | "1" => Ok(true),
                "false" | "0" => Ok(false),
                _ => Err(bad()),
            };
            let text = || Some(value.clone()).filter(|v| !v.is_empty());
            match name_text.as_str() {
                "labelSelector" => labels.clone_from(&value),
                "fieldSelector" => fields.clone_from(&value),
                "watch" => parsed.watch = flag()?,
                "allowWatchBookmarks" => parsed.bookmarks = flag()?,
                "sendInitialEvents" => parsed.initial_events = Some(flag()?),
                "resourceVersion" => parsed.resource_version = text(),
                "resourceVersionMatch" => {
                    parsed.version_match = match value.as_str() {
                        "" => None,
                        "NotOlderThan" => Some(VersionMatch::NotOlderThan),
                        "Exact" => Some(VersionMatch::Exact),
                        _ => return Err(bad()),
                    }
                }
                "timeoutSeconds" => parsed.timeout_seconds = Some(value.parse().map_err(|_| bad())?),
                "limit" => parsed.limit = Some(value.parse().map_err(|_| bad())?).filter(|l| *l > 0),
                "continue" => parsed.token = text(),
                "dryRun" => parsed.persist = dry_run(&value).ok_or_else(bad)?,
                "force" => parsed.force = Some(if flag()? { Force::Yes } else { Force::No }),
                "fieldManager" => {
                    if value.len() > 128 || value.chars().any(char::is_control) {
                        return Err(bad());
                    }
                    parsed.manager = text();
                }
                "fieldValidation" => {
                    if !matches!(value.as_str(), "" | "Ignore" | "Warn" | "Strict") {
                        return Err(bad());
                    }
                }
                "propagationPolicy" => parsed.propagation = Some(propagation(&value).ok_or_else(bad)?),
                "pretty" | "timeout" | "gracePeriodSeconds" | "orphanDependents" => {}
                _ => return Err(ApiError::bad_request(format!("unknown query parameter {name:?}"))),
            }
        }
        parsed.selector = Selector::parse(&labels, &fields)?;
        Ok(parsed)
    }
}

fn dry_run(value: &str) -> Option<Persist> {
    match value {
        "" => Some(Persist::Yes),
        "All" => Some(Persist::DryRun),
        _ => None,
    }
}

fn propagation(value: &str) -> Option<Propagation> {
    match value {
        "Background" => Some(Propagation::Background),
        "Foreground" => Some(Propagation::Foreground),
        "Orphan" => Some(Propagation::Orphan),
        _ => None,
    }
}

#[derive(serde::Deserialize, Default)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct DeleteOptions {
    #[serde(rename = "apiVersion")]
    _api_version: Option<String>,
    #[serde(rename = "kind")]
    _kind: Option<String>,
    #[serde(rename = "gracePeriodSeconds")]
    _grace_period_seconds: Option<i64>,
    orphan_dependents: Option<bool>,
    propagation_policy: Option<String>,
    dry_run: Vec<String>,
    preconditions: Option<Preconditions>,
}

#[derive(serde::Deserialize, Default)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Preconditions {
    uid: Option<String>,
    resource_version: Option<String>,
}

/// Options of a deletion, from the body and the query.
pub(crate) fn deletion(body: &[u8], query: &Query) -> Result<(Deletion, Persist), ApiError> {
    let mut deletion = Deletion { propagation: query.propagation, ..Deletion::default() };
    let mut persist = query.persist;
    if body.iter().all(u8::is_ascii_whitespace) {
        return Ok((deletion, persist));
    }
    let value: Value = super::body::object(body)?;
    let options: DeleteOptions =
        serde_json::from_value(value).map_err(|error| ApiError::bad_request(format!("the DeleteOptions are not valid: {error}")))?;
    if let Some(preconditions) = options.preconditions {
        deletion.uid = preconditions.uid;
        deletion.resource_version = preconditions.resource_version;
    }
    if let Some(policy) = options.propagation_policy {
        let refuse = || {
            ApiError::bad_request(format!(
                "propagationPolicy: Unsupported value: {policy:?}: supported values: \"Background\", \"Foreground\", \"Orphan\""
            ))
        };
        deletion.propagation = Some(propagation(&policy).ok_or_else(refuse)?);
    } else if options.orphan_dependents == Some(true) {
        deletion.propagation = Some(Propagation::Orphan);
    }
    for value in options.dry_run {
        persist = dry_run(&value).ok_or_else(|| ApiError::bad_request("dryRun: the only supported value is \"All\""))?;
    }
    Ok((deletion, persist))
}
