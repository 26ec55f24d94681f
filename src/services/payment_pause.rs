//! Pauses: the time in which payments cannot be taken, which does not count against a customer's hold.

use std::time::Duration;

use chrono::TimeDelta;

use super::{ServiceError, circuit_breaker, leader::Term, payment};
use crate::{
    app::App,
    domain::circuit_breaker::BreakerState,
    store::{self, circuit_breaker::Breaker, lease::LEADER, queue::Queue},
};

/// A payment that waits for a worker longer than this is kept waiting by us.
const LONGEST_WAIT: Duration = Duration::from_secs(10);
/// A breaker that is half-open for longer has nothing to try with: it keeps nobody waiting.
const LONGEST_TRIAL: TimeDelta = TimeDelta::seconds(30);

/// Opens a pause when a worker's breaker of the calls that every payment makes is open, or when the oldest waiting payment message is older than ten seconds; ends it when
/// neither holds. Nothing happens when the leader's term is over.
pub async fn update(app: &App, term: Term) -> Result<(), ServiceError> {
    let now = app.clock.now();
    let is_shut = |breaker: &Breaker| match breaker.state {
        BreakerState::Open => true,
        BreakerState::HalfOpen => breaker.since > now - LONGEST_TRIAL,
        BreakerState::Closed => false,
    };
    let is_needed = |breaker: &&Breaker| payment::CALLS.iter().any(|call| call.as_str() == breaker.operation);
    let is_provider_away = circuit_breaker::list(app).await?.iter().filter(is_needed).any(is_shut);
    let mut tx = app.db.begin().await?;
    if !store::lease::lock_term(&mut tx, LEADER, term.0).await? {
        return Ok(());
    }
    let is_late = store::queue::get_oldest_wait(&mut tx, Queue::Payment).await?.is_some_and(|wait| wait > LONGEST_WAIT);
    if is_provider_away || is_late {
        if store::payment_pause::open(&mut tx, now).await? {
            tracing::warn!(is_provider_away, is_late, "payments pause: holds wait for them");
        }
    } else if store::payment_pause::close(&mut tx, now).await? {
        tracing::info!("payments go on");
    }
    tx.commit().await?;
    Ok(())
}
