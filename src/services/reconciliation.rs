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
        lease::RECONCILIATION,
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
        if last.is_some_and(|last| last > now - EVERY) || store::lease::take(&mut db, RECONCILIATION, app.process, TURN).await?.is_none() {
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
/// charges at a time. An earlier break of that time that is not found again is mended. `progress` hears how many charges and payments were looked at.
pub async fn run(app: &App, from: DateTime<Utc>, to: DateTime<Utc>, progress: impl Fn(i64)) -> Result<Reconciliation, ReconcileError> {
    let began_at = app.clock.now();
    let mut done = Reconciliation { created_from: from, created_to: to, charges: 0, payments: 0, breaks: 0 };
    let mut seen = HashSet::new();
    let mut after: Option<String> = None;
    loop {
        let list = async || app.payment_gateway.list_charges(from, to, after.as_deref()).await;
        let page = list().await?;
        let mut found = differences(app, &page.charges).await?;
        if !found.is_empty() {
            // A refund may have gone through between the two readings: what differs twice differs.
            let again = differences(app, &list().await?.charges).await?;
            found.retain(|found| again.iter().any(|again| (again.kind, &again.reference) == (found.kind, &found.reference)));
        }
        keep(app, &found).await?;
        done.breaks += count(found.len());
        done.charges += count(page.charges.len());
        progress(done.charges + done.payments);
        seen.extend(page.charges.iter().filter(|charge| is_money(charge)).filter_map(|charge| charge.intent.clone()));
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
        let found = without_charge(app, &payments, &seen).await?;
        keep(app, &found).await?;
        done.breaks += count(found.len());
        done.payments += count(payments.len());
        progress(done.charges + done.payments);
    }
    let mut db = app.db.acquire().await.map_err(ServiceError::from)?;
    store::reconciliation::insert(&mut db, &done, began_at, app.clock.now()).await?;
    Ok(done)
}

fn count(of: usize) -> i64 {
    i64::try_from(of).unwrap_or(i64::MAX)
}

fn is_money(charge: &Charge) -> bool {
    charge.status == ChargeStatus::Succeeded && charge.captured
}

/// The charges that do not fit their payments.
async fn differences(app: &App, charges: &[Charge]) -> Result<Vec<Break>, ServiceError> {
    let taken = charges.iter().filter(|charge| is_money(charge));
    let taken: Vec<(&Charge, &String)> = taken.filter_map(|charge| Some((charge, charge.intent.as_ref()?))).collect();
    let references: Vec<String> = taken.iter().map(|(_, reference)| (*reference).clone()).collect();
    let booked = store::reconciliation::list_by_references(&mut *app.db.acquire().await?, &references).await?;
    let booked: HashMap<&str, &Booked> = booked.iter().map(|payment| (payment.reference.as_str(), payment)).collect();
    let found = taken.into_iter().filter_map(|(charge, reference)| {
        let payment = booked.get(reference.as_str()).copied();
        let (kind, ours_minor, theirs_minor) = difference(charge, payment)?;
        Some(Break {
            kind,
            reference: reference.clone(),
            payment_id: payment.map(|payment| payment.id),
            order_id: payment.map(|payment| payment.order_id),
            currency: charge.currency.clone(),
            ours_minor,
            theirs_minor,
            made_at: charge.created_at,
        })
    });
    Ok(found.collect())
}

/// Keeps what was found, in one transaction. A charge that a try of ours should know of is asked about.
async fn keep(app: &App, found: &[Break]) -> Result<(), ServiceError> {
    if found.is_empty() {
        return Ok(());
    }
    let mut tx = app.db.begin().await?;
    store::reconciliation::upsert_breaks(&mut tx, found, app.clock.now()).await?;
    for payment in found.iter().filter(|found| found.kind == BreakKind::ChargeWithoutPayment).filter_map(|found| found.payment_id) {
        store::queue::send(&mut tx, Queue::Payment, QUERY, payment.0).await?;
    }
    tx.commit().await?;
    app.payments_waiting.notify_one();
    Ok(())
}

/// How a charge and its payment differ: the kind, our amount and the provider's.
fn difference(charge: &Charge, payment: Option<&Booked>) -> Option<(BreakKind, i64, i64)> {
    // People have given it back at the provider: nothing of it is left to differ.
    let is_undone = charge.refunded_minor == charge.amount_minor;
    let Some(payment) = payment else {
        // Whoever else uses the account names no order of ours.
        let is_ours = charge.order_id.is_some();
        return (is_ours && !is_undone).then_some((BreakKind::ChargeWithoutPayment, 0, charge.amount_minor));
    };
    let (lowest, highest) = (payment.refunded_minor, payment.refunded_minor + payment.refunding_minor);
    if payment.status.is_open() {
        // It is asked about by its due time, or by people.
        return None;
    }
    // A second charge of an order goes back, and stays a try without money.
    if !payment.status.is_captured() && highest == 0 {
        return (!is_undone).then_some((BreakKind::ChargeWithoutPayment, 0, charge.amount_minor));
    }
    if charge.amount_minor != payment.amount_minor || charge.currency != payment.currency.as_str() {
        return Some((BreakKind::AmountDiffers, payment.amount_minor, charge.amount_minor));
    }
    (!(lowest..=highest).contains(&charge.refunded_minor)).then_some((BreakKind::RefundDiffers, lowest, charge.refunded_minor))
}

/// The captured payments that have no charge. A charge may be younger than the time that was listed: the provider is asked about each
/// that was not in the list.
async fn without_charge(app: &App, payments: &[Booked], seen: &HashSet<String>) -> Result<Vec<Break>, ReconcileError> {
    let mut found = Vec::new();
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
        found.push(Break {
            kind,
            reference: payment.reference.clone(),
            payment_id: Some(payment.id),
            order_id: Some(payment.order_id),
            currency: payment.currency.to_string(),
            ours_minor: payment.amount_minor,
            theirs_minor,
            made_at: payment.created_at,
        });
    }
    Ok(found)
}

/// What is not mended yet, oldest first.
pub async fn list_open_breaks(app: &App, limit: i64) -> Result<Vec<Break>, ServiceError> {
    Ok(store::reconciliation::list_open_breaks(&mut *app.db.acquire().await?, limit).await?)
}
