//! What a stampede counts: answers by kind, latencies, and both by second.
//!
//! Owns: the arithmetic. Does not own: what an answer means (buyers.rs), how it is shown (report.rs, chart.rs).

use std::{collections::BTreeMap, time::Duration};

use hdrhistogram::Histogram;

/// From a microsecond to beyond the longest wait for an answer, to three digits.
const LONGEST_MICROS: u64 = 120_000_000;
const DIGITS: u8 = 3;

/// Latencies in microseconds.
#[derive(Clone, Debug)]
pub struct Latencies(Histogram<u64>);

impl Default for Latencies {
    fn default() -> Self {
        Self(Histogram::new_with_max(LONGEST_MICROS, DIGITS).expect("bounds and digits are in the library's range"))
    }
}

impl Latencies {
    pub fn record(&mut self, latency: Duration) {
        self.0.saturating_record(u64::try_from(latency.as_micros()).unwrap_or(u64::MAX));
    }

    #[must_use]
    pub fn count(&self) -> u64 {
        self.0.len()
    }

    /// The latency that `percent` of the answers do not exceed, in milliseconds.
    #[must_use]
    pub fn percentile(&self, percent: f64) -> f64 {
        float(self.0.value_at_percentile(percent)) / 1_000.0
    }

    #[must_use]
    pub fn max(&self) -> f64 {
        float(self.0.max()) / 1_000.0
    }

    /// The ones that reports show, by name.
    #[must_use]
    pub fn summary(&self) -> [(&'static str, f64); 5] {
        let [p50, p90, p99, p999] = [50.0, 90.0, 99.0, 99.9].map(|percent| self.percentile(percent));
        [("p50", p50), ("p90", p90), ("p99", p99), ("p99.9", p999), ("max", self.max())]
    }
}

/// One second of a stampede.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Second {
    pub accepted: u64,
    /// Everything else that was answered.
    pub others: u64,
}

#[derive(Clone, Debug, Default)]
pub struct Tally {
    pub latencies: Latencies,
    /// Answers by kind: members of the result, codes of user errors and errors, `NO_ANSWER`.
    pub kinds: BTreeMap<String, u64>,
    pub seconds: Vec<Second>,
    /// When the last purchase was accepted, and when the last answer came, from the start.
    pub last_accepted: Duration,
    pub last_answer: Duration,
}

impl Tally {
    /// Counts an answer that came at `at`.
    pub fn add(&mut self, kind: &str, is_accepted: bool, latency: Duration, at: Duration) {
        self.count(kind);
        self.latencies.record(latency);
        self.last_answer = self.last_answer.max(at);
        let second = usize::try_from(at.as_secs()).unwrap_or(usize::MAX).min(86_400);
        if self.seconds.len() <= second {
            self.seconds.resize(second + 1, Second::default());
        }
        if is_accepted {
            self.last_accepted = self.last_accepted.max(at);
            self.seconds[second].accepted += 1;
        } else {
            self.seconds[second].others += 1;
        }
    }

    /// Counts what has no latency: a lost answer.
    pub fn count(&mut self, kind: &str) {
        match self.kinds.get_mut(kind) {
            Some(count) => *count += 1,
            None => drop(self.kinds.insert(kind.to_owned(), 1)),
        }
    }

    #[must_use]
    pub fn of_kind(&self, kind: &str) -> u64 {
        self.kinds.get(kind).copied().unwrap_or_default()
    }

    /// Answers of this kind a second, up to the last answer.
    #[must_use]
    pub fn rate(&self, kind: &str) -> f64 {
        per_second(self.of_kind(kind), self.last_answer)
    }
}

/// 0 for no time at all.
#[must_use]
pub fn per_second(count: u64, time: Duration) -> f64 {
    ratio(float(count), time.as_secs_f64())
}

/// 0 where there is nothing to compare with.
#[must_use]
pub fn ratio(value: f64, of: f64) -> f64 {
    if of > 0.0 { value / of } else { 0.0 }
}

/// What two stages do that share the machine: 1/(1/a + 1/b).
#[must_use]
pub fn combined(a: f64, b: f64) -> f64 {
    ratio(a * b, a + b)
}

/// Exact up to 2⁵³, far beyond what is counted here.
#[must_use]
#[allow(clippy::cast_precision_loss, reason = "counts of one run")]
pub const fn float(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn near(value: f64, wanted: f64) -> bool {
        (value - wanted).abs() <= wanted / 500.0
    }

    #[test]
    fn percentiles_are_those_of_the_sorted_latencies() {
        let mut latencies = Latencies::default();
        (1..=1_000).for_each(|ms| latencies.record(Duration::from_millis(ms)));
        let [p50, p90, p99, p999, max] = latencies.summary().map(|(_, ms)| ms);
        assert!(
            near(p50, 500.0) && near(p90, 900.0) && near(p99, 990.0) && near(p999, 999.0) && near(max, 1_000.0),
            "{p50} {p90} {p99} {p999} {max}"
        );
        assert_eq!(latencies.count(), 1_000);
        assert!(Latencies::default().max() < f64::EPSILON);
    }

    #[test]
    fn a_latency_beyond_the_range_counts_as_the_longest() {
        let mut latencies = Latencies::default();
        latencies.record(Duration::from_hours(5));
        assert!(near(latencies.max(), 120_000.0));
    }

    #[test]
    fn two_stages_on_one_machine_do_less_than_either() {
        assert!(near(combined(19_000.0, 11_000.0), 6_966.7));
        assert!(combined(0.0, 11_000.0) < f64::EPSILON);
        assert!(near(combined(10.0, 10.0), 5.0));
    }

    #[test]
    fn rates_and_ratios_of_nothing_are_nothing() {
        assert!(near(per_second(300, Duration::from_millis(1_500)), 200.0));
        assert!(per_second(300, Duration::ZERO) < f64::EPSILON);
        assert!(ratio(5.0, 0.0) < f64::EPSILON);
    }

    #[test]
    fn answers_are_counted_in_their_second() {
        let mut tally = Tally::default();
        let ms = Duration::from_millis;
        tally.add("OrderAccepted", true, ms(3), ms(100));
        tally.add("SoldOut", false, ms(1), ms(2_100));
        tally.add("OrderAccepted", true, ms(3), ms(1_900));
        assert_eq!(
            tally.seconds,
            [Second { accepted: 1, others: 0 }, Second { accepted: 1, others: 0 }, Second { accepted: 0, others: 1 }]
        );
        assert_eq!((tally.last_accepted, tally.last_answer), (ms(1_900), ms(2_100)));
        assert_eq!((tally.of_kind("OrderAccepted"), tally.of_kind("Busy")), (2, 0));
    }
}
