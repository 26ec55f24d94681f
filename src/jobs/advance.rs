//! Moves orders on that staff leave to the schedule. Trigger: the leader, every ten seconds. Idempotent: the transition refuses an order
//! that has moved on.

use crate::{
    app::App,
    services::{ServiceError, leader::Term, order},
};

pub async fn run(app: &App, term: Term) -> Result<(), ServiceError> {
    order::advance_due(app, term).await?;
    Ok(())
}
