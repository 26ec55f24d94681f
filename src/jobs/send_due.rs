//! Puts work whose pause is over back into its queue: what had failed, and payments about which the provider is to be asked again, by
//! the time or by an event of its own.
//! Trigger: the leader, every second.
//!
//! Idempotent: what was sent is not due any more, in the same transaction.

use crate::{
    app::App,
    services::{ServiceError, leader::Term, payment, retry, webhook},
};

pub async fn run(app: &App, term: Term) -> Result<(), ServiceError> {
    webhook::apply_due(app, term).await?;
    payment::send_due(app, term).await?;
    retry::send_due(app, term).await
}
