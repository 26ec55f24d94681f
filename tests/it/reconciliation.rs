//! The comparison with the provider's charges: it finds each way to differ, and sees when one is mended.

use serde_json::{Value, json};
use uuid::Uuid;
use whitemonday::clients::payment_gateway::{NewIntent, NewRefund};

use crate::support::{TestApp, until};

/// Compares all that the test has made, by the command; the kinds of what differs, and whether the command says that all is well.
async fn compare(test: &TestApp) -> (Vec<String>, bool) {
    let to = (test.app.clock.now() + chrono::TimeDelta::minutes(1)).to_rfc3339();
    let output = test.command(&["reconcile", "--to", &to, "--json"]).await;
    let report: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"));
    let kinds = report["open"].as_array().unwrap().iter().map(|found| found["kind"].as_str().unwrap().to_owned());
    (kinds.collect(), output.status.success())
}

async fn assert_differs(test: &TestApp, kind: &str) {
    assert_eq!(compare(test).await, (vec![kind.to_owned()], false));
    assert_eq!(test.broken_invariants().await, ["I5"]);
}

async fn assert_the_same(test: &TestApp) {
    assert_eq!(compare(test).await, (Vec::new(), true));
}

#[tokio::test]
async fn each_way_to_differ_is_found_and_forgotten_when_it_is_mended() {
    let test = TestApp::start_with_jobs().await;
    let sale = test.open_sale(1, 1).await;
    let ann = test.customer().await;
    let order = ann.must_buy(sale, 1, json!({})).await;
    ann.until_order_is(&order, "PAID").await;
    assert_the_same(&test).await;

    // No amounts of the invariants inside the database are touched: only what both sides say.
    test.execute("UPDATE payment SET provider_reference = provider_reference || 'x'").await;
    let (kinds, is_well) = compare(&test).await;
    assert_eq!((kinds.len(), is_well), (2, false), "a charge and a payment that have lost each other: {kinds:?}");
    assert!(["CHARGE_WITHOUT_PAYMENT", "PAYMENT_WITHOUT_CHARGE"].iter().all(|kind| kinds.iter().any(|found| found == kind)));
    test.execute("UPDATE payment SET provider_reference = rtrim(provider_reference, 'x')").await;
    assert_the_same(&test).await;

    test.execute("UPDATE orders SET total_minor = total_minor + 1; UPDATE payment SET amount_minor = amount_minor + 1").await;
    let (kinds, is_well) = compare(&test).await;
    assert_eq!((kinds, is_well), (vec!["AMOUNT_DIFFERS".to_owned()], false));
    test.execute("UPDATE orders SET total_minor = total_minor - 1; UPDATE payment SET amount_minor = amount_minor - 1").await;
    assert_the_same(&test).await;

    let gateway = &test.app.payment_gateway;
    let (reference, id): (String, Uuid) =
        sqlx::query_as("SELECT provider_reference, order_id FROM payment").fetch_one(&*test.app.db).await.unwrap();
    let by_hand = NewRefund { intent: &reference, amount_minor: 1, refund_id: Uuid::now_v7(), order_id: id };
    gateway.create_refund("by hand", &by_hand).await.unwrap();
    assert_differs(&test, "REFUND_DIFFERS").await;
    // Entered here, too.
    test.execute(&format!(
        "INSERT INTO refund (id, payment_id, order_id, status, amount_minor, currency, reason, created_at, updated_at)
         SELECT '{}', id, order_id, 'SUCCEEDED', 1, currency, 'by hand', now(), now() FROM payment;
         UPDATE payment SET refunded_minor = 1, status = 'PARTLY_REFUNDED'",
        by_hand.refund_id
    ))
    .await;
    assert_the_same(&test).await;
    test.finish().await;
}

#[tokio::test]
async fn a_charge_of_an_order_that_nobody_knows_is_a_break_until_it_is_given_back() {
    let test = TestApp::start().await;
    let gateway = &test.app.payment_gateway;
    let order_id = Uuid::now_v7();
    let new = NewIntent { amount_minor: 500, currency: "KRW", payment_method: "pm_card_visa", order_id, attempt_id: Uuid::now_v7() };
    let intent = gateway.create_intent("create", &new).await.unwrap().id;
    gateway.confirm_intent("confirm", &intent, "pm_card_visa").await.unwrap();
    assert_differs(&test, "CHARGE_WITHOUT_PAYMENT").await;

    gateway.create_refund("refund", &NewRefund { intent: &intent, amount_minor: 500, refund_id: Uuid::now_v7(), order_id }).await.unwrap();
    assert_the_same(&test).await;
    test.finish().await;
}

#[tokio::test]
async fn a_late_charge_of_which_no_event_told_is_found_and_taken_in() {
    let test = TestApp::start_with_jobs().await;
    let sale = test.open_sale(1, 1).await;
    let ann = test.customer().await;
    let order = ann.must_buy(sale, 1, json!({ "paymentMethod": "pm_card_chargeDeclined" })).await;
    let failed = ann.until_order_is(&order, "PAYMENT_FAILED").await;
    let intent = failed["payments"][0]["providerReference"].as_str().unwrap();
    test.app.payment_gateway.confirm_intent("late", intent, "pm_card_visa").await.unwrap();

    let (kinds, is_well) = compare(&test).await;
    assert_eq!((kinds, is_well), (vec!["CHARGE_WITHOUT_PAYMENT".to_owned()], false));
    ann.until_order_is(&order, "PAID").await;
    until(async || (compare(&test).await == (Vec::new(), true)).then_some(())).await;
    test.finish().await;
}
