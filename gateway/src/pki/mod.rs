//! The keys and certificates of a local gateway: made on first start, checked on every one.
//!
//! | File below the TLS directory | What it is |
//! |---|---|
//! | `ca.crt`, `ca.key` | the authority (P-256); nothing outside this machine trusts it |
//! | `server/tls.crt`, `server/tls.key` | the gateway's certificate |
//! | `client/tls.crt`, `client/tls.key` | the user's certificate; OU `openshell-user` |
//! | `jwt/signing.pem`, `jwt/public.pem`, `jwt/kid` | Ed25519 key of the sandbox tokens |
//!
//! A leaf is issued again when it does not belong to the authority or to its key, when it ends
//! soon, or when a name that the gateway needs is missing. The key of a pair is written before
//! its certificate, so a gateway that is killed in between finds a pair that does not match and
//! issues it again. The authority itself is never replaced silently while its certificate is
//! still good: everybody who was given it would be locked out.

mod authority;
mod registration;
mod token;

use std::path::{Path, PathBuf};

pub use authority::Authority;
pub use openshell_operator::pki::{Leaf, Purpose};
pub use registration::{GATEWAY_NAME, Registration, endpoint, register};
pub use token::{SandboxTokens, TokenError};

use crate::state::{StateError, private_directory};

/// Why there are no usable keys.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    /// A file could not be read or written.
    #[error(transparent)]
    State(#[from] StateError),
    /// The authority's certificate is there and its key is not.
    #[error("{} is there, but {} is missing", certificate.display(), key.display())]
    AuthorityIncomplete {
        /// `ca.crt`.
        certificate: PathBuf,
        /// `ca.key`.
        key: PathBuf,
    },
    /// A file holds something else.
    #[error("{} is not usable: {reason}", path.display())]
    Unusable {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// A certificate could not be made.
    #[error(transparent)]
    Issue(#[from] openshell_operator::pki::PkiError),
}

/// Names and addresses under which a gateway is reached, beside those that are configured.
pub const SERVER_NAMES: [&str; 10] = [
    "openshell",
    "openshell.openshell.svc",
    "openshell.openshell.svc.cluster.local",
    "localhost",
    "openshell.localhost",
    "*.openshell.localhost",
    "host.docker.internal",
    "host.containers.internal",
    "127.0.0.1",
    "::1",
];

/// Everything that a local gateway needs to prove who it is and to know who asks.
pub struct Pki {
    /// The authority's certificate, PEM.
    pub ca_pem: String,
    /// The gateway's certificate and key.
    pub server: Leaf,
    /// The user's certificate and key.
    pub client: Leaf,
    /// Mints and checks sandbox tokens.
    pub tokens: SandboxTokens,
}

impl Pki {
    /// Loads what is in `directory` and makes what is missing. `names` are further names and
    /// addresses of the server.
    pub fn open(directory: &Path, names: &[String]) -> Result<Self, PkiError> {
        for part in ["server", "client", "jwt"] {
            private_directory(&directory.join(part))?;
        }
        let authority = Authority::open(directory)?;
        let mut server_names: Vec<String> = SERVER_NAMES.iter().map(|&n| n.to_owned()).collect();
        server_names.extend(names.iter().filter(|n| !SERVER_NAMES.contains(&n.as_str())).cloned());
        let server = authority.keep(&directory.join("server"), &Purpose::Server { names: server_names })?;
        let client = authority.keep(&directory.join("client"), &Purpose::User)?;
        let tokens = SandboxTokens::open(&directory.join("jwt"), GATEWAY_NAME)?;
        Ok(Self { ca_pem: authority.pem().to_owned(), server, client, tokens })
    }
}

#[cfg(test)]
mod tests;
