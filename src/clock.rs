//! The program's clock: the database's time, as well as this process knows it.
//!
//! Owns: the one place that asks for the time. Sales open by the database's clock, so that all processes agree.

use std::sync::{
    Arc,
    atomic::{AtomicI64, Ordering},
};

use chrono::{DateTime, SubsecRound, TimeDelta, Utc};

/// Cheap to clone; clones share the offset.
#[derive(Clone, Debug)]
pub struct Clock(Arc<Source>);

#[derive(Debug)]
enum Source {
    /// The system's time plus the offset to the database's, in microseconds.
    System { offset_micros: AtomicI64 },
    /// Stands still until it is set: for tests.
    Fixed { micros: AtomicI64 },
}

impl Clock {
    #[must_use]
    pub fn system() -> Self {
        Self(Arc::new(Source::System { offset_micros: AtomicI64::new(0) }))
    }

    #[must_use]
    pub fn fixed(at: DateTime<Utc>) -> Self {
        Self(Arc::new(Source::Fixed { micros: AtomicI64::new(at.timestamp_micros()) }))
    }

    /// Now, in microseconds: what `PostgreSQL` can store.
    #[must_use]
    pub fn now(&self) -> DateTime<Utc> {
        match &*self.0 {
            Source::System { offset_micros } => {
                let offset = TimeDelta::microseconds(offset_micros.load(Ordering::Relaxed));
                (Utc::now() + offset).trunc_subsecs(6)
            }
            Source::Fixed { micros } => DateTime::from_timestamp_micros(micros.load(Ordering::Relaxed)).unwrap_or_default(),
        }
    }

    /// Moves a fixed clock; a running one is not touched.
    pub fn advance(&self, by: TimeDelta) {
        if let Source::Fixed { micros } = &*self.0 {
            micros.fetch_add(by.num_microseconds().unwrap_or_default(), Ordering::Relaxed);
        }
    }

    /// Takes over the database's time from one reading, assuming that it was made half-way between `asked` and
    /// `answered`. Returns the offset that is used from now on.
    pub fn follow(&self, reading: DateTime<Utc>, asked: DateTime<Utc>, answered: DateTime<Utc>) -> TimeDelta {
        match &*self.0 {
            Source::System { offset_micros } => {
                let midway = asked + (answered - asked) / 2;
                let correction = (reading - midway).num_microseconds().unwrap_or_default();
                TimeDelta::microseconds(offset_micros.fetch_add(correction, Ordering::Relaxed) + correction)
            }
            Source::Fixed { .. } => TimeDelta::zero(),
        }
    }
}
