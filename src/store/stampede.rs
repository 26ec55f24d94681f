//! What the database says about a stampede's sale, asked independently of the counters and quotas that the program keeps.

use sqlx::PgConnection;
use uuid::Uuid;

use super::StoreError;
use crate::domain::ids::FlashSaleId;

/// A sale, counted from its orders.
#[derive(Clone, Copy, Debug, Default)]
pub struct SaleCount {
    pub total_units: i64,
    pub orders: i64,
    pub paid_orders: i64,
    /// Units of orders that are live or paid.
    pub units_sold: i64,
    /// Customers whose live and paid orders have more units than the sale's limit.
    pub customers_over_limit: i64,
}

/// Reads all orders of the sale: for the end of a stampede, not for its middle.
pub async fn get_count(db: &mut PgConnection, sale: FlashSaleId) -> Result<SaleCount, StoreError> {
    let row = sqlx::query_as!(
        SaleCount,
        r#"WITH bought AS (
               SELECT o.customer_id, o.status, l.quantity,
                      o.status IN ('AWAITING_PAYMENT', 'EXPIRING', 'CANCELLING', 'PAID', 'PREPARING', 'SHIPPED', 'DELIVERED',
                                   'RETURN_REQUESTED') AS counts
                 FROM order_line l JOIN orders o ON o.id = l.order_id
                WHERE l.flash_sale_id = $1
           )
           SELECT s.total_units::bigint AS "total_units!",
                  (SELECT count(*) FROM bought) AS "orders!",
                  (SELECT count(*) FROM bought WHERE status = 'PAID') AS "paid_orders!",
                  (SELECT coalesce(sum(quantity), 0) FROM bought WHERE counts) AS "units_sold!",
                  (SELECT count(*) FROM (SELECT FROM bought WHERE counts
                                          GROUP BY customer_id HAVING sum(quantity) > s.per_customer_limit) c) AS "customers_over_limit!"
             FROM flash_sale s
            WHERE s.id = $1"#,
        sale as _,
    )
    .fetch_optional(db)
    .await?;
    row.ok_or(StoreError::Missing("sale of a stampede"))
}

/// How many of these orders do not exist.
pub async fn count_missing_orders(db: &mut PgConnection, orders: &[Uuid]) -> Result<i64, StoreError> {
    let count = sqlx::query_scalar!(
        r#"SELECT count(*) AS "count!" FROM unnest($1::uuid[]) AS x (id) WHERE NOT EXISTS (SELECT FROM orders o WHERE o.id = x.id)"#,
        orders,
    );
    Ok(count.fetch_one(db).await?)
}

/// Orders of the sale that wait for their payment. Reads open orders only.
pub async fn count_unsettled(db: &mut PgConnection, sale: FlashSaleId) -> Result<i64, StoreError> {
    let count = sqlx::query_scalar!(
        r#"SELECT count(*) AS "count!"
             FROM orders o
            WHERE o.status IN ('AWAITING_PAYMENT', 'EXPIRING')
              AND EXISTS (SELECT FROM order_line l WHERE l.order_id = o.id AND l.flash_sale_id = $1)"#,
        sale as _,
    );
    Ok(count.fetch_one(db).await?)
}

/// Transactions that were committed in this database, as far as its sessions have told them: 10 s late at the most.
pub async fn count_transactions(db: &mut PgConnection) -> Result<i64, StoreError> {
    let count = sqlx::query_scalar!(r#"SELECT xact_commit AS "count!" FROM pg_stat_database WHERE datname = current_database()"#);
    Ok(count.fetch_one(db).await?)
}
