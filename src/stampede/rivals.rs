//! The comparison: what people build for a flash sale, against the batched SQL function, with the same clients, the same
//! connections and the same rows made durable, one after the other on one machine.
//!
//! Owns: the designs as use cases (they begin transactions here, and nowhere else outside services). Does not own: SQL
//! (store/rivals.rs), Redis (`clients/rival_redis.rs`), the function itself. Runs in a scratch database.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use chrono::TimeDelta;
use rand::{SeedableRng, rngs::SmallRng};
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinSet,
};

use super::{
    StampedeError,
    buyers::QuantityMix,
    ceilings::{NO_LIMIT, units_for},
    claims::{Claims, purchase},
    tally::per_second,
};
use crate::{
    app::App,
    clients::rival_redis::RivalRedis,
    domain::{
        ids::{CustomerId, OrderId},
        quantity::Quantity,
    },
    services::seed,
    store::{
        self, StoreError,
        purchase::Purchase,
        rivals::{SaleTerms, Wanted},
    },
};

pub const CLIENTS: usize = 64;
pub const CONNECTIONS: usize = 16;
/// The batches of our own design, and the connections that place them.
const BATCH: usize = 100;
const CLAIM_CONNECTIONS: i16 = 2;
const LOCK_LIFETIME: Duration = Duration::from_secs(5);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Design {
    CounterForUpdate,
    RedisLock,
    RedisDecrement,
    SkipLocked,
    Batched,
}

impl Design {
    pub const ALL: [Self; 5] = [Self::CounterForUpdate, Self::RedisLock, Self::RedisDecrement, Self::SkipLocked, Self::Batched];

    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::CounterForUpdate => "a counter row, locked FOR UPDATE",
            Self::RedisLock => "a Redis lock around a counter row",
            Self::RedisDecrement => "a Redis decrement, then single inserts",
            Self::SkipLocked => "a row per unit with SKIP LOCKED, a transaction per purchase",
            Self::Batched => "this engine: a row per unit, purchases placed in batches",
        }
    }

    const fn needs_redis(self) -> bool {
        matches!(self, Self::RedisLock | Self::RedisDecrement)
    }
}

#[derive(Clone, Copy, Debug)]
pub struct Compared {
    pub design: Design,
    /// Committed purchases; `None` where there is no Redis to try it with.
    pub purchases_per_second: Option<f64>,
    /// Purchases that ended in an error: deadlocks, time-outs.
    pub failed: u64,
}

/// Measures one design; the connections are those of `app`.
pub async fn compare(
    app: &App,
    design: Design,
    customers: &Arc<[CustomerId]>,
    mix: QuantityMix,
    lasting: Duration,
) -> Result<Compared, StampedeError> {
    if design.needs_redis() && app.config.redis_url.is_none() {
        return Ok(Compared { design, purchases_per_second: None, failed: 0 });
    }
    let seller = Arc::new(Seller::open(app, design, units_for(lasting)).await?);
    store::scratch::settle_down(&mut *app.db.acquire().await?).await?;
    let start = Instant::now();
    let mut clients = JoinSet::new();
    for number in 0..CLIENTS {
        clients.spawn(buy_until(seller.clone(), customers.clone(), number, mix, start + lasting));
    }
    let (mut accepted, mut failed) = (0, 0);
    while let Some(client) = clients.join_next().await {
        let (bought, broken) = client?;
        accepted += bought;
        failed += broken;
    }
    let took = start.elapsed();
    if let Some(redis) = &seller.redis {
        redis.clear().await?;
    }
    Ok(Compared { design, purchases_per_second: Some(per_second(accepted, took)), failed })
}

/// One client: how many purchases it made, and how many failed.
async fn buy_until(seller: Arc<Seller>, customers: Arc<[CustomerId]>, number: usize, mix: QuantityMix, end: Instant) -> (u64, u64) {
    let mut random = SmallRng::from_os_rng();
    let (mut accepted, mut failed) = (0, 0);
    // Each client has customers of its own: this is not about one customer's double click.
    let mut buyers = customers.iter().skip(number).step_by(CLIENTS).cycle();
    while let Some(customer) = buyers.next().filter(|_| Instant::now() < end) {
        let wanted = Wanted { order: OrderId::new(), customer: *customer, quantity: mix.pick(&mut random) };
        match seller.buy(wanted).await {
            Ok(true) => accepted += 1,
            Ok(false) => break,
            Err(error) => {
                tracing::debug!(%error, "a purchase of a comparison failed");
                failed += 1;
            }
        }
    }
    (accepted, failed)
}

struct Seller {
    app: App,
    design: Design,
    terms: SaleTerms,
    redis: Option<RivalRedis>,
    batches: Option<mpsc::Sender<Ticket>>,
}

struct Ticket {
    purchase: Purchase,
    answer: oneshot::Sender<bool>,
}

