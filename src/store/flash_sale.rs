//! Flash sales and their live numbers.

use chrono::{DateTime, Utc};
use sqlx::PgConnection;

use super::{Page, StoreError, expect_one};
use crate::domain::{
    flash_sale::{FlashSalePhase, SaleUnits, SaleWindow},
    ids::{CustomerId, FlashSaleId, ProductId},
    money::{Currency, Money},
};

#[derive(Clone, Debug)]
pub struct FlashSale {
    pub id: FlashSaleId,
    pub product_id: ProductId,
    pub price_minor: i64,
    pub currency: Currency,
    pub opens_at: DateTime<Utc>,
    pub closes_at: DateTime<Utc>,
    pub total_units: i32,
    pub per_customer_limit: i32,
    pub hold_seconds: i32,
    pub units_ready: bool,
    pub cancelled: bool,
    /// Sums of the sale's counters when the row was read.
    pub claimed: i64,
    pub sold: i64,
}

impl FlashSale {
    #[must_use]
    pub const fn price(&self) -> Money {
        Money::new(self.price_minor, self.currency)
    }

    #[must_use]
    pub const fn window(&self) -> SaleWindow {
        SaleWindow { opens_at: self.opens_at, closes_at: self.closes_at, units_ready: self.units_ready, cancelled: self.cancelled }
    }

    #[must_use]
    pub fn units(&self) -> SaleUnits {
        let sum = |value: i64| i32::try_from(value).unwrap_or(self.total_units);
        SaleUnits { total: self.total_units, claimed: sum(self.claimed), sold: sum(self.sold) }
    }

    #[must_use]
    pub fn phase(&self, now: DateTime<Utc>) -> FlashSalePhase {
        FlashSalePhase::at(now, self.window(), self.units())
    }
}

/// A sale's place in the listing: by opening, then id.
#[derive(Clone, Copy, Debug)]
pub struct FlashSalePosition {
    pub opens_at: DateTime<Utc>,
    pub id: FlashSaleId,
}

/// One page of the sales that are in one of `phases` at `now` (all when empty), by opening.
pub async fn list(
    db: &mut PgConnection,
    phases: &[FlashSalePhase],
    now: DateTime<Utc>,
    after: Option<FlashSalePosition>,
    size: usize,
) -> Result<Page<FlashSale>, StoreError> {
    let rows = sqlx::query_as!(
        FlashSale,
        r#"SELECT s.id AS "id!: FlashSaleId", s.product_id AS "product_id!: ProductId", s.price_minor AS "price_minor!",
                  s.currency AS "currency!: Currency", s.opens_at AS "opens_at!", s.closes_at AS "closes_at!",
                  s.total_units AS "total_units!", s.per_customer_limit AS "per_customer_limit!", s.hold_seconds AS "hold_seconds!",
                  s.units_ready_at IS NOT NULL AS "units_ready!", s.cancelled_at IS NOT NULL AS "cancelled!",
                  s.claimed AS "claimed!", s.sold AS "sold!"
             FROM flash_sale_live s
            WHERE (cardinality($1::text[]) = 0 OR flash_sale_phase(s, $2) = ANY($1))
              AND ($3::timestamptz IS NULL OR (s.opens_at, s.id) > ($3, $4::uuid))
            ORDER BY s.opens_at, s.id
            LIMIT $5"#,
        names(phases) as _,
        now,
        after.map(|position| position.opens_at),
        after.map(|position| position.id) as _,
        i64::try_from(size).unwrap_or(i64::MAX).saturating_add(1),
    )
    .fetch_all(db)
    .await?;
    Ok(Page::from_surplus(rows, size))
}

/// How many sales are in one of `phases` at `now`.
pub async fn count(db: &mut PgConnection, phases: &[FlashSalePhase], now: DateTime<Utc>) -> Result<i64, StoreError> {
    let count = sqlx::query_scalar!(
        r#"SELECT count(*) AS "count!" FROM flash_sale_live s WHERE cardinality($1::text[]) = 0 OR flash_sale_phase(s, $2) = ANY($1)"#,
        names(phases) as _,
        now,
    );
    Ok(count.fetch_one(db).await?)
}

fn names(phases: &[FlashSalePhase]) -> Vec<&'static str> {
    phases.iter().map(|phase| phase.as_str()).collect()
}

