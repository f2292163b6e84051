//! Owns what a token must look like and say to be believed (RFC 7515, 7519, 8725). Never asks for the time, never
//! knows whether the user still exists. Enter at [`Verifier::verify`].

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use uuid::Uuid;

use super::key::{KeyError, TokenKey};
use crate::matching::UserId;

/// Longest token that is looked at; SimpleJWT's have about 230 bytes.
pub const TOKEN_MAX_BYTES: usize = 8 * 1024;
/// How far ahead `nbf` and `iat` may lie, for clocks that disagree. `exp` has no such leeway.
const CLOCK_SKEW_MS: i64 = 30_000;
/// The end of the year 9999: a later time has no RFC 3339 form, and is as good as this one.
pub(super) const LAST_S: i64 = 253_402_300_799;

/// On whose behalf a call is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Caller {
    User(UserId),
    /// The backend: a token with `"scope":"service"`.
    Service,
}

/// What a good access token says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claims {
    pub caller: Caller,
    /// `exp` in wall-clock milliseconds since 1970. At this very millisecond the token is no longer good.
    pub expires_at_ms: i64,
}

/// What a good refresh token says. Whether it was used before is for storage to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RefreshClaims {
    pub user: UserId,
    pub jti: Uuid,
    /// All tokens that descend from one login. One that the Django system issued has none: it begins its own,
    /// named by its `jti`.
    pub family: Uuid,
    /// `iat` in wall-clock milliseconds since 1970; 0 where the token does not say.
    pub issued_at_ms: i64,
    /// As in [`Claims`].
    pub expires_at_ms: i64,
}

/// Why a token is refused; the texts are SimpleJWT's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", self.message())]
pub enum TokenError {
    /// Not a token, not signed by our key, not yet good, or a claim that cannot be.
    Invalid,
    Expired,
    /// A refresh token where an access token belongs, or the other way round.
    WrongType,
    /// A good token without `user_id`, or with one that is no id.
    NoUser,
}

impl TokenError {
    /// As the 401 body words it.
    #[must_use]
    pub fn message(self) -> &'static str {
        match self {
            Self::Invalid => "Token is invalid",
            Self::Expired => "Token is expired",
            Self::WrongType => "Token has wrong type",
            Self::NoUser => "Token contained no recognizable user identification",
        }
    }
}

/// Checks tokens with one key and the one algorithm that belongs to it.
#[derive(Clone, Debug)]
pub struct Verifier {
    key: TokenKey,
    /// What nearly every token of this algorithm begins with, so that its header need not be read.
    usual_header: String,
}

impl Verifier {
    /// For HS256.
    ///
    /// # Errors
    /// A secret under 32 bytes, or one that is a PEM file.
    pub fn from_secret(secret: &[u8]) -> Result<Self, KeyError> {
        TokenKey::from_secret(secret).map(Self::new)
    }

    /// For RS256, ES256 or EdDSA (Ed25519), told from the key.
    ///
    /// # Errors
    /// Anything but exactly one public key of these kinds; the error says what would be right.
    pub fn from_public_pem(pem: &[u8]) -> Result<Self, KeyError> {
        TokenKey::from_public_pem(pem).map(Self::new)
    }

    fn new(key: TokenKey) -> Self {
        let usual_header = usual_header(key.name);
        Self { key, usual_header }
    }

    /// Another key has another id.
    pub(super) fn key_id(&self) -> Uuid {
        self.key.id
    }

    /// Judges an access token at `now_ms`, wall-clock milliseconds since 1970.
    ///
    /// # Errors
    /// In this order: signature and form, `exp`, `nbf` and `iat`, `token_type`, `user_id`.
    pub fn verify(&self, token: &str, now_ms: i64) -> Result<Claims, TokenError> {
        self.grant(token, now_ms)?.at(now_ms)
    }

