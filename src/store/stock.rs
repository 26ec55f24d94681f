//! Stock: movements, and what orders take and give back. (Purchases take their units by `buy_now`, see purchase.rs.)

use chrono::{DateTime, Utc};
use sqlx::PgConnection;

use super::{Page, StoreError};
use crate::domain::{
    ids::{FlashSaleId, OrderId, ProductId, StockMovementId},
    stock::StockMovementKind,
};

pub struct NewMovement<'a> {
    pub kind: StockMovementKind,
    pub quantity: i32,
    pub product: ProductId,
    pub sale: Option<FlashSaleId>,
    pub reason: Option<&'a str>,
}

pub async fn insert_movement(db: &mut PgConnection, movement: &NewMovement<'_>, at: DateTime<Utc>) -> Result<(), StoreError> {
    sqlx::query!(
        "INSERT INTO stock_movement (id, kind, quantity, product_id, flash_sale_id, reason, at) VALUES ($1, $2, $3, $4, $5, $6, $7)",
        StockMovementId::new() as _,
        movement.kind as _,
        movement.quantity,
        movement.product as _,
        movement.sale as _,
        movement.reason,
        at,
    )
    .execute(db)
    .await?;
    Ok(())
}

/// What became of a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claim {
    Claimed,
    OutOfStock,
    LimitReached,
    NotOpen,
    /// Others hold locks on the last units just now.
    Contended,
}

