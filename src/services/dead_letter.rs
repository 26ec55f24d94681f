//! Dead letters: messages that no worker can use, kept for people.

use super::ServiceError;
use crate::{
    app::App,
    domain::ids::DeadLetterId,
    metrics::MessageOutcome,
    store::{self, queue::DeadMessage},
};

/// Sets a message aside and takes it out of its queue, in one transaction.
pub async fn bury(app: &App, message: &DeadMessage) -> Result<(), ServiceError> {
    let mut tx = app.db.begin().await?;
    store::queue::bury(&mut tx, message, app.clock.now()).await?;
    tx.commit().await?;
    app.metrics.message(message.queue.as_str(), MessageOutcome::Dead, 1);
    Ok(())
}

/// Puts dead letters back into their queues, in one transaction; how many there were. Their work goes through the same guards as
/// ever: what is done already is not done again.
pub async fn replay(app: &App, ids: &[DeadLetterId]) -> Result<usize, ServiceError> {
    let mut tx = app.db.begin().await?;
    let count = store::dead_letter::send_again(&mut tx, ids).await?;
    tx.commit().await?;
    app.refunds_waiting.notify_one();
    app.payments_waiting.notify_one();
    app.mail_waiting.notify_one();
    Ok(count)
}

/// Forgets dead letters; how many there were.
pub async fn discard(app: &App, ids: &[DeadLetterId]) -> Result<usize, ServiceError> {
    let removed = store::dead_letter::delete(&mut *app.db.acquire().await?, ids).await?;
    for (queue, payload) in &removed {
        tracing::info!(queue, kind = payload["kind"].as_str(), id = payload["id"].as_str(), "a dead letter was discarded");
    }
    Ok(removed.len())
}
