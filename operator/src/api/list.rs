//! Lists: consistent over all their pages.
//!
//! The first page fixes a resourceVersion; later pages are read as of that version, from the
//! event ring. A page that asks for compacted history gets 410, and the client lists again.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::error::ApiError;
use super::kinds::Kind;
use super::request::{Query, VersionMatch};
use super::store::state::{Key, Scope, State, Stored};

/// One page.
pub(crate) struct Page {
    pub(crate) items: Vec<(Key, Arc<Stored>)>,
    pub(crate) resource_version: u64,
    next: Option<Token>,
    remaining: Option<usize>,
}

/// What `continue` carries.
#[derive(Serialize, Deserialize)]
struct Token {
    v: u8,
    rv: u64,
    ns: String,
    name: String,
}

impl Token {
    fn encode(&self) -> String {
        URL_SAFE_NO_PAD.encode(serde_json::to_vec(self).unwrap_or_default())
    }

    fn decode(text: &str) -> Result<Self, ApiError> {
        let bad = || ApiError::bad_request("continue key is not valid");
        let token: Self = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(text).map_err(|_| bad())?).map_err(|_| bad())?;
        if token.v == 1 { Ok(token) } else { Err(bad()) }
    }
}

/// Parses a resourceVersion.
pub(crate) fn version(text: &str) -> Result<u64, ApiError> {
    text.parse().map_err(|_| ApiError::bad_request(format!("invalid resource version {text:?}")))
}

/// Reads one page.
pub(crate) fn page(state: &State, scope: &Scope, query: &Query) -> Result<Page, ApiError> {
    let newest = state.resource_version();
    let wanted = query.resource_version.as_deref().map(version).transpose()?;
    let (at, start) = match &query.token {
        Some(token) => {
            if wanted.is_some_and(|v| v != 0) {
                return Err(ApiError::bad_request("specifying resource version is not allowed when using continue"));
            }
            let Token { rv, ns, name, .. } = Token::decode(token)?;
            (Some(rv), Some(Key { kind: scope.kind, namespace: ns, name }))
        }
        None if query.version_match == Some(VersionMatch::Exact) => {
            let exact = wanted.filter(|v| *v != 0);
            let exact = exact.ok_or_else(|| ApiError::bad_request("resourceVersionMatch=Exact needs a resourceVersion that is not 0"))?;
            (Some(exact), None)
        }
        None => (None, None),
    };
    if let Some(future) = at.or(wanted).filter(|v| *v > newest) {
        return Err(ApiError::future_version(future, newest));
    }
    let at = at.filter(|v| *v != newest);
    let matching = |(key, stored): &(Key, Arc<Stored>)| query.selector.matches(key, stored);
    let all: Vec<(Key, Arc<Stored>)> = match at {
        Some(old) => {
            let all = state.range_at(scope, start.as_ref(), old).map_err(|c| ApiError::expired(old, c.oldest))?;
            all.into_iter().filter(matching).collect()
        }
        None => state.range(scope, start.as_ref()).map(|(k, s)| (k.clone(), s.clone())).filter(matching).collect(),
    };
    let resource_version = at.unwrap_or(newest);
    let mut items = all;
    let (mut next, mut remaining) = (None, None);
    if let Some(limit) = query.limit
        && items.len() > limit
    {
        let rest = items.split_off(limit);
        remaining = Some(rest.len());
        next = rest.into_iter().next().map(|(key, _)| Token { v: 1, rv: resource_version, ns: key.namespace, name: key.name });
    }
    Ok(Page { items, resource_version, next, remaining })
}

impl Page {
    /// `metadata` of the list.
    pub(crate) fn metadata(&self) -> Value {
        let mut meta = json!({ "resourceVersion": self.resource_version.to_string() });
        if let (Some(next), Some(remaining)) = (&self.next, self.remaining) {
            meta["continue"] = json!(next.encode());
            meta["remainingItemCount"] = json!(remaining);
        }
        meta
    }

    /// The list as JSON; the objects are copied as they are stored.
    pub(crate) fn render(&self, kind: &Kind) -> Bytes {
        let size: usize = self.items.iter().map(|(_, s)| s.bytes.len() + 1).sum();
        let mut out = Vec::with_capacity(size + 256);
        let head =
            json!({ "apiVersion": kind.api_version(), "kind": format!("{}List", kind.name), "metadata": self.metadata() }).to_string();
        out.extend_from_slice(head.strip_suffix('}').unwrap_or(&head).as_bytes());
        out.extend_from_slice(b",\"items\":[");
        for (index, (_, stored)) in self.items.iter().enumerate() {
            if index > 0 {
                out.push(b',');
            }
            out.extend_from_slice(&stored.bytes);
        }
        out.extend_from_slice(b"]}");
        Bytes::from(out)
    }
}
