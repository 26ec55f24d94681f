//! The purchase batcher: requests that come at the same moment share one transaction.
//!
//! Owns: the bounded queue, what goes into one batch, what becomes of a batch that fails. Does not own: the rules (the SQL
//! function `buy_now`). No timer: a worker takes whatever waits, so under low load a batch is one request and costs nothing
//! extra, and under high load batches grow by themselves.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};

use sqlx::{Postgres, pool::PoolConnection};
use tokio::sync::{Mutex, mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, Span};

use crate::{
    app::App,
    domain::ids::FlashSaleId,
    services::ServiceError,
    store::{
        self, Database, StoreError,
        purchase::{Purchase, PurchaseOutcome},
    },
    telemetry,
};

/// Workers, each with a connection of its own.
pub const WORKERS: i16 = 2;
/// Purchases in one transaction; more makes the batch longer without making it quicker (docs/adr/0002).
const MAX_BATCH: usize = 100;
/// Waiting purchases: what two workers place in about half a second.
const MAX_WAITING: usize = 2_000;
/// A purchase that has waited this long is answered `Busy` instead of being placed.
const PATIENCE: Duration = Duration::from_secs(2);

/// A batch that takes longer waits for a database that will never answer.
const BATCH_LIMIT: Duration = Duration::from_secs(5);

/// What became of a purchase in the queue.
#[derive(Debug)]
pub enum Placed {
    Outcome(PurchaseOutcome),
    /// Nothing was taken.
    Busy,
}

struct Ticket {
    purchase: Purchase,
    /// Of whoever waits for the answer.
    span: Span,
    deadline: Instant,
    answer: oneshot::Sender<Result<Placed, ServiceError>>,
}

/// The queue's two ends. Workers share the receiving one.
#[derive(Clone)]
pub struct PurchaseBatcher {
    queue: mpsc::Sender<Ticket>,
    waiting: Arc<Mutex<mpsc::Receiver<Ticket>>>,
}

impl Default for PurchaseBatcher {
    fn default() -> Self {
        let (queue, waiting) = mpsc::channel(MAX_WAITING);
        Self { queue, waiting: Arc::new(Mutex::new(waiting)) }
    }
}

impl PurchaseBatcher {
    /// Places a purchase with those that wait at the same moment. `Busy` at once when the queue is full.
    pub async fn place(&self, purchase: Purchase) -> Result<Placed, ServiceError> {
        let (answer, answered) = oneshot::channel();
        let ticket = Ticket { purchase, span: Span::current(), deadline: Instant::now() + PATIENCE, answer };
        if self.queue.try_send(ticket).is_err() {
            return Ok(Placed::Busy);
        }
        // A worker that is gone without an answer may have placed it.
        answered.await.unwrap_or(Err(ServiceError::UnknownOutcome))
    }
}

/// Takes batches from the queue and places them until `stop`, then what still waits.
pub async fn run(app: App, number: i16, stop: CancellationToken) {
    let mut worker = Worker {
        db: app.claims_db.clone(),
        slot: app.counter_slots.purchase(number),
        connection: None,
        marks: HashMap::new(),
        app,
        put_off: VecDeque::new(),
    };
    while let Some(batch) = worker.next_batch(&stop).await {
        let span = telemetry::shared_span("place purchases", batch.iter().map(|ticket| &ticket.span));
        worker.place(batch).instrument(span).await;
    }
}

struct Worker {
    app: App,
    db: Database,
    slot: i16,
    /// Kept between batches: taking one from the pool costs a round trip.
    connection: Option<PoolConnection<Postgres>>,
    /// The highest unit claimed by this worker, per sale.
    marks: HashMap<FlashSaleId, i32>,
    /// Second requests of customers who were in the batch before.
    put_off: VecDeque<Ticket>,
}

impl Worker {
    /// What waits, at most one per customer; `None` when the program stops and nothing waits.
    async fn next_batch(&mut self, stop: &CancellationToken) -> Option<Vec<Ticket>> {
        let mut arrived = Vec::new();
        if self.put_off.is_empty() {
            let mut waiting = self.app.purchases.waiting.lock().await;
            tokio::select! {
                biased;
                _ = waiting.recv_many(&mut arrived, MAX_BATCH) => {}
                () = stop.cancelled() => return None,
            }
        }
        let mut batch: Vec<Ticket> = Vec::with_capacity(arrived.len());
        let mut customers = HashSet::new();
        let mut later = VecDeque::new();
        for ticket in self.put_off.drain(..).chain(arrived) {
            if ticket.deadline < Instant::now() {
                answer(ticket, Ok(Placed::Busy));
            } else if customers.insert(ticket.purchase.customer) {
                batch.push(ticket);
            } else {
                later.push_back(ticket);
            }
        }
        self.put_off = later;
        Some(batch)
    }

