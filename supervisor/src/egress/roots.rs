//! Whom upstream servers are verified against, and the bundle that the agent is given.
//!
//! Upstream: the Mozilla roots that are compiled in, and what the system trusts (its bundle, or
//! `SSL_CERT_FILE` and `SSL_CERT_DIR` of the supervisor's environment). A company's own authority
//! is installed in the system's bundle and is honoured; nothing in the sandbox can add to it.

use std::{
    fmt::Write as _,
    path::{Path, PathBuf},
    sync::{Arc, LazyLock},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use rustls::{ClientConfig, RootCertStore, client::Resumption};
use tokio_rustls::TlsConnector;

use crate::limits::egress::UPSTREAM_SESSIONS;

/// Where systems keep their bundle: Debian, Fedora, SUSE, Alpine.
const SYSTEM_BUNDLES: [&str; 4] =
    ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/ca-bundle.pem", "/etc/ssl/cert.pem"];

/// The roots that upstream certificates must lead to, and TLS with them. Put together when a
/// connection first needs them: it takes milliseconds, and many sandboxes never inspect anything.
#[derive(Clone)]
pub struct UpstreamRoots(Arc<LazyLock<Result<TlsConnector, rustls::Error>, Source>>);

type Source = Box<dyn FnOnce() -> Result<TlsConnector, rustls::Error> + Send>;

impl std::fmt::Debug for UpstreamRoots {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("UpstreamRoots")
    }
}

impl UpstreamRoots {
    /// Compiled-in roots and those of the system. A certificate of the system that cannot be
    /// read is left out: fewer roots, never more. What `SSL_CERT_FILE` and `SSL_CERT_DIR` name is
    /// read now: it may lie where an agent, once there is one, can write.
    pub fn system() -> Self {
        let named = ["SSL_CERT_FILE", "SSL_CERT_DIR"].into_iter().any(|name| std::env::var_os(name).is_some());
        // This reads them *instead of* the system's bundle, if they are set.
        let named = if named { rustls_native_certs::load_native_certs().certs } else { Vec::new() };
        Self::read_by(|| {
            let mut store = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
            store.add_parsable_certificates(named);
            let bundle = SYSTEM_BUNDLES.iter().map(Path::new).find(|path| path.exists());
            let system = match bundle {
                Some(path) => rustls_native_certs::load_certs_from_paths(Some(path), None),
                None => rustls_native_certs::load_native_certs(),
            };
            store.add_parsable_certificates(system.certs);
            store
        })
    }

    /// These roots only.
    pub fn from_store(store: RootCertStore) -> Self {
        Self::read_by(|| store)
    }

    fn read_by(roots: impl FnOnce() -> RootCertStore + Send + 'static) -> Self {
        Self(Arc::new(LazyLock::new(Box::new(|| connector(roots())))))
    }

    /// TLS towards an upstream server.
    pub(super) fn connector(&self) -> Result<&TlsConnector, rustls::Error> {
        LazyLock::force(&self.0).as_ref().map_err(Clone::clone)
    }
}

fn connector(roots: RootCertStore) -> Result<TlsConnector, rustls::Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config.resumption = Resumption::in_memory_sessions(UPSTREAM_SESSIONS);
    Ok(TlsConnector::from(Arc::new(config)))
}

/// What the system trusts, as PEM, for the bundle inside the sandbox. Where the system has
/// no bundle file it is made of the certificates that can be found.
pub(super) fn system_bundle_pem() -> String {
    let named = std::env::var_os("SSL_CERT_FILE").map(PathBuf::from);
    let system = SYSTEM_BUNDLES.iter().map(PathBuf::from).find(|path| path.exists());
    let mut text = String::new();
    for path in named.into_iter().chain(system) {
        if let Ok(file) = std::fs::read_to_string(&path) {
            text.push_str(file.trim_end());
            text.push('\n');
        }
    }
    if text.contains("-----BEGIN CERTIFICATE-----") {
        return text;
    }
    text.clear();
    for certificate in rustls_native_certs::load_native_certs().certs {
        text.push_str("-----BEGIN CERTIFICATE-----\n");
        let encoded = STANDARD.encode(&certificate);
        for at in (0..encoded.len()).step_by(64) {
            let _ = writeln!(text, "{}", &encoded[at..encoded.len().min(at + 64)]);
        }
        text.push_str("-----END CERTIFICATE-----\n");
    }
    text
}
