//! What a claim costs at the first and the last unit of a large sale, before and after vacuum, with and without a low-water
//! mark, and beside millions of old orders.
//!
//! Owns: the moments at which is measured. Does not own: the SQL that brings the tables there (store/scratch.rs). Runs in a
//! scratch database, one connection, batches as the engine's.

use std::time::{Duration, Instant};

use chrono::TimeDelta;
use sqlx::PgConnection;

use super::{
    StampedeError,
    ceilings::NO_LIMIT,
    claims::{Claims, purchase},
    tally::float,
};
use crate::{
    app::App,
    domain::{
        ids::{CustomerId, FlashSaleId},
        quantity::Quantity,
    },
    services::seed,
    store,
};

const BATCH: usize = 100;
const BATCHES: usize = 60;
const SLOT: i16 = 0;
const OLD_ORDERS_AT_ONCE: u32 = 250_000;

/// How large the tables are.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    pub units: i32,
    pub old_orders: i64,
}

/// What was measured at one moment.
#[derive(Clone, Debug)]
pub struct ClaimCost {
    pub at: String,
    /// The median batch, for each of its claims.
    pub per_claim: Duration,
    /// A batch of a process that has just started and does not know where the free units begin.
    pub first_batch: Duration,
    /// The median batch as a part of the first row's.
    pub part: f64,
}

/// Measures at each moment; `say` is told what is being done.
pub async fn measure(app: &App, customers: &[CustomerId], size: Size, say: impl Fn(&str)) -> Result<Vec<ClaimCost>, StampedeError> {
    say("making the units");
    let sale = seed::sale(app, size.units, NO_LIMIT, TimeDelta::zero()).await?;
    let mut db = app.db.acquire().await?;
    store::scratch::stop_autovacuum(&mut db).await?;
    let mut run = Run { customers, next: 0, measured: Vec::new() };

    let (half, end) = (size.units / 2, size.units - margin());
    run.warm_up(&mut db, sale).await?;
    run.moment(&mut db, sale, "the first units").await?;
    say("claiming half of them");
    store::scratch::take_units(&mut db, sale, half).await?;
    run.moment(&mut db, sale, format!("after {half} claims, not vacuumed")).await?;
    say("claiming nearly all of them");
    store::scratch::take_units(&mut db, sale, end).await?;
    run.moment(&mut db, sale, "the last units, not vacuumed").await?;
    store::scratch::vacuum(&mut db).await?;
    run.moment(&mut db, sale, "the last units, vacuumed").await?;

    if size.old_orders > 0 {
        for from in (0..size.old_orders).step_by(OLD_ORDERS_AT_ONCE as usize) {
            say(&format!("writing old orders, {from} of {} are there", size.old_orders));
            let to = size.old_orders.min(from + i64::from(OLD_ORDERS_AT_ONCE));
            store::scratch::insert_old_orders(&mut db, sale, from..to, size.old_orders).await?;
        }
        store::scratch::vacuum(&mut db).await?;
        let sale = seed::sale(app, size.units, NO_LIMIT, TimeDelta::zero()).await?;
        run.warm_up(&mut db, sale).await?;
        run.moment(&mut db, sale, format!("the first units, beside {} old orders", size.old_orders)).await?;
    }
    Ok(run.measured)
}

/// Units that two moments near the end may take.
fn margin() -> i32 {
    i32::try_from(3 * BATCH * (BATCHES + 1)).unwrap_or(i32::MAX)
}

struct Run<'a> {
    customers: &'a [CustomerId],
    next: usize,
    measured: Vec<ClaimCost>,
}

impl Run<'_> {
    /// Every customer buys once: the first purchase in a sale makes the customer's quota, and no moment shall pay for that.
    async fn warm_up(&mut self, db: &mut PgConnection, sale: FlashSaleId) -> Result<(), StampedeError> {
        let mut claims = Claims::new(SLOT);
        for _ in 0..self.customers.len().div_ceil(BATCH) {
            self.batch(db, &mut claims, sale).await?;
        }
        Ok(())
    }

    async fn moment(&mut self, db: &mut PgConnection, sale: FlashSaleId, at: impl Into<String>) -> Result<(), StampedeError> {
        store::scratch::settle_down(db).await?;
        let mut claims = Claims::new(SLOT);
        let first_batch = self.batch(db, &mut claims, sale).await?;
        let mut batches = Vec::with_capacity(BATCHES);
        for _ in 0..BATCHES {
            batches.push(self.batch(db, &mut claims, sale).await?);
        }
        batches.sort();
        let median = batches[BATCHES / 2];
        let base = self.measured.first().map_or(median, |first| first.per_claim * u32::try_from(BATCH).unwrap_or(1));
        let part = median.as_secs_f64() / base.as_secs_f64();
        self.measured.push(ClaimCost { at: at.into(), per_claim: median.div_f64(float(BATCH as u64)), first_batch, part });
        Ok(())
    }

    async fn batch(&mut self, db: &mut PgConnection, claims: &mut Claims, sale: FlashSaleId) -> Result<Duration, StampedeError> {
        let one = Quantity::new(1).ok_or(StampedeError::BatchFailed)?;
        let customers = (0..BATCH).map(|place| self.customers[(self.next + place) % self.customers.len()]);
        let purchases: Vec<_> = customers.map(|customer| purchase(customer, sale, one)).collect();
        self.next += BATCH;
        let start = Instant::now();
        let accepted = claims.place(db, &purchases).await?;
        let took = start.elapsed();
        if accepted.iter().all(|accepted| *accepted) { Ok(took) } else { Err(StampedeError::BatchFailed) }
    }
}
