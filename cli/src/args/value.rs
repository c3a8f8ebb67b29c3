//! Values of flags that have a form of their own.

use std::str::FromStr;
use std::time::Duration;

/// `KEY=VALUE`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct KeyValue {
    pub(crate) key: String,
    pub(crate) value: String,
}

impl FromStr for KeyValue {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('=') {
            Some((key, value)) if !key.is_empty() => Ok(Self { key: key.to_owned(), value: value.to_owned() }),
            _ => Err("expected KEY=VALUE".to_owned()),
        }
    }
}

/// `KEY[=VALUE]`: without a value it is taken from the environment, which keeps it out of the
/// process list and the shell's history.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Credential {
    pub(crate) key: String,
    pub(crate) value: Option<String>,
}

impl std::fmt::Debug for Credential {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credential").field("key", &self.key).finish_non_exhaustive()
    }
}

impl FromStr for Credential {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (key, value) = match text.split_once('=') {
            Some((key, value)) => (key, Some(value.to_owned())),
            None => (text, None),
        };
        if key.is_empty() {
            return Err("expected KEY or KEY=VALUE".to_owned());
        }
        if value.as_deref() == Some("") {
            return Err(format!("{key} has an empty value; leave out the `=` to take it from the environment"));
        }
        Ok(Self { key: key.to_owned(), value })
    }
}

/// `host[:port][/path]`: where credentials may go. Kept as text once it is known to be one; the
/// gateway reads the same form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Destination(String);

impl Destination {
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Destination {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.contains("://") {
            return Err("leave out the scheme: host[:port][/path]".to_owned());
        }
        if text.contains([',', ' ', '\t', '\n']) {
            return Err("one endpoint per --endpoint, without spaces or commas".to_owned());
        }
        let authority = text.split_once('/').map_or(text, |(authority, _)| authority);
        let (host, port) = match authority.strip_prefix('[').and_then(|a| a.split_once(']')) {
            Some((host, rest)) => (host, rest.strip_prefix(':')),
            None => authority.rsplit_once(':').map_or((authority, None), |(host, port)| (host, Some(port))),
        };
        if host.is_empty() || host.contains(':') && !authority.starts_with('[') {
            return Err("expected host[:port][/path]; an IPv6 address stands in brackets".to_owned());
        }
        if let Some(port) = port {
            port.parse::<u16>().ok().filter(|p| *p > 0).ok_or_else(|| format!("`{port}` is no port (1 to 65535)"))?;
        }
        Ok(Self(text.to_owned()))
    }
}

/// `30s`, `5m`, `2h`, `1d`.
pub(crate) fn ago(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let number: u64 = digits.parse().map_err(|_| "expected a number and a unit: 30s, 5m, 2h, 1d".to_owned())?;
    let unit = match &text[digits.len()..] {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        _ => return Err("expected one of the units s, m, h, d".to_owned()),
    };
    number.checked_mul(unit).map(Duration::from_secs).ok_or_else(|| "that is too long ago".to_owned())
}

/// A JSON object.
pub(crate) fn object(text: &str) -> Result<serde_json::Map<String, serde_json::Value>, String> {
    serde_json::from_str(text).map_err(|e| format!("expected a JSON object: {e}"))
}

/// The form of a label selector, judged by the gateway.
pub(crate) fn non_empty(text: &str) -> Result<String, String> {
    if text.trim().is_empty() { Err("must not be empty".to_owned()) } else { Ok(text.to_owned()) }
}
