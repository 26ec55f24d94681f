//! Money that comes for an order that does not wait for it, and orders that people must decide about.

use serde_json::{Value, json};
use whitemonday::{
    clients::payment_gateway::NewIntent,
    domain::ids::{FlashSaleId, OrderId},
    simulator::{Fault, FaultScript, Operation},
};

use crate::{
    support::{Client, TestApp, change, kept, new_key, refused, status_after, until},
    webhooks::tell_of,
};

/// An order whose one try has ended without money, and the customer.
async fn failed_order(test: &TestApp, sale: FlashSaleId) -> (Client, String) {
    let ann = test.customer().await;
    let order = ann.must_buy(sale, 1, json!({ "paymentMethod": "pm_card_chargeDeclined" })).await;
    ann.until_order_is(&order, "PAYMENT_FAILED").await;
    (ann, order)
}

/// The provider takes the money of an order's one try after all, and tells of it.
pub async fn charge_late(test: &TestApp, order: &str) {
    let id = OrderId::parse(order).unwrap();
    let (attempt, amount): (uuid::Uuid, i64) =
        sqlx::query_as("SELECT id, amount_minor FROM payment WHERE order_id = $1").bind(id.0).fetch_one(&*test.app.db).await.unwrap();
    let gateway = &test.app.payment_gateway;
    let new = NewIntent { amount_minor: amount, currency: "KRW", payment_method: "pm_card_visa", order_id: id.0, attempt_id: attempt };
    let intent = gateway.create_intent(&format!("late {attempt}"), &new).await.unwrap().id;
    gateway.confirm_intent(&format!("late confirm {attempt}"), &intent, "pm_card_visa").await.unwrap();
    sqlx::query("UPDATE payment SET provider_reference = $2 WHERE id = $1")
        .bind(attempt)
        .bind(&intent)
        .execute(&*test.app.db)
        .await
        .unwrap();
    assert_eq!(tell_of(test, "evt_late", &intent).await, 200);
}

fn last_reason(order: &Value, status: &str) -> Value {
    let history = order["history"].as_array().unwrap();
    history.iter().rev().find(|event| event["status"] == status).unwrap()["reasonCode"].clone()
}

/// Race 12, units left.
#[tokio::test]
async fn a_late_charge_claims_the_units_anew() {
    let test = TestApp::start_with_jobs().await;
    let sale = test.open_sale(1, 1).await;
    let (ann, order) = failed_order(&test, sale).await;
    assert_eq!(test.free_units(sale).await, 1);

    charge_late(&test, &order).await;

    let paid = ann.until_order_is(&order, "PAID").await;
    assert_eq!(last_reason(&paid, "PAID"), "LATE_CAPTURE");
    assert_eq!(paid["payments"][0]["status"], "CAPTURED");
    assert_eq!((test.free_units(sale).await, test.simulator.simulator.ledger().charges), (0, 1));
    test.finish().await;
}

/// Race 12, no units left: the money goes back and the customer is told.
#[tokio::test]
async fn a_late_charge_goes_back_when_nothing_is_left() {
    let test = TestApp::start_with_jobs().await;
    let sale = test.open_sale(1, 1).await;
    let (ann, order) = failed_order(&test, sale).await;
    let bob = test.customer().await;
    let bobs = bob.must_buy(sale, 1, json!({})).await;
    bob.until_order_is(&bobs, "PAID").await;
    let before = kept(&test);

    charge_late(&test, &order).await;

    let refunded = ann.until_order_is(&order, "REFUNDED").await;
    assert_eq!(last_reason(&refunded, "REFUNDING"), "LATE_CAPTURE");
    assert_eq!(kept(&test), before);
    assert_eq!(bob.order(&bobs).await["status"], "PAID");
    test.finish().await;
}

