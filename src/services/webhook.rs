//! The payment provider's events: kept as they come, applied by a job. An event is believed in so far as it makes us ask: the state is
//! always the provider's answer, so that events may come twice, late, in any order, or never.

use chrono::TimeDelta;

use super::{ServiceError, leader::Term, payment::QUERY};
use crate::{
    app::App,
    clients::payment_gateway::webhook::{self, BadEvent},
    store::{self, lease::LEADER, queue::Queue, webhook::NewEvent},
};

/// An event about a payment that nobody knows is looked at again after this; it may have come before our own commit.
const AGAIN: TimeDelta = TimeDelta::seconds(30);
/// The provider sends an event again for three days.
const KEPT_UNKNOWN: TimeDelta = TimeDelta::days(3);
const BATCH: i64 = 500;

#[derive(Debug, PartialEq, Eq)]
pub enum Received {
    /// Kept now, or before.
    Kept,
    /// Not the provider's, or not an event.
    Refused(BadEvent),
    /// No secret is configured: nothing could be believed.
    Disabled,
}

/// Checks an event's signature and keeps its id, kind and object; its body holds personal data and is not stored. One statement;
/// idempotent by the event's id.
pub async fn receive(app: &App, signature: &str, body: &[u8]) -> Result<Received, ServiceError> {
    let Some(secret) = &app.config.payment.webhook_secret else { return Ok(Received::Disabled) };
    let now = app.clock.now();
    let event = match webhook::read(secret, signature, body, now) {
        Ok(event) => event,
        Err(bad) => return Ok(Received::Refused(bad)),
    };
    let new = NewEvent { id: &event.id, kind: &event.kind, object_id: &event.object_id, created_at: event.created_at };
    store::webhook::insert(&mut *app.db.acquire().await?, &new, now).await?;
    Ok(Received::Kept)
}

/// Makes payments due for a question of which events tell; of a try that has ended, too, when an event tells of a charge. Nothing happens when the leader's term is over.
pub async fn apply_due(app: &App, term: Term) -> Result<(), ServiceError> {
    let now = app.clock.now();
    let mut tx = app.db.begin().await?;
    if store::lease::lock_term(&mut tx, LEADER, term.0).await? {
        for payment in store::webhook::apply_due(&mut tx, now, now + AGAIN, now - KEPT_UNKNOWN, BATCH).await? {
            store::queue::send(&mut tx, Queue::Payment, QUERY, payment.0).await?;
        }
        tx.commit().await?;
    }
    Ok(())
}

/// Forgets events that the provider sends no more.
pub async fn forget(app: &App) -> Result<(), ServiceError> {
    let horizon = app.clock.now() - KEPT_UNKNOWN * 10;
    while store::webhook::delete_before(&mut *app.db.acquire().await?, horizon, BATCH).await? > 0 {}
    Ok(())
}
