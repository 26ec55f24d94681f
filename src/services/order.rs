//! Orders: the one function that moves them, and the end of their holds.

use sqlx::PgConnection;

use super::{ServiceError, leader::Term};
use crate::{
    app::App,
    domain::{
        ids::OrderId,
        order::{OrderEventReason, OrderStatus},
    },
    store::{
        self,
        lease::LEADER,
        order::{Order, Step},
    },
};

/// Orders whose hold is ended in one transaction.
pub const EXPIRY_BATCH: i64 = 100;

/// Why an order moves: a code for clients, and perhaps words for people, never personal data.
#[derive(Clone, Copy, Debug, Default)]
pub struct Reason {
    pub code: Option<OrderEventReason>,
    pub note: Option<&'static str>,
}

impl From<OrderEventReason> for Reason {
    fn from(code: OrderEventReason) -> Self {
        Self { code: Some(code), note: None }
    }
}

/// Moves locked orders to a state, with version and history, as far as the state table allows it; the others are left
/// alone. The rows show the new state afterwards; the ids are those that moved. Every writer of an order's state calls
/// this, with the rows locked in the caller's transaction.
pub async fn transition(
    app: &App,
    db: &mut PgConnection,
    orders: &mut [Order],
    to: OrderStatus,
    reason: Reason,
) -> Result<Vec<OrderId>, ServiceError> {
    let mut movable: Vec<&mut Order> = orders.iter_mut().filter(|order| order.state().may_become(to)).collect();
    if movable.is_empty() {
        return Ok(Vec::new());
    }
    let step = |order: &&mut Order| Step {
        order: order.id,
        from_version: order.version,
        to,
        reason: reason.code,
        note: reason.note.map(str::to_owned),
    };
    let steps: Vec<Step> = movable.iter().map(step).collect();
    store::order::update_status(db, &steps, app.clock.now()).await?;
    for order in &mut movable {
        let after = order.state().after(to);
        order.status = after.status;
        order.status_before_review = after.before_review;
        order.version += 1;
    }
    Ok(steps.into_iter().map(|step| step.order).collect())
}

/// Ends holds that have run out: the orders expire, their units are free again. An order whose payment is under way is
/// EXPIRING until that has ended. One transaction of at most [`EXPIRY_BATCH`] orders; nothing happens when the leader's term is
/// over. Returns how many holds ended.
pub async fn expire_due(app: &App, term: Term) -> Result<usize, ServiceError> {
    let now = app.clock.now();
    let mut tx = app.db.begin().await?;
    if !store::lease::lock_term(&mut tx, LEADER, term.0).await? {
        return Ok(0);
    }
    let mut due = store::order::lock_ended_holds(&mut tx, now, EXPIRY_BATCH).await?;
    if due.is_empty() {
        return Ok(0);
    }
    let ids: Vec<OrderId> = due.iter().map(|order| order.id).collect();
    // A younger look than the one that found them: a payment may have begun before their rows were locked.
    let being_paid = store::payment::list_orders_being_paid(&mut tx, &ids).await?;
    transition(app, &mut tx, &mut due, OrderStatus::Expiring, OrderEventReason::HoldExpired.into()).await?;
    let (waiting, mut over): (Vec<Order>, Vec<Order>) = due.into_iter().partition(|order| being_paid.contains(&order.id));
    let expired = transition(app, &mut tx, &mut over, OrderStatus::Expired, OrderEventReason::HoldExpired.into()).await?;
    store::stock::release_units(&mut tx, &expired, app.counter_slots.expiry(), now).await?;
    tx.commit().await?;
    let changed: Vec<_> = waiting.iter().chain(&over).map(|order| (order.id, order.customer_id)).collect();
    app.order_feed.ring(&changed);
    Ok(changed.len())
}