#[tokio::test]
async fn a_late_charge_of_a_cancelled_or_expired_order_is_taken_in() {
    let test = TestApp::start_with_jobs().await;
    let sale = test.open_sale(2, 1).await;
    let (ann, cancelled) = failed_order(&test, sale).await;
    assert_eq!(status_after(&ann, "cancelOrder", json!({ "orderId": cancelled, "idempotencyKey": new_key() })).await, "CANCELLED");
    charge_late(&test, &cancelled).await;
    ann.until_order_is(&cancelled, "REFUNDED").await;
    assert_eq!(kept(&test), 0);

    // The customer is at the bank while the hold ends.
    let bob = test.customer().await;
    let expired = bob.must_buy(sale, 1, json!({ "paymentMethod": "pm_card_authenticationRequired" })).await;
    until(async || (bob.order(&expired).await["payments"][0]["status"] == "REQUIRES_ACTION").then_some(())).await;
    test.execute("UPDATE orders SET hold_expires_at = now() WHERE status = 'AWAITING_PAYMENT'").await;
    bob.until_order_is(&expired, "EXPIRED").await;
    test.execute("DELETE FROM webhook_event").await;
    charge_late(&test, &expired).await;
    let paid = bob.until_order_is(&expired, "PAID").await;
    assert_eq!(last_reason(&paid, "PAID"), "LATE_CAPTURE");
    test.finish().await;
}

/// The second card paid, and then the first one too.
#[tokio::test]
async fn of_two_charges_for_one_order_the_second_goes_back() {
    let test = TestApp::start_with_jobs().await;
    let sale = test.open_sale(1, 1).await;
    let (ann, order) = failed_order(&test, sale).await;
    // What happens to the first try must be told while it is the only one.
    let first: uuid::Uuid = sqlx::query_scalar("SELECT id FROM payment").fetch_one(&*test.app.db).await.unwrap();
    let retry = json!({ "orderId": order, "paymentMethod": "pm_card_visa", "idempotencyKey": new_key() });
    assert_eq!(status_after(&ann, "retryPayment", retry).await, "AWAITING_PAYMENT");
    ann.until_order_is(&order, "PAID").await;
    let price = kept(&test);
    let intent: String =
        sqlx::query_scalar("SELECT provider_reference FROM payment WHERE id = $1").bind(first).fetch_one(&*test.app.db).await.unwrap();
    test.app.payment_gateway.confirm_intent("late", &intent, "pm_card_visa").await.unwrap();
    assert_eq!(kept(&test), 2 * price);

    assert_eq!(tell_of(&test, "evt_late", &intent).await, 200);

    until(async || (kept(&test) == price).then_some(())).await;
    until(async || (test.scalar("SELECT count(*) FROM refund WHERE status = 'SUCCEEDED'").await == 1).then_some(())).await;
    let order = ann.order(&order).await;
    assert_eq!(order["status"], "PAID");
    let states: Vec<_> = order["payments"].as_array().unwrap().iter().map(|payment| payment["status"].clone()).collect();
    assert_eq!(states, ["FAILED", "CAPTURED"]);
    test.finish().await;
}

