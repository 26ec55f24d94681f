//! Calling an order off, by its customer or by staff. Called by resolvers/order/mutation.rs.

use uuid::Uuid;

use super::{Actor, Change, Changed, Reason, Request};
use crate::{
    app::App,
    domain::{
        customer::single_line,
        ids::OrderId,
        order::{OrderEventReason, OrderStatus},
        stock::StockMovementKind,
    },
    services::{
        InvalidInput, ServiceError,
        mail::{self, Letter},
        payment,
        refund::{self, Wanted},
    },
    store::{self, queue::Queue},
};

const MAX_REASON_CHARACTERS: usize = 200;

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
    let request = Request::new(app, "cancelOrder", key, &(id.0, &note))?;
    let mut change = match Change::begin(app, actor, id, Some(request)).await? {
        Ok(change) => change,
        Err(outcome) => return Ok(outcome),
    };
    let reason = actor.because(note);
    match change.order().status {
        OrderStatus::PaymentFailed => {
            change.transition(app, OrderStatus::Cancelled, reason).await?;
        }
        OrderStatus::AwaitingPayment => call_off_unpaid(app, &mut change, reason).await?,
        OrderStatus::Paid | OrderStatus::Preparing => {
            change.transition(app, OrderStatus::Cancelling, reason.clone()).await?;
            if !refund::request(app, &mut change.tx, &change.order[0], Wanted { reason: reason.note, ..Wanted::default() }).await? {
                return Ok(Changed::WrongState);
            }
        }
        _ => return Ok(Changed::WrongState),
    }
    let order = change.order();
    let (number, customer) = (order.number.clone(), order.customer_id);
    mail::send_to_customer(app, &mut change.tx, customer, &Letter::Cancelled { order_number: &number }).await?;
    let changed = change.finish(app).await?;
    app.refunds_waiting.notify_one();
    app.payments_waiting.notify_one();
    app.mail_waiting.notify_one();
    Ok(changed)
}

/// An order that nobody is being charged for is called off at once. Otherwise whoever is at its payment, or takes it up next,
/// ends it: what was taken meanwhile goes back.
async fn call_off_unpaid(app: &App, change: &mut Change, reason: Reason) -> Result<(), ServiceError> {
    let id = change.order().id;
    change.transition(app, OrderStatus::Cancelling, reason).await?;
    if store::payment::list_orders_being_paid(&mut change.tx, &[id]).await?.is_empty() {
        change.transition(app, OrderStatus::Cancelled, Reason::from(OrderEventReason::Customer)).await?;
        store::stock::release_units(&mut change.tx, &[id], StockMovementKind::Released, app.counter_slots.changes(), app.clock.now())
            .await?;
    } else {
        store::payment::update_given_up(&mut change.tx, id, app.clock.now()).await?;
        store::queue::send(&mut change.tx, Queue::Payment, payment::PAY, id.0, None).await?;
    }
    Ok(())
}
