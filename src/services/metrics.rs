//! What `/metrics` shows: what the process has counted (metrics.rs), and here what is read only when somebody looks. Called by
//! http/metrics.rs.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use chrono::TimeDelta;
use tokio::{sync::Mutex, time::timeout};

use super::{ServiceError, circuit_breaker};
use crate::{
    app::App,
    domain::{circuit_breaker::BreakerState, order::OrderStatus, payment::PaymentStatus},
    metrics::{Snapshot, process_metrics},
    store::{
        self, lease,
        metrics::{Ages, Count, QueueTotals, UnitTotals},
        queue::Queue,
        schema::SchemaError,
    },
};

/// However many look, the database is read once in this time.
const READ_EVERY: Duration = Duration::from_secs(5);
/// What a statement may cost at most.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(1);
/// A database that has not told everything by then counts as away: whoever looks waits ten seconds as a rule.
const PATIENCE: Duration = Duration::from_secs(3);
/// Orders and payments are looked back at for so long.
const LOOK_BACK: TimeDelta = TimeDelta::hours(1);
/// And at no more of them than this: enough for shares.
const NEWEST: i64 = 10_000;
/// Messages of a queue, and failures, that are counted.
const MOST: i64 = 100_000;

/// What was read of the database, and when; nothing of a database that was away.
#[derive(Default)]
pub struct LastReading(Mutex<Option<(Instant, Option<Arc<Reading>>)>>);

struct Reading {
    schema_is_current: bool,
    /// None when that took too long, or of a schema that is too different.
    shop: Option<Shop>,
}

struct Shop {
    units: UnitTotals,
    ages: Ages,
    queues: Vec<(Queue, QueueTotals, Duration)>,
    /// Of the breakers of all workers; none when none has told of late.
    worst_breaker: Option<BreakerState>,
    counts: Vec<Count>,
}

impl Shop {
    /// The count of each label of a metric, zeros too.
    fn counts<'a>(
        &'a self,
        metric: &'a str,
        labels: impl IntoIterator<Item = &'static str> + 'a,
    ) -> impl Iterator<Item = (&'static str, i64)> + 'a {
        let count = move |label| self.counts.iter().find(|count| count.metric == metric && count.label == label);
        labels.into_iter().map(move |label| (label, count(label).map_or(0, |count| count.count)))
    }
}

/// All metrics in Prometheus's text format. With the database away it has those of the process.
pub async fn exposition(app: &App) -> String {
    let reading = last_reading(app).await;
    let mut now = Snapshot::default();
    show_process(app, &mut now);
    show_audit(app, &mut now);
    let shop = reading.as_ref().and_then(|reading| reading.shop.as_ref());
    let held = |lease: &str| shop.is_some_and(|shop| shop.counts.iter().any(|count| count.metric == "lease_held" && count.label == lease));
    now.gauges("lease_held", "Whether this process has it", ["lease"], lease::ALL.map(|lease| ([lease], i64::from(held(lease)))));
    now.gauge("database_up", "Whether the database answers", i64::from(reading.is_some()));
    if let Some(reading) = &reading {
        now.gauge("schema_version_is_current", "Whether the schema is the program's", i64::from(reading.schema_is_current));
    }
    if let Some(shop) = shop {
        show_shop(shop, &mut now);
    }
    [process_metrics(), app.metrics.text(), now.text()].concat()
}

fn show_process(app: &App, now: &mut Snapshot) {
    now.gauges("build_info", "The program", ["version"], [([env!("CARGO_PKG_VERSION")], 1)]);
    let pools = app.pools();
    let connections = pools.iter().flat_map(|(name, pool)| {
        let idle = u32::try_from(pool.num_idle()).unwrap_or(u32::MAX);
        [([*name, "idle"], idle), ([*name, "in_use"], pool.size().saturating_sub(idle))]
    });
    now.gauges("pool_connections", "Connections to the database", ["pool", "state"], connections);
    let most = pools.iter().map(|(name, pool)| ([*name], pool.options().get_max_connections()));
    now.gauges("pool_max_connections", "The most that there may be", ["pool"], most);
}

fn show_audit(app: &App, now: &mut Snapshot) {
    let Some(report) = app.last_audit.get() else { return };
    let violations = report.invariants.iter().map(|invariant| ([invariant.name], invariant.violations));
    now.gauges("audit_violations", "Rows that broke an invariant at the last audit", ["invariant"], violations);
    let oversold = report.invariants.iter().find(|invariant| invariant.name == "I1").map_or(0, |invariant| invariant.violations);
    now.gauge("oversold_sales", "Sales that have sold other units than their own (I1)", oversold);
    now.gauge("audit_age_seconds", "Time since that audit", (app.clock.now() - report.checked_at).as_seconds_f64());
}

