//! Owns how single values are written: durations, sizes, addresses, networks, origins. Never knows which key a value is
//! for. Enter at the function named after what is read.

use super::mistake::{Wrong, quote, wrong};
use redis::IntoConnectionInfo;
use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    str::FromStr,
    time::Duration,
};

/// A plain decimal. What is beyond 64 bits is beyond every limit, too.
fn digits(text: &str) -> Option<u64> {
    let plain = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    plain.then(|| text.parse().unwrap_or(u64::MAX))
}

/// A number and the unit behind it.
fn amount(text: &str) -> Option<(u64, &str)> {
    let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
    Some((digits(number)?, unit.trim_start_matches(' ')))
}

pub(super) fn number(text: &str, min: u64, max: u64) -> Result<u64, Wrong> {
    match digits(text) {
        Some(n) if (min..=max).contains(&n) => Ok(n),
        Some(n) => wrong(
            format!("{text} is too {}", if n < min { "small" } else { "large" }),
            format!("write a whole number from {min} to {max}"),
        ),
        None => {
            wrong(format!("{} is not a whole number", quote(text)), format!("write a whole number from {min} to {max}"))
        }
    }
}

/// A number and one of `ms s m h d`, up to 100 years; `0` needs no unit.
pub fn duration(text: &str) -> Result<Duration, Wrong> {
    const SECOND: u64 = 1_000;
    const DAY: u64 = 24 * 60 * 60 * SECOND;
    let right = "write a whole number and its unit, e.g. 500ms, 30s, 5m, 12h or 90d";
    let (number, unit) = amount(text).unwrap_or((0, "?"));
    let scale = match unit {
        "ms" => 1,
        "s" => SECOND,
        "m" => 60 * SECOND,
        "h" => 60 * 60 * SECOND,
        "d" => DAY,
        "" if number == 0 => 0,
        "" => {
            return wrong(
                format!("{text} has no unit"),
                format!("write {text}s if seconds are meant (ms, s, m, h, d)"),
            );
        }
        _ => return wrong(format!("{} is not a duration", quote(text)), right),
    };
    let ms = number.saturating_mul(scale);
    if ms > 100 * 365 * DAY {
        return wrong(format!("{text} is longer than 100 years"), right);
    }
    Ok(Duration::from_millis(ms))
}

/// A number and one of `B KiB MiB`, 1 byte to 1 GiB; bytes need no unit.
pub(super) fn size(text: &str) -> Result<usize, Wrong> {
    const KIB: u64 = 1024;
    const MIB: u64 = 1024 * KIB;
    let right = "write a whole number and its unit, 1 B to 1024 MiB, e.g. 16 KiB";
    let (number, unit) = amount(text).unwrap_or((0, "?"));
    let scale = match unit {
        "" | "B" => 1,
        "KiB" => KIB,
        "MiB" => MIB,
        _ => return wrong(format!("{} is not a size", quote(text)), right),
    };
    match number.saturating_mul(scale) {
        0 => wrong(format!("{text} would let nothing through"), right),
        bytes if bytes > 1024 * MIB => wrong(format!("{text} is more than 1 GiB"), right),
        bytes => {
            usize::try_from(bytes).or_else(|_| wrong(format!("{text} is more than this machine can count"), right))
        }
    }
}

/// An IP address and a port. No names: what one resolves to may change between two starts.
pub fn address(text: &str) -> Result<SocketAddr, Wrong> {
    text.parse().or_else(|_| {
        wrong(
            format!("{} is not an address and a port", quote(text)),
            "write e.g. 127.0.0.1:8000, 0.0.0.0:8000 for all of IPv4, [::]:8000 for IPv6",
        )
    })
}

/// `*`, or an origin as a browser sends it: lower case, and without the port that its scheme implies.
pub(super) fn origin(text: &str) -> Result<String, Wrong> {
    let lower = text.to_ascii_lowercase();
    if lower == "*" {
        return Ok(lower);
    }
    normal_origin(&lower).ok_or_else(|| {
        Wrong::new(
            format!("{} is not an origin", quote(text)),
            "write * or scheme://host or scheme://host:port, without path, final slash or pattern; letters beyond ASCII \
             in their xn-- form",
        )
    })
}

fn normal_origin(text: &str) -> Option<String> {
    let (scheme, rest) = text.split_once("://")?;
    let (host, port) = match rest.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (rest, None),
    };
    let scheme_fits = scheme.starts_with(|c: char| c.is_ascii_lowercase())
        && scheme.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b));
    let host = match host.strip_prefix('[') {
        Some(rest) => format!("[{}]", rest.strip_suffix(']')?.parse::<Ipv6Addr>().ok()?),
        None => host.to_owned(),
    };
    let host_fits = host.starts_with('[')
        || !host.is_empty() && host.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b));
    if !scheme_fits || !host_fits {
        return None;
    }
    let Some(port) = port else { return Some(format!("{scheme}://{host}")) };
    let port = digits(port).filter(|n| (1..=65_535).contains(n))?;
    match (scheme, port) {
        ("http" | "ws", 80) | ("https" | "wss", 443) => Some(format!("{scheme}://{host}")),
        _ => Some(format!("{scheme}://{host}:{port}")),
    }
}

