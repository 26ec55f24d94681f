//! What an operator relies on: alerts that fire when something is wrong, and processes that come and go in mid-sale.

use std::{
    net::SocketAddr,
    sync::atomic::{AtomicUsize, Ordering},
};

use futures_util::{StreamExt, future::join_all, stream};
use serde_json::{Value, json};
use whitemonday::{
    domain::ids::FlashSaleId,
    simulator::{Fault, FaultScript, Operation},
};

use crate::support::{Client, Process, Prometheus, Socket, TestApp, client::BUY_NOW, new_key, until};

const RULES: &str = include_str!("../../deploy/prometheus/rules.yml");
const ORDERS: &str = "subscription { orderUpdates { status } }";
const SALE: &str = "subscription($id: ID!) { flashSaleUpdates(flashSaleId: $id) { phase remainingUnits } }";

/// The rules without their waiting.
fn rules_at_once() -> String {
    let at_once = |line: &str| match line.split_once("for: ") {
        Some((indent, _)) if indent.trim().is_empty() => format!("{indent}for: 0s\n"),
        _ => format!("{line}\n"),
    };
    RULES.lines().map(at_once).collect()
}

async fn until_it_fires(prometheus: &Prometheus, alert: &str) {
    let firing = format!(r#"ALERTS{{alertname="{alert}", alertstate="firing"}}"#);
    until(async || prometheus.query(&firing).await).await;
}

#[tokio::test]
async fn alerts_fire_when_the_provider_is_ill_messages_wait_and_operations_fail() {
    let test = TestApp::start_with(&[("REQUEST_DEADLINE_SECONDS", "1")]).await;
    let prometheus = Prometheus::start_with_rules(&[test.show_metrics().await], &rules_at_once()).await;
    let sale = test.open_sale(20, 1).await;
    let buyers = test.customers(12).await;
    let orders = join_all(buyers.iter().map(|buyer| buyer.must_buy(sale, 1, json!({})))).await;

    test.execute("UPDATE pgmq.q_payment SET enqueued_at = enqueued_at - interval '2 minutes'").await;
    until_it_fires(&prometheus, "WhiteMondayOldestMessage").await;

    let provider = &test.simulator.simulator;
    provider.script(FaultScript::always(Operation::CreateIntent, Fault::Unavailable)).unwrap();
    test.start_jobs();
    until_it_fires(&prometheus, "WhiteMondayBreakerOpen").await;
    provider.clear_faults();

    let mut held = test.app.for_jobs().db.begin().await.unwrap();
    sqlx::raw_sql("LOCK TABLE category IN ACCESS EXCLUSIVE MODE").execute(&mut *held).await.unwrap();
    let firing = r#"ALERTS{alertname="WhiteMondayFailureRate", alertstate="firing"}"#;
    until(async || {
        join_all((0..4).map(|_| buyers[0].answer("{ categories { id } }", json!({})))).await;
        prometheus.query(firing).await
    })
    .await;
    held.rollback().await.unwrap();

    for (buyer, order) in buyers.iter().zip(&orders) {
        buyer.until_order_is(order, "PAID").await;
    }
    test.finish().await;
}

/// One try to buy a unit. `None` when there was no answer, or none that says what became of it.
async fn ask(buyer: &Client, at: SocketAddr, sale: FlashSaleId, key: &str) -> Option<String> {
    let input = json!({ "flashSaleId": sale.to_string(), "quantity": 1, "paymentMethod": "pm_card_visa", "idempotencyKey": key });
    let request = buyer.at(at).post().json(&json!({ "query": BUY_NOW, "variables": { "input": input } }));
    let answer: Value = request.send().await.ok()?.json().await.ok()?;
    let kind = answer["data"]["buyNow"]["result"]["__typename"].as_str()?;
    (kind != "Busy").then(|| kind.to_owned())
}

/// Reads what a subscription tells until it is this.
async fn until_told(socket: &mut Socket, field: &str, expected: &Value) {
    while socket.data().await[field] != *expected {}
}

#[tokio::test]
async fn a_sale_on_three_servers_and_two_workers_outlives_one_of_each() {
    const UNITS: i32 = 120;
    let test = TestApp::start().await;
    let sale = test.open_sale(UNITS, 1).await;
    let mut servers = Vec::new();
    for _ in 0..3 {
        servers.push(Process::server(&test, &[]).await);
    }
    let (mut first_worker, _second_worker) = (test.worker(), test.worker());
    let addresses: Vec<_> = servers.iter().map(|(_, address)| *address).collect();

    let mut buyers = test.customers(300).await;
    let watchers = buyers.split_off(297);
    let mut told_of_orders = Vec::new();
    let mut told_of_sale = Vec::new();
    for (watcher, address) in watchers.iter().zip(&addresses) {
        told_of_orders.push(watcher.at(*address).subscribe(ORDERS, json!({})).await);
        told_of_sale.push(test.anonymous().at(*address).subscribe(SALE, json!({ "id": sale.to_string() })).await);
        // Each buys elsewhere than where she listens.
        watcher.must_buy(sale, 1, json!({})).await;
    }

    let (answered, retried) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let (stop_server, stop_worker) = (&tokio::sync::Notify::new(), &tokio::sync::Notify::new());
    let buy = async |(number, buyer): (usize, &Client)| {
        let key: String = serde_json::from_value(json!(new_key())).unwrap();
        let mut outcome = ask(buyer, addresses[number % 3], sale, &key).await;
        if outcome.is_none() {
            retried.fetch_add(1, Ordering::SeqCst);
            outcome = ask(buyer, addresses[1 + number % 2], sale, &key).await;
        }
        match answered.fetch_add(1, Ordering::SeqCst) {
            30 => stop_worker.notify_one(),
            60 => stop_server.notify_one(),
            _ => {}
        }
        outcome.expect("one retry, elsewhere and with the same key, heals what was lost")
    };
    let (leaving, _) = &mut servers[0];
    let comings_and_goings = async {
        stop_worker.notified().await;
        first_worker.kill();
        stop_server.notified().await;
        leaving.terminate().await;
    };
    let outcomes = stream::iter(buyers.iter().enumerate()).map(buy).buffer_unordered(32).collect::<Vec<_>>();
    let (outcomes, ()) = tokio::join!(outcomes, comings_and_goings);

    let accepted = outcomes.iter().filter(|outcome| *outcome == "OrderAccepted").count();
    assert_eq!(accepted, usize::try_from(UNITS).unwrap() - watchers.len());
    assert!(outcomes.iter().all(|outcome| ["OrderAccepted", "SoldOut"].contains(&outcome.as_str())), "{outcomes:?}");
    eprintln!("{} of 297 asked twice", retried.load(Ordering::SeqCst));
    until(async || (test.scalar("SELECT count(*) FROM orders WHERE status = 'PAID'").await == i64::from(UNITS)).then_some(())).await;
    // What left said so; where the others stay, everybody is told to the end.
    assert!(told_of_sale[0].closed_at_last().await.is_some());
    for socket in &mut told_of_orders[1..] {
        until_told(socket, "orderUpdates", &json!({ "status": "PAID" })).await;
    }
    for socket in &mut told_of_sale[1..] {
        until_told(socket, "flashSaleUpdates", &json!({ "phase": "SOLD_OUT", "remainingUnits": 0 })).await;
    }
    test.finish().await;
}
