//! The authority: its key, its certificate, and issuing leaves.

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use zeroize::Zeroizing;

use super::leaf::{self, Leaf, Purpose};
use super::{PkiError, Validity, belongs_to_key};

/// A certificate authority.
pub struct Authority {
    certificate: String,
    key: Zeroizing<String>,
    issuer: Issuer<'static, KeyPair>,
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Authority { .. }")
    }
}

impl Authority {
    /// Makes one, with a key of its own (P-256).
    pub fn create(validity: Validity) -> Result<Self, PkiError> {
        let failed = |e: rcgen::Error| PkiError::Issue { subject: "openshell-ca", reason: e.to_string() };
        let key = KeyPair::generate().map_err(failed)?;
        let key_pem = Zeroizing::new(key.serialize_pem());
        let mut params = CertificateParams::default();
        params.distinguished_name = leaf::subject("openshell-ca");
        params.distinguished_name.push(DnType::OrganizationName, "openshell");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        leaf::set_validity(&mut params, validity);
        let certificate = params.self_signed(&key).map_err(failed)?.pem();
        Ok(Self { certificate, key: key_pem, issuer: Issuer::new(params, key) })
    }

    /// The one that was made before.
    pub fn from_pem(certificate: &str, key: &str) -> Result<Self, PkiError> {
        let pair = KeyPair::from_pem(key).map_err(|e| PkiError::Unusable(format!("the key cannot be read: {e}")))?;
        if !belongs_to_key(certificate, &pair) {
            return Err(PkiError::Unusable("the key is not that of the certificate beside it".to_owned()));
        }
        let issuer = Issuer::from_ca_cert_pem(certificate, pair)
            .map_err(|e| PkiError::Unusable(format!("the certificate is not that of an authority: {e}")))?;
        Ok(Self { certificate: certificate.to_owned(), key: Zeroizing::new(key.to_owned()), issuer })
    }

    /// Its certificate, PEM.
    pub fn certificate(&self) -> &str {
        &self.certificate
    }

    /// Its key, PKCS #8 PEM.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// Issues a pair.
    pub fn issue(&self, purpose: &Purpose, validity: Validity) -> Result<Leaf, PkiError> {
        let failed = |e: rcgen::Error| PkiError::Issue { subject: purpose.common_name(), reason: e.to_string() };
        let key = KeyPair::generate().map_err(failed)?;
        let certificate = purpose.params(validity).map_err(failed)?.signed_by(&key, &self.issuer).map_err(failed)?;
        Ok(Leaf { certificate: certificate.pem(), key: key.serialize_pem() })
    }
}
