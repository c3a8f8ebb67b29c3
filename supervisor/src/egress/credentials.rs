//! Credentials: placeholders in, values out, at the last hop and for bound endpoints only.
//!
//! The agent holds a placeholder. When it sends one in a header to an endpoint that the credential
//! is bound to (host, port, path), egress puts the value in its place, after the policy has allowed
//! the request and before it goes into the connection that was dialled. A placeholder may be
//!
//! * the whole header value,
//! * what follows a scheme: `Bearer <placeholder>`,
//! * a part of the user or password of `Basic` credentials.
//!
//! Anywhere else in a header, at any other endpoint, or after its expiry, the request is refused:
//! a placeholder that goes out as it is would be a request that silently lacks its credential.
//! Bodies are not looked at.

use std::time::SystemTime;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::{HeaderMap, HeaderValue};
use openshell_policy::{glob::PathSelector, host::HostPattern};
use openshell_proto::supervisor::{Credential, CredentialBinding};
use zeroize::Zeroizing;

use super::InstallError;
use crate::limits::egress::{CREDENTIAL_BYTES, CREDENTIALS};

/// What every placeholder that we hand out begins with. Found where no known placeholder is, it is
/// one that has been revoked.
const MARKER: &str = "openshell:resolve:";

/// The credentials of one revision. Values are overwritten when the revision goes.
#[derive(Default)]
pub struct Vault {
    entries: Vec<Entry>,
}

struct Entry {
    placeholder: String,
    value: Zeroizing<String>,
    bindings: Vec<Binding>,
    provider: String,
    expires: Option<SystemTime>,
}

struct Binding {
    host: HostPattern,
    port: u16,
    path: PathSelector,
}

impl Binding {
    fn covers(&self, place: &Place<'_>) -> bool {
        self.port == place.port && self.host.matches(place.host) && self.path.matches(place.path)
    }
}

/// Where a request goes.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// The decided host.
    pub host: &'a str,
    /// The decided port.
    pub port: u16,
    /// Canonical path.
    pub path: &'a str,
    /// Whether the connection upstream is encrypted.
    pub transport: Transport,
}

/// How a request travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// TLS, verified.
    Tls,
    /// In the clear.
    Plain,
}

/// Why a request with a placeholder is refused. Holds no placeholder and no value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CredentialError {
    /// The credential is not bound to this endpoint.
    #[error("header {header} holds a placeholder of provider {provider:?}, which is not bound to this endpoint")]
    Mismatch {
        /// The header's name.
        header: String,
        /// Where the credential comes from.
        provider: String,
    },
    /// The placeholder is not where one can be replaced.
    #[error(
        "header {header} holds a placeholder where none can be replaced: it has to be the whole value, follow a scheme (`Bearer …`), or be in Basic credentials"
    )]
    Form {
        /// The header's name.
        header: String,
    },
    /// The credential has expired.
    #[error("the credential of provider {provider:?} has expired")]
    Expired {
        /// Where the credential comes from.
        provider: String,
    },
    /// A placeholder that does not, or no longer, stand for a credential.
    #[error("header {header} holds a placeholder that stands for no credential of this sandbox (revoked, or of an older revision)")]
    Unknown {
        /// The header's name.
        header: String,
    },
}

impl CredentialError {
    /// The stable code that the client gets.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Mismatch { .. } => "credential_endpoint_mismatch",
            Self::Form { .. } => "invalid_credential_placeholder",
            Self::Expired { .. } | Self::Unknown { .. } => "credential_unavailable",
        }
    }
}

impl Vault {
    /// Takes the credentials of a configuration. One that cannot be used refuses all of them.
    pub fn new(credentials: Vec<Credential>) -> Result<Self, InstallError> {
        if credentials.len() > CREDENTIALS {
            return Err(InstallError::Credential { env: credentials[CREDENTIALS].env.clone(), reason: "there are too many credentials" });
        }
        let mut entries: Vec<Entry> = Vec::with_capacity(credentials.len());
        for credential in credentials {
            let Credential { env, placeholder, value, bindings, provider, expires } = credential;
            let value = Zeroizing::new(value);
            let refuse = |reason| Err(InstallError::Credential { env: env.clone(), reason });
            if placeholder.len() < 8 || !placeholder.bytes().all(|byte| byte.is_ascii_graphic()) {
                return refuse("its placeholder is too short or not plain text");
            }
            if entries.iter().any(|other| other.placeholder.contains(&placeholder) || placeholder.contains(&other.placeholder)) {
                return refuse("its placeholder is a part of another one");
            }
            if value.is_empty() || value.len() > CREDENTIAL_BYTES {
                return refuse("its value is empty or too long");
            }
            // CR, LF and NUL would end the header it is put into (RFC 9110, 5.5).
            if value.bytes().any(|byte| byte < b' ' || byte == 0x7f) {
                return refuse("its value holds a control character");
            }
            let Some(bindings) = bindings.iter().map(bind).collect::<Option<Vec<_>>>() else {
                return refuse("a binding has no valid host, port or path");
            };
            let expires = expires.and_then(|time| {
                SystemTime::UNIX_EPOCH.checked_add(std::time::Duration::from_secs(u64::try_from(time.seconds).unwrap_or(0)))
            });
            entries.push(Entry { placeholder, value, bindings, provider, expires });
        }
        Ok(Self { entries })
    }

