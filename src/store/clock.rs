//! The database's clock.

use chrono::{DateTime, Utc};
use sqlx::PgConnection;

use super::StoreError;

/// The database's time at this very moment, not at the transaction's start.
pub async fn get_now(db: &mut PgConnection) -> Result<DateTime<Utc>, StoreError> {
    Ok(sqlx::query_scalar!(r#"SELECT clock_timestamp() AS "now!""#).fetch_one(db).await?)
}
