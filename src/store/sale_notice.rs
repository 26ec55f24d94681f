//! How far the mails about sales are written.

use chrono::{DateTime, Utc};
use sqlx::PgConnection;

use super::StoreError;
use crate::domain::{
    flash_sale::SaleNotice,
    ids::{CustomerId, FlashSaleId, ProductId},
    money::{Currency, Money},
};

pub struct DueNotice {
    pub sale: FlashSaleId,
    pub product: ProductId,
    pub title: String,
    pub price: Money,
    pub opens_at: DateTime<Utc>,
    pub notice: SaleNotice,
    /// Everybody up to this one has been written to.
    pub last_customer: Option<CustomerId>,
}

/// The most urgent notice that is not finished, of a sale that is still to open: that it opens when it does so until
/// `soon`, otherwise that it is scheduled. Whoever calls the sale off waits until the transaction ends.
pub async fn lock_due(db: &mut PgConnection, now: DateTime<Utc>, soon: DateTime<Utc>) -> Result<Option<DueNotice>, StoreError> {
    let row = sqlx::query!(
        r#"SELECT s.id AS "sale: FlashSaleId", s.product_id AS "product: ProductId", p.title, s.price_minor, s.currency AS "currency: Currency",
                  s.opens_at, k.notice AS "notice!: SaleNotice", n.last_customer AS "last_customer?: CustomerId"
             FROM flash_sale s
             JOIN product p ON p.id = s.product_id
            CROSS JOIN LATERAL (SELECT CASE WHEN s.opens_at <= $2 THEN 'OPENING' ELSE 'SCHEDULED' END AS notice) k
             LEFT JOIN sale_notice n ON n.sale_id = s.id AND n.kind = k.notice
            WHERE s.opens_at > $1 AND s.cancelled_at IS NULL AND n.finished_at IS NULL
            ORDER BY s.opens_at, s.id
            LIMIT 1
              FOR SHARE OF s"#,
        now,
        soon,
    )
    .fetch_optional(db)
    .await?;
    Ok(row.map(|row| DueNotice {
        sale: row.sale,
        product: row.product,
        title: row.title,
        price: Money::new(row.price_minor, row.currency),
        opens_at: row.opens_at,
        notice: row.notice,
        last_customer: row.last_customer,
    }))
}

/// Remembers up to whom a notice is written, and since when it is finished.
pub async fn save(
    db: &mut PgConnection,
    due: &DueNotice,
    last_customer: Option<CustomerId>,
    finished_at: Option<DateTime<Utc>>,
) -> Result<(), StoreError> {
    sqlx::query!(
        "INSERT INTO sale_notice (sale_id, kind, last_customer, finished_at) VALUES ($1, $2, $3, $4)
             ON CONFLICT (sale_id, kind) DO UPDATE SET last_customer = excluded.last_customer, finished_at = excluded.finished_at",
        due.sale as _,
        due.notice as _,
        last_customer as _,
        finished_at,
    )
    .execute(db)
    .await?;
    Ok(())
}
