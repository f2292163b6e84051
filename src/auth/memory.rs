//! Owns a few tokens whose signature was found good, to spare the next look at it. Never trusts one beyond its `exp`
//! or its key. Enter at [`TokenMemory::verify`].

use std::collections::HashMap;

use super::token::{Claims, Grant, TokenError, Verifier};
use uuid::Uuid;

/// Tokens remembered at most; at the next one all are forgotten, which costs each of them one more check.
const TOKENS_MAX: usize = 1_024;
/// Longer tokens are checked each time, so that the memory stays under 1 MiB.
const REMEMBERED_MAX_BYTES: usize = 768;
/// A signature's last characters find its token; the whole token is compared then.
type Tail = [u8; TAIL_BYTES];
const TAIL_BYTES: usize = 16;

/// A bounded memory of good access tokens. It knows nothing of users: whether one is active is asked each time elsewhere.
#[derive(Default)]
pub struct TokenMemory {
    /// The key that signed all of `known`.
    key_id: Option<Uuid>,
    known: HashMap<Tail, (Box<str>, Grant)>,
}

impl TokenMemory {
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The same answer as [`Verifier::verify`], sooner for a token seen before. Another key empties the memory.
    ///
    /// # Errors
    /// As [`Verifier::verify`].
    pub fn verify(&mut self, verifier: &Verifier, token: &str, now_ms: i64) -> Result<Claims, TokenError> {
        if let Some(grant) = self.grant_of(verifier, token) {
            return grant.at(now_ms);
        }
        let grant = verifier.grant(token, now_ms)?;
        self.remember(token, grant);
        grant.at(now_ms)
    }

    /// The same for a token that will hardly come again, such as a handshake's: it is not kept.
    ///
    /// # Errors
    /// As [`Verifier::verify`].
    pub fn verify_once(&mut self, verifier: &Verifier, token: &str, now_ms: i64) -> Result<Claims, TokenError> {
        self.grant_of(verifier, token).map_or_else(|| verifier.verify(token, now_ms), |grant| grant.at(now_ms))
    }

    fn grant_of(&mut self, verifier: &Verifier, token: &str) -> Option<Grant> {
        if self.key_id.replace(verifier.key_id()) != Some(verifier.key_id()) {
            self.known.clear();
        }
        let (known, grant) = self.known.get(token.as_bytes().last_chunk::<TAIL_BYTES>()?)?;
        (**known == *token).then_some(*grant)
    }

    fn remember(&mut self, token: &str, grant: Grant) {
        let Some(tail) = token.as_bytes().last_chunk().filter(|_| token.len() <= REMEMBERED_MAX_BYTES) else { return };
        if self.known.len() >= TOKENS_MAX {
            self.known.clear();
        }
        self.known.insert(*tail, (token.into(), grant));
    }
}

impl std::fmt::Debug for TokenMemory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "TokenMemory({} known)", self.known.len())
    }
}
