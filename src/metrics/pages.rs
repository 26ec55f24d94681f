//! What the page cache has done since the process started. Written by `services/page_cache.rs`.

use prometheus_client::{
    metrics::{counter::Counter, histogram::Histogram},
    registry::Registry,
};

use super::{Counters, register};

/// Upper bounds in seconds: until the oldest page that is shown at all.
const AGES: [f64; 6] = [1.0, 5.0, 10.0, 30.0, 60.0, 300.0];

#[derive(Clone)]
pub struct PageCounters {
    /// Pages shown from this process's memory.
    pub memory_hits: Counter,
    /// Pages that Redis had and memory had not.
    pub redis_hits: Counter,
    /// Of all pages shown, those that were past their time.
    pub stale_hits: Counter,
    /// Executions.
    pub misses: Counter,
    /// Requests that waited for another one's flight.
    pub joined: Counter,
    /// Pages that were thrown away because of a change.
    pub invalidations: Counter,
    /// Redis failed, was late, or had what is no page.
    pub redis_errors: Counter,
    /// Redis was not asked, because it fails.
    pub redis_skips: Counter,
    /// How old the pages were that were shown from memory.
    pub ages: Histogram,
}

impl PageCounters {
    #[must_use]
    pub fn new(registry: &mut Registry) -> Self {
        let hits = register(registry, "page_cache_hits", "Pages that the cache had", Counters::default());
        let hits_of = |level| hits.get_or_create_owned(&[("level", level)]);
        let mut counter = |name, help| register(registry, name, help, Counter::default());
        Self {
            memory_hits: hits_of("memory"),
            redis_hits: hits_of("redis"),
            stale_hits: counter("page_cache_stale_hits", "Pages shown that were past their time"),
            misses: counter("page_cache_misses", "Pages that had to be made"),
            joined: counter("page_cache_joined", "Requests that waited for a page that another one had made"),
            invalidations: counter("page_cache_invalidations", "Pages thrown away because of a change"),
            redis_errors: counter("page_cache_redis_errors", "Times that Redis failed, was late, or had what is no page"),
            redis_skips: counter("page_cache_redis_skips", "Times that Redis was not asked because it fails"),
            ages: register(registry, "page_age_seconds", "How old the pages were that memory had", Histogram::new(AGES)),
        }
    }
}
