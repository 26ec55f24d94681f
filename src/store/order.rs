//! Orders with their lines and history.

use chrono::{DateTime, Utc};
use sqlx::PgConnection;

use super::StoreError;
use crate::domain::{
    ids::{AddressId, CustomerId, FlashSaleId, OrderId, ProductId},
    money::{Currency, Money},
    order::{OrderEventReason, OrderStatus},
};

#[derive(Clone, Debug)]
pub struct Order {
    pub id: OrderId,
    pub number: String,
    pub customer_id: CustomerId,
    pub status: OrderStatus,
    pub version: i32,
    pub total_minor: i64,
    pub currency: Currency,
    pub address_id: Option<AddressId>,
    pub delivery_note_sealed: Option<Vec<u8>>,
    pub payment_method: Option<String>,
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
}

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
    let rows = sqlx::query_as!(
        Order,
        r#"SELECT id AS "id: OrderId", number, customer_id AS "customer_id: CustomerId", status AS "status: OrderStatus", version,
                  total_minor, currency AS "currency: Currency", address_id AS "address_id: AddressId", delivery_note_sealed,
                  payment_method, hold_ends_at(orders) AS "hold_ends_at: DateTime<Utc>", created_at, updated_at
             FROM orders
            WHERE id = ANY($1)"#,
        ids as _,
    );
    Ok(rows.fetch_all(db).await?)
}

/// The orders with these ids, locked until the transaction ends, in the order of their ids: the lock order of every writer.
pub async fn lock_by_ids(db: &mut PgConnection, ids: &[OrderId]) -> Result<Vec<Order>, StoreError> {
    let rows = sqlx::query_as!(
        Order,
        r#"SELECT id AS "id: OrderId", number, customer_id AS "customer_id: CustomerId", status AS "status: OrderStatus", version,
                  total_minor, currency AS "currency: Currency", address_id AS "address_id: AddressId", delivery_note_sealed,
                  payment_method, hold_ends_at(orders) AS "hold_ends_at: DateTime<Utc>", created_at, updated_at
             FROM orders
            WHERE id = ANY($1)
            ORDER BY id
              FOR UPDATE"#,
        ids as _,
    );
    Ok(rows.fetch_all(db).await?)
}

/// Unpaid orders whose hold is over (paused time added), locked; those that others have locked are left to them. Whether a
/// payment of theirs is under way is for a later statement, whose snapshot is younger than the locks.
pub async fn lock_ended_holds(db: &mut PgConnection, now: DateTime<Utc>, limit: i64) -> Result<Vec<OrderId>, StoreError> {
    let ids = sqlx::query_scalar!(
        r#"SELECT id AS "id: OrderId"
             FROM orders o
            WHERE status IN ('AWAITING_PAYMENT', 'EXPIRING') AND hold_expires_at <= $1
              AND hold_ends_at(created_at, hold_expires_at, $1) <= $1
              AND NOT EXISTS (SELECT 1 FROM payment p
                               WHERE p.order_id = o.id AND p.status IN ('PENDING', 'PROCESSING', 'REQUIRES_ACTION', 'UNKNOWN'))
            ORDER BY hold_expires_at
            LIMIT $2
              FOR UPDATE SKIP LOCKED"#,
        now,
        limit,
    );
    Ok(ids.fetch_all(db).await?)
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

/// Counts a change that is not one of the status, so that subscribers are told. Call with the rows locked.
pub async fn update_version(db: &mut PgConnection, ids: &[OrderId], at: DateTime<Utc>) -> Result<Vec<(OrderId, CustomerId)>, StoreError> {
    let rows = sqlx::query!(
        r#"UPDATE orders SET version = version + 1, updated_at = $2 WHERE id = ANY($1)
        RETURNING id AS "id: OrderId", customer_id AS "customer_id: CustomerId""#,
        ids as _,
        at,
    )
    .fetch_all(db)
    .await?;
    Ok(rows.into_iter().map(|row| (row.id, row.customer_id)).collect())
}

/// One step of an order, already checked against the state table.
#[derive(Clone, Debug)]
pub struct Step {
    pub order: OrderId,
    pub from_version: i32,
    pub to: OrderStatus,
    pub reason: Option<OrderEventReason>,
    /// For people; never personal data.
    pub note: Option<String>,
}

/// Writes the steps: status, version and history. Call with the rows locked; a row whose version moved on is an error.
/// The payment method is forgotten, unless the order waits for payment still.
pub async fn update_status(db: &mut PgConnection, steps: &[Step], at: DateTime<Utc>) -> Result<(), StoreError> {
    let updated = sqlx::query!(
        "WITH step AS (
             SELECT * FROM unnest($1::uuid[], $2::integer[], $3::text[], $4::text[], $5::text[]) AS s (id, version, status, reason_code, reason)
         ), moved AS (
             UPDATE orders o
                SET status = s.status, version = o.version + 1, updated_at = $6,
                    payment_method = CASE WHEN s.status IN ('AWAITING_PAYMENT', 'EXPIRING') THEN o.payment_method END
               FROM step s
              WHERE o.id = s.id AND o.version = s.version
          RETURNING o.id, o.version
         )
         INSERT INTO order_event (order_id, version, status, reason_code, reason, at)
         SELECT m.id, m.version, s.status, s.reason_code, s.reason, $6 FROM moved m JOIN step s ON s.id = m.id",
        &steps.iter().map(|step| step.order.0).collect::<Vec<_>>(),
        &steps.iter().map(|step| step.from_version).collect::<Vec<_>>(),
        &steps.iter().map(|step| step.to.as_str().to_owned()).collect::<Vec<_>>(),
        &steps.iter().map(|step| step.reason.map(|reason| reason.as_str().to_owned())).collect::<Vec<_>>() as _,
        &steps.iter().map(|step| step.note.clone()).collect::<Vec<_>>() as _,
        at,
    )
    .execute(db)
    .await?;
    if updated.rows_affected() == steps.len() as u64 { Ok(()) } else { Err(StoreError::Missing("order at the version that was locked")) }
}
