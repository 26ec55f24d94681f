//! Dead letters: messages that no worker can use, kept for people.

use super::ServiceError;
use crate::{
    app::App,
    store::{self, queue::Unreadable},
};

/// Sets a message aside and takes it out of its queue, in one transaction.
pub async fn bury(app: &App, message: &Unreadable) -> Result<(), ServiceError> {
    let mut tx = app.db.begin().await?;
    store::queue::bury(&mut tx, message, app.clock.now()).await?;
    tx.commit().await?;
    Ok(())
}
