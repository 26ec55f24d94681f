//! What the provider's answers mean for orders.

use std::collections::{BTreeMap, HashMap};

use chrono::{DateTime, TimeDelta, Utc};
use sqlx::PgConnection;

use super::{Answer, Begun, late, pause_after};
use crate::{
    app::App,
    domain::{
        ids::{CustomerId, OrderId, PaymentId},
        order::{OrderEventReason, OrderStatus},
        payment::PaymentStatus,
        stock::StockMovementKind,
    },
    metrics::MessageOutcome,
    services::{
        ServiceError, order,
        retry::{self, GivenUp},
    },
    store::{
        self,
        order::Order,
        payment::TryResult,
        queue::{Delivery, Queue},
    },
};

type Answered = (Begun, Answer);

/// Settles tries by their answers, and acknowledges their messages: order, history, units, payment and message in one
/// transaction. A try or order that has been settled meanwhile stays as it is. For open answers, and customers who are still to
/// authenticate, the provider is asked again after a pause, see [`send_due`](super::send_due); what the provider refuses is put off,
/// and is a dead letter in the end.
pub async fn settle(app: &App, answered: &[Answered]) -> Result<(), ServiceError> {
    let now = app.clock.now();
    let answers: HashMap<OrderId, &Answered> = answered.iter().map(|answer| (answer.0.order, answer)).collect();
    let ids: Vec<OrderId> = answered.iter().map(|(begun, _)| begun.order).collect();

    let mut tx = app.db.begin().await?;
    let orders = store::order::lock_by_ids(&mut tx, &ids).await?;
    let is_stray = |order: &Order| {
        let is_captured = answers.get(&order.id).is_some_and(|(_, answer)| matches!(answer, Answer::Captured { .. }));
        is_captured && !order.stage().is_unpaid()
    };
    let (stray, orders): (Vec<Order>, Vec<Order>) = orders.into_iter().partition(is_stray);
    let is_ordinary = |answer: &&Answered| !stray.iter().any(|order| order.id == answer.0.order);
    let ordinary: Vec<&Answered> = answered.iter().filter(is_ordinary).collect();

    let mut changed = settle_ordinary(app, &mut tx, orders, &ordinary, now).await?;
    changed.extend(put_off_refused(app, &mut tx, &ordinary, now).await?);
    let mut done: Vec<i64> =
        ordinary.iter().filter(|(_, answer)| !is_refused(answer)).map(|(begun, _)| begun.delivery.message_id).collect();
    for order in stray {
        let Some((begun, Answer::Captured { label })) = answers.get(&order.id) else { continue };
        // Otherwise others hold locks on the last units: the message comes again.
        if late::take_in(app, &mut tx, order.clone(), begun.payment, label.clone()).await? {
            done.push(begun.delivery.message_id);
            changed.push((order.id, order.customer_id));
        }
    }
    store::queue::delete(&mut tx, Queue::Payment, &done).await?;
    tx.commit().await?;
    app.metrics.message(Queue::Payment.as_str(), MessageOutcome::Done, done.len());

    if answered.len() > ordinary.len() {
        app.refunds_waiting.notify_one();
    }
    app.order_feed.ring(&changed);
    Ok(())
}

const fn is_refused(answer: &Answer) -> bool {
    matches!(answer, Answer::Refused { .. })
}

/// The orders that wait for these answers, or are being called off.
async fn settle_ordinary(
    app: &App,
    db: &mut PgConnection,
    orders: Vec<Order>,
    answered: &[&Answered],
    now: DateTime<Utc>,
) -> Result<Vec<(OrderId, CustomerId)>, ServiceError> {
    let slot = app.counter_slots.settlement();
    let results: Vec<TryResult> = answered.iter().filter_map(|(begun, answer)| result(begun, answer, now)).collect();
    let open: Vec<_> = answered.iter().filter_map(|(begun, answer)| Some((begun.payment, Some(next_query(begun, answer, now)?)))).collect();
    let at_the_bank = |(begun, answer): &&Answered| matches!(answer, Answer::RequiresAction { .. }).then_some(begun.payment);
    let waiting: Vec<PaymentId> = answered.iter().filter_map(at_the_bank).collect();
    let answers: HashMap<OrderId, &Answer> = answered.iter().map(|(begun, answer)| (begun.order, answer)).collect();

    let newly_waiting = store::payment::list_orders_of_processing(db, &waiting).await?;
    // A try that ended before, by another worker's answer, moves its order no more.
    let settled = store::payment::update_results(db, &results, now).await?;
    store::payment::update_next_query(db, &open, now).await?;
    let mut changed = store::order::update_version(db, &newly_waiting, now).await?;

    let mut by_target: BTreeMap<&str, (OrderStatus, order::Reason, Vec<Order>)> = BTreeMap::new();
    for order in orders.into_iter().filter(|order| settled.contains(&order.id)) {
        let Some(answer) = answers.get(&order.id) else { continue };
        let Some(status) = next_status(&order, answer) else { continue };
        let group = match answer {
            Answer::ForPeople { note } => note,
            _ => status.as_str(),
        };
        by_target.entry(group).or_insert_with(|| (status, reason(status, answer), Vec::new())).2.push(order);
    }
    let (mut sold, mut released) = (Vec::new(), Vec::new());
    for (status, reason, orders) in by_target.values_mut() {
        let moved = order::transition(app, db, orders, *status, reason.clone()).await?;
        match status {
            OrderStatus::Paid => sold.extend(moved),
            OrderStatus::PaymentFailed | OrderStatus::Expired | OrderStatus::Cancelled => released.extend(moved),
            _ => {}
        }
    }
    // Quotas and products are locked once, before any counter; but money that came late claims anew behind these counters. Where that is a
    // circle, the database rolls one of the groups back, and it is settled again.
    store::stock::release_units(db, &released, StockMovementKind::Released, slot, now).await?;
    store::stock::record_sold(db, &sold, slot, now).await?;
    changed.extend(by_target.values().flat_map(|(_, _, orders)| orders).map(|order| (order.id, order.customer_id)));
    Ok(changed)
}

