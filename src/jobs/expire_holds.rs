//! Gives the units of unpaid orders back when their hold ends. Trigger: every second, in every worker.
//!
//! Idempotent: the transition refuses an order that has moved on, and two workers skip each other's rows.

use crate::{
    app::App,
    services::{
        ServiceError,
        order::{self, EXPIRY_BATCH},
    },
};

pub async fn run(app: App) -> Result<(), ServiceError> {
    loop {
        let expired = order::expire_due(&app).await?;
        if i64::try_from(expired).unwrap_or(i64::MAX) < EXPIRY_BATCH {
            return Ok(());
        }
    }
}
