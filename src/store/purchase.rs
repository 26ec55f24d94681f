//! The flash-sale purchase: one call of the SQL function `buy_now`, which holds every rule of it.

use chrono::{DateTime, Utc};
use sqlx::PgConnection;
use uuid::Uuid;

use super::StoreError;
use crate::domain::{
    ids::{AddressId, CustomerId, FlashSaleId, OrderId, StockMovementId},
    order::order_number,
    quantity::Quantity,
};

/// What a customer asks for, checked as far as that goes without the database.
#[derive(Clone, Debug)]
pub struct Purchase {
    /// The order's id if the purchase is accepted; made by the caller, so that it can be looked for after a lost answer.
    pub order: OrderId,
    pub customer: CustomerId,
    pub sale: FlashSaleId,
    pub quantity: Quantity,
    pub idempotency_key: Uuid,
    /// Hash of what was asked for under the key.
    pub request_hash: Vec<u8>,
    pub payment_method: String,
    pub address: Option<AddressId>,
    /// Sealed for `order`.
    pub delivery_note_sealed: Option<Vec<u8>>,
    pub trace: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PurchaseOutcome {
    Accepted {
        order: OrderId,
        hold_expires_at: DateTime<Utc>,
    },
    Replayed {
        order: OrderId,
        hold_expires_at: DateTime<Utc>,
    },
    SoldOut,
    NotEnoughLeft {
        remaining: i32,
    },
    LimitReached {
        limit: i32,
        held: i32,
    },
    NotOpen,
    /// Others hold locks on the last units just now.
    Contended,
    KeyReused,
    SaleNotFound,
    AddressNotFound,
    EmailNotVerified,
}

/// The constraint that a key in use on another connection breaks; the same call is a replay when it is repeated.
pub const KEY_ONCE: &str = "orders_idempotency_key_once";

/// Places the purchases in order; one outcome each. All of them are written or, on an error, none.
/// At most one per customer and sale and per customer and key. Locks quotas, then units. `slot` is the caller's own
/// counter slot: two callers with one slot wait for each other.
pub async fn buy_now(db: &mut PgConnection, slot: i16, purchases: &[Purchase]) -> Result<Vec<PurchaseOutcome>, StoreError> {
    let column = |value: fn(&Purchase) -> Uuid| purchases.iter().map(value).collect::<Vec<_>>();
    let rows = sqlx::query!(
        r#"SELECT outcome AS "outcome!", order_id AS "order_id: OrderId", hold_expires_at, held, purchase_limit, remaining
             FROM buy_now($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)"#,
        slot,
        &column(|p| p.order.0),
        &purchases.iter().map(|_| order_number(rand::random())).collect::<Vec<_>>(),
        &column(|_| StockMovementId::new().0),
        &column(|p| p.customer.0),
        &column(|p| p.sale.0),
        &purchases.iter().map(|p| p.quantity.get()).collect::<Vec<_>>(),
        &column(|p| p.idempotency_key),
        &purchases.iter().map(|p| p.request_hash.clone()).collect::<Vec<_>>(),
        &purchases.iter().map(|p| p.payment_method.clone()).collect::<Vec<_>>(),
        &purchases.iter().map(|p| p.address).collect::<Vec<_>>() as _,
        &purchases.iter().map(|p| p.delivery_note_sealed.clone()).collect::<Vec<_>>() as _,
        &purchases.iter().map(|p| p.trace.clone()).collect::<Vec<_>>() as _,
    )
    .fetch_all(db)
    .await?;
    rows.into_iter()
        .map(|row| {
            let accepted = || Some((row.order_id?, row.hold_expires_at?));
            let missing = StoreError::Missing("order of an accepted purchase");
            Ok(match row.outcome.as_str() {
                "ACCEPTED" => {
                    accepted().map(|(order, hold_expires_at)| PurchaseOutcome::Accepted { order, hold_expires_at }).ok_or(missing)?
                }
                "REPLAYED" => {
                    accepted().map(|(order, hold_expires_at)| PurchaseOutcome::Replayed { order, hold_expires_at }).ok_or(missing)?
                }
                "SOLD_OUT" => PurchaseOutcome::SoldOut,
                "NOT_ENOUGH_LEFT" => PurchaseOutcome::NotEnoughLeft { remaining: row.remaining.unwrap_or_default() },
                "LIMIT_REACHED" => {
                    PurchaseOutcome::LimitReached { limit: row.purchase_limit.unwrap_or_default(), held: row.held.unwrap_or_default() }
                }
                "NOT_OPEN" => PurchaseOutcome::NotOpen,
                "CONTENDED" => PurchaseOutcome::Contended,
                "KEY_REUSED" => PurchaseOutcome::KeyReused,
                "SALE_NOT_FOUND" => PurchaseOutcome::SaleNotFound,
                "ADDRESS_NOT_FOUND" => PurchaseOutcome::AddressNotFound,
                "EMAIL_NOT_VERIFIED" => PurchaseOutcome::EmailNotVerified,
                _ => return Err(StoreError::Missing("outcome of buy_now by this name")),
            })
        })
        .collect()
}

/// For how long a purchase may wait for the quota of a customer whose other purchase is under way.
pub async fn set_lock_timeout(db: &mut PgConnection) -> Result<(), StoreError> {
    sqlx::query!("SELECT set_config('lock_timeout', '500ms', true)").fetch_one(db).await?;
    Ok(())
}
