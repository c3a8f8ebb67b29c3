//! What a gateway's keys and certificates should be now. Pure: Secrets in, Secrets out.
//!
//! | Secret | Keys | Who reads it |
//! |---|---|---|
//! | `<name>-gateway-ca` | `tls.crt`, `tls.key`; `next.crt`, `next.key`; `previous.crt` | the operator |
//! | `<name>-gateway-tls` | `tls.crt`, `tls.key`, `ca.crt` | the gateway |
//! | `<name>-gateway-client-tls` | `tls.crt`, `tls.key`, `ca.crt` | users |
//! | `<name>-gateway-jwt` | `signing.pem` | the gateway |
//!
//! `ca.crt` is everybody to trust: the authority that issues, the next one, and former ones until
//! they end. An authority is replaced in two steps, so that nobody meets a certificate of an
//! authority that it has not been told of:
//!
//! ```text
//!   a third of its life is left      a day later               the former one ends
//!   ────────┬────────────────────────────┬──────────────────────────┬────────▶
//!     next is made and trusted    next issues, and both     only the new one
//!                                 are trusted               is trusted
//! ```
//!
//! A key that exists and cannot be used is never replaced: everybody who was given its
//! certificate would be locked out, and whoever broke it would not notice.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use rcgen::{KeyPair, PKCS_ED25519};
use sha2::Digest as _;

use crate::pki::{Authority, CLOCK_SKEW, Leaf, PkiError, Purpose, Validity};

/// From announcing the next authority until it issues: mounted ConfigMaps follow within minutes.
const ANNOUNCE: SignedDuration = SignedDuration::from_hours(24);

/// The content of a Secret.
pub(super) type Data = BTreeMap<String, Vec<u8>>;

/// One of the Secrets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Slot {
    Authority,
    Server,
    Client,
    Token,
}

impl Slot {
    pub(super) const ALL: [Self; 4] = [Self::Authority, Self::Server, Self::Client, Self::Token];
}

/// What the certificates should be like.
#[derive(Clone, Debug)]
pub(super) struct Wanted {
    /// Names and addresses of the server.
    pub(super) names: Vec<String>,
    pub(super) certificate_days: i32,
    pub(super) authority_days: i32,
}

/// A key that must not be replaced, and cannot be used.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum KeyError {
    /// What the Secret holds is something else.
    #[error("{reason}")]
    Unusable { slot: Slot, reason: String },
    /// A certificate could not be made.
    #[error("{0}")]
    Issue(String),
}

impl From<PkiError> for KeyError {
    fn from(error: PkiError) -> Self {
        Self::Issue(error.to_string())
    }
}

/// What was made anew, for people.
pub(super) type Change = (Slot, String);

/// Keys as they should be.
pub(super) struct Kept {
    /// The Secrets.
    pub(super) data: BTreeMap<Slot, Data>,
    /// Everybody to trust, PEM.
    pub(super) bundle: String,
    /// Changes when the gateway must be started anew to see them.
    pub(super) checksum: String,
    pub(super) changes: Vec<Change>,
    pub(super) server_ends: Timestamp,
    pub(super) authority_ends: Timestamp,
    /// When to look again.
    pub(super) recheck: Timestamp,
}

