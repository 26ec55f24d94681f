//! Making orders and changing them.

use chrono::{DateTime, TimeDelta, Utc};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::{
    domain::{
        ids::{AddressId, CustomerId, FlashSaleId, OrderId, ProductId},
        money::Money,
        order::{OrderEventReason, OrderStatus},
    },
    store::{StoreError, expect_one},
};

pub struct NewOrder<'a> {
    pub id: OrderId,
    pub number: String,
    pub customer: CustomerId,
    pub total: Money,
    pub mutation: &'static str,
    pub idempotency_key: Uuid,
    pub request_hash: &'a [u8],
    pub address: Option<AddressId>,
    pub delivery_note_sealed: Option<Vec<u8>>,
    pub payment_method: &'a str,
    pub hold_expires_at: DateTime<Utc>,
}

pub struct NewLine {
    pub product: ProductId,
    pub flash_sale: Option<FlashSaleId>,
    pub title: String,
    pub quantity: i32,
    pub unit_price_minor: i64,
}

/// Inserts an order that awaits payment, with its lines and the first line of its history. Its units are claimed next, in the
/// same transaction.
pub async fn insert(db: &mut PgConnection, order: &NewOrder<'_>, lines: &[NewLine], at: DateTime<Utc>) -> Result<(), StoreError> {
    sqlx::query!(
        "INSERT INTO orders (id, number, customer_id, status, version, total_minor, currency, mutation, idempotency_key, request_hash,
                             address_id, delivery_note_sealed, payment_method, hold_expires_at, created_at, updated_at)
         VALUES ($1, $2, $3, 'AWAITING_PAYMENT', 1, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $13)",
        order.id as _,
        order.number,
        order.customer as _,
        order.total.minor,
        order.total.currency as _,
        order.mutation,
        order.idempotency_key,
        order.request_hash,
        order.address as _,
        order.delivery_note_sealed.as_deref(),
        order.payment_method,
        order.hold_expires_at,
        at,
    )
    .execute(&mut *db)
    .await?;
    sqlx::query!(
        "INSERT INTO order_line (order_id, position, product_id, flash_sale_id, title, quantity, unit_price_minor)
         SELECT $1, l.position, l.product_id, l.flash_sale_id, l.title, l.quantity, l.unit_price_minor
           FROM unnest($2::uuid[], $3::uuid[], $4::text[], $5::integer[], $6::bigint[]) WITH ORDINALITY
                AS l (product_id, flash_sale_id, title, quantity, unit_price_minor, position)",
        order.id as _,
        &lines.iter().map(|line| line.product.0).collect::<Vec<_>>(),
        &lines.iter().map(|line| line.flash_sale).collect::<Vec<_>>() as _,
        &lines.iter().map(|line| line.title.clone()).collect::<Vec<_>>(),
        &lines.iter().map(|line| line.quantity).collect::<Vec<_>>(),
        &lines.iter().map(|line| line.unit_price_minor).collect::<Vec<_>>(),
    )
    .execute(&mut *db)
    .await?;
    sqlx::query!("INSERT INTO order_event (order_id, version, status, at) VALUES ($1, 1, 'AWAITING_PAYMENT', $2)", order.id as _, at)
        .execute(db)
        .await?;
    Ok(())
}

/// Counts a change that is not one of the status, so that subscribers are told. Call with the rows locked.
pub async fn update_version(db: &mut PgConnection, ids: &[OrderId], at: DateTime<Utc>) -> Result<Vec<(OrderId, CustomerId)>, StoreError> {
    if ids.is_empty() {
        return Ok(Vec::new());
    }
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
    /// For people: as somebody typed it for the order's history, or words of ours.
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
                    status_before_review = CASE WHEN s.status = 'IN_REVIEW' THEN o.status END,
                    review_reason = CASE WHEN s.status = 'IN_REVIEW' THEN s.reason END,
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

/// Gives an order that claims its units anew the payment method of the next try and a hold from `at` on: the shortest of its lines'
/// holds, `ordinary` for ordinary stock. Call with the row locked.
pub async fn update_for_retry(
    db: &mut PgConnection,
    id: OrderId,
    payment_method: &str,
    at: DateTime<Utc>,
    ordinary: TimeDelta,
) -> Result<(), StoreError> {
    let updated = sqlx::query!(
        "UPDATE orders
            SET payment_method = $2,
                hold_expires_at = $3::timestamptz + make_interval(secs => (
                    SELECT min(coalesce(s.hold_seconds, $4::double precision))
                      FROM order_line l LEFT JOIN flash_sale s ON s.id = l.flash_sale_id WHERE l.order_id = $1))
          WHERE id = $1",
        id as _,
        payment_method,
        at,
        ordinary.as_seconds_f64(),
    );
    expect_one(updated.execute(db).await?.rows_affected(), "order")
}

/// Sends an order somewhere else. Call with the row locked.
pub async fn update_address(
    db: &mut PgConnection,
    id: OrderId,
    address: AddressId,
    delivery_note_sealed: Option<&[u8]>,
    at: DateTime<Utc>,
) -> Result<(), StoreError> {
    let updated = sqlx::query!(
        "UPDATE orders SET address_id = $2, delivery_note_sealed = coalesce($3, delivery_note_sealed), version = version + 1, updated_at = $4
          WHERE id = $1",
        id as _,
        address as _,
        delivery_note_sealed,
        at,
    );
    expect_one(updated.execute(db).await?.rows_affected(), "order")
}

/// Notes the parcel's number. Call with the row locked.
pub async fn update_tracking_number(db: &mut PgConnection, id: OrderId, tracking_number: &str) -> Result<(), StoreError> {
    let updated = sqlx::query!("UPDATE orders SET tracking_number = $2 WHERE id = $1", id as _, tracking_number);
    expect_one(updated.execute(db).await?.rows_affected(), "order")
}

/// Erases what a customer wrote into orders, and counts it as a change of each of them. Call with the rows locked.
pub async fn erase(db: &mut PgConnection, customer: CustomerId, at: DateTime<Utc>) -> Result<Vec<OrderId>, StoreError> {
    // The reason of a cancellation is that of its refund too.
    sqlx::query!(
        "UPDATE refund r SET reason = NULL
           FROM orders o
           JOIN order_event e ON e.order_id = o.id AND e.reason_code = 'CUSTOMER'
          WHERE o.customer_id = $1 AND r.order_id = o.id AND r.reason = e.reason",
        customer as _,
    )
    .execute(&mut *db)
    .await?;
    sqlx::query!(
        "UPDATE order_event e SET reason = NULL
           FROM orders o
          WHERE o.customer_id = $1 AND e.order_id = o.id AND e.reason_code = 'CUSTOMER' AND e.reason IS NOT NULL",
        customer as _,
    )
    .execute(&mut *db)
    .await?;
    let orders = sqlx::query_scalar!(
        r#"UPDATE orders SET delivery_note_sealed = NULL, version = version + 1, updated_at = $2
            WHERE customer_id = $1 RETURNING id AS "id: OrderId""#,
        customer as _,
        at,
    );
    Ok(orders.fetch_all(db).await?)
}
