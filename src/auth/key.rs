//! Owns which keys are good enough, the one algorithm that follows from each, and the check of a signature. Never
//! reads a file, never shows a key. Enter at [`TokenKey::from_secret`] and [`TokenKey::has_signed`].

use std::cell::RefCell;

use aws_lc_rs::rsa::PublicKey as RsaPublicKey;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, ED25519, ParsedPublicKey, RsaPublicKeyComponents};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::crypto::{JwtVerifier, aws_lc};
use jsonwebtoken::{Algorithm, DecodingKey};
use uuid::Uuid;

/// Shortest secret for HS256: as long as the hash (RFC 7518 section 3.2).
const SECRET_MIN_BYTES: usize = 32;
/// RFC 7518 section 3.3 asks for 2048 bits; above 8192 the backend refuses to verify.
const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=8192;

/// Why a secret or a key file cannot be used, and what would be right.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    #[error("a secret of {bytes} bytes is too short for HS256: use at least 32")]
    ShortSecret { bytes: usize },
    /// Whoever knows the public key could sign tokens with it (RFC 8725 section 2.1).
    #[error("this secret is a PEM file: give it as the public key file, and a secret nobody else knows as the secret")]
    PemAsSecret,
    #[error("not a public key in PEM: it should begin with -----BEGIN PUBLIC KEY-----")]
    NotPem,
    #[error("more than one key in this file: leave one")]
    SeveralKeys,
    #[error("this is a private key: give the public one, as printed by `openssl pkey -in FILE -pubout`")]
    Private,
    #[error("this is a certificate: give its public key, as printed by `openssl x509 -in FILE -noout -pubkey`")]
    Certificate,
    #[error("an RSA key of {bits} bits: RS256 needs 2048 to 8192")]
    RsaSize { bits: usize },
    #[error("an elliptic key that is not on the curve P-256 (prime256v1), the one of ES256")]
    Curve,
    #[error("not a key this server can use: RSA (RS256), P-256 (ES256) or Ed25519 (EdDSA)")]
    Unsupported,
}

/// A key and the one algorithm it is used with; no token has a say in that (RFC 8725 section 3.1).
#[derive(Clone, Debug)]
pub(super) struct TokenKey {
    key: DecodingKey,
    algorithm: Algorithm,
    /// As `alg` spells it, upper and lower case included (RFC 7515 section 4.1.1).
    pub(super) name: &'static str,
    /// Tells this key from the next one without looking at either.
    pub(super) id: Uuid,
}

thread_local! {
    /// The key last used on this thread, as jsonwebtoken prepares it. What it prepares is not `Send`, while a key must
    /// be (a reload hands it to the reactor); preparing it for each token would cost 0.4 of 1.2 µs.
    static PREPARED: RefCell<Option<(Uuid, Box<dyn JwtVerifier>)>> = const { RefCell::new(None) };
}

impl TokenKey {
    pub(super) fn from_secret(secret: &[u8]) -> Result<Self, KeyError> {
        check_secret(secret)?;
        Ok(Self::new(DecodingKey::from_secret(secret), Algorithm::HS256, "HS256"))
    }

    /// Takes `PUBLIC KEY` (RFC 7468 section 13) and, for RSA, `RSA PUBLIC KEY`.
    pub(super) fn from_public_pem(pem: &[u8]) -> Result<Self, KeyError> {
        check_label(pem)?;
        if let Ok(key) = DecodingKey::from_rsa_pem(pem) {
            let bits = rsa_bits(&key).ok_or(KeyError::Unsupported)?;
            let good = RSA_BITS.contains(&bits);
            return if good { Ok(Self::new(key, Algorithm::RS256, "RS256")) } else { Err(KeyError::RsaSize { bits }) };
        }
        if let Ok(key) = DecodingKey::from_ec_pem(pem) {
            // A point of another curve is not on P-256, whatever its length: that is the check of the curve.
            let point = key.try_get_as_bytes().map_err(|_| KeyError::Unsupported)?;
            let good = ParsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point).is_ok();
            return if good { Ok(Self::new(key, Algorithm::ES256, "ES256")) } else { Err(KeyError::Curve) };
        }
        let key = DecodingKey::from_ed_pem(pem).map_err(|_| KeyError::Unsupported)?;
        let good = key.try_get_as_bytes().is_ok_and(|bytes| ParsedPublicKey::new(&ED25519, bytes).is_ok());
        if good { Ok(Self::new(key, Algorithm::EdDSA, "EdDSA")) } else { Err(KeyError::Unsupported) }
    }

    fn new(key: DecodingKey, algorithm: Algorithm, name: &'static str) -> Self {
        Self { key, algorithm, name, id: Uuid::new_v4() }
    }

    /// Whether `signature`, base64url without padding, is this key's over `message` (RFC 7515 section 5.2, step 8).
    /// An HMAC is compared in constant time.
    pub(super) fn has_signed(&self, message: &[u8], signature: &str) -> bool {
        let Ok(signature) = URL_SAFE_NO_PAD.decode(signature) else { return false };
        PREPARED.with_borrow_mut(|slot| {
            if !matches!(slot, Some((id, _)) if *id == self.id) {
                let prepared = (aws_lc::DEFAULT_PROVIDER.verifier_factory)(&self.algorithm, &self.key);
                *slot = prepared.ok().map(|prepared| (self.id, prepared));
            }
            slot.as_ref().is_some_and(|(_, prepared)| prepared.verify(message, &signature).is_ok())
        })
    }
}

pub(super) fn check_secret(secret: &[u8]) -> Result<(), KeyError> {
    if secret.trim_ascii_start().starts_with(b"-----BEGIN ") {
        return Err(KeyError::PemAsSecret);
    }
    if secret.len() < SECRET_MIN_BYTES { Err(KeyError::ShortSecret { bytes: secret.len() }) } else { Ok(()) }
}

/// Refuses what has a better answer than "unsupported"; the parser below would take the first block and be silent.
fn check_label(pem: &[u8]) -> Result<(), KeyError> {
    let text = str::from_utf8(pem).map_err(|_| KeyError::NotPem)?;
    if text.contains("PRIVATE KEY-----") {
        return Err(KeyError::Private);
    }
    match text.split("-----BEGIN ").skip(1).collect::<Vec<_>>().as_slice() {
        [] => Err(KeyError::NotPem),
        [block] if block.starts_with("CERTIFICATE") => Err(KeyError::Certificate),
        [_] => Ok(()),
        _ => Err(KeyError::SeveralKeys),
    }
}

/// The length of the modulus; `None` if this is no RSA key after all.
fn rsa_bits(key: &DecodingKey) -> Option<usize> {
    let parsed = RsaPublicKey::from_der(key.try_get_as_bytes().ok()?).ok()?;
    let modulus = RsaPublicKeyComponents::<Vec<u8>>::from(&parsed).n;
    let unused = modulus.first()?.leading_zeros() as usize;
    Some(modulus.len() * 8 - unused)
}
