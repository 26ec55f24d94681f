//! Money that comes for an order that does not wait for it: after its hold, after a decline, after it was called off, or twice.

use sqlx::{Connection, PgConnection};

use super::PAY;
use crate::{
    app::App,
    clients::payment_gateway::{GatewayError, Intent, IntentStatus, Operation},
    domain::{
        ids::PaymentId,
        order::{OrderEventReason, OrderStatus},
        payment::PaymentStatus,
    },
    services::{
        ServiceError, order,
        refund::{self, Wanted},
        retry,
    },
    store::{
        self,
        order::Order,
        payment::{Payment, TryResult},
        queue::{Delivery, Queue},
        stock::Claim,
    },
};

/// Asks the provider about a try that has ended here without money, because an event or a comparison tells of a charge. If there is
/// one, it is taken in with the message in one transaction; the order's row is locked. A failure is put off and tried again.
pub async fn query(app: &App, delivery: &Delivery) -> Result<(), ServiceError> {
    let id = PaymentId(delivery.id);
    let payment = store::payment::list_visible(&mut *app.db.acquire().await?, &[id], None).await?.pop();
    let Some(payment) = payment else { return retry::done(app, delivery).await };
    let Payment { status, order_id, provider_reference: Some(reference), .. } = &payment else {
        return retry::done(app, delivery).await;
    };
    let (status, order_id) = (*status, *order_id);
    if status.is_open() || status.is_captured() {
        return ask_as_ever(app, delivery, order_id.0, status).await;
    }
    let label = match app.payment_gateway.retrieve_intent(reference).await {
        Ok(intent) if is_charge_of(&intent, &payment) => intent.method_label,
        // No charge, or one that only people can judge: the comparison with the provider's list shows it.
        Ok(_) | Err(GatewayError::NotFound) => return retry::done(app, delivery).await,
        Err(error) => return put_off(app, delivery, &error).await,
    };
    let mut tx = app.db.begin().await?;
    let Some(order) = store::order::lock(&mut tx, order_id, None).await? else { return retry::done(app, delivery).await };
    let changed = (order.id, order.customer_id);
    if !take_in(app, &mut tx, order, id, label).await? {
        tx.rollback().await?;
        return retry::fail(app, delivery, "others hold the last units".to_owned()).await;
    }
    retry::acknowledge(app, &mut tx, delivery).await?;
    tx.commit().await?;
    app.refunds_waiting.notify_one();
    app.order_feed.ring(&[changed]);
    Ok(())
}

async fn put_off(app: &App, delivery: &Delivery, error: &GatewayError) -> Result<(), ServiceError> {
    let mut tx = app.db.begin().await?;
    retry::put_off_call(app, &mut tx, delivery, &[Operation::RetrieveIntent], error).await?;
    tx.commit().await?;
    Ok(())
}

fn is_charge_of(intent: &Intent, payment: &Payment) -> bool {
    intent.status == IntentStatus::Succeeded
        && intent.received_minor == payment.amount_minor
        && intent.currency == payment.currency.as_str()
        && intent.order_id == Some(payment.order_id.0)
        && intent.attempt_id == Some(payment.id.0)
}

/// A try that is open has its own way of asking; one that is captured needs none.
async fn ask_as_ever(app: &App, delivery: &Delivery, order: uuid::Uuid, status: PaymentStatus) -> Result<(), ServiceError> {
    let mut tx = app.db.begin().await?;
    if status.is_open() {
        store::queue::send(&mut tx, Queue::Payment, PAY, order).await?;
    }
    retry::acknowledge(app, &mut tx, delivery).await?;
    tx.commit().await?;
    Ok(())
}

