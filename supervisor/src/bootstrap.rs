//! What the driver hands over: one JSON document on standard input, and nothing else.
//!
//! The token and the gateway's CA never touch a file, an argument or an environment. The
//! document is read once, checked strictly, and wiped.

use std::{
    borrow::Cow,
    io::Read,
    path::{Path, PathBuf},
};

use serde::Deserialize;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::limits::session::BOOTSTRAP_BYTES;

/// The version of the document that this build reads.
const VERSION: u32 = 1;

/// Everything a supervisor starts from.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bootstrap {
    version: u32,
    /// UID of the `OpenShellSandbox`.
    pub sandbox_id: String,
    /// Its name, for people.
    pub sandbox_name: String,
    /// Where the gateway is and how it is recognised.
    pub gateway: GatewayAccess,
    /// What the supervisor shows to the gateway.
    pub token: Token,
    /// The sandbox's directory; held by an exclusive lock.
    pub directory: PathBuf,
    /// The agent's working directory and home.
    pub workspace: PathBuf,
    /// Who the agent runs as, where the driver runs as root.
    #[serde(default)]
    pub run_as: Option<RunAs>,
    /// Paths that no policy may grant.
    #[serde(default)]
    pub protected_paths: Vec<PathBuf>,
}

/// The way to the gateway.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GatewayAccess {
    /// `https://host:port`; `http://` only on loopback and without a CA.
    pub endpoint: String,
    /// Name in the gateway's certificate.
    #[serde(default)]
    pub server_name: String,
    /// The only CA that is trusted for it.
    #[serde(default)]
    pub ca_pem: String,
    /// Where that CA is, if it may be another one some day: read anew for each connection.
    #[serde(skip)]
    pub ca_file: Option<PathBuf>,
}

/// An unprivileged user.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunAs {
    /// Numeric user id, not 0.
    pub uid: u32,
    /// Numeric group id, not 0.
    pub gid: u32,
}

/// The sandbox token. Wiped when dropped, and never shown.
#[derive(Clone, Deserialize, Zeroize, ZeroizeOnDrop)]
#[serde(transparent)]
pub struct Token(String);

impl Token {
    /// The token itself.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token(..)")
    }
}

/// A bootstrap that is refused.
#[derive(Debug, thiserror::Error)]
pub enum BootstrapError {
    /// Standard input could not be read.
    #[error("the bootstrap could not be read from standard input: {0}")]
    Read(#[from] std::io::Error),
    /// It is longer than any real one.
    #[error("the bootstrap is longer than {BOOTSTRAP_BYTES} bytes; standard input must be the driver's pipe")]
    TooLong,
    /// Not the JSON that is expected. The text is never shown: it may hold the token.
    #[error(
        "the bootstrap is not what a driver writes (line {line}, column {column}): {what}; this binary is started by a driver, not by hand"
    )]
    Malformed {
        /// Line from 1.
        line: usize,
        /// Column from 1.
        column: usize,
        /// What is wrong.
        what: String,
    },
    /// A value cannot be used.
    #[error("the bootstrap's {field} {why}")]
    Invalid {
        /// Which field.
        field: &'static str,
        /// What is wrong with it.
        why: String,
    },
}

impl Bootstrap {
    /// Reads the document, to the end of the input.
    pub fn document(input: impl Read) -> Result<Zeroizing<Vec<u8>>, BootstrapError> {
        let mut text = Zeroizing::new(Vec::with_capacity(16 * 1024));
        input.take(BOOTSTRAP_BYTES as u64 + 1).read_to_end(&mut text)?;
        if text.len() > BOOTSTRAP_BYTES {
            return Err(BootstrapError::TooLong);
        }
        Ok(text)
    }

    /// Checks a document.
    pub fn parse(document: &[u8]) -> Result<Self, BootstrapError> {
        let bootstrap: Self = serde_json::from_slice(document).map_err(|error| BootstrapError::Malformed {
            line: error.line(),
            column: error.column(),
            what: classify(&error),
        })?;
        bootstrap.check()?;
        Ok(bootstrap)
    }

    fn check(&self) -> Result<(), BootstrapError> {
        let invalid = |field, why: &str| Err(BootstrapError::Invalid { field, why: why.to_owned() });
        if self.version != VERSION {
            return invalid(
                "version",
                &format!("is {}, and this build reads {VERSION}; use the supervisor that belongs to the gateway", self.version),
            );
        }
        if self.sandbox_id.is_empty() {
            return invalid("sandbox_id", "is empty");
        }
        if self.token.expose().is_empty() || !self.token.expose().bytes().all(|b| b.is_ascii_graphic()) {
            return invalid("token", "is empty or not a token");
        }
        absolute("directory", &self.directory)?;
        absolute("workspace", &self.workspace)?;
        for path in &self.protected_paths {
            absolute("protected_paths", path)?;
        }
        if self.run_as.is_some_and(|r| r.uid == 0 || r.gid == 0) {
            return invalid("run_as", "is root; the agent never runs as root");
        }
        self.gateway.check()
    }
}