/// A name or an address, without the port.
pub(super) fn host(text: &str) -> Result<String, Wrong> {
    let name = !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b));
    if name || text.parse::<Ipv6Addr>().is_ok() {
        return Ok(text.to_owned());
    }
    wrong(
        format!("{} is not a host", quote(text)),
        "write a name or an address without port or brackets; a socket file goes in redis_url = \"unix:///…\"",
    )
}

/// What names of keys in Redis begin with.
pub(super) fn redis_key(text: &str) -> Result<String, Wrong> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"_.:-{}".contains(&b);
    if text.is_empty() || text.len() > 64 || !text.bytes().all(plain) {
        return wrong(format!("{} cannot begin a key", quote(text)), "write 1 to 64 of A-Z a-z 0-9 _ . : - { }");
    }
    Ok(text.to_owned())
}

/// The URL of a Redis. A wrong one is not shown: it may hold a password.
pub(super) fn redis_url(text: &str) -> Result<String, Wrong> {
    const SCHEMES: [&str; 4] = ["redis", "rediss", "unix", "redis+unix"];
    let right = "write e.g. redis://127.0.0.1:6379/0, rediss://… or unix:///run/redis.sock";
    let Some((scheme, rest)) = text.split_once("://") else { return wrong("not a URL", right) };
    if !SCHEMES.contains(&scheme) {
        return wrong(format!("the scheme is none of {}", SCHEMES.join(", ")), right);
    }
    if rest.is_empty() || rest.contains(|c: char| c.is_whitespace() || c.is_control()) {
        return wrong(format!("nothing or a space after {scheme}://"), right);
    }
    if rest.contains('#') {
        let right = "certificates are always checked: leave #insecure out, and name their CA in SSL_CERT_FILE";
        return wrong("a # in it", format!("{right}; write any other # as %23"));
    }
    // As the client reads it. Its own words may show a part.
    if text.into_connection_info().is_err() {
        return wrong("its host, port, database number or options are wrong", right);
    }
    Ok(text.to_owned())
}

/// A block of addresses, as in `10.0.0.0/8`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    base: IpAddr,
    prefix: u8,
}

impl Network {
    pub const LOOPBACK_V4: Self = Self { base: IpAddr::V4(Ipv4Addr::LOCALHOST), prefix: 32 };
    pub const LOOPBACK_V6: Self = Self { base: IpAddr::V6(Ipv6Addr::LOCALHOST), prefix: 128 };

    /// Whether `address` is in it. An IPv4 address that came in over IPv6 (`::ffff:10.0.0.1`) counts as IPv4, and no
    /// IPv4 address is in an IPv6 network.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        let differing = match (self.base, address.to_canonical()) {
            (IpAddr::V4(a), IpAddr::V4(b)) => u128::from(a.to_bits() ^ b.to_bits()) << 96,
            (IpAddr::V6(a), IpAddr::V6(b)) => a.to_bits() ^ b.to_bits(),
            _ => return false,
        };
        differing.leading_zeros() >= u32::from(self.prefix)
    }
}

impl FromStr for Network {
    type Err = Wrong;

