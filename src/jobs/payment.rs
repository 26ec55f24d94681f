//! Charges orders. Trigger: queue `payment`, message kind `pay`, the order's id.
//!
//! Idempotent: the order's state, the try's row and the provider's keys each refuse a second time. Compensates nothing: a
//! decline gives the units back in its settlement. A worker that dies leaves its try to whoever gets the message next.

use std::{sync::Arc, time::Duration};

use futures_util::{Stream, StreamExt, stream};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use super::runner::{QueueRunner, all_or_each, carry_out, of_kind};
use crate::{
    app::App,
    services::{
        ServiceError,
        payment::{self, Answer, Begun, PAY, QUERY},
        retry,
    },
    store::queue::{Delivery, Queue},
};

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
    QueueRunner { app, queue: Queue::Payment, batch: BATCH, at_once: CONCURRENT_BATCHES, bell, room: payment::room, stop }
        .run(handle)
        .await;
}

/// A try that is to be confirmed, or one that has its answer already.
type Created = Result<Begun, (Begun, Answer)>;

async fn handle(app: App, deliveries: Vec<Delivery>) -> Result<(), ServiceError> {
    let (queries, deliveries): (Vec<_>, Vec<_>) = deliveries.into_iter().partition(|delivery| delivery.kind == QUERY);
    for delivery in queries {
        carry_out("query", &delivery, payment::query(&app, &delivery), |error| retry::fail(&app, &delivery, error)).await;
    }
    pay(Arc::new(app), of_kind(deliveries, PAY)).await;
    Ok(())
}

async fn pay(app: Arc<App>, deliveries: Vec<Delivery>) {
    let take_up = |deliveries| payment::begin(&app, deliveries);
    let begun = all_or_each("begin", deliveries, |delivery| &delivery.span, take_up, |delivery, error| fail(&app, delivery, error)).await;
    // One handle of the program per step: the steps outlive the statement that makes them.
    let [creating, recording, confirming, settling] = [(); 4].map(|()| app.clone());
    let created = stream::iter(begun).map(move |begun| create(creating.clone(), begun)).buffer_unordered(CONCURRENT_CALLS);
    let noted = groups(created).then(move |group| record_references(recording.clone(), group)).flat_map(stream::iter);
    let answered = noted.map(move |created| confirm(confirming.clone(), created)).buffer_unordered(CONCURRENT_CALLS);
    groups(answered).for_each(move |answered| settle(settling.clone(), answered)).await;
}

fn groups<S: Stream>(items: S) -> impl Stream<Item = Vec<S::Item>> {
    tokio_stream::StreamExt::chunks_timeout(items, CONCURRENT_CALLS, GROUP_PATIENCE)
}

async fn create(app: Arc<App>, begun: Begun) -> Created {
    let span = begun.delivery.span.clone();
    payment::create_intent(&app, begun).instrument(span).await
}

async fn record_references(app: Arc<App>, group: Vec<Created>) -> Vec<Created> {
    let (created, answered): (Vec<Created>, Vec<Created>) = group.into_iter().partition(Result::is_ok);
    let created: Vec<Begun> = created.into_iter().flatten().collect();
    let record = |begun| payment::record_references(&app, begun);
    let noted =
        all_or_each("record", created, |begun| &begun.delivery.span, record, |begun, error| fail(&app, begun.delivery, error)).await;
    noted.into_iter().map(Ok).chain(answered).collect()
}

async fn confirm(app: Arc<App>, created: Created) -> (Begun, Answer) {
    match created {
        Ok(begun) => {
            let answer = payment::confirm(&app, &begun).instrument(begun.delivery.span.clone()).await;
            (begun, answer)
        }
        Err(answered) => answered,
    }
}

async fn settle(app: Arc<App>, answered: Vec<(Begun, Answer)>) {
    for (begun, answer) in &answered {
        let _in_span = begun.delivery.span.enter();
        match answer {
            Answer::Open { reason, .. } => tracing::warn!(order = %begun.order, reason, "a payment is still open"),
            Answer::Refused { reason } => tracing::error!(order = %begun.order, reason, "the provider refuses our call"),
            Answer::ForPeople { note } => tracing::error!(order = %begun.order, note, "a payment is for people"),
            _ => {}
        }
    }
    let settle = |answered| settle_group(&app, answered);
    all_or_each("settle", answered, |(begun, _)| &begun.delivery.span, settle, |(begun, _), error| fail(&app, begun.delivery, error)).await;
}

async fn settle_group(app: &App, answered: Vec<(Begun, Answer)>) -> Result<Vec<()>, ServiceError> {
    loop {
        match payment::settle(app, &answered).await {
            // Two workers at the same counters: one of them was rolled back, and nothing of it stands.
            Err(ServiceError::Store(error)) if error.is_transient() => {}
            settled => return settled.map(|()| Vec::new()),
        }
    }
}

async fn fail(app: &App, delivery: Delivery, error: String) -> Result<(), ServiceError> {
    payment::fail(app, &delivery, error).await
}
