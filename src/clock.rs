//! Owns the question "what time is it". Never used below the reactor and the storage threads: everything else takes
//! `Now` as a value. Enter at [`Clock::now`].

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// One reading of both clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Now {
    /// Microseconds since the process began; never goes back. For deadlines and durations.
    pub monotonic_us: u64,
    /// Milliseconds since 1970 (UTC); may jump. For what is stored, shown or compared with a token's `exp`.
    pub wall_ms: i64,
}

impl Now {
    /// The monotonic reading in milliseconds, the unit of deadlines.
    #[must_use]
    pub fn monotonic_ms(self) -> u64 {
        self.monotonic_us / 1_000
    }

    /// Microseconds since an earlier monotonic reading; 0 is none.
    #[must_use]
    pub fn since(self, earlier_us: u64) -> Option<u64> {
        (earlier_us != 0).then(|| self.monotonic_us.saturating_sub(earlier_us))
    }
}

/// The only thing that asks the operating system for the time.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    began: Instant,
}

impl Clock {
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "this is the home of the clocks")]
    pub fn start() -> Self {
        Self { began: Instant::now() }
    }

    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "this is the home of the clocks")]
    pub fn now(&self) -> Now {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        Now {
            monotonic_us: u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX),
            wall_ms: i64::try_from(wall.as_millis()).unwrap_or(i64::MAX),
        }
    }
}

/// Milliseconds since 1970 as RFC 3339 in UTC with milliseconds and `Z`, as every time on the wire is written. One that
/// no calendar has is 1970.
#[must_use]
pub fn rfc3339(wall_ms: i64) -> String {
    chrono::DateTime::from_timestamp_millis(wall_ms)
        .unwrap_or_default()
        .to_rfc3339_opts(chrono::SecondsFormat::Millis, true)
}

/// The opposite of [`rfc3339`], for imported rows; any offset is taken. `None`: not such a time.
#[must_use]
pub fn from_rfc3339(text: &str) -> Option<i64> {
    chrono::DateTime::parse_from_rfc3339(text).ok().map(|t| t.timestamp_millis())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_on_the_wire_have_milliseconds_and_z() {
        assert_eq!(rfc3339(1_705_314_600_000), "2024-01-15T10:30:00.000Z");
        assert_eq!(rfc3339(1), "1970-01-01T00:00:00.001Z");
        assert_eq!(from_rfc3339("2024-01-15T06:30:00.000-04:00"), Some(1_705_314_600_000));
        assert_eq!(from_rfc3339("2024-01-15"), None);
    }
}