/// Decides from what is there. Whoever is absent from `found` does not exist.
pub(super) fn keep(found: &BTreeMap<Slot, Data>, wanted: &Wanted, now: Timestamp) -> Result<Kept, KeyError> {
    let mut changes = Vec::new();
    let authorities = Authorities::keep(found.get(&Slot::Authority), wanted, now, &mut changes)?;
    let bundle = authorities.bundle();
    let mut data = BTreeMap::from([(Slot::Authority, authorities.data())]);
    let mut recheck = authorities.recheck(now);

    let server =
        leaf(found, Slot::Server, &Purpose::Server { names: wanted.names.clone() }, &authorities.current, wanted, now, &mut changes)?;
    let client = leaf(found, Slot::Client, &Purpose::User, &authorities.current, wanted, now, &mut changes)?;
    for (slot, leaf) in [(Slot::Server, &server), (Slot::Client, &client)] {
        recheck = recheck.min(validity(&leaf.certificate)?.renewal());
        let bytes = |text: &str| text.as_bytes().to_vec();
        let pair = [("tls.crt", &leaf.certificate), ("tls.key", &leaf.key), ("ca.crt", &bundle)];
        data.insert(slot, pair.into_iter().map(|(key, text)| (key.to_owned(), bytes(text))).collect());
    }

    let token = token(found.get(&Slot::Token), &mut changes)?;
    let mut sum = sha2::Sha256::new();
    for part in [server.certificate.as_bytes(), bundle.as_bytes(), token.public_key_pem().as_bytes()] {
        sum.update((part.len() as u64).to_be_bytes());
        sum.update(part);
    }
    data.insert(Slot::Token, Data::from([("signing.pem".to_owned(), token.serialize_pem().into_bytes())]));
    Ok(Kept {
        data,
        bundle,
        checksum: hex::encode(&sum.finalize()[..16]),
        changes,
        server_ends: validity(&server.certificate)?.ends,
        authority_ends: validity(authorities.current.certificate())?.ends,
        recheck,
    })
}

/// Those whose certificates are trusted.
struct Authorities {
    current: Authority,
    next: Option<Authority>,
    /// Certificates of former ones, PEM.
    previous: Vec<String>,
}

impl Authorities {
    fn keep(found: Option<&Data>, wanted: &Wanted, now: Timestamp, changes: &mut Vec<Change>) -> Result<Self, KeyError> {
        let mut changed = |what: &str| changes.push((Slot::Authority, what.to_owned()));
        let create = || Authority::create(Validity::days(wanted.authority_days, now));
        let Some(found) = found else {
            changed("made the authority of the gateway");
            return Ok(Self { current: create()?, next: None, previous: Vec::new() });
        };
        let current = authority(found, "tls.crt", "tls.key")?;
        let next = match (found.get("next.crt"), found.get("next.key")) {
            (None, None) => None,
            _ => Some(authority(found, "next.crt", "next.key")?),
        };
        let previous = certificates(text(found, "previous.crt").unwrap_or_default());
        let mut all = Self { current, next, previous };

        let ended = |certificate: &str| Validity::of(certificate).is_none_or(|v| v.ends <= now);
        let before = all.previous.len();
        all.previous.retain(|certificate| !ended(certificate));
        if all.previous.len() < before {
            changed("an authority that ended is no longer trusted");
        }
        let due = validity(all.current.certificate())?.renewal() <= now;
        if all.next.is_none() && due {
            changed("made the next authority and announced it");
            all.next = Some(create()?);
        }
        let over = ended(all.current.certificate());
        if let Some(next) = all.next.take() {
            // Nobody trusts an authority that has ended: then there is nothing to wait for.
            if over || issues_from(next.certificate())? <= now {
                changed("the next authority issues from now on");
                if !over {
                    all.previous.push(all.current.certificate().to_owned());
                }
                all.current = next;
            } else {
                all.next = Some(next);
            }
        }
        Ok(all)
    }

    fn bundle(&self) -> String {
        let next = self.next.iter().map(Authority::certificate);
        [self.current.certificate()].into_iter().chain(next).chain(self.previous.iter().map(String::as_str)).map(terminated).collect()
    }

    fn data(&self) -> Data {
        let mut data = Data::new();
        let mut put = |key: &str, value: &str| data.insert(key.to_owned(), value.as_bytes().to_vec());
        put("tls.crt", self.current.certificate());
        put("tls.key", self.current.key());
        if let Some(next) = &self.next {
            put("next.crt", next.certificate());
            put("next.key", next.key());
        }
        if !self.previous.is_empty() {
            put("previous.crt", &self.previous.iter().map(|p| terminated(p)).collect::<String>());
        }
        data
    }

    fn recheck(&self, now: Timestamp) -> Timestamp {
        let ends = self.previous.iter().filter_map(|p| Validity::of(p)).map(|v| v.ends);
        let next = self.next.as_ref().and_then(|next| issues_from(next.certificate()).ok());
        let current = Validity::of(self.current.certificate()).map(|v| v.renewal()).filter(|at| *at > now);
        ends.chain(next).chain(current).min().unwrap_or(now)
    }
}

