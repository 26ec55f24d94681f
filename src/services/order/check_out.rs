//! The order of a cart: lines of ordinary stock and of open sales together. Called by resolvers/cart.rs.

use std::time::Duration;

use chrono::TimeDelta;
use uuid::Uuid;

use crate::{
    app::App,
    domain::{
        cart::CartProblem,
        ids::{AddressId, CustomerId, OrderId},
        money::Money,
        opaque_debug,
        order::order_number,
    },
    sealing::SealedColumn,
    services::{
        InvalidInput, ServiceError, payment,
        purchase::{CONTENTION_WAITS, check_delivery_note, check_payment_method, rate_limit},
    },
    store::{
        self,
        cart::CartLine,
        order::{NewLine, NewOrder},
        queue::Queue,
        stock::Claim,
    },
};

const MUTATION: &str = "checkOutCart";
/// How long a line of ordinary stock is kept for an unpaid order; a line of a sale is for the sale's hold. The order ends with the first.
pub(super) const HOLD: TimeDelta = TimeDelta::minutes(15);

/// As the client sent it.
pub struct CheckOut {
    pub payment_method: String,
    /// The default address when left out.
    pub address: Option<AddressId>,
    pub delivery_note: Option<String>,
    /// What the customer is ready to pay. Without it no price may have changed since the lines were chosen.
    pub expected_total: Option<Money>,
    pub idempotency_key: Uuid,
}

opaque_debug!(CheckOut);

/// What became of it. Only `Done` is remembered under the key.
#[derive(Debug)]
pub enum CheckedOut {
    /// Made now, or by the same request before.
    Done(OrderId),
    Invalid(InvalidInput),
    EmailNotVerified,
    NoSuchAddress,
    CartEmpty,
    /// Another total than expected, a price that nobody has agreed to, or a product that is no longer sold.
    CartChanged,
    KeyReused,
    NotClaimed(Claim),
    /// Too many different purchases of one customer.
    RateLimited {
        retry_after: Duration,
    },
}

/// Makes an order of the customer's whole cart, or of nothing, in one transaction: order, lines, history, stock by `claim_order`, the
/// payment message; the cart is empty afterwards. Locked are the customer's row, which changes of the cart wait for, then what
/// `claim_order` locks. Idempotent by (customer, key), whatever the payment method and the note.
pub async fn check_out(app: &App, customer: CustomerId, mut input: CheckOut) -> Result<CheckedOut, ServiceError> {
    let checked = check_payment_method(&input.payment_method).and_then(|()| check_delivery_note(input.delivery_note.take()));
    input.delivery_note = match checked {
        Ok(note) => note,
        Err(invalid) => return Ok(CheckedOut::Invalid(invalid)),
    };
    if let Err(retry_after) = rate_limit::check(app, customer, customer, input.idempotency_key) {
        return Ok(CheckedOut::RateLimited { retry_after });
    }
    for wait in CONTENTION_WAITS {
        tokio::time::sleep(wait).await;
        match check_out_once(app, customer, &input).await {
            Ok(CheckedOut::NotClaimed(Claim::Contended)) => {}
            // Others held locks for too long.
            Err(ServiceError::Store(error)) if error.is_transient() => {}
            checked_out => return checked_out,
        }
    }
    Ok(CheckedOut::NotClaimed(Claim::Contended))
}

