//! Calling orders off: one by its customer or by staff (resolvers/order/mutation.rs), many with their sale (`services/flash_sale/cancel.rs`).

use sqlx::PgConnection;
use uuid::Uuid;

use super::{Actor, Change, Changed, Reason, Request, transition};
use crate::{
    app::App,
    domain::{
        customer::single_line,
        ids::{CustomerId, OrderId},
        order::OrderStatus,
        stock::{MAX_REASON_CHARACTERS, StockMovementKind},
    },
    services::{
        InvalidInput, ServiceError,
        mail::{self, Letter},
        payment,
        refund::{self, Wanted},
    },
    store::{self, order::Order, queue::Queue},
};

/// Calls an order off until it is shipped. Units come back when the money is settled: at once for an order that nobody is being
/// charged for, otherwise when its payment has ended or its refund has succeeded; until then it is CANCELLING. One transaction;
/// the order's row is locked. Idempotent by the actor's key.
pub async fn cancel(app: &App, actor: Actor, id: OrderId, reason: Option<String>, key: Uuid) -> Result<Changed, ServiceError> {
    let note = match reason.filter(|reason| !reason.trim().is_empty()) {
        None => None,
        Some(typed) => match single_line(&typed, MAX_REASON_CHARACTERS) {
            Some(note) => Some(note),
            None => return Ok(Changed::Invalid(InvalidInput::new(&["reason"], "One line of at most 200 characters."))),
        },
    };
    let request = Request::new(app, "cancelOrder", actor.key(key), &(id.0, &note))?;
    let mut change = match Change::begin(app, actor, id, Some(request)).await? {
        Ok(change) => change,
        Err(outcome) => return Ok(outcome),
    };
    let reason = actor.because(note);
    let order = change.order().clone();
    if order.status == OrderStatus::PaymentFailed {
        change.transition(app, OrderStatus::Cancelled, reason).await?;
        let letter = Letter::Cancelled { order_number: &order.number };
        mail::send_to_customer(app, &mut change.tx, order.customer_id, &letter).await?;
    } else if !order.status.is_cancellable()
        || call_off(app, &mut change.tx, vec![order], &reason, |order_number| Letter::Cancelled { order_number }).await?.is_empty()
    {
        return Ok(Changed::WrongState);
    }
    let changed = change.finish(app).await?;
    app.refunds_waiting.notify_one();
    app.payments_waiting.notify_one();
    app.mail_waiting.notify_one();
    Ok(changed)
}

/// Calls orders off that wait for their payment or are paid and have not left, and writes to their customers, in the caller's
/// transaction with the rows locked; which ones those were. Ring `payments_waiting`, `refunds_waiting` and `mail_waiting` after the
/// commit.
pub async fn call_off(
    app: &App,
    db: &mut PgConnection,
    orders: Vec<Order>,
    reason: &Reason,
    letter: impl for<'a> Fn(&'a str) -> Letter<'a>,
) -> Result<Vec<(OrderId, CustomerId)>, ServiceError> {
    let (mut unpaid, mut paid): (Vec<Order>, Vec<Order>) = orders.into_iter().partition(|order| order.status.is_unpaid());
    // Payments before stock: the lock order of every writer.
    call_off_paid(app, db, &mut paid, reason).await?;
    call_off_unpaid(app, db, &mut unpaid, reason).await?;
    let mut called_off = Vec::with_capacity(unpaid.len() + paid.len());
    for order in unpaid.into_iter().chain(paid) {
        mail::send_to_customer(app, db, order.customer_id, &letter(&order.number)).await?;
        called_off.push((order.id, order.customer_id));
    }
    Ok(called_off)
}

/// The money goes back, and the orders end when it has. One that has no money left is none of these.
async fn call_off_paid(app: &App, db: &mut PgConnection, orders: &mut Vec<Order>, reason: &Reason) -> Result<(), ServiceError> {
    let mut without_money = Vec::new();
    for order in &*orders {
        if !refund::request(app, db, order, Wanted { reason: reason.note.clone(), ..Wanted::default() }).await? {
            tracing::error!(order = %order.id, "a paid order has no money to give back");
            without_money.push(order.id);
        }
    }
    orders.retain(|order| !without_money.contains(&order.id));
    transition(app, db, orders, OrderStatus::Cancelling, reason.clone()).await?;
    Ok(())
}

/// Orders that nobody is being charged for end at once. The others are ended by whoever is at their payment, or takes it up next: what
/// was taken meanwhile goes back.
async fn call_off_unpaid(app: &App, db: &mut PgConnection, orders: &mut [Order], reason: &Reason) -> Result<(), ServiceError> {
    let (now, slot) = (app.clock.now(), app.counter_slots.changes());
    let ids = transition(app, db, orders, OrderStatus::Cancelling, reason.clone()).await?;
    let being_paid = store::payment::list_orders_being_paid(db, &ids).await?;
    for id in &being_paid {
        store::payment::update_given_up(db, *id, now).await?;
        store::queue::send(db, Queue::Payment, payment::PAY, id.0).await?;
    }
    // Those that are over come last.
    orders.sort_by_key(|order| !being_paid.contains(&order.id));
    let over = &mut orders[being_paid.len()..];
    let cancelled = transition(app, db, over, OrderStatus::Cancelled, Reason { code: reason.code, note: None }).await?;
    store::stock::release_units(db, &cancelled, StockMovementKind::Released, slot, now).await?;
    Ok(())
}
