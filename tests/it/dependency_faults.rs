//! The whole program while something that it depends on fails: customers go on buying, with the same key until they are answered.
//! Nothing is lost, nothing is doubled, and within a minute of the fault's end everything has settled.

use std::{collections::HashSet, net::SocketAddr, time::Duration};

use futures_util::future::join_all;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use sqlx::{Connection, PgConnection};
use tempfile::TempDir;
use tokio::{
    net::TcpListener,
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use whitemonday::{
    domain::ids::FlashSaleId,
    embedded::{EmbeddedOptions, EmbeddedServices},
    simulator::{Fault, FaultScript, Simulator, SimulatorError, SimulatorOptions},
};

use crate::support::{Client, TestApp, client::BUY_NOW, free_address, new_key, until};

/// After the end of a fault.
const SETTLED_WITHIN: Duration = Duration::from_mins(1);
const FIRST_JOB_WITHIN: Duration = Duration::from_secs(5);
const EARLY: usize = 10;
const LATE: usize = 40;
const BETWEEN_BUYERS: Duration = Duration::from_millis(50);
const BETWEEN_REPEATS: Duration = Duration::from_millis(100);

/// How long an outage of the provider lasts: ten seconds, in which the pauses between two questions have grown to what they are for
/// most of a longer one; `OUTAGE_SECONDS=60` is the whole length that is promised.
fn outage() -> Duration {
    Duration::from_secs(std::env::var("OUTAGE_SECONDS").map_or(10, |seconds| seconds.parse().unwrap()))
}

/// A sale with orders that are paid, half of which are called off when the fault begins, and customers who come while it lasts.
struct Shop {
    sale: FlashSaleId,
    early: Vec<(Client, String)>,
    late: Vec<Client>,
}

impl Shop {
    async fn open(test: &TestApp) -> Self {
        let sale = test.open_sale(100, 1).await;
        let mut late = test.customers(EARLY + LATE).await;
        let early = late.split_off(LATE);
        let orders = join_all(early.iter().map(|buyer| buy(buyer, sale))).await;
        test.start_jobs();
        let early: Vec<_> = early.into_iter().zip(orders).collect();
        for (buyer, order) in &early {
            buyer.until_order_is(order, "PAID").await;
        }
        Self { sale, early, late }
    }

    fn called_off(&self) -> &[(Client, String)] {
        &self.early[..EARLY / 2]
    }

    /// Customers who come one after another, and those who call their orders off; the ids of the new orders, when all have been
    /// answered.
    async fn trade(&self) -> Vec<String> {
        let call_off = async |(buyer, order): &(Client, String)| {
            let mutation = "mutation($input: CancelOrderInput!) { cancelOrder(input: $input) { order { status } userErrors { code } } }";
            let input = json!({ "orderId": order, "idempotencyKey": new_key() });
            let payload = insist(buyer, mutation, &input, |data| Some(data["cancelOrder"].clone())).await;
            assert_eq!(payload["userErrors"], json!([]), "{payload:#}");
        };
        let come = async |(number, buyer): (u32, &Client)| {
            sleep(BETWEEN_BUYERS * number).await;
            buy(buyer, self.sale).await
        };
        let (orders, _) = tokio::join!(join_all((0..).zip(&self.late).map(come)), join_all(self.called_off().iter().map(call_off)));
        orders
    }

    /// Waits until everything has settled, and compares orders, the provider's ledger and the units.
    async fn judge(&self, test: &TestApp, provider: &Simulator, late: &[String]) {
        let settled = async {
            while test.unsettled().await > 0 {
                sleep(BETWEEN_REPEATS).await;
            }
        };
        let settled = timeout(SETTLED_WITHIN, settled).await;
        assert!(settled.is_ok(), "{} things are unsettled a minute after the fault", test.unsettled().await);

        let early = self.early.iter().map(|(buyer, order)| (buyer, order));
        let all: Vec<_> = self.late.iter().zip(late).chain(early).collect();
        assert_eq!(all.iter().map(|(_, order)| *order).collect::<HashSet<_>>().len(), EARLY + LATE);
        let called_off: HashSet<_> = self.called_off().iter().map(|(_, order)| order).collect();
        for (buyer, order) in all {
            let status = buyer.order(order).await["status"].take();
            assert_eq!(status, if called_off.contains(order) { "CANCELLED" } else { "PAID" }, "{order}");
            let id = uuid::Uuid::parse_str(order.strip_prefix("ord_").unwrap()).unwrap();
            let charges = provider.charges_of_order(&id.to_string());
            assert_eq!(charges.len(), 1, "{order}");
            assert_eq!(charges[0].refunded, if called_off.contains(order) { charges[0].amount } else { 0 }, "{order}");
        }
        let orders = i64::try_from(EARLY + LATE).unwrap();
        assert_eq!(test.scalar("SELECT count(*) FROM orders").await, orders);
        assert_eq!((provider.ledger().charges, provider.ledger().refunds), (EARLY + LATE, called_off.len()));
        assert_eq!(test.free_units(self.sale).await, 100 - orders + i64::try_from(called_off.len()).unwrap());
    }
}

async fn buy(buyer: &Client, sale: FlashSaleId) -> String {
    let input = json!({ "flashSaleId": sale.to_string(), "quantity": 1, "paymentMethod": "pm_card_visa", "idempotencyKey": new_key() });
    let accepted = |data: &Value| {
        let result = &data["buyNow"]["result"];
        assert!(["OrderAccepted", "Busy"].contains(&result["__typename"].as_str().unwrap()), "{data:#}");
        result["order"]["id"].as_str().map(str::to_owned)
    };
    insist(buyer, BUY_NOW, &input, accepted).await
}

/// Repeats a request, with its key, until it has an answer: neither a broken connection nor a fault of the server is one.
async fn insist<T>(client: &Client, mutation: &str, input: &Value, answer: impl Fn(&Value) -> Option<T>) -> T {
    let body = json!({ "query": mutation, "variables": { "input": input } });
    loop {
        if let Ok(response) = client.post().json(&body).send().await
            && let Ok(response) = response.json::<Value>().await
        {
            match response["errors"][0]["extensions"]["code"].as_str() {
                None => {
                    if let Some(answer) = answer(&response["data"]) {
                        return answer;
                    }
                }
                Some("UNAVAILABLE" | "INTERNAL") => {}
                Some(_) => panic!("{response:#}"),
            }
        }
        sleep(BETWEEN_REPEATS).await;
    }
}

/// Runs a shop while the provider misbehaves as scripted.
async fn endure(scripts: &[FaultScript]) {
    let test = TestApp::start().await;
    let shop = Shop::open(&test).await;
    let provider = &test.simulator.simulator;
    for script in scripts {
        provider.script(script.clone()).unwrap();
    }
    let orders = shop.trade().await;
    provider.clear_faults();
    shop.judge(&test, provider, &orders).await;
    test.finish().await;
}

fn every(fault: Fault) -> FaultScript {
    FaultScript { operation: None, fault, times: None, probability: None, seed: 0 }
}

fn some(fault: Fault, share: f64, seed: u64) -> FaultScript {
    FaultScript { probability: Some(share), seed, ..every(fault) }
}

#[tokio::test]
async fn a_provider_that_answers_500_when_it_has_charged() {
    endure(&[every(Fault::ErrorAfter)]).await;
}

#[tokio::test]
async fn a_provider_that_drops_connections_before_and_after() {
    endure(&[some(Fault::DropBefore, 0.4, 1), some(Fault::DropAfter, 0.4, 2)]).await;
}

#[tokio::test]
async fn a_provider_that_asks_for_patience() {
    endure(&[every(Fault::RateLimit { retry_after_s: Some(1) })]).await;
}

#[tokio::test]
async fn a_provider_that_flaps() {
    endure(&[some(Fault::Unavailable, 0.5, 3)]).await;
}

#[tokio::test]
async fn a_provider_that_refuses_everything_for_a_while() {
    let test = TestApp::start().await;
    let shop = Shop::open(&test).await;
    let provider = &test.simulator.simulator;
    provider.script(every(Fault::Unavailable)).unwrap();

    let orders = trade_during_outage(&test, &shop).await;

    provider.clear_faults();
    shop.judge(&test, provider, &orders).await;
    test.finish().await;
}

#[tokio::test]
async fn a_provider_that_is_gone_for_a_while() {
    let mut provider = Provider::start().await;
    let test = TestApp::start_with(&[("PAYMENT_URL", &format!("http://{}", provider.address))]).await;
    let shop = Shop::open(&test).await;
    provider.stop().await;

    let orders = trade_during_outage(&test, &shop).await;

    provider.listen().await;
    shop.judge(&test, &provider.simulator, &orders).await;
    test.finish().await;
    provider.stop().await;
}

/// Orders are accepted all the while, and wait for their payment.
async fn trade_during_outage(test: &TestApp, shop: &Shop) -> Vec<String> {
    let end = Instant::now() + outage();
    let orders = shop.trade().await;
    let waiting = "SELECT count(*) FROM orders WHERE status = 'AWAITING_PAYMENT'";
    loop {
        assert_eq!(test.scalar(waiting).await, i64::try_from(LATE).unwrap());
        if Instant::now() >= end {
            return orders;
        }
        sleep(BETWEEN_REPEATS).await;
    }
}

/// A provider at a fixed address, which can go away and come back with its ledger.
struct Provider {
    simulator: Simulator,
    address: SocketAddr,
    stop: CancellationToken,
    serving: Option<JoinHandle<Result<(), SimulatorError>>>,
}

impl Provider {
    async fn start() -> Self {
        let simulator = Simulator::open(SimulatorOptions::default()).unwrap();
        let mut provider = Self { simulator, address: free_address(), stop: CancellationToken::new(), serving: None };
        provider.listen().await;
        provider
    }

    async fn listen(&mut self) {
        let listener = TcpListener::bind(self.address).await.unwrap();
        self.stop = CancellationToken::new();
        let (simulator, stopped) = (self.simulator.clone(), self.stop.clone().cancelled_owned());
        self.serving = Some(tokio::spawn(async move { simulator.serve(listener, stopped).await }));
    }

    async fn stop(&mut self) {
        self.stop.cancel();
        self.serving.take().expect("it runs").await.unwrap().unwrap();
    }
}

/// A Postgres that keeps what it has committed, and a Redis, for this test alone.
pub async fn own_services() -> (EmbeddedServices, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let options = EmbeddedOptions { data_dir: folder.path().to_owned(), fresh: true, durable: true, max_connections: 100 };
    (EmbeddedServices::start(&options).await.unwrap(), folder)
}

/// Unknown while the database is away.
async fn paid(test: &TestApp) -> Option<i64> {
    sqlx::query_scalar("SELECT count(*) FROM orders WHERE status = 'PAID'").fetch_one(&*test.app.db).await.ok()
}

/// Returns when one more order is paid than when it was called, or when the database was back.
async fn until_next_is_paid(test: &TestApp) {
    let before = until(async || paid(test).await).await;
    until(async || paid(test).await.filter(|now| *now > before)).await;
}

#[tokio::test]
async fn a_database_that_is_restarted() {
    survive_database(false).await;
}

#[tokio::test]
async fn a_database_that_crashes() {
    survive_database(true).await;
}

async fn survive_database(crashes: bool) {
    let (mut services, _folder) = own_services().await;
    let test = TestApp::start_on_services(&services).await;
    let shop = Shop::open(&test).await;
    let restart = async {
        // In the midst of the trade.
        until_next_is_paid(&test).await;
        if crashes {
            let pid = Pid::from_raw(i32::try_from(services.postgres_pid()).unwrap()).unwrap();
            kill_process(pid, Signal::KILL).unwrap();
        }
        services.restart_postgres().await.unwrap();
        let accepts_connections = Instant::now();
        until_next_is_paid(&test).await;
        let first_job = accepts_connections.elapsed();
        assert!(first_job <= FIRST_JOB_WITHIN, "the first job was done {first_job:?} after the database's return");
    };

    let (orders, ()) = tokio::join!(shop.trade(), restart);

    shop.judge(&test, &test.simulator.simulator, &orders).await;
    test.finish().await;
    services.stop_and_delete().await.unwrap();
}

#[tokio::test]
async fn a_database_that_ends_all_sessions_ten_times_a_second() {
    let test = TestApp::start().await;
    let shop = Shop::open(&test).await;
    let mut killer = PgConnection::connect(&test.settings()["DATABASE_URL"]).await.unwrap();
    let kill = async {
        for _ in 0..30 {
            let all =
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()";
            sqlx::query(all).execute(&mut killer).await.unwrap();
            sleep(Duration::from_millis(100)).await;
        }
    };

    let (orders, ()) = tokio::join!(shop.trade(), kill);

    killer.close().await.unwrap();
    shop.judge(&test, &test.simulator.simulator, &orders).await;
    test.finish().await;
}

#[tokio::test]
async fn a_redis_that_is_gone() {
    let (mut services, _folder) = own_services().await;
    let test = TestApp::start_on_services(&services).await;
    let shop = Shop::open(&test).await;

    services.kill_redis().await.unwrap();
    let orders = shop.trade().await;

    shop.judge(&test, &test.simulator.simulator, &orders).await;
    test.finish().await;
    services.stop_and_delete().await.unwrap();
}
