//! Owns the reading of request targets and hosts (RFC 9112 3.2). Never decodes: what passes stands as it was sent.
//! Enter at [`Target::parse`].

use super::Method;
use super::Refusal::{self, Malformed};

/// The parts of a request target, as sent.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Target<'a> {
    /// Of an absolute target: it wins over `Host`.
    pub(super) authority: Option<&'a str>,
    pub(super) path: &'a str,
    pub(super) query: &'a str,
}

impl<'a> Target<'a> {
    /// Takes `/path?query`, `http://host/path?query`, and `*` for `OPTIONS`.
    pub(super) fn parse(target: &'a str, method: Method) -> Result<Self, Refusal> {
        // To the end always, which the compiler turns into vector code.
        if !target.bytes().fold(true, |fits, b| fits & b.is_ascii_graphic() & (b != b'#')) {
            return Err(Malformed("byte in target"));
        }
        let (authority, rest) = match without_scheme(target) {
            Some(rest) => {
                let (authority, rest) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
                (Some(authority), rest)
            }
            None => (None, target),
        };
        if authority.is_some_and(|authority| !is_host(authority)) {
            return Err(Malformed("authority in target"));
        }
        let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
        let path = match path {
            "" if authority.is_some() => "/",
            "*" if target == "*" && method == Method::Options => "*",
            path if path.starts_with('/') => path,
            _ => return Err(Malformed("target")),
        };
        Ok(Self { authority, path, query })
    }
}

fn without_scheme(target: &str) -> Option<&str> {
    ["http://", "https://"].iter().find_map(|scheme| {
        let (start, rest) = target.split_at_checked(scheme.len())?;
        start.eq_ignore_ascii_case(scheme).then_some(rest)
    })
}

/// `uri-host [":" port]` (RFC 9110 7.2), without the marks that no host name has: what passes may stand in a link.
pub(super) fn is_host(text: &str) -> bool {
    let (name, port) = match text.rfind(':') {
        Some(colon) if !text.ends_with(']') => text.split_at(colon),
        _ => (text, ""),
    };
    let port = port.strip_prefix(':').unwrap_or(port);
    let port_fits = port.bytes().all(|b| b.is_ascii_digit()) && (port.is_empty() || port.parse::<u16>().is_ok());
    let name_fits = match name.strip_prefix('[').and_then(|name| name.strip_suffix(']')) {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b)),
    };
    port_fits && name_fits
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(target: &str) -> Result<Target<'_>, Refusal> {
        Target::parse(target, Method::Get)
    }

    #[test]
    fn targets() {
        let cases: &[(&str, Option<&str>, &str, &str)] = &[
            ("/", None, "/", ""),
            ("/a?", None, "/a", ""),
            ("/a?b?c=/d", None, "/a", "b?c=/d"),
            ("//a", None, "//a", ""),
            ("/http://a", None, "/http://a", ""),
            ("http://other:1/p?q", Some("other:1"), "/p", "q"),
            ("HTTPS://other", Some("other"), "/", ""),
            ("http://[::1]:80?q", Some("[::1]:80"), "/", "q"),
        ];
        for (target, authority, path, query) in cases {
            assert_eq!(parse(target), Ok(Target { authority: *authority, path, query }), "{target}");
        }
        let all = Target { authority: None, path: "*", query: "" };
        assert_eq!(Target::parse("*", Method::Options), Ok(all));
        for target in [
            "*",
            "*?a",
            "a",
            "?a",
            "h:443",
            "ftp://h/",
            "http:/h/",
            "http:///a",
            "http://",
            "http://u@h/",
            "http://h:x/",
            "/a#b",
            "#",
            "/\u{e9}",
            "/a\t",
            "/\x7f",
            "/a b",
            "http://a,b/",
        ] {
            assert!(matches!(parse(target), Err(Malformed(_))), "{target:?}");
        }
    }

    #[test]
    fn hosts() {
        for host in ["h", "h.example", "10.0.0.1:8000", "a_b-c.d", "[::1]", "[2001:db8::1]:443", "h:"] {
            assert!(is_host(host), "{host}");
        }
        for host in [
            "", "*", ":80", "a b", "a,b", "a/b", "a@b", "a?b", "a#b", "a%41", "h:8x", "h:65536", "h:+80", "a:b:80",
            "::1", "[::1", "[::g]", "[]", "[::1]x", "\u{e9}", "<h>", "h\"",
        ] {
            assert!(!is_host(host), "{host}");
        }
    }
}
