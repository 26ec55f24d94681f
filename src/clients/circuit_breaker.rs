//! A circuit breaker: calls that mostly fail are not made for a while, then a few are made to see.
//!
//! Why not a library: those at hand let every call through when half-open, or count over all time, so that after a million good
//! calls a million bad ones open them (docs/adr/0014).

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use crate::domain::circuit_breaker::BreakerState;

/// Calls that are looked back at; one bit each.
const WINDOW: u32 = u128::BITS;
/// With fewer than this the share of failures says nothing.
const FEWEST: u32 = 10;
/// Calls that are let through when half-open; all must succeed.
const PROBES: u32 = 5;
const FIRST_WAIT: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_secs(15);

/// Opens when more than half of the last 128 calls, and at least ten, have failed. After a wait of 1 s it lets five calls through: when
/// all succeed it closes, when one fails it opens again and waits twice as long, up to 15 s.
#[derive(Debug)]
pub struct CircuitBreaker(Mutex<Inner>);

#[derive(Debug)]
struct Inner {
    position: Position,
    since: Instant,
    /// The last calls, the newest in the lowest bit; 1 is a failure.
    failures: u128,
    calls: u32,
    /// Rises with each change of position: what a call of an earlier one says is not asked any more.
    generation: u64,
}

#[derive(Clone, Copy, Debug)]
enum Position {
    Closed,
    Open { wait: Duration },
    HalfOpen { wait: Duration, left: u32, succeeded: u32 },
}

/// What a breaker looks like.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Snapshot {
    pub state: BreakerState,
    /// Of the calls that are looked back at, 0 to 1.
    pub failure_rate: f64,
    /// Time in this state.
    pub age: Duration,
}

impl Default for CircuitBreaker {
    fn default() -> Self {
        Self(Mutex::new(Inner { position: Position::Closed, since: Instant::now(), failures: 0, calls: 0, generation: 0 }))
    }
}

impl CircuitBreaker {
    /// Lets a call through, or tells for how long not to ask again. The permit is to be used for one call.
    pub fn permit(&self) -> Result<Permit<'_>, Duration> {
        self.permit_at(Instant::now())
    }

    /// How many calls it would let through now; `None` is any number.
    pub fn room(&self) -> Option<u32> {
        self.inner().room(Instant::now())
    }

    pub fn snapshot(&self) -> Snapshot {
        let inner = self.inner();
        let age = inner.since.elapsed();
        let (state, age) = match inner.position {
            Position::Closed => (BreakerState::Closed, age),
            // After its wait the next call is a probe.
            Position::Open { wait } => age.checked_sub(wait).map_or((BreakerState::Open, age), |age| (BreakerState::HalfOpen, age)),
            Position::HalfOpen { .. } => (BreakerState::HalfOpen, age),
        };
        Snapshot { state, failure_rate: inner.failure_rate(), age }
    }

    fn permit_at(&self, now: Instant) -> Result<Permit<'_>, Duration> {
        let mut inner = self.inner();
        if let Position::Open { wait } = inner.position {
            let left = wait.saturating_sub(now.saturating_duration_since(inner.since));
            if !left.is_zero() {
                return Err(left);
            }
            inner.turn(Position::HalfOpen { wait, left: PROBES, succeeded: 0 }, now);
        }
        if let Position::HalfOpen { left, .. } = &mut inner.position {
            // All probes are under way: they end within one call's time.
            *left = left.checked_sub(1).ok_or(FIRST_WAIT)?;
        }
        Ok(Permit { breaker: self, generation: inner.generation })
    }

    fn settle(&self, generation: u64, outcome: Option<bool>, now: Instant) {
        let mut inner = self.inner();
        if inner.generation != generation {
            return;
        }
        match (&mut inner.position, outcome) {
            (Position::Closed, Some(failed)) => {
                inner.record(failed);
                if inner.calls >= FEWEST && inner.failure_rate() > 0.5 {
                    inner.turn(Position::Open { wait: FIRST_WAIT }, now);
                }
            }
            (Position::HalfOpen { wait, .. }, Some(true)) => {
                let wait = (*wait * 2).min(LONGEST_WAIT);
                inner.record(true);
                inner.turn(Position::Open { wait }, now);
            }
            (Position::HalfOpen { succeeded, .. }, Some(false)) => {
                *succeeded += 1;
                if *succeeded >= PROBES {
                    (inner.failures, inner.calls) = (0, 0);
                    inner.turn(Position::Closed, now);
                }
            }
            // A probe that was cut says nothing: another may be made for it.
            (Position::HalfOpen { left, .. }, None) => *left += 1,
            (Position::Open { .. }, _) | (Position::Closed, None) => {}
        }
    }

    /// Held for nanoseconds, never over an await.
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn turn(&mut self, position: Position, now: Instant) {
        self.position = position;
        self.since = now;
        self.generation += 1;
    }

    const fn record(&mut self, failed: bool) {
        self.failures = self.failures << 1 | failed as u128;
        self.calls = if self.calls < WINDOW { self.calls + 1 } else { WINDOW };
    }

    fn failure_rate(&self) -> f64 {
        f64::from(self.failures.count_ones()) / f64::from(self.calls.max(1))
    }

    fn room(&self, now: Instant) -> Option<u32> {
        match self.position {
            Position::Closed => None,
            Position::Open { wait } if now.saturating_duration_since(self.since) < wait => Some(0),
            Position::Open { .. } => Some(PROBES),
            Position::HalfOpen { left, .. } => Some(left),
        }
    }
}