/// The sales with these ids, in no particular order.
pub async fn list_by_ids(db: &mut PgConnection, ids: &[FlashSaleId]) -> Result<Vec<FlashSale>, StoreError> {
    let rows = sqlx::query_as!(
        FlashSale,
        r#"SELECT s.id AS "id!: FlashSaleId", s.product_id AS "product_id!: ProductId", s.price_minor AS "price_minor!",
                  s.currency AS "currency!: Currency", s.opens_at AS "opens_at!", s.closes_at AS "closes_at!",
                  s.total_units AS "total_units!", s.per_customer_limit AS "per_customer_limit!", s.hold_seconds AS "hold_seconds!",
                  s.units_ready_at IS NOT NULL AS "units_ready!", s.cancelled_at IS NOT NULL AS "cancelled!",
                  s.claimed AS "claimed!", s.sold AS "sold!"
             FROM flash_sale_live s
            WHERE s.id = ANY($1)"#,
        ids as _,
    );
    Ok(rows.fetch_all(db).await?)
}

/// For each product the sale that is open at `now`, or else the next one scheduled.
pub async fn list_current_for_products(
    db: &mut PgConnection,
    products: &[ProductId],
    now: DateTime<Utc>,
) -> Result<Vec<FlashSale>, StoreError> {
    let rows = sqlx::query_as!(
        FlashSale,
        r#"SELECT DISTINCT ON (s.product_id)
                  s.id AS "id!: FlashSaleId", s.product_id AS "product_id!: ProductId", s.price_minor AS "price_minor!",
                  s.currency AS "currency!: Currency", s.opens_at AS "opens_at!", s.closes_at AS "closes_at!",
                  s.total_units AS "total_units!", s.per_customer_limit AS "per_customer_limit!", s.hold_seconds AS "hold_seconds!",
                  s.units_ready_at IS NOT NULL AS "units_ready!", s.cancelled_at IS NOT NULL AS "cancelled!",
                  s.claimed AS "claimed!", s.sold AS "sold!"
             FROM flash_sale_live s
            WHERE s.product_id = ANY($1) AND s.cancelled_at IS NULL AND s.closes_at > $2
            ORDER BY s.product_id, s.opens_at"#,
        products as _,
        now,
    );
    Ok(rows.fetch_all(db).await?)
}

/// Units that the customers hold or have bought, per sale; pairs without a row are zero.
pub async fn list_viewer_units(
    db: &mut PgConnection,
    customer: CustomerId,
    sales: &[FlashSaleId],
) -> Result<Vec<(FlashSaleId, i32)>, StoreError> {
    let rows = sqlx::query!(
        r#"SELECT sale_id AS "sale_id: FlashSaleId", held FROM purchase_quota WHERE customer_id = $1 AND sale_id = ANY($2)"#,
        customer as _,
        sales as _,
    )
    .fetch_all(db)
    .await?;
    Ok(rows.into_iter().map(|row| (row.sale_id, row.held)).collect())
}

/// A sale without a free unit.
pub struct SoldOut {
    pub sale: FlashSale,
    /// Orders ever made in it.
    pub orders: i64,
    /// Customers with an order in it; `None` when there are as many orders as the caller knew of.
    pub buyers: Option<Vec<CustomerId>>,
}

/// The sale if no unit of it is free, with its buyers, all in one snapshot.
pub async fn find_sold_out(db: &mut PgConnection, id: FlashSaleId, known_orders: Option<i64>) -> Result<Option<SoldOut>, StoreError> {
    let row = sqlx::query!(
        r#"SELECT s.product_id AS "product_id!: ProductId", s.price_minor AS "price_minor!", s.currency AS "currency!: Currency",
                  s.opens_at AS "opens_at!", s.closes_at AS "closes_at!", s.total_units AS "total_units!",
                  s.per_customer_limit AS "per_customer_limit!", s.hold_seconds AS "hold_seconds!",
                  s.units_ready_at IS NOT NULL AS "units_ready!", s.cancelled_at IS NOT NULL AS "cancelled!",
                  s.claimed AS "claimed!", s.sold AS "sold!", s.orders AS "orders!",
                  CASE WHEN s.orders IS DISTINCT FROM $2
                       THEN ARRAY(SELECT customer_id FROM purchase_quota q WHERE q.sale_id = s.id AND q.orders > 0)
                  END AS "buyers: Vec<CustomerId>"
             FROM flash_sale_live s
            WHERE s.id = $1 AND s.units_ready_at IS NOT NULL AND s.cancelled_at IS NULL
              AND NOT EXISTS (SELECT 1 FROM stock_unit u WHERE u.sale_id = s.id AND u.order_id IS NULL)"#,
        id as _,
        known_orders,
    )
    .fetch_optional(db)
    .await?;
    Ok(row.map(|row| SoldOut {
        sale: FlashSale {
            id,
            product_id: row.product_id,
            price_minor: row.price_minor,
            currency: row.currency,
            opens_at: row.opens_at,
            closes_at: row.closes_at,
            total_units: row.total_units,
            per_customer_limit: row.per_customer_limit,
            hold_seconds: row.hold_seconds,
            units_ready: row.units_ready,
            cancelled: row.cancelled,
            claimed: row.claimed,
            sold: row.sold,
        },
        orders: row.orders,
        buyers: row.buyers,
    }))
}

