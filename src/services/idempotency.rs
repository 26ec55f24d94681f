//! The life of idempotency keys that are not orders.

use chrono::{DateTime, Utc};

use super::ServiceError;
use crate::{app::App, store};

const BATCH: i64 = 1_000;

/// Forgets keys from before `horizon`, in batches.
pub async fn forget_before(app: &App, horizon: DateTime<Utc>) -> Result<(), ServiceError> {
    while store::idempotency::delete_before(&mut *app.db.acquire().await?, horizon, BATCH).await? > 0 {}
    Ok(())
}
