//! Owns the writing of tokens, claim by claim as SimpleJWT 5.5 orders them. Never judges one, never asks for the time.
//! Enter at [`Signer::access`].

use std::time::Duration;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, EncodingKey, crypto};
use uuid::Uuid;

use super::key::{KeyError, check_secret};
use super::token::{LAST_S, usual_header};
use crate::matching::UserId;

/// Issues HS256 tokens. Times are wall-clock milliseconds since 1970; `exp` is `iat` plus `ttl`, both in whole seconds.
#[derive(Clone)]
pub struct Signer {
    key: EncodingKey,
    header: String,
}

impl Signer {
    /// # Errors
    /// As [`Verifier::from_secret`](super::Verifier::from_secret).
    pub fn from_secret(secret: &[u8]) -> Result<Self, KeyError> {
        check_secret(secret)?;
        Ok(Self { key: EncodingKey::from_secret(secret), header: usual_header("HS256") })
    }

    /// A user's access token. The Django system accepts it too.
    #[must_use]
    pub fn access(&self, user: UserId, now_ms: i64, ttl: Duration) -> String {
        self.sign("access", Uuid::new_v4(), now_ms, ttl, &format!(r#""user_id":"{user}""#))
    }

    /// A refresh token; storage keeps `jti` and `family` to see it used twice.
    #[must_use]
    pub fn refresh(&self, user: UserId, family: Uuid, jti: Uuid, now_ms: i64, ttl: Duration) -> String {
        let family = family.simple();
        self.sign("refresh", jti, now_ms, ttl, &format!(r#""user_id":"{user}","family":"{family}""#))
    }

    /// An access token for the backend.
    #[must_use]
    pub fn service(&self, now_ms: i64, ttl: Duration) -> String {
        self.sign("access", Uuid::new_v4(), now_ms, ttl, r#""scope":"service""#)
    }

    fn sign(&self, token_type: &str, jti: Uuid, now_ms: i64, ttl: Duration, whose: &str) -> String {
        let iat = now_ms.div_euclid(1_000);
        let ttl_s = i64::try_from(ttl.as_millis().div_ceil(1_000)).unwrap_or(i64::MAX);
        let exp = iat.saturating_add(ttl_s).min(LAST_S);
        let jti = jti.simple();
        let claims = format!(r#"{{"token_type":"{token_type}","exp":{exp},"iat":{iat},"jti":"{jti}",{whose}}}"#);
        let signed = format!("{}.{}", self.header, URL_SAFE_NO_PAD.encode(claims));
        // HMAC with an HMAC key does not fail; if it ever did, an empty signature would be accepted nowhere.
        let signature = crypto::sign(signed.as_bytes(), &self.key, Algorithm::HS256).unwrap_or_default();
        format!("{signed}.{signature}")
    }
}

impl std::fmt::Debug for Signer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Signer")
    }
}
