//! Orders with their lines and history; `listing.rs` has the lists of them, `change.rs` what is written.

use chrono::{DateTime, Utc};
use sqlx::PgConnection;
use uuid::Uuid;

use super::StoreError;
use crate::domain::{
    ids::{AddressId, CustomerId, FlashSaleId, OrderId, ProductId},
    money::{Currency, Money},
    order::{OrderEventReason, OrderState, OrderStatus},
};

#[derive(Clone, Debug)]
pub struct Order {
    pub id: OrderId,
    pub number: String,
    pub customer_id: CustomerId,
    pub status: OrderStatus,
    /// Where an order in review was before.
    pub status_before_review: Option<OrderStatus>,
    /// Why it is in review; for staff.
    pub review_reason: Option<String>,
    pub version: i32,
    pub total_minor: i64,
    pub currency: Currency,
    pub address_id: Option<AddressId>,
    pub delivery_note_sealed: Option<Vec<u8>>,
    pub payment_method: Option<String>,
    pub tracking_number: Option<String>,
    /// When its units are free again if it is not paid: the hold's end, and while the order is unpaid the paused time with it.
    pub hold_ends_at: Option<DateTime<Utc>>,
    pub created_at: DateTime<Utc>,
    pub updated_at: DateTime<Utc>,
}

impl Order {
    #[must_use]
    pub const fn total(&self) -> Money {
        Money::new(self.total_minor, self.currency)
    }

    /// Where it stands, or stood before a review: what is sent again in spite of the review goes on from there.
    #[must_use]
    pub fn stage(&self) -> OrderStatus {
        self.status_before_review.unwrap_or(self.status)
    }

    #[must_use]
    pub const fn state(&self) -> OrderState {
        OrderState { status: self.status, before_review: self.status_before_review }
    }
}

/// Orders with all their columns; what follows FROM is the caller's.
macro_rules! select_orders {
    ($tail:literal $(, $argument:expr)* $(,)?) => {
        sqlx::query_as!(
            Order,
            r#"SELECT o.id AS "id: OrderId", o.number, o.customer_id AS "customer_id: CustomerId", o.status AS "status: OrderStatus",
                      o.status_before_review AS "status_before_review: OrderStatus", o.review_reason, o.version, o.total_minor,
                      o.currency AS "currency: Currency", o.address_id AS "address_id: AddressId", o.delivery_note_sealed, o.payment_method,
                      o.tracking_number, hold_ends_at(o) AS "hold_ends_at: DateTime<Utc>", o.created_at, o.updated_at
                 FROM orders o "# + $tail
            $(, $argument)*
        )
    };
}

mod change;
mod listing;

pub use self::{
    change::{
        NewLine, NewOrder, Step, erase, insert, update_address, update_for_retry, update_status, update_tracking_number, update_version,
    },
    listing::{OrderFilter, OrderPosition, count, list},
};

#[derive(Clone, Debug)]
pub struct OrderLine {
    pub order_id: OrderId,
    pub product_id: ProductId,
    pub flash_sale_id: Option<FlashSaleId>,
    pub title: String,
    pub quantity: i32,
    pub unit_price_minor: i64,
}

#[derive(Clone, Debug)]
pub struct OrderEvent {
    pub order_id: OrderId,
    pub status: OrderStatus,
    pub reason_code: Option<OrderEventReason>,
    pub reason: Option<String>,
    pub at: DateTime<Utc>,
}

/// The orders with these ids, in no particular order.
pub async fn list_by_ids(db: &mut PgConnection, ids: &[OrderId]) -> Result<Vec<Order>, StoreError> {
    Ok(select_orders!("WHERE o.id = ANY($1)", ids as _).fetch_all(db).await?)
}

/// Of the orders with these ids the ones of `customer`; staff ask without one and get all.
pub async fn list_visible(db: &mut PgConnection, ids: &[OrderId], customer: Option<CustomerId>) -> Result<Vec<Order>, StoreError> {
    let orders = select_orders!("WHERE o.id = ANY($1) AND ($2::uuid IS NULL OR o.customer_id = $2)", ids as _, customer as _);
    Ok(orders.fetch_all(db).await?)
}

/// The orders with these ids, locked until the transaction ends, in the order of their ids: the lock order of every writer.
pub async fn lock_by_ids(db: &mut PgConnection, ids: &[OrderId]) -> Result<Vec<Order>, StoreError> {
    Ok(select_orders!("WHERE o.id = ANY($1) ORDER BY o.id FOR UPDATE", ids as _).fetch_all(db).await?)
}

