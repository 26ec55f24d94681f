//! The comparison of the provider's list of charges with our payments, both ways (I5).
//!
//! Owns: what counts as a break. A charge that a try should know of is asked about at once, as after an event; everything else is for
//! people. Called by jobs/reconcile.rs and the command `reconcile`.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use chrono::{DateTime, TimeDelta, Utc};

use super::{ServiceError, payment::QUERY};
use crate::{
    app::App,
    clients::payment_gateway::{Charge, ChargeStatus, GatewayError, IntentStatus},
    domain::reconciliation::BreakKind,
    store::{
        self,
        queue::Queue,
        reconciliation::{Booked, Break, Reconciliation},
    },
};

/// What is younger may still be under way.
const SETTLED_AFTER: TimeDelta = TimeDelta::minutes(15);
/// More than a day, so that no charge falls between two comparisons.
const LOOK_BACK: TimeDelta = TimeDelta::hours(48);
const EVERY: TimeDelta = TimeDelta::hours(24);
/// Long enough for any comparison; another process takes over when this one is gone.
const TURN: Duration = Duration::from_hours(1);
const BATCH: i64 = 500;

#[derive(Debug, thiserror::Error)]
pub enum ReconcileError {
    #[error(transparent)]
    Service(#[from] ServiceError),
    #[error("the payment provider's list cannot be read: {0}")]
    Gateway(#[from] GatewayError),
}

impl From<store::StoreError> for ReconcileError {
    fn from(error: store::StoreError) -> Self {
        Self::Service(error.into())
    }
}

/// The time that a comparison looks at when nobody says another.
#[must_use]
pub fn usual_time(now: DateTime<Utc>) -> (DateTime<Utc>, DateTime<Utc>) {
    (now - LOOK_BACK, now - SETTLED_AFTER)
}

/// Compares once a day, in whichever process comes first.
pub async fn run_when_due(app: &App) -> Result<(), ReconcileError> {
    let now = app.clock.now();
    {
        let mut db = app.db.acquire().await.map_err(ServiceError::from)?;
        let last = store::reconciliation::find_last(&mut db).await?;
        if last.is_some_and(|last| last > now - EVERY) || !store::reconciliation::take_turn(&mut db, app.process, TURN).await? {
            return Ok(());
        }
    }
    let (from, to) = usual_time(now);
    let done = run(app, from, to, |_| ()).await?;
    if done.breaks > 0 {
        tracing::error!(breaks = done.breaks, charges = done.charges, "the provider's charges and our payments differ: see `reconcile`");
    }
    Ok(())
}

/// Compares what was made in a time. Reads only, but for the breaks that it keeps and the questions that it queues; a page of a hundred
/// charges at a time. `progress` hears how many charges and payments were looked at.
pub async fn run(app: &App, from: DateTime<Utc>, to: DateTime<Utc>, progress: impl Fn(i64)) -> Result<Reconciliation, ReconcileError> {
    let began_at = app.clock.now();
    let mut done = Reconciliation { created_from: from, created_to: to, charges: 0, payments: 0, breaks: 0 };
    let mut seen = HashSet::new();
    let mut after: Option<String> = None;
    loop {
        let page = app.payment_gateway.list_charges(from, to, after.as_deref()).await?;
        done.breaks += compare_charges(app, &page.charges, &mut seen).await?;
        done.charges += i64::try_from(page.charges.len()).unwrap_or(i64::MAX);
        progress(done.charges + done.payments);
        after = page.charges.last().map(|charge| charge.id.clone());
        if !page.has_more || after.is_none() {
            break;
        }
    }
    let mut last = None;
    loop {
        let payments = {
            let mut db = app.db.acquire().await.map_err(ServiceError::from)?;
            store::reconciliation::list_captured(&mut db, from, to, last, BATCH).await?
        };
        let Some(payment) = payments.last() else { break };
        last = Some(payment.id);
        done.breaks += compare_payments(app, &payments, &seen).await?;
        done.payments += i64::try_from(payments.len()).unwrap_or(i64::MAX);
        progress(done.charges + done.payments);
    }
    let mut db = app.db.acquire().await.map_err(ServiceError::from)?;
    store::reconciliation::insert(&mut db, &done, began_at, app.clock.now()).await?;
    Ok(done)
}

/// Each charge has its payment; how many do not fit.
async fn compare_charges(app: &App, charges: &[Charge], seen: &mut HashSet<String>) -> Result<i64, ServiceError> {
    let taken = charges.iter().filter(|charge| charge.status == ChargeStatus::Succeeded && charge.captured);
    let taken: Vec<(&Charge, &String)> = taken.filter_map(|charge| Some((charge, charge.intent.as_ref()?))).collect();
    let references: Vec<String> = taken.iter().map(|(_, reference)| (*reference).clone()).collect();
    let mut tx = app.db.begin().await?;
    let booked = store::reconciliation::list_by_references(&mut tx, &references).await?;
    let booked: HashMap<&str, &Booked> = booked.iter().map(|payment| (payment.reference.as_str(), payment)).collect();
    let mut breaks = Vec::new();
    for (charge, reference) in taken {
        let payment = booked.get(reference.as_str()).copied();
        seen.insert(reference.clone());
        let Some((kind, ours_minor, theirs_minor)) = difference(charge, payment) else { continue };
        if let Some(payment) = payment.filter(|_| kind == BreakKind::ChargeWithoutPayment) {
            store::queue::send(&mut tx, Queue::Payment, QUERY, payment.id.0, None).await?;
        }
        breaks.push(Break {
            kind,
            reference: reference.clone(),
            order_id: payment.map(|payment| payment.order_id),
            currency: charge.currency.clone(),
            ours_minor,
            theirs_minor,
            made_at: charge.created_at,
        });
    }
    store::reconciliation::upsert_breaks(&mut tx, &breaks, app.clock.now()).await?;
    tx.commit().await?;
    app.payments_waiting.notify_one();
    Ok(i64::try_from(breaks.len()).unwrap_or(i64::MAX))
}

/// How a charge and its payment differ: the kind, our amount and the provider's.
fn difference(charge: &Charge, payment: Option<&Booked>) -> Option<(BreakKind, i64, i64)> {
    let Some(payment) = payment else {
        // Whoever else uses the account names no order of ours.
        return charge.order_id.map(|_| (BreakKind::ChargeWithoutPayment, 0, charge.amount_minor));
    };
    let (lowest, highest) = (payment.refunded_minor, payment.refunded_minor + payment.refunding_minor);
    if payment.status.is_open() {
        // It is asked about by its due time, or by people.
        return None;
    }
    // A second charge of an order goes back, and stays a try without money.
    if !payment.status.is_captured() && highest == 0 {
        return Some((BreakKind::ChargeWithoutPayment, 0, charge.amount_minor));
    }
    if charge.amount_minor != payment.amount_minor || charge.currency != payment.currency.as_str() {
        return Some((BreakKind::AmountDiffers, payment.amount_minor, charge.amount_minor));
    }
    (!(lowest..=highest).contains(&charge.refunded_minor)).then_some((BreakKind::RefundDiffers, lowest, charge.refunded_minor))
}

/// Each captured payment has its charge; how many have none. A charge may be younger than the time that was listed: the provider is
/// asked about each that is missing.
async fn compare_payments(app: &App, payments: &[Booked], seen: &HashSet<String>) -> Result<i64, ReconcileError> {
    let mut breaks = Vec::new();
    for payment in payments.iter().filter(|payment| !seen.contains(&payment.reference)) {
        let theirs_minor = match app.payment_gateway.retrieve_intent(&payment.reference).await {
            Ok(intent) if intent.status == IntentStatus::Succeeded => intent.received_minor,
            Ok(_) | Err(GatewayError::NotFound) => 0,
            Err(error) => return Err(error.into()),
        };
        if theirs_minor == payment.amount_minor {
            continue;
        }
        let kind = if theirs_minor == 0 { BreakKind::PaymentWithoutCharge } else { BreakKind::AmountDiffers };
        breaks.push(Break {
            kind,
            reference: payment.reference.clone(),
            order_id: Some(payment.order_id),
            currency: payment.currency.to_string(),
            ours_minor: payment.amount_minor,
            theirs_minor,
            made_at: payment.created_at,
        });
    }
    let mut db = app.db.acquire().await.map_err(ServiceError::from)?;
    store::reconciliation::upsert_breaks(&mut db, &breaks, app.clock.now()).await?;
    Ok(i64::try_from(breaks.len()).unwrap_or(i64::MAX))
}

/// What is not mended yet, oldest first.
pub async fn list_open_breaks(app: &App, limit: i64) -> Result<Vec<Break>, ServiceError> {
    Ok(store::reconciliation::list_open_breaks(&mut *app.db.acquire().await?, limit).await?)
}