/// Takes in money that was taken for an order which does not wait for it (race 12): the order's units are claimed anew, or the money
/// goes back. Of two charges for one order the second goes back, whatever the order's state. False, with nothing done, when others
/// hold locks on the last units. Call with the order's row locked.
pub(super) async fn take_in(
    app: &App,
    db: &mut PgConnection,
    order: Order,
    payment: PaymentId,
    label: Option<String>,
) -> Result<bool, ServiceError> {
    let now = app.clock.now();
    let mut step = db.begin().await?;
    let tries = store::payment::list_for_orders(&mut step, &[order.id]).await?;
    let Some(payment) = tries.iter().find(|known| known.id == payment) else { return Ok(true) };
    if payment.status.is_captured() || payment.refunding_minor > 0 || payment.refunded_minor > 0 {
        return Ok(true);
    }
    let is_second = tries.iter().any(|other| other.status.is_captured());
    let status = if is_second { PaymentStatus::Failed } else { PaymentStatus::Captured };
    let failure_code = is_second.then(|| "charged_twice".to_owned());
    let result = TryResult { method_label: label, failure_code, ..TryResult::new(payment.id, status) };
    store::payment::update_late_result(&mut step, &result, now).await?;
    tracing::warn!(order = %order.id, status = %order.status, is_second, "money was taken for an order that does not wait for it");

    let id = order.id;
    if is_second {
        refund::request_of(app, &mut step, payment, Wanted { reason: Some("charged twice".to_owned()), ..Wanted::default() }).await?;
        store::order::update_version(&mut step, &[id], now).await?;
        step.commit().await?;
        return Ok(true);
    }
    let slot = app.counter_slots.changes();
    let mut orders = [order];
    let late = order::Reason::from(OrderEventReason::LateCapture);
    match orders[0].stage() {
        OrderStatus::AwaitingPayment | OrderStatus::Expiring => {
            order::transition(app, &mut step, &mut orders, OrderStatus::Paid, late).await?;
            store::stock::record_sold(&mut step, &[id], slot, now).await?;
        }
        OrderStatus::PaymentFailed | OrderStatus::Expired => match claim_anew(app, &mut step, &orders[0]).await? {
            Claim::Claimed => {
                order::transition(app, &mut step, &mut orders, OrderStatus::Paid, late).await?;
                store::stock::record_sold(&mut step, &[id], slot, now).await?;
            }
            // Dropped, so that it is rolled back.
            Claim::Contended => return Ok(false),
            Claim::OutOfStock | Claim::LimitReached | Claim::NotOpen => give_back(app, &mut step, &mut orders, late).await?,
        },
        OrderStatus::Cancelled => give_back(app, &mut step, &mut orders, late).await?,
        OrderStatus::Cancelling => {
            // The money came before the order was called off: it is sold for a moment, and comes back with its refund.
            store::stock::record_sold(&mut step, &[id], slot, now).await?;
            refund::request(app, &mut step, &orders[0], Wanted::default()).await?;
            store::order::update_version(&mut step, &[id], now).await?;
        }
        // People decide; they see the payment.
        _ => {
            store::order::update_version(&mut step, &[id], now).await?;
        }
    }
    step.commit().await?;
    Ok(true)
}

/// Claims the order's units anew, whether or not its sales are open still, unless nobody is left to send them to. Nothing of a claim
/// that fails stands.
async fn claim_anew(app: &App, db: &mut PgConnection, order: &Order) -> Result<Claim, ServiceError> {
    let mut step = db.begin().await?;
    if store::customer::list_by_ids(&mut step, &[order.customer_id]).await?.is_empty() {
        return Ok(Claim::NotOpen);
    }
    let claim = store::stock::claim_order(&mut step, order.id, app.counter_slots.changes(), false, false, app.clock.now()).await?;
    if claim == Claim::Claimed {
        step.commit().await?;
    } else {
        step.rollback().await?;
    }
    Ok(claim)
}

async fn give_back(app: &App, db: &mut PgConnection, orders: &mut [Order; 1], late: order::Reason) -> Result<(), ServiceError> {
    order::transition(app, db, orders, OrderStatus::Refunding, late).await?;
    refund::request(app, db, &orders[0], Wanted::default()).await?;
    Ok(())
}
