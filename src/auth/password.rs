//! Owns passwords in Django's format, `pbkdf2_sha256$rounds$salt$hash`. Never stores one, never tells by its cost who
//! exists. Enter at [`check`], on a worker thread: one call takes about 0.3 s.

use std::num::NonZeroU32;

use aws_lc_rs::pbkdf2::{self, PBKDF2_HMAC_SHA256};
use base64::{Engine, engine::general_purpose::STANDARD};
use uuid::Uuid;

use crate::matching::parse_id;

/// PBKDF2 rounds of a new password, those of Django 5.2; also the least that a refused sign-in costs.
pub const DJANGO_ITERATIONS: u32 = 1_000_000;
/// Most rounds that a stored password may ask for: 3 s of one core.
pub const ITERATIONS_MAX: u32 = 10_000_000;
const HASH_BYTES: usize = 32;
const SALT_CHARS: usize = 22;
const ALPHANUMERIC: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// A stored password, read.
pub struct Encoded<'a> {
    iterations: NonZeroU32,
    salt: &'a str,
    hash: [u8; HASH_BYTES],
}

impl<'a> Encoded<'a> {
    /// Reads `pbkdf2_sha256$<1 to 10,000,000>$<salt>$<base64 of 32 bytes>`; `None` for any other text.
    #[must_use]
    pub fn parse(text: &'a str) -> Option<Self> {
        let mut parts = text.strip_prefix("pbkdf2_sha256$")?.split('$');
        let (iterations, salt, hash) = (parts.next()?, parts.next()?, parts.next()?);
        if salt.is_empty() || parts.next().is_some() {
            return None;
        }
        let iterations = u32::try_from(parse_id(iterations)?).ok().filter(|&n| n <= ITERATIONS_MAX)?;
        let hash = STANDARD.decode(hash).ok()?.try_into().ok()?;
        Some(Self { iterations: NonZeroU32::new(iterations)?, salt, hash })
    }
}

/// Whether this text is a password that [`check`] can check, or one that Django marked unusable (`!` and 40
/// letters and digits), rather than a plain one that must be encoded first.
#[must_use]
pub fn is_encoded(text: &str) -> bool {
    Encoded::parse(text).is_some() || is_unusable(text)
}

/// Whether this text is encoded in a way that this server cannot check (`argon2$…`, `md5$…`, a damaged
/// `pbkdf2_sha256$…`). To take it for a plain password would make the hash itself the password.
#[must_use]
pub fn is_foreign(text: &str) -> bool {
    const DJANGO_HASHERS: [&str; 8] =
        ["pbkdf2_sha256", "pbkdf2_sha1", "argon2", "bcrypt", "bcrypt_sha256", "scrypt", "sha1", "md5"];
    let hasher = text.split_once('$').map(|(hasher, _)| hasher);
    hasher.is_some_and(|hasher| DJANGO_HASHERS.contains(&hasher)) && !is_encoded(text)
}

fn is_unusable(text: &str) -> bool {
    text.strip_prefix('!').is_some_and(|rest| rest.len() == 40 && rest.bytes().all(|b| b.is_ascii_alphanumeric()))
}

/// Encodes a password to be stored. `salt` is what [`salt`] makes, or anything without `$`; `iterations` is
/// [`DJANGO_ITERATIONS`], fewer in tests.
#[must_use]
pub fn encode(password: &str, salt: &str, iterations: u32) -> String {
    let rounds = NonZeroU32::new(iterations.min(ITERATIONS_MAX)).unwrap_or(NonZeroU32::MIN);
    let mut hash = [0; HASH_BYTES];
    pbkdf2::derive(PBKDF2_HMAC_SHA256, rounds, salt.as_bytes(), password.as_bytes(), &mut hash);
    format!("pbkdf2_sha256${rounds}${salt}${}", STANDARD.encode(hash))
}

/// 22 letters and digits that carry 122 random bits of the operating system.
#[must_use]
pub fn salt() -> String {
    let mut random = Uuid::new_v4().as_u128();
    let mut next = || {
        let digit = (random % 62) as usize;
        random /= 62;
        char::from(ALPHANUMERIC[digit])
    };
    (0..SALT_CHARS).map(|_| next()).collect()
}

