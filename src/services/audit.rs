//! The audit: does the database keep every promise right now?

use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};

use super::ServiceError;
use crate::{
    app::App,
    store::{
        self,
        audit::{INVARIANTS, Invariant, SAMPLES},
    },
};

/// What a sample's statement may cost at most.
const SAMPLE_TIMEOUT: Duration = Duration::from_secs(2);

pub struct CheckedInvariant {
    pub name: &'static str,
    pub description: &'static str,
    /// Rows that break it; none in a healthy shop.
    pub violations: i64,
}

pub struct AuditReport {
    pub checked_at: DateTime<Utc>,
    pub invariants: Vec<CheckedInvariant>,
}

impl AuditReport {
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.invariants.iter().all(|invariant| invariant.violations == 0)
    }
}

/// Checks every invariant, one after another; reads only and takes no locks.
pub async fn run(app: &App) -> Result<AuditReport, ServiceError> {
    let mut invariants = Vec::with_capacity(INVARIANTS.len());
    for invariant in INVARIANTS {
        let mut tx = app.db.begin().await?;
        store::audit::take_time(&mut tx).await?;
        let violations = store::audit::count_violations(&mut tx, invariant).await?;
        tx.rollback().await?;
        invariants.push(CheckedInvariant { name: invariant.name, description: invariant.description, violations });
    }
    Ok(AuditReport { checked_at: app.clock.now(), invariants })
}

/// A look at a shop that is selling.
pub struct Sample {
    pub at: DateTime<Utc>,
    pub took: Duration,
    /// The broken ones, with the rows that break them.
    pub broken: Vec<(&'static str, i64)>,
    /// The one whose turn it was to be checked in full; false when it was given up because it took too long.
    pub in_full: (&'static str, bool),
}

/// Checks what the newest orders tell, and in full one invariant a turn. Each is a short transaction that only reads, on one
/// connection at a time.
pub async fn sample(app: &App, turn: usize) -> Result<Sample, ServiceError> {
    let (at, start) = (app.clock.now(), Instant::now());
    let in_full = &INVARIANTS[turn % INVARIANTS.len()];
    let mut broken = Vec::new();
    let mut is_done = false;
    for invariant in SAMPLES.iter().chain([in_full]) {
        let violations = count_modestly(app, invariant).await?;
        is_done = violations.is_some();
        match violations {
            Some(count) if count > 0 => broken.push((invariant.name, count)),
            _ => {}
        }
    }
    Ok(Sample { at, took: start.elapsed(), broken, in_full: (in_full.name, is_done) })
}

/// `None` when it took too long.
async fn count_modestly(app: &App, invariant: &Invariant) -> Result<Option<i64>, ServiceError> {
    let mut tx = app.db.begin().await?;
    store::audit::be_modest(&mut tx, SAMPLE_TIMEOUT).await?;
    let counted = store::audit::count_violations(&mut tx, invariant).await;
    tx.rollback().await?;
    match counted {
        Ok(count) => Ok(Some(count)),
        Err(error) if store::audit::took_too_long(&error) => Ok(None),
        Err(error) => Err(error.into()),
    }
}
