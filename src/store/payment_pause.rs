//! Times in which payments could not be taken: they do not count against a customer's hold (the SQL function `hold_ends_at`).

use chrono::{DateTime, Utc};
use sqlx::PgConnection;

use super::StoreError;

/// Opens a pause unless one is open; false when one was.
pub async fn open(db: &mut PgConnection, at: DateTime<Utc>) -> Result<bool, StoreError> {
    let opened = sqlx::query!(
        "INSERT INTO payment_pause (id, began_at) VALUES (gen_random_uuid(), $1)
             ON CONFLICT ((ended_at IS NULL)) WHERE ended_at IS NULL DO NOTHING",
        at,
    );
    Ok(opened.execute(db).await?.rows_affected() == 1)
}

/// Ends the open pause; false when there was none.
pub async fn close(db: &mut PgConnection, at: DateTime<Utc>) -> Result<bool, StoreError> {
    let closed = sqlx::query!("UPDATE payment_pause SET ended_at = greatest(began_at, $1) WHERE ended_at IS NULL", at);
    Ok(closed.execute(db).await?.rows_affected() == 1)
}