    /// Judges a refresh token at `now_ms`, as [`Self::verify`] does; `token_type` and `jti` are required here.
    ///
    /// # Errors
    /// As [`Self::verify`].
    pub fn verify_refresh(&self, token: &str, now_ms: i64) -> Result<RefreshClaims, TokenError> {
        let json = self.open(token)?;
        let payload: Payload<'_> = object(&json)?;
        let lifetime = payload.lifetime()?;
        lifetime.check(now_ms)?;
        if !is_text(payload.token_type, "refresh") {
            return Err(TokenError::WrongType);
        }
        let user = payload.user()?;
        let jti = payload.jti.and_then(token_id).ok_or(TokenError::Invalid)?;
        let family = payload.family.map_or(Some(jti), token_id).ok_or(TokenError::Invalid)?;
        let issued_at_ms = payload.iat.and_then(numeric_date).unwrap_or_default();
        Ok(RefreshClaims { user, jti, family, issued_at_ms, expires_at_ms: lifetime.until_ms })
    }

    /// All that an access token says, good at `now_ms`.
    pub(super) fn grant(&self, token: &str, now_ms: i64) -> Result<Grant, TokenError> {
        let json = self.open(token)?;
        let payload: Payload<'_> = object(&json)?;
        let lifetime = payload.lifetime()?;
        lifetime.check(now_ms)?;
        Ok(Grant { caller: payload.caller()?, lifetime })
    }

    /// The payload of a token that our key signed (RFC 7515 section 5.2). Nothing of it is read before that.
    fn open(&self, token: &str) -> Result<String, TokenError> {
        if token.len() > TOKEN_MAX_BYTES {
            return Err(TokenError::Invalid);
        }
        // A fourth part would leave a dot in `payload`, which base64 refuses.
        let (signed, signature) = token.rsplit_once('.').ok_or(TokenError::Invalid)?;
        let (header, payload) = signed.split_once('.').ok_or(TokenError::Invalid)?;
        if header != self.usual_header {
            self.check_header(header)?;
        }
        if self.key.has_signed(signed.as_bytes(), signature) { decode(payload) } else { Err(TokenError::Invalid) }
    }

    /// `alg` must be ours to the letter. `crit` names extensions that must be understood, and we know none; without
    /// it `b64:false` (RFC 7797) is refused too. `kid`, `jwk`, `jku`, `x5u` … cannot matter: the key is fixed.
    fn check_header(&self, part: &str) -> Result<(), TokenError> {
        let json = decode(part)?;
        let header: Header<'_> = object(&json)?;
        let ours = header.alg == self.key.name && header.crit.is_none() && header.b64 != Some(false);
        if ours { Ok(()) } else { Err(TokenError::Invalid) }
    }
}

/// The first part of a token as PyJWT writes it, and [`Signer`](super::Signer) too.
pub(super) fn usual_header(algorithm: &str) -> String {
    URL_SAFE_NO_PAD.encode(format!(r#"{{"alg":"{algorithm}","typ":"JWT"}}"#))
}

/// A token's content, apart from whether it is good at some moment.
#[derive(Clone, Copy)]
pub(super) struct Grant {
    caller: Caller,
    lifetime: Lifetime,
}

impl Grant {
    pub(super) fn at(self, now_ms: i64) -> Result<Claims, TokenError> {
        self.lifetime.check(now_ms)?;
        Ok(Claims { caller: self.caller, expires_at_ms: self.lifetime.until_ms })
    }
}

/// Wall-clock milliseconds since 1970.
#[derive(Clone, Copy)]
struct Lifetime {
    /// The later one of `nbf` and `iat`, less the leeway.
    from_ms: i64,
    until_ms: i64,
}

impl Lifetime {
    fn check(self, now_ms: i64) -> Result<(), TokenError> {
        match now_ms {
            _ if now_ms >= self.until_ms => Err(TokenError::Expired),
            _ if now_ms < self.from_ms => Err(TokenError::Invalid),
            _ => Ok(()),
        }
    }
}

/// What matters of a JOSE header. serde refuses a field that comes twice.
#[derive(Deserialize)]
struct Header<'a> {
    alg: &'a str,
    #[serde(default, deserialize_with = "present")]
    crit: Option<IgnoredAny>,
    #[serde(default, deserialize_with = "present")]
    b64: Option<bool>,
}

/// What matters of the claims, each as its JSON text: that keeps `1`, `1.0`, `"1"` and `true` apart. serde refuses a
/// field that comes twice; other claims may be anything.
#[derive(Deserialize)]
struct Payload<'a> {
    #[serde(borrow, default, deserialize_with = "present")]
    token_type: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    exp: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    iat: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    nbf: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    jti: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    user_id: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    scope: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    family: Option<&'a RawValue>,
}