/// When an announced authority begins to issue.
fn issues_from(certificate: &str) -> Result<Timestamp, KeyError> {
    Ok(validity(certificate)?.begins + CLOCK_SKEW + ANNOUNCE)
}

fn authority(found: &Data, certificate: &str, key: &str) -> Result<Authority, KeyError> {
    let unusable = |reason: String| KeyError::Unusable { slot: Slot::Authority, reason };
    let missing = |name: &str| unusable(format!("it has no {name}, or one that is no text"));
    let pem = text(found, certificate).ok_or_else(|| missing(certificate))?;
    let key = text(found, key).ok_or_else(|| missing(key))?;
    Authority::from_pem(pem, key).map_err(|error| unusable(format!("{certificate}: {error}")))
}

fn leaf(
    found: &BTreeMap<Slot, Data>,
    slot: Slot,
    purpose: &Purpose,
    authority: &Authority,
    wanted: &Wanted,
    now: Timestamp,
    changes: &mut Vec<Change>,
) -> Result<Leaf, KeyError> {
    let subject = purpose.common_name();
    let reason = match found.get(&slot) {
        None => "there was none",
        Some(data) => {
            let part = |key: &str| text(data, key).unwrap_or_default().to_owned();
            let leaf = Leaf { certificate: part("tls.crt"), key: part("tls.key") };
            match lacking(&leaf, purpose, authority, wanted, now) {
                None => return Ok(leaf),
                Some(reason) => reason,
            }
        }
    };
    changes.push((slot, format!("issued the certificate of {subject}: {reason}")));
    // It cannot be good for longer than who vouches for it.
    let mut validity = Validity::days(wanted.certificate_days, now);
    validity.ends = validity.ends.min(self::validity(authority.certificate())?.ends);
    Ok(authority.issue(purpose, validity)?)
}

/// Why a certificate must be issued again.
fn lacking(leaf: &Leaf, purpose: &Purpose, authority: &Authority, wanted: &Wanted, now: Timestamp) -> Option<&'static str> {
    if let Some(reason) = leaf.wanting(authority.certificate(), purpose, now) {
        return Some(reason);
    }
    let validity = Validity::of(&leaf.certificate)?;
    if validity.renewal() <= now {
        return Some("a third of its time is left");
    }
    if validity.length() > SignedDuration::from_hours(24 * i64::from(wanted.certificate_days)) + CLOCK_SKEW {
        return Some("it is good for longer than it should be");
    }
    match purpose {
        Purpose::Server { names } if leaf.holds_beyond(names) => Some("it has a name that is not wanted any more"),
        _ => None,
    }
}

fn token(found: Option<&Data>, changes: &mut Vec<Change>) -> Result<KeyPair, KeyError> {
    let Some(found) = found else {
        changes.push((Slot::Token, "made the key of the sandbox tokens".to_owned()));
        return KeyPair::generate_for(&PKCS_ED25519)
            .map_err(|e| KeyError::Issue(format!("cannot make the key of the sandbox tokens: {e}")));
    };
    let unusable = |reason: String| KeyError::Unusable { slot: Slot::Token, reason };
    let pem = text(found, "signing.pem").ok_or_else(|| unusable("it has no signing.pem, or one that is no text".to_owned()))?;
    let key = KeyPair::from_pem(pem).map_err(|e| unusable(format!("signing.pem cannot be read: {e}")))?;
    if key.algorithm() != &PKCS_ED25519 {
        return Err(unusable("signing.pem is not an Ed25519 key".to_owned()));
    }
    Ok(key)
}

fn validity(certificate: &str) -> Result<Validity, KeyError> {
    Validity::of(certificate).ok_or_else(|| KeyError::Issue("a certificate has no time that it is good for".to_owned()))
}

fn text<'a>(data: &'a Data, key: &str) -> Option<&'a str> {
    data.get(key).and_then(|bytes| std::str::from_utf8(bytes).ok())
}

fn terminated(pem: &str) -> String {
    format!("{}\n", pem.trim_end())
}

/// The certificates of a PEM text, one by one.
fn certificates(pem: &str) -> Vec<String> {
    const END: &str = "-----END CERTIFICATE-----";
    pem.split_inclusive(END).filter(|part| part.contains(END)).map(|part| terminated(part.trim_start())).collect()
}
