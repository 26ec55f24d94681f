//! Lists of orders, newest first.

use chrono::{DateTime, Utc};
use sqlx::PgConnection;

use super::Order;
use crate::{
    domain::{
        ids::{AddressId, CustomerId, OrderId},
        money::Currency,
        order::OrderStatus,
    },
    store::{Page, StoreError},
};

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