/// Sales that are open, have just closed, or open within a day: what a server keeps in memory.
pub async fn list_live(db: &mut PgConnection, now: DateTime<Utc>) -> Result<Vec<FlashSale>, StoreError> {
    let rows = sqlx::query_as!(
        FlashSale,
        r#"SELECT s.id AS "id!: FlashSaleId", s.product_id AS "product_id!: ProductId", s.price_minor AS "price_minor!",
                  s.currency AS "currency!: Currency", s.opens_at AS "opens_at!", s.closes_at AS "closes_at!",
                  s.total_units AS "total_units!", s.per_customer_limit AS "per_customer_limit!", s.hold_seconds AS "hold_seconds!",
                  s.units_ready_at IS NOT NULL AS "units_ready!", s.cancelled_at IS NOT NULL AS "cancelled!",
                  s.claimed AS "claimed!", s.sold AS "sold!"
             FROM flash_sale_live s
            WHERE s.closes_at > $1::timestamptz - interval '1 minute' AND s.opens_at < $1::timestamptz + interval '1 day' AND s.cancelled_at IS NULL"#,
        now,
    );
    Ok(rows.fetch_all(db).await?)
}

/// Sales whose units are not all there yet, by their opening; cancelled ones last, whose units are made to go back.
pub async fn list_without_units(db: &mut PgConnection) -> Result<Vec<FlashSaleId>, StoreError> {
    let ids = sqlx::query_scalar!(
        r#"SELECT id AS "id: FlashSaleId" FROM flash_sale WHERE units_ready_at IS NULL ORDER BY cancelled_at IS NOT NULL, opens_at"#
    );
    Ok(ids.fetch_all(db).await?)
}

/// How many units a sale is to have whose units are not all there yet, its row locked until the transaction ends.
pub async fn lock_without_units(db: &mut PgConnection, sale: FlashSaleId) -> Result<Option<i32>, StoreError> {
    let units =
        sqlx::query_scalar!("SELECT total_units FROM flash_sale WHERE id = $1 AND units_ready_at IS NULL FOR NO KEY UPDATE", sale as _,);
    Ok(units.fetch_optional(db).await?)
}