/// Race 20: another amount. Staff decide, each in their own way.
#[tokio::test]
async fn staff_end_the_review_of_a_mismatch() {
    let test = TestApp::start().await;
    let sale = test.open_sale(3, 1).await;
    let eve = test.staff().await;
    let mut orders = Vec::new();
    for buyer in test.customers(3).await {
        let order = buyer.must_buy(sale, 1, json!({})).await;
        orders.push((buyer, order));
    }
    // The provider's answer speaks of the price as it was, ours has changed behind its back.
    let provider = &test.simulator.simulator;
    provider.script(FaultScript::always(Operation::ConfirmIntent, Fault::HoldAfter)).unwrap();
    let mut worker = test.worker();
    provider.wait_for_held(3).await;
    worker.kill();
    provider.clear_faults();
    test.execute("UPDATE payment SET amount_minor = amount_minor - 1").await;
    test.start_jobs();
    for (buyer, order) in &orders {
        let order = buyer.until_order_is(order, "IN_REVIEW").await;
        assert_eq!(last_reason(&order, "IN_REVIEW"), "MISMATCH");
    }
    test.execute("UPDATE payment SET amount_minor = amount_minor + 1").await;

    let resolve = |order: &str, resolution: &str, key: &str| json!({ "orderId": order, "resolution": resolution, "note": "Seen at the provider", "idempotencyKey": key });
    let (buyer, accepted) = &orders[0];
    let key = new_key();
    assert_eq!(buyer.error_code(RESOLVE, json!({ "input": resolve(accepted, "ACCEPT_PAYMENT", &key) })).await, "FORBIDDEN");
    assert_eq!(status_after(&eve, "resolveReview", resolve(accepted, "ACCEPT_PAYMENT", &key)).await, "PAID");
    assert_eq!(status_after(&eve, "resolveReview", resolve(accepted, "ACCEPT_PAYMENT", &key)).await, "PAID", "twice is once");
    assert_eq!(refused(&eve, "resolveReview", resolve(accepted, "RESUME", &key)).await, "IDEMPOTENCY_KEY_REUSED");
    assert_eq!(refused(&eve, "resolveReview", resolve(accepted, "RESUME", &new_key())).await, "WRONG_STATE");
    assert_eq!(buyer.order(accepted).await["payments"][0]["status"], "CAPTURED");

    let (buyer, cancelled) = &orders[1];
    assert_eq!(status_after(&eve, "resolveReview", resolve(cancelled, "REFUND_AND_CANCEL", &new_key())).await, "CANCELLING");
    buyer.until_order_is(cancelled, "CANCELLED").await;

    let (buyer, resumed) = &orders[2];
    assert_eq!(status_after(&eve, "resolveReview", resolve(resumed, "RESUME", &new_key())).await, "AWAITING_PAYMENT");
    let paid = buyer.until_order_is(resumed, "PAID").await;
    assert_eq!(paid["payments"][0]["status"], "CAPTURED");

    let ledger = provider.ledger();
    assert_eq!((ledger.charges, ledger.refunds, test.free_units(sale).await), (3, 1, 1));
    let note = change(&eve, "markPreparing", json!({ "orderId": resumed })).await;
    assert_eq!(note["order"]["history"].as_array().unwrap().iter().filter(|event| event["reason"] == "Seen at the provider").count(), 1);
    test.finish().await;
}

const RESOLVE: &str = "mutation($input: ResolveReviewInput!) { resolveReview(input: $input) { order { id } } }";

/// Race 25: a payment that fails by a fault of ours is counted, does its neighbours no harm, and is for people in the end.
#[tokio::test]
async fn a_payment_that_fails_too_often_is_a_dead_letter_and_its_order_in_review() {
    let test = TestApp::start().await;
    let sale = test.open_sale(5, 1).await;
    let mut orders = Vec::new();
    for buyer in test.customers(5).await {
        let order = buyer.must_buy(sale, 1, json!({})).await;
        orders.push((buyer, order));
    }
    let poison = OrderId::parse(&orders[2].1).unwrap().0;
    let breaks = format!(
        "CREATE FUNCTION break_one() RETURNS trigger LANGUAGE plpgsql AS
             $$ BEGIN IF NEW.order_id = '{poison}' THEN RAISE EXCEPTION 'broken by the test'; END IF; RETURN NEW; END $$;
         CREATE TRIGGER break_one BEFORE UPDATE OF status ON payment FOR EACH ROW EXECUTE FUNCTION break_one();"
    );
    test.execute(&breaks).await;
    test.start_jobs();
    for (number, (buyer, order)) in orders.iter().enumerate() {
        if number != 2 {
            buyer.until_order_is(order, "PAID").await;
        }
    }
    until(async || (test.scalar("SELECT count(*) FROM retry WHERE queue = 'payment' AND due_at IS NOT NULL").await == 1).then_some(()))
        .await;
    test.execute("UPDATE retry SET attempts = 19, due_at = now()").await;

    let (buyer, order) = &orders[2];
    let in_review = buyer.until_order_is(order, "IN_REVIEW").await;
    assert_eq!(last_reason(&in_review, "IN_REVIEW"), "DEAD_LETTER");
    assert_eq!(test.scalar("SELECT count(*) FROM dead_letter WHERE last_error LIKE '%broken by the test%'").await, 1);
    assert_eq!(test.scalar("SELECT count(*) FROM dead_letter").await, 1);

    test.execute("DROP TRIGGER break_one ON payment").await;
    let replayed = test.command(&["dead-letters", "replay", "--all"]).await;
    assert!(replayed.status.success(), "{replayed:?}");
    buyer.until_order_is(order, "PAID").await;
    assert_eq!(test.simulator.simulator.ledger().charges, 5);
    test.finish().await;
}
