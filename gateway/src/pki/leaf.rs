//! Certificates of servers and users, and whether one still serves its purpose.

use jiff::{Timestamp, ToSpan as _, tz::TimeZone};
use rcgen::{CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, KeyPair, KeyUsagePurpose, PublicKeyData as _};
use x509_parser::prelude::{FromDer as _, GeneralName, X509Certificate};

/// Leaves are issued again this many days before they end.
const RENEW_DAYS: i64 = 90;

/// A certificate and its key, PEM.
#[derive(Clone)]
pub struct Leaf {
    /// The certificate.
    pub certificate: String,
    /// Its key, PKCS #8.
    pub key: String,
}

impl std::fmt::Debug for Leaf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Leaf { .. }")
    }
}

/// What a certificate is for.
#[derive(Clone, Debug)]
pub enum Purpose {
    /// The gateway, under these names and addresses.
    Server {
        /// DNS names (`*.` allowed) and IP addresses.
        names: Vec<String>,
    },
    /// The user of this machine.
    User,
}

impl Purpose {
    /// The subject's common name.
    pub fn common_name(&self) -> &'static str {
        match self {
            Self::Server { .. } => "openshell-server",
            Self::User => "openshell-client",
        }
    }

    pub(super) fn params(&self) -> Result<CertificateParams, rcgen::Error> {
        let mut params = match self {
            Self::Server { names } => CertificateParams::new(names.clone())?,
            Self::User => CertificateParams::default(),
        };
        params.distinguished_name = subject(self.common_name());
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.use_authority_key_identifier_extension = true;
        set_validity(&mut params, super::authority::YEARS);
        match self {
            Self::Server { .. } => params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth],
            Self::User => {
                params.distinguished_name.push(DnType::OrganizationalUnitName, crate::auth::USER_UNIT);
                params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
            }
        }
        Ok(params)
    }
}

impl Leaf {
    /// Why it does not serve `purpose`; `None` when it does.
    pub fn wanting(&self, ca_pem: &str, purpose: &Purpose) -> Option<&'static str> {
        let Ok(key) = KeyPair::from_pem(&self.key) else { return Some("its key cannot be read") };
        let (Some(der), Some(ca_der)) = (der(&self.certificate), der(ca_pem)) else { return Some("it cannot be read") };
        let (Ok((_, certificate)), Ok((_, ca))) = (X509Certificate::from_der(&der), X509Certificate::from_der(&ca_der)) else {
            return Some("it cannot be read");
        };
        if !belongs_to_key(&self.certificate, &key) {
            return Some("it does not belong to its key");
        }
        // The signature itself is checked by every peer; here it is about the right authority.
        if certificate.issuer() != ca.subject() || !issued_by(&certificate, &ca) {
            return Some("another authority issued it");
        }
        if ends_soon(&self.certificate) {
            return Some("it ends soon");
        }
        if let Purpose::Server { names } = purpose {
            let present = alternative_names(&certificate);
            if names.iter().any(|n| !present.contains(&n.to_ascii_lowercase())) {
                return Some("a name is missing");
            }
        }
        None
    }
}

/// Whether the authority key identifier of the leaf is the subject key identifier of the CA.
fn issued_by(certificate: &X509Certificate<'_>, ca: &X509Certificate<'_>) -> bool {
    use x509_parser::extensions::ParsedExtension;
    let authority = certificate.iter_extensions().find_map(|e| match e.parsed_extension() {
        ParsedExtension::AuthorityKeyIdentifier(id) => id.key_identifier.as_ref().map(|k| k.0.to_vec()),
        _ => None,
    });
    let subject = ca.iter_extensions().find_map(|e| match e.parsed_extension() {
        ParsedExtension::SubjectKeyIdentifier(id) => Some(id.0.to_vec()),
        _ => None,
    });
    authority.is_some() && authority == subject
}

fn alternative_names(certificate: &X509Certificate<'_>) -> Vec<String> {
    let Ok(Some(names)) = certificate.subject_alternative_name() else { return Vec::new() };
    names
        .value
        .general_names
        .iter()
        .filter_map(|name| match name {
            GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
            GeneralName::IPAddress(bytes) => match <[u8; 4]>::try_from(*bytes) {
                Ok(v4) => Some(std::net::IpAddr::from(v4).to_string()),
                Err(_) => <[u8; 16]>::try_from(*bytes).ok().map(|v6| std::net::IpAddr::from(v6).to_string()),
            },
            _ => None,
        })
        .collect()
}

/// A subject with this common name.
pub(super) fn subject(common_name: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common_name);
    name
}

/// Good from yesterday (clocks differ between machines that share a home directory) for `years`.
pub(super) fn set_validity(params: &mut CertificateParams, years: i32) {
    let day = |at: jiff::civil::Date| rcgen::date_time_ymd(i32::from(at.year()), at.month() as u8, at.day() as u8);
    let today = Timestamp::now().to_zoned(TimeZone::UTC).date();
    params.not_before = day(today.saturating_sub(1.day()));
    params.not_after = day(today.saturating_add(years.years()));
}

/// The first certificate of a PEM text.
fn der(pem: &str) -> Option<Vec<u8>> {
    use rustls_pki_types::{CertificateDer, pem::PemObject as _};
    CertificateDer::from_pem_slice(pem.as_bytes()).ok().map(|c| c.to_vec())
}

pub(super) fn ends_soon(pem: &str) -> bool {
    let Some(der) = der(pem) else { return true };
    let Ok((_, certificate)) = X509Certificate::from_der(&der) else { return true };
    let left = certificate.validity().not_after.timestamp() - Timestamp::now().as_second();
    left < RENEW_DAYS * 24 * 3600
}

pub(super) fn belongs_to_key(pem: &str, key: &KeyPair) -> bool {
    let Some(der) = der(pem) else { return false };
    X509Certificate::from_der(&der).is_ok_and(|(_, certificate)| certificate.public_key().raw == key.subject_public_key_info())
}
