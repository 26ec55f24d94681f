//! The provider is away: orders are accepted still, payments pause, holds wait, and all goes on by itself afterwards (race 18).

use serde_json::json;
use whitemonday::simulator::{Fault, FaultScript};

use crate::support::{TestApp, until};

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
