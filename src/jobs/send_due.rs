//! Puts work that had failed, and whose pause is over, back into its queue. Trigger: the leader, every second.
//!
//! Idempotent: what was sent is not due any more, in the same transaction.

use crate::{
    app::App,
    services::{ServiceError, leader::Term, retry},
};

pub async fn run(app: &App, term: Term) -> Result<(), ServiceError> {
    retry::send_due(app, term).await
}
