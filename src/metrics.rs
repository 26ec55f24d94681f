//! What this process counts while it works, written where it happens and shown by `/metrics` (docs/METRICS.md, docs/adr/0021).
//!
//! Owns: names, labels and buckets. Does not own: what is read only when somebody looks (services/metrics.rs), the port (http/metrics.rs).
//! Made once, in `App`; nothing of it is global. Labels are words of the program's own, never of a client's.

mod pages;
mod process;
mod snapshot;

use std::time::{Duration, Instant};

use prometheus_client::{
    encoding::prometheus_text,
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::{Metric, Registry},
};

pub use self::{pages::PageCounters, process::process_metrics, snapshot::Snapshot};
use crate::domain::named_enum;

/// What all our names begin with.
const PREFIX: &str = "whitemonday";
/// Upper bounds in seconds: from a page in memory to work that waits for a provider that is ill.
const DURATIONS: [f64; 16] = [0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];
const BATCH_SIZES: [f64; 7] = [1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0];

type Labels<const N: usize> = [(&'static str, &'static str); N];
type Counters<const N: usize> = Family<Labels<N>, Counter>;
type Gauges = Family<Labels<1>, Gauge>;
type Durations = Family<Labels<1>, Histogram, fn() -> Histogram>;

named_enum! {
    /// What became of an operation.
    OperationOutcome {
        Ok = "ok",
        /// The client's to mend: a user error, a missing right, a bad request.
        Refused = "refused",
        /// A fault of ours, or it took too long.
        Failed = "failed",
        /// Too many at once, or of one caller.
        Overloaded = "overloaded",
    }
}

named_enum! {
    /// What became of a message of a queue.
    MessageOutcome {
        Done = "done",
        /// It failed, and comes again.
        Retried = "retried",
        Dead = "dead",
    }
}

named_enum! {
    /// What became of a call of the payment provider.
    CallOutcome {
        Ok = "ok",
        /// The provider answered, with a no.
        Declined = "declined",
        Failed = "failed",
        TimedOut = "timed_out",
    }
}

pub struct Metrics {
    registry: Registry,
    operations: Counters<2>,
    operation_durations: Durations,
    pub operations_in_flight: Gauge,
    purchases: Counters<1>,
    pub purchase_batch_size: Histogram,
    pub claim_duration: Histogram,
    messages: Counters<2>,
    message_durations: Durations,
    messages_in_flight: Gauges,
    pub provider_calls: ProviderCalls,
    pub pages: PageCounters,
    pool_waits: Durations,
    pub sockets: Gauge,
    pub streams: Gauge,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix(PREFIX);
        let to = &mut registry;
        Self {
            operations: register(to, "operations", "Operations by HTTP that were answered", Counters::default()),
            operation_durations: register(to, "operation_duration_seconds", "From the request's head to its answer", durations()),
            operations_in_flight: register(to, "operations_in_flight", "Operations that are worked on now", Gauge::default()),
            purchases: register(to, "purchases", "Answers of buyNow", Counters::default()),
            purchase_batch_size: register(to, "purchase_batch_size", "Purchases placed together", Histogram::new(BATCH_SIZES)),
            claim_duration: register(
                to,
                "claim_duration_seconds",
                "A batch of purchases, from asking for a connection to the last one's outcome",
                duration(),
            ),
            messages: register(to, "messages", "Messages that workers have handled", Counters::default()),
            message_durations: register(to, "message_duration_seconds", "From reading a message to the end of its batch", durations()),
            messages_in_flight: register(to, "messages_in_flight", "Messages that this process is at", Gauges::default()),
            provider_calls: ProviderCalls::new(to),
            pages: PageCounters::new(to),
            pool_waits: register(to, "pool_wait_seconds", "How long a connection to the database was waited for", durations()),
            sockets: register(to, "sockets", "WebSockets that are open", Gauge::default()),
            streams: register(to, "streams", "Subscriptions that are open", Gauge::default()),
            registry,
        }
    }
}

impl Metrics {
    /// What has been counted until now, in Prometheus's text format.
    #[must_use]
    pub fn text(&self) -> String {
        text(&self.registry)
    }

    /// The counters of an operation, to be kept: looking them up costs more than counting.
    #[must_use]
    pub fn operation(&self, name: &'static str) -> OperationMeter {
        let outcome =
            |outcome: &OperationOutcome| self.operations.get_or_create_owned(&[("operation", name), ("outcome", outcome.as_str())]);
        OperationMeter {
            outcomes: OperationOutcome::ALL.iter().map(outcome).collect(),
            duration: self.operation_durations.get_or_create_owned(&[("operation", name)]),
        }
    }

