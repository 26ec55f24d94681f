//! A whole program for a test: its own database, the real router on a real socket, the payment simulator over HTTP, mail
//! in memory. Jobs run only where a test starts them.

pub mod account;
mod barrier;
mod cart;
pub mod client;
pub mod collector;
mod database;
mod process;
mod prometheus;
pub mod statements;
mod tunnel;

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc, time::Duration};

use chrono::{SubsecRound, TimeDelta, Utc};
use secrecy::ExposeSecret;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use uuid::Uuid;
use whitemonday::{
    app::App,
    auth::Viewer,
    clock::Clock,
    config::{Config, MailTransport, Settings},
    domain::{
        customer::Role,
        ids::{CustomerId, FlashSaleId, SessionId},
    },
    embedded::EmbeddedServices,
    http, jobs,
    services::{self, seed},
    simulator::{RunningSimulator, Simulator, SimulatorOptions},
};

pub use barrier::{Barrier, Step};
pub use client::{Client, Socket, change, refused, status_after};
pub use database::TestDatabase;
pub use process::{Process, free_address};
pub use prometheus::{Prometheus, complaints};
pub use tunnel::{Tunnel, slow_way_to};

/// How long a test waits for what must come; it never comes this late unless something is broken.
pub const PATIENCE: Duration = Duration::from_secs(20);

const KEEP_PAGES: (&str, &str) = ("PAGE_CACHE_BYTES", "10000000");
const WEBHOOK_SECRET: &str = "whsec_tests";

pub const PASSWORD: &str = "correct horse battery";

pub struct TestApp {
    pub app: App,
    pub address: SocketAddr,
    pub simulator: RunningSimulator,
    pub stop: CancellationToken,
    pub tasks: TaskTracker,
    database: TestDatabase,
}

impl TestApp {
    /// A server without jobs.
    pub async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// A server and its jobs.
    pub async fn start_with_jobs() -> Self {
        let test = Self::start().await;
        test.start_jobs();
        test
    }

    /// A server with other settings than the usual ones.
    pub async fn start_with(settings: &[(&str, &str)]) -> Self {
        // LOG=debug shows what the program did, beside a failure.
        if let Ok(filter) = std::env::var("LOG") {
            let _ = tracing_subscriber::fmt().with_env_filter(filter).with_test_writer().try_init();
        }
        Self::start_on(TestDatabase::create().await, settings, SimulatorOptions::default()).await
    }

    /// A server that keeps the catalogue's answers, and its clock, which stands still.
    pub async fn start_with_pages(settings: &[(&str, &str)]) -> (Self, Clock) {
        let clock = Clock::fixed(Utc::now().trunc_subsecs(3));
        let settings = [&[KEEP_PAGES], settings].concat();
        (Self::start_at(clock.clone(), TestDatabase::create().await, &settings, SimulatorOptions::default()).await, clock)
    }

    /// The same on a Postgres and a Redis of the test's own, which may fail.
    pub async fn start_with_pages_on(services: &EmbeddedServices) -> (Self, Clock) {
        let clock = Clock::fixed(Utc::now().trunc_subsecs(3));
        let database = TestDatabase::create_on(services.database_url("postgres")).await;
        let settings = [KEEP_PAGES, ("REDIS_URL", &services.redis_url())];
        (Self::start_at(clock.clone(), database, &settings, SimulatorOptions::default()).await, clock)
    }

    /// A server whose payment provider is not the usual one.
    pub async fn start_with_provider(provider: SimulatorOptions) -> Self {
        Self::start_on(TestDatabase::create().await, &[], provider).await
    }

    async fn start_on(database: TestDatabase, settings: &[(&str, &str)], provider: SimulatorOptions) -> Self {
        Self::start_at(Clock::system(), database, settings, provider).await
    }

    async fn start_at(clock: Clock, database: TestDatabase, settings: &[(&str, &str)], provider: SimulatorOptions) -> Self {
        let simulator = Simulator::start(SocketAddr::from(([127, 0, 0, 1], 0)), provider).await.unwrap();
        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        let (app, address) = serve(settings_for(&database.url, &simulator.url, settings), clock, &stop, &tasks).await;
        Self { app, address, simulator, stop, tasks, database }
    }

    /// On a Postgres and a Redis of the test's own, which may fail.
    pub async fn start_on_services(services: &EmbeddedServices) -> Self {
        let database = TestDatabase::create_on(services.database_url("postgres")).await;
        Self::start_on(database, &[("REDIS_URL", &services.redis_url())], SimulatorOptions::default()).await
    }