fn show_shop(shop: &Shop, now: &mut Snapshot) {
    let UnitTotals { free, held, sold } = shop.units;
    now.gauges("units", "Units of sales that are not over", ["state"], [(["free"], free), (["held"], held), (["sold"], sold)]);
    now.gauge("oldest_hold_seconds", "For how long the hold of an unpaid order has been over", shop.ages.oldest_hold);
    now.gauge("oldest_transaction_seconds", "Of any client", shop.ages.oldest_transaction);
    let queues = || Queue::ALL.into_iter().map(Queue::as_str);
    let mut counts = |name, help, label, counts: &mut dyn Iterator<Item = (&'static str, i64)>| {
        now.gauges(name, help, [label], counts.map(|(label, count)| ([label], count)));
    };
    let orders = OrderStatus::ALL.iter().map(|status| status.as_str());
    counts("orders", "The newest orders of the last hour", "status", &mut shop.counts("orders", orders));
    let payments = PaymentStatus::ALL.iter().map(|status| status.as_str());
    counts("payments", "The newest payments of the last hour", "status", &mut shop.counts("payments", payments));
    counts("retries", "Work that has failed and is not done yet", "queue", &mut shop.counts("retries", queues()));
    counts("dead_letters", "Messages that no worker could use", "queue", &mut shop.counts("dead_letters", queues()));
    let dead_tuples = shop.counts.iter().filter(|count| count.metric == "dead_tuples").map(|count| ([&*count.label], count.count));
    now.gauges("dead_tuples", "Rows that a vacuum would take away, as estimated", ["table"], dead_tuples);
    let messages = shop.queues.iter().zip(shop.counts("delayed", queues())).flat_map(|((queue, totals, _), (_, delayed))| {
        let queue = queue.as_str();
        [([queue, "ready"], totals.ready), ([queue, "in_flight"], totals.in_flight), ([queue, "delayed"], delayed)]
    });
    now.gauges("queue_messages", "Messages of a queue", ["queue", "state"], messages);
    let waits = shop.queues.iter().map(|(queue, _, wait)| ([queue.as_str()], wait.as_secs_f64()));
    now.gauges("queue_oldest_message_seconds", "How long the oldest one waits that a worker could read", ["queue"], waits);
    let states = [("closed", BreakerState::Closed), ("open", BreakerState::Open), ("half_open", BreakerState::HalfOpen)];
    let breakers = states.map(|(name, state)| ([name], i64::from(shop.worst_breaker == Some(state))));
    now.gauges("breaker_state", "How the payment provider's circuit breaker is that fares worst", ["state"], breakers);
}

/// The last reading, made anew when it is old; who comes meanwhile waits for it.
async fn last_reading(app: &App) -> Option<Arc<Reading>> {
    let mut last = app.last_reading.0.lock().await;
    if let Some((read_at, reading)) = &*last
        && read_at.elapsed() < READ_EVERY
    {
        return reading.clone();
    }
    let reading = timeout(PATIENCE, read(app)).await.unwrap_or_else(|_| {
        tracing::warn!("the database does not answer: metrics are shown without it");
        None
    });
    let reading = reading.map(Arc::new);
    *last = Some((Instant::now(), reading.clone()));
    reading
}

/// `None` when the database does not answer.
async fn read(app: &App) -> Option<Reading> {
    let schema_is_current = match check_schema(app).await {
        Ok(()) => true,
        Err(error) if error.is_mismatch() => false,
        Err(error) => {
            tracing::warn!(%error, "metrics are shown without the database");
            return None;
        }
    };
    let shop = read_shop(app).await.inspect_err(|error| tracing::warn!(%error, "metrics are shown without the shop's numbers"));
    Some(Reading { schema_is_current, shop: shop.ok() })
}

async fn check_schema(app: &App) -> Result<(), SchemaError> {
    store::schema::check(&mut *app.db.acquire().await?).await
}

/// One transaction, which only reads, on one core.
async fn read_shop(app: &App) -> Result<Shop, ServiceError> {
    let now = app.clock.now();
    let breakers = circuit_breaker::list(app).await?;
    let mut tx = app.db.begin().await?;
    store::audit::be_modest(&mut tx, STATEMENT_TIMEOUT).await?;
    let mut queues = Vec::with_capacity(Queue::ALL.len());
    for queue in Queue::ALL {
        let totals = store::metrics::get_queue(&mut tx, queue, MOST).await?;
        queues.push((queue, totals, store::queue::get_oldest_wait(&mut tx, queue).await?.unwrap_or_default()));
    }
    let shop = Shop {
        units: store::metrics::get_units(&mut tx, now).await?,
        ages: store::metrics::get_ages(&mut tx, now).await?,
        queues,
        worst_breaker: [BreakerState::Open, BreakerState::HalfOpen, BreakerState::Closed]
            .into_iter()
            .find(|state| breakers.iter().any(|breaker| breaker.state == *state)),
        counts: store::metrics::list_counts(&mut tx, now - LOOK_BACK, NEWEST, MOST, app.process).await?,
    };
    tx.rollback().await?;
    Ok(shop)
}
