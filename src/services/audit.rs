//! The audit: does the database keep every promise right now?

use chrono::{DateTime, Utc};

use super::ServiceError;
use crate::{
    app::App,
    store::{self, audit::INVARIANTS},
};

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
    let mut db = app.db.acquire().await?;
    let mut invariants = Vec::with_capacity(INVARIANTS.len());
    for invariant in INVARIANTS {
        let violations = store::audit::count_violations(&mut db, invariant).await?;
        invariants.push(CheckedInvariant { name: invariant.name, description: invariant.description, violations });
    }
    Ok(AuditReport { checked_at: app.clock.now(), invariants })
}