/// Calls that the provider refuses are our mistake: they are tried again for hours, in which somebody may mend it, and then the order
/// is in review.
async fn put_off_refused(
    app: &App,
    db: &mut PgConnection,
    answered: &[&Answered],
    now: DateTime<Utc>,
) -> Result<Vec<(OrderId, CustomerId)>, ServiceError> {
    let mut changed = Vec::new();
    for (begun, answer) in answered {
        let Answer::Refused { reason } = answer else { continue };
        store::payment::update_next_query(db, &[(begun.payment, None)], now).await?;
        if retry::put_off(app, db, &begun.delivery, reason).await? == GivenUp::Yes {
            changed.extend(give_up(app, db, begun.order).await?);
        }
    }
    Ok(changed)
}

/// Counts a failure of ours with an order's payment; after the last one the order is in review. One transaction; the order's row is
/// locked.
pub async fn fail(app: &App, delivery: &Delivery, error: String) -> Result<(), ServiceError> {
    let order = OrderId(delivery.id);
    let mut tx = app.db.begin().await?;
    store::order::lock_by_ids(&mut tx, &[order]).await?;
    // Its message comes by itself: nobody need be reminded of it.
    store::payment::forget_next_query(&mut tx, order).await?;
    let mut changed = Vec::new();
    if retry::put_off(app, &mut tx, delivery, &error).await? == GivenUp::Yes {
        changed = give_up(app, &mut tx, order).await?;
    }
    tx.commit().await?;
    app.order_feed.ring(&changed);
    Ok(())
}

/// Puts an order into review whose payment was given up. Call with the order's row locked.
async fn give_up(app: &App, db: &mut PgConnection, order: OrderId) -> Result<Vec<(OrderId, CustomerId)>, ServiceError> {
    let mut orders = store::order::lock_by_ids(db, &[order]).await?;
    let reason = order::Reason { code: Some(OrderEventReason::DeadLetter), note: Some("A payment failed too often.".to_owned()) };
    order::transition(app, db, &mut orders, OrderStatus::InReview, reason).await?;
    Ok(orders.into_iter().map(|order| (order.id, order.customer_id)).collect())
}

/// What an answer makes of an order; nothing of one that it does not concern.
fn next_status(order: &Order, answer: &Answer) -> Option<OrderStatus> {
    match (answer, order.stage()) {
        (Answer::Captured { .. }, status) if status.is_unpaid() => Some(OrderStatus::Paid),
        (Answer::Declined { .. }, OrderStatus::AwaitingPayment) => Some(OrderStatus::PaymentFailed),
        (Answer::Declined { .. } | Answer::Abandoned, OrderStatus::Expiring) => Some(OrderStatus::Expired),
        (Answer::Declined { .. } | Answer::Abandoned, OrderStatus::Cancelling) => Some(OrderStatus::Cancelled),
        (Answer::ForPeople { .. }, status) if status.is_unpaid() || status == OrderStatus::Cancelling => Some(OrderStatus::InReview),
        _ => None,
    }
}

fn reason(status: OrderStatus, answer: &Answer) -> order::Reason {
    match (status, answer) {
        (_, Answer::ForPeople { note }) => order::Reason { code: Some(OrderEventReason::Mismatch), note: Some((*note).to_owned()) },
        (OrderStatus::PaymentFailed, _) => OrderEventReason::PaymentDeclined.into(),
        (OrderStatus::Expired, _) => OrderEventReason::HoldExpired.into(),
        _ => order::Reason::default(),
    }
}

fn result(begun: &Begun, answer: &Answer, now: DateTime<Utc>) -> Option<TryResult> {
    let result = |status| TryResult::new(begun.payment, status);
    match answer.clone() {
        Answer::Captured { label } => Some(TryResult { method_label: label, ..result(PaymentStatus::Captured) }),
        Answer::Declined { code, label } => {
            Some(TryResult { failure_code: Some(code), method_label: label, ..result(PaymentStatus::Declined) })
        }
        Answer::RequiresAction { url } => {
            let next_query_at = Some(now + pause_after(begun.resumed));
            Some(TryResult { next_action_url: url, next_query_at, ..result(PaymentStatus::RequiresAction) })
        }
        Answer::Abandoned => Some(TryResult { failure_code: Some("not_authenticated".to_owned()), ..result(PaymentStatus::Failed) }),
        Answer::ForPeople { .. } => Some(result(PaymentStatus::Unknown)),
        // Still under way: the provider is asked again.
        Answer::Open { .. } | Answer::Refused { .. } => None,
    }
}

/// When the provider is asked again about a try whose outcome is open still.
fn next_query(begun: &Begun, answer: &Answer, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
    let Answer::Open { retry_after, .. } = answer else { return None };
    let wanted = retry_after.and_then(|wanted| TimeDelta::from_std(wanted).ok()).unwrap_or_default();
    Some(now + pause_after(begun.resumed).max(wanted))
}