/// The order with this id, locked until the transaction ends; `None` when there is none, or it is not `customer`'s. Staff ask
/// without a customer.
pub async fn lock(db: &mut PgConnection, id: OrderId, customer: Option<CustomerId>) -> Result<Option<Order>, StoreError> {
    let order = select_orders!("WHERE o.id = $1 AND ($2::uuid IS NULL OR o.customer_id = $2) FOR UPDATE", id as _, customer as _);
    Ok(order.fetch_optional(db).await?)
}

/// Unpaid orders whose hold is over (paused time added), locked; those that others have locked are left to them. Orders that
/// are EXPIRING already wait for a payment and are not among them. Whether a payment is under way is for a later statement, whose
/// snapshot is younger than the locks.
pub async fn lock_ended_holds(db: &mut PgConnection, now: DateTime<Utc>, limit: i64) -> Result<Vec<Order>, StoreError> {
    let orders = select_orders!(
        "WHERE o.status = 'AWAITING_PAYMENT' AND o.hold_expires_at <= $1 AND hold_ends_at(o.created_at, o.hold_expires_at, $1) <= $1
         ORDER BY o.hold_expires_at
         LIMIT $2
           FOR UPDATE SKIP LOCKED",
        now,
        limit,
    );
    Ok(orders.fetch_all(db).await?)
}

/// Orders in this state that have not changed since `changed_before`, locked; those that others have locked are left to them.
pub async fn lock_unchanged(
    db: &mut PgConnection,
    status: OrderStatus,
    changed_before: DateTime<Utc>,
    limit: i64,
) -> Result<Vec<Order>, StoreError> {
    let orders = select_orders!(
        "WHERE o.status = $1 AND o.updated_at <= $2
         ORDER BY o.created_at
         LIMIT $3
           FOR UPDATE SKIP LOCKED",
        status as _,
        changed_before,
        limit,
    );
    Ok(orders.fetch_all(db).await?)
}

/// Orders with units of a sale that can still be called off, by their units after `last`, at most `limit` units; each with its highest unit
/// among those.
pub async fn list_open_in_sale(db: &mut PgConnection, sale: FlashSaleId, last: i32, limit: i64) -> Result<Vec<(OrderId, i32)>, StoreError> {
    let rows = sqlx::query!(
        r#"SELECT order_id AS "id!: OrderId", max(seq) AS "last!"
             FROM (SELECT u.order_id, u.seq
                     FROM stock_unit u
                     JOIN orders o ON o.id = u.order_id
                    WHERE u.sale_id = $1 AND u.seq > $2 AND o.status IN ('AWAITING_PAYMENT', 'PAID', 'PREPARING')
                    ORDER BY u.seq
                    LIMIT $3) open
            GROUP BY order_id"#,
        sale as _,
        last,
        limit,
    )
    .fetch_all(db)
    .await?;
    Ok(rows.into_iter().map(|row| (row.id, row.last)).collect())
}

/// Those of these orders that can still be called off, locked in the order of their ids.
pub async fn lock_open(db: &mut PgConnection, ids: &[OrderId]) -> Result<Vec<Order>, StoreError> {
    let orders = select_orders!(
        "WHERE o.id = ANY($1) AND o.status IN ('AWAITING_PAYMENT', 'PAID', 'PREPARING') ORDER BY o.id FOR UPDATE",
        ids as _,
    );
    Ok(orders.fetch_all(db).await?)
}

/// A customer's newest orders with their versions: what a subscription compares.
pub async fn list_versions_for_customers(
    db: &mut PgConnection,
    customers: &[CustomerId],
    per_customer: i64,
) -> Result<Vec<(OrderId, CustomerId, i32)>, StoreError> {
    let rows = sqlx::query!(
        r#"SELECT o.id AS "id!: OrderId", c.customer_id AS "customer_id!: CustomerId", o.version AS "version!"
             FROM unnest($1::uuid[]) AS c (customer_id)
             JOIN LATERAL (SELECT id, version, created_at FROM orders
                            WHERE customer_id = c.customer_id ORDER BY created_at DESC, id DESC LIMIT $2) o ON true
            ORDER BY o.created_at, o.id"#,
        customers as _,
        per_customer,
    )
    .fetch_all(db)
    .await?;
    Ok(rows.into_iter().map(|row| (row.id, row.customer_id, row.version)).collect())
}

