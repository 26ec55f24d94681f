//! Comparisons with the provider's list of charges, and what they found.

use chrono::{DateTime, TimeDelta, Utc};
use sqlx::PgConnection;

use super::StoreError;
use crate::domain::{
    ids::{OrderId, PaymentId},
    money::Currency,
    payment::PaymentStatus,
    reconciliation::BreakKind,
};

/// What a payment says about money.
#[derive(Clone, Debug)]
pub struct Booked {
    pub id: PaymentId,
    pub order_id: OrderId,
    pub reference: String,
    pub status: PaymentStatus,
    pub amount_minor: i64,
    pub refunded_minor: i64,
    pub refunding_minor: i64,
    pub currency: Currency,
    pub created_at: DateTime<Utc>,
}

#[derive(Clone, Debug)]
pub struct Break {
    pub kind: BreakKind,
    /// The provider's id of the payment.
    pub reference: String,
    pub payment_id: Option<PaymentId>,
    pub order_id: Option<OrderId>,
    pub currency: String,
    pub ours_minor: i64,
    pub theirs_minor: i64,
    pub made_at: DateTime<Utc>,
}

/// A comparison that came to its end.
#[derive(Clone, Debug)]
pub struct Reconciliation {
    pub created_from: DateTime<Utc>,
    pub created_to: DateTime<Utc>,
    pub charges: i64,
    pub payments: i64,
    pub breaks: i64,
}

/// The payments with these references.
pub async fn list_by_references(db: &mut PgConnection, references: &[String]) -> Result<Vec<Booked>, StoreError> {
    let rows = sqlx::query_as!(
        Booked,
        r#"SELECT id AS "id: PaymentId", order_id AS "order_id: OrderId", provider_reference AS "reference!", status AS "status: PaymentStatus",
                  amount_minor, refunded_minor, refunding_minor, currency AS "currency: Currency", created_at
             FROM payment
            WHERE provider_reference = ANY($1)"#,
        references,
    );
    Ok(rows.fetch_all(db).await?)
}

/// Captured payments made in a time, by their ids, at most `limit` after `after`. The ids tell the time of their making, so that their
/// index finds the time's beginning.
pub async fn list_captured(
    db: &mut PgConnection,
    from: DateTime<Utc>,
    to: DateTime<Utc>,
    after: Option<PaymentId>,
    limit: i64,
) -> Result<Vec<Booked>, StoreError> {
    /// Ids are made by their process's own clock.
    const CLOCKS_DIFFER: TimeDelta = TimeDelta::minutes(10);
    let first_millis = u64::try_from((from - CLOCKS_DIFFER).timestamp_millis()).unwrap_or_default();
    let first = uuid::Builder::from_unix_timestamp_millis(first_millis, &[0; 10]).into_uuid();
    let rows = sqlx::query_as!(
        Booked,
        r#"SELECT id AS "id: PaymentId", order_id AS "order_id: OrderId", coalesce(provider_reference, '') AS "reference!",
                  status AS "status: PaymentStatus", amount_minor, refunded_minor, refunding_minor, currency AS "currency: Currency", created_at
             FROM payment
            WHERE id > $1 AND created_at >= $2 AND created_at < $3 AND status IN ('CAPTURED', 'PARTLY_REFUNDED', 'REFUNDED')
            ORDER BY id
            LIMIT $4"#,
        after.map_or(first, |id| id.0),
        from,
        to,
        limit,
    );
    Ok(rows.fetch_all(db).await?)
}

/// Keeps what was found; what is known already was seen again.
pub async fn upsert_breaks(db: &mut PgConnection, breaks: &[Break], at: DateTime<Utc>) -> Result<(), StoreError> {
    if breaks.is_empty() {
        return Ok(());
    }
    sqlx::query!(
        "INSERT INTO reconciliation_break (id, kind, provider_reference, order_id, currency, ours_minor, theirs_minor, made_at, found_at, seen_at)
         SELECT gen_random_uuid(), b.kind, b.reference, b.order_id, b.currency, b.ours, b.theirs, b.made_at, $8, $8
           FROM unnest($1::text[], $2::text[], $3::uuid[], $4::text[], $5::bigint[], $6::bigint[], $7::timestamptz[])
                AS b (kind, reference, order_id, currency, ours, theirs, made_at)
             ON CONFLICT (provider_reference, kind) DO UPDATE
            SET ours_minor = excluded.ours_minor, theirs_minor = excluded.theirs_minor, seen_at = excluded.seen_at, resolved_at = NULL",
        &breaks.iter().map(|found| found.kind.as_str().to_owned()).collect::<Vec<_>>(),
        &breaks.iter().map(|found| found.reference.clone()).collect::<Vec<_>>(),
        &breaks.iter().map(|found| found.order_id.map(|id| id.0)).collect::<Vec<_>>() as _,
        &breaks.iter().map(|found| found.currency.clone()).collect::<Vec<_>>(),
        &breaks.iter().map(|found| found.ours_minor).collect::<Vec<_>>(),
        &breaks.iter().map(|found| found.theirs_minor).collect::<Vec<_>>(),
        &breaks.iter().map(|found| found.made_at).collect::<Vec<_>>(),
        at,
    )
    .execute(db)
    .await?;
    Ok(())
}

/// Notes a comparison that came to its end, and that what it would have found again, had it not been mended, is resolved.
pub async fn insert(db: &mut PgConnection, done: &Reconciliation, began_at: DateTime<Utc>, at: DateTime<Utc>) -> Result<(), StoreError> {
    sqlx::query!(
        "WITH resolved AS (
             UPDATE reconciliation_break SET resolved_at = $7
              WHERE resolved_at IS NULL AND seen_at < $6 AND made_at >= $1 AND made_at < $2
         )
         INSERT INTO reconciliation (id, created_from, created_to, charges, payments, breaks, finished_at)
         VALUES (gen_random_uuid(), $1, $2, $3, $4, $5, $7)",
        done.created_from,
        done.created_to,
        done.charges,
        done.payments,
        done.breaks,
        began_at,
        at,
    )
    .execute(db)
    .await?;
    Ok(())
}

/// When the last comparison came to its end.
pub async fn find_last(db: &mut PgConnection) -> Result<Option<DateTime<Utc>>, StoreError> {
    Ok(sqlx::query_scalar!("SELECT finished_at FROM reconciliation ORDER BY finished_at DESC LIMIT 1").fetch_optional(db).await?)
}

/// What is not mended yet, oldest first.
pub async fn list_open_breaks(db: &mut PgConnection, limit: i64) -> Result<Vec<Break>, StoreError> {
    let rows = sqlx::query_as!(
        Break,
        r#"SELECT b.kind AS "kind: BreakKind", b.provider_reference AS reference, p.id AS "payment_id?: PaymentId",
                  b.order_id AS "order_id: OrderId", b.currency, b.ours_minor, b.theirs_minor, b.made_at
             FROM reconciliation_break b
             LEFT JOIN payment p ON p.provider_reference = b.provider_reference
            WHERE b.resolved_at IS NULL
            ORDER BY b.made_at
            LIMIT $1"#,
        limit,
    );
    Ok(rows.fetch_all(db).await?)
}
