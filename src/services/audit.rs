//! The audit: does the database keep every promise right now?

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use chrono::{DateTime, Utc};

use super::ServiceError;
use crate::{
    app::App,
    store::{
        self,
        audit::{INVARIANTS, Invariant, SAMPLES},
        lease::AUDIT,
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
    check(app, Pace::Quick).await
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Pace {
    Quick,
    /// On one core: nobody waits for it.
    Modest,
}

async fn check(app: &App, pace: Pace) -> Result<AuditReport, ServiceError> {
    let mut invariants = Vec::with_capacity(INVARIANTS.len());
    for invariant in INVARIANTS {
        let mut tx = app.db.begin().await?;
        match pace {
            Pace::Quick => store::audit::take_time(&mut tx).await?,
            Pace::Modest => store::audit::be_modest(&mut tx, Duration::ZERO).await?,
        }
        let violations = store::audit::count_violations(&mut tx, invariant).await?;
        tx.rollback().await?;
        invariants.push(CheckedInvariant { name: invariant.name, description: invariant.description, violations });
    }
    Ok(AuditReport { checked_at: app.clock.now(), invariants })
}

/// The report of the audit that this process made last, as long as it is the one to make them: only one process shows its report, and
/// that is the newest.
#[derive(Default)]
pub struct LastAudit(Mutex<Option<Arc<AuditReport>>>);

impl LastAudit {
    pub fn get(&self) -> Option<Arc<AuditReport>> {
        self.report().clone()
    }

    /// Held for a moment, never over an await.
    fn report(&self) -> MutexGuard<'_, Option<Arc<AuditReport>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Audits in whichever worker has the lease, and keeps the report. A worker goes on with it until it stops, or is gone for three times
/// the period.
pub async fn run_in_turn(app: &App, every: Duration) -> Result<(), ServiceError> {
    if store::lease::take(&mut *app.db.acquire().await?, AUDIT, app.process, 3 * every).await?.is_none() {
        *app.last_audit.report() = None;
        return Ok(());
    }
    let report = check(app, Pace::Modest).await?;
    for broken in report.invariants.iter().filter(|invariant| invariant.violations > 0) {
        tracing::error!(invariant = broken.name, violations = broken.violations, "an invariant is broken: see `audit`");
    }
    *app.last_audit.report() = Some(Arc::new(report));
    Ok(())
}

/// Lets another worker audit at once.
pub async fn give_up_turn(app: &App) -> Result<(), ServiceError> {
    store::lease::end(&mut *app.db.acquire().await?, AUDIT, app.process).await?;
    Ok(())
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