/// The highest unit row of a sale; 0 when there is none.
pub async fn get_last_unit(db: &mut PgConnection, sale: FlashSaleId) -> Result<i32, StoreError> {
    let last = sqlx::query_scalar!(r#"SELECT coalesce(max(seq), 0) AS "last!" FROM stock_unit WHERE sale_id = $1"#, sale as _);
    Ok(last.fetch_one(db).await?)
}

pub struct NewFlashSale {
    pub id: FlashSaleId,
    pub product: ProductId,
    pub price: Money,
    pub opens_at: DateTime<Utc>,
    pub closes_at: DateTime<Utc>,
    pub units: i32,
    pub per_customer_limit: i32,
    pub hold_seconds: i32,
}

/// The constraint that allows one sale of a product at a time.
pub const NO_OVERLAP: &str = "flash_sale_no_overlap";

/// Inserts a sale that has no units yet, so it does not open.
pub async fn insert(db: &mut PgConnection, sale: &NewFlashSale, at: DateTime<Utc>) -> Result<(), StoreError> {
    sqlx::query!(
        "INSERT INTO flash_sale (id, product_id, price_minor, currency, opens_at, closes_at, total_units, per_customer_limit, hold_seconds, created_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
        sale.id as _,
        sale.product as _,
        sale.price.minor,
        sale.price.currency as _,
        sale.opens_at,
        sale.closes_at,
        sale.units,
        sale.per_customer_limit,
        sale.hold_seconds,
        at,
    )
    .execute(db)
    .await?;
    Ok(())
}

/// Inserts the unit rows `from..=to`. Call with the sale's row locked.
pub async fn insert_units(db: &mut PgConnection, sale: FlashSaleId, from: i32, to: i32) -> Result<(), StoreError> {
    sqlx::query!(
        "INSERT INTO stock_unit (sale_id, seq) SELECT $1, seq FROM generate_series($2::integer, $3::integer) AS seq",
        sale as _,
        from,
        to,
    )
    .execute(db)
    .await?;
    Ok(())
}

/// Lets a sale open: all its units are there. Call with the row locked.
pub async fn update_units_ready(db: &mut PgConnection, sale: FlashSaleId, at: DateTime<Utc>) -> Result<(), StoreError> {
    let updated = sqlx::query!("UPDATE flash_sale SET units_ready_at = $2 WHERE id = $1", sale as _, at);
    expect_one(updated.execute(db).await?.rows_affected(), "flash sale")
}

/// Cancels a sale that has not closed at `at`; false when there is none, or it is cancelled already.
pub async fn update_cancelled(db: &mut PgConnection, sale: FlashSaleId, reason: &str, at: DateTime<Utc>) -> Result<bool, StoreError> {
    let updated = sqlx::query!(
        "UPDATE flash_sale SET cancelled_at = $3, cancel_reason = $2 WHERE id = $1 AND cancelled_at IS NULL AND closes_at > $3",
        sale as _,
        reason,
        at,
    );
    Ok(updated.execute(db).await?.rows_affected() == 1)
}

/// A sale in which nothing is sold any more, while units of it may be free.
pub struct SaleOver {
    pub id: FlashSaleId,
    pub product_id: ProductId,
    pub total_units: i32,
    /// Why it was cancelled; of one that has closed there is none.
    pub cancel_reason: Option<String>,
}

/// Sales that have closed or were cancelled, as far as their free units have not all gone back.
pub async fn list_over(db: &mut PgConnection, now: DateTime<Utc>) -> Result<Vec<SaleOver>, StoreError> {
    let rows = sqlx::query_as!(
        SaleOver,
        r#"SELECT id AS "id: FlashSaleId", product_id AS "product_id: ProductId", total_units, cancel_reason
             FROM flash_sale
            WHERE units_returned_at IS NULL AND units_ready_at IS NOT NULL AND (closes_at <= $1 OR cancelled_at IS NOT NULL)
            ORDER BY closes_at, id"#,
        now,
    );
    Ok(rows.fetch_all(db).await?)
}

/// Deletes free units of a sale, at most `limit`; how many there were. A unit that is just being bought is left to its buyer.
pub async fn delete_free_units(db: &mut PgConnection, sale: FlashSaleId, limit: i64) -> Result<i32, StoreError> {
    let deleted = sqlx::query!(
        "DELETE FROM stock_unit
          WHERE sale_id = $1
            AND seq = ANY (ARRAY(SELECT seq FROM stock_unit WHERE sale_id = $1 AND order_id IS NULL LIMIT $2 FOR UPDATE SKIP LOCKED))",
        sale as _,
        limit,
    );
    Ok(i32::try_from(deleted.execute(db).await?.rows_affected()).unwrap_or(i32::MAX))
}

/// Whether all free units of a sale that is over have gone back; of a cancelled one, not before its open orders are called off. A unit that
/// is just being bought still counts as free.
pub async fn is_emptied(db: &mut PgConnection, sale: FlashSaleId) -> Result<bool, StoreError> {
    let is_emptied = sqlx::query_scalar!(r#"SELECT is_emptied(s) AS "is_emptied!" FROM flash_sale s WHERE id = $1"#, sale as _);
    Ok(is_emptied.fetch_one(db).await?)
}

/// Locks a sale's row until the transaction ends. Whoever is just releasing units of the sale is waited for.
pub async fn lock(db: &mut PgConnection, sale: FlashSaleId) -> Result<(), StoreError> {
    sqlx::query!("SELECT 1 AS one FROM flash_sale WHERE id = $1 FOR UPDATE", sale as _).fetch_one(db).await?;
    Ok(())
}

/// Says that a sale is emptied, if it is. Call with the row locked.
pub async fn update_units_returned(db: &mut PgConnection, sale: FlashSaleId, at: DateTime<Utc>) -> Result<(), StoreError> {
    sqlx::query!("UPDATE flash_sale s SET units_returned_at = $2 WHERE s.id = $1 AND is_emptied(s)", sale as _, at,).execute(db).await?;
    Ok(())
}
