//! Whom upstream servers are verified against, and the bundle that the agent is given.
//!
//! Upstream: the Mozilla roots that are compiled in, and what the system trusts (its bundle, or
//! `SSL_CERT_FILE` and `SSL_CERT_DIR` of the supervisor's environment). A company's own authority
//! is installed in the system's bundle and is honoured; nothing in the sandbox can add to it.

use std::{
    fmt::Write as _,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::{Arc, LazyLock},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use rustls::{ClientConfig, RootCertStore, client::Resumption};
use rustls_pki_types::CertificateDer;
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

/// What the system trusts, as it was read at one moment.
pub struct SystemTrust {
    files: Vec<(PathBuf, Option<Stamp>)>,
    /// From what `SSL_CERT_FILE` and `SSL_CERT_DIR` name.
    named: Vec<CertificateDer<'static>>,
    bundle: String,
}

/// Tells whether a file is another than it was.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Stamp {
    file: u64,
    length: u64,
    changed: (i64, i64),
}

impl Stamp {
    fn of(path: &Path) -> Option<Self> {
        let meta = std::fs::metadata(path).ok()?;
        Some(Self { file: meta.ino(), length: meta.len(), changed: (meta.ctime(), meta.ctime_nsec()) })
    }
}

impl SystemTrust {
    /// Reads it. What `SSL_CERT_FILE` and `SSL_CERT_DIR` name may lie where an agent, once there is
    /// one, can write.
    pub fn read() -> Self {
        let file = std::env::var_os("SSL_CERT_FILE").map(PathBuf::from);
        let directory = std::env::var_os("SSL_CERT_DIR").map(PathBuf::from);
        let system = SYSTEM_BUNDLES.map(PathBuf::from);
        let files = file.iter().chain(&directory).chain(&system).map(|path| (path.clone(), Stamp::of(path))).collect();
        // This reads them *instead of* the system's bundle, if they are set.
        let named = if file.is_some() || directory.is_some() { rustls_native_certs::load_native_certs().certs } else { Vec::new() };
        let bundle = bundle_pem(file.into_iter().chain(system.into_iter().find(|path| path.exists())));
        Self { files, named, bundle }
    }

    /// Whether its files are still those that were read.
    pub fn is_current(&self) -> bool {
        self.files.iter().all(|(path, stamp)| Stamp::of(path) == *stamp)
    }

    /// As PEM, for the bundle inside the sandbox.
    pub fn bundle_pem(&self) -> &str {
        &self.bundle
    }

    /// Compiled-in roots and those of the system. A certificate that cannot be read is left out:
    /// fewer roots, never more.
    pub fn into_roots(self) -> UpstreamRoots {
        let named = self.named;
        UpstreamRoots::read_by(|| {
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
}

/// The files together. Where there is none the bundle is made of the certificates that can be found.
fn bundle_pem(files: impl Iterator<Item = PathBuf>) -> String {
    let mut text = String::new();
    for path in files {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_another_when_it_was_written_or_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let (path, other) = (directory.path().join("bundle.pem"), directory.path().join("other.pem"));
        assert!(Stamp::of(&path).is_none());
        std::fs::write(&path, "a").unwrap();
        let first = Stamp::of(&path);
        assert!(first == Stamp::of(&path) && first.is_some());
        std::fs::write(&other, "b").unwrap();
        std::fs::rename(&other, &path).unwrap();
        let replaced = Stamp::of(&path);
        assert!(replaced != first);
        std::fs::write(&path, "longer").unwrap();
        assert!(Stamp::of(&path) != replaced);
    }
}