    fn from_str(text: &str) -> Result<Self, Wrong> {
        let (base, prefix) = text.split_once('/').map_or((text, None), |(base, prefix)| (base, Some(prefix)));
        let parsed = base.parse::<IpAddr>().ok().and_then(|base| {
            let width = if base.is_ipv4() { 32 } else { 128 };
            let prefix = prefix.map_or(Some(width), digits).filter(|n| *n <= width)?;
            let prefix = u8::try_from(prefix).ok()?;
            match base.to_canonical() {
                // ::ffff:10.0.0.0/104 is 10.0.0.0/8; a shorter prefix reaches beyond what is IPv4.
                v4 if base.is_ipv6() && v4.is_ipv4() && prefix >= 96 => Some(Self { base: v4, prefix: prefix - 96 }),
                _ => Some(Self { base, prefix }),
            }
        });
        parsed.ok_or_else(|| {
            let right = "write e.g. 10.0.0.0/8, 2001:db8::/32 or a bare address";
            Wrong::new(format!("{} is not a network", quote(text)), right)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_a_unit() {
        for (text, ms) in [
            ("0", 0),
            ("0s", 0),
            ("250ms", 250),
            ("30s", 30_000),
            ("5m", 300_000),
            ("2h", 7_200_000),
            ("1 d", 86_400_000),
        ] {
            assert_eq!(duration(text), Ok(Duration::from_millis(ms)), "{text}");
        }
        assert_eq!(duration("36500d"), Ok(Duration::from_secs(3_153_600_000)));
        let huge = "99999999999999999999999s";
        for text in ["", "s", "30", "1.5s", "-1s", "+1s", "30S", "30 sec", "1h30m", "s30", "٣s", "36501d", huge] {
            assert!(duration(text).is_err(), "{text}");
        }
        assert!(duration("30").is_err_and(|wrong| wrong.right.contains("30s")));
    }

    #[test]
    fn sizes_are_at_least_one_byte() {
        for (text, bytes) in [("1", 1), ("7B", 7), ("16 KiB", 16_384), ("16KiB", 16_384), ("1024MiB", 1 << 30)] {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        for text in
            ["", "0", "0MiB", "-1", "1kb", "1K", "1kib", "1GiB", "1025MiB", "1.5KiB", "KiB", "18446744073709551617"]
        {
            assert!(size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn origins_are_written_as_browsers_send_them() {
        for (text, origin_of_it) in [
            ("*", "*"),
            ("HTTPS://App.Habitto.BO", "https://app.habitto.bo"),
            ("http://localhost:3000", "http://localhost:3000"),
            ("https://a.bo:443", "https://a.bo"),
            ("http://a.bo:443", "http://a.bo:443"),
            ("http://[0:0::1]:8080", "http://[::1]:8080"),
            ("capacitor://localhost", "capacitor://localhost"),
        ] {
            assert_eq!(origin(text), Ok(origin_of_it.to_owned()), "{text}");
        }
        for text in [
            "",
            "a.bo",
            "null",
            "https://",
            "https://a.bo/",
            "https://a.bo/x",
            "https://a.bo?x",
            "https://*.a.bo",
            "//a.bo",
            "https://a.bo:",
            "https://a.bo:0",
            "https://a.bo:65536",
            "https://u@a.bo",
            "https://a b",
            "https://ñ.bo",
            "file://",
            "https://[::1",
            "https://[a.bo]",
            "3://a.bo",
            "https://a.bo:+1",
            "http://[::1]]",
            "http://[::1]x",
        ] {
            assert!(origin(text).is_err(), "{text}");
        }
    }

    #[test]
    fn networks_hold_their_addresses() {
        for (network, inside, outside) in [
            ("10.0.0.0/8", "10.255.0.1", "11.0.0.0"),
            ("10.9.8.7/8", "10.0.0.1", "9.255.255.255"),
            ("10.0.0.0/8", "::ffff:10.1.2.3", "::ffff:11.1.2.3"),
            ("::ffff:10.0.0.0/104", "10.1.2.3", "11.1.2.3"),
            ("127.0.0.1", "127.0.0.1", "127.0.0.2"),
            ("::1/128", "::1", "::2"),
            ("2001:db8::/33", "2001:db8:7fff::", "2001:db8:8000::"),
            ("0.0.0.0/0", "255.255.255.255", "::1"),
            ("::/0", "ffff::", "1.2.3.4"),
            ("::/0", "::1", "::ffff:1.2.3.4"),
        ] {
            let network: Network = network.parse().unwrap();
            assert!(network.contains(inside.parse().unwrap()), "{network:?} {inside}");
            assert!(!network.contains(outside.parse().unwrap()), "{network:?} {outside}");
        }
        for text in
            ["", "/8", "10.0.0.0/", "10.0.0.0/33", "::/129", "10.0.0.0/+8", "10.0.0.0/8/8", "10.0.0/8", "a/8", " ::1"]
        {
            assert!(text.parse::<Network>().is_err(), "{text}");
        }
    }

    #[test]
    fn redis_is_named_by_a_host_or_a_url() {
        for text in ["127.0.0.1", "redis", "redis-1.internal", "::1"] {
            assert!(host(text).is_ok(), "{text}");
        }
        for text in ["", "redis:6379", "[::1]", "/run/redis.sock", "redis://a", "a b", "u@a"] {
            assert!(host(text).is_err(), "{text}");
        }
        for text in ["redis://a", "rediss://:pw@a:6380/1", "unix:///run/redis.sock", "redis+unix:///run/r.sock?db=1"] {
            assert!(redis_url(text).is_ok(), "{text}");
        }
        for text in [
            "",
            "redis://",
            "http://:hunter2@a",
            "hunter2",
            "redis:a",
            "REDIS//a",
            "redis://a hunter2",
            "redis://:hunter2@a:99999",
            "redis://:hunter2@a/zero",
            "redis://:hunter2@:6379",
            "rediss://:hunter2@a/#insecure",
            "unix:///run/redis.sock?db=one&password=hunter2",
            "redis://:hunter2@a?protocol=hunter2",
        ] {
            assert!(redis_url(text).is_err_and(|wrong| !wrong.to_string().contains("hunter2")), "{text}");
        }
    }
}