/// The answer to a password, and what it cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Checked {
    /// Which of the stored ones it is, the first of those that it fits.
    pub which: Option<usize>,
    /// PBKDF2 rounds that were computed.
    pub rounds: u64,
}

/// Compares a password with stored ones, in constant time each. None at all is a user who does not exist; that, stored
/// texts that cannot be read, unusable passwords and wrong ones all cost at least `refusal_rounds`, as in Django's
/// `harden_runtime`, so that time does not tell them apart. Only a right one may cost less.
pub fn check<'a>(password: &str, stored: impl IntoIterator<Item = &'a str>, refusal_rounds: u32) -> Checked {
    let mut rounds = 0;
    for (place, stored) in stored.into_iter().enumerate() {
        let Some(Encoded { iterations, salt, hash }) = Encoded::parse(stored) else { continue };
        rounds += u64::from(iterations.get());
        if derives(password, salt, iterations, &hash) {
            return Checked { which: Some(place), rounds };
        }
    }
    let missing = u64::from(refusal_rounds).saturating_sub(rounds);
    if let Some(missing) = u32::try_from(missing).ok().and_then(NonZeroU32::new) {
        derives(password, "nobody", missing, &[0; HASH_BYTES]);
        rounds += u64::from(missing.get());
    }
    Checked { which: None, rounds }
}

/// Whether `password` is the one in `encoded`: [`check`] for those who are known.
#[must_use]
pub fn verify(password: &str, encoded: &str) -> bool {
    check(password, [encoded], 0).which.is_some()
}

