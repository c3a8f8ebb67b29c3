//! Registration of the local gateway where the command line and the published SDK look:
//! `gateways/openshell/` and `active_gateway` below the configuration directory.

use std::net::SocketAddr;
use std::path::Path;

use serde::Serialize;

use super::Leaf;
use crate::state::{StateError, keep_private, private_directory, read_text};

/// The name under which the local gateway is registered.
pub const GATEWAY_NAME: &str = "openshell";

/// How clients reach the gateway.
#[derive(Debug)]
pub enum Registration<'a> {
    /// TLS with a client certificate.
    Mtls {
        /// The authority, PEM.
        ca_pem: &'a str,
        /// The user's certificate and key.
        client: &'a Leaf,
    },
    /// No TLS; loopback only.
    Plaintext,
}

#[derive(Serialize)]
struct Metadata {
    name: &'static str,
    gateway_endpoint: String,
    is_remote: bool,
    gateway_port: u16,
    auth_mode: &'static str,
}

/// The URL of a gateway that listens on `address`. A wildcard is reached through loopback.
pub fn endpoint(address: SocketAddr, scheme: &str) -> String {
    let host = match address {
        SocketAddr::V4(a) if a.ip().is_unspecified() => "127.0.0.1".to_owned(),
        SocketAddr::V6(a) if a.ip().is_unspecified() => "[::1]".to_owned(),
        SocketAddr::V4(a) => a.ip().to_string(),
        SocketAddr::V6(a) => format!("[{}]", a.ip()),
    };
    format!("{scheme}://{host}:{}", address.port())
}

/// Writes what clients need, and makes this gateway the active one if there is none.
pub fn register(config: &Path, address: SocketAddr, registration: &Registration<'_>) -> Result<String, StateError> {
    let directory = config.join("gateways").join(GATEWAY_NAME);
    let (scheme, auth_mode) = match registration {
        Registration::Mtls { .. } => ("https", "mtls"),
        Registration::Plaintext => ("http", "plaintext"),
    };
    let endpoint = endpoint(address, scheme);
    private_directory(&directory)?;
    if let Registration::Mtls { ca_pem, client } = registration {
        let mtls = directory.join("mtls");
        private_directory(&mtls)?;
        keep_private(&mtls.join("ca.crt"), ca_pem.as_bytes())?;
        keep_private(&mtls.join("tls.key"), client.key.as_bytes())?;
        keep_private(&mtls.join("tls.crt"), client.certificate.as_bytes())?;
    }
    let metadata =
        Metadata { name: GATEWAY_NAME, gateway_endpoint: endpoint.clone(), is_remote: false, gateway_port: address.port(), auth_mode };
    let text = serde_json::to_string_pretty(&metadata).expect("plain strings and numbers");
    keep_private(&directory.join("metadata.json"), format!("{text}\n").as_bytes())?;
    let active = config.join("active_gateway");
    if read_text(&active)?.is_none_or(|name| name.trim().is_empty()) {
        keep_private(&active, GATEWAY_NAME.as_bytes())?;
    }
    Ok(endpoint)
}