    /// A server and its jobs that reach the database through a tunnel only.
    pub async fn start_through_tunnel() -> (Self, Tunnel) {
        let database = TestDatabase::create().await;
        let (tunnel, url) = Tunnel::to(&database.url).await;
        let test =
            Self::start_on(database, &[("DATABASE_URL", &url), ("REQUEST_DEADLINE_SECONDS", "2")], SimulatorOptions::default()).await;
        test.start_jobs();
        (test, tunnel)
    }

    pub fn start_jobs(&self) {
        jobs::start_workers(&self.app, &self.tasks, &self.stop);
    }

    /// Where this program's metrics are shown from now on.
    pub async fn show_metrics(&self) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(http::serve_metrics(listener, self.app.clone(), self.stop.clone()));
        address
    }

    /// From now on the provider's events come to this server.
    pub fn send_webhooks(&self) {
        let url = format!("http://{}/webhooks/stripe", self.address);
        self.simulator.simulator.send_webhooks_to(&url, &WEBHOOK_SECRET.into()).unwrap();
    }

    /// Another server process on the same database.
    pub async fn second_server(&self) -> (App, SocketAddr) {
        self.second_server_with(&[]).await
    }

    /// The same with other settings than the usual ones.
    pub async fn second_server_with(&self, settings: &[(&str, &str)]) -> (App, SocketAddr) {
        serve(settings_for(&self.database.url, &self.simulator.url, settings), self.app.clock.clone(), &self.stop, &self.tasks).await
    }

    /// The settings of this program, for a child process.
    pub fn settings(&self) -> BTreeMap<String, String> {
        settings_for(&self.database.url, &self.simulator.url, &[])
    }

    /// A worker process of its own, which can be killed.
    pub fn worker(&self) -> Process {
        Process::worker(self)
    }

    /// The program on the same database with other settings, without a server.
    pub fn app_with(&self, settings: &[(&str, &str)]) -> App {
        build_app(settings_for(&self.database.url, &self.simulator.url, settings), Clock::system())
    }

    /// Runs a command of the program, on this one's settings, to its end.
    pub async fn command(&self, arguments: &[&str]) -> std::process::Output {
        self.command_with(arguments, &[]).await
    }

    /// The same with other settings.
    pub async fn command_with(&self, arguments: &[&str], settings: &[(&str, &str)]) -> std::process::Output {
        let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_whitemonday"));
        command.args(arguments).env_clear().envs(self.settings()).envs(settings.iter().copied()).kill_on_drop(true);
        if let Ok(url) = std::env::var("WHITEMONDAY_TEST_REDIS_URL") {
            command.env("REDIS_URL", url);
        }
        command.output().await.unwrap()
    }

    /// For what a test does itself: a machine that is busy with other things keeps requests waiting for a connection, which is no
    /// failure of the test.
    fn patient(&self) -> App {
        self.app.for_jobs()
    }

    pub fn anonymous(&self) -> Client {
        Client::new(self.address, None)
    }

    /// A verified customer with an address, signed in.
    pub async fn customer(&self) -> Client {
        self.customers(1).await.remove(0)
    }

    pub async fn customers(&self, count: usize) -> Vec<Client> {
        let mut clients = Vec::new();
        seed::customers(&self.patient(), count, |made| {
            clients.extend(made.into_iter().map(|customer| Client::new(self.address, Some(customer))));
        })
        .await
        .unwrap();
        clients
    }

    /// A member of staff, signed in.
    pub async fn staff(&self) -> Client {
        let client = self.customer().await;
        let viewer = Viewer { customer: customer_id(&client.customer_id.clone().into()), session: SessionId::new(), role: Role::Staff };
        let (token, _) = self.app.access_tokens.sign(viewer, self.app.clock.now()).unwrap();
        client.with_token(token.expose_secret())
    }

    /// A sale that is open now.
    pub async fn open_sale(&self, units: i32, per_customer_limit: i32) -> FlashSaleId {
        seed::sale(&self.patient(), units, per_customer_limit, TimeDelta::zero()).await.unwrap()
    }

    pub async fn sale_opening_in(&self, opens_in: TimeDelta) -> FlashSaleId {
        seed::sale(&self.patient(), 5, 5, opens_in).await.unwrap()
    }

    /// A value of the database, by a statement of the test's own.
    pub async fn scalar(&self, sql: &str) -> i64 {
        sqlx::query_scalar(sql).fetch_one(&*self.patient().db).await.unwrap()
    }

    /// Changes the database behind the program's back.
    pub async fn execute(&self, sql: &str) {
        sqlx::raw_sql(sql).execute(&*self.patient().db).await.unwrap();
    }

    /// Statements that wait for a lock of somebody else.
    pub async fn waiting_for_locks(&self) -> i64 {
        self.scalar("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'").await
    }

    pub async fn free_units(&self, sale: FlashSaleId) -> i64 {
        let sql = "SELECT count(*) FROM stock_unit WHERE sale_id = $1 AND order_id IS NULL";
        sqlx::query_scalar(sql).bind(sale.0).fetch_one(&*self.patient().db).await.unwrap()
    }

    /// How much is still to happen to orders and their money; who waits for a customer at the bank may do so.
    pub async fn unsettled(&self) -> i64 {
        let sql = "SELECT (SELECT count(*) FROM orders o
                            WHERE status IN ('CANCELLING', 'EXPIRING', 'REFUNDING', 'IN_REVIEW')
                               OR status = 'AWAITING_PAYMENT'
                                  AND NOT EXISTS (SELECT 1 FROM payment p WHERE p.order_id = o.id AND p.status = 'REQUIRES_ACTION'))
                        + (SELECT count(*) FROM payment WHERE status IN ('PENDING', 'PROCESSING', 'UNKNOWN'))
                        + (SELECT count(*) FROM refund WHERE status IN ('REQUESTED', 'UNKNOWN'))
                        + (SELECT count(*) FROM pgmq.q_payment) + (SELECT count(*) FROM pgmq.q_compensation)";
        self.scalar(sql).await
    }

    /// What the leader does each second; how many orders expired.
    pub async fn expire_due(&self) -> usize {
        let term = services::leader::take_or_renew(&self.patient()).await.unwrap().expect("no other leader");
        services::order::expire_due(&self.patient(), term).await.unwrap()
    }

    /// Names of the invariants that are broken.
    pub async fn broken_invariants(&self) -> Vec<&'static str> {
        let report = services::audit::run(&self.patient()).await.unwrap();
        report.invariants.iter().filter(|invariant| invariant.violations > 0).map(|invariant| invariant.name).collect()
    }

    /// Mails to this address, oldest first.
    pub fn mails_to(&self, email: &str) -> Vec<String> {
        let mails = self.app.mailer.mailbox().unwrap().mails();
        mails.into_iter().filter(|mail| mail.to == email).map(|mail| mail.text).collect()
    }

    /// All mails, oldest first.
    pub fn all_mails(&self) -> Vec<String> {
        self.app.mailer.mailbox().unwrap().mails().into_iter().map(|mail| mail.text).collect()
    }

    /// The token of the newest mail to this address, once there are `count` mails.
    pub async fn token_mailed_to(&self, email: &str, count: usize) -> String {
        let text = until(async || self.mails_to(email).get(count - 1).cloned()).await;
        text.split("token=").nth(1).unwrap().split_whitespace().next().unwrap().to_owned()
    }

    /// Stops the program, and fails when the data breaks an invariant, or says other than the provider's ledger.
    pub async fn finish(self) {
        let now = self.app.clock.now();
        let (from, to) = (now - TimeDelta::hours(1), now + TimeDelta::minutes(1));
        let compared = services::reconciliation::run(&self.patient(), from, to, |_| ()).await.unwrap();
        // Unless the test has a provider of its own.
        if self.app.config.payment.url == self.simulator.url {
            assert_eq!(compared.charges, i64::try_from(self.simulator.simulator.ledger().charges).unwrap());
        }
        let breaks = services::reconciliation::list_open_breaks(&self.patient(), 10).await.unwrap();
        assert!(breaks.is_empty(), "{breaks:#?}");
        assert_eq!(self.broken_invariants().await, Vec::<&str>::new());
        self.stop.cancel();
        self.tasks.close();
        tokio::time::timeout(PATIENCE, self.tasks.wait()).await.expect("the program stops in time");
        self.simulator.stop().await.unwrap();
        drop(self.app);
        self.database.drop().await;
    }
}

