//! What the cache has done since the process started.

use std::sync::atomic::{AtomicU64, Ordering};

use chrono::TimeDelta;

/// Upper bounds of the ages that are told apart, in seconds; what is older comes last.
pub const AGE_BOUNDS: [i64; 6] = [1, 5, 10, 30, 60, 300];

#[derive(Debug, Default)]
pub struct PageCounters {
    /// Pages shown from this process's memory.
    pub memory_hits: AtomicU64,
    /// Pages that Redis had and memory had not.
    pub redis_hits: AtomicU64,
    /// Of all pages shown, those that were past their time.
    pub stale_hits: AtomicU64,
    /// Executions.
    pub misses: AtomicU64,
    /// Requests that waited for another one's flight.
    pub joined: AtomicU64,
    /// Pages that were thrown away because of a change.
    pub invalidations: AtomicU64,
    /// Redis failed, was late, or had what is no page.
    pub redis_errors: AtomicU64,
    /// Redis was not asked, because it fails.
    pub redis_skips: AtomicU64,
    /// How old the pages were that were shown from memory, by [`AGE_BOUNDS`].
    pub ages: [AtomicU64; AGE_BOUNDS.len() + 1],
    pub age_milliseconds: AtomicU64,
}

impl PageCounters {
    pub(super) fn shown_at(&self, age: TimeDelta) {
        let bucket = AGE_BOUNDS.iter().position(|bound| age <= TimeDelta::seconds(*bound)).unwrap_or(AGE_BOUNDS.len());
        add(&self.ages[bucket]);
        self.age_milliseconds.fetch_add(age.num_milliseconds().unsigned_abs(), Ordering::Relaxed);
    }
}

pub(super) fn add(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}