/// The right to make one call. Dropped without an outcome, as when the call is cut, it counts for nothing.
#[must_use]
#[derive(Debug)]
pub struct Permit<'a> {
    breaker: &'a CircuitBreaker,
    generation: u64,
}

impl Permit<'_> {
    pub fn settle(self, failed: bool) {
        self.settle_at(failed, Instant::now());
    }

    fn settle_at(self, failed: bool, now: Instant) {
        self.breaker.settle(self.generation, Some(failed), now);
        // Said already.
        std::mem::forget(self);
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        self.breaker.settle(self.generation, None, Instant::now());
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn call(breaker: &CircuitBreaker, failed: bool, now: Instant) {
        breaker.permit_at(now).unwrap().settle_at(failed, now);
    }

    fn opened(now: Instant) -> CircuitBreaker {
        let breaker = CircuitBreaker::default();
        for _ in 0..FEWEST {
            call(&breaker, true, now);
        }
        breaker
    }

    #[test]
    fn it_opens_above_half_of_at_least_ten_calls() {
        let (breaker, now) = (CircuitBreaker::default(), Instant::now());
        for _ in 0..FEWEST - 1 {
            call(&breaker, true, now);
        }
        assert_eq!(breaker.snapshot().state, BreakerState::Closed);
        call(&breaker, true, now);
        assert_eq!(breaker.snapshot().state, BreakerState::Open);
        assert_eq!(breaker.permit_at(now).unwrap_err(), FIRST_WAIT);

        let breaker = CircuitBreaker::default();
        for turn in 0..1_000 {
            call(&breaker, turn % 2 == 1, now);
        }
        assert_eq!(breaker.snapshot().state, BreakerState::Closed, "half is not more than half");
    }

    #[test]
    fn a_million_good_calls_are_forgotten_after_its_window() {
        let (breaker, now) = (CircuitBreaker::default(), Instant::now());
        for _ in 0..1_000_000 {
            call(&breaker, false, now);
        }
        for _ in 0..=WINDOW / 2 {
            call(&breaker, true, now);
        }
        assert_eq!(breaker.snapshot().state, BreakerState::Open);
    }

    #[test]
    fn half_open_lets_five_calls_through_and_closes_when_all_succeed() {
        let start = Instant::now();
        let breaker = opened(start);
        let later = start + FIRST_WAIT;
        let mut probes: Vec<_> = (0..PROBES).map(|_| breaker.permit_at(later).unwrap()).collect();
        assert!(breaker.permit_at(later).is_err(), "there are no more permits");
        assert_eq!(breaker.snapshot().state, BreakerState::HalfOpen);

        drop(probes.pop());
        probes.push(breaker.permit_at(later).unwrap());
        for probe in probes {
            assert_eq!(breaker.snapshot().state, BreakerState::HalfOpen);
            probe.settle_at(false, later);
        }
        assert_eq!(breaker.snapshot().state, BreakerState::Closed);
        assert!(breaker.snapshot().failure_rate.abs() < f64::EPSILON);
    }

    #[test]
    fn a_probe_that_fails_opens_it_again_for_longer_and_longer() {
        let mut now = Instant::now();
        let breaker = opened(now);
        for seconds in [1, 2, 4, 8, 15, 15] {
            assert_eq!(breaker.permit_at(now).unwrap_err(), Duration::from_secs(seconds));
            now += Duration::from_secs(seconds);
            let (late, failing) = (breaker.permit_at(now).unwrap(), breaker.permit_at(now).unwrap());
            failing.settle_at(true, now);
            // Of an earlier generation: it changes nothing.
            late.settle_at(false, now);
            assert_eq!(breaker.snapshot().state, BreakerState::Open);
        }
    }

    proptest! {
        /// Whatever happens: never more than five probes are under way, and it always comes to let calls through again.
        #[test]
        fn it_never_lets_more_probes_through_and_never_stays_shut(steps in prop::collection::vec((0_u8..4, any::<bool>()), 0..400)) {
            let breaker = CircuitBreaker::default();
            let mut now = Instant::now();
            let mut under_way = Vec::new();
            for (step, failed) in steps {
                match step {
                    0 | 1 => if let Ok(permit) = breaker.permit_at(now) {
                        under_way.push(permit);
                    },
                    2 => if let Some(permit) = under_way.pop() {
                        permit.settle_at(failed, now);
                    },
                    _ => now += Duration::from_secs(1),
                }
                let generation = breaker.inner().generation;
                let probes = under_way.iter().filter(|permit| permit.generation == generation).count();
                if breaker.snapshot().state == BreakerState::HalfOpen {
                    prop_assert!(probes <= PROBES as usize);
                }
            }
            drop(under_way);
            prop_assert!(breaker.permit_at(now + LONGEST_WAIT).is_ok());
        }
    }
}