    pub fn purchase(&self, outcome: &'static str) {
        self.purchases.get_or_create(&[("outcome", outcome)]).inc();
    }

    pub fn message(&self, queue: &'static str, outcome: MessageOutcome, count: usize) {
        self.messages.get_or_create(&[("queue", queue), ("outcome", outcome.as_str())]).inc_by(count as u64);
    }

    /// How long callers of this pool wait for a connection.
    #[must_use]
    pub fn pool_waits(&self, pool: &'static str) -> Histogram {
        self.pool_waits.get_or_create_owned(&[("pool", pool)])
    }

    /// Makes a queue's series known, so that a first failure is a rise from zero.
    #[must_use]
    pub fn queue(&self, queue: &'static str) -> QueueMeter {
        for outcome in MessageOutcome::ALL {
            self.message(queue, *outcome, 0);
        }
        QueueMeter {
            in_flight: self.messages_in_flight.get_or_create_owned(&[("queue", queue)]),
            duration: self.message_durations.get_or_create_owned(&[("queue", queue)]),
        }
    }
}

/// Counts the answers to one operation.
pub struct OperationMeter {
    outcomes: Vec<Counter>,
    duration: Histogram,
}

impl OperationMeter {
    pub fn count(&self, outcome: OperationOutcome, took: Duration) {
        self.outcomes[outcome as usize].inc();
        self.duration.observe(took.as_secs_f64());
    }
}

/// Counts what the runner of a queue is at.
pub struct QueueMeter {
    in_flight: Gauge,
    duration: Histogram,
}

impl QueueMeter {
    /// So many messages are worked on until the answer is dropped.
    pub fn begin(&self, messages: usize) -> MessagesAtWork {
        MessagesAtWork {
            messages,
            start: Instant::now(),
            duration: self.duration.clone(),
            _counted: Counted::many(&self.in_flight, messages),
        }
    }
}

#[must_use]
pub struct MessagesAtWork {
    messages: usize,
    start: Instant,
    duration: Histogram,
    _counted: Counted,
}

impl Drop for MessagesAtWork {
    fn drop(&mut self) {
        for _ in 0..self.messages {
            self.duration.observe(self.start.elapsed().as_secs_f64());
        }
    }
}

/// Calls of the payment provider that were made, each try by itself.
#[derive(Clone)]
pub struct ProviderCalls {
    calls: Counters<2>,
    durations: Durations,
}

impl ProviderCalls {
    #[must_use]
    pub fn new(registry: &mut Registry) -> Self {
        Self {
            calls: register(registry, "provider_calls", "Calls of the payment provider", Counters::default()),
            durations: register(registry, "provider_call_duration_seconds", "Until the provider's answer, or the lack of one", durations()),
        }
    }

    pub fn count(&self, call: &'static str, outcome: CallOutcome, took: Duration) {
        self.calls.get_or_create(&[("call", call), ("outcome", outcome.as_str())]).inc();
        self.durations.get_or_create(&[("call", call)]).observe(took.as_secs_f64());
    }

    /// Makes a call's series known before it is made, so that a first failure is a rise from zero.
    pub fn announce(&self, call: &'static str) {
        for outcome in CallOutcome::ALL {
            drop(self.calls.get_or_create(&[("call", call), ("outcome", outcome.as_str())]));
        }
        drop(self.durations.get_or_create(&[("call", call)]));
    }
}

/// Counts in a gauge for as long as it lives.
#[must_use]
pub struct Counted {
    gauge: Gauge,
    count: i64,
}

impl Counted {
    pub fn one(gauge: &Gauge) -> Self {
        Self::many(gauge, 1)
    }

    pub fn many(gauge: &Gauge, count: usize) -> Self {
        let count = i64::try_from(count).unwrap_or(i64::MAX);
        gauge.inc_by(count);
        Self { gauge: gauge.clone(), count }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.gauge.dec_by(self.count);
    }
}

fn register<M: Metric + Clone>(registry: &mut Registry, name: &str, help: &str, metric: M) -> M {
    registry.register(name, help, metric.clone());
    metric
}

fn duration() -> Histogram {
    Histogram::new(DURATIONS)
}

fn durations() -> Durations {
    Family::new_with_constructor(duration)
}

fn text(registry: &Registry) -> String {
    let mut text = String::new();
    // Writing into memory does not fail.
    let _ = prometheus_text::encode(&mut text, registry);
    text
}
