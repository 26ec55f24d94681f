//! The end of a hold: units come back exactly once.

use serde_json::json;
use whitemonday::simulator::{Fault, FaultScript, Operation};

use crate::support::TestApp;

const END_ALL_HOLDS: &str = "UPDATE orders SET hold_expires_at = now() - interval '1 second'";

#[tokio::test]
async fn an_unpaid_order_expires_and_its_units_are_free_again() {
    let test = TestApp::start().await;
    let sale = test.open_sale(3, 3).await;
    let ann = test.customer().await;
    let order = ann.must_buy(sale, 2, json!({})).await;
    assert_eq!(test.expire_due().await, 0, "the hold still stands");

    test.execute(END_ALL_HOLDS).await;
    assert_eq!(test.expire_due().await, 1);
    assert_eq!(test.expire_due().await, 0, "twice is once");

    let expired = ann.order(&order).await;
    assert_eq!(expired["status"], "EXPIRED");
    let statuses: Vec<_> = expired["history"].as_array().unwrap().iter().map(|event| event["status"].clone()).collect();
    assert_eq!(statuses, ["AWAITING_PAYMENT", "EXPIRING", "EXPIRED"]);
    assert_eq!(test.free_units(sale).await, 3);
    ann.must_buy(sale, 3, json!({})).await;
    test.finish().await;
}

#[tokio::test]
async fn the_message_of_an_expired_order_charges_nobody() {
    let test = TestApp::start().await;
    let sale = test.open_sale(1, 1).await;
    let ann = test.customer().await;
    let order = ann.must_buy(sale, 1, json!({})).await;
    test.execute(END_ALL_HOLDS).await;

    test.start_jobs();

    ann.until_order_is(&order, "EXPIRED").await;
    crate::support::until(async || (test.scalar("SELECT count(*) FROM pgmq.q_payment").await == 0).then_some(())).await;
    assert_eq!(test.simulator.simulator.ledger().charges, 0);
    assert_eq!(ann.order(&order).await["payments"], json!([]));
    test.finish().await;
}

#[tokio::test]
async fn two_sweeps_at_once_release_each_order_once() {
    let test = TestApp::start().await;
    let sale = test.open_sale(40, 1).await;
    for buyer in test.customers(40).await {
        buyer.must_buy(sale, 1, json!({})).await;
    }
    test.execute(END_ALL_HOLDS).await;

    let sweep = || test.expire_due();
    let (a, b, c) = tokio::join!(sweep(), sweep(), sweep());

    assert_eq!(a + b + c, 40);
    assert_eq!(test.free_units(sale).await, 40);
    assert_eq!(test.scalar("SELECT count(*) FROM stock_movement WHERE kind = 'RELEASED'").await, 40);
    test.finish().await;
}

#[tokio::test]
async fn an_order_whose_charge_is_under_way_is_expiring_until_the_provider_has_spoken() {
    for (answer, status, free) in [(None, "PAID", 0), (Some(Fault::Decline { decline_code: None }), "EXPIRED", 1)] {
        expires_under_way(answer, status, free).await;
    }
}

async fn expires_under_way(answer: Option<Fault>, status: &str, free: i64) {
    // The worker waits for the provider for longer than this test lasts.
    let test = TestApp::start_with(&[("JOB_VISIBILITY_SECONDS", "20"), ("JOB_STEP_DEADLINE_SECONDS", "15")]).await;
    let sale = test.open_sale(1, 1).await;
    let ann = test.customer().await;
    let order = ann.must_buy(sale, 1, json!({})).await;
    let provider = &test.simulator.simulator;
    provider.script(FaultScript::always(Operation::CreateIntent, Fault::HoldBefore)).unwrap();
    test.start_jobs();
    provider.wait_for_held(1).await;

    test.execute(END_ALL_HOLDS).await;
    ann.until_order_is(&order, "EXPIRING").await;
    assert_eq!(test.free_units(sale).await, 0, "its units are still its own");
    provider.clear_faults();
    if let Some(answer) = answer {
        provider.script(FaultScript::always(Operation::ConfirmIntent, answer)).unwrap();
    }

    ann.until_order_is(&order, status).await;
    assert_eq!(test.free_units(sale).await, free);
    test.finish().await;
}
