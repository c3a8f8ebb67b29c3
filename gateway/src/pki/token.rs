//! Sandbox tokens: EdDSA JWTs that the gateway mints for supervisors and checks on every call.
//!
//! `iss` and `aud` are `openshell-gateway:<gateway>`, `sub` is `spiffe://openshell/sandbox/<uid>`
//! and the claim `sandbox_id` repeats the UID. Locally there is no `exp`: the token lives in the
//! memory of one supervisor, and the session ends with its sandbox object. In a cluster a token names the
//! exchange that it comes from and lasts an hour.

use std::path::Path;
use std::time::Duration;

use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use rcgen::{KeyPair, PKCS_ED25519};
use serde::{Deserialize, Serialize};
use sha2::Digest as _;

use super::PkiError;
use crate::session::SandboxPrincipal;
use crate::state::{keep_private, read_text, write_private};

/// Seconds that clocks may differ.
const LEEWAY: u64 = 60;

/// Why a token was refused. Never carries the token.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// Signature, issuer, audience or time.
    #[error("the sandbox token is not valid: {0}")]
    Invalid(String),
    /// Made with another key.
    #[error("the sandbox token was made with a key that this gateway does not have")]
    UnknownKey,
    /// Could not be made.
    #[error("cannot mint a sandbox token: {0}")]
    Mint(String),
}

#[derive(Serialize, Deserialize)]
struct Claims {
    iss: String,
    aud: String,
    sub: String,
    sandbox_id: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    exchange: Option<String>,
    iat: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    exp: Option<i64>,
}

/// Mints and checks sandbox tokens.
pub struct SandboxTokens {
    audience: String,
    kid: String,
    signing: EncodingKey,
    checking: DecodingKey,
    validation: Validation,
}

impl SandboxTokens {
    /// Loads the key of `directory`, or makes one. `public.pem` and `kid` follow from it.
    pub fn open(directory: &Path, gateway: &str) -> Result<Self, PkiError> {
        let path = directory.join("signing.pem");
        let unusable = |reason: String| PkiError::Unusable { path: path.clone(), reason };
        let key = if let Some(pem) = read_text(&path)? {
            KeyPair::from_pem(&pem).map_err(|e| unusable(e.to_string()))?
        } else {
            let key = KeyPair::generate_for(&PKCS_ED25519)
                .map_err(|e| openshell_operator::pki::PkiError::Issue { subject: "sandbox tokens", reason: e.to_string() })?;
            write_private(&path, key.serialize_pem().as_bytes())?;
            key
        };
        let tokens = Self::new(&key, gateway).map_err(unusable)?;
        keep_private(&directory.join("public.pem"), key.public_key_pem().as_bytes())?;
        keep_private(&directory.join("kid"), tokens.kid.as_bytes())?;
        Ok(tokens)
    }

    /// With the key in this file, which is not made.
    pub fn read(path: &Path, gateway: &str) -> Result<Self, PkiError> {
        let unusable = |reason: String| PkiError::Unusable { path: path.to_owned(), reason };
        let pem = read_text(path)?.ok_or_else(|| unusable("it is not there".to_owned()))?;
        Self::new(&KeyPair::from_pem(&pem).map_err(|e| unusable(e.to_string()))?, gateway).map_err(unusable)
    }

    fn new(key: &KeyPair, gateway: &str) -> Result<Self, String> {
        if key.algorithm() != &PKCS_ED25519 {
            return Err("it is not an Ed25519 key".to_owned());
        }
        let public = key.public_key_pem();
        let kid = hex::encode(&sha2::Sha256::digest(key.public_key_raw())[..16]);
        let signing = EncodingKey::from_ed_pem(key.serialize_pem().as_bytes()).map_err(|e| e.to_string())?;
        let checking = DecodingKey::from_ed_pem(public.as_bytes()).map_err(|e| e.to_string())?;
        let audience = format!("openshell-gateway:{gateway}");
        let mut validation = Validation::new(Algorithm::EdDSA);
        validation.leeway = LEEWAY;
        validation.set_audience(&[&audience]);
        validation.set_issuer(&[&audience]);
        validation.set_required_spec_claims(&["iss", "aud", "sub"]);
        Ok(Self { audience, kid, signing, checking, validation })
    }

    /// A token for the sandbox with this UID, which does not expire.
    pub fn mint(&self, sandbox_id: &str) -> Result<String, TokenError> {
        self.sign(sandbox_id, None, None)
    }

    /// A token of this exchange, for this long.
    pub fn mint_for(&self, sandbox_id: &str, exchange: &str, lifetime: Duration) -> Result<String, TokenError> {
        self.sign(sandbox_id, Some(exchange), Some(lifetime))
    }

    fn sign(&self, sandbox_id: &str, exchange: Option<&str>, lifetime: Option<Duration>) -> Result<String, TokenError> {
        let now = jiff::Timestamp::now().as_second();
        let mut header = Header::new(Algorithm::EdDSA);
        header.kid = Some(self.kid.clone());
        let claims = Claims {
            iss: self.audience.clone(),
            aud: self.audience.clone(),
            sub: subject(sandbox_id),
            sandbox_id: sandbox_id.to_owned(),
            exchange: exchange.map(str::to_owned),
            iat: now,
            exp: lifetime.map(|lifetime| now.saturating_add_unsigned(lifetime.as_secs())),
        };
        jsonwebtoken::encode(&header, &claims, &self.signing).map_err(|e| TokenError::Mint(e.to_string()))
    }

    /// Whom the token was minted for.
    pub fn check(&self, token: &str) -> Result<SandboxPrincipal, TokenError> {
        let invalid = |e: jsonwebtoken::errors::Error| TokenError::Invalid(e.to_string());
        let header = jsonwebtoken::decode_header(token).map_err(invalid)?;
        if header.kid.as_deref() != Some(&self.kid) {
            return Err(TokenError::UnknownKey);
        }
        let claims = jsonwebtoken::decode::<Claims>(token, &self.checking, &self.validation).map_err(invalid)?.claims;
        if claims.sub != subject(&claims.sandbox_id) {
            return Err(TokenError::Invalid("sub and sandbox_id differ".to_owned()));
        }
        Ok(SandboxPrincipal { sandbox_id: claims.sandbox_id, exchange: claims.exchange })
    }
}

fn subject(sandbox_id: &str) -> String {
    format!("spiffe://openshell/sandbox/{sandbox_id}")
}
