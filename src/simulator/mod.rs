//! A payment provider to run against: the subset of Stripe's HTTP API that the program uses, with a ledger that says
//! what was really charged, a store of idempotency keys, events to an endpoint, and faults on demand. Started by the command
//! `payment-simulator`, by `demo`, and by tests; the program talks to it over HTTP only, as to the provider.
//! It is an outside party: it has its own clock, and knows nothing of orders but the metadata it was given.

mod admin;
mod api;
mod book;
mod call;
mod cards;
mod connection;
mod faults;
mod idempotency;
mod intents;
mod journal;
mod ledger;
mod page;
mod params;
mod scripts;
mod table;
#[cfg(test)]
mod tests;
mod webhooks;
mod wire;

use std::{
    future::Future,
    io,
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use axum::Router;
use secrecy::SecretString;
use tokio::{net::TcpListener, sync::oneshot, task::JoinHandle};

pub use admin::LedgerLine;
pub use faults::{Fault, FaultScript, Operation};
pub use journal::JournalError;
pub use ledger::LedgerSummary;
pub use scripts::{BadScript, ScriptState};
pub use webhooks::{EndpointError, NotHeld, WebhookCounts, WebhookEvent, WebhookFault, WebhookKind, WebhookScript};

use book::{Book, Change};
use connection::{Cut, CuttableListener};
use faults::Faults;
use journal::Journal;
use webhooks::Webhooks;

/// How long calls that are still running may go on after the order to stop.
const STOP_GRACE: Duration = Duration::from_secs(1);

#[derive(Debug, Clone, clap::Args)]
pub struct SimulatorOptions {
    /// How long each call takes, in milliseconds.
    #[arg(long = "latency-ms", value_name = "MS", default_value = "0", value_parser = parse_milliseconds)]
    pub latency: Duration,
    /// Remembers payments over restarts in this file; without it they are forgotten at the end.
    #[arg(long, value_name = "FILE")]
    pub state_file: Option<PathBuf>,
    /// How long the answer to a call can be asked for again by its idempotency key, in seconds.
    #[arg(long = "key-lifetime-s", value_name = "S", default_value = "86400", value_parser = parse_seconds)]
    pub key_lifetime: Duration,
    /// Where customers reach the simulator's page for authentication; by default the address it listens on.
    #[arg(long, value_name = "URL")]
    pub public_url: Option<String>,
    /// Sends events there, such as `payment_intent.succeeded`; without it none.
    #[arg(long, value_name = "URL")]
    pub webhook_url: Option<String>,
    /// Signs the events; by default `PAYMENT_WEBHOOK_SECRET` of the environment.
    #[arg(long, value_name = "SECRET")]
    pub webhook_secret: Option<SecretString>,
    /// How long an event that was not accepted waits for its second try, in milliseconds; doubled before each of four more.
    #[arg(long = "webhook-pause-ms", value_name = "MS", default_value = "500", value_parser = parse_milliseconds)]
    pub webhook_pause: Duration,
}

impl Default for SimulatorOptions {
    fn default() -> Self {
        let key_lifetime = Duration::from_hours(24);
        Self {
            latency: Duration::ZERO,
            state_file: None,
            key_lifetime,
            public_url: None,
            webhook_url: None,
            webhook_secret: None,
            webhook_pause: webhooks::PAUSE,
        }
    }
}

fn parse_milliseconds(text: &str) -> Result<Duration, std::num::ParseIntError> {
    text.parse().map(Duration::from_millis)
}

fn parse_seconds(text: &str) -> Result<Duration, std::num::ParseIntError> {
    text.parse().map(Duration::from_secs)
}

#[derive(Debug, thiserror::Error)]
pub enum SimulatorError {
    #[error(transparent)]
    Journal(#[from] JournalError),
    #[error(transparent)]
    Endpoint(#[from] EndpointError),
    #[error("the payment simulator can't listen on {address}: {source}")]
    Listen { address: SocketAddr, source: io::Error },
    #[error("the payment simulator ended: {0}")]
    Serve(#[source] io::Error),
}

/// Serves a simulator on `listener` until `shutdown` resolves.
pub async fn serve(
    listener: TcpListener,
    options: SimulatorOptions,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<(), SimulatorError> {
    Simulator::open(options)?.serve(listener, shutdown).await
}

/// A handle to one simulator; clones share it. In the same process it can be scripted and judged directly.
#[derive(Clone)]
pub struct Simulator(Arc<Inner>);

struct Inner {
    book: Mutex<Book>,
    faults: Mutex<Faults>,
    journal: Option<Journal>,
    webhooks: Webhooks,
    latency: Duration,
    public_url: OnceLock<String>,
}

impl Simulator {
    /// A simulator that knows what its state file knows. Reads the file to its end before it returns.
    pub fn open(options: SimulatorOptions) -> Result<Self, SimulatorError> {
        let lifetime_ms = u64::try_from(options.key_lifetime.as_millis()).unwrap_or(u64::MAX);
        let mut book = Book::new(lifetime_ms);
        let journal = match &options.state_file {
            Some(path) => Some(Journal::open(path, |change| book.apply(change))?),
            None => None,
        };
        let webhooks = Webhooks::new(options.webhook_pause);
        if let Some(url) = &options.webhook_url {
            webhooks.send_to(url, options.webhook_secret.as_ref().ok_or(EndpointError::NoSecret)?)?;
        }
        let public_url = options.public_url.map_or_else(OnceLock::new, OnceLock::from);
        let latency = options.latency;
        Ok(Self(Arc::new(Inner { book: Mutex::new(book), faults: Mutex::default(), journal, webhooks, latency, public_url })))
    }

    /// Serves until `shutdown` resolves; calls then still running get a second to end.
    pub async fn serve(&self, listener: TcpListener, shutdown: impl Future<Output = ()> + Send + 'static) -> Result<(), SimulatorError> {
        let address = listener.local_addr().map_err(SimulatorError::Serve)?;
        self.0.public_url.get_or_init(|| format!("http://{address}"));
        let (stopping, stopped) = oneshot::channel();
        let shutdown = async move {
            shutdown.await;
            // Nobody listens any more when the server has ended by itself.
            let _ = stopping.send(());
        };
        let service = self.router().into_make_service_with_connect_info::<Cut>();
        let server = axum::serve(CuttableListener(listener), service).with_graceful_shutdown(shutdown);
        let grace = async {
            match stopped.await {
                Ok(()) => tokio::time::sleep(STOP_GRACE).await,
                Err(_) => std::future::pending().await,
            }
        };
        tokio::select! {
            ended = server => ended.map_err(SimulatorError::Serve),
            () = grace => Ok(()),
        }
    }

    /// Starts a simulator on `address` in a task of its own; port 0 takes a free one.
    pub async fn start(address: SocketAddr, options: SimulatorOptions) -> Result<RunningSimulator, SimulatorError> {
        let simulator = Self::open(options)?;
        let listen = |source| SimulatorError::Listen { address, source };
        let listener = TcpListener::bind(address).await.map_err(listen)?;
        let url = format!("http://{}", listener.local_addr().map_err(listen)?);
        let (stop, stopped) = oneshot::channel::<()>();
        let served = simulator.clone();
        let task = tokio::spawn(async move {
            let shutdown = async {
                // A dropped handle stops it too.
                let _ = stopped.await;
            };
            served.serve(listener, shutdown).await
        });
        Ok(RunningSimulator { simulator, url, stop, task })
    }

    /// Adds a fault behind those already scripted.
    pub fn script(&self, script: FaultScript) -> Result<(), BadScript> {
        self.faults().add(script)
    }

    /// Ends all faults, and lets go on the calls they hold.
    pub fn clear_faults(&self) {
        self.faults().clear();
    }

    /// Returns when at least this many calls are held by a fault.
    pub async fn wait_for_held(&self, calls: usize) {
        let mut held = self.faults().held();
        // It can't fail: this handle keeps the count alive.
        let _ = held.wait_for(|held| *held >= calls).await;
    }

    /// From now on events go to this endpoint. What another one has not accepted yet is given up.
    pub fn send_webhooks_to(&self, url: &str, secret: &SecretString) -> Result<(), EndpointError> {
        self.0.webhooks.send_to(url, secret)
    }

    /// Adds a script for events behind those that there are.
    pub fn script_webhooks(&self, script: WebhookScript) -> Result<(), BadScript> {
        self.0.webhooks.add(script)
    }

    /// Ends the scripts for events; events that are held stay held.
    pub fn clear_webhook_scripts(&self) {
        self.0.webhooks.clear();
    }

    /// The events that a script holds, oldest first.
    #[must_use]
    pub fn held_webhooks(&self) -> Vec<WebhookEvent> {
        self.0.webhooks.held()
    }

    /// Delivers held events one after the other in this order, each until it is accepted or given up; how many were accepted.
    /// Those behind one that is not held stay held.
    pub async fn release_webhooks(&self, ids: &[String]) -> Result<usize, NotHeld> {
        self.0.webhooks.release(ids).await
    }

    #[must_use]
    pub fn webhook_counts(&self) -> WebhookCounts {
        self.0.webhooks.counts()
    }

    /// Returns when at least this many events were accepted.
    pub async fn wait_for_delivered_webhooks(&self, events: u64) {
        // It can't fail: this handle keeps the count alive.
        let _ = self.0.webhooks.watch().wait_for(|counts| counts.delivered >= events).await;
    }

    #[must_use]
    pub fn ledger(&self) -> LedgerSummary {
        self.book().ledger.summary()
    }

    /// The charges whose metadata names this order, oldest first.
    pub fn charges_of_order(&self, order_id: &str) -> Vec<LedgerLine> {
        self.book().ledger.charges_of_order(order_id).into_iter().map(LedgerLine::from).collect()
    }

    /// How many well-formed calls of this kind have come, also those that a fault struck.
    #[must_use]
    pub fn calls(&self, operation: Operation) -> u64 {
        self.book().calls.get(&operation).copied().unwrap_or_default()
    }

    fn router(&self) -> Router {
        api::routes().merge(admin::routes()).merge(page::routes()).with_state(self.clone())
    }

    /// Held for microseconds, never over an await. A panic under it can only have left a call half counted.
    fn book(&self) -> MutexGuard<'_, Book> {
        self.0.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn faults(&self) -> MutexGuard<'_, Faults> {
        self.0.faults.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn has_journal(&self) -> bool {
        self.0.journal.is_some()
    }

    /// Tells the world of changes, under the book's lock: webhooks and the state file. Nothing to wait for without a file.
    fn publish(&self, book: &Book, changes: Vec<Change>) -> Option<oneshot::Receiver<()>> {
        self.0.webhooks.tell(&changes, book, self.public_url());
        let journal = self.0.journal.as_ref().filter(|_| !changes.is_empty())?;
        Some(journal.write(changes))
    }

    fn latency(&self) -> Duration {
        self.0.latency
    }

    fn public_url(&self) -> &str {
        self.0.public_url.get().map_or("", String::as_str)
    }
}

/// A simulator that serves in a task; it stops when this is dropped.
pub struct RunningSimulator {
    pub simulator: Simulator,
    /// The base address for the adapter, without a slash at the end.
    pub url: String,
    stop: oneshot::Sender<()>,
    task: JoinHandle<Result<(), SimulatorError>>,
}

impl RunningSimulator {
    /// Stops it and waits for its end. The state file is complete and free afterwards; handles that are left can
    /// still be asked, but change nothing any more.
    pub async fn stop(self) -> Result<(), SimulatorError> {
        // The server may have ended already: its result says how.
        let _ = self.stop.send(());
        let ended = self.task.await.unwrap_or_else(|error| Err(SimulatorError::Serve(io::Error::other(error))));
        self.simulator.0.webhooks.stop();
        if let Some(journal) = &self.simulator.0.journal {
            journal.close();
        }
        ended
    }
}

/// The simulator's own clock: milliseconds since 1970.
fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
