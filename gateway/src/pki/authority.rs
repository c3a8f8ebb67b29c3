//! The authority of one machine, and its pairs, in files.

use std::path::{Path, PathBuf};

use jiff::{SignedDuration, Timestamp};
use openshell_operator::pki::{Authority as Issuing, Leaf, Purpose, Validity};

use super::PkiError;
use crate::state::{read_text, write_private};

/// Days that a certificate of ours is good for. Locally it protects against nothing to have
/// them end sooner: whoever reads one key reads them all.
const DAYS: i32 = 3650;
/// Certificates are made again this many days before they end.
const RENEW_DAYS: i64 = 90;

/// A certificate authority of one machine.
pub struct Authority(Issuing);

impl Authority {
    /// Loads the authority of `directory`, or makes one.
    pub fn open(directory: &Path) -> Result<Self, PkiError> {
        let (certificate_path, key_path) = (directory.join("ca.crt"), directory.join("ca.key"));
        let (certificate, key) = (read_text(&certificate_path)?, read_text(&key_path)?);
        match (certificate, key) {
            (Some(certificate), Some(key)) if Validity::of(&certificate).is_some_and(|v| v.ends > renewal()) => {
                Issuing::from_pem(&certificate, &key).map(Self).map_err(|error| unusable(&key_path, &error))
            }
            (Some(_), None) => Err(PkiError::AuthorityIncomplete { certificate: certificate_path, key: key_path }),
            // None yet, one that ended, or a key whose certificate nobody has seen.
            _ => {
                let authority = Issuing::create(Validity::days(DAYS, Timestamp::now()))?;
                write_private(&key_path, authority.key().as_bytes())?;
                write_private(&certificate_path, authority.certificate().as_bytes())?;
                Ok(Self(authority))
            }
        }
    }

    /// The certificate.
    pub fn pem(&self) -> &str {
        self.0.certificate()
    }

    /// The pair in `directory` if it still serves its purpose, or a new one.
    pub fn keep(&self, directory: &Path, purpose: &Purpose) -> Result<Leaf, PkiError> {
        let (certificate_path, key_path) = (directory.join("tls.crt"), directory.join("tls.key"));
        if let (Some(certificate), Some(key)) = (read_text(&certificate_path)?, read_text(&key_path)?) {
            let found = Leaf { certificate, key };
            match found.wanting(self.pem(), purpose, renewal()) {
                None => return Ok(found),
                Some(reason) => tracing::info!(certificate = %certificate_path.display(), reason, "issuing the certificate again"),
            }
        }
        let leaf = self.0.issue(purpose, Validity::days(DAYS, Timestamp::now()))?;
        write_private(&key_path, leaf.key.as_bytes())?;
        write_private(&certificate_path, leaf.certificate.as_bytes())?;
        Ok(leaf)
    }
}

/// What ends before this is made again.
fn renewal() -> Timestamp {
    Timestamp::now() + SignedDuration::from_hours(24 * RENEW_DAYS)
}

fn unusable(path: &Path, reason: &openshell_operator::pki::PkiError) -> PkiError {
    PkiError::Unusable { path: PathBuf::from(path), reason: reason.to_string() }
}
