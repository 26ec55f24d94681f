//! Gives the units of unpaid orders back when their hold ends. Trigger: the leader, every second.
//!
//! Idempotent: the transition refuses an order that has moved on. Compensates nothing itself; orders with a payment under way
//! are left to that.

use crate::{
    app::App,
    services::{
        ServiceError,
        leader::Term,
        order::{self, EXPIRY_BATCH},
    },
};

pub async fn run(app: &App, term: Term) -> Result<(), ServiceError> {
    while i64::try_from(order::expire_due(app, term).await?).unwrap_or_default() == EXPIRY_BATCH {}
    Ok(())
}
