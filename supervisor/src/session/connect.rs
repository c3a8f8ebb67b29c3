//! The connection: HTTP/2 over TLS, with the gateway's own CA and no other.

use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};

use crate::{bootstrap::GatewayAccess, limits::session::CONNECT_TIME};

/// The gateway could not be reached.
#[derive(Debug, thiserror::Error)]
#[error("{endpoint}: {why}")]
pub struct ConnectError {
    endpoint: String,
    why: String,
}

impl ConnectError {
    pub(super) fn aborted(gateway: &GatewayAccess, why: &dyn std::fmt::Display) -> Self {
        Self { endpoint: gateway.endpoint.clone(), why: why.to_string() }
    }
}

pub(super) async fn connect(gateway: &GatewayAccess) -> Result<Channel, ConnectError> {
    let failed = |error: tonic::transport::Error| ConnectError { endpoint: gateway.endpoint.clone(), why: chain(&error) };
    let mut endpoint = Endpoint::from_shared(gateway.endpoint.clone()).map_err(failed)?.connect_timeout(CONNECT_TIME).tcp_nodelay(true);
    if gateway.endpoint.starts_with("https:") {
        let tls =
            ClientTlsConfig::new().ca_certificate(Certificate::from_pem(gateway.authority().as_bytes())).domain_name(&gateway.server_name);
        endpoint = endpoint.tls_config(tls).map_err(failed)?;
    }
    endpoint.connect().await.map_err(failed)
}

/// tonic says "transport error" and keeps the cause below.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}
