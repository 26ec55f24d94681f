//! The provider is away: orders are accepted still, payments pause, holds wait, and all goes on by itself afterwards (race 18).

use std::time::{Duration, Instant};

use serde_json::json;
use whitemonday::simulator::{Fault, FaultScript, Operation};

use crate::support::{TestApp, new_key, status_after, until};

const BREAKERS: &str = "{ admin { breakers { name state failureRate since } } }";

#[tokio::test]
async fn while_the_provider_is_away_payments_pause_and_holds_wait() {
    let test = TestApp::start_with_jobs().await;
    let sale = test.open_sale(40, 1).await;
    let eve = test.staff().await;
    let provider = &test.simulator.simulator;
    let anywhere = FaultScript { operation: None, fault: Fault::Unavailable, times: None, probability: None, seed: 0 };
    provider.script(anywhere).unwrap();
    let state = async |name: &str| {
        let admin = eve.send(BREAKERS, json!({})).await["admin"].take();
        let breakers = admin["breakers"].as_array().unwrap().clone();
        breakers.iter().find(|breaker| breaker["name"] == name).map(|breaker| breaker["state"].as_str().unwrap().to_owned())
    };

    let mut orders = Vec::new();
    for buyer in test.customers(20).await {
        orders.push((buyer.must_buy(sale, 1, json!({})).await, buyer));
    }
    until(async || (state("create_intent").await? != "CLOSED").then_some(())).await;
    assert_eq!(state("create_refund").await.as_deref(), Some("CLOSED"), "an operation that was not asked for is well");
    until(async || (test.scalar("SELECT count(*) FROM payment_pause WHERE ended_at IS NULL").await == 1).then_some(())).await;

    // Orders are accepted still, and none is given up: a hold that would end now waits for the provider.
    let late = test.customer().await;
    orders.push((late.must_buy(sale, 1, json!({})).await, late));
    test.execute("UPDATE payment_pause SET began_at = now() - interval '1 minute'").await;
    test.execute("UPDATE orders SET created_at = now() - interval '2 minutes', hold_expires_at = now() - interval '1 second'").await;
    assert_eq!(test.expire_due().await, 0);
    for (order, buyer) in &orders {
        assert_eq!(buyer.order(order).await["status"], "AWAITING_PAYMENT");
    }
    assert_eq!(provider.ledger().charges, 0);

    provider.clear_faults();
    for (order, buyer) in &orders {
        buyer.until_order_is(order, "PAID").await;
    }
    assert_eq!(provider.ledger().charges, 21);
    until(async || (state("create_intent").await? == "CLOSED").then_some(())).await;
    until(async || (test.scalar("SELECT count(*) FROM payment_pause WHERE ended_at IS NULL").await == 0).then_some(())).await;
    test.finish().await;
}

/// However long it lasts, an outage is no fault of the refunds: none is given up, and all go back soon after its end.
#[tokio::test]
async fn refunds_wait_for_an_ill_provider_and_go_back_soon_after_it_is_well() {
    let test = TestApp::start_with_jobs().await;
    let sale = test.open_sale(12, 1).await;
    let mut orders = Vec::new();
    for buyer in test.customers(12).await {
        let order = buyer.must_buy(sale, 1, json!({})).await;
        buyer.until_order_is(&order, "PAID").await;
        orders.push((order, buyer));
    }
    let provider = &test.simulator.simulator;
    provider.script(FaultScript::always(Operation::CreateRefund, Fault::Unavailable)).unwrap();
    for (order, buyer) in &orders {
        status_after(buyer, "cancelOrder", json!({ "orderId": order, "idempotencyKey": new_key() })).await;
    }
    let ill = "SELECT count(*) FROM circuit_breaker WHERE operation = 'create_refund' AND state <> 'CLOSED'";
    until(async || (test.scalar(ill).await == 1).then_some(())).await;
    assert_eq!(test.scalar("SELECT count(*) FROM payment_pause").await, 0, "holds have nothing to do with refunds");

    // As after hours of it: one more failure that counts, and a refund would be given up.
    test.execute("UPDATE retry SET attempts = 19, due_at = now()").await;
    let asked = provider.calls(Operation::CreateRefund);
    until(async || (provider.calls(Operation::CreateRefund) >= asked + 5).then_some(())).await;
    until(async || (test.scalar("SELECT count(*) FROM retry WHERE due_at IS NOT NULL").await > 0).then_some(())).await;
    assert_eq!(test.scalar("SELECT count(*) FROM dead_letter").await, 0);
    assert_eq!(test.scalar("SELECT count(*) FROM retry WHERE attempts > 19").await, 0);
    assert_eq!(test.scalar("SELECT count(*) FROM retry WHERE due_at > now() + interval '11 seconds'").await, 0, "none waits for long");

    provider.clear_faults();
    for (order, buyer) in &orders {
        buyer.until_order_is(order, "CANCELLED").await;
    }
    assert_eq!((provider.ledger().refunds, test.free_units(sale).await), (12, 12));
    test.finish().await;
}

/// After a day an outage counts, like any other failure: somebody must look.
#[tokio::test]
async fn a_refund_that_has_waited_for_a_day_is_counted_again() {
    let test = TestApp::start_with_jobs().await;
    let sale = test.open_sale(4, 1).await;
    let mut orders = Vec::new();
    for buyer in test.customers(4).await {
        let order = buyer.must_buy(sale, 1, json!({})).await;
        buyer.until_order_is(&order, "PAID").await;
        orders.push((order, buyer));
    }
    let provider = &test.simulator.simulator;
    provider.script(FaultScript::always(Operation::CreateRefund, Fault::Unavailable)).unwrap();
    for (order, buyer) in &orders {
        status_after(buyer, "cancelOrder", json!({ "orderId": order, "idempotencyKey": new_key() })).await;
    }
    until(async || (test.scalar("SELECT count(*) FROM retry").await == 4).then_some(())).await;
    test.execute("UPDATE retry SET attempts = 19, first_failed_at = now() - interval '25 hours', due_at = least(due_at, now())").await;

    for (order, buyer) in &orders {
        buyer.until_order_is(order, "IN_REVIEW").await;
    }
    assert_eq!(test.scalar("SELECT count(*) FROM dead_letter").await, 4);
    test.finish().await;
}

/// A network that loses connections without a word: nothing tells the program, its own deadlines must.
#[tokio::test]
async fn a_database_that_falls_silent_holds_nobody_for_long() {
    let (test, tunnel) = TestApp::start_through_tunnel().await;
    let sale = test.open_sale(10, 1).await;
    let buyers = test.customers(2).await;
    let first = buyers[0].must_buy(sale, 1, json!({})).await;
    buyers[0].until_order_is(&first, "PAID").await;

    tunnel.swallow();

    let (key, asked_at) = (json!(new_key()), Instant::now());
    let answer = buyers[1].answer("{ categories { id } }", json!({})).await;
    assert!(asked_at.elapsed() < Duration::from_secs(5), "{answer:#}");
    let code = answer["errors"][0]["extensions"]["code"].as_str();
    assert!(code.is_none_or(|code| ["UNAVAILABLE", "TIMEOUT"].contains(&code)), "{answer:#}");

    // Requests, the purchase workers and the jobs come back by themselves, each over new connections.
    let order = until(async || {
        let order = buyers[1].buy_once(sale, 1, "pm_card_visa", &key).await?;
        (buyers[1].order(&order).await["status"] == "PAID").then_some(order)
    });
    order.await;
    let kept = "SELECT count(*) FROM orders WHERE status = 'PAID'";
    until(async || (test.scalar(kept).await == 2).then_some(())).await;
    test.finish().await;
}
