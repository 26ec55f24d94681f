//! Paying orders: a try is written down before the provider is called, and settled with its message in one transaction.
//!
//! `begin` takes tries up, `charge` talks to the provider, `settle` says what each answer means for the order, `late` takes in money
//! that came after a try had ended. Called by jobs/payment.rs, in groups.
//! Locks: order (by id) → payment → quota → stock. The order's state is the fence: a second delivery changes nothing.

mod begin;
mod charge;
mod late;
mod settle;

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};

pub use self::{
    begin::begin,
    charge::{confirm, create_intent, record_references},
    late::query,
    settle::{fail, settle},
};
use super::{ServiceError, leader::Term};
use crate::{
    app::App,
    clients::payment_gateway::Operation,
    domain::{
        ids::{OrderId, PaymentId},
        money::Money,
    },
    store::{
        self,
        lease::LEADER,
        queue::{Delivery, Queue},
    },
};

pub const PROVIDER: &str = "stripe";
/// The kind of message that makes an order be paid; its id is the order's.
pub const PAY: &str = "pay";
/// The kind of message that makes the provider be asked about a try that has ended here; its id is the try's.
pub const QUERY: &str = "query";
/// For so long the provider surely remembers an idempotency key and its answer.
pub(super) const KEY_LIFETIME: TimeDelta = TimeDelta::hours(24);
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
    /// So old that the provider has forgotten its idempotency keys.
    is_overdue: bool,
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
    /// Nothing that a program can decide: the order is in review, with these words for staff.
    ForPeople {
        note: &'static str,
    },
    /// Nobody knows yet, or surely not charged: the provider is asked again after a pause, at least as long as it wants.
    Open {
        reason: String,
        retry_after: Option<Duration>,
    },
    /// The provider refuses the call itself: our mistake, which is tried again for a while and then is for people.
    Refused {
        reason: String,
    },
}

impl Answer {
    fn open(reason: impl Into<String>) -> Self {
        Self::Open { reason: reason.into(), retry_after: None }
    }
}

/// The calls that every payment makes: a breaker of another one hinders only those who need it.
pub(super) const CALLS: [Operation; 2] = [Operation::CreateIntent, Operation::ConfirmIntent];

/// How many payments the circuit breakers would let through now; `None` is any number.
#[must_use]
pub fn room(app: &App) -> Option<u32> {
    app.payment_gateway.room(&CALLS)
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
        store::queue::send(&mut tx, Queue::Payment, PAY, order.0).await?;
    }
    tx.commit().await?;
    if !orders.is_empty() {
        app.payments_waiting.notify_one();
    }
    Ok(())
}
