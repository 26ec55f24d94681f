//! The inbox of the payment provider's events.

use chrono::{DateTime, Utc};
use sqlx::PgConnection;

use super::StoreError;
use crate::domain::ids::PaymentId;

pub struct NewEvent<'a> {
    pub id: &'a str,
    pub kind: &'a str,
    pub object_id: &'a str,
    pub created_at: DateTime<Utc>,
}

/// Keeps an event, due at once; one that is known already stays as it is.
pub async fn insert(db: &mut PgConnection, event: &NewEvent<'_>, at: DateTime<Utc>) -> Result<(), StoreError> {
    sqlx::query!(
        "INSERT INTO webhook_event (id, kind, object_id, created_at, received_at, next_try_at) VALUES ($1, $2, $3, $4, $5, $5)
             ON CONFLICT (id) DO NOTHING",
        event.id,
        event.kind,
        event.object_id,
        event.created_at,
        at,
    )
    .execute(db)
    .await?;
    Ok(())
}

/// Applies events that are due, at most `limit`: an open try of which one tells is due for a question now, unless a worker is at it
/// just then, who will know. An event about a payment that is not known (yet) is due again at `again`, or given up when it was
/// received before `horizon`. The tries that have ended without money although an event tells of a charge.
pub async fn apply_due(
    db: &mut PgConnection,
    now: DateTime<Utc>,
    again: DateTime<Utc>,
    horizon: DateTime<Utc>,
    limit: i64,
) -> Result<Vec<PaymentId>, StoreError> {
    let charged = sqlx::query_scalar!(
        r#"WITH due AS (
             SELECT id, kind, object_id FROM webhook_event WHERE next_try_at <= $1 ORDER BY next_try_at LIMIT $4 FOR UPDATE SKIP LOCKED
         ), told AS (
             UPDATE payment p SET next_query_at = least(p.next_query_at, $1)
               FROM due
              WHERE p.provider_reference = due.object_id AND p.status IN ('PROCESSING', 'REQUIRES_ACTION', 'UNKNOWN') AND p.deadline <= $1
         ), known AS (
             SELECT due.id, EXISTS (SELECT 1 FROM payment p WHERE p.provider_reference = due.object_id) AS is_known FROM due
         ), applied AS (
             UPDATE webhook_event e
                SET applied_at = CASE WHEN k.is_known THEN $1::timestamptz END,
                    next_try_at = CASE WHEN NOT k.is_known AND e.received_at > $3 THEN $2::timestamptz END
               FROM known k
              WHERE e.id = k.id
         )
         SELECT p.id AS "id: PaymentId"
           FROM due
           JOIN payment p ON p.provider_reference = due.object_id
          WHERE due.kind = 'payment_intent.succeeded' AND p.status IN ('DECLINED', 'FAILED')"#,
        now,
        again,
        horizon,
        limit,
    );
    Ok(charged.fetch_all(db).await?)
}

/// Forgets events that were received before `horizon`, at most `limit` at once; how many there were.
pub async fn delete_before(db: &mut PgConnection, horizon: DateTime<Utc>, limit: i64) -> Result<u64, StoreError> {
    let deleted = sqlx::query!(
        "DELETE FROM webhook_event WHERE id IN (SELECT id FROM webhook_event WHERE received_at < $1 AND next_try_at IS NULL LIMIT $2)",
        horizon,
        limit,
    );
    Ok(deleted.execute(db).await?.rows_affected())
}
