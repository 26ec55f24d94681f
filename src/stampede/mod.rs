//! The stampede: a flash sale with far more buyers than units, fired at a running server, and the proof that nothing was
//! oversold, lost, doubled or over a limit.
//!
//! Owns: the order of a run. Does not own: the command line and what is printed (cli/stampede.rs), the private database
//! (embedded/). It talks to the server over HTTP alone; what it asks the database are counts. Called by cli/stampede.rs.

mod answer;
pub mod browse;
pub mod buyers;
mod ceilings;
pub mod chart;
pub mod child;
pub mod claim_costs;
mod claims;
pub mod load;
pub mod overload;
pub mod proof;
pub mod report;
mod rivals;
pub mod tally;

use std::{
    io,
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

use chrono::TimeDelta;
use secrecy::ExposeSecret;
use tokio::time::{Instant, sleep};

use self::{
    buyers::{Buyer, Buyers, QuantityMix, SOLD_OUT, Wish},
    ceilings::Ceilings,
    claim_costs::{ClaimCost, Size},
    load::{Load, Target, fire},
    report::{HttpRates, Settlement},
    rivals::{Compared, Design},
};
use crate::{
    app::{App, AppError},
    clients::redis::RedisError,
    config::Config,
    domain::ids::{CustomerId, FlashSaleId},
    services::{ServiceError, seed},
    store::{self, Database, StoreError, schema::SchemaError, scratch::ScratchDatabase},
};

/// Customers of the measurements in the scratch database: so many that they do not come round too soon.
const SCRATCH_CUSTOMERS_PER_MILLISECOND: u128 = 5;
/// Each claims once at each moment, and a few come round.
const CLAIM_COST_CUSTOMERS: usize = 10_000;
/// Few, so that it is sold out at once.
const SOLD_OUT_UNITS: i32 = 20;
const SETTLEMENT_POLL: Duration = Duration::from_millis(100);

#[derive(Debug, thiserror::Error)]
pub enum StampedeError {
    #[error(transparent)]
    App(#[from] AppError),
    #[error(transparent)]
    Service(#[from] ServiceError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Schema(#[from] SchemaError),
    #[error(transparent)]
    Redis(#[from] RedisError),
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("an answer does not read: {0}")]
    Json(#[from] serde_json::Error),
    #[error("a measurement broke: {0}")]
    Task(#[from] tokio::task::JoinError),
    #[error("the server's address must look like http://127.0.0.1:8000")]
    Target,
    #[error("the server did not start; the end of its log:\n{log}")]
    NotStarted { log: String },
    #[error("the payment simulator did not start")]
    NoSimulator,
    #[error("an access token is not one of this server's")]
    Token,
    #[error("the catalogue's newest product has no category, or its products cannot be moved to another")]
    NoCategory,
    #[error("a batch of purchases failed")]
    BatchFailed,
}

impl From<sqlx::Error> for StampedeError {
    fn from(error: sqlx::Error) -> Self {
        Self::Store(error.into())
    }
}

/// What is fired.
#[derive(Clone, Debug)]
pub struct Plan {
    pub units: i32,
    pub per_customer_limit: i32,
    pub quantity: QuantityMix,
    pub load: Load,
    /// Ends the load after so many purchases.
    pub purchases: Option<u64>,
    pub repeat_percent: u32,
    /// How long each other measurement lasts.
    pub measure: Duration,
    /// How long to wait until all orders are settled; `None` when nobody settles them.
    pub settle_within: Option<Duration>,
    /// Once more with so many times the purchases that were accepted.
    pub overload: Option<f64>,
    /// Processes that answer, as far as this program has started them.
    pub servers: usize,
}

impl Plan {
    fn scratch_customers(&self) -> usize {
        usize::try_from(self.measure.as_millis() * SCRATCH_CUSTOMERS_PER_MILLISECOND).unwrap_or(usize::MAX).clamp(500, 50_000)
    }
}

/// Who buys: the sale's customers, as HTTP clients.
pub async fn make_buyers(app: &App, count: usize, mut progress: impl FnMut(usize)) -> Result<Arc<[Buyer]>, StampedeError> {
    let mut buyers = Vec::with_capacity(count);
    seed::customers(app, count, |made| {
        buyers.extend(
            made.into_iter().map(|customer| Buyer {
                id: customer.id,
                authorization: format!("Bearer {}", customer.access_token.expose_secret()).into(),
            }),
        );
        progress(buyers.len());
    })
    .await?;
    Ok(buyers.into())
}

/// What the machine can do at best; runs in the scratch database, while nothing else runs.
pub async fn measure_ceilings(app: &App, plan: &Plan) -> Result<Ceilings, StampedeError> {
    let buyers = make_buyers(app, plan.scratch_customers(), |_| ()).await?;
    let customers: Vec<_> = buyers.iter().map(|buyer| buyer.id).collect();
    let sql = ceilings::sql_alone(app, &customers, plan.quantity, plan.measure).await?;
    let graphql = match buyers.first() {
        Some(buyer) => ceilings::graphql_alone(app, buyer, plan.measure).await?,
        None => 0.0,
    };
    Ok(Ceilings { graphql, sql })
}

/// The designs one after the other; runs in the scratch database, while nothing else runs.
pub async fn compare(app: &App, plan: &Plan, progress: impl Fn(&'static str)) -> Result<Vec<Compared>, StampedeError> {
    let buyers = make_buyers(app, plan.scratch_customers(), |_| ()).await?;
    let customers: Arc<[CustomerId]> = buyers.iter().map(|buyer| buyer.id).collect();
    let mut compared = Vec::new();
    for design in Design::ALL {
        progress(design.name());
        compared.push(rivals::compare(app, design, &customers, plan.quantity, plan.measure).await?);
    }
    Ok(compared)
}

/// Claims at the first and the last unit of a large sale; runs in the scratch database, while nothing else runs.
pub async fn measure_claim_costs(app: &App, size: Size, say: impl Fn(&str)) -> Result<Vec<ClaimCost>, StampedeError> {
    let buyers = make_buyers(app, CLAIM_COST_CUSTOMERS, |_| ()).await?;
    let customers: Vec<_> = buyers.iter().map(|buyer| buyer.id).collect();
    claim_costs::measure(app, &customers, size, say).await
}

/// The stampede itself: a new sale, open at once. `answers` rises while it runs.
pub async fn charge(
    app: &App,
    plan: &Plan,
    target: &Target,
    buyers: &Arc<[Buyer]>,
    answers: Arc<AtomicU64>,
) -> Result<(FlashSaleId, Buyers), StampedeError> {
    let sale = seed::sale(app, plan.units, plan.per_customer_limit, TimeDelta::zero()).await?;
    store::scratch::settle_down(&mut *app.db.acquire().await?).await?;
    let wish =
        Wish { sale, quantity: plan.quantity, repeat_percent: plan.repeat_percent, purchases: plan.purchases, until_sold_out: false };
    let fired = fire(target, plan.load, Buyers::new(buyers.clone(), wish, answers)).await?;
    Ok((sale, fired))
}

/// Waits until every order of the sale is settled.
pub async fn settle(app: &App, sale: FlashSaleId, within: Duration) -> Result<Settlement, StampedeError> {
    let start = Instant::now();
    let mut settlement = Settlement { unsettled_at_the_end_of_fire: unsettled(app, sale).await?, ..Settlement::default() };
    while start.elapsed() < within && !is_settled(app, sale).await? {
        sleep(SETTLEMENT_POLL).await;
    }
    settlement.took = start.elapsed();
    settlement.unsettled = unsettled(app, sale).await?;
    Ok(settlement)
}

/// Every unit that was claimed is paid for. By the sale's counters: counting orders would slow down what it waits for.
async fn is_settled(app: &App, sale: FlashSaleId) -> Result<bool, StampedeError> {
    let sale = store::flash_sale::list_by_ids(&mut *app.db.acquire().await?, &[sale]).await?.pop();
    Ok(sale.is_none_or(|sale| sale.sold >= sale.claimed))
}

async fn unsettled(app: &App, sale: FlashSaleId) -> Result<i64, StampedeError> {
    Ok(store::stampede::count_unsettled(&mut *app.db.acquire().await?, sale).await?)
}

/// Answers a second of the server when there is nothing to do: to the cheapest query, and of a sale that is sold out.
pub async fn measure_answers(app: &App, plan: &Plan, target: &Target, buyers: &Arc<[Buyer]>) -> Result<HttpRates, StampedeError> {
    let load = Load { duration: plan.measure, rate: None, ..plan.load };
    let sale = seed::sale(app, SOLD_OUT_UNITS, 1, TimeDelta::zero()).await?;
    let one = QuantityMix { least: 1, most: 1 };
    let wish = Wish { sale, quantity: one, repeat_percent: 0, purchases: None, until_sold_out: true };
    let buy_out = Load { in_flight: load.in_flight.min(8), duration: Duration::from_secs(10), rate: None, core: load.core };
    fire(target, buy_out, Buyers::new(buyers.clone(), wish.clone(), Arc::default())).await?;

    let cheapest_query = ceilings::cheapest_query(target, load, buyers.clone(), Arc::default()).await?;
    let fired = fire(target, load, Buyers::new(buyers.clone(), Wish { until_sold_out: false, ..wish }, Arc::default())).await?;
    Ok(HttpRates { cheapest_query, sold_out: fired.tally.rate(SOLD_OUT), sold_out_kinds: fired.tally.kinds })
}

/// The program on an empty database beside its own, and that database, to be dropped in the end.
pub async fn scratch_app(app: &App, connections: u32) -> Result<(App, ScratchDatabase), StampedeError> {
    let scratch = ScratchDatabase::create(&app.config.database.direct_url).await?;
    let mut config = Config::clone(&app.config);
    config.database.url = scratch.url.clone();
    config.database.direct_url = scratch.url.clone();
    let mut built = App::new(config, app.clock.clone(), Some(Arc::default()))?;
    built.db = Database::new(scratch.pool(connections)?, built.metrics.pool_waits("scratch"));
    match store::schema::run(&built.db).await {
        Ok(_) => Ok((built, scratch)),
        Err(error) => {
            built.db.close().await;
            scratch.drop().await?;
            Err(error.into())
        }
    }
}