impl Seller {
    /// A sale of its own, stocked the way the design keeps its stock.
    async fn open(app: &App, design: Design, units: i32) -> Result<Self, StampedeError> {
        let sale = seed::sale(app, units, NO_LIMIT, TimeDelta::zero()).await?;
        let mut db = app.db.acquire().await?;
        let terms = store::rivals::get_terms(&mut db, sale).await?;
        let is_counted = matches!(design, Design::CounterForUpdate | Design::RedisLock);
        if is_counted {
            store::rivals::insert_counter(&mut db, sale, units).await?;
        }
        let redis = match &app.config.redis_url {
            Some(url) if design.needs_redis() => Some(RivalRedis::new(url, format!("stampede:{sale}"), CONNECTIONS)?),
            _ => None,
        };
        if let (Design::RedisDecrement, Some(redis)) = (design, &redis) {
            redis.set_stock(units).await?;
        }
        let batches = (design == Design::Batched).then(|| start_workers(app));
        Ok(Self { app: app.clone(), design, terms, redis, batches })
    }

    /// False when nothing is left.
    async fn buy(&self, wanted: Wanted) -> Result<bool, StampedeError> {
        match (self.design, &self.redis, &self.batches) {
            (Design::CounterForUpdate, ..) => self.counted(&wanted).await,
            (Design::RedisLock, Some(redis), _) => self.under_lock(redis, &wanted).await,
            (Design::RedisDecrement, Some(redis), _) => self.decremented(redis, &wanted).await,
            (Design::SkipLocked, ..) => self.skip_locked(&wanted).await,
            (Design::Batched, _, Some(batches)) => self.batched(batches, &wanted).await,
            _ => Ok(false),
        }
    }

    async fn counted(&self, wanted: &Wanted) -> Result<bool, StampedeError> {
        let mut tx = self.app.db.begin().await?;
        if store::rivals::lock_counter(&mut tx, self.terms.sale).await? < wanted.quantity {
            return Ok(false);
        }
        store::rivals::take_from_counter(&mut tx, self.terms.sale, wanted.quantity).await?;
        self.write(&mut tx, wanted).await?;
        tx.commit().await?;
        Ok(true)
    }

    async fn under_lock(&self, redis: &RivalRedis, wanted: &Wanted) -> Result<bool, StampedeError> {
        let token = rand::random();
        while !redis.try_lock(token, LOCK_LIFETIME).await? {
            tokio::time::sleep(Duration::from_millis(rand::random_range(1..=5))).await;
        }
        let bought = self.counted(wanted).await;
        redis.unlock(token).await?;
        bought
    }

    /// A process that dies between the two loses units for good; the design is measured as it is built.
    async fn decremented(&self, redis: &RivalRedis, wanted: &Wanted) -> Result<bool, StampedeError> {
        if !redis.take_stock(wanted.quantity).await? {
            return Ok(false);
        }
        let mut tx = self.app.db.begin().await?;
        self.write(&mut tx, wanted).await?;
        tx.commit().await?;
        Ok(true)
    }

    async fn skip_locked(&self, wanted: &Wanted) -> Result<bool, StampedeError> {
        let mut tx = self.app.db.begin().await?;
        if store::rivals::claim_units(&mut tx, self.terms.sale, wanted).await? < wanted.quantity.unsigned_abs().into() {
            return Ok(false);
        }
        self.write(&mut tx, wanted).await?;
        tx.commit().await?;
        Ok(true)
    }

    async fn write(&self, db: &mut sqlx::PgConnection, wanted: &Wanted) -> Result<(), StoreError> {
        if !store::rivals::take_quota(db, &self.terms, wanted).await? {
            return Err(StoreError::Missing("quota of a customer without a limit"));
        }
        store::rivals::insert_order(db, &self.terms, wanted).await
    }

    async fn batched(&self, batches: &mpsc::Sender<Ticket>, wanted: &Wanted) -> Result<bool, StampedeError> {
        let (answer, answered) = oneshot::channel();
        let Some(quantity) = Quantity::new(wanted.quantity) else { return Ok(false) };
        let ticket = Ticket { purchase: purchase(wanted.customer, self.terms.sale, quantity), answer };
        batches.send(ticket).await.map_err(|_| StampedeError::BatchFailed)?;
        answered.await.map_err(|_| StampedeError::BatchFailed)
    }
}

/// The engine's batching in its simplest form: a worker takes what waits, and places it in one transaction.
fn start_workers(app: &App) -> mpsc::Sender<Ticket> {
    let (sender, receiver) = mpsc::channel(CLIENTS);
    let receiver = Arc::new(tokio::sync::Mutex::new(receiver));
    for slot in 0..CLAIM_CONNECTIONS {
        let (app, receiver) = (app.clone(), receiver.clone());
        tokio::spawn(async move {
            let mut claims = Claims::new(slot);
            let mut tickets = Vec::with_capacity(BATCH);
            while receiver.lock().await.recv_many(&mut tickets, BATCH).await > 0 {
                let purchases: Vec<_> = tickets.iter().map(|ticket: &Ticket| ticket.purchase.clone()).collect();
                let placed = async { claims.place(&mut *app.db.acquire().await?, &purchases).await };
                match placed.await {
                    Ok(outcomes) => {
                        for (ticket, accepted) in tickets.drain(..).zip(outcomes) {
                            // Nobody waits any more when the measurement is over.
                            let _ = ticket.answer.send(accepted);
                        }
                    }
                    // Dropped tickets tell their buyers.
                    Err(error) => {
                        tracing::debug!(%error, "a batch of a comparison failed");
                        tickets.clear();
                    }
                }
            }
        });
    }
    sender
}
