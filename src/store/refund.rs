//! Refunds: one row per way back for money.

use chrono::{DateTime, Utc};
use sqlx::PgConnection;

use super::{StoreError, expect_one};
use crate::domain::{
    ids::{CustomerId, OrderId, PaymentId, RefundId},
    money::{Currency, Money},
    payment::RefundStatus,
};

#[derive(Clone, Debug)]
pub struct Refund {
    pub id: RefundId,
    pub payment_id: PaymentId,
    pub order_id: OrderId,
    pub status: RefundStatus,
    pub amount_minor: i64,
    pub currency: Currency,
    pub reason: Option<String>,
    /// The goods are back: they can be sold again once the money has gone.
    pub restock: bool,
    pub created_at: DateTime<Utc>,
}

impl Refund {
    #[must_use]
    pub const fn amount(&self) -> Money {
        Money::new(self.amount_minor, self.currency)
    }
}

/// Of the refunds with these ids the ones of orders of `customer`; staff ask without one and get all.
pub async fn list_visible(db: &mut PgConnection, ids: &[RefundId], customer: Option<CustomerId>) -> Result<Vec<Refund>, StoreError> {
    let rows = sqlx::query_as!(
        Refund,
        r#"SELECT id AS "id: RefundId", payment_id AS "payment_id: PaymentId", order_id AS "order_id: OrderId", status AS "status: RefundStatus",
                  amount_minor, currency AS "currency: Currency", reason, restock, created_at
             FROM refund r
            WHERE id = ANY($1)
              AND ($2::uuid IS NULL OR EXISTS (SELECT 1 FROM orders o WHERE o.id = r.order_id AND o.customer_id = $2))"#,
        ids as _,
        customer as _,
    );
    Ok(rows.fetch_all(db).await?)
}

/// The refunds of these payments, oldest first.
pub async fn list_for_payments(db: &mut PgConnection, payments: &[PaymentId]) -> Result<Vec<Refund>, StoreError> {
    let rows = sqlx::query_as!(
        Refund,
        r#"SELECT id AS "id: RefundId", payment_id AS "payment_id: PaymentId", order_id AS "order_id: OrderId", status AS "status: RefundStatus",
                  amount_minor, currency AS "currency: Currency", reason, restock, created_at
             FROM refund
            WHERE payment_id = ANY($1)
            ORDER BY created_at, id"#,
        payments as _,
    );
    Ok(rows.fetch_all(db).await?)
}

/// A refund that is still to be carried out, and the provider's id of the payment it is of.
pub async fn find_open(db: &mut PgConnection, id: RefundId) -> Result<Option<(Refund, String)>, StoreError> {
    let row = sqlx::query!(
        r#"SELECT r.id AS "id: RefundId", r.payment_id AS "payment_id: PaymentId", r.order_id AS "order_id: OrderId", r.status AS "status: RefundStatus",
                  r.amount_minor, r.currency AS "currency: Currency", r.reason, r.restock, r.created_at, p.provider_reference AS "reference!"
             FROM refund r
             JOIN payment p ON p.id = r.payment_id
            WHERE r.id = $1 AND r.status IN ('REQUESTED', 'UNKNOWN')"#,
        id as _,
    )
    .fetch_optional(db)
    .await?;
    Ok(row.map(|row| {
        let refund = Refund {
            id: row.id,
            payment_id: row.payment_id,
            order_id: row.order_id,
            status: row.status,
            amount_minor: row.amount_minor,
            currency: row.currency,
            reason: row.reason,
            restock: row.restock,
            created_at: row.created_at,
        };
        (refund, row.reference)
    }))
}

/// Asks for money back: the refund's row, and its amount set aside on the payment. The payment's constraint refuses more than
/// was captured. Call with the order's row locked.
pub async fn insert(db: &mut PgConnection, refund: &Refund) -> Result<(), StoreError> {
    let updated = sqlx::query!(
        "UPDATE payment SET refunding_minor = refunding_minor + $2, updated_at = $3 WHERE id = $1",
        refund.payment_id as _,
        refund.amount_minor,
        refund.created_at,
    );
    expect_one(updated.execute(&mut *db).await?.rows_affected(), "payment")?;
    sqlx::query!(
        "INSERT INTO refund (id, payment_id, order_id, status, amount_minor, currency, reason, restock, created_at, updated_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $9)",
        refund.id as _,
        refund.payment_id as _,
        refund.order_id as _,
        refund.status as _,
        refund.amount_minor,
        refund.currency as _,
        refund.reason,
        refund.restock,
        refund.created_at,
    )
    .execute(db)
    .await?;
    Ok(())
}

/// The money has gone back: the refund and its payment say so. (A charge beside the order's payment stays the failed try that it is.) False when that was known already. Call with the order's row
/// locked.
pub async fn update_succeeded(db: &mut PgConnection, id: RefundId, reference: &str, at: DateTime<Utc>) -> Result<bool, StoreError> {
    let settled = sqlx::query!(
        "WITH settled AS (
             UPDATE refund SET status = 'SUCCEEDED', provider_reference = $2, updated_at = $3
              WHERE id = $1 AND status IN ('REQUESTED', 'UNKNOWN')
          RETURNING payment_id, amount_minor
         )
         UPDATE payment p
            SET refunded_minor = p.refunded_minor + s.amount_minor, refunding_minor = p.refunding_minor - s.amount_minor, updated_at = $3,
                status = CASE WHEN p.status NOT IN ('CAPTURED', 'PARTLY_REFUNDED') THEN p.status
                              WHEN p.refunded_minor + s.amount_minor = p.amount_minor THEN 'REFUNDED'
                              ELSE 'PARTLY_REFUNDED' END
           FROM settled s
          WHERE p.id = s.payment_id",
        id as _,
        reference,
        at,
    );
    Ok(settled.execute(db).await?.rows_affected() == 1)
}

/// Whether it went back is not known. Call with the order's row locked.
pub async fn update_unknown(db: &mut PgConnection, id: RefundId, at: DateTime<Utc>) -> Result<(), StoreError> {
    sqlx::query!("UPDATE refund SET status = 'UNKNOWN', updated_at = $2 WHERE id = $1 AND status = 'REQUESTED'", id as _, at)
        .execute(db)
        .await?;
    Ok(())
}
