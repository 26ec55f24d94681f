//! Charges orders. Trigger: queue `payment`, message kind `pay`, the order's id.
//!
//! Idempotent: the order's state, the try's row and the provider's keys each refuse a second time. Compensates nothing: a
//! decline gives the units back in its settlement. A worker that dies leaves its try to whoever gets the message next.

use std::{sync::Arc, time::Duration};

use futures_util::{Stream, StreamExt, TryStreamExt, stream};
use tokio_util::sync::CancellationToken;

use super::runner::{QueueRunner, of_kind};
use crate::{
    app::App,
    services::{
        ServiceError,
        payment::{self, Answer, Begun},
    },
    store::queue::{Delivery, Queue},
};

const KIND: &str = "pay";
const BATCH: i32 = 50;
/// Batches that are under way at once: a slow call at the end of one does not keep the next from being read.
const CONCURRENT_BATCHES: usize = 2;
/// Calls of the provider at once, for each batch.
const CONCURRENT_CALLS: usize = 50;
/// What has been answered is written in groups of what comes within this time: a group costs its transaction once, and one
/// slow call holds nobody else.
const GROUP_PATIENCE: Duration = Duration::from_millis(20);

pub async fn run(app: App, stop: CancellationToken) {
    let bell = app.payments_waiting.clone();
    QueueRunner { app, queue: Queue::Payment, batch: BATCH, at_once: CONCURRENT_BATCHES, bell, stop }.run(handle).await;
}

/// A try that is to be confirmed, or one that has its answer already.
type Created = Result<Begun, (Begun, Answer)>;

async fn handle(app: App, deliveries: Vec<Delivery>) -> Result<(), ServiceError> {
    let app = Arc::new(app);
    let begun = payment::begin(&app, of_kind(deliveries, KIND)).await?;
    // One handle of the program per step: the steps outlive the statement that makes them.
    let [creating, recording, confirming, settling] = [(); 4].map(|()| app.clone());
    let created = stream::iter(begun).map(move |begun| create(creating.clone(), begun)).buffer_unordered(CONCURRENT_CALLS);
    let noted = groups(created).then(move |group| record_references(recording.clone(), group));
    let noted = noted.map_ok(|group| stream::iter(group).map(Ok)).try_flatten();
    let answered = noted.map_ok(move |created| confirm(confirming.clone(), created)).try_buffer_unordered(CONCURRENT_CALLS);
    groups(answered)
        .map(|group| group.into_iter().collect::<Result<Vec<_>, ServiceError>>())
        .try_for_each(move |answered| settle(settling.clone(), answered))
        .await
}

fn groups<S: Stream>(items: S) -> impl Stream<Item = Vec<S::Item>> {
    tokio_stream::StreamExt::chunks_timeout(items, CONCURRENT_CALLS, GROUP_PATIENCE)
}

async fn create(app: Arc<App>, begun: Begun) -> Created {
    payment::create_intent(&app, begun).await
}

async fn record_references(app: Arc<App>, group: Vec<Created>) -> Result<Vec<Created>, ServiceError> {
    let (created, answered): (Vec<Created>, Vec<Created>) = group.into_iter().partition(Result::is_ok);
    let noted = payment::record_references(&app, created.into_iter().flatten().collect()).await?;
    Ok(noted.into_iter().map(Ok).chain(answered).collect())
}

async fn confirm(app: Arc<App>, created: Created) -> Result<(Begun, Answer), ServiceError> {
    match created {
        Ok(begun) => {
            let answer = payment::confirm(&app, &begun).await;
            Ok((begun, answer))
        }
        Err(answered) => Ok(answered),
    }
}

async fn settle(app: Arc<App>, answered: Vec<(Begun, Answer)>) -> Result<(), ServiceError> {
    for (begun, answer) in &answered {
        match answer {
            Answer::Open { reason } => tracing::warn!(order = %begun.order, reason, "a payment is still open"),
            Answer::Mismatch => tracing::error!(order = %begun.order, "the provider's answer does not fit the order"),
            _ => {}
        }
    }
    loop {
        match payment::settle(&app, &answered).await {
            // Two workers at the same counters: one of them was rolled back, and nothing of it stands.
            Err(ServiceError::Store(error)) if error.is_transient() => {}
            settled => return settled,
        }
    }
}
