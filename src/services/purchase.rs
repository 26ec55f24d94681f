//! The flash-sale purchase. Called by `resolvers/flash_sale.rs`.

use std::time::Duration;

use uuid::Uuid;

use super::{InvalidInput, ServiceError};
use crate::{
    app::App,
    domain::{
        customer::single_line,
        ids::{AddressId, CustomerId, FlashSaleId, OrderId},
        quantity::Quantity,
    },
    sealing::SealedColumn,
    store::{
        self, StoreError,
        purchase::{Purchase, PurchaseOutcome},
    },
};

/// Counter slots of purchases; settlement has others, see services/payment.rs.
const COUNTER_SLOTS: std::ops::Range<i16> = 0..8;
/// Waits before a claim that found the last units locked is repeated.
const CONTENTION_WAITS: [Duration; 3] = [Duration::ZERO, Duration::from_millis(20), Duration::from_millis(50)];
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
    pub trace: Option<String>,
}

/// The answer to a purchase.
#[derive(Debug)]
pub enum Bought {
    Outcome(PurchaseOutcome),
    Invalid(InvalidInput),
    /// Nothing was taken; the same key may be used again.
    Busy {
        retry_after: Duration,
    },
}

/// Claims units for the customer, or says why not. One transaction writes the order, its lines and history, the stock's
/// movement and the payment message; the units are held for the sale's hold time. Idempotent by (customer, key): only a
/// success is remembered, and only for the same sale, quantity and address.
pub async fn buy_now(app: &App, customer: CustomerId, input: BuyNow) -> Result<Bought, ServiceError> {
    let order = OrderId::new();
    let purchase = match checked(app, order, customer, input)? {
        Ok(purchase) => purchase,
        Err(invalid) => return Ok(Bought::Invalid(invalid)),
    };
    for wait in CONTENTION_WAITS {
        tokio::time::sleep(wait).await;
        match place(app, &purchase).await {
            Ok(PurchaseOutcome::Contended) => {}
            Ok(outcome) => {
                if matches!(outcome, PurchaseOutcome::Accepted { .. }) {
                    app.payments_waiting.notify_one();
                    app.order_feed.ring(&[(order, customer)]);
                }
                return Ok(Bought::Outcome(outcome));
            }
            Err(ServiceError::Store(error)) if error.is_pool_exhausted() => break,
            // The key is being used on another connection: repeated, it is a replay. Deadlocks and lock time-outs likewise.
            Err(ServiceError::Store(error)) if error.violates(store::purchase::KEY_ONCE) || error.is_transient() => {}
            Err(error) => return Err(error),
        }
    }
    Ok(Bought::Busy { retry_after: Duration::from_millis(200 + rand::random_range(0..300)) })
}

async fn place(app: &App, purchase: &Purchase) -> Result<PurchaseOutcome, ServiceError> {
    let slot = rand::random_range(COUNTER_SLOTS);
    let mut tx = app.db.begin().await?;
    store::purchase::set_lock_timeout(&mut tx).await?;
    let outcome = store::purchase::buy_now(&mut tx, slot, std::slice::from_ref(purchase)).await?.pop();
    let outcome = outcome.ok_or(StoreError::Missing("outcome of a purchase"))?;
    tx.commit().await.map_err(|error| ServiceError::UnknownOutcome(error.into()))?;
    Ok(outcome)
}

fn checked(app: &App, order: OrderId, customer: CustomerId, input: BuyNow) -> Result<Result<Purchase, InvalidInput>, ServiceError> {
    let Some(quantity) = Quantity::new(input.quantity) else {
        return Ok(Err(InvalidInput::new(&["quantity"], "1 to 999.")));
    };
    let method = input.payment_method;
    if method.is_empty() || method.len() > MAX_PAYMENT_METHOD_BYTES || !method.bytes().all(|b| b.is_ascii_graphic()) {
        return Ok(Err(InvalidInput::new(&["paymentMethod"], "The payment provider's token: 1 to 255 printable ASCII characters.")));
    }
    let typed_note = input.delivery_note.filter(|note| !note.trim().is_empty());
    let note = typed_note.as_deref().and_then(|note| single_line(note, MAX_NOTE_CHARACTERS));
    if typed_note.is_some() && note.is_none() {
        return Ok(Err(InvalidInput::new(&["deliveryNote"], "One line of at most 500 characters.")));
    }
    let delivery_note_sealed = note.map(|note| app.sealing.seal(SealedColumn::OrderDeliveryNote, order.0, &note)).transpose()?;
    let asked_for = serde_json::to_vec(&(input.sale.0, quantity.get(), input.address.map(|id| id.0)))?;
    Ok(Ok(Purchase {
        order,
        customer,
        sale: input.sale,
        quantity,
        idempotency_key: input.idempotency_key,
        request_hash: app.sealing.request_fingerprint(&asked_for),
        payment_method: method,
        address: input.address,
        delivery_note_sealed,
        trace: input.trace,
    }))
}