/// Takes everything that the lines of an order ask for, by the SQL function `claim_order`. When the answer is not `Claimed`, a part
/// may be taken: roll back. A new order is counted with its sales, and its sales must be open; for an order that claims anew,
/// `needs_open` says whether they must. Call with the order's row locked or new.
pub async fn claim_order(
    db: &mut PgConnection,
    order: OrderId,
    slot: i16,
    is_new: bool,
    needs_open: bool,
    at: DateTime<Utc>,
) -> Result<Claim, StoreError> {
    let outcome =
        sqlx::query_scalar!(r#"SELECT claim_order($1, $2, $3, $4, $5) AS "outcome!""#, order as _, slot, is_new, is_new || needs_open, at);
    Ok(match outcome.fetch_one(db).await?.as_str() {
        "CLAIMED" => Claim::Claimed,
        "OUT_OF_STOCK" => Claim::OutOfStock,
        "LIMIT_REACHED" => Claim::LimitReached,
        "NOT_OPEN" => Claim::NotOpen,
        "CONTENDED" => Claim::Contended,
        _ => return Err(StoreError::Missing("outcome of claim_order by this name")),
    })
}

/// Gives what these orders hold back: units, quota and counters of sales, ordinary stock, and a movement each. What an order
/// does not hold (any more) is left alone, so that twice is once: a flash line holds while it has units, an ordinary one while
/// its movements add up to less than nothing. Units of a sale that is over and emptied go to the ordinary stock at once. Call with the
/// orders' rows locked.
///
/// `kind` says why: `Released` before the goods have left, `Returned` when they are back.
pub async fn release_units(
    db: &mut PgConnection,
    orders: &[OrderId],
    kind: StockMovementKind,
    slot: i16,
    at: DateTime<Utc>,
) -> Result<(), StoreError> {
    // Sales before quotas: while units come free here, nobody may find that none is, see `update_units_returned`.
    sqlx::query!(
        "SELECT 1 AS one
           FROM flash_sale s
          WHERE s.id IN (SELECT flash_sale_id FROM order_line WHERE order_id = ANY($1))
          ORDER BY s.id
            FOR SHARE",
        orders as _,
    )
    .fetch_all(&mut *db)
    .await?;
    // Quotas before units, by (sale, customer): the lock order of every writer.
    sqlx::query!(
        "SELECT 1 AS one
           FROM purchase_quota q
          WHERE (q.sale_id, q.customer_id) IN (
                    SELECT l.flash_sale_id, o.customer_id FROM orders o JOIN order_line l ON l.order_id = o.id
                     WHERE o.id = ANY($1) AND l.flash_sale_id IS NOT NULL)
          ORDER BY q.sale_id, q.customer_id
            FOR UPDATE",
        orders as _,
    )
    .fetch_all(&mut *db)
    .await?;
    // Then products, by id, as a claim does; the counters come last.
    sqlx::query!(
        "SELECT 1 AS one
           FROM product
          WHERE id IN (SELECT l.product_id FROM order_line l LEFT JOIN flash_sale s ON s.id = l.flash_sale_id
                        WHERE l.order_id = ANY($1) AND (l.flash_sale_id IS NULL OR s.units_returned_at IS NOT NULL))
          ORDER BY id
            FOR NO KEY UPDATE",
        orders as _,
    )
    .fetch_all(&mut *db)
    .await?;
    sqlx::query!(
        "WITH emptied AS (
             SELECT s.id FROM flash_sale s
              WHERE s.units_returned_at IS NOT NULL AND s.id IN (SELECT flash_sale_id FROM order_line WHERE order_id = ANY($1))
         ), freed AS (
             UPDATE stock_unit SET order_id = NULL WHERE order_id = ANY($1) AND sale_id NOT IN (SELECT id FROM emptied)
         ), gone AS (
             DELETE FROM stock_unit WHERE order_id = ANY($1) AND sale_id IN (SELECT id FROM emptied)
         ), line AS (
             SELECT l.order_id, l.flash_sale_id, l.product_id, o.customer_id, l.quantity,
                    l.flash_sale_id IS NULL AS is_ordinary, l.flash_sale_id IN (SELECT id FROM emptied) AS is_deallocated,
                    EXISTS (SELECT 1 FROM payment p
                             WHERE p.order_id = l.order_id AND p.status IN ('CAPTURED', 'PARTLY_REFUNDED', 'REFUNDED')) AS was_sold
               FROM order_line l
               JOIN orders o ON o.id = l.order_id
              WHERE l.order_id = ANY($1)
                AND CASE WHEN l.flash_sale_id IS NOT NULL
                         THEN EXISTS (SELECT 1 FROM stock_unit u WHERE u.order_id = l.order_id AND u.sale_id = l.flash_sale_id)
                         ELSE (SELECT sum(m.quantity) FROM stock_movement m
                                WHERE m.order_id = l.order_id AND m.product_id = l.product_id AND m.flash_sale_id IS NULL) < 0 END
         ), quota AS (
             UPDATE purchase_quota q
                SET held = q.held - x.quantity
               FROM (SELECT flash_sale_id, customer_id, sum(quantity) AS quantity FROM line WHERE flash_sale_id IS NOT NULL GROUP BY 1, 2) x
              WHERE q.sale_id = x.flash_sale_id AND q.customer_id = x.customer_id
         ), counter AS (
             INSERT INTO sale_counter (sale_id, slot, claimed, sold)
             SELECT flash_sale_id, $2::smallint, -sum(quantity), -sum(CASE WHEN was_sold THEN quantity ELSE 0 END)
               FROM line WHERE flash_sale_id IS NOT NULL GROUP BY 1 ORDER BY 1
                 ON CONFLICT (sale_id, slot) DO UPDATE
                    SET claimed = sale_counter.claimed + excluded.claimed, sold = sale_counter.sold + excluded.sold
         ), stock AS (
             UPDATE product p
                SET available = p.available + x.quantity
               FROM (SELECT product_id, sum(quantity) AS quantity FROM line WHERE is_ordinary OR is_deallocated GROUP BY 1) x
              WHERE p.id = x.product_id
         )
         INSERT INTO stock_movement (id, kind, quantity, product_id, flash_sale_id, order_id, at)
         SELECT gen_random_uuid(), $4::text, quantity, product_id, flash_sale_id, order_id, $3::timestamptz FROM line
          UNION ALL
         SELECT gen_random_uuid(), 'DEALLOCATED', quantity, product_id, flash_sale_id, order_id, $3 FROM line WHERE is_deallocated",
        orders as _,
        slot,
        at,
        kind as _,
    )
    .execute(db)
    .await?;
    Ok(())
}

