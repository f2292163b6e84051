//! Owns tokens and keys that other programs made: Python's hmac and hashlib, openssl 3.0, RFC 7515. Never used outside
//! tests; the private halves are gone. Enter at any constant.

/// When these tokens were issued, in milliseconds since 1970; access tokens live for an hour, refresh tokens for a week.
pub(super) const ISSUED_MS: i64 = 1_795_485_293_000;

pub(super) const SECRET: &str = "made-for-the-tests-of-habittod-and-nothing-else";
/// What SimpleJWT 5.5 issues to user 1.
pub(super) const ACCESS: &str = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJ0b2tlbl90eXBlIjoiYWNjZXNzIiwiZXhwIjoxNzk1NDg4ODkzLCJpYXQiOjE3OTU0ODUyOTMsImp0aSI6IjVlNjMxZTkzNWRjYTQ3ZDM4NzdiYTRhZDEwNTg5NTZlIiwidXNlcl9pZCI6IjEifQ.ZFNb4-qtsBMptFgBKFykMfV10_bi_7e2GDL2DzJaj7I";
/// What older versions issue: `user_id` an integer, 42.
pub(super) const ACCESS_INTEGER: &str = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJ0b2tlbl90eXBlIjoiYWNjZXNzIiwiZXhwIjoxNzk1NDg4ODkzLCJpYXQiOjE3OTU0ODUyOTMsImp0aSI6IjVlNjMxZTkzNWRjYTQ3ZDM4NzdiYTRhZDEwNTg5NTZlIiwidXNlcl9pZCI6NDJ9.S-KfX0ZBSLTNSIawRue4viGnbjCQ47RytiFriJaIcpo";
/// What Python's `json.dumps` makes without `separators`.
pub(super) const ACCESS_SPACED: &str = "eyJ0eXAiOiAiSldUIiwgImFsZyI6ICJIUzI1NiJ9.eyJ0b2tlbl90eXBlIjogImFjY2VzcyIsICJleHAiOiAxNzk1NDg4ODkzLCAiaWF0IjogMTc5NTQ4NTI5MywgImp0aSI6ICI1ZTYzMWU5MzVkY2E0N2QzODc3YmE0YWQxMDU4OTU2ZSIsICJ1c2VyX2lkIjogIjEifQ.3ew32N_HSsEKp6TOxVggCk88JDFsrPlZCeozMIJqj8g";
pub(super) const SERVICE: &str = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJ0b2tlbl90eXBlIjoiYWNjZXNzIiwiZXhwIjoxNzk1NDg4ODkzLCJpYXQiOjE3OTU0ODUyOTMsImp0aSI6IjVlNjMxZTkzNWRjYTQ3ZDM4NzdiYTRhZDEwNTg5NTZlIiwic2NvcGUiOiJzZXJ2aWNlIn0.psQwx5G2YghN5a9lpw1lz55qylD_YvA8k_Ceefd_qJo";
/// The Django system's, of user 7: without `family`.
pub(super) const REFRESH_DJANGO: &str = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJ0b2tlbl90eXBlIjoicmVmcmVzaCIsImV4cCI6MTc5NjA5MDA5MywiaWF0IjoxNzk1NDg1MjkzLCJqdGkiOiIwZjNjOGE1YzZmMGU0ZDZiOWE1NWM3YTNhMWQyZTRmNiIsInVzZXJfaWQiOiI3In0.GZsegjs_wtIivl0KkPjfOiwCKbw6_buWXguRbgKviUc";
/// Ours, of user 7.
pub(super) const REFRESH: &str = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJ0b2tlbl90eXBlIjoicmVmcmVzaCIsImV4cCI6MTc5NjA5MDA5MywiaWF0IjoxNzk1NDg1MjkzLCJqdGkiOiIwZjNjOGE1YzZmMGU0ZDZiOWE1NWM3YTNhMWQyZTRmNiIsInVzZXJfaWQiOiI3IiwiZmFtaWx5IjoiNWU2MzFlOTM1ZGNhNDdkMzg3N2JhNGFkMTA1ODk1NmUifQ.LtE1X5zmbUgNFBBvHh2-2ggRb-2531aYGGhfxrF1c0o";
/// The right key, another algorithm.
pub(super) const ACCESS_HS512: &str = "eyJhbGciOiJIUzUxMiIsInR5cCI6IkpXVCJ9.eyJ0b2tlbl90eXBlIjoiYWNjZXNzIiwiZXhwIjoxNzk1NDg4ODkzLCJpYXQiOjE3OTU0ODUyOTMsImp0aSI6IjVlNjMxZTkzNWRjYTQ3ZDM4NzdiYTRhZDEwNTg5NTZlIiwidXNlcl9pZCI6IjEifQ.OOA3vdWfGL9G559-MHkwTD7Z0vowHxu2y_nBj1Wq3sosk77kr0hEFOs_YNCfe3oJi4QUGWmQLb4irtFe_JsgZQ";
/// The right algorithm, another key.
pub(super) const ACCESS_OTHER_KEY: &str = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJ0b2tlbl90eXBlIjoiYWNjZXNzIiwiZXhwIjoxNzk1NDg4ODkzLCJpYXQiOjE3OTU0ODUyOTMsImp0aSI6IjVlNjMxZTkzNWRjYTQ3ZDM4NzdiYTRhZDEwNTg5NTZlIiwidXNlcl9pZCI6IjEifQ.6EU54N_DbfoVXYWzWVaE6TlUKXMy2a2QXkh3xwjniRs";
pub(super) const ACCESS_RS256: &str = "eyJhbGciOiJSUzI1NiIsInR5cCI6IkpXVCJ9.eyJ0b2tlbl90eXBlIjoiYWNjZXNzIiwiZXhwIjoxNzk1NDg4ODkzLCJpYXQiOjE3OTU0ODUyOTMsImp0aSI6IjVlNjMxZTkzNWRjYTQ3ZDM4NzdiYTRhZDEwNTg5NTZlIiwidXNlcl9pZCI6IjEifQ.JQ_cLlA4nONwhPKeVFkC6JkiPpfwv008Mr5rGkwsAvv70J0P1SSn6dcJk-UG595pWzkSs9IZgrV2TlkjGFWroc5u76muY255xy-LgB5rVRTghnlWbG9Rz-d-tyCG1jeOKQ0yesr5BN0dj11nyaaUGYVtjItDnBXh71G8ojNIzpy3RZzmIq02YZKQ0VYSHJdFtsmFvA8QRATxS-JQw8BvApgN3FawBVG6yqlAqwBZxlLCizdkw9SvCoeAjfQtz4h1pb_FPjfYvyc8Fpqdxrz6qdzfliqUSLKLPwernugrVE6pbAL7eGv1q3rLNBSX9yCxMCLoZdbCLx_sm78KRp5StQ";
pub(super) const ACCESS_RS384: &str = "eyJhbGciOiJSUzM4NCIsInR5cCI6IkpXVCJ9.eyJ0b2tlbl90eXBlIjoiYWNjZXNzIiwiZXhwIjoxNzk1NDg4ODkzLCJpYXQiOjE3OTU0ODUyOTMsImp0aSI6IjVlNjMxZTkzNWRjYTQ3ZDM4NzdiYTRhZDEwNTg5NTZlIiwidXNlcl9pZCI6IjEifQ.kA0o7RRw0Oh4avZDsHV6xjXQIWAEGr6Teq1Rh8SWwJonxPeN0H5pu7CGJbXpC7NUcQDLSsBM2Cb3asRxrDxclKTsPCVGO1zqBz-qNbv6S5vJp4cReME0WIQdDPbaPB3l466ogyORhOAWMGZWCh4En084kpuFKESOiQvLN_cCbfNyCj58pEIcoHUL3-5fSdOzNV5qg4fp473YCEf5RQBYhYiI3N-mK_t3ucGGiN5c4hIDKppdRxHrB_4g1jwmfmyK0vI8sA4BBS--CIV8BubFeqbnGCvGYSMSyfVUPQJRN2f6o9q90yCtCFq3oQ9F3_Qz0y_u7hSEprBp-m3EUJxShA";
pub(super) const ACCESS_PS256: &str = "eyJhbGciOiJQUzI1NiIsInR5cCI6IkpXVCJ9.eyJ0b2tlbl90eXBlIjoiYWNjZXNzIiwiZXhwIjoxNzk1NDg4ODkzLCJpYXQiOjE3OTU0ODUyOTMsImp0aSI6IjVlNjMxZTkzNWRjYTQ3ZDM4NzdiYTRhZDEwNTg5NTZlIiwidXNlcl9pZCI6IjEifQ.AuHYxT7yugF5nhvhzyCiuUAXe5n2iwCsyYJa11sxUfxDegx3Fg9CRrnTaUlWwV_Ixtn8gVhr-h0lMkFE9TY5m0q37pF1_Z3gYPURKyMrBOgpsJsMK7_oD12_41Ti9mJorBhL-G8boYbJHeYxZXxTDimopjadOBrz14wXIhFUQWDlXo1b7WsU8c6WRZdzcsFnaQGeyZboPeoAFcSzOzDHsWwJOnJDHxocA9pUTJgtN4re5nr-12BHmDifHFTxjPaO_FG0rT6tYyT8GyKI-MZwes1xvuxm0LdJnaMpzp63-W_s10i8mrytkcis3y4Nl372wa4Hz1VyVOqjCaEtZuCoUg";
pub(super) const ACCESS_ES256: &str = "eyJhbGciOiJFUzI1NiIsInR5cCI6IkpXVCJ9.eyJ0b2tlbl90eXBlIjoiYWNjZXNzIiwiZXhwIjoxNzk1NDg4ODkzLCJpYXQiOjE3OTU0ODUyOTMsImp0aSI6IjVlNjMxZTkzNWRjYTQ3ZDM4NzdiYTRhZDEwNTg5NTZlIiwidXNlcl9pZCI6IjEifQ.J1_VcEBlUv3DOgunjMmQVdxUgJBDVqy_6rwaNqwRrZ60Ec95hO3ei6n0cF5eubrPkKV9cQdFHCxVDtAHAdEFfQ";
pub(super) const ACCESS_EDDSA: &str = "eyJhbGciOiJFZERTQSIsInR5cCI6IkpXVCJ9.eyJ0b2tlbl90eXBlIjoiYWNjZXNzIiwiZXhwIjoxNzk1NDg4ODkzLCJpYXQiOjE3OTU0ODUyOTMsImp0aSI6IjVlNjMxZTkzNWRjYTQ3ZDM4NzdiYTRhZDEwNTg5NTZlIiwidXNlcl9pZCI6IjEifQ.2GrYpfVzDWSNgTqMdxh0lSQdvBT0_Fwoojvl4qEOJ-gLB_sPlpPXlVSspywQG-CKja5XOIco2XwSlnt8JdNcBA";
/// ES256 with the signature in DER, as openssl writes it and JWS forbids.
pub(super) const ACCESS_ES256_DER: &str = "eyJhbGciOiJFUzI1NiIsInR5cCI6IkpXVCJ9.eyJ0b2tlbl90eXBlIjoiYWNjZXNzIiwiZXhwIjoxNzk1NDg4ODkzLCJpYXQiOjE3OTU0ODUyOTMsImp0aSI6IjVlNjMxZTkzNWRjYTQ3ZDM4NzdiYTRhZDEwNTg5NTZlIiwidXNlcl9pZCI6IjEifQ.MEQCIEvi-uUUi_8Le9DansixjJT7TK5UEdq-BNTT9sMiCRv2AiAa9qHVjYRGL6ae4o4pe0In9TPsMSUsCRplH5RvDg7OmQ";
pub(super) const RSA: &str = "\
-----BEGIN PUBLIC KEY-----
MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEApQ65d5S7Muhri3vZHMyJ
zDotKoh4Z/pQKj4LGtCYET1B9nZFQo2QH+6dDiW71ssXbgGxTXQn5t6lW43Ok5+8
uCw3D0c2NENlxn45k4jOfC/NgnMvP86emo57t5RS0tqAHt0uScKytWODGD4rqnnh
yctKZu4NSxnApmAYBnkcGvX+D2XgRjq2qP3M+/oEdD0XGNpeITs3ithhPtJG5dn+
gThNHjdzVWEwZAGUEK26XV/OxfvOAfyig3F9nNCP0NsM6qVhADX4KgiILwUfcQYY
FfguESp6Jhs8rG0hnijzxPc1fcY4otxU2ABtOS9CHihOi02G5H0X3HmvSbzpJCeO
zwIDAQAB
-----END PUBLIC KEY-----
";
pub(super) const P256: &str = "\
-----BEGIN PUBLIC KEY-----
MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE0kglHycpkyPiJ9kdr/Eru4pUNo6+
DqEqnBgHz9991Ehp6ZRPsxXUGbiYoSodppw8zKcmbdKTsiGRaS2XujT7gQ==
-----END PUBLIC KEY-----
";
pub(super) const ED25519: &str = "\
-----BEGIN PUBLIC KEY-----
MCowBQYDK2VwAyEAcPr74kUOGfQVxoeQ4YQdBY9zls9nQIs/gKl4beyRuBU=
-----END PUBLIC KEY-----
";
pub(super) const RSA_1024: &str = "\
-----BEGIN PUBLIC KEY-----
MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQDOnQ11X6Uoynm5ZMuElHgkBHKW
NOyfOy4VW34t2r2yAqBJiZQq+Z6J6u2Va/TL18wibqt6GSsNPiVrkzKBLCMVla26
KHG+1uLgr1e21hZNXGML+sy93nY2ozLDsXwRHnu1w6yNB5VoIkNFLndZqSnWoB53
M6YofHyPvbUdMRJXRQIDAQAB
-----END PUBLIC KEY-----
";
pub(super) const P384: &str = "\
-----BEGIN PUBLIC KEY-----
MHYwEAYHKoZIzj0CAQYFK4EEACIDYgAE88DnN5uTFJeTT1JD+pH3xiu0YzIRZVwO
Egj+yoikgohdr/XxmRvhtbPRoZINq0KYXslylxiJ0nop6bihhJ5zHbS2RdPOMEtO
TvKz7924JstJwjeOHSp9YxwtvjTbZR9a
-----END PUBLIC KEY-----
";
pub(super) const SECP256K1: &str = "\
-----BEGIN PUBLIC KEY-----
MFYwEAYHKoZIzj0CAQYFK4EEAAoDQgAEgRurQZs9lBSPzLc9YajiwsdKOXI9FnBi
rdgfJngO/N9/uZKAflyyvBtNgOg2NSir7aZs2Xm2e1mbXyF9tmXvtw==
-----END PUBLIC KEY-----
";
pub(super) const X25519: &str = "\
-----BEGIN PUBLIC KEY-----
MCowBQYDK2VuAyEARC7AmpeDQ8h1rGXtaexWNzmuJ+GHYdLFRTTUYoDBJ2Q=
-----END PUBLIC KEY-----
";
pub(super) const RSA_PSS: &str = "\
-----BEGIN PUBLIC KEY-----
MIIBIDALBgkqhkiG9w0BAQoDggEPADCCAQoCggEBAOnZIjcN9PyXRITiAePGuuKV
Ac7gZq/b8SvZ7gSJzN+RlhSWO2lnjJtqhswU2wUZceq28WJwo3x7bMK2C4nxQVj6
FpNrExsfMhcBT6EJjRbtavXjqYXMe4EqgY/7+1vG1OlW6cp/vgQA0VX+RzOKn0et
WSQy1OXKpfTBbuIIZRuuKedaAMVWekgX4ss9KOaUYEhtwmBYC/A4dz8qUWOaeM7c
T7fENS8ohbMjpIxrvgR0dxv2Q9Fc6IuqGofarUN8lvLQo+M7uQksf/4qf4b24d9x
Eaw168h/mEvHomou9lHi58Px5saRmH1G9fJ4sRb0RmbODNmIwMnhWYwvjF19xZsC
AwEAAQ==
-----END PUBLIC KEY-----
";
pub(super) const RSA_PKCS1: &str = "\
-----BEGIN RSA PUBLIC KEY-----
MIIBCgKCAQEApQ65d5S7Muhri3vZHMyJzDotKoh4Z/pQKj4LGtCYET1B9nZFQo2Q
H+6dDiW71ssXbgGxTXQn5t6lW43Ok5+8uCw3D0c2NENlxn45k4jOfC/NgnMvP86e
mo57t5RS0tqAHt0uScKytWODGD4rqnnhyctKZu4NSxnApmAYBnkcGvX+D2XgRjq2
qP3M+/oEdD0XGNpeITs3ithhPtJG5dn+gThNHjdzVWEwZAGUEK26XV/OxfvOAfyi
g3F9nNCP0NsM6qVhADX4KgiILwUfcQYYFfguESp6Jhs8rG0hnijzxPc1fcY4otxU
2ABtOS9CHihOi02G5H0X3HmvSbzpJCeOzwIDAQAB
-----END RSA PUBLIC KEY-----
";
pub(super) const P256_COMPRESSED: &str = "\
-----BEGIN PUBLIC KEY-----
MDkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDIgAD0kglHycpkyPiJ9kdr/Eru4pUNo6+
DqEqnBgHz9991Eg=
-----END PUBLIC KEY-----
";
pub(super) const CERTIFICATE: &str = "\
-----BEGIN CERTIFICATE-----
MIIBMjCB5aADAgECAhQH4XEUyJvtUVuUCP/HbIiLH2GZHTAFBgMrZXAwDzENMAsG
A1UEAwwEdGVzdDAeFw0yNjExMjQwNDE0MjhaFw0zNjExMjEwNDE0MjhaMA8xDTAL
BgNVBAMMBHRlc3QwKjAFBgMrZXADIQBw+vviRQ4Z9BXGh5DhhB0Fj3OWz2dAiz+A
qXht7JG4FaNTMFEwHQYDVR0OBBYEFAXkFYx6hUrPS3aD/lTnlv3+B65eMB8GA1Ud
IwQYMBaAFAXkFYx6hUrPS3aD/lTnlv3+B65eMA8GA1UdEwEB/wQFMAMBAf8wBQYD
K2VwA0EApBLbUTWbWItUEA3NBbf2KIZZv5FyNPyAbHihIw77rPTdbVKD3klldxlX
+DMVmwOiwNQJIOQj1oyxa/ZGVJhIBQ==
-----END CERTIFICATE-----
";
/// RFC 7515 appendix A.1: its key in base64url, and its token, `exp` 1300819380, without `user_id`.
pub(super) const RFC_7515_KEY: &str =
    "AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow";
pub(super) const RFC_7515_TOKEN: &str = "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
