//! Money that goes back: asked for in the transaction of its reason, carried out by a job, settled by the provider's word.
//!
//! Owns: what a refund does to its order. Called by services/order/ and jobs/compensation.rs.
//! Locks: order → refund and payment → quota → stock. The refund's state is the fence: a second delivery changes nothing.

use sqlx::{PgConnection, Postgres, Transaction};

use super::{
    ServiceError,
    mail::{self, Letter},
    order,
    payment::KEY_LIFETIME,
    retry::{self, GivenUp},
};
use crate::{
    app::App,
    clients::payment_gateway::{GatewayError, Kept, NewRefund, Operation},
    domain::{
        ids::{OrderId, RefundId},
        order::{OrderEventReason, OrderStatus},
        payment::RefundStatus,
        stock::StockMovementKind,
    },
    store::{
        self,
        order::Order,
        payment::Payment,
        queue::{Delivery, Queue},
        refund::Refund,
    },
};

/// The kind of a refund's message.
pub const KIND: &str = "refund";

/// The calls that a refund makes.
const CALLS: [Operation; 2] = [Operation::CreateRefund, Operation::ListRefunds];

/// How many refunds the circuit breaker would let through now; `None` is any number.
#[must_use]
pub fn room(app: &App) -> Option<u32> {
    app.payment_gateway.room(&[Operation::CreateRefund])
}

/// What may still be asked back of an order: captured, less what went back or is on its way. Call with the order's row locked.
pub async fn left(db: &mut PgConnection, order: OrderId) -> Result<i64, ServiceError> {
    let payment = store::payment::find_captured(db, order).await?;
    Ok(payment.map_or(0, |payment| payment.amount_minor - payment.refunded_minor - payment.refunding_minor))
}

/// What is to go back, and why.
#[derive(Debug, Default)]
pub struct Wanted {
    /// All that is left when there is none.
    pub amount_minor: Option<i64>,
    pub reason: Option<String>,
    /// The goods are back.
    pub restock: bool,
}

/// Asks for an amount back, or for all that is left, and queues it, in the caller's transaction with the order's row locked. Ring
/// `refunds_waiting` after the commit. False when nothing is left.
pub async fn request(app: &App, db: &mut PgConnection, order: &Order, wanted: Wanted) -> Result<bool, ServiceError> {
    match store::payment::find_captured(db, order.id).await? {
        Some(payment) => request_of(app, db, &payment, wanted).await,
        None => Ok(false),
    }
}

/// The same of one payment, which need not be the order's own: a second charge.
pub(super) async fn request_of(app: &App, db: &mut PgConnection, payment: &Payment, wanted: Wanted) -> Result<bool, ServiceError> {
    let left = payment.amount_minor - payment.refunded_minor - payment.refunding_minor;
    if left <= 0 {
        return Ok(false);
    }
    let refund = Refund {
        id: RefundId::new(),
        payment_id: payment.id,
        order_id: payment.order_id,
        status: RefundStatus::Requested,
        amount_minor: wanted.amount_minor.unwrap_or(left),
        currency: payment.currency,
        reason: wanted.reason,
        restock: wanted.restock,
        created_at: app.clock.now(),
    };
    store::refund::insert(db, &refund).await?;
    store::queue::send(db, Queue::Compensation, KIND, refund.id.0).await?;
    Ok(true)
}

/// Carries a refund out: the provider is asked, under a key of the refund's own, and its answer is settled with the message in one
/// transaction. Whatever is not a clear yes is tried again later with the same key; after the last try the order is for people. What the
/// provider does not answer while it is ill is no try.
pub async fn carry_out(app: &App, delivery: &Delivery) -> Result<(), ServiceError> {
    let id = RefundId(delivery.id);
    let Some((refund, intent)) = store::refund::find_open(&mut *app.db.acquire().await?, id).await? else {
        return retry::done(app, delivery).await;
    };
    match give_back(app, &refund, &intent).await {
        Ok(reference) => settle(app, delivery, &refund, &reference).await,
        Err(error) => put_off(app, delivery, &refund, &error).await,
    }
}

/// Asks the provider for a refund; its id there. A key under which an error is kept tells nothing any more: then the provider's
/// list does, and if the refund is not in it, the next key is used; each delivery spends one at most. The keys are the same for
/// everybody, so that two workers at one refund are one to the provider, and the list is read after each spent key: another worker
/// may have used it just now. A refund that is older than the provider's memory of keys is looked up first: under a forgotten key it
/// would be paid twice.
async fn give_back(app: &App, refund: &Refund, intent: &str) -> Result<String, GatewayError> {
    let id = refund.id.0;
    if refund.created_at + KEY_LIFETIME <= app.clock.now()
        && let Some(reference) = app.payment_gateway.find_refund(intent, id).await?
    {
        return Ok(reference);
    }
    let new = NewRefund { intent, amount_minor: refund.amount_minor, refund_id: id, order_id: refund.order_id.0 };
    let mut key = format!("refund:{id}");
    let mut spent = 0;
    loop {
        match app.payment_gateway.create_refund(&key, &new).await {
            Err(GatewayError::Unknown { kept: Kept::Already, .. }) => {}
            answer => return answer,
        }
        if let Some(reference) = app.payment_gateway.find_refund(intent, id).await? {
            return Ok(reference);
        }
        spent += 1;
        key = format!("refund:{id}:{spent}");
    }
}

