//! Orders that go on by themselves after some time. Called by jobs/advance.rs.

use chrono::{DateTime, TimeDelta, Utc};

use super::transition;
use crate::{
    app::App,
    domain::order::{OrderEventReason, OrderStatus},
    services::{ServiceError, leader::Term},
    store::{self, lease::LEADER, order::Order},
};

/// Orders that are advanced in one transaction.
const BATCH: i64 = 500;

/// Moves paid orders on to PREPARING, and shipped ones to DELIVERED, that have not changed for as long as the configuration says; without
/// a time in it, staff do that. How many there were. Nothing happens when the leader's term is over.
pub async fn advance_due(app: &App, term: Term) -> Result<usize, ServiceError> {
    let jobs = &app.config.jobs;
    let mut count = 0;
    for (after, from, to) in [
        (jobs.prepare_after, OrderStatus::Paid, OrderStatus::Preparing),
        (jobs.deliver_after, OrderStatus::Shipped, OrderStatus::Delivered),
    ] {
        let Some(after) = after.and_then(|after| TimeDelta::from_std(after).ok()) else { continue };
        while let Some(moved) = advance(app, term, from, to, app.clock.now() - after).await? {
            count += moved;
        }
    }
    Ok(count)
}

/// One transaction; `None` when nothing is due.
async fn advance(
    app: &App,
    term: Term,
    from: OrderStatus,
    to: OrderStatus,
    changed_before: DateTime<Utc>,
) -> Result<Option<usize>, ServiceError> {
    let mut tx = app.db.begin().await?;
    if !store::lease::lock_term(&mut tx, LEADER, term.0).await? {
        return Ok(None);
    }
    let mut orders: Vec<Order> = store::order::lock_unchanged(&mut tx, from, changed_before, BATCH).await?;
    if orders.is_empty() {
        return Ok(None);
    }
    let moved = transition(app, &mut tx, &mut orders, to, OrderEventReason::Schedule.into()).await?;
    tx.commit().await?;
    let changed: Vec<_> = orders.iter().map(|order| (order.id, order.customer_id)).collect();
    app.order_feed.ring(&changed);
    Ok(Some(moved.len()))
}