async fn check_out_once(app: &App, customer: CustomerId, input: &CheckOut) -> Result<CheckedOut, ServiceError> {
    let asked_for = serde_json::to_vec(&(input.address.map(|id| id.0), input.expected_total.map(|total| total.minor)))?;
    let request_hash = app.sealing.request_fingerprint(&asked_for);

    let mut tx = app.db.begin().await?;
    let account = store::customer::lock(&mut tx, customer).await?.ok_or(ServiceError::NoAccount)?;
    let (id, now) = (OrderId::new(), app.clock.now());
    // Asked with the row locked: the same request at the same moment has made its order by now.
    match store::order::find_by_key(&mut tx, customer, MUTATION, input.idempotency_key).await? {
        Some((known, hash)) if hash == request_hash => return Ok(CheckedOut::Done(known)),
        Some(_) => return Ok(CheckedOut::KeyReused),
        None => {}
    }
    if account.email_verified_at.is_none() {
        return Ok(CheckedOut::EmailNotVerified);
    }
    let book = store::address::list_for_customers(&mut tx, &[customer]).await?;
    let address = book.iter().find(|entry| input.address.map_or(entry.is_default, |wanted| entry.id == wanted)).map(|entry| entry.id);
    if input.address.is_some() && address.is_none() {
        return Ok(CheckedOut::NoSuchAddress);
    }
    let cart = store::cart::list_for_customers(&mut tx, &[customer], now).await?;
    let total = match total(app, &cart, input.expected_total) {
        Ok(total) => total,
        Err(refused) => return Ok(refused),
    };
    let holds = cart.iter().map(|line| line.hold_seconds.map_or(HOLD, |seconds| TimeDelta::seconds(seconds.into())));
    let note = input.delivery_note.as_deref();
    let order = NewOrder {
        id,
        number: order_number(rand::random()),
        customer,
        total,
        mutation: MUTATION,
        idempotency_key: input.idempotency_key,
        request_hash: &request_hash,
        address,
        delivery_note_sealed: note.map(|note| app.sealing.seal(SealedColumn::OrderDeliveryNote, id.0, note)).transpose()?,
        payment_method: &input.payment_method,
        hold_expires_at: now + holds.min().unwrap_or(HOLD),
    };
    let lines: Vec<NewLine> = cart.into_iter().map(new_line).collect();
    store::order::insert(&mut tx, &order, &lines, now).await?;
    match store::stock::claim_order(&mut tx, id, app.counter_slots.changes(), true, true, now).await? {
        Claim::Claimed => {}
        refused => return Ok(CheckedOut::NotClaimed(refused)),
    }
    store::cart::delete_all(&mut tx, customer).await?;
    store::queue::send(&mut tx, Queue::Payment, payment::PAY, id.0).await?;
    tx.commit().await?;

    app.payments_waiting.notify_one();
    app.order_feed.ring(&[(id, customer)]);
    Ok(CheckedOut::Done(id))
}

/// What the cart costs, if it can be bought as it stands. A total that the customer expects agrees to every price.
fn total(app: &App, cart: &[CartLine], expected: Option<Money>) -> Result<Money, CheckedOut> {
    if cart.is_empty() {
        return Err(CheckedOut::CartEmpty);
    }
    let sum = cart.iter().try_fold(0_i64, |sum, line| sum.checked_add(line.total()?.minor));
    let total = Money::new(sum.ok_or(CheckedOut::Invalid(InvalidInput::new(&[], "Too much for one order.")))?, app.config.currency);
    if expected.is_some_and(|expected| expected != total) {
        return Err(CheckedOut::CartChanged);
    }
    let refusal = |problem| match problem {
        CartProblem::LimitReached => Some(CheckedOut::NotClaimed(Claim::LimitReached)),
        CartProblem::OutOfStock => Some(CheckedOut::NotClaimed(Claim::OutOfStock)),
        CartProblem::ProductRemoved => Some(CheckedOut::CartChanged),
        CartProblem::PriceChanged => expected.is_none().then_some(CheckedOut::CartChanged),
    };
    match cart.iter().flat_map(CartLine::problems).find_map(refusal) {
        Some(refused) => Err(refused),
        None => Ok(total),
    }
}

fn new_line(line: CartLine) -> NewLine {
    NewLine {
        product: line.product_id,
        flash_sale: line.offer.sale,
        title: line.title,
        quantity: line.quantity,
        unit_price_minor: line.offer.unit_price.minor,
    }
}