impl Payload<'_> {
    fn lifetime(&self) -> Result<Lifetime, TokenError> {
        let until_ms = self.exp.and_then(numeric_date).ok_or(TokenError::Invalid)?;
        let mut from_ms = i64::MIN;
        for date in [self.nbf, self.iat].into_iter().flatten() {
            from_ms = from_ms.max(numeric_date(date).ok_or(TokenError::Invalid)? - CLOCK_SKEW_MS);
        }
        Ok(Lifetime { from_ms, until_ms })
    }

    fn caller(&self) -> Result<Caller, TokenError> {
        if self.token_type.is_some() && !is_text(self.token_type, "access") {
            return Err(TokenError::WrongType);
        }
        if is_text(self.scope, "service") { Ok(Caller::Service) } else { self.user().map(Caller::User) }
    }

    fn user(&self) -> Result<UserId, TokenError> {
        self.user_id
            .and_then(|json| UserId::parse(unquoted(json).unwrap_or_else(|| json.get())))
            .ok_or(TokenError::NoUser)
    }
}

/// Tells `null` from absent: a claim that is there must be right.
fn present<'de, D: Deserializer<'de>, T: Deserialize<'de>>(source: D) -> Result<Option<T>, D::Error> {
    T::deserialize(source).map(Some)
}

/// Reads a JSON object; serde alone would also fill a struct from an array.
fn object<'a, T: Deserialize<'a>>(json: &'a str) -> Result<T, TokenError> {
    if !json.trim_ascii_start().starts_with('{') {
        return Err(TokenError::Invalid);
    }
    serde_json::from_str(json).map_err(|_| TokenError::Invalid)
}

/// base64url without padding, each text in one spelling only (RFC 7515 section 2), as UTF-8.
fn decode(part: &str) -> Result<String, TokenError> {
    let bytes = URL_SAFE_NO_PAD.decode(part).map_err(|_| TokenError::Invalid)?;
    String::from_utf8(bytes).map_err(|_| TokenError::Invalid)
}

/// A NumericDate (RFC 7519 section 2) in whole milliseconds, never later than it says: a JSON number of seconds. What lies
/// before 1970 is 1970, which is as long over.
fn numeric_date(json: &RawValue) -> Option<i64> {
    let text = json.get();
    let is_number = text.starts_with(|first: char| first.is_ascii_digit() || first == '-');
    let seconds = text.parse::<f64>().ok().filter(|seconds| is_number && seconds.is_finite())?;
    Some((seconds.clamp(0.0, LAST_S as f64) * 1_000.0) as i64)
}

/// A UUID as SimpleJWT writes it: 32 hexadecimal digits in a string.
fn token_id(json: &RawValue) -> Option<Uuid> {
    unquoted(json).filter(|hex| hex.len() == 32).and_then(|hex| Uuid::try_parse(hex).ok())
}

/// What stands between the quotes of a JSON string; escapes stay, so that escaped text equals nothing we look for.
fn unquoted(json: &RawValue) -> Option<&str> {
    json.get().strip_prefix('"')?.strip_suffix('"')
}

fn is_text(claim: Option<&RawValue>, wanted: &str) -> bool {
    claim.and_then(unquoted) == Some(wanted)
}
