//! Owns rate limits: a theoretical arrival time for each (GCRA), in a bounded table where there are many.
//! Never answers anybody. Enter at [`Rate::take`] and [`Rates::take`].

use std::collections::HashMap;
use std::hash::Hash;

/// No spacing: no limit.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rate {
    spacing_us: u64,
    burst: u32,
}

impl Rate {
    /// `0` a second: no limit.
    pub(super) fn new(per_second: u32, burst: u32) -> Self {
        Self::spread(per_second, 1_000_000, burst)
    }

    /// A minute's worth may come at once. `0`: no limit.
    pub(super) fn per_minute(count: u32) -> Self {
        Self::spread(count, 60_000_000, count)
    }

    fn spread(count: u32, over_us: u64, burst: u32) -> Self {
        let spacing_us = if count == 0 { 0 } else { (over_us / u64::from(count)).max(1) };
        Self { spacing_us, burst: burst.max(1) }
    }

    /// How far ahead of now an arrival may lie once a burst is taken.
    fn burst_us(self) -> u64 {
        self.spacing_us * u64::from(self.burst)
    }

    /// Takes one if it may be; else says in how many microseconds the next may.
    pub(super) fn take(self, arrival_us: &mut u64, now_us: u64) -> Result<(), u64> {
        let spacing = self.spacing_us;
        if spacing == 0 {
            return Ok(());
        }
        let slack = self.burst_us() - spacing;
        let expected = (*arrival_us).max(now_us);
        if expected - now_us > slack {
            return Err(expected - now_us - slack);
        }
        *arrival_us = expected + spacing;
        Ok(())
    }
}

/// A theoretical arrival time in 4 bytes, for each socket: units of 16 µs that wrap around after 19 hours.
#[derive(Clone, Copy)]
pub(super) struct Arrival(u32);

impl Arrival {
    const UNIT_BITS: u32 = 4;

    /// Of whom nothing was taken yet: a time of its own would look ahead once in 19 hours.
    pub(super) fn new(now_us: u64) -> Self {
        Self((now_us >> Self::UNIT_BITS) as u32)
    }

    /// As [`Rate::take`].
    pub(super) fn take(&mut self, rate: Rate, now_us: u64) -> Result<(), u64> {
        let Self(now) = Self::new(now_us);
        let ahead_us = u64::from(self.0.wrapping_sub(now).cast_signed().max(0).cast_unsigned()) << Self::UNIT_BITS;
        // No arrival lies further ahead than a burst: one that seems to is from before the last turn around.
        let mut arrival_us = if ahead_us > rate.burst_us() { 0 } else { now_us + ahead_us };
        let taken = rate.take(&mut arrival_us, now_us);
        self.0 = (arrival_us.max(now_us) >> Self::UNIT_BITS) as u32;
        taken
    }
}

/// Entries of one table; beyond it those that have nothing left to wait for go, and if none can, all do.
const ENTRIES_MAX: usize = 65_536;

/// One rate for many.
pub(super) struct Rates<K> {
    rate: Rate,
    arrivals_us: HashMap<K, u64>,
}

impl<K: Hash + Eq> Rates<K> {
    pub(super) fn new(rate: Rate) -> Self {
        Self { rate, arrivals_us: HashMap::new() }
    }

    pub(super) fn take(&mut self, key: K, now_us: u64) -> Result<(), u64> {
        if self.rate.spacing_us == 0 {
            return Ok(());
        }
        if self.arrivals_us.len() >= ENTRIES_MAX && !self.arrivals_us.contains_key(&key) {
            self.arrivals_us.retain(|_, arrival| *arrival > now_us);
            if self.arrivals_us.len() >= ENTRIES_MAX {
                self.arrivals_us.clear();
            }
        }
        self.rate.take(self.arrivals_us.entry(key).or_insert(0), now_us)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_then_the_rate() {
        let rate = Rate::new(10, 3);
        let mut arrival = 0;
        let taken: Vec<bool> = (0..5).map(|_| rate.take(&mut arrival, 1_000_000).is_ok()).collect();
        assert_eq!(taken, [true, true, true, false, false]);
        assert_eq!(rate.take(&mut arrival, 1_000_000), Err(100_000));
        assert!(rate.take(&mut arrival, 1_100_000).is_ok());
        assert!(rate.take(&mut arrival, 1_100_000).is_err());
        assert!(Rate::new(0, 0).take(&mut arrival, 0).is_ok());
    }

    #[test]
    fn four_bytes_hold_an_arrival() {
        let rate = Rate::new(20, 40);
        let mut arrival = Arrival::new(0);
        for start_us in [0, 5_000_000, 40_000_000_000, 90_000_000_000_000] {
            let taken = (0..50).filter(|_| arrival.take(rate, start_us).is_ok()).count();
            assert_eq!(taken, 40, "at {start_us}");
            assert!(arrival.take(rate, start_us + 50_100).is_ok());
            assert!(arrival.take(rate, start_us + 50_100).is_err());
        }
        // Just before the units turn around, too.
        for before_us in [1_000, 1_000_000, 1_999_000] {
            let now_us = (1 << 36) - before_us;
            let mut arrival = Arrival::new(now_us);
            assert_eq!((0..50).filter(|_| arrival.take(rate, now_us).is_ok()).count(), 40, "{before_us} before");
        }
    }

    #[test]
    fn a_minutes_worth_then_one_after_the_other() {
        let (rate, mut arrival) = (Rate::per_minute(5), 0);
        assert!((0..5).all(|_| rate.take(&mut arrival, 0).is_ok()));
        assert_eq!(rate.take(&mut arrival, 0), Err(12_000_000));
        assert!(rate.take(&mut arrival, 12_000_000).is_ok());
        assert!(rate.take(&mut arrival, 12_000_001).is_err());
        assert!((0..1_000).all(|_| Rate::per_minute(0).take(&mut arrival, 0).is_ok()));
    }

    #[test]
    fn the_table_is_bounded() {
        let mut rates = Rates::new(Rate::new(1, 1));
        for key in 0..200_000u32 {
            let _ = rates.take(key, u64::from(key));
        }
        assert!(rates.arrivals_us.len() <= ENTRIES_MAX);
    }
}
