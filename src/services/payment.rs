//! Paying orders: a try is written down before the provider is called, and settled with its message in one transaction.
//!
//! Owns: what each answer of the provider means for the order. Called by jobs/payment.rs, in groups.
//! Locks: order (by id) → payment → quota → stock. The order's state is the fence: a second delivery changes nothing.

use std::collections::{BTreeMap, HashMap, HashSet};

use chrono::{DateTime, TimeDelta, Utc};

use super::{
    ServiceError,
    leader::Term,
    order,
    refund::{self, Wanted},
};
use crate::{
    app::App,
    clients::payment_gateway::{GatewayError, Intent, IntentStatus, NewIntent},
    domain::{
        ids::{OrderId, PaymentId},
        money::Money,
        order::{OrderEventReason, OrderStatus},
        payment::PaymentStatus,
        stock::StockMovementKind,
    },
    store::{
        self,
        lease::LEADER,
        order::Order,
        payment::{NewTry, Payment, TryResult},
        queue::{Delivery, Queue},
    },
};

pub const PROVIDER: &str = "stripe";
/// A message about a payment that was not handled by then is sent once more.
const ASK_AGAIN: TimeDelta = TimeDelta::minutes(2);
const DUE_BATCH: i64 = 500;

/// A try that this worker may now carry out.
#[derive(Clone, Debug)]
pub struct Begun {
    pub delivery: Delivery,
    pub order: OrderId,
    pub payment: PaymentId,
    try_number: i32,
    amount: Money,
    method: String,
    /// The intent's id at the provider, once there is one.
    reference: Option<String>,
    /// The id stands on the try's row.
    is_noted: bool,
    /// Until then the try is this worker's; afterwards it touches the provider no more.
    deadline: DateTime<Utc>,
    /// The hold has ended, or the order is being called off: who has not authenticated by now will not be waited for.
    is_unwanted: bool,
    /// How often others began it and were gone: the provider may have been called.
    resumed: i32,
}

impl Begun {
    /// The provider's idempotency key of a step. A try that is taken up again uses a new one, because an answer that was
    /// an error stays stored under the old one; that is safe, for only the intent noted on the try's row is ever
    /// confirmed, and an intent succeeds once.
    fn key(&self, step: &str) -> String {
        let key = format!("pay:{}:{}:{step}", self.order.0, self.try_number);
        if self.resumed == 0 { key } else { format!("{key}:{}", self.resumed) }
    }
}

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
                    is_unwanted: order
                        .is_none_or(|order| order.status == OrderStatus::Cancelling || order.hold_ends_at.is_none_or(|end| end <= now)),
                    order: payment.order_id,
                    payment: payment.id,
                    try_number: payment.try_number,
                    amount: payment.amount(),
                    method: payment.payment_method.clone(),
                    reference: payment.provider_reference.clone(),
                    is_noted: payment.provider_reference.is_some(),
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
                    resumed: 0,
                });
            }
        }
    }
    store::payment::insert_tries(&mut tx, &new, PROVIDER, deadline, now).await?;
    store::payment::update_deadline(&mut tx, &resumed, deadline, now).await?;
    store::queue::delete(&mut tx, Queue::Payment, &done).await?;
    tx.commit().await?;
    Ok(begun)
}

/// Before the provider is asked again about a try that was asked about so often: 2 s, doubling up to 30 s, with jitter.
fn pause_after(resumed: i32) -> TimeDelta {
    let longest = (2_000_i64 << resumed.clamp(0, 4)).min(30_000);
    TimeDelta::milliseconds(rand::random_range(longest / 2..=longest))
}

/// Sends a message for each order about whose payment the provider is to be asked now: its worker is gone, the answer was lost, or
/// the customer is still to authenticate. Nothing happens when the leader's term is over.
pub async fn send_due(app: &App, term: Term) -> Result<(), ServiceError> {
    let now = app.clock.now();
    let mut tx = app.db.begin().await?;
    if !store::lease::lock_term(&mut tx, LEADER, term.0).await? {
        return Ok(());
    }
    let orders = store::payment::take_due(&mut tx, now, now + ASK_AGAIN, DUE_BATCH).await?;
    for order in &orders {
        store::queue::send(&mut tx, Queue::Payment, "pay", order.0, None).await?;
    }
    tx.commit().await?;
    if !orders.is_empty() {
        app.payments_waiting.notify_one();
    }
    Ok(())
}

