//! The sandbox's own certificate authority, and the TLS configurations made with it.
//!
//! One P-256 authority is made when the supervisor starts and dies with it; its key never leaves
//! this process. Each host that is inspected gets a certificate when it is first asked for, and
//! one server configuration with session tickets, so that a second connection resumes.

use std::{
    fs, io,
    net::IpAddr,
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use moka::sync::Cache;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    SanType,
};
use rustls::ServerConfig;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

use crate::limits::egress::CERTIFICATES;

/// Name of the file with the authority alone.
pub const CA_FILE: &str = "ca.pem";
/// Name of the file with the system's roots and the authority.
pub const BUNDLE_FILE: &str = "ca-bundle.pem";

/// Why a certificate or configuration could not be made.
#[derive(Debug, thiserror::Error)]
pub enum CaError {
    /// The certificate could not be made.
    #[error("the sandbox's certificate could not be made: {0}")]
    Certificate(#[from] rcgen::Error),
    /// The TLS configuration could not be made.
    #[error("the TLS configuration could not be made: {0}")]
    Configuration(#[from] rustls::Error),
}

/// Where the trust files are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrustFiles {
    /// The authority alone.
    pub ca: PathBuf,
    /// The system's roots and the authority.
    pub bundle: PathBuf,
}

impl TrustFiles {
    fn of(directory: &Path) -> Self {
        Self { ca: directory.join(CA_FILE), bundle: directory.join(BUNDLE_FILE) }
    }
}

/// The certificate authority of one sandbox. Cheap to clone.
#[derive(Clone)]
pub struct SandboxCa {
    inner: Arc<Inner>,
}

struct Inner {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
    pem: String,
    /// One key for every leaf: they all live and die with this process.
    leaf_key: KeyPair,
    leaf_key_der: PrivatePkcs8KeyDer<'static>,
    configs: Cache<String, Arc<ServerConfig>>,
    provider: Arc<rustls::crypto::CryptoProvider>,
}

impl std::fmt::Debug for SandboxCa {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SandboxCa")
    }
}

impl SandboxCa {
    /// Makes an authority with a new key.
    pub fn new() -> Result<Self, CaError> {
        let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?;
        let mut params = CertificateParams::default();
        params.distinguished_name = name("OpenShell Sandbox CA");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
        validity(&mut params, Duration::from_hours(10 * 365 * 24));
        let certificate = params.self_signed(&key)?;
        let pem = certificate.pem();
        let certificate = certificate.der().clone();
        let leaf_key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?;
        let leaf_key_der = PrivatePkcs8KeyDer::from(leaf_key.serialize_der());
        Ok(Self {
            inner: Arc::new(Inner {
                issuer: Issuer::new(params, key),
                certificate,
                pem,
                leaf_key,
                leaf_key_der,
                configs: Cache::builder().max_capacity(CERTIFICATES).time_to_live(Duration::from_hours(24)).build(),
                provider: Arc::new(rustls::crypto::ring::default_provider()),
            }),
        })
    }

    /// The authority's certificate.
    pub fn pem(&self) -> &str {
        &self.inner.pem
    }

    /// Writes the authority, and the bundle of it and `system`, below `directory`, each mode 0644 and in one step: a
    /// reader sees the old file or the new one.
    pub fn write(&self, directory: &Path, system: &str) -> io::Result<TrustFiles> {
        let files = TrustFiles::of(directory);
        replace(&files.bundle, [system, self.pem()].concat().as_bytes())?;
        replace(&files.ca, self.pem().as_bytes())?;
        Ok(files)
    }

    /// The files of this very authority, if [`SandboxCa::write`] has written them below `directory`.
    pub fn written(&self, directory: &Path) -> Option<TrustFiles> {
        let files = TrustFiles::of(directory);
        // The last one that is written. No other authority has the same key.
        (fs::read(&files.ca).ok()? == self.pem().as_bytes()).then_some(files)
    }

    /// TLS towards the agent in the name of `host` (a name in lower case or an IP literal).
    pub fn server_config(&self, host: &str) -> Result<Arc<ServerConfig>, CaError> {
        if let Some(config) = self.inner.configs.get(host) {
            return Ok(config);
        }
        let config = Arc::new(self.make_config(host)?);
        self.inner.configs.insert(host.to_owned(), config.clone());
        Ok(config)
    }

    fn make_config(&self, host: &str) -> Result<ServerConfig, CaError> {
        let mut params = CertificateParams::default();
        // RFC 5280 bounds a common name at 64 characters; clients look at the alternative name.
        params.distinguished_name = name(if host.len() <= 64 { host } else { "sandbox" });
        params.subject_alt_names = vec![match host.parse::<IpAddr>() {
            Ok(address) => SanType::IpAddress(address),
            Err(_) => SanType::DnsName(host.try_into()?),
        }];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        // Apple's and others' clients refuse leaves that are valid for more than 398 days.
        validity(&mut params, Duration::from_hours(90 * 24));
        let leaf = params.signed_by(&self.inner.leaf_key, &self.inner.issuer)?;
        let chain = vec![leaf.der().clone(), self.inner.certificate.clone()];
        let key = PrivateKeyDer::Pkcs8(self.inner.leaf_key_der.clone_key());
        let mut config = ServerConfig::builder_with_provider(self.inner.provider.clone())
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(chain, key)?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        config.ticketer = rustls::crypto::ring::Ticketer::new()?;
        Ok(config)
    }
}

fn name(common: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common);
    name
}

/// From a day ago, for clocks that differ.
fn validity(params: &mut CertificateParams, time: Duration) {
    let now = SystemTime::now();
    params.not_before = (now - Duration::from_hours(24)).into();
    params.not_after = (now + time).into();
}

/// Writes a file beside its place and moves it there.
fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    use std::io::Write as _;
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".new");
    let temporary = PathBuf::from(temporary);
    let _ = fs::remove_file(&temporary);
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o644).open(&temporary)?;
    file.write_all(bytes)?;
    // The mode given to open is subject to the umask.
    file.set_permissions(fs::Permissions::from_mode(0o644))?;
    fs::rename(&temporary, path)
}