/// Counts the units of these orders as sold, with a movement each. Call once per order, in the transaction that pays it.
pub async fn record_sold(db: &mut PgConnection, orders: &[OrderId], slot: i16, at: DateTime<Utc>) -> Result<(), StoreError> {
    sqlx::query!(
        "WITH line AS (
             SELECT l.order_id, l.flash_sale_id, l.product_id, l.quantity
               FROM unnest($1::uuid[]) AS x (order_id)
              CROSS JOIN LATERAL (SELECT * FROM order_line WHERE order_id = x.order_id ORDER BY position) l
         ), counter AS (
             INSERT INTO sale_counter (sale_id, slot, sold)
             SELECT flash_sale_id, $2::smallint, sum(quantity) FROM line WHERE flash_sale_id IS NOT NULL GROUP BY 1 ORDER BY 1
                 ON CONFLICT (sale_id, slot) DO UPDATE SET sold = sale_counter.sold + excluded.sold
         )
         INSERT INTO stock_movement (id, kind, quantity, product_id, flash_sale_id, order_id, at)
         SELECT gen_random_uuid(), 'SOLD', 0, product_id, flash_sale_id, order_id, $3 FROM line",
        orders as _,
        slot,
        at,
    )
    .execute(db)
    .await?;
    Ok(())
}

#[derive(Clone, Debug)]
pub struct StockMovement {
    pub id: StockMovementId,
    pub kind: StockMovementKind,
    pub quantity: i32,
    pub product_id: ProductId,
    pub flash_sale_id: Option<FlashSaleId>,
    pub order_id: Option<OrderId>,
    pub reason: Option<String>,
    pub at: DateTime<Utc>,
}

/// What a list of movements is narrowed to; all of them when nothing is said.
#[derive(Clone, Copy, Debug, Default)]
pub struct StockMovementFilter {
    pub product: Option<ProductId>,
    pub sale: Option<FlashSaleId>,
}

/// A movement's place in a list.
#[derive(Clone, Copy, Debug)]
pub struct StockMovementPosition {
    pub at: DateTime<Utc>,
    pub id: StockMovementId,
}

/// One page of movements, newest first.
pub async fn list_movements(
    db: &mut PgConnection,
    filter: StockMovementFilter,
    after: Option<StockMovementPosition>,
    size: usize,
) -> Result<Page<StockMovement>, StoreError> {
    let rows = sqlx::query_as!(
        StockMovement,
        r#"SELECT id AS "id: StockMovementId", kind AS "kind: StockMovementKind", quantity, product_id AS "product_id: ProductId",
                  flash_sale_id AS "flash_sale_id: FlashSaleId", order_id AS "order_id: OrderId", reason, at
             FROM stock_movement
            WHERE ($1::uuid IS NULL OR product_id = $1)
              AND ($2::uuid IS NULL OR flash_sale_id = $2)
              AND ($3::timestamptz IS NULL OR (at, id) < ($3, $4::uuid))
            ORDER BY at DESC, id DESC
            LIMIT $5"#,
        filter.product as _,
        filter.sale as _,
        after.map(|position| position.at),
        after.map(|position| position.id) as _,
        i64::try_from(size + 1).unwrap_or(i64::MAX),
    );
    Ok(Page::from_surplus(rows.fetch_all(db).await?, size))
}

pub async fn count_movements(db: &mut PgConnection, filter: StockMovementFilter) -> Result<i64, StoreError> {
    let count = sqlx::query_scalar!(
        r#"SELECT count(*) AS "count!" FROM stock_movement
            WHERE ($1::uuid IS NULL OR product_id = $1) AND ($2::uuid IS NULL OR flash_sale_id = $2)"#,
        filter.product as _,
        filter.sale as _,
    );
    Ok(count.fetch_one(db).await?)
}

pub async fn find_movement(db: &mut PgConnection, id: StockMovementId) -> Result<Option<StockMovement>, StoreError> {
    let row = sqlx::query_as!(
        StockMovement,
        r#"SELECT id AS "id: StockMovementId", kind AS "kind: StockMovementKind", quantity, product_id AS "product_id: ProductId",
                  flash_sale_id AS "flash_sale_id: FlashSaleId", order_id AS "order_id: OrderId", reason, at
             FROM stock_movement
            WHERE id = $1"#,
        id as _,
    );
    Ok(row.fetch_optional(db).await?)
}
