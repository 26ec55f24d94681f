//! Gives money back. Trigger: queue `compensation`, message kind `refund`, the refund's id.
//!
//! Idempotent: the refund's row and the provider's key each refuse a second time. A failure is put off and tried again; after the
//! last try the message is a dead letter and its order is in review.

use futures_util::{StreamExt, stream};
use tokio_util::sync::CancellationToken;

use super::runner::{QueueRunner, carry_out, of_kind};
use crate::{
    app::App,
    services::{ServiceError, refund},
    store::queue::{Delivery, Queue},
};

const BATCH: i32 = 20;
const CONCURRENT_REFUNDS: usize = 10;

pub async fn run(app: App, stop: CancellationToken) {
    let bell = app.refunds_waiting.clone();
    QueueRunner { app, queue: Queue::Compensation, batch: BATCH, at_once: 1, bell, room: refund::room, stop }.run(handle).await;
}

async fn handle(app: App, deliveries: Vec<Delivery>) -> Result<(), ServiceError> {
    let carry_out = async |delivery: Delivery| {
        carry_out("refund", &delivery, refund::carry_out(&app, &delivery), |error| refund::fail(&app, &delivery, error)).await;
    };
    stream::iter(of_kind(deliveries, refund::KIND)).for_each_concurrent(CONCURRENT_REFUNDS, carry_out).await;
    Ok(())
}
