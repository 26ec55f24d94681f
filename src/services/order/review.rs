//! Ending a review: people decide what a program could not. Called by resolvers/order/mutation.rs.

use uuid::Uuid;

use super::{Actor, Change, Changed, Request};
use crate::{
    app::App,
    domain::{
        customer::single_line,
        ids::OrderId,
        order::{OrderStatus, ReviewResolution},
        payment::PaymentStatus,
        stock::StockMovementKind,
    },
    services::{
        InvalidInput, ServiceError, payment,
        refund::{self, Wanted},
    },
    store::{
        self,
        payment::{Payment, TryResult},
        queue::Queue,
    },
};

const MAX_NOTE_CHARACTERS: usize = 500;

/// Ends a review, with a note for the order's history; the state before the review must allow where the order goes.
///
/// - `AcceptPayment`: somebody has seen the money. The try that was in doubt counts as captured and the order is paid.
/// - `RefundAndCancel`: what was captured goes back, and the order is cancelled then. A payment in doubt is asked about once more first.
/// - `Resume`: the order goes on from where it was; what was given up is tried again.
///
/// One transaction; the order's row is locked. Idempotent by the actor's key.
pub async fn resolve_review(
    app: &App,
    actor: Actor,
    id: OrderId,
    resolution: ReviewResolution,
    note: &str,
    key: Uuid,
) -> Result<Changed, ServiceError> {
    let Some(note) = single_line(note, MAX_NOTE_CHARACTERS) else {
        return Ok(Changed::Invalid(InvalidInput::new(&["note"], "One line of 1 to 500 characters.")));
    };
    let request = Request::new(app, "resolveReview", actor.key(key), &(id.0, resolution.as_str(), &note))?;
    let mut change = match Change::begin(app, actor, id, Some(request)).await? {
        Ok(change) => change,
        Err(outcome) => return Ok(outcome),
    };
    let Some(before) = change.order().status_before_review else { return Ok(Changed::WrongState) };
    let to = match resolution {
        ReviewResolution::AcceptPayment => OrderStatus::Paid,
        ReviewResolution::RefundAndCancel => OrderStatus::Cancelling,
        ReviewResolution::Resume => before,
    };
    if !change.transition(app, to, actor.because(Some(note.clone()))).await? {
        return Ok(Changed::WrongState);
    }
    let tries = store::payment::list_for_orders(&mut change.tx, &[id]).await?;
    let is_done = match resolution {
        ReviewResolution::AcceptPayment => accept_payment(app, &mut change, before, &tries).await?,
        ReviewResolution::RefundAndCancel => refund_and_cancel(app, &mut change, &tries, note).await?,
        ReviewResolution::Resume => resume(app, &mut change, &tries).await?,
    };
    if !is_done {
        return Ok(Changed::WrongState);
    }
    let changed = change.finish(app).await?;
    app.payments_waiting.notify_one();
    app.refunds_waiting.notify_one();
    Ok(changed)
}

/// False when there is no payment that could have been taken.
async fn accept_payment(app: &App, change: &mut Change, before: OrderStatus, tries: &[Payment]) -> Result<bool, ServiceError> {
    let (id, now) = (change.order().id, app.clock.now());
    if let Some(doubtful) = tries.iter().find(|payment| payment.status.is_open()) {
        let captured = TryResult::new(doubtful.id, PaymentStatus::Captured);
        store::payment::update_late_result(&mut change.tx, &captured, now).await?;
    } else if !tries.iter().any(|payment| payment.status.is_captured()) {
        return Ok(false);
    }
    if before.is_unpaid() {
        store::stock::record_sold(&mut change.tx, &[id], app.counter_slots.changes(), now).await?;
    }
    Ok(true)
}

async fn refund_and_cancel(app: &App, change: &mut Change, tries: &[Payment], note: String) -> Result<bool, ServiceError> {
    let (id, now) = (change.order().id, app.clock.now());
    let slot = app.counter_slots.changes();
    if let Some(captured) = tries.iter().find(|payment| payment.status.is_captured()) {
        let wanted = Wanted { reason: Some(note), ..Wanted::default() };
        // What is on its way already comes back by itself.
        return Ok(refund::request(app, &mut change.tx, &change.order[0], wanted).await? || captured.refunding_minor > 0);
    }
    if tries.iter().any(|payment| payment.status.is_open()) {
        ask_again(app, change).await?;
    } else {
        change.transition(app, OrderStatus::Cancelled, super::Reason::default()).await?;
        store::stock::release_units(&mut change.tx, &[id], StockMovementKind::Released, slot, now).await?;
    }
    Ok(true)
}

async fn resume(app: &App, change: &mut Change, tries: &[Payment]) -> Result<bool, ServiceError> {
    if tries.iter().any(|payment| payment.status.is_open()) {
        ask_again(app, change).await?;
    }
    let payments: Vec<_> = tries.iter().map(|payment| payment.id).collect();
    for open in store::refund::list_for_payments(&mut change.tx, &payments).await?.iter().filter(|refund| refund.status.is_open()) {
        store::queue::send(&mut change.tx, Queue::Compensation, refund::KIND, open.id.0).await?;
    }
    Ok(true)
}

/// The provider is asked at once about the payment that is in doubt.
async fn ask_again(app: &App, change: &mut Change) -> Result<(), ServiceError> {
    let id = change.order().id;
    store::payment::update_given_up(&mut change.tx, id, app.clock.now()).await?;
    store::queue::send(&mut change.tx, Queue::Payment, payment::PAY, id.0).await?;
    Ok(())
}