/// One number per customer that rises with every change of any of the newest `per_customer` orders: their count and versions,
/// added up.
pub async fn list_changes_for_customers(
    db: &mut PgConnection,
    customers: &[CustomerId],
    per_customer: i64,
) -> Result<Vec<(CustomerId, i64)>, StoreError> {
    let rows = sqlx::query!(
        r#"SELECT c.customer_id AS "customer_id!: CustomerId", o.changes AS "changes!"
             FROM unnest($1::uuid[]) AS c (customer_id)
            CROSS JOIN LATERAL (SELECT count(*) + coalesce(sum(version), 0) AS changes
                                  FROM (SELECT version FROM orders
                                         WHERE customer_id = c.customer_id ORDER BY created_at DESC, id DESC LIMIT $2) n) o"#,
        customers as _,
        per_customer,
    )
    .fetch_all(db)
    .await?;
    Ok(rows.into_iter().map(|row| (row.customer_id, row.changes)).collect())
}

/// Versions of single orders.
pub async fn list_versions(db: &mut PgConnection, ids: &[OrderId]) -> Result<Vec<(OrderId, CustomerId, i32)>, StoreError> {
    let rows = sqlx::query!(
        r#"SELECT id AS "id: OrderId", customer_id AS "customer_id: CustomerId", version FROM orders WHERE id = ANY($1)"#,
        ids as _,
    )
    .fetch_all(db)
    .await?;
    Ok(rows.into_iter().map(|row| (row.id, row.customer_id, row.version)).collect())
}

pub async fn list_lines(db: &mut PgConnection, orders: &[OrderId]) -> Result<Vec<OrderLine>, StoreError> {
    let rows = sqlx::query_as!(
        OrderLine,
        r#"SELECT order_id AS "order_id: OrderId", product_id AS "product_id: ProductId", flash_sale_id AS "flash_sale_id: FlashSaleId",
                  title, quantity, unit_price_minor
             FROM order_line
            WHERE order_id = ANY($1)
            ORDER BY order_id, position"#,
        orders as _,
    );
    Ok(rows.fetch_all(db).await?)
}

/// The history of each order, oldest first.
pub async fn list_events(db: &mut PgConnection, orders: &[OrderId]) -> Result<Vec<OrderEvent>, StoreError> {
    let rows = sqlx::query_as!(
        OrderEvent,
        r#"SELECT order_id AS "order_id: OrderId", status AS "status: OrderStatus", reason_code AS "reason_code: OrderEventReason", reason, at
             FROM order_event
            WHERE order_id = ANY($1)
            ORDER BY order_id, version"#,
        orders as _,
    );
    Ok(rows.fetch_all(db).await?)
}

/// Keeps a customer from buying, and others from changing the customer's orders, until the transaction ends; false when somebody is
/// just doing so. By the SQL function `lock_purchases`. Call with the customer's row locked.
pub async fn lock_purchases(db: &mut PgConnection, customer: CustomerId) -> Result<bool, StoreError> {
    Ok(sqlx::query_scalar!(r#"SELECT lock_purchases($1) AS "locked!""#, customer as _).fetch_one(db).await?)
}

/// Whether the customer has an order that may go on by itself, or one whose money is still moving.
pub async fn has_unfinished(db: &mut PgConnection, customer: CustomerId) -> Result<bool, StoreError> {
    let unfinished = sqlx::query_scalar!(
        r#"SELECT EXISTS (
               SELECT FROM orders o
                WHERE o.customer_id = $1
                  AND (o.status NOT IN ('DELIVERED', 'PAYMENT_FAILED', 'CANCELLED', 'EXPIRED', 'REFUNDED', 'PARTLY_REFUNDED')
                       OR EXISTS (SELECT FROM payment p
                                   WHERE p.order_id = o.id AND p.status IN ('PENDING', 'PROCESSING', 'REQUIRES_ACTION', 'UNKNOWN'))
                       OR EXISTS (SELECT FROM refund r WHERE r.order_id = o.id AND r.status IN ('REQUESTED', 'UNKNOWN')))) AS "unfinished!""#,
        customer as _,
    );
    Ok(unfinished.fetch_one(db).await?)
}

/// The order that a key made, with the hash of what was asked for under it.
pub async fn find_by_key(
    db: &mut PgConnection,
    customer: CustomerId,
    mutation: &str,
    key: Uuid,
) -> Result<Option<(OrderId, Vec<u8>)>, StoreError> {
    let row = sqlx::query!(
        r#"SELECT id AS "id: OrderId", request_hash FROM orders WHERE customer_id = $1 AND mutation = $2 AND idempotency_key = $3"#,
        customer as _,
        mutation,
        key,
    );
    Ok(row.fetch_optional(db).await?.map(|row| (row.id, row.request_hash)))
}
