//! Other designs of the purchase, as people build them: one statement per table in a transaction per purchase. Only for
//! comparison, called by src/stampede/rivals.rs; the program itself sells by `buy_now` alone.
//!
//! They write the same rows, and are spared what `buy_now` checks besides: window, verified address, delivery address.

use serde_json::json;
use sqlx::PgConnection;
use uuid::Uuid;

use super::{StoreError, queue::Queue};
use crate::domain::{
    ids::{CustomerId, FlashSaleId, OrderId, ProductId, StockMovementId},
    money::Currency,
    order::order_number,
};

/// What every purchase of one sale copies into its rows.
#[derive(Clone, Debug)]
pub struct SaleTerms {
    pub sale: FlashSaleId,
    pub product: ProductId,
    pub title: String,
    pub price_minor: i64,
    pub currency: Currency,
    pub per_customer_limit: i32,
}

pub async fn get_terms(db: &mut PgConnection, sale: FlashSaleId) -> Result<SaleTerms, StoreError> {
    let terms = sqlx::query_as!(
        SaleTerms,
        r#"SELECT s.id AS "sale: FlashSaleId", s.product_id AS "product: ProductId", p.title, s.price_minor,
                  s.currency AS "currency: Currency", s.per_customer_limit
             FROM flash_sale s JOIN product p ON p.id = s.product_id
            WHERE s.id = $1"#,
        sale as _,
    );
    terms.fetch_optional(db).await?.ok_or(StoreError::Missing("sale of a comparison"))
}

/// One purchase of one customer.
#[derive(Clone, Copy, Debug)]
pub struct Wanted {
    pub order: OrderId,
    pub customer: CustomerId,
    pub quantity: i32,
}

/// Makes the counter that the sale is sold from, in a table that only a measurement has; hence no checked queries here.
pub async fn insert_counter(db: &mut PgConnection, sale: FlashSaleId, units: i32) -> Result<(), StoreError> {
    sqlx::raw_sql("CREATE TABLE IF NOT EXISTS rival_counter (sale_id uuid PRIMARY KEY, remaining integer NOT NULL CHECK (remaining >= 0))")
        .execute(&mut *db)
        .await?;
    sqlx::query("INSERT INTO rival_counter (sale_id, remaining) VALUES ($1, $2)").bind(sale).bind(units).execute(db).await?;
    Ok(())
}

/// What is left, the row locked until the transaction ends.
pub async fn lock_counter(db: &mut PgConnection, sale: FlashSaleId) -> Result<i32, StoreError> {
    let remaining = sqlx::query_scalar("SELECT remaining FROM rival_counter WHERE sale_id = $1 FOR UPDATE").bind(sale);
    Ok(remaining.fetch_one(db).await?)
}

pub async fn take_from_counter(db: &mut PgConnection, sale: FlashSaleId, quantity: i32) -> Result<(), StoreError> {
    let take = sqlx::query("UPDATE rival_counter SET remaining = remaining - $2 WHERE sale_id = $1").bind(sale).bind(quantity);
    take.execute(db).await?;
    Ok(())
}

/// Gives free units to the order, and says how many it got.
pub async fn claim_units(db: &mut PgConnection, sale: FlashSaleId, wanted: &Wanted) -> Result<u64, StoreError> {
    let claim = sqlx::query!(
        "UPDATE stock_unit u
            SET order_id = $2
           FROM (SELECT seq FROM stock_unit WHERE sale_id = $1 AND order_id IS NULL ORDER BY seq LIMIT $3 FOR UPDATE SKIP LOCKED) free
          WHERE u.sale_id = $1 AND u.seq = free.seq",
        sale as _,
        wanted.order as _,
        i64::from(wanted.quantity),
    );
    Ok(claim.execute(db).await?.rows_affected())
}

/// Counts against the customer's limit; false when it is full.
pub async fn take_quota(db: &mut PgConnection, terms: &SaleTerms, wanted: &Wanted) -> Result<bool, StoreError> {
    let take = sqlx::query!(
        "INSERT INTO purchase_quota AS q (sale_id, customer_id, held, purchase_limit, orders) VALUES ($1, $2, $3, $4, 1)
             ON CONFLICT (sale_id, customer_id) DO UPDATE SET held = q.held + excluded.held, orders = q.orders + 1
          WHERE q.held + excluded.held <= q.purchase_limit",
        terms.sale as _,
        wanted.customer as _,
        wanted.quantity,
        terms.per_customer_limit,
    );
    Ok(take.execute(db).await?.rows_affected() == 1)
}

/// Order, line, history, movement and the payment's message: a statement each.
pub async fn insert_order(db: &mut PgConnection, terms: &SaleTerms, wanted: &Wanted) -> Result<(), StoreError> {
    sqlx::query!(
        "INSERT INTO orders (id, number, customer_id, status, version, total_minor, currency, mutation, idempotency_key, request_hash,
                             payment_method, hold_expires_at, created_at, updated_at)
         VALUES ($1, $2, $3, 'AWAITING_PAYMENT', 1, $4, $5, 'buyNow', $6, $7, 'pm_card_visa', now() + interval '5 minutes', now(), now())",
        wanted.order as _,
        order_number(rand::random()),
        wanted.customer as _,
        terms.price_minor * i64::from(wanted.quantity),
        terms.currency as _,
        Uuid::new_v4(),
        &[0_u8; 32][..],
    )
    .execute(&mut *db)
    .await?;
    sqlx::query!(
        "INSERT INTO order_line (order_id, position, product_id, flash_sale_id, title, quantity, unit_price_minor)
         VALUES ($1, 1, $2, $3, $4, $5, $6)",
        wanted.order as _,
        terms.product as _,
        terms.sale as _,
        terms.title,
        wanted.quantity,
        terms.price_minor,
    )
    .execute(&mut *db)
    .await?;
    sqlx::query!("INSERT INTO order_event (order_id, version, status, at) VALUES ($1, 1, 'AWAITING_PAYMENT', now())", wanted.order as _)
        .execute(&mut *db)
        .await?;
    sqlx::query!(
        "INSERT INTO stock_movement (id, kind, quantity, product_id, flash_sale_id, order_id, at)
         VALUES ($1, 'RESERVED', $2, $3, $4, $5, now())",
        StockMovementId::new() as _,
        -wanted.quantity,
        terms.product as _,
        terms.sale as _,
        wanted.order as _,
    )
    .execute(&mut *db)
    .await?;
    let message = json!({ "v": 1, "kind": "pay", "id": wanted.order.0, "trace": null });
    sqlx::query!("SELECT pgmq.send($1, $2)", Queue::Payment.as_str(), message).fetch_one(db).await?;
    Ok(())
}
