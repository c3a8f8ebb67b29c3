//! Certificates of servers and users.

use jiff::Timestamp;
use rcgen::{CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, KeyPair, KeyUsagePurpose};
use x509_parser::prelude::{FromDer as _, GeneralName, X509Certificate};

use super::{USER_UNIT, Validity, belongs_to_key, der};

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
    /// A gateway, under these names and addresses.
    Server {
        /// DNS names (`*.` allowed) and IP addresses.
        names: Vec<String>,
    },
    /// A user.
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

    pub(super) fn params(&self, validity: Validity) -> Result<CertificateParams, rcgen::Error> {
        let mut params = match self {
            Self::Server { names } => CertificateParams::new(names.clone())?,
            Self::User => CertificateParams::default(),
        };
        params.distinguished_name = subject(self.common_name());
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.use_authority_key_identifier_extension = true;
        set_validity(&mut params, validity);
        match self {
            Self::Server { .. } => params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth],
            Self::User => {
                params.distinguished_name.push(DnType::OrganizationalUnitName, USER_UNIT);
                params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
            }
        }
        Ok(params)
    }
}

impl Leaf {
    /// Why it does not serve `purpose` until `until`; `None` when it does.
    pub fn wanting(&self, authority: &str, purpose: &Purpose, until: Timestamp) -> Option<&'static str> {
        let Ok(key) = KeyPair::from_pem(&self.key) else { return Some("its key cannot be read") };
        let (Some(der), Some(ca_der)) = (der(&self.certificate), der(authority)) else { return Some("it cannot be read") };
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
        if certificate.validity().not_after.timestamp() < until.as_second() {
            return Some("it ends soon");
        }
        if let Purpose::Server { names } = purpose {
            let present = alternative_names(&certificate);
            if names.iter().any(|n| !present.contains(&normal(n))) {
                return Some("a name is missing");
            }
        }
        None
    }

    /// Whether it holds for a name or address that is not among `names`.
    pub fn holds_beyond(&self, names: &[String]) -> bool {
        let Some(der) = der(&self.certificate) else { return false };
        let Ok((_, certificate)) = X509Certificate::from_der(&der) else { return false };
        let wanted: Vec<String> = names.iter().map(|n| normal(n)).collect();
        alternative_names(&certificate).iter().any(|name| !wanted.contains(name))
    }
}

/// A name as it is compared: DNS names in lower case, addresses in their shortest form.
fn normal(name: &str) -> String {
    name.parse::<std::net::IpAddr>().map_or_else(|_| name.to_ascii_lowercase(), |address| address.to_string())
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

pub(super) fn set_validity(params: &mut CertificateParams, validity: Validity) {
    let at = |time: Timestamp| {
        rcgen::date_time_ymd(1970, 1, 1) + std::time::Duration::from_secs(u64::try_from(time.as_second()).unwrap_or_default())
    };
    params.not_before = at(validity.begins);
    params.not_after = at(validity.ends);
}