fn derives(password: &str, salt: &str, rounds: NonZeroU32, hash: &[u8; HASH_BYTES]) -> bool {
    pbkdf2::verify(PBKDF2_HMAC_SHA256, rounds, salt.as_bytes(), password.as_bytes(), hash).is_ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Made by Python's `hashlib.pbkdf2_hmac`; the first is from Django's own tests.
    const KNOWN: [(&str, &str); 4] = [
        ("lètmein", "pbkdf2_sha256$30000$seasalt$VrX+V8drCGo68wlvy6rfu8i1d1pfkdeXA4LJkRGJodY="),
        ("contraseña", "pbkdf2_sha256$1000$Qm3zLr8sT0vWxYb5NcKd1e$MccQN6QQL0Lm83bWCNrlrPE2uUDodSlcLEPesqTUfSQ="),
        ("", "pbkdf2_sha256$1$s$hlaZvx+fQUB7nsOXctgpvyJ4ixMmVOdSfNbS+6nH3wk="),
        ("propietario1", "pbkdf2_sha256$1000000$dJ4nGoSaLt0123456789ab$rAzQiA5nwp30+3s2xKU0HKERDI8UozJrydqYPfEvPic="),
    ];
    /// What Django stores for a user without a password.
    const UNUSABLE: &str = "!A1b2C3d4E5f6G7h8I9j0K1l2M3n4O5p6Q7r8S9t0";

    #[test]
    fn passwords_that_django_stored_are_right() {
        for (password, stored) in KNOWN {
            let [_, iterations, salt, _] = stored.split('$').collect::<Vec<_>>().try_into().unwrap();
            assert!(verify(password, stored) && is_encoded(stored) && !is_foreign(stored));
            assert_eq!(encode(password, salt, iterations.parse().unwrap()), stored);
            assert!(!verify(&format!("{password}x"), stored));
        }
        let long = "a\0b".repeat(40);
        assert!(verify(&long, "pbkdf2_sha256$4096$NaCl$5K4U/PBjbpXQX16ehh8e/MmX0av7lk99ZjBLLCKY9DQ="));
    }

    #[test]
    fn wrong_and_unknown_cost_the_same_rounds() {
        let refused = Checked { which: None, rounds: 40_000 };
        let check = |password: &str, stored: &[&str]| check(password, stored.iter().copied(), 40_000);
        let (right, fast) = KNOWN[0];
        assert_eq!(check("wrong", &[]), refused);
        assert_eq!(check("wrong", &[fast]), refused);
        assert_eq!(check(right, &[fast]), Checked { which: Some(0), rounds: 30_000 });
        for stored in [UNUSABLE, "", "!", "pbkdf2_sha256$0$s$x", "argon2$argon2id$v=19$m=102400,t=2,p=8$c2FsdA$aGFzaA"]
        {
            for password in ["", stored, "nobody"] {
                assert_eq!(check(password, &[stored]), refused, "{stored}");
            }
        }
        // Of several, each costs its own; what is right is found behind what is not.
        assert_eq!(check(right, &[UNUSABLE, KNOWN[1].1, fast]), Checked { which: Some(2), rounds: 31_000 });
        assert_eq!(check("wrong", &[fast, fast]), Checked { which: None, rounds: 60_000 });
    }

    #[test]
    fn stored_texts_are_read_strictly() {
        let hash = "VrX+V8drCGo68wlvy6rfu8i1d1pfkdeXA4LJkRGJodY=";
        assert!(Encoded::parse(&format!("pbkdf2_sha256$10000000$s$${hash}").replace("$$", "$")).is_some());
        for odd in [
            "30000$s",
            "0$s",
            "-1$s",
            "+1$s",
            "01$s",
            "1.0$s",
            "1e3$s",
            " 1$s",
            "$s",
            "10000001$s",
            "4294967297$s",
            "1$",
            "99999999999999999999$s",
            "1$s$s",
        ] {
            let odd = format!("pbkdf2_sha256${odd}${}", if odd == "30000$s" { &hash[1..] } else { hash });
            assert!(Encoded::parse(&odd).is_none() && !is_encoded(&odd) && is_foreign(&odd), "{odd}");
        }
        for hash in [
            "",
            "=",
            "AAAA",
            &hash[..43],
            &format!("{hash}="),
            &format!("{hash}$"),
            &hash.replace("dY=", "dZ="),
            &hash.replace('+', "-"),
        ] {
            assert!(Encoded::parse(&format!("pbkdf2_sha256$1$s${hash}")).is_none(), "{hash}");
        }
    }

    #[test]
    fn plain_passwords_are_told_from_encoded_ones() {
        for plain in [
            "",
            "contraseña",
            "!",
            "!short",
            "p$1$2$3",
            "pbkdf2_sha256",
            "costs $5",
            "!A1b2C3d4E5f6G7h8I9j0K1l2M3n4O5p6Q7r8S9t-",
        ] {
            assert!(!is_encoded(plain) && !is_foreign(plain), "{plain}");
        }
        for foreign in
            ["argon2$argon2id$v=19", "bcrypt_sha256$$2b$12$x", "md5$salt$hash", "scrypt$x", "pbkdf2_sha1$1$s$x"]
        {
            assert!(!is_encoded(foreign) && is_foreign(foreign), "{foreign}");
        }
        assert!(is_encoded(UNUSABLE) && !is_foreign(UNUSABLE));
    }

    #[test]
    fn salts_are_22_letters_and_digits() {
        let (one, other) = (salt(), salt());
        assert_ne!(one, other);
        for salt in [one, other] {
            assert!(salt.len() == 22 && salt.bytes().all(|b| b.is_ascii_alphanumeric()), "{salt}");
            assert!(verify("x", &encode("x", &salt, 1)));
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(password in any::<String>(), stored in any::<String>(), tail in "[0-9]{0,2}\\$[a-z$]{0,4}\\$[A-Za-z=]{0,50}") {
            for stored in [stored, format!("pbkdf2_sha256${tail}")] {
                let _ = is_foreign(&stored);
                prop_assert!(!verify(&password, &stored));
            }
        }

        #[test]
        fn what_was_encoded_is_verified(password in any::<String>(), other in any::<String>(), rounds in 1..20_u32) {
            let stored = encode(&password, &salt(), rounds);
            prop_assert!(is_encoded(&stored));
            prop_assert_eq!(verify(&other, &stored), other == password);
            prop_assert_eq!(check(&password, [&*stored], 100), Checked { which: Some(0), rounds: u64::from(rounds) });
        }
    }
}
