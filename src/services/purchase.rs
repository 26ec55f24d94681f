//! The flash-sale purchase. Called by `resolvers/flash_sale.rs`.
//!
//! A request is checked, perhaps refused from memory (`sold_out.rs`, and a sale that is not open yet), and otherwise placed
//! with others in one transaction (batcher.rs).

pub mod batcher;
pub mod rate_limit;
pub mod sold_out;

use std::time::Duration;

use chrono::TimeDelta;
use uuid::Uuid;

use self::batcher::Placed;
use super::{InvalidInput, ServiceError};
use crate::{
    app::App,
    domain::{
        customer::single_line,
        ids::{AddressId, CustomerId, FlashSaleId, OrderId},
        opaque_debug,
        order::order_number,
        quantity::Quantity,
    },
    sealing::SealedColumn,
    store::{
        self, StoreError,
        flash_sale::FlashSale,
        purchase::{Purchase, PurchaseOutcome},
    },
    telemetry,
};

/// Waits before a claim that found the last units locked is repeated.
pub const CONTENTION_WAITS: [Duration; 3] = [Duration::ZERO, Duration::from_millis(20), Duration::from_millis(50)];
/// A sale is refused as not open from memory only until shortly before its opening: clocks differ a little.
const OPENING_MARGIN: TimeDelta = TimeDelta::milliseconds(250);
const MAX_NOTE_CHARACTERS: usize = 500;
const MAX_PAYMENT_METHOD_BYTES: usize = 255;

/// As the client sent it.
pub struct BuyNow {
    pub sale: FlashSaleId,
    pub quantity: i32,
    pub payment_method: String,
    pub address: Option<AddressId>,
    pub delivery_note: Option<String>,
    pub idempotency_key: Uuid,
}

opaque_debug!(BuyNow);

/// The answer to a purchase.
#[derive(Debug)]
pub enum Bought {
    Outcome(PurchaseOutcome),
    /// No unit was free when the database was last asked, some seconds ago at most.
    SoldOut(Box<FlashSale>),
    Invalid(InvalidInput),
    /// Nothing was taken; the same key may be used again.
    Busy {
        retry_after: Duration,
    },
    /// Too many different purchases of one customer.
    RateLimited {
        retry_after: Duration,
    },
}

impl Bought {
    /// What metrics call it.
    const fn name(&self) -> &'static str {
        match self {
            Self::Outcome(outcome) => outcome.name(),
            Self::SoldOut(_) => PurchaseOutcome::SoldOut.name(),
            Self::Invalid(_) => "invalid",
            Self::Busy { .. } => "busy",
            Self::RateLimited { .. } => "rate_limited",
        }
    }
}

/// Claims units for the customer, or says why not. One transaction writes the order, its lines and history, the stock's
/// movement and the payment message; the units are held for the sale's hold time. Idempotent by (customer, key): only a
/// success is remembered, and only for the same sale, quantity and address.
pub async fn buy_now(app: &App, customer: CustomerId, input: BuyNow) -> Result<Bought, ServiceError> {
    let bought = buy(app, customer, input).await;
    app.metrics.purchase(bought.as_ref().map_or("failed", Bought::name));
    bought
}

async fn buy(app: &App, customer: CustomerId, input: BuyNow) -> Result<Bought, ServiceError> {
    let sale = input.sale;
    let checked = match checked(input) {
        Ok(checked) => checked,
        Err(invalid) => return Ok(Bought::Invalid(invalid)),
    };
    if let Some(refusal) = refusal_from_memory(app, customer, sale) {
        return Ok(refusal);
    }
    if let Err(retry_after) = rate_limit::check(app, customer, (customer, sale), checked.input.idempotency_key) {
        return Ok(Bought::RateLimited { retry_after });
    }
    if app.sold_out.looked(sale).await
        && let Some(refusal) = refusal_from_memory(app, customer, sale)
    {
        return Ok(refusal);
    }
    let purchase = purchase(app, customer, checked)?;
    for wait in CONTENTION_WAITS {
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
        }
        match app.purchases.place(purchase.clone()).await? {
            Placed::Outcome(PurchaseOutcome::Contended) => {}
            Placed::Outcome(PurchaseOutcome::SoldOut) => match sold_out_now(app, sale).await {
                // Too busy to say more about it than "not now".
                Err(ServiceError::Store(error)) if error.is_pool_exhausted() => break,
                answer => return answer,
            },
            Placed::Outcome(outcome) => return Ok(Bought::Outcome(outcome)),
            Placed::Busy => break,
        }
    }
    Ok(Bought::Busy { retry_after: Duration::from_millis(200 + rand::random_range(0..300)) })
}

