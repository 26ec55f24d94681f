//! First answers of mutations that are not orders, by the customer's key.

use chrono::{DateTime, Utc};
use sqlx::PgConnection;
use uuid::Uuid;

use super::StoreError;
use crate::domain::ids::CustomerId;

/// A key as a client sent it for one of its mutations, with the hash of what was asked for under it.
pub struct Key<'a> {
    pub customer: CustomerId,
    pub mutation: &'static str,
    pub key: Uuid,
    pub request_hash: &'a [u8],
}

/// The constraint that a key in use on another connection breaks.
pub const KEY_ONCE: &str = "idempotency_key_once";

#[derive(Debug, PartialEq, Eq)]
pub enum Earlier {
    /// The key is new.
    None,
    /// It was used for the same request, which made this.
    Same(Uuid),
    /// It was used for another request.
    Different,
}

pub async fn find(db: &mut PgConnection, key: &Key<'_>) -> Result<Earlier, StoreError> {
    let row = sqlx::query!(
        "SELECT request_hash, result_id FROM idempotency_key WHERE customer_id = $1 AND mutation = $2 AND key = $3",
        key.customer as _,
        key.mutation,
        key.key,
    )
    .fetch_optional(db)
    .await?;
    Ok(match row {
        None => Earlier::None,
        Some(row) if row.request_hash == key.request_hash => Earlier::Same(row.result_id),
        Some(_) => Earlier::Different,
    })
}

/// Remembers the answer, in the transaction of its effect.
pub async fn insert(db: &mut PgConnection, key: &Key<'_>, result: Uuid, at: DateTime<Utc>) -> Result<(), StoreError> {
    sqlx::query!(
        "INSERT INTO idempotency_key (customer_id, mutation, key, request_hash, result_id, created_at) VALUES ($1, $2, $3, $4, $5, $6)",
        key.customer as _,
        key.mutation,
        key.key,
        key.request_hash,
        result,
        at,
    )
    .execute(db)
    .await?;
    Ok(())
}

/// The same unless the key is there already; false when it is. Waits for a transaction that is inserting it.
pub async fn insert_if_new(db: &mut PgConnection, key: &Key<'_>, result: Uuid, at: DateTime<Utc>) -> Result<bool, StoreError> {
    let inserted = sqlx::query!(
        "INSERT INTO idempotency_key (customer_id, mutation, key, request_hash, result_id, created_at) VALUES ($1, $2, $3, $4, $5, $6)
             ON CONFLICT DO NOTHING",
        key.customer as _,
        key.mutation,
        key.key,
        key.request_hash,
        result,
        at,
    );
    Ok(inserted.execute(db).await?.rows_affected() == 1)
}

/// Forgets keys from before `horizon`, at most `limit` at once; how many there were.
pub async fn delete_before(db: &mut PgConnection, horizon: DateTime<Utc>, limit: i64) -> Result<u64, StoreError> {
    let deleted = sqlx::query!(
        "DELETE FROM idempotency_key
          WHERE (customer_id, mutation, key) IN (SELECT customer_id, mutation, key FROM idempotency_key WHERE created_at < $1 LIMIT $2)",
        horizon,
        limit,
    );
    Ok(deleted.execute(db).await?.rows_affected())
}