    async fn place(&mut self, batch: Vec<Ticket>) {
        if batch.is_empty() {
            return;
        }
        let start = Instant::now();
        let purchases: Vec<&Purchase> = batch.iter().map(|ticket| &ticket.purchase).collect();
        let results: Vec<Result<Placed, ServiceError>> = if let Err(error) = self.connect().await {
            tracing::warn!(%error, purchases = purchases.len(), "no connection for purchases: nothing was taken");
            purchases.iter().map(|_| Ok(Placed::Busy)).collect()
        } else {
            match self.try_place(&purchases).await {
                Ok(outcomes) => outcomes.into_iter().map(|outcome| Ok(Placed::Outcome(outcome))).collect(),
                Err(error) if error.is_connection_lost() => self.ask_again(error, &purchases).await,
                Err(error) => self.place_singly(error, &purchases).await,
            }
        };
        let results = results.into_iter().zip(&purchases).map(|(result, purchase)| result.map(|placed| known_again(placed, purchase)));
        let results: Vec<_> = results.collect();
        self.app.metrics.purchase_batch_size.observe(f64::from(u32::try_from(purchases.len()).unwrap_or(u32::MAX)));
        self.app.metrics.claim_duration.observe(start.elapsed().as_secs_f64());
        let mut accepted = Vec::new();
        for (ticket, result) in batch.into_iter().zip(results) {
            if let Ok(Placed::Outcome(PurchaseOutcome::Accepted { order, .. })) = &result {
                accepted.push((order.id, order.customer_id));
            }
            answer(ticket, result);
        }
        if !accepted.is_empty() {
            self.app.payments_waiting.notify_one();
            self.app.order_feed.ring(&accepted);
        }
    }

    /// One transaction for all of them.
    async fn try_place(&mut self, purchases: &[&Purchase]) -> Result<Vec<PurchaseOutcome>, StoreError> {
        self.connect().await?;
        let marked: Vec<_> = purchases.iter().map(|&purchase| (purchase, self.mark(purchase.sale))).collect();
        let Some(mut connection) = self.connection.take() else { return Err(StoreError::Missing("connection")) };
        let outcomes = tokio::time::timeout(BATCH_LIMIT, store::purchase::buy_now(&mut connection, self.slot, &marked)).await;
        let outcomes = outcomes.map_err(|_| StoreError::silent())??;
        // Only a connection that answered is used again.
        self.connection = Some(connection);
        for (purchase, outcome) in purchases.iter().zip(&outcomes) {
            if let PurchaseOutcome::Accepted { last_seq, .. } = outcome {
                self.marks.insert(purchase.sale, *last_seq);
            }
        }
        Ok(outcomes)
    }

    fn mark(&self, sale: FlashSaleId) -> i32 {
        self.marks.get(&sale).copied().unwrap_or(0)
    }

    /// The connection broke, and whether the batch was committed is not known. The same call on another connection waits
    /// for the first one's locks and then tells: what was committed is known by its key.
    async fn ask_again(&mut self, error: StoreError, purchases: &[&Purchase]) -> Vec<Result<Placed, ServiceError>> {
        tracing::warn!(%error, purchases = purchases.len(), "a connection was lost in a purchase: asking again");
        self.marks.clear();
        match self.try_place(purchases).await {
            Ok(outcomes) => outcomes.into_iter().map(|outcome| Ok(Placed::Outcome(outcome))).collect(),
            Err(error) => {
                tracing::error!(%error, purchases = purchases.len(), "whether purchases were committed is not known");
                purchases.iter().map(|_| Err(ServiceError::UnknownOutcome)).collect()
            }
        }
    }

    /// The batch was rolled back. When only a key was in use elsewhere, the same batch finds its order now; otherwise each is
    /// placed by itself, so that one that cannot be placed fails alone.
    async fn place_singly(&mut self, error: StoreError, purchases: &[&Purchase]) -> Vec<Result<Placed, ServiceError>> {
        if error.violates(store::purchase::KEY_ONCE)
            && let Ok(outcomes) = self.try_place(purchases).await
        {
            return outcomes.into_iter().map(|outcome| Ok(Placed::Outcome(outcome))).collect();
        }
        tracing::warn!(%error, purchases = purchases.len(), "a batch of purchases was rolled back: placing them one by one");
        let mut results = Vec::with_capacity(purchases.len());
        for &purchase in purchases {
            results.push(match self.try_place(&[purchase]).await {
                Ok(mut outcomes) => outcomes.pop().map(Placed::Outcome).ok_or(ServiceError::UnknownOutcome),
                Err(error) if error.is_connection_lost() => Err(ServiceError::UnknownOutcome),
                Err(error) if error.is_transient() || error.is_pool_exhausted() || error.violates(store::purchase::KEY_ONCE) => {
                    Ok(Placed::Busy)
                }
                Err(error) => Err(error.into()),
            });
        }
        results
    }

    async fn connect(&mut self) -> Result<(), StoreError> {
        if self.connection.is_none() {
            self.connection = Some(self.db.acquire().await?);
        }
        Ok(())
    }
}

/// A replay of the order that this very request made is its first answer: the one before was lost on the way to us.
fn known_again(placed: Placed, purchase: &Purchase) -> Placed {
    match placed {
        Placed::Outcome(PurchaseOutcome::Known { order, hold_expires_at, .. }) if order == purchase.order => {
            Placed::Outcome(PurchaseOutcome::Known { order, hold_expires_at, replayed: false })
        }
        placed => placed,
    }
}

fn answer(ticket: Ticket, result: Result<Placed, ServiceError>) {
    // A caller that has gone away asks again with the same key.
    let _ = ticket.answer.send(result);
}