/// The sale as it is without a free unit, so that answer and numbers agree; later buyers are refused from memory. When a unit
/// has come back meanwhile, or the sale has closed, it is as it is now.
async fn sold_out_now(app: &App, id: FlashSaleId) -> Result<Bought, ServiceError> {
    if let Some(sale) = sold_out::look(app, id).await? {
        return Ok(Bought::SoldOut(Box::new(sale)));
    }
    let sale = store::flash_sale::list_by_ids(&mut *app.db.acquire().await?, &[id]).await?.pop();
    Ok(Bought::SoldOut(Box::new(sale.ok_or(StoreError::Missing("sale of a purchase"))?)))
}

/// Only refusals that no earlier success of this customer can contradict. They come before anything that costs more: of a
/// sale that is sold out in a second, nearly every request ends here.
fn refusal_from_memory(app: &App, customer: CustomerId, sale: FlashSaleId) -> Option<Bought> {
    let now = app.clock.now();
    if let Some(sale) = app.sold_out.refusal(sale, customer, now) {
        return Some(Bought::SoldOut(Box::new(sale)));
    }
    let sale = app.sale_feed.get(sale, now)?;
    (now + OPENING_MARGIN < sale.opens_at).then_some(Bought::Outcome(PurchaseOutcome::NotOpen))
}

/// What was sent, once it has kept to the rules that need no database.
struct Checked {
    input: BuyNow,
    quantity: Quantity,
    note: Option<String>,
}

/// The provider's token of a card or wallet must look like one.
///
/// # Errors
/// When it does not.
pub fn check_payment_method(method: &str) -> Result<(), InvalidInput> {
    let is_token = (1..=MAX_PAYMENT_METHOD_BYTES).contains(&method.len()) && method.bytes().all(|byte| byte.is_ascii_graphic());
    let invalid = InvalidInput::new(&["paymentMethod"], "The payment provider's token: 1 to 255 printable ASCII characters.");
    if is_token { Ok(()) } else { Err(invalid) }
}

/// One line for whoever delivers; an empty one is none.
///
/// # Errors
/// When it is more than that.
pub fn check_delivery_note(typed: Option<String>) -> Result<Option<String>, InvalidInput> {
    let invalid = InvalidInput::new(&["deliveryNote"], "One line of at most 500 characters.");
    let typed = typed.filter(|note| !note.trim().is_empty());
    typed.map(|note| single_line(&note, MAX_NOTE_CHARACTERS).ok_or(invalid)).transpose()
}

fn checked(mut input: BuyNow) -> Result<Checked, InvalidInput> {
    let quantity = Quantity::new(input.quantity).ok_or(InvalidInput::new(&["quantity"], "1 to 999."))?;
    check_payment_method(&input.payment_method)?;
    let note = check_delivery_note(input.delivery_note.take())?;
    Ok(Checked { input, quantity, note })
}

fn purchase(app: &App, customer: CustomerId, Checked { input, quantity, note }: Checked) -> Result<Purchase, ServiceError> {
    let order = OrderId::new();
    let asked_for = serde_json::to_vec(&(input.sale.0, quantity.get(), input.address.map(|id| id.0)))?;
    Ok(Purchase {
        order,
        number: order_number(rand::random()),
        customer,
        sale: input.sale,
        quantity,
        idempotency_key: input.idempotency_key,
        request_hash: app.sealing.request_fingerprint(&asked_for),
        payment_method: input.payment_method,
        address: input.address,
        delivery_note_sealed: note.map(|note| app.sealing.seal(SealedColumn::OrderDeliveryNote, order.0, &note)).transpose()?,
        trace: telemetry::traceparent(),
    })
}
