//! Taking tries up: new ones, and those whose worker is gone or whose outcome is not known.

use std::collections::{HashMap, HashSet};

use chrono::{DateTime, TimeDelta, Utc};

use super::{Begun, KEY_LIFETIME, PROVIDER};
use crate::{
    app::App,
    domain::ids::{OrderId, PaymentId},
    metrics::MessageOutcome,
    services::ServiceError,
    store::{
        self,
        order::Order,
        payment::{NewTry, Payment},
        queue::{Delivery, Queue},
    },
};

/// Begins the payments of these deliveries. Orders that wait for no payment are acknowledged; a try that another worker is
/// still at is left alone until its deadline, its message comes again. One transaction; the orders' rows are locked.
pub async fn begin(app: &App, deliveries: Vec<Delivery>) -> Result<Vec<Begun>, ServiceError> {
    let now = app.clock.now();
    let deadline = now + step_deadline(app);
    let ids: Vec<OrderId> = deliveries.iter().map(|delivery| OrderId(delivery.id)).collect();

    let mut tx = app.db.begin().await?;
    let orders: HashMap<OrderId, Order> =
        store::order::lock_by_ids(&mut tx, &ids).await?.into_iter().map(|order| (order.id, order)).collect();
    let mut tries: HashMap<OrderId, Vec<Payment>> = HashMap::new();
    for payment in store::payment::list_for_orders(&mut tx, &ids).await? {
        tries.entry(payment.order_id).or_default().push(payment);
    }

    let (mut begun, mut done, mut new, mut resumed) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let mut seen = HashSet::new();
    for delivery in deliveries {
        if !seen.insert(delivery.id) {
            // Two messages for one order: the other one is being handled, this one comes again.
            continue;
        }
        let order = orders.get(&OrderId(delivery.id));
        let tries = tries.remove(&OrderId(delivery.id)).unwrap_or_default();
        match next_step(order, &tries, now) {
            Next::Acknowledge => done.push(delivery.message_id),
            Next::LeaveAlone => {}
            Next::Resume(payment) => {
                resumed.push(payment.id);
                begun.push(Begun {
                    delivery,
                    deadline,
                    is_unwanted: order.is_none_or(|order| !waits_for_payment(order, now)),
                    order: payment.order_id,
                    payment: payment.id,
                    try_number: payment.try_number,
                    amount: payment.amount(),
                    method: payment.payment_method.clone(),
                    reference: payment.provider_reference.clone(),
                    is_noted: payment.provider_reference.is_some(),
                    is_overdue: payment.created_at + KEY_LIFETIME <= now,
                    resumed: payment.resumes + 1,
                });
            }
            Next::Try { order, method } => {
                let try_number = tries.last().map_or(1, |last| last.try_number + 1);
                let payment = PaymentId::new();
                let amount = order.total();
                new.push(NewTry { id: payment, order: order.id, try_number, amount, payment_method: method.clone() });
                begun.push(Begun {
                    delivery,
                    order: order.id,
                    payment,
                    try_number,
                    amount,
                    method,
                    reference: None,
                    is_noted: false,
                    deadline,
                    is_unwanted: false,
                    is_overdue: false,
                    resumed: 0,
                });
            }
        }
    }
    store::payment::insert_tries(&mut tx, &new, PROVIDER, deadline, now).await?;
    store::payment::update_deadline(&mut tx, &resumed, deadline, now).await?;
    store::queue::delete(&mut tx, Queue::Payment, &done).await?;
    tx.commit().await?;
    app.metrics.message(Queue::Payment.as_str(), MessageOutcome::Done, done.len());
    Ok(begun)
}

enum Next<'a> {
    Acknowledge,
    LeaveAlone,
    Resume(&'a Payment),
    Try { order: &'a Order, method: String },
}

fn next_step<'a>(order: Option<&'a Order>, tries: &'a [Payment], now: DateTime<Utc>) -> Next<'a> {
    let Some(order) = order else { return Next::Acknowledge };
    if let Some(open) = tries.iter().find(|payment| payment.status.is_open()) {
        return if open.deadline > now { Next::LeaveAlone } else { Next::Resume(open) };
    }
    // A hold that is over is not charged any more: the expiry gives its units back.
    match &order.payment_method {
        Some(method) if waits_for_payment(order, now) => Next::Try { order, method: method.clone() },
        _ => Next::Acknowledge,
    }
}

fn waits_for_payment(order: &Order, now: DateTime<Utc>) -> bool {
    order.stage().is_unpaid() && order.hold_ends_at.is_some_and(|end| end > now)
}

/// Until when the step belongs to its worker, from the start of the step.
fn step_deadline(app: &App) -> TimeDelta {
    TimeDelta::from_std(app.config.jobs.step_deadline).unwrap_or(TimeDelta::MAX)
}