async fn settle(app: &App, delivery: &Delivery, refund: &Refund, reference: &str) -> Result<(), ServiceError> {
    let now = app.clock.now();
    let mut tx = app.db.begin().await?;
    let mut orders = store::order::lock_by_ids(&mut tx, &[refund.order_id]).await?;
    let is_new = store::refund::update_succeeded(&mut tx, refund.id, reference, now).await?;
    if is_new {
        // A second charge that goes back moves no order.
        let captured = store::payment::find_captured(&mut tx, refund.order_id).await?.filter(|payment| payment.id == refund.payment_id);
        let is_last = captured.is_some() && !has_open(&mut tx, refund).await?;
        let is_whole = is_last && captured.is_some_and(|payment| payment.refunded_minor == payment.amount_minor);
        let moved = match orders.first().map(Order::stage) {
            Some(OrderStatus::Cancelling) if is_whole => {
                order::transition(app, &mut tx, &mut orders, OrderStatus::Cancelled, order::Reason::default()).await?
            }
            // While another part is on its way, the order is, too.
            Some(OrderStatus::Refunding) if is_last => {
                let to = if is_whole { OrderStatus::Refunded } else { OrderStatus::PartlyRefunded };
                order::transition(app, &mut tx, &mut orders, to, order::Reason::default()).await?
            }
            _ => Vec::new(),
        };
        let comes_back = match orders.first().map(|order| order.status) {
            Some(OrderStatus::Cancelled) => Some(StockMovementKind::Released),
            Some(OrderStatus::Refunded) if refund.restock => Some(StockMovementKind::Returned),
            _ => None,
        };
        if let Some(kind) = comes_back {
            store::stock::release_units(&mut tx, &moved, kind, app.counter_slots.changes(), now).await?;
        }
        if let Some(order) = orders.first() {
            let letter = Letter::Refunded { order_number: &order.number, amount: refund.amount() };
            mail::send_to_customer(app, &mut tx, order.customer_id, &letter).await?;
        }
        if moved.is_empty() {
            store::order::update_version(&mut tx, &[refund.order_id], now).await?;
        }
    }
    retry::acknowledge(app, &mut tx, delivery).await?;
    tx.commit().await?;
    let changed: Vec<_> = orders.iter().map(|order| (order.id, order.customer_id)).collect();
    app.order_feed.ring(&changed);
    app.mail_waiting.notify_one();
    Ok(())
}

async fn has_open(db: &mut PgConnection, refund: &Refund) -> Result<bool, ServiceError> {
    let refunds = store::refund::list_for_payments(db, &[refund.payment_id]).await?;
    Ok(refunds.iter().any(|other| other.status.is_open()))
}

/// Counts a failure of ours with a refund; after the last one its order is in review.
pub async fn fail(app: &App, delivery: &Delivery, error: String) -> Result<(), ServiceError> {
    let Some((refund, _)) = store::refund::find_open(&mut *app.db.acquire().await?, RefundId(delivery.id)).await? else {
        return retry::fail(app, delivery, error).await;
    };
    let mut tx = app.db.begin().await?;
    let mut orders = store::order::lock_by_ids(&mut tx, &[refund.order_id]).await?;
    let given_up = retry::put_off(app, &mut tx, delivery, &error).await?;
    finish_failure(app, tx, &mut orders, given_up).await
}

/// The provider did not give the money back (yet).
async fn put_off(app: &App, delivery: &Delivery, refund: &Refund, error: &GatewayError) -> Result<(), ServiceError> {
    let mut tx = app.db.begin().await?;
    let mut orders = store::order::lock_by_ids(&mut tx, &[refund.order_id]).await?;
    if matches!(error, GatewayError::Unknown { .. }) {
        store::refund::update_unknown(&mut tx, refund.id, app.clock.now()).await?;
    }
    let given_up = retry::put_off_call(app, &mut tx, delivery, &CALLS, error).await?;
    finish_failure(app, tx, &mut orders, given_up).await
}

async fn finish_failure(app: &App, mut tx: Transaction<'_, Postgres>, orders: &mut [Order], given_up: GivenUp) -> Result<(), ServiceError> {
    if given_up == GivenUp::Yes {
        let reason = order::Reason { code: Some(OrderEventReason::DeadLetter), note: Some("A refund failed too often.".to_owned()) };
        order::transition(app, &mut tx, orders, OrderStatus::InReview, reason).await?;
    }
    tx.commit().await?;
    let changed: Vec<_> = orders.iter().map(|order| (order.id, order.customer_id)).collect();
    app.order_feed.ring(&changed);
    Ok(())
}
