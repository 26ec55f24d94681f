//! Writes mails about sales to those who wish for their products. Trigger: the leader, every second, so many at a time that nothing else
//! waits for long.
//!
//! Idempotent: it goes on after the last customer who was written to, and a constraint refuses a mail that is there.

use crate::{
    app::App,
    services::{ServiceError, leader::Term, wishlist::sale_notice},
};

const CHUNKS_A_ROUND: usize = 10;

pub async fn run(app: &App, term: Term) -> Result<(), ServiceError> {
    for _ in 0..CHUNKS_A_ROUND {
        if !sale_notice::notify_some(app, term).await? {
            break;
        }
    }
    Ok(())
}
