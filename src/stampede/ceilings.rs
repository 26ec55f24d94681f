//! What the machine could do at best, measured in the same run: the purchase's SQL alone, GraphQL alone, and over HTTP the
//! cheapest query that a signed-in customer can send.
//!
//! Owns: the measurements. Does not own: where they run (a scratch database, made by mod.rs), what they are compared with
//! (report.rs).

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use chrono::TimeDelta;
use rand::{SeedableRng, rngs::SmallRng};
use tokio::task::JoinSet;
use uuid::Uuid;

use super::{
    StampedeError,
    buyers::{self, BUY_NOW, Buyer, QuantityMix},
    claims::{Claims, purchase},
    load::{Answer, Call, Callers, Load, Target, fire},
    tally::{combined, per_second},
};
use crate::{
    app::App,
    domain::{
        ids::{CustomerId, FlashSaleId},
        quantity::Quantity,
    },
    http::alone::GraphQlAlone,
    services::seed,
    store,
};

const BATCH: usize = 100;
const CONNECTIONS: i16 = 2;
/// More than a fast machine sells; a sale that is sold out ends its measurement early.
const UNITS_PER_MILLISECOND: u32 = 50;
/// The largest limit: none of the measurements is about limits.
pub const NO_LIMIT: i32 = 999;

#[derive(Clone, Copy, Debug, Default)]
pub struct Ceilings {
    /// G: GraphQL mutations a second that do nothing, on all cores.
    pub graphql: f64,
    /// S: purchases a second by `buy_now` alone, batches of 100 on two connections.
    pub sql: f64,
}

impl Ceilings {
    /// L: both on one machine.
    #[must_use]
    pub fn combined(&self) -> f64 {
        combined(self.graphql, self.sql)
    }
}

/// The size of a sale that is sold from for so long.
#[must_use]
pub fn units_for(lasting: Duration) -> i32 {
    let units = lasting.as_millis() * u128::from(UNITS_PER_MILLISECOND);
    i32::try_from(units).unwrap_or(i32::MAX).clamp(1_000, 2_000_000)
}

/// S. The customers' purchases leave the same rows as a stampede's.
pub async fn sql_alone(app: &App, customers: &[CustomerId], mix: QuantityMix, lasting: Duration) -> Result<f64, StampedeError> {
    let sale = seed::sale(app, units_for(lasting), NO_LIMIT, TimeDelta::zero()).await?;
    store::scratch::settle_down(&mut *app.db.acquire().await?).await?;
    let (customers, next) = (Arc::<[_]>::from(customers), Arc::new(AtomicUsize::new(0)));
    let start = Instant::now();
    let mut lanes = JoinSet::new();
    for slot in 0..CONNECTIONS {
        lanes.spawn(place_batches(app.clone(), slot, sale, customers.clone(), next.clone(), mix, start + lasting));
    }
    let mut accepted = 0;
    while let Some(lane) = lanes.join_next().await {
        accepted += lane??;
    }
    Ok(per_second(accepted, start.elapsed()))
}

/// Batches of customers who come round in order, so that no two batches under way share one. How many were accepted.
async fn place_batches(
    app: App,
    slot: i16,
    sale: FlashSaleId,
    customers: Arc<[CustomerId]>,
    next: Arc<AtomicUsize>,
    mix: QuantityMix,
    end: Instant,
) -> Result<u64, StampedeError> {
    let mut db = app.db.acquire().await?;
    let mut random = SmallRng::from_os_rng();
    let (mut claims, mut accepted) = (Claims::new(slot), 0);
    while Instant::now() < end {
        let first = next.fetch_add(BATCH, Ordering::Relaxed);
        let wanted = (first..first + BATCH.min(customers.len())).filter_map(|number| {
            let quantity = Quantity::new(mix.pick(&mut random))?;
            Some(purchase(customers[number % customers.len()], sale, quantity))
        });
        let outcomes = claims.place(&mut db, &wanted.collect::<Vec<_>>()).await?;
        let taken = outcomes.iter().filter(|accepted| **accepted).count();
        if taken == 0 {
            break;
        }
        accepted += taken as u64;
    }
    Ok(accepted)
}

/// G. The stampede's own document with a sale's id that cannot be one: everything but the purchase.
pub async fn graphql_alone(app: &App, buyer: &Buyer, lasting: Duration) -> Result<f64, StampedeError> {
    let token = buyer.authorization.strip_prefix("Bearer ").unwrap_or_default();
    let (viewer, _) = app.access_tokens.verify(token, app.clock.now()).map_err(|_| StampedeError::Token)?;
    let graphql = GraphQlAlone::new(app.clone());
    let document = serde_json::Value::from(BUY_NOW).to_string();
    let is_over = Arc::new(AtomicBool::new(false));
    let start = Instant::now();
    let mut lanes = JoinSet::new();
    for _ in 0..std::thread::available_parallelism()?.get() {
        let (graphql, document, is_over) = (graphql.clone(), document.clone(), is_over.clone());
        lanes.spawn(async move {
            let mut answers = 0_u64;
            while !is_over.load(Ordering::Relaxed) {
                let answer = graphql.execute(viewer, &buyers::body(&document, "no sale", 1, Uuid::new_v4())).await?;
                if answer.is_empty() {
                    return Err(StampedeError::Target);
                }
                answers += 1;
                // A resolver that waits for nothing never gives way by itself.
                tokio::task::yield_now().await;
            }
            Ok(answers)
        });
    }
    tokio::time::sleep(lasting).await;
    is_over.store(true, Ordering::Relaxed);
    let mut answers = 0;
    while let Some(lane) = lanes.join_next().await {
        answers += lane??;
    }
    Ok(per_second(answers, start.elapsed()))
}

/// Answers a second to a query that needs nothing but a valid token.
pub async fn cheapest_query(target: &Target, load: Load, buyers: Arc<[Buyer]>, answers: Arc<AtomicU64>) -> Result<f64, StampedeError> {
    let clients = Clients { buyers, next: 0, answered: 0, took: Duration::ZERO, answers };
    let clients = fire(target, load, clients).await?;
    Ok(per_second(clients.answered, clients.took))
}

struct Clients {
    buyers: Arc<[Buyer]>,
    next: usize,
    answered: u64,
    took: Duration,
    answers: Arc<AtomicU64>,
}

impl Callers for Clients {
    type Note = ();

    fn next(&mut self) -> Option<Call<()>> {
        self.next = (self.next + 1) % self.buyers.len();
        let body = r#"{"query":"{ serverTime }"}"#.to_owned();
        Some(Call { authorization: Some(self.buyers[self.next].authorization.clone()), body, note: () })
    }

    fn answered(&mut self, (): (), answer: &Answer<'_>) -> Option<Call<()>> {
        self.answers.fetch_add(1, Ordering::Relaxed);
        if answer.status == 200 && answer.body.starts_with(b"{\"data\":{") {
            self.answered += 1;
        }
        self.took = self.took.max(answer.at);
        None
    }

    fn lost(&mut self, (): ()) {}
}
