//! How often something may be tried.

use std::{num::NonZeroU32, time::Duration};

/// A token bucket: so many tries at once, and one more after each interval. Its level is one moment, the one at which it will be
/// full again (the generic cell rate algorithm, ITU-T I.371), so that two levels of one bucket can be put together. Times are
/// milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quota {
    interval: i64,
    capacity: i64,
}

impl Quota {
    /// `tries` in each `period`, of which `burst` may come at once.
    #[must_use]
    pub fn new(tries: NonZeroU32, period: Duration, burst: NonZeroU32) -> Self {
        let period = i64::try_from(period.as_millis()).unwrap_or(i64::MAX);
        let interval = (period / i64::from(tries.get())).max(1);
        Self { interval, capacity: interval.saturating_mul(burst.get().into()) }
    }

    /// The level after one more try.
    ///
    /// # Errors
    /// How long to wait for it.
    pub fn try_at(self, full_at: i64, now: i64) -> Result<i64, Duration> {
        let after = full_at.max(now) + self.interval;
        match u64::try_from(after - now - self.capacity) {
            Ok(wait) if wait > 0 => Err(Duration::from_millis(wait)),
            _ => Ok(after),
        }
    }

    /// How much later so many tries make a bucket full.
    #[must_use]
    pub fn cost(self, tries: u32) -> i64 {
        self.interval.saturating_mul(tries.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_800_000_000_000;

    fn quota(tries: u32, burst: u32) -> Quota {
        Quota::new(NonZeroU32::new(tries).unwrap(), Duration::from_mins(1), NonZeroU32::new(burst).unwrap())
    }

    #[test]
    fn a_burst_at_once_and_then_one_an_interval() {
        let quota = quota(20, 3);
        let mut level = 0;
        for _ in 0..3 {
            level = quota.try_at(level, NOW).unwrap();
        }
        assert_eq!(quota.try_at(level, NOW), Err(Duration::from_secs(3)));
        assert_eq!(quota.try_at(level, NOW + 2_999), Err(Duration::from_millis(1)));
        level = quota.try_at(level, NOW + 3_000).unwrap();
        assert_eq!(quota.try_at(level, NOW + 3_000), Err(Duration::from_secs(3)));
    }

    #[test]
    fn a_bucket_holds_no_more_than_its_burst_however_long_it_rests() {
        let quota = quota(60, 2);
        let mut level = quota.try_at(0, NOW).unwrap();
        for _ in 0..2 {
            level = quota.try_at(level, NOW + 3_600_000).unwrap();
        }
        assert!(quota.try_at(level, NOW + 3_600_000).is_err());
    }

    #[test]
    fn a_minute_lets_as_many_through_as_the_quota_says_and_the_burst() {
        let quota = quota(30, 5);
        let mut level = 0;
        let passed = (0..60_000).filter(|ms| quota.try_at(level, NOW + ms).map(|after| level = after).is_ok()).count();
        assert_eq!(passed, 30 + 5 - 1);
    }
}
