//! Sealing of Secret values: ChaCha20-Poly1305 under a key file, bound to object and key.
//!
//! The associated data is the Secret's UID and the entry's key, so a sealed value cannot be moved
//! to another Secret or another entry by editing the database.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

use chacha20poly1305::aead::{Aead as _, Payload};
use chacha20poly1305::{ChaCha20Poly1305, Key, KeyInit as _, Nonce};
use rand::TryRngCore as _;
use zeroize::Zeroizing;

const KEY_BYTES: usize = 32;
/// Bytes of the nonce of one sealed value.
pub(crate) const NONCE_BYTES: usize = 12;

/// Why the key cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SealKeyError {
    /// Reading or making the file failed.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// It is not a key.
    #[error("it holds {0} bytes instead of {KEY_BYTES}; restore it from a backup, or remove it together with the database")]
    Length(usize),
    /// Others can read it.
    #[error("its mode is {0:o} and lets others read it; run chmod 600 on it")]
    Mode(u32),
    /// There is a database but no key.
    #[error("it is missing although the database holds sealed values; restore it from a backup, or remove the database")]
    Missing,
}

/// The value could not be opened: wrong key, or a changed database.
#[derive(Debug, thiserror::Error)]
#[error("a sealed value does not open with this key")]
pub(crate) struct Unopened;

/// Seals and opens values.
#[derive(Clone)]
pub(crate) struct Sealer(ChaCha20Poly1305);

/// What to do when there is no key file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WhenMissing {
    Create,
    Refuse,
}

impl Sealer {
    /// Reads the key, or makes it (0600, written and synced under another name first, so that
    /// a crash leaves a whole key or none).
    pub(crate) fn open(path: &Path, missing: WhenMissing) -> Result<Self, SealKeyError> {
        let mut bytes = Zeroizing::new(Vec::new());
        match File::open(path) {
            Ok(file) => {
                let mode = file.metadata()?.permissions().mode() & 0o777;
                if mode & 0o077 != 0 {
                    return Err(SealKeyError::Mode(mode));
                }
                file.take(4096).read_to_end(&mut bytes)?;
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                if missing == WhenMissing::Refuse {
                    return Err(SealKeyError::Missing);
                }
                bytes.resize(KEY_BYTES, 0);
                rand::rngs::OsRng.try_fill_bytes(&mut bytes).map_err(io::Error::other)?;
                let mut partial = path.as_os_str().to_owned();
                partial.push(".new");
                let partial = Path::new(&partial);
                let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(partial)?;
                file.write_all(&bytes)?;
                file.sync_all()?;
                std::fs::rename(partial, path)?;
                if let Some(parent) = path.parent().filter(|p| !p.as_os_str().is_empty()) {
                    File::open(parent)?.sync_all()?;
                }
            }
            Err(error) => return Err(error.into()),
        }
        if bytes.len() != KEY_BYTES {
            return Err(SealKeyError::Length(bytes.len()));
        }
        Ok(Self(ChaCha20Poly1305::new(Key::from_slice(&bytes))))
    }

    /// Nonce and sealed bytes.
    pub(crate) fn seal(&self, uid: &str, key: &str, value: &[u8]) -> Result<([u8; NONCE_BYTES], Vec<u8>), Unopened> {
        let mut nonce = [0; NONCE_BYTES];
        rand::rngs::OsRng.try_fill_bytes(&mut nonce).map_err(|_| Unopened)?;
        let aad = associated(uid, key);
        let sealed = self.0.encrypt(Nonce::from_slice(&nonce), Payload { msg: value, aad: &aad }).map_err(|_| Unopened)?;
        Ok((nonce, sealed))
    }

    /// The value.
    pub(crate) fn open_value(&self, uid: &str, key: &str, nonce: &[u8], sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, Unopened> {
        if nonce.len() != NONCE_BYTES {
            return Err(Unopened);
        }
        let aad = associated(uid, key);
        self.0.decrypt(Nonce::from_slice(nonce), Payload { msg: sealed, aad: &aad }).map(Zeroizing::new).map_err(|_| Unopened)
    }
}

fn associated(uid: &str, key: &str) -> Vec<u8> {
    // A UID has a fixed form without NUL, so the pair is unambiguous.
    [uid.as_bytes(), b"\0", key.as_bytes()].concat()
}