    /// Whether any credential is bound to this endpoint, whatever the path.
    pub fn bound(&self, host: &str, port: u16) -> bool {
        self.entries.iter().flat_map(|entry| &entry.bindings).any(|binding| binding.port == port && binding.host.matches(host))
    }

    /// Whether a text holds a placeholder, known or not.
    pub fn mentions(&self, text: &str) -> bool {
        text.contains(MARKER) || self.entries.iter().any(|entry| text.contains(&entry.placeholder))
    }

    /// Replaces every placeholder in a request's headers. On an error nothing may be sent.
    pub fn inject(&self, headers: &mut HeaderMap, place: &Place<'_>) -> Result<usize, CredentialError> {
        let mut replaced = 0;
        for (name, value) in headers.iter_mut() {
            if let Some(new) = self.rewrite(name.as_str(), value.as_bytes(), place)? {
                *value = new;
                replaced += 1;
            }
        }
        Ok(replaced)
    }

    fn rewrite(&self, header: &str, value: &[u8], place: &Place<'_>) -> Result<Option<HeaderValue>, CredentialError> {
        if let Some((scheme, decoded)) = basic(value) {
            if !self.mentions(&decoded) {
                return self.refuse_stray(header, value).map(|()| None);
            }
            let mut text = Zeroizing::new(decoded.as_str().to_owned());
            for entry in &self.entries {
                if text.contains(&entry.placeholder) {
                    entry.usable(header, place)?;
                    *text = text.replace(&entry.placeholder, &entry.value);
                }
            }
            if text.contains(MARKER) {
                return Err(CredentialError::Unknown { header: header.to_owned() });
            }
            let encoded = Zeroizing::new(format!("{scheme} {}", STANDARD.encode(text.as_bytes())));
            return secret(header, encoded.as_bytes()).map(Some);
        }
        for entry in &self.entries {
            let placeholder = entry.placeholder.as_bytes();
            if !contains(value, placeholder) {
                continue;
            }
            // Where it goes is judged before how it is written: the worse error is the one to see.
            entry.usable(header, place)?;
            let Some(before) = value.strip_suffix(placeholder) else {
                return Err(CredentialError::Form { header: header.to_owned() });
            };
            let scheme = before.strip_suffix(b" ").unwrap_or(before);
            let is_scheme = !scheme.is_empty() && before.len() == scheme.len() + 1 && scheme.iter().all(|byte| is_token(*byte));
            if !before.is_empty() && !is_scheme {
                return Err(CredentialError::Form { header: header.to_owned() });
            }
            let mut text = Zeroizing::new(Vec::with_capacity(before.len() + entry.value.len()));
            text.extend_from_slice(before);
            text.extend_from_slice(entry.value.as_bytes());
            return secret(header, &text).map(Some);
        }
        self.refuse_stray(header, value).map(|()| None)
    }

    /// Refuses a value with a placeholder that stands for nothing, or with a known one in a place
    /// where none belongs.
    fn refuse_stray(&self, header: &str, value: &[u8]) -> Result<(), CredentialError> {
        if contains(value, MARKER.as_bytes()) {
            return Err(CredentialError::Unknown { header: header.to_owned() });
        }
        if self.entries.iter().any(|entry| contains(value, entry.placeholder.as_bytes())) {
            return Err(CredentialError::Form { header: header.to_owned() });
        }
        Ok(())
    }
}

impl Entry {
    fn usable(&self, header: &str, place: &Place<'_>) -> Result<(), CredentialError> {
        // On the port of HTTPS nothing secret goes out in the clear, whatever is bound there.
        let in_the_clear = place.transport == Transport::Plain && place.port == 443;
        if in_the_clear || !self.bindings.iter().any(|binding| binding.covers(place)) {
            return Err(CredentialError::Mismatch { header: header.to_owned(), provider: self.provider.clone() });
        }
        if self.expires.is_some_and(|expires| expires <= SystemTime::now()) {
            return Err(CredentialError::Expired { provider: self.provider.clone() });
        }
        Ok(())
    }
}

/// Hosts and paths are written as in an endpoint of a policy.
fn bind(binding: &CredentialBinding) -> Option<Binding> {
    let host = HostPattern::parse(&binding.host).ok()?;
    let port = u16::try_from(binding.port).ok().filter(|port| *port != 0)?;
    let path_is_valid = binding.path.is_empty() || binding.path.starts_with('/') || binding.path.starts_with("**");
    let path = PathSelector::parse(&binding.path).ok().filter(|_| path_is_valid)?;
    Some(Binding { host, port, path })
}

/// The scheme as written and the decoded text of `Basic` credentials.
fn basic(value: &[u8]) -> Option<(&str, Zeroizing<String>)> {
    let text = std::str::from_utf8(value).ok()?;
    let (scheme, encoded) = text.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let decoded = STANDARD.decode(encoded.trim()).ok()?;
    String::from_utf8(decoded).ok().map(|decoded| (scheme, Zeroizing::new(decoded)))
}

fn secret(header: &str, value: &[u8]) -> Result<HeaderValue, CredentialError> {
    let mut value = HeaderValue::from_bytes(value).map_err(|_| CredentialError::Form { header: header.to_owned() })?;
    value.set_sensitive(true);
    Ok(value)
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle)
}

fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
#[path = "credentials_tests.rs"]
mod tests;