enum Next<'a> {
    Acknowledge,
    LeaveAlone,
    Resume(&'a Payment),
    Try { order: &'a Order, method: String },
}

fn next_step<'a>(order: Option<&'a Order>, tries: &'a [Payment], now: DateTime<Utc>) -> Next<'a> {
    let Some(order) = order.filter(|order| order.status.is_unpaid() || order.status == OrderStatus::Cancelling) else {
        return Next::Acknowledge;
    };
    if let Some(open) = tries.iter().find(|payment| payment.status.is_open()) {
        return if open.deadline > now { Next::LeaveAlone } else { Next::Resume(open) };
    }
    // A hold that is over is not charged any more: the expiry gives its units back.
    match &order.payment_method {
        Some(method) if order.status.is_unpaid() && order.hold_ends_at.is_some_and(|end| end > now) => {
            Next::Try { order, method: method.clone() }
        }
        _ => Next::Acknowledge,
    }
}

/// Until when the step belongs to its worker, from the start of the step.
fn step_deadline(app: &App) -> TimeDelta {
    TimeDelta::from_std(app.config.jobs.step_deadline).unwrap_or(TimeDelta::MAX)
}

/// What a call of the provider came to.
#[derive(Clone, Debug)]
pub enum Answer {
    Captured {
        label: Option<String>,
    },
    Declined {
        code: String,
        label: Option<String>,
    },
    /// The customer must authenticate there.
    RequiresAction {
        url: Option<String>,
    },
    /// The customer did not authenticate in time: the intent is cancelled, the hold's end does the rest.
    Abandoned,
    /// The provider speaks of another amount, currency or order than we asked for.
    Mismatch,
    /// Nobody knows yet, or surely not charged: the message comes again, and the provider is asked first.
    Open {
        reason: String,
    },
}

/// Makes the intent at the provider, unconfirmed, unless there is one. Moves no money and touches no row.
pub async fn create_intent(app: &App, mut begun: Begun) -> Result<Begun, (Begun, Answer)> {
    if begun.reference.is_some() {
        return Ok(begun);
    }
    if begun.is_unwanted {
        // No intent that could be confirmed is known, so no money can have moved.
        return Err((begun, Answer::Abandoned));
    }
    let new = NewIntent {
        amount_minor: begun.amount.minor,
        currency: begun.amount.currency.as_str(),
        payment_method: &begun.method,
        order_id: begun.order.0,
        attempt_id: begun.payment.0,
    };
    match app.payment_gateway.create_intent(&begun.key("create"), &new).await {
        Ok(intent) if is_ours(&begun, &intent) => {
            begun.reference = Some(intent.id);
            Ok(begun)
        }
        Ok(_) => Err((begun, Answer::Mismatch)),
        Err(error) => Err((begun, answer_of_error(error))),
    }
}

/// Notes the intents' ids, from here on the provider can be asked by id, and goes on with the one that is noted. One
/// statement.
pub async fn record_references(app: &App, begun: Vec<Begun>) -> Result<Vec<Begun>, ServiceError> {
    let new = |begun: &Begun| begun.reference.clone().filter(|_| !begun.is_noted).map(|reference| (begun.payment, reference));
    let references: Vec<_> = begun.iter().filter_map(new).collect();
    if references.is_empty() {
        return Ok(begun);
    }
    let noted = store::payment::update_references(&mut *app.db.acquire().await?, &references, app.clock.now()).await?;
    let mut noted: HashMap<PaymentId, String> = noted.into_iter().collect();
    let with_noted = |begun: Begun| match noted.remove(&begun.payment) {
        Some(reference) => Begun { reference: Some(reference), is_noted: true, ..begun },
        None => begun,
    };
    Ok(begun.into_iter().map(with_noted).collect())
}

/// Takes the money, once: asks first when another worker may have done so already. Touches no row.
pub async fn confirm(app: &App, begun: &Begun) -> Answer {
    let Some(reference) = begun.reference.as_ref().filter(|_| begun.is_noted) else {
        return Answer::Open { reason: "no intent".to_owned() };
    };
    let Ok(left) = (begun.deadline - app.clock.now()).to_std() else {
        return Answer::Open { reason: "the step took too long".to_owned() };
    };
    let confirmed = tokio::time::timeout(left, confirm_intent(app, begun, reference)).await;
    confirmed.unwrap_or_else(|_| Answer::Open { reason: "the step took too long".to_owned() })
}

async fn confirm_intent(app: &App, begun: &Begun, reference: &str) -> Answer {
    if begun.resumed > 0 {
        match app.payment_gateway.retrieve_intent(reference).await {
            Ok(intent) if begun.is_unwanted && !is_final(intent.status) => return give_up(app, begun, reference).await,
            Ok(intent) if intent.status != IntentStatus::RequiresConfirmation => return answer_of_intent(begun, intent),
            Ok(_) => {}
            Err(error) => return answer_of_error(error),
        }
    }
    match app.payment_gateway.confirm_intent(&begun.key("confirm"), reference, &begun.method).await {
        Ok(intent) => answer_of_intent(begun, intent),
        Err(GatewayError::WrongState { intent }) => answer_of_intent(begun, *intent),
        Err(error) => answer_of_error(error),
    }
}

/// No more money can move, or it has moved.
const fn is_final(status: IntentStatus) -> bool {
    matches!(status, IntentStatus::Succeeded | IntentStatus::Canceled | IntentStatus::Processing)
}

/// Cancels an intent whose customer did not authenticate in time. If the money was taken meanwhile, that is the answer.
async fn give_up(app: &App, begun: &Begun, reference: &str) -> Answer {
    match app.payment_gateway.cancel_intent(&begun.key("cancel"), reference).await {
        Ok(intent) => answer_of_intent(begun, intent),
        Err(GatewayError::WrongState { intent }) => answer_of_intent(begun, *intent),
        Err(error) => answer_of_error(error),
    }
}

fn is_ours(begun: &Begun, intent: &Intent) -> bool {
    intent.amount_minor == begun.amount.minor
        && intent.currency == begun.amount.currency.as_str()
        && intent.order_id == Some(begun.order.0)
        && intent.attempt_id == Some(begun.payment.0)
}

fn answer_of_intent(begun: &Begun, intent: Intent) -> Answer {
    if !is_ours(begun, &intent) {
        return Answer::Mismatch;
    }
    match intent.status {
        IntentStatus::Succeeded if intent.received_minor == begun.amount.minor => Answer::Captured { label: intent.method_label },
        IntentStatus::Succeeded => Answer::Mismatch,
        IntentStatus::RequiresAction => Answer::RequiresAction { url: intent.next_action_url },
        IntentStatus::RequiresPaymentMethod => {
            Answer::Declined { code: intent.failure_code.unwrap_or_else(|| "declined".to_owned()), label: intent.method_label }
        }
        IntentStatus::Canceled => Answer::Abandoned,
        IntentStatus::Processing | IntentStatus::RequiresConfirmation => {
            Answer::Open { reason: format!("the intent is {:?}", intent.status) }
        }
    }
}

fn answer_of_error(error: GatewayError) -> Answer {
    match error {
        GatewayError::Declined { code, method_label } => Answer::Declined { code, label: method_label },
        other => Answer::Open { reason: other.to_string() },
    }
}

/// Settles tries by their answers, and acknowledges their messages: order, history, units, payment and message in one
/// transaction. A try or order that has been settled meanwhile stays as it is. For open answers, and customers who are still to
/// authenticate, the provider is asked again after a pause, see [`send_due`].
pub async fn settle(app: &App, answered: &[(Begun, Answer)]) -> Result<(), ServiceError> {
    let now = app.clock.now();
    let slot = app.counter_slots.settlement();
    let ids: Vec<OrderId> = answered.iter().map(|(begun, _)| begun.order).collect();
    let results: Vec<TryResult> =
        answered.iter().filter_map(|(begun, answer)| result(begun.payment, answer, now + pause_after(begun.resumed))).collect();
    let is_open = |answer: &Answer| matches!(answer, Answer::Open { .. });
    let open: Vec<_> = answered.iter().filter(|(_, answer)| is_open(answer)).collect();
    let open: Vec<_> = open.into_iter().map(|(begun, _)| (begun.payment, now + pause_after(begun.resumed))).collect();
    let answers: HashMap<OrderId, &Answer> = answered.iter().map(|(begun, answer)| (begun.order, answer)).collect();
    let done: Vec<i64> = answered.iter().map(|(begun, _)| begun.delivery.message_id).collect();
    let is_waiting = |answer: &Answer| matches!(answer, Answer::RequiresAction { .. });
    let waiting: Vec<PaymentId> = answered.iter().filter(|(_, answer)| is_waiting(answer)).map(|(begun, _)| begun.payment).collect();

    let mut tx = app.db.begin().await?;
    let orders = store::order::lock_by_ids(&mut tx, &ids).await?;
    let newly_waiting = store::payment::list_orders_of_processing(&mut tx, &waiting).await?;
    // A try that ended before, by another worker's answer, moves its order no more.
    let settled = store::payment::update_results(&mut tx, &results, now).await?;
    store::payment::update_next_query(&mut tx, &open, now).await?;
    let mut changed = store::order::update_version(&mut tx, &newly_waiting, now).await?;
    let mut by_target: BTreeMap<&str, (OrderStatus, Vec<Order>)> = BTreeMap::new();
    let mut goes_back = Vec::new();
    for order in orders.into_iter().filter(|order| settled.contains(&order.id)) {
        if order.status == OrderStatus::Cancelling && matches!(answers.get(&order.id), Some(Answer::Captured { .. })) {
            goes_back.push(order);
            continue;
        }
        if let Some(status) = answers.get(&order.id).and_then(|answer| next_status(&order, answer)) {
            by_target.entry(status.as_str()).or_insert((status, Vec::new())).1.push(order);
        }
    }
    for (status, orders) in by_target.values_mut() {
        let moved = order::transition(app, &mut tx, orders, *status, reason(*status)).await?;
        match status {
            OrderStatus::Paid => store::stock::record_sold(&mut tx, &moved, slot, now).await?,
            OrderStatus::PaymentFailed | OrderStatus::Expired | OrderStatus::Cancelled => {
                store::stock::release_units(&mut tx, &moved, StockMovementKind::Released, slot, now).await?;
            }
            _ => {}
        }
    }
    for order in &goes_back {
        // The money came before the order was called off: it is sold for a moment, and comes back with its refund.
        store::stock::record_sold(&mut tx, &[order.id], slot, now).await?;
        refund::request(app, &mut tx, order, Wanted::default()).await?;
        changed.extend(store::order::update_version(&mut tx, &[order.id], now).await?);
    }
    store::queue::delete(&mut tx, Queue::Payment, &done).await?;
    tx.commit().await?;

    if !goes_back.is_empty() {
        app.refunds_waiting.notify_one();
    }
    changed.extend(by_target.values().flat_map(|(_, orders)| orders).map(|order| (order.id, order.customer_id)));
    app.order_feed.ring(&changed);
    Ok(())
}

/// What an answer makes of an order. An order that is not unpaid (any more) stays as it is: expiry leaves one alone whose payment
/// is under way, so money for another one means that a rule was broken, for the audit (I6) and for people to see.
fn next_status(order: &Order, answer: &Answer) -> Option<OrderStatus> {
    match (answer, order.status) {
        (Answer::Captured { .. }, status) if !status.is_unpaid() => {
            tracing::error!(order = %order.id, %status, "money was taken for an order that holds no units");
            None
        }
        (Answer::Captured { .. }, _) => Some(OrderStatus::Paid),
        (Answer::Declined { .. }, OrderStatus::AwaitingPayment) => Some(OrderStatus::PaymentFailed),
        (Answer::Declined { .. } | Answer::Abandoned, OrderStatus::Expiring) => Some(OrderStatus::Expired),
        (Answer::Declined { .. } | Answer::Abandoned, OrderStatus::Cancelling) => Some(OrderStatus::Cancelled),
        (Answer::Mismatch, status) if status.is_unpaid() || status == OrderStatus::Cancelling => Some(OrderStatus::InReview),
        _ => None,
    }
}

fn reason(status: OrderStatus) -> order::Reason {
    match status {
        OrderStatus::PaymentFailed => OrderEventReason::PaymentDeclined.into(),
        OrderStatus::InReview => OrderEventReason::Mismatch.into(),
        OrderStatus::Expired => OrderEventReason::HoldExpired.into(),
        _ => order::Reason::default(),
    }
}

fn result(id: PaymentId, answer: &Answer, next_query_at: DateTime<Utc>) -> Option<TryResult> {
    let result = |status| TryResult { id, status, method_label: None, next_action_url: None, failure_code: None, next_query_at: None };
    match answer.clone() {
        Answer::Captured { label } => Some(TryResult { method_label: label, ..result(PaymentStatus::Captured) }),
        Answer::Declined { code, label } => {
            Some(TryResult { failure_code: Some(code), method_label: label, ..result(PaymentStatus::Declined) })
        }
        Answer::RequiresAction { url } => {
            let next_query_at = Some(next_query_at);
            Some(TryResult { next_action_url: url, next_query_at, ..result(PaymentStatus::RequiresAction) })
        }
        Answer::Abandoned => Some(TryResult { failure_code: Some("not_authenticated".to_owned()), ..result(PaymentStatus::Failed) }),
        Answer::Mismatch => Some(result(PaymentStatus::Unknown)),
        // Still under way: the provider is asked again.
        Answer::Open { .. } => None,
    }
}
