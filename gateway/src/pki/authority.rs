//! The authority: its key, its certificate, and issuing leaves.

use std::path::Path;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};

use super::PkiError;
use super::leaf::{self, Leaf, Purpose};
use crate::state::{read_text, write_private};

/// Years that a certificate of ours is good for. Locally it protects against nothing to have
/// them end sooner: whoever reads one key reads them all.
pub(super) const YEARS: i32 = 10;

/// A certificate authority of one machine.
pub struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    /// Loads the authority of `directory`, or makes one.
    pub fn open(directory: &Path) -> Result<Self, PkiError> {
        let (certificate_path, key_path) = (directory.join("ca.crt"), directory.join("ca.key"));
        let (certificate, key) = (read_text(&certificate_path)?, read_text(&key_path)?);
        match (certificate, key) {
            (Some(certificate), Some(key)) if !leaf::ends_soon(&certificate) => {
                let unusable = |path: &Path| {
                    let path = path.to_owned();
                    move |e: rcgen::Error| PkiError::Unusable { path, reason: e.to_string() }
                };
                let key = KeyPair::from_pem(&key).map_err(unusable(&key_path))?;
                if !leaf::belongs_to_key(&certificate, &key) {
                    return Err(PkiError::Unusable { path: key_path, reason: "it is not the key of ca.crt beside it".to_owned() });
                }
                let issuer = Issuer::from_ca_cert_pem(&certificate, key).map_err(unusable(&certificate_path))?;
                Ok(Self { pem: certificate, issuer })
            }
            (Some(_), None) => Err(PkiError::AuthorityIncomplete { certificate: certificate_path, key: key_path }),
            // None yet, one that ended, or a key whose certificate nobody has seen.
            _ => {
                let (authority, key) = Self::create()?;
                write_private(&key_path, key.as_bytes())?;
                write_private(&certificate_path, authority.pem.as_bytes())?;
                Ok(authority)
            }
        }
    }

    fn create() -> Result<(Self, String), PkiError> {
        let failed = |e: rcgen::Error| PkiError::Issue { subject: "openshell-ca", reason: e.to_string() };
        let key = KeyPair::generate().map_err(failed)?;
        let key_pem = key.serialize_pem();
        let mut params = CertificateParams::default();
        params.distinguished_name = leaf::subject("openshell-ca");
        params.distinguished_name.push(DnType::OrganizationName, "openshell");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        leaf::set_validity(&mut params, YEARS);
        let certificate = params.self_signed(&key).map_err(failed)?;
        let pem = certificate.pem();
        Ok((Self { pem, issuer: Issuer::new(params, key) }, key_pem))
    }

    /// The certificate.
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// The pair in `directory` if it still serves its purpose, or a new one.
    pub fn keep(&self, directory: &Path, purpose: &Purpose) -> Result<Leaf, PkiError> {
        let (certificate_path, key_path) = (directory.join("tls.crt"), directory.join("tls.key"));
        if let (Some(certificate), Some(key)) = (read_text(&certificate_path)?, read_text(&key_path)?) {
            let found = Leaf { certificate, key };
            match found.wanting(&self.pem, purpose) {
                None => return Ok(found),
                Some(reason) => tracing::info!(certificate = %certificate_path.display(), reason, "issuing the certificate again"),
            }
        }
        let leaf = self.issue(purpose)?;
        write_private(&key_path, leaf.key.as_bytes())?;
        write_private(&certificate_path, leaf.certificate.as_bytes())?;
        Ok(leaf)
    }

    /// Issues a pair.
    pub fn issue(&self, purpose: &Purpose) -> Result<Leaf, PkiError> {
        let failed = |e: rcgen::Error| PkiError::Issue { subject: purpose.common_name(), reason: e.to_string() };
        let key = KeyPair::generate().map_err(failed)?;
        let certificate = purpose.params().map_err(failed)?.signed_by(&key, &self.issuer).map_err(failed)?;
        Ok(Leaf { certificate: certificate.pem(), key: key.serialize_pem() })
    }
}
