//! Certificates: an authority, what it issues, and whether a certificate still serves its purpose.
//!
//! PEM in, PEM out: where keys are kept is the caller's affair. A local gateway keeps them in files, the
//! controller that deploys gateways keeps them in Secrets; both issue the same certificates.

mod authority;
mod leaf;
#[cfg(test)]
mod tests;

pub use authority::Authority;
pub use leaf::{Leaf, Purpose};

use jiff::{SignedDuration, Timestamp};
use x509_parser::prelude::{FromDer as _, X509Certificate};

/// Organizational unit of certificates that stand for a user.
pub const USER_UNIT: &str = "openshell-user";

/// Certificates are good from this long before they are made: clocks differ.
pub const CLOCK_SKEW: SignedDuration = SignedDuration::from_hours(1);

/// Why there is no usable certificate.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    /// What is given is something else.
    #[error("{0}")]
    Unusable(String),
    /// A certificate could not be made.
    #[error("cannot issue a certificate for {subject}: {reason}")]
    Issue {
        /// Common name.
        subject: &'static str,
        /// Why.
        reason: String,
    },
}

/// From when until when a certificate is good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    /// First moment.
    pub begins: Timestamp,
    /// Last moment.
    pub ends: Timestamp,
}

impl Validity {
    /// Good for so many days from now.
    pub fn days(days: i32, now: Timestamp) -> Self {
        Self { begins: now - CLOCK_SKEW, ends: now + SignedDuration::from_hours(24 * i64::from(days)) }
    }

    /// That of a certificate; none if it cannot be read.
    pub fn of(pem: &str) -> Option<Self> {
        let der = der(pem)?;
        let (_, certificate) = X509Certificate::from_der(&der).ok()?;
        let validity = certificate.validity();
        Some(Self {
            begins: Timestamp::from_second(validity.not_before.timestamp()).ok()?,
            ends: Timestamp::from_second(validity.not_after.timestamp()).ok()?,
        })
    }

    /// How long in all.
    pub fn length(&self) -> SignedDuration {
        self.ends.duration_since(self.begins)
    }

    /// How long still; negative after the end.
    pub fn left(&self, now: Timestamp) -> SignedDuration {
        self.ends.duration_since(now)
    }

    /// When a third is left: time to renew it.
    pub fn renewal(&self) -> Timestamp {
        self.ends - self.length() / 3
    }
}

/// The first certificate of a PEM text.
fn der(pem: &str) -> Option<Vec<u8>> {
    use rustls_pki_types::{CertificateDer, pem::PemObject as _};
    CertificateDer::from_pem_slice(pem.as_bytes()).ok().map(|c| c.to_vec())
}

fn belongs_to_key(pem: &str, key: &rcgen::KeyPair) -> bool {
    use rcgen::PublicKeyData as _;
    let Some(der) = der(pem) else { return false };
    X509Certificate::from_der(&der).is_ok_and(|(_, certificate)| certificate.public_key().raw == key.subject_public_key_info())
}
