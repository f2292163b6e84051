//! Owns the opening of what Django's layer encrypts (Fernet: AES-128-CBC under HMAC-SHA256), with the cryptography that is
//! here for tokens: the `fernet` crate would bring a second one. Never encrypts. Enter at [`Keys::open`].

use aws_lc_rs::cipher::{AES_128, DecryptionContext, PaddedBlockDecryptingKey, UnboundCipherKey};
use aws_lc_rs::iv::FixedLength;
use aws_lc_rs::{digest, hmac};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE;

const VERSION: u8 = 0x80;
/// Version, time, initialisation vector; and the signature at the end.
const IV_AT: usize = 9;
const TEXT_AT: usize = IV_AT + 16;
const SIGNATURE: usize = 32;

/// The keys of `symmetric_encryption_keys`: the first encrypts, any opens.
pub(super) struct Keys(Vec<Key>);

struct Key {
    signs: hmac::Key,
    encrypts: [u8; 16],
}

impl Keys {
    /// Django hashes each key first (channels_redis, `make_fernet`).
    pub(super) fn new(keys: &[String]) -> Self {
        Self(keys.iter().map(|key| Key::new(digest::digest(&digest::SHA256, key.as_bytes()).as_ref())).collect())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The plain text of a token that one of these keys signed.
    pub(super) fn open(&self, token: &[u8]) -> Option<Vec<u8>> {
        let token = URL_SAFE.decode(token).ok()?;
        self.0.iter().find_map(|key| key.open(&token))
    }
}

impl Key {
    fn new(hash: &[u8]) -> Self {
        let (signs, encrypts) = hash.split_at(hash.len() / 2);
        Self { signs: hmac::Key::new(hmac::HMAC_SHA256, signs), encrypts: encrypts.try_into().unwrap_or_default() }
    }

    fn open(&self, token: &[u8]) -> Option<Vec<u8>> {
        let (signed, signature) = token.split_at_checked(token.len().checked_sub(SIGNATURE)?)?;
        hmac::verify(&self.signs, signed, signature).ok()?;
        let iv: [u8; 16] = signed.get(IV_AT..TEXT_AT)?.try_into().ok()?;
        if signed.first() != Some(&VERSION) {
            return None;
        }
        let mut text = signed.get(TEXT_AT..)?.to_vec();
        let key = PaddedBlockDecryptingKey::cbc_pkcs7(UnboundCipherKey::new(&AES_128, &self.encrypts).ok()?).ok()?;
        let length = key.decrypt(&mut text, DecryptionContext::Iv128(FixedLength::from(iv))).ok()?.len();
        text.truncate(length);
        Some(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of the specification, whose key is not hashed.
    #[test]
    fn the_specifications_example_opens() {
        let key = URL_SAFE.decode("cw_0x689RpI-jtRR7oE8h_eQsKImvJapLeSbXpwF4e4=").unwrap();
        let token =
            "gAAAAAAdwJ6wAAECAwQFBgcICQoLDA0ODy021cpGVWKZ_eEwCGM4BLLF_5CV9dOPmrhuVUPgJobwOz7JcbmrR64jVmpU4IwqDA==";
        let keys = Keys(vec![Key::new(&[0; 32]), Key::new(&key)]);
        assert_eq!(keys.open(token.as_bytes()).as_deref(), Some(&b"hello"[..]));
        let mut bytes = URL_SAFE.decode(token).unwrap();
        for at in 0..bytes.len() {
            bytes[at] ^= 1;
            assert_eq!(keys.open(URL_SAFE.encode(&bytes).as_bytes()), None, "byte {at}");
            bytes[at] ^= 1;
        }
        for short in 0..bytes.len() {
            assert_eq!(keys.open(URL_SAFE.encode(&bytes[..short]).as_bytes()), None, "{short} bytes");
        }
        assert_eq!(keys.open(b"no base64"), None);
    }
}
