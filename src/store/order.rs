//! Orders with their lines and history.

use chrono::{DateTime, TimeDelta, Utc};
use sqlx::PgConnection;
use uuid::Uuid;

use super::{Page, StoreError, expect_one};
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

/// What a list of orders is narrowed to; all of them when nothing is said.
#[derive(Clone, Debug, Default)]
pub struct OrderFilter {
    pub customer: Option<CustomerId>,
    pub statuses: Vec<OrderStatus>,
    pub created_from: Option<DateTime<Utc>>,
    /// Not included.
    pub created_to: Option<DateTime<Utc>>,
    pub min_total_minor: Option<i64>,
    pub max_total_minor: Option<i64>,
    pub flash_sale_only: bool,
    pub number: Option<String>,
}

/// An order's place in a list.
#[derive(Clone, Copy, Debug)]
pub struct OrderPosition {
    pub created_at: DateTime<Utc>,
    pub id: OrderId,
}

/// One page of orders, newest first.
pub async fn list(
    db: &mut PgConnection,
    filter: &OrderFilter,
    after: Option<OrderPosition>,
    size: usize,
) -> Result<Page<Order>, StoreError> {
    let rows = select_orders!(
        "WHERE ($1::uuid IS NULL OR o.customer_id = $1)
           AND (cardinality($2::text[]) = 0 OR o.status = ANY($2))
           AND ($3::timestamptz IS NULL OR o.created_at >= $3)
           AND ($4::timestamptz IS NULL OR o.created_at < $4)
           AND ($5::bigint IS NULL OR o.total_minor >= $5)
           AND ($6::bigint IS NULL OR o.total_minor <= $6)
           AND (NOT $7 OR EXISTS (SELECT FROM order_line l WHERE l.order_id = o.id AND l.flash_sale_id IS NOT NULL))
           AND ($8::text IS NULL OR o.number = $8)
           AND ($9::timestamptz IS NULL OR (o.created_at, o.id) < ($9, $10::uuid))
         ORDER BY o.created_at DESC, o.id DESC
         LIMIT $11",
        filter.customer as _,
        &filter.statuses as _,
        filter.created_from,
        filter.created_to,
        filter.min_total_minor,
        filter.max_total_minor,
        filter.flash_sale_only,
        filter.number.as_deref(),
        after.map(|position| position.created_at),
        after.map(|position| position.id) as _,
        i64::try_from(size + 1).unwrap_or(i64::MAX),
    );
    Ok(Page::from_surplus(rows.fetch_all(db).await?, size))
}

pub async fn count(db: &mut PgConnection, filter: &OrderFilter) -> Result<i64, StoreError> {
    let count = sqlx::query_scalar!(
        r#"SELECT count(*) AS "count!" FROM orders o
            WHERE ($1::uuid IS NULL OR o.customer_id = $1)
              AND (cardinality($2::text[]) = 0 OR o.status = ANY($2))
              AND ($3::timestamptz IS NULL OR o.created_at >= $3)
              AND ($4::timestamptz IS NULL OR o.created_at < $4)
              AND ($5::bigint IS NULL OR o.total_minor >= $5)
              AND ($6::bigint IS NULL OR o.total_minor <= $6)
              AND (NOT $7 OR EXISTS (SELECT FROM order_line l WHERE l.order_id = o.id AND l.flash_sale_id IS NOT NULL))
              AND ($8::text IS NULL OR o.number = $8)"#,
        filter.customer as _,
        &filter.statuses as _,
        filter.created_from,
        filter.created_to,
        filter.min_total_minor,
        filter.max_total_minor,
        filter.flash_sale_only,
        filter.number.as_deref(),
    );
    Ok(count.fetch_one(db).await?)
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