impl GatewayAccess {
    /// The CA as it is now; the last one known if that cannot be read.
    pub fn authority(&self) -> Cow<'_, str> {
        let now = self.ca_file.as_ref().and_then(|file| std::fs::read_to_string(file).ok());
        now.filter(|pem| !pem.is_empty()).map_or(Cow::Borrowed(&self.ca_pem), Cow::Owned)
    }

    /// Whether it can be used, and is safe to.
    pub fn check(&self) -> Result<(), BootstrapError> {
        let invalid = |field, why: &str| Err(BootstrapError::Invalid { field, why: why.to_owned() });
        let Ok(uri) = self.endpoint.parse::<http::Uri>() else { return invalid("gateway.endpoint", "is no URL") };
        let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
        match uri.scheme_str() {
            Some("https") if self.ca_pem.is_empty() => invalid("gateway.ca_pem", "is empty, and no other CA is trusted for the gateway"),
            Some("https") if self.server_name.is_empty() => invalid("gateway.server_name", "is empty"),
            Some("https") => Ok(()),
            Some("http") if is_loopback(host) => Ok(()),
            Some("http") => invalid("gateway.endpoint", "is plain http to another machine; the token would be readable on the way"),
            _ => invalid("gateway.endpoint", "is neither https:// nor http://"),
        }
    }
}

fn is_loopback(host: &str) -> bool {
    host.parse::<std::net::IpAddr>().is_ok_and(|a| a.is_loopback())
}

fn absolute(field: &'static str, path: &Path) -> Result<(), BootstrapError> {
    if path.is_absolute() && !path.components().any(|c| matches!(c, std::path::Component::ParentDir)) {
        return Ok(());
    }
    Err(BootstrapError::Invalid { field, why: format!("is {}, which is no absolute path without ..", path.display()) })
}

/// What is wrong, without quoting a value: serde's messages name fields and types, and values
/// only for the wrong type of a string.
fn classify(error: &serde_json::Error) -> String {
    let text = error.to_string();
    match text.split_once(" at line ") {
        Some((what, _)) if !what.contains("string \"") && !what.contains("invalid value") => what.to_owned(),
        _ => "a value has the wrong type".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document() -> serde_json::Value {
        serde_json::json!({
            "version": 1, "sandbox_id": "u", "sandbox_name": "demo",
            "gateway": { "endpoint": "https://127.0.0.1:17670", "server_name": "localhost", "ca_pem": "pem" },
            "token": "a.b.c", "directory": "/s/u", "workspace": "/s/u/workspace",
            "run_as": { "uid": 64001, "gid": 64001 }, "protected_paths": ["/s"]
        })
    }

    fn read(document: &serde_json::Value) -> Result<Bootstrap, String> {
        Bootstrap::parse(document.to_string().as_bytes()).map_err(|e| e.to_string())
    }

    #[test]
    fn reads_what_a_driver_writes_and_shows_no_token() {
        let bootstrap = read(&document()).unwrap();
        assert_eq!(bootstrap.token.expose(), "a.b.c");
        assert!(!format!("{bootstrap:?}").contains("a.b.c"));
    }

    #[test]
    fn refuses_what_it_does_not_know() {
        let changed = |pointer: &str, value: serde_json::Value| {
            let mut document = document();
            let (parent, key) = pointer.rsplit_once('/').unwrap();
            document.pointer_mut(parent).unwrap().as_object_mut().unwrap().insert(key.into(), value);
            read(&document).unwrap_err()
        };
        assert!(changed("/extra", true.into()).contains("unknown field `extra`"));
        assert!(changed("/gateway/insecure", true.into()).contains("unknown field `insecure`"));
        assert!(changed("/version", 2.into()).contains("is 2"));
        assert!(changed("/directory", "relative".into()).contains("no absolute path"));
        assert!(changed("/workspace", "/a/../b".into()).contains("no absolute path"));
        assert!(changed("/run_as", serde_json::json!({"uid": 0, "gid": 5})).contains("never runs as root"));
        assert!(changed("/gateway/endpoint", "http://10.0.0.1:1".into()).contains("plain http"));
        assert!(changed("/gateway/ca_pem", "".into()).contains("no other CA"));
        assert!(!changed("/sandbox_id", serde_json::json!({"token": "s3cret"})).contains("s3cret"));
        assert!(Bootstrap::parse(b"{").is_err());
        assert!(matches!(Bootstrap::document(std::io::repeat(b' ')), Err(BootstrapError::TooLong)));
    }
}