fn settings_for(database_url: &str, payment_url: &str, more: &[(&str, &str)]) -> BTreeMap<String, String> {
    let key = "1:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
    let usual = [
        ("DATABASE_URL", database_url),
        ("DATABASE_REQUEST_CONNECTIONS", "12"),
        ("DATABASE_JOB_CONNECTIONS", "6"),
        ("SEALING_KEYS", key),
        ("BLIND_INDEX_KEY", key),
        ("TOKEN_KEYS", key),
        ("PAYMENT_URL", payment_url),
        ("PAYMENT_SECRET_KEY", "sk_test_tests"),
        ("PAYMENT_WEBHOOK_SECRET", WEBHOOK_SECRET),
        ("DEVELOPER_TOOLS", "on"),
        ("ADDRESS_PER_MINUTE", "0"),
        ("ACCOUNT_PER_MINUTE", "0"),
        ("LOG_IN_PER_MINUTE", "1000"),
        ("MAILS_PER_HOUR", "1000"),
        // Only where a test is about it: the others read what they have just written.
        ("PAGE_CACHE_BYTES", "0"),
        ("AUDIT_EVERY_SECONDS", "0"),
        ("JOB_VISIBILITY_SECONDS", "2"),
        ("JOB_STEP_DEADLINE_SECONDS", "1"),
    ];
    let mut settings: BTreeMap<_, _> = usual.iter().chain(more).map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    // `make test-pgbouncer`: the program goes through it, unless the test has a way of its own.
    if let (Ok(pgbouncer), true) = (std::env::var("WHITEMONDAY_TEST_PGBOUNCER"), settings["DATABASE_URL"] == database_url) {
        let direct = settings.insert("DATABASE_URL".to_owned(), through(&pgbouncer, database_url)).unwrap();
        settings.insert("DATABASE_DIRECT_URL".to_owned(), direct);
    }
    settings
}

