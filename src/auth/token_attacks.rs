//! Owns the tests of tokens: what is accepted, and a table of attacks for each rule. Never measures time.
//! Enter at any test.

use std::time::Duration;

use aws_lc_rs::hmac;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use proptest::prelude::*;
use uuid::Uuid;

use super::vectors::*;
use super::{Caller, Claims, KeyError, Signer, TOKEN_MAX_BYTES, TokenError, TokenMemory, Verifier};
use crate::matching::UserId;

const HEADER: &str = r#"{"alg":"HS256","typ":"JWT"}"#;
const HOUR: Duration = Duration::from_secs(3_600);
const DAY_MS: i64 = 86_400_000;
/// When a token ends that is to end later than any calendar has a name for.
const LAST_MS: i64 = 253_402_300_799_000;
/// `ISSUED_MS` in seconds, as claims have it.
const NOW_S: i64 = ISSUED_MS / 1_000;

fn ours() -> Verifier {
    Verifier::from_secret(SECRET.as_bytes()).unwrap()
}

/// Signs anything with HMAC, by no code of this room.
fn forge(key: &[u8], header: &str, payload: impl AsRef<[u8]>) -> String {
    let signed = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(payload));
    let signature = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), signed.as_bytes());
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
}

fn with_header(header: &str) -> String {
    forge(SECRET.as_bytes(), header, format!(r#"{{"exp":{},"user_id":"1"}}"#, NOW_S + 60))
}

/// The verdict on a token of ours with these claims, once afresh and twice by way of the memory.
fn claims(payload: &str) -> Result<Claims, TokenError> {
    let (verifier, mut memory) = (ours(), TokenMemory::new());
    let token = forge(SECRET.as_bytes(), HEADER, payload);
    let verdict = verifier.verify(&token, ISSUED_MS);
    assert_eq!(memory.verify_once(&verifier, &token, ISSUED_MS), verdict);
    assert_eq!(memory.verify(&verifier, &token, ISSUED_MS), verdict);
    assert_eq!(memory.verify(&verifier, &token, ISSUED_MS), verdict);
    assert_eq!(memory.verify_once(&verifier, &token, ISSUED_MS), verdict);
    verdict
}

/// The same for `exp` and `user_id` as they should be, and one more claim, e.g. `"nbf":1`.
fn with_claim(claim: &str) -> Result<Caller, TokenError> {
    claims(&format!(r#"{{"exp":{},"user_id":"1",{claim}}}"#, NOW_S + 60)).map(|c| c.caller)
}

fn with_exp(exp: &str) -> Result<i64, TokenError> {
    claims(&format!(r#"{{"exp":{exp},"user_id":"1"}}"#)).map(|c| c.expires_at_ms - ISSUED_MS)
}

const ONE: Result<Caller, TokenError> = Ok(Caller::User(UserId(1)));

#[test]
fn tokens_that_other_programs_made_are_accepted() {
    let until = ISSUED_MS + 3_600_000;
    for (token, caller) in [
        (ACCESS, Caller::User(UserId(1))),
        (ACCESS_INTEGER, Caller::User(UserId(42))),
        (ACCESS_SPACED, Caller::User(UserId(1))),
        (SERVICE, Caller::Service),
    ] {
        assert_eq!(ours().verify(token, ISSUED_MS), Ok(Claims { caller, expires_at_ms: until }));
        assert!(ours().verify(token, until - 1).is_ok());
        assert_eq!(ours().verify(token, until), Err(TokenError::Expired));
        assert!(ours().verify(token, ISSUED_MS - 30_000).is_ok());
        assert_eq!(ours().verify(token, ISSUED_MS - 30_001), Err(TokenError::Invalid));
    }
    let rfc = Verifier::from_secret(&URL_SAFE_NO_PAD.decode(RFC_7515_KEY).unwrap()).unwrap();
    assert_eq!(rfc.verify(RFC_7515_TOKEN, 1_300_819_379_999), Err(TokenError::NoUser));
    assert_eq!(rfc.verify(RFC_7515_TOKEN, 1_300_819_380_000), Err(TokenError::Expired));
}

#[test]
fn our_tokens_have_the_claims_of_simple_jwt_in_its_order() {
    let signer = Signer::from_secret(SECRET.as_bytes()).unwrap();
    let (family, jti) = (Uuid::from_u128(1), Uuid::from_u128(2));
    let access = signer.access(UserId(1), ISSUED_MS + 999, HOUR);
    let refresh = signer.refresh(UserId(i64::MAX), family, jti, ISSUED_MS, Duration::from_millis(1_001));
    let service = signer.service(ISSUED_MS, HOUR);
    let begin = r#"{"token_type":"access","exp":1795488893,"iat":1795485293,"jti":""#;
    for (token, begin, end) in [
        (&access, begin, r#"","user_id":"1"}"#),
        (&service, begin, r#"","scope":"service"}"#),
        (
            &refresh,
            r#"{"token_type":"refresh","exp":1795485295,"iat":1795485293,"jti":"00000000000000000000000000000002"#,
            r#"","user_id":"9223372036854775807","family":"00000000000000000000000000000001"}"#,
        ),
    ] {
        let [header, payload, _] = token.split('.').collect::<Vec<_>>().try_into().unwrap();
        assert_eq!(URL_SAFE_NO_PAD.decode(header).unwrap(), HEADER.as_bytes());
        let payload = String::from_utf8(URL_SAFE_NO_PAD.decode(payload).unwrap()).unwrap();
        assert!(payload.starts_with(begin) && payload.ends_with(end), "{payload}");
        let jti = &payload[payload.find("jti").unwrap() + 6..][..32];
        assert!(jti.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)), "{jti}");
    }
    assert_eq!(ours().verify(&access, ISSUED_MS).unwrap().caller, Caller::User(UserId(1)));
    assert_eq!(ours().verify(&service, ISSUED_MS).unwrap().caller, Caller::Service);
    assert_ne!(access, signer.access(UserId(1), ISSUED_MS + 999, HOUR), "each has a jti of its own");
    assert!(ours().verify(&signer.access(UserId(1), ISSUED_MS, Duration::MAX), ISSUED_MS).is_ok());
    assert_eq!(format!("{signer:?}"), "Signer");
}

#[test]
fn refresh_tokens_are_a_kind_of_their_own() {
    let read = |token: &str| ours().verify_refresh(token, ISSUED_MS);
    let (jti, family) = ("0f3c8a5c6f0e4d6b9a55c7a3a1d2e4f6", "5e631e935dca47d3877ba4ad1058956e");
    for (token, family) in [(REFRESH, family), (REFRESH_DJANGO, jti)] {
        let claims = read(token).unwrap();
        assert_eq!((claims.user, claims.expires_at_ms), (UserId(7), ISSUED_MS + 7 * DAY_MS));
        assert_eq!(claims.issued_at_ms, ISSUED_MS);
        assert_eq!((claims.jti.simple().to_string(), claims.family.simple().to_string()), (jti.into(), family.into()));
        assert_eq!(ours().verify_refresh(token, ISSUED_MS + 7 * DAY_MS), Err(TokenError::Expired));
        assert_eq!(ours().verify(token, ISSUED_MS), Err(TokenError::WrongType));
        assert_eq!(ours().verify(token, ISSUED_MS + 7 * DAY_MS), Err(TokenError::Expired));
    }
    assert_eq!(read(ACCESS), Err(TokenError::WrongType));
    assert_eq!(read(SERVICE), Err(TokenError::WrongType));
    assert_eq!(read(&with_header(HEADER)), Err(TokenError::WrongType), "token_type is required");

    let refresh = |rest: &str| {
        let payload = format!(r#"{{"token_type":"refresh","exp":{}{rest}}}"#, NOW_S + 60);
        read(&forge(SECRET.as_bytes(), HEADER, payload))
    };
    let id = format!(r#","jti":"{jti}""#);
    assert!(refresh(&format!(r#","user_id":7{id}"#)).is_ok());
    assert_eq!(refresh(&id), Err(TokenError::NoUser));
    assert_eq!(refresh(&format!(r#"{id},"scope":"service""#)), Err(TokenError::NoUser));
    for odd in ["", r#","jti":1"#, r#","jti":"""#, r#","jti":"{0f3c8a5c6f0e4d6b9a55c7a3a1d2e4}""#, r#","jti":null"#] {
        assert_eq!(refresh(&format!(r#","user_id":7{odd}"#)), Err(TokenError::Invalid), "{odd}");
    }
    for odd in ["null", "1", r#""""#, r#""0f3c8a5c-6f0e-4d6b-9a55-c7a3a1d2e4f6""#] {
        assert_eq!(refresh(&format!(r#","user_id":7{id},"family":{odd}"#)), Err(TokenError::Invalid), "{odd}");
    }
}

#[test]
fn the_form_is_three_parts_of_strict_base64url() {
    let [header, payload, signature] = ACCESS.split('.').collect::<Vec<_>>().try_into().unwrap();
    for odd in [
        String::new(),
        ".".into(),
        "..".into(),
        "...".into(),
        "Bearer".into(),
        header.into(),
        format!("{header}.{payload}"),
        format!("{header}.{payload}."),
        format!("{header}..{signature}"),
        format!(".{payload}.{signature}"),
        format!("{ACCESS}."),
        format!(".{ACCESS}"),
        format!("{header}.{payload}.{payload}.{signature}"),
        format!("{ACCESS}.{payload}.{signature}"),
        format!("{ACCESS}="),
        format!("{ACCESS}\n"),
        format!(" {ACCESS}"),
        format!("{header}.{payload}.{signature}{signature}"),
        format!("{header}=.{payload}.{signature}"),
        format!("{header}.{payload}\u{0}.{signature}"),
        format!("{header}.{payload}.ñ{signature}"),
        format!("{header}.{payload}.{}", &signature[..42]),
        ACCESS.to_uppercase(),
        ACCESS.replace(['-', '_'], "+"),
    ] {
        assert_eq!(ours().verify(&odd, ISSUED_MS), Err(TokenError::Invalid), "{odd}");
        assert_eq!(TokenMemory::new().verify(&ours(), &odd, ISSUED_MS), Err(TokenError::Invalid), "{odd}");
    }
    // 32 bytes are 43 characters, the last of which has two bits to spare: only zeros are right.
    for last in "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_".chars() {
        let token = format!("{}{last}", &ACCESS[..ACCESS.len() - 1]);
        assert_eq!(ours().verify(&token, ISSUED_MS).is_ok(), token == ACCESS, "{last}");
    }
}

#[test]
fn the_length_is_bounded() {
    let long = |filler: usize| {
        let filler = "x".repeat(filler);
        forge(SECRET.as_bytes(), HEADER, format!(r#"{{"exp":{},"user_id":"1","aud":"{filler}"}}"#, NOW_S + 60))
    };
    assert!(long(6_000).len() < TOKEN_MAX_BYTES && ours().verify(&long(6_000), ISSUED_MS).is_ok());
    assert_eq!(ours().verify(&long(6_100), ISSUED_MS), Err(TokenError::Invalid));
}

#[test]
fn the_algorithm_is_ours_to_the_letter() {
    for (token, why) in [(ACCESS_HS512, "HS512"), (ACCESS_OTHER_KEY, "other key"), (ACCESS_RS256, "RS256")] {
        assert_eq!(ours().verify(token, ISSUED_MS), Err(TokenError::Invalid), "{why}");
    }
    let none = [r#""none""#, r#""None""#, r#""NONE""#, r#""nOnE""#, r#""""#, "null", "0", "false", "[]", "{}"];
    let other = [r#""hs256""#, r#""HS384""#, r#""HS256 ""#, r#""RS256""#, r#"["HS256"]"#, r#"{"HS256":1}"#];
    for alg in none.iter().chain(&other) {
        let token = with_header(&format!(r#"{{"alg":{alg}}}"#));
        assert_eq!(ours().verify(&token, ISSUED_MS), Err(TokenError::Invalid), "{alg}");
        let unsigned = &token[..=token.rfind('.').unwrap()];
        assert_eq!(ours().verify(unsigned, ISSUED_MS), Err(TokenError::Invalid), "{alg}, unsigned");
    }
}

#[test]
fn the_header_may_say_little_else() {
    for good in [
        HEADER,
        r#"{"alg":"HS256"}"#,
        "\n{ \"alg\" : \"HS256\" }\r\n",
        r#"{"alg":"HS256","typ":"at+jwt","kid":"../../etc/passwd"}"#,
        r#"{"alg":"HS256","jwk":{"kty":"oct","k":"AAAA"},"jku":"https://evil.example","x5u":1,"x5c":[[]]}"#,
        r#"{"alg":"HS256","b64":true}"#,
    ] {
        assert!(ours().verify(&with_header(good), ISSUED_MS).is_ok(), "{good}");
    }
    for bad in [
        r#"{}"#,
        r#"["HS256"]"#,
        r#"["HS256",null,null]"#,
        r#""HS256""#,
        "null",
        "",
        r#"{"alg":"HS256""#,
        r#"{"alg":"HS256"}{}"#,
        "\u{feff}{\"alg\":\"HS256\"}",
        r#"{"Alg":"HS256"}"#,
        r#"{"alg":"none","alg":"HS256"}"#,
        r#"{"alg":"HS256","alg":"HS256"}"#,
        r#"{"alg":"HS256","\u0061lg":"none"}"#,
        r#"{"alg":"HS256","crit":[]}"#,
        r#"{"alg":"HS256","crit":null}"#,
        r#"{"alg":"HS256","crit":["exp"],"exp":1}"#,
        r#"{"alg":"HS256","crit":["b64"],"b64":true}"#,
        r#"{"alg":"HS256","\u0063rit":["x"]}"#,
        r#"{"alg":"HS256","b64":false}"#,
        r#"{"alg":"HS256","b64":null}"#,
        r#"{"alg":"HS256","b64":"true"}"#,
        r#"{"alg":"HS256","b64":true,"b64":true}"#,
    ] {
        assert_eq!(ours().verify(&with_header(bad), ISSUED_MS), Err(TokenError::Invalid), "{bad}");
    }
}

#[test]
fn exp_is_a_number_of_seconds_ahead() {
    for (exp, left_ms) in [
        (format!("{}", NOW_S + 1), 1_000),
        (format!("{}.001", NOW_S), 1),
        (format!("{}.998", NOW_S + 1), 1_998),
        (format!("{}.0", NOW_S + 2), 2_000),
        (format!("{}.0019", NOW_S), 1),
        ("1.795485294e9".into(), 1_000),
        ("1.795485294E+9".into(), 1_000),
        ("253402300799".into(), LAST_MS - ISSUED_MS),
        ("253402300800".into(), LAST_MS - ISSUED_MS),
        ("1795485353000".into(), LAST_MS - ISSUED_MS),
        ("9223372036854775807".into(), LAST_MS - ISSUED_MS),
        ("18446744073709551615".into(), LAST_MS - ISSUED_MS),
        ("1.7e308".into(), LAST_MS - ISSUED_MS),
    ] {
        assert_eq!(with_exp(&exp), Ok(left_ms), "{exp}");
    }
    let over = [&format!("{NOW_S}"), &format!("{NOW_S}.0009"), &format!("{}.999", NOW_S - 1)];
    for exp in
        over.map(String::as_str).into_iter().chain(["0", "0.0", "1", "1e-400", "-0", "-1", "-1795485353", "-1e300"])
    {
        assert_eq!(with_exp(exp), Err(TokenError::Expired), "{exp}");
    }
    for exp in [
        "true",
        "false",
        "null",
        "[]",
        "{}",
        r#""""#,
        r#""1795485353""#,
        "1e400",
        "-1e400",
        "NaN",
        "Infinity",
        "\"NaN\"",
        "-01795485353",
        "--1795485353",
        "-",
        "01795485353",
        "+1795485353",
        "1795485353.",
        ".5",
        "0x6b",
        "[1795485353]",
        r#"{"$numberLong":"1795485353"}"#,
    ] {
        assert_eq!(with_exp(exp), Err(TokenError::Invalid), "{exp}");
    }
    assert_eq!(claims(r#"{"user_id":"1"}"#), Err(TokenError::Invalid), "exp is required");
}

#[test]
fn nbf_and_iat_are_numbers_at_most_30_s_ahead() {
    for name in ["nbf", "iat"] {
        for good in [NOW_S + 30, NOW_S, 0, -1, i64::MIN] {
            assert_eq!(with_claim(&format!(r#""{name}":{good}"#)), ONE, "{name} {good}");
        }
        assert_eq!(with_claim(&format!(r#""{name}":{}.5"#, NOW_S + 29)), ONE);
        assert_eq!(with_claim(&format!(r#""{name}":{}.001"#, NOW_S + 30)), Err(TokenError::Invalid));
        for odd in ["1795485324", "true", "null", r#""1""#, "1e400", "-1e400", "18446744073709551615", "[1]", "{}"] {
            assert_eq!(with_claim(&format!(r#""{name}":{odd}"#)), Err(TokenError::Invalid), "{name} {odd}");
        }
    }
}

#[test]
fn the_type_is_access_or_not_given() {
    assert_eq!(with_claim(r#""token_type":"access""#), ONE);
    for odd in [r#""refresh""#, r#""Access""#, r#""access ""#, r#""""#, "null", "true", "1", r#"["access"]"#] {
        assert_eq!(with_claim(&format!(r#""token_type":{odd}"#)), Err(TokenError::WrongType), "{odd}");
        let service = format!(r#""scope":"service","token_type":{odd}"#);
        assert_eq!(with_claim(&service), Err(TokenError::WrongType), "{odd}");
    }
}

#[test]
fn the_user_is_a_plain_decimal() {
    let with_user = |user: &str| {
        let payload = format!(r#"{{"exp":{},"user_id":{user}}}"#, NOW_S + 60);
        claims(&payload).map(|claims| claims.caller)
    };
    for (user, id) in
        [("1", 1), (r#""1""#, 1), ("9223372036854775807", i64::MAX), (r#""9223372036854775807""#, i64::MAX)]
    {
        assert_eq!(with_user(user), Ok(Caller::User(UserId(id))), "{user}");
    }
    for odd in [
        "0",
        r#""0""#,
        "-1",
        r#""-1""#,
        r#""+1""#,
        r#""01""#,
        "1.0",
        r#""1.0""#,
        "1e3",
        r#""1e3""#,
        "true",
        "false",
        "null",
        r#""""#,
        r#"" 1""#,
        r#""1 ""#,
        r#""1\n""#,
        r#""\u0031""#,
        r#""١""#,
        r#""x""#,
        r#""0x1""#,
        "[1]",
        r#"["1"]"#,
        "{}",
        r#"{"id":1}"#,
        "9223372036854775808",
        r#""9223372036854775808""#,
        "18446744073709551617",
        r#""1\u0000""#,
        r#""\"1\"""#,
        "1e400",
    ] {
        assert_eq!(with_user(odd), Err(TokenError::NoUser), "{odd}");
    }
    let absent = format!(r#"{{"exp":{},"sub":"1","user":"1","User_id":"1"}}"#, NOW_S + 60);
    assert_eq!(claims(&absent), Err(TokenError::NoUser));
}

#[test]
fn a_service_says_so_exactly() {
    let until = NOW_S + 60;
    for user in ["", r#","user_id":"1""#, r#","user_id":null"#, r#","user_id":[]"#] {
        let token = format!(r#"{{"exp":{until},"scope":"service"{user}}}"#);
        assert_eq!(claims(&token).map(|c| c.caller), Ok(Caller::Service), "{user}");
    }
    for scope in [
        r#""Service""#,
        r#""service ""#,
        r#""service read""#,
        r#""servic\u0065""#,
        r#""""#,
        "null",
        "true",
        "1",
        r#"["service"]"#,
        r#"{"service":true}"#,
    ] {
        assert_eq!(with_claim(&format!(r#""scope":{scope}"#)), ONE, "{scope}");
        assert_eq!(claims(&format!(r#"{{"exp":{until},"scope":{scope}}}"#)), Err(TokenError::NoUser), "{scope}");
    }
}

#[test]
fn claims_that_matter_come_once() {
    let all = [
        ("exp", "1795485353"),
        ("nbf", "1"),
        ("iat", "1"),
        ("user_id", r#""1""#),
        ("token_type", r#""access""#),
        ("scope", r#""x""#),
    ];
    let payload = all.map(|(name, value)| format!(r#""{name}":{value}"#)).join(",");
    assert_eq!(claims(&format!("{{{payload}}}")).map(|c| c.caller), ONE);
    for (name, value) in all {
        let escaped = format!(r"\u{:04x}{}", name.as_bytes()[0], &name[1..]);
        for twice in [format!(r#"{{{payload},"{name}":{value}}}"#), format!(r#"{{"{escaped}":{value},{payload}}}"#)] {
            assert_eq!(claims(&twice), Err(TokenError::Invalid), "{twice}");
        }
    }
}

#[test]
fn other_claims_may_be_anything() {
    let deep = format!(r#""x":{}1{}"#, "[".repeat(2_000), "]".repeat(2_000));
    for claim in [
        r#""jti":1,"aud":["a","b"],"iss":null,"sub":{}"#,
        r#""jti":"","aud":"habitto","iss":"https://x""#,
        r#""other":1,"other":2"#,
        r#""EXP":"no","x":1e400,"y":"\u0000\ud800""#,
        &deep,
    ] {
        assert_eq!(with_claim(claim), ONE, "{claim}");
    }
}

#[test]
fn the_claims_are_one_json_object() {
    let array = format!(r#"["access",{},1,1,"x","1","service","x"]"#, NOW_S + 60);
    for odd in ["", "null", "1", "[]", r#""x""#, "{", "{}}", "{} {}", "{'exp':1}", "{exp:1}", "\u{feff}{}", &array] {
        assert_eq!(claims(odd), Err(TokenError::Invalid), "{odd}");
    }
    assert_eq!(claims(&format!(" \t\r\n{{\"exp\":{},\"user_id\":1}} \n", NOW_S + 60)).map(|c| c.caller), ONE);
    let mut latin_1 = format!(r#"{{"exp":{},"user_id":"1","name":"x"}}"#, NOW_S + 60).into_bytes();
    let x = latin_1.iter().rposition(|&b| b == b'x').unwrap();
    latin_1[x] = 0xe9;
    assert_eq!(ours().verify(&forge(SECRET.as_bytes(), HEADER, latin_1), ISSUED_MS), Err(TokenError::Invalid));
}

#[test]
fn public_keys_fix_their_algorithm() {
    let keys = [
        (RSA, ACCESS_RS256),
        (RSA_PKCS1, ACCESS_RS256),
        (P256, ACCESS_ES256),
        (P256_COMPRESSED, ACCESS_ES256),
        (ED25519, ACCESS_EDDSA),
    ];
    let one = Ok(Claims { caller: Caller::User(UserId(1)), expires_at_ms: ISSUED_MS + 3_600_000 });
    let all =
        [ACCESS, ACCESS_HS512, ACCESS_RS256, ACCESS_RS384, ACCESS_PS256, ACCESS_ES256, ACCESS_ES256_DER, ACCESS_EDDSA];
    for (pem, own) in keys {
        for pem in [pem.to_owned(), pem.replace('\n', "\r\n"), format!("a remark\n{pem}\n")] {
            let verifier = Verifier::from_public_pem(pem.as_bytes()).unwrap();
            for token in all {
                let wanted = if token == own { one } else { Err(TokenError::Invalid) };
                assert_eq!(verifier.verify(token, ISSUED_MS), wanted, "{pem} {token}");
            }
            assert_eq!(verifier.verify(own, ISSUED_MS + 3_600_000), Err(TokenError::Expired));
        }
    }
}

#[test]
fn a_public_key_is_no_secret() {
    for (pem, alg) in [(RSA, "RS256"), (P256, "ES256"), (ED25519, "EdDSA")] {
        let verifier = Verifier::from_public_pem(pem.as_bytes()).unwrap();
        let claims = format!(r#"{{"exp":{},"user_id":"1"}}"#, NOW_S + 60);
        for key in [pem, pem.trim_end()] {
            for header in [HEADER.to_owned(), HEADER.replace("HS256", alg)] {
                let token = forge(key.as_bytes(), &header, &claims);
                assert_eq!(verifier.verify(&token, ISSUED_MS), Err(TokenError::Invalid), "{alg} {header}");
            }
        }
        // CVE-2022-21449: an ECDSA signature of nothing but zeros.
        let signed = format!(r#"{{"alg":"{alg}","typ":"JWT"}}"#);
        let signed = format!("{}.{}", URL_SAFE_NO_PAD.encode(signed), URL_SAFE_NO_PAD.encode(claims));
        for zeros in [0, 32, 64, 256] {
            let token = format!("{signed}.{}", URL_SAFE_NO_PAD.encode(vec![0; zeros]));
            assert_eq!(verifier.verify(&token, ISSUED_MS), Err(TokenError::Invalid), "{alg} {zeros}");
        }
        assert_eq!(Verifier::from_secret(pem.as_bytes()).err(), Some(KeyError::PemAsSecret));
    }
}

#[test]
fn weak_and_wrong_keys_are_refused_with_what_would_be_right() {
    assert_eq!(Verifier::from_secret(&[7; 31]).err(), Some(KeyError::ShortSecret { bytes: 31 }));
    assert_eq!(Signer::from_secret(b"").err(), Some(KeyError::ShortSecret { bytes: 0 }));
    assert!(Verifier::from_secret(&[7; 32]).is_ok());
    const ED25519_SHORT: &str = "-----BEGIN PUBLIC KEY-----\nMCkwBQYDK2VwAyAABwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBw==\n-----END PUBLIC KEY-----";
    let private = "-----BEGIN PRIVATE KEY-----\nMC4CAQAw\n-----END PRIVATE KEY-----\n";
    for (pem, error) in [
        (RSA_1024, KeyError::RsaSize { bits: 1_024 }),
        (P384, KeyError::Curve),
        (SECP256K1, KeyError::Curve),
        (X25519, KeyError::Unsupported),
        (RSA_PSS, KeyError::Unsupported),
        (ED25519_SHORT, KeyError::Unsupported),
        (CERTIFICATE, KeyError::Certificate),
        (private, KeyError::Private),
        (&private.replace("PRIVATE", "EC PRIVATE"), KeyError::Private),
        (&private.replace("PRIVATE", "ENCRYPTED PRIVATE"), KeyError::Private),
        (&format!("{P256}{private}"), KeyError::Private),
        (&format!("{RSA}{P256}"), KeyError::SeveralKeys),
        (&ED25519.replace("END PUBLIC", "END"), KeyError::Unsupported),
        (&ED25519.replace("MCow", "MCox"), KeyError::Unsupported),
        (&P256.replace("ujT7gQ==", "ujT7gA=="), KeyError::Curve),
        (SECRET, KeyError::NotPem),
        ("", KeyError::NotPem),
        ("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI", KeyError::NotPem),
    ] {
        assert_eq!(Verifier::from_public_pem(pem.as_bytes()).err(), Some(error), "{pem}");
    }
    assert_eq!(Verifier::from_public_pem(b"\xff\xfe-----BEGIN PUBLIC KEY-----").err(), Some(KeyError::NotPem));
    assert!(!format!("{:?}", ours()).contains(&SECRET[..8]) && !format!("{:?}", ours()).contains("109, 97"));
}

#[test]
fn the_memory_forgets_in_time() {
    let (one, other, mut memory) = (ours(), Verifier::from_secret(&[7; 32]).unwrap(), TokenMemory::new());
    let until = ISSUED_MS + 3_600_000;
    assert!(memory.verify(&one, ACCESS, ISSUED_MS).is_ok());
    assert_eq!(format!("{memory:?}"), "TokenMemory(1 known)");
    assert_eq!(memory.verify(&one, ACCESS, until), Err(TokenError::Expired));
    assert!(memory.verify(&one, ACCESS, until - 1).is_ok());
    assert_eq!(memory.verify(&one, ACCESS, ISSUED_MS - 30_001), Err(TokenError::Invalid), "the clock was set back");
    let tail = &ACCESS[ACCESS.len() - 16..];
    assert_eq!(memory.verify(&one, tail, ISSUED_MS), Err(TokenError::Invalid));
    let mut other_user = ACCESS.to_owned();
    other_user.replace_range(60..61, if &ACCESS[60..61] == "A" { "B" } else { "A" });
    assert_eq!(memory.verify(&one, &other_user, ISSUED_MS), Err(TokenError::Invalid), "the whole token counts");
    assert_eq!(memory.verify(&other, ACCESS, ISSUED_MS), Err(TokenError::Invalid), "another key");
    assert_eq!(format!("{memory:?}"), "TokenMemory(0 known)");
    assert!(memory.verify(&one, ACCESS, ISSUED_MS).is_ok());
    assert!(memory.verify(&one.clone(), ACCESS, ISSUED_MS).is_ok());
}

#[test]
fn the_memory_is_bounded() {
    let (signer, verifier) = (Signer::from_secret(SECRET.as_bytes()).unwrap(), ours());
    let mut memory = TokenMemory::new();
    for id in 1..=1_100 {
        let token = signer.access(UserId(id), ISSUED_MS, HOUR);
        assert_eq!(memory.verify(&verifier, &token, ISSUED_MS).unwrap().caller, Caller::User(UserId(id)));
    }
    assert_eq!(format!("{memory:?}"), "TokenMemory(76 known)");
    let long = format!(r#"{{"exp":{},"user_id":"1","aud":"{}"}}"#, NOW_S + 60, "x".repeat(800));
    assert!(memory.verify(&verifier, &forge(SECRET.as_bytes(), HEADER, long), ISSUED_MS).is_ok());
    assert_eq!(format!("{memory:?}"), "TokenMemory(76 known)");
}

#[test]
fn verifiers_and_signers_can_be_handed_to_another_thread() {
    fn is_send<T: Send>(_: &T) {}
    is_send(&(ours(), Signer::from_secret(SECRET.as_bytes()).unwrap(), TokenMemory::new()));
    let verifier = ours();
    assert!(std::thread::spawn(move || verifier.verify(ACCESS, ISSUED_MS).is_ok()).join().unwrap());
}

#[test]
fn two_keys_on_one_thread_do_not_mix() {
    let (secret, public) = (ours(), Verifier::from_public_pem(ED25519.as_bytes()).unwrap());
    for _ in 0..3 {
        assert!(secret.verify(ACCESS, ISSUED_MS).is_ok() && public.verify(ACCESS_EDDSA, ISSUED_MS).is_ok());
        assert!(secret.verify(ACCESS_EDDSA, ISSUED_MS).is_err() && public.verify(ACCESS, ISSUED_MS).is_err());
    }
}

/// JSON that looks like claims, right or wrong.
fn any_claims() -> impl Strategy<Value = String> {
    let name = "exp|nbf|iat|user_id|scope|token_type|jti|alg|crit";
    let value =
        r#"-?[0-9]{1,20}(\.[0-9]{1,5})?([eE]-?[0-9]{1,4})?|"[a-z0-9\\]{0,8}"|null|true|\[|\]|\{|\}|[\[\{]{0,200}"#;
    prop::collection::vec((name, value), 0..6).prop_map(|claims| {
        let claims: Vec<_> = claims.iter().map(|(name, value)| format!(r#""{name}":{value}"#)).collect();
        format!("{{{}}}", claims.join(","))
    })
}

proptest! {
    #[test]
    fn no_string_panics(token in any::<String>(), now in any::<i64>()) {
        let verifier = ours();
        prop_assert!(verifier.verify(&token, now).is_err());
        prop_assert!(verifier.verify_refresh(&token, now).is_err());
        prop_assert!(TokenMemory::new().verify(&verifier, &token, now).is_err());
    }

    #[test]
    fn no_signed_bytes_panic(header in any_claims(), bytes in any::<Vec<u8>>(), claims in any_claims(), now in any::<i64>()) {
        for payload in [bytes.as_slice(), claims.as_bytes()] {
            for header in [HEADER, &header] {
                let token = forge(SECRET.as_bytes(), header, payload);
                let _ = ours().verify(&token, now);
                let _ = ours().verify_refresh(&token, now);
            }
        }
    }

    #[test]
    fn a_changed_token_is_refused(at in 0..ACCESS.len(), to in any::<char>(), cut in 0..ACCESS.len()) {
        let mut memory = TokenMemory::new();
        prop_assert!(memory.verify(&ours(), ACCESS, ISSUED_MS).is_ok());
        let mut changed = ACCESS.to_owned();
        changed.replace_range(at..=at, to.encode_utf8(&mut [0; 4]));
        prop_assert_eq!(ours().verify(&changed, ISSUED_MS).is_ok(), changed == ACCESS);
        prop_assert!(ours().verify(&ACCESS[..cut], ISSUED_MS).is_err());
    }

    #[test]
    fn no_key_file_panics(at in 0..300_usize, to in any::<u8>(), bytes in any::<Vec<u8>>()) {
        for pem in [RSA, RSA_PKCS1, P256, ED25519, RSA_1024, P384, RSA_PSS] {
            let mut changed = pem.as_bytes().to_vec();
            let at = at % changed.len();
            changed[at] = to;
            let _ = Verifier::from_public_pem(&changed).map(|verifier| verifier.verify(ACCESS_RS256, ISSUED_MS));
        }
        let wrapped = base64::engine::general_purpose::STANDARD.encode(&bytes);
        let wrapped = format!("-----BEGIN PUBLIC KEY-----\n{wrapped}\n-----END PUBLIC KEY-----\n");
        prop_assert!(Verifier::from_public_pem(&bytes).is_err());
        prop_assert!(Verifier::from_public_pem(wrapped.as_bytes()).is_err());
    }
}
