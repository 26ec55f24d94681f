//! The flash-sale purchase: one call of the SQL function `buy_now`, which holds every rule of it.

use chrono::{DateTime, Utc};
use sqlx::PgConnection;
use uuid::Uuid;

use super::{StoreError, order::Order};
use crate::domain::{
    ids::{AddressId, CustomerId, FlashSaleId, OrderId, StockMovementId},
    money::Currency,
    order::OrderStatus,
    quantity::Quantity,
};

/// What a customer asks for, checked as far as that goes without the database.
#[derive(Clone, Debug)]
pub struct Purchase {
    /// The order's id if the purchase is accepted; made by the caller, who knows it again after a lost answer.
    pub order: OrderId,
    /// The order's number if the purchase is accepted.
    pub number: String,
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
    /// Goes on with the payment's message.
    pub trace: Option<String>,
}

#[derive(Clone, Debug)]
pub enum PurchaseOutcome {
    Accepted {
        order: Box<Order>,
        hold_expires_at: DateTime<Utc>,
        /// The highest unit that was claimed: the sale's next low-water mark.
        last_seq: i32,
    },
    /// The key has an order already.
    Known {
        order: OrderId,
        hold_expires_at: DateTime<Utc>,
        /// False when it is this very request's, whose first answer was lost.
        replayed: bool,
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

impl PurchaseOutcome {
    /// What metrics call it.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Accepted { .. } | Self::Known { replayed: false, .. } => "accepted",
            Self::Known { .. } => "replayed",
            Self::SoldOut => "sold_out",
            Self::NotEnoughLeft { .. } => "not_enough_left",
            Self::LimitReached { .. } => "limit_reached",
            Self::NotOpen => "not_open",
            Self::Contended => "contended",
            Self::KeyReused => "key_reused",
            Self::SaleNotFound => "sale_not_found",
            Self::AddressNotFound => "address_not_found",
            Self::EmailNotVerified => "email_not_verified",
        }
    }
}

/// The constraint that a key in use on another connection breaks; the same call is a replay when it is repeated.
pub const KEY_ONCE: &str = "orders_idempotency_key_once";

/// A purchase with the low-water mark of its sale: units up to it are most likely taken; 0 looks from the first.
pub type Marked<'a> = (&'a Purchase, i32);

/// Places the purchases in order; one outcome each. All of them are written or, on an error, none: the statement is a
/// transaction of its own. At most one per customer. Locks quotas, then units, for 500 ms at most. `slot` is the caller's
/// own counter slot: two callers with one slot wait for each other.
pub async fn buy_now(db: &mut PgConnection, slot: i16, purchases: &[Marked<'_>]) -> Result<Vec<PurchaseOutcome>, StoreError> {
    let column = |value: fn(&Purchase) -> Uuid| purchases.iter().map(|(purchase, _)| value(purchase)).collect::<Vec<_>>();
    let rows = sqlx::query_as!(
        OutcomeRow,
        r#"SELECT outcome AS "outcome!", order_id AS "order_id: OrderId", hold_expires_at, total_minor, currency AS "currency: Currency",
                  address_id AS "address_id: AddressId", created_at, last_seq, held, purchase_limit, remaining
             FROM buy_now($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)"#,
        slot,
        &column(|p| p.order.0),
        &purchases.iter().map(|(p, _)| p.number.clone()).collect::<Vec<_>>(),
        &column(|_| StockMovementId::new().0),
        &column(|p| p.customer.0),
        &column(|p| p.sale.0),
        &purchases.iter().map(|(p, _)| p.quantity.get()).collect::<Vec<_>>(),
        &column(|p| p.idempotency_key),
        &purchases.iter().map(|(p, _)| p.request_hash.clone()).collect::<Vec<_>>(),
        &purchases.iter().map(|(p, _)| p.payment_method.clone()).collect::<Vec<_>>(),
        &purchases.iter().map(|(p, _)| p.address).collect::<Vec<_>>() as _,
        &purchases.iter().map(|(p, _)| p.delivery_note_sealed.clone()).collect::<Vec<_>>() as _,
        &purchases.iter().map(|(p, _)| p.trace.clone()).collect::<Vec<_>>() as _,
        &purchases.iter().map(|(_, mark)| *mark).collect::<Vec<_>>(),
    )
    .fetch_all(db)
    .await?;
    rows.into_iter().zip(purchases).map(|(row, (purchase, _))| row.read(purchase)).collect()
}

struct OutcomeRow {
    outcome: String,
    order_id: Option<OrderId>,
    hold_expires_at: Option<DateTime<Utc>>,
    total_minor: Option<i64>,
    currency: Option<Currency>,
    address_id: Option<AddressId>,
    created_at: Option<DateTime<Utc>>,
    last_seq: Option<i32>,
    held: Option<i32>,
    purchase_limit: Option<i32>,
    remaining: Option<i32>,
}

impl OutcomeRow {
    fn read(self, purchase: &Purchase) -> Result<PurchaseOutcome, StoreError> {
        Ok(match self.outcome.as_str() {
            "ACCEPTED" => self.accepted(purchase).ok_or(StoreError::Missing("order of an accepted purchase"))?,
            "REPLAYED" => self.known().ok_or(StoreError::Missing("order of a replayed purchase"))?,
            "SOLD_OUT" => PurchaseOutcome::SoldOut,
            "NOT_ENOUGH_LEFT" => PurchaseOutcome::NotEnoughLeft { remaining: self.remaining.unwrap_or_default() },
            "LIMIT_REACHED" => {
                PurchaseOutcome::LimitReached { limit: self.purchase_limit.unwrap_or_default(), held: self.held.unwrap_or_default() }
            }
            "NOT_OPEN" => PurchaseOutcome::NotOpen,
            "CONTENDED" => PurchaseOutcome::Contended,
            "KEY_REUSED" => PurchaseOutcome::KeyReused,
            "SALE_NOT_FOUND" => PurchaseOutcome::SaleNotFound,
            "ADDRESS_NOT_FOUND" => PurchaseOutcome::AddressNotFound,
            "EMAIL_NOT_VERIFIED" => PurchaseOutcome::EmailNotVerified,
            _ => return Err(StoreError::Missing("outcome of buy_now by this name")),
        })
    }

    /// The order as it was just written.
    fn accepted(&self, purchase: &Purchase) -> Option<PurchaseOutcome> {
        let (hold_expires_at, created_at) = (self.hold_expires_at?, self.created_at?);
        let order = Order {
            id: self.order_id?,
            number: purchase.number.clone(),
            customer_id: purchase.customer,
            status: OrderStatus::AwaitingPayment,
            status_before_review: None,
            review_reason: None,
            version: 1,
            total_minor: self.total_minor?,
            currency: self.currency?,
            address_id: self.address_id,
            delivery_note_sealed: purchase.delivery_note_sealed.clone(),
            payment_method: Some(purchase.payment_method.clone()),
            tracking_number: None,
            hold_ends_at: Some(hold_expires_at),
            created_at,
            updated_at: created_at,
        };
        Some(PurchaseOutcome::Accepted { order: Box::new(order), hold_expires_at, last_seq: self.last_seq? })
    }

    fn known(&self) -> Option<PurchaseOutcome> {
        Some(PurchaseOutcome::Known { order: self.order_id?, hold_expires_at: self.hold_expires_at?, replayed: true })
    }
}