/// The same database at another address.
fn through(address: &str, url: &str) -> String {
    let (login, rest) = url.split_once('@').unwrap();
    format!("{login}@{address}/{}", rest.split_once('/').unwrap().1)
}

fn build_app(mut settings: BTreeMap<String, String>, clock: Clock) -> App {
    if let Ok(url) = std::env::var("WHITEMONDAY_TEST_REDIS_URL") {
        settings.entry("REDIS_URL".to_owned()).or_insert(url);
    }
    let config = Config::read(&Settings::fixed(settings), MailTransport::Mailbox).unwrap();
    App::new(config, clock, Some(Arc::default())).unwrap()
}

/// A server and where it listens, which is its public address unless the settings say otherwise.
async fn serve(mut settings: BTreeMap<String, String>, clock: Clock, stop: &CancellationToken, tasks: &TaskTracker) -> (App, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    settings.entry("PUBLIC_URL".to_owned()).or_insert_with(|| format!("http://{address}"));
    let app = build_app(settings, clock);
    jobs::start_common(&app, tasks, stop).await.unwrap();
    jobs::start_followers(&app, tasks, stop).await.unwrap();
    let served = CancellationToken::new();
    jobs::start_purchase_workers(&app, tasks, &served);
    let (serving, stop) = (app.clone(), stop.clone());
    tasks.spawn(async move {
        http::serve(listener, serving, stop).await;
        served.cancel();
    });
    (app, address)
}

/// Asks until there is an answer; fails after [`PATIENCE`].
pub async fn until<T>(ask: impl AsyncFn() -> Option<T>) -> T {
    until_or_late(ask).await.expect("what was waited for came in time")
}

/// Asks until there is an answer, or [`PATIENCE`] is over.
pub async fn until_or_late<T>(ask: impl AsyncFn() -> Option<T>) -> Option<T> {
    let wait = async {
        loop {
            if let Some(answer) = ask().await {
                return answer;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.ok()
}

pub fn new_key() -> String {
    Uuid::new_v4().to_string()
}

/// The customer of an id as the API prints it.
pub fn customer_id(text: &Value) -> CustomerId {
    CustomerId::parse(text.as_str().unwrap()).unwrap()
}

pub fn statuses(order: &Value) -> Vec<&str> {
    order["history"].as_array().unwrap().iter().map(|event| event["status"].as_str().unwrap()).collect()
}

/// Charged less refunded at the provider, over all orders.
pub fn kept(test: &TestApp) -> i64 {
    let ledger = test.simulator.simulator.ledger();
    ledger.charged.values().sum::<i64>() - ledger.refunded.values().sum::<i64>()
}
