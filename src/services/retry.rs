//! Work that failed: tried again later, with growing pauses, and set aside for people in the end.
//!
//! Owns: how often and when. Does not own: what a failure means for an order (the caller, who learns when it is given up).

use std::time::Duration;

use chrono::TimeDelta;
use sqlx::PgConnection;

use super::{ServiceError, circuit_breaker, leader::Term};
use crate::{
    app::App,
    clients::payment_gateway::{GatewayError, Operation},
    metrics::MessageOutcome,
    store::{
        self,
        lease::LEADER,
        queue::{DeadMessage, Delivery},
    },
};

/// Tries of one piece of work; with the pauses between them some three hours.
pub const MAX_ATTEMPTS: i32 = 20;
const FIRST_PAUSE: Duration = Duration::from_secs(2);
const LONGEST_PAUSE: Duration = Duration::from_mins(15);
/// Longer than all pauses together.
const KEPT: TimeDelta = TimeDelta::days(1);
/// For so long an outage is waited out; then it counts like any other failure.
const LONGEST_OUTAGE: TimeDelta = TimeDelta::days(1);
/// During an outage: short, so that work goes on soon after its end. The breaker keeps the calls few.
const OUTAGE_PAUSE_MILLIS: std::ops::RangeInclusive<i64> = 3_000..=10_000;
/// Work that the leader puts back into its queue in one transaction.
const DUE_BATCH: i64 = 500;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GivenUp {
    Yes,
    No,
}

/// Counts a failure and takes the message out of its queue, in the caller's transaction: it comes again after a pause or, after the
/// last try, is a dead letter.
pub async fn put_off(app: &App, db: &mut PgConnection, delivery: &Delivery, error: &str) -> Result<GivenUp, ServiceError> {
    let now = app.clock.now();
    let attempts = store::retry::insert_failure(db, delivery, error, true, now).await?.attempts;
    if attempts >= MAX_ATTEMPTS {
        tracing::error!(queue = %delivery.queue, kind = delivery.kind, target = %delivery.id, error, "given up: it is a dead letter now");
        store::queue::bury(db, &DeadMessage::given_up(delivery, attempts, error), now).await?;
        store::retry::delete(db, delivery.queue, &delivery.kind, delivery.id).await?;
        app.metrics.message(delivery.queue.as_str(), MessageOutcome::Dead, 1);
        return Ok(GivenUp::Yes);
    }
    tracing::warn!(queue = %delivery.queue, kind = delivery.kind, target = %delivery.id, attempts, error, "it failed and is put off");
    store::retry::update_due(db, delivery, now + pause_after(attempts)).await?;
    store::queue::delete(db, delivery.queue, &[delivery.message_id]).await?;
    app.metrics.message(delivery.queue.as_str(), MessageOutcome::Retried, 1);
    Ok(GivenUp::No)
}

/// The same for work that fails because one of these calls of the payment provider did. While the provider is ill, as the circuit breaker of any worker knows, a
/// failure says nothing of the work: it is not counted, and comes again soon.
pub async fn put_off_call(
    app: &App,
    db: &mut PgConnection,
    delivery: &Delivery,
    calls: &[Operation],
    error: &GatewayError,
) -> Result<GivenUp, ServiceError> {
    if !(error.is_outage() && circuit_breaker::is_ill(app, db, calls).await?) {
        return put_off(app, db, delivery, &error.to_string()).await;
    }
    let now = app.clock.now();
    let failures = store::retry::insert_failure(db, delivery, &error.to_string(), false, now).await?;
    if failures.first_at + LONGEST_OUTAGE <= now {
        return put_off(app, db, delivery, &error.to_string()).await;
    }
    let pause = TimeDelta::milliseconds(rand::random_range(OUTAGE_PAUSE_MILLIS));
    tracing::info!(queue = %delivery.queue, kind = delivery.kind, target = %delivery.id, %error, "it waits for the payment provider");
    store::retry::update_due(db, delivery, now + pause).await?;
    store::queue::delete(db, delivery.queue, &[delivery.message_id]).await?;
    app.metrics.message(delivery.queue.as_str(), MessageOutcome::Retried, 1);
    Ok(GivenUp::No)
}

/// The same as [`put_off`] in a transaction of its own, for work that moves no order.
pub async fn fail(app: &App, delivery: &Delivery, error: String) -> Result<(), ServiceError> {
    let mut tx = app.db.begin().await?;
    put_off(app, &mut tx, delivery, &error).await?;
    tx.commit().await?;
    Ok(())
}

/// Capped exponential, with full jitter: those who failed together do not come back together.
fn pause_after(attempts: i32) -> TimeDelta {
    let doublings = u32::try_from(attempts - 1).unwrap_or_default().min(16);
    let longest = FIRST_PAUSE.saturating_mul(1 << doublings).min(LONGEST_PAUSE);
    let millis = u64::try_from(longest.as_millis()).unwrap_or(u64::MAX);
    TimeDelta::milliseconds(i64::try_from(rand::random_range(millis / 4..=millis)).unwrap_or(i64::MAX))
}

/// Acknowledges a delivery and forgets its failures, in the caller's transaction.
pub async fn acknowledge(app: &App, db: &mut PgConnection, delivery: &Delivery) -> Result<(), ServiceError> {
    store::retry::delete(db, delivery.queue, &delivery.kind, delivery.id).await?;
    store::queue::delete(db, delivery.queue, &[delivery.message_id]).await?;
    app.metrics.message(delivery.queue.as_str(), MessageOutcome::Done, 1);
    Ok(())
}

/// The same in a transaction of its own: there was nothing (more) to do.
pub async fn done(app: &App, delivery: &Delivery) -> Result<(), ServiceError> {
    let mut tx = app.db.begin().await?;
    acknowledge(app, &mut tx, delivery).await?;
    tx.commit().await?;
    Ok(())
}

/// Puts what is due back into its queue. Nothing happens when the leader's term is over.
pub async fn send_due(app: &App, term: Term) -> Result<(), ServiceError> {
    let mut tx = app.db.begin().await?;
    if !store::lease::lock_term(&mut tx, LEADER, term.0).await? {
        return Ok(());
    }
    let sent = store::retry::send_due(&mut tx, app.clock.now(), DUE_BATCH).await?;
    tx.commit().await?;
    if sent > 0 {
        app.refunds_waiting.notify_one();
        app.payments_waiting.notify_one();
        app.mail_waiting.notify_one();
    }
    Ok(())
}

/// Forgets failures of work that has gone well since: payments are acknowledged in groups, without a look at each one's failures.
pub async fn forget(app: &App) -> Result<(), ServiceError> {
    store::retry::delete_before(&mut *app.db.acquire().await?, app.clock.now() - KEPT).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_limit_and_never_fall_to_nothing() {
        for (attempts, longest) in [(1, 2), (2, 4), (5, 32), (10, 900), (20, 900)] {
            for _ in 0..100 {
                let pause = pause_after(attempts);
                assert!(pause <= TimeDelta::seconds(longest) && pause >= TimeDelta::milliseconds(longest * 250), "{attempts}: {pause}");
            }
        }
    }
}
