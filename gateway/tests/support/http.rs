//! HTTP/1.1 over TLS, as little of it as a test needs.

use std::sync::Arc;

use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject as _};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_rustls::TlsConnector;

use super::Gateway;

/// With the user's certificate. `headers` come besides `Host`, or instead of it. Gives the
/// status and the body.
pub async fn get(gateway: &Gateway, path: &str, headers: &[(&str, &str)]) -> (u16, String) {
    send(gateway, "GET", path, headers).await
}

/// The same for any method without a body.
pub async fn send(gateway: &Gateway, method: &str, path: &str, headers: &[(&str, &str)]) -> (u16, String) {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(gateway.mtls("ca.crt").as_bytes()).unwrap()).unwrap();
    let chain = vec![CertificateDer::from_pem_slice(gateway.mtls("tls.crt").as_bytes()).unwrap()];
    let key = PrivateKeyDer::from_pem_slice(gateway.mtls("tls.key").as_bytes()).unwrap();
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, key)
        .unwrap();
    let stream = tokio::net::TcpStream::connect(gateway.address()).await.unwrap();
    let mut stream = TlsConnector::from(Arc::new(config)).connect(ServerName::try_from("localhost").unwrap(), stream).await.unwrap();
    let mut request = format!("{method} {path} HTTP/1.1\r\nConnection: close\r\n");
    if !headers.iter().any(|(name, _)| *name == "Host") {
        request.push_str("Host: localhost\r\n");
    }
    for (name, value) in headers {
        request.extend([name, ": ", value, "\r\n"]);
    }
    stream.write_all(format!("{request}\r\n").as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    // The server may close without a TLS goodbye after its last byte.
    let _ = stream.read_to_end(&mut answer).await;
    let answer = String::from_utf8(answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}
