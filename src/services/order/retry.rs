//! A second card after a failed payment. Called by resolvers/order/mutation.rs.

use uuid::Uuid;

use super::{Actor, Change, Changed, Request, check_out::HOLD};
use crate::{
    app::App,
    domain::{ids::OrderId, order::OrderStatus},
    services::{
        ServiceError, payment,
        purchase::{CONTENTION_WAITS, check_payment_method},
    },
    store::{self, queue::Queue, stock::Claim},
};

/// Claims the order's units anew, at the order's price, and queues a try with another payment method; the sale must be open still.
/// One transaction; the order's row is locked, then quotas and units. Idempotent by the actor's key, whatever the payment method:
/// clients make a new token for the same card when they repeat a call.
pub async fn retry_payment(app: &App, actor: Actor, id: OrderId, payment_method: &str, key: Uuid) -> Result<Changed, ServiceError> {
    if let Err(invalid) = check_payment_method(payment_method) {
        return Ok(Changed::Invalid(invalid));
    }
    for wait in CONTENTION_WAITS {
        tokio::time::sleep(wait).await;
        match retry_once(app, actor, id, payment_method, key).await {
            Ok(Changed::NotClaimed(Claim::Contended)) => {}
            // Others held locks for too long.
            Err(ServiceError::Store(error)) if error.is_transient() => {}
            changed => return changed,
        }
    }
    Ok(Changed::NotClaimed(Claim::Contended))
}

async fn retry_once(app: &App, actor: Actor, id: OrderId, payment_method: &str, key: Uuid) -> Result<Changed, ServiceError> {
    let request = Request::new(app, "retryPayment", actor.key(key), &id.0)?;
    let mut change = match Change::begin(app, actor, id, Some(request)).await? {
        Ok(change) => change,
        Err(outcome) => return Ok(outcome),
    };
    if change.order().status != OrderStatus::PaymentFailed {
        return Ok(Changed::WrongState);
    }
    let now = app.clock.now();
    match store::stock::claim_order(&mut change.tx, id, app.counter_slots.changes(), false, true, now).await? {
        Claim::Claimed => {}
        refused => return Ok(Changed::NotClaimed(refused)),
    }
    store::order::update_for_retry(&mut change.tx, id, payment_method, now, HOLD).await?;
    change.transition(app, OrderStatus::AwaitingPayment, actor.because(None)).await?;
    store::queue::send(&mut change.tx, Queue::Payment, payment::PAY, id.0).await?;
    let changed = change.finish(app).await?;
    app.payments_waiting.notify_one();
    Ok(changed)
}
