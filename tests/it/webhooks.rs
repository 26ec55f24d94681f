//! The payment provider's events: twice, late, in any order, before our own answer or after it. Each order is charged once, and is
//! what the provider says it is.

use hmac::{Hmac, Mac};
use serde_json::json;
use sha2::Sha256;
use whitemonday::simulator::{Fault, FaultScript, Operation, WebhookFault, WebhookKind, WebhookScript};

use crate::support::{Client, TestApp, new_key, until};

/// Pauses before the provider is asked again last for ever: it is asked because of an event or not at all.
const ASK_ON_EVENTS_ONLY: &str = "
    CREATE FUNCTION pause_for_ever() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF NEW.next_query_at > now() + interval '500 milliseconds' THEN NEW.next_query_at := now() + interval '1 hour'; END IF;
        RETURN NEW;
    END $$;
    CREATE TRIGGER pause_for_ever BEFORE INSERT OR UPDATE ON payment FOR EACH ROW EXECUTE FUNCTION pause_for_ever()";

const APPLIED: &str = "SELECT count(*) FROM webhook_event WHERE applied_at IS NOT NULL";

/// The first payment's id at the provider.
async fn intent(client: &Client, order: &str) -> String {
    until(async || client.order(order).await["payments"][0]["providerReference"].as_str().map(str::to_owned)).await
}

async fn until_applied(test: &TestApp, events: i64) {
    until(async || (test.scalar(APPLIED).await == events).then_some(())).await;
}

/// The order was paid in one step, and charged once.
async fn assert_paid_once(test: &TestApp, client: &Client, order: &str) {
    let paid = client.order(order).await;
    assert_eq!((&paid["status"], &paid["payments"][0]["status"]), (&json!("PAID"), &json!("CAPTURED")), "{paid:#}");
    assert_eq!(paid["history"].as_array().unwrap().len(), 2, "{paid:#}");
    assert_eq!(test.simulator.simulator.ledger().charges, 1);
}

fn signature(secret: &str, at: i64, body: &str) -> String {
    let mut mac = <Hmac<Sha256> as hmac::KeyInit>::new_from_slice(secret.as_bytes()).unwrap();
    mac.update(format!("{at}.{body}").as_bytes());
    let hex = mac.finalize().into_bytes().iter().fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"));
    format!("t={at},v1={hex}")
}

async fn send_event(test: &TestApp, id: &str, object: &str, secret: &str) -> u16 {
    let at = test.app.clock.now().timestamp();
    let body = json!({ "id": id, "type": "payment_intent.succeeded", "created": at, "data": { "object": { "id": object } } }).to_string();
    let request = reqwest::Client::new().post(test.anonymous().url("/webhooks/stripe"));
    let request = request.header("stripe-signature", signature(secret, at, &body)).body(body);
    request.send().await.unwrap().status().as_u16()
}

/// The provider tells that a payment has succeeded; the answer's status.
pub async fn tell_of(test: &TestApp, event: &str, intent: &str) -> u16 {
    send_event(test, event, intent, "whsec_tests").await
}

#[tokio::test]
async fn an_event_of_the_provider_makes_us_ask_at_once_and_twice_is_once() {
    let test = TestApp::start_with_jobs().await;
    let sale = test.open_sale(1, 1).await;
    let ann = test.customer().await;
    let order = ann.must_buy(sale, 1, json!({ "paymentMethod": "pm_card_authenticationRequired" })).await;
    let query = "query($id: ID!) { order(id: $id) { payments { nextActionUrl providerReference } } }";
    let payment = async || ann.send(query, json!({ "id": order })).await.pointer("/order/payments/0").cloned().unwrap_or_default();
    let url = until(async || payment().await["nextActionUrl"].as_str().map(str::to_owned)).await;
    let intent = payment().await["providerReference"].as_str().unwrap().to_owned();
    // Without an event nobody would ask for an hour.
    test.execute("UPDATE payment SET next_query_at = now() + interval '1 hour', deadline = now()").await;
    let bank = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).build().unwrap();
    bank.post(&url).form(&[("outcome", "complete")]).send().await.unwrap();

    let send = async |id: &str, object: &str, secret: &str| send_event(&test, id, object, secret).await;
    assert_eq!(send("evt_0", &intent, "whsec_of_somebody_else").await, 400);
    assert_eq!(test.scalar("SELECT count(*) FROM webhook_event").await, 0);
    assert_eq!(ann.order(&order).await["status"], "AWAITING_PAYMENT");
    assert_eq!(send("evt_2", "pi_unknown", "whsec_tests").await, 200, "kept: it may be about what is not committed yet");
    let twice = tokio::join!(send("evt_1", &intent, "whsec_tests"), send("evt_1", &intent, "whsec_tests"));
    assert_eq!(twice, (200, 200));

    ann.until_order_is(&order, "PAID").await;
    assert_eq!(test.simulator.simulator.ledger().charges, 1);
    assert_eq!(send("evt_3", &intent, "whsec_tests").await, 200, "after the fact it changes nothing");
    until(async || (test.scalar("SELECT count(*) FROM webhook_event WHERE applied_at IS NOT NULL").await == 2).then_some(())).await;
    assert_eq!(test.scalar("SELECT count(*) FROM webhook_event WHERE id = 'evt_2' AND next_try_at > now()").await, 1);
    assert_eq!(ann.order(&order).await["history"].as_array().unwrap().len(), 2);
    test.finish().await;
}

#[tokio::test]
async fn the_same_event_twice_at_one_instant_is_one_row_and_accepted_twice() {
    let test = TestApp::start_with_jobs().await;
    test.send_webhooks();
    let sale = test.open_sale(1, 1).await;
    let ann = test.customer().await;
    let provider = &test.simulator.simulator;
    provider.script_webhooks(WebhookScript::always(WebhookKind::Succeeded, WebhookFault::Duplicate)).unwrap();
    let mut locked = test.app.db.begin().await.unwrap();
    sqlx::raw_sql("LOCK TABLE webhook_event IN SHARE MODE").execute(&mut *locked).await.unwrap();

    let order = ann.must_buy(sale, 1, json!({})).await;
    let waiting = "SELECT count(*) FROM pg_stat_activity
                    WHERE datname = current_database() AND wait_event_type = 'Lock' AND query LIKE 'INSERT INTO webhook_event%'";
    until(async || (test.scalar(waiting).await == 2).then_some(())).await;
    locked.rollback().await.unwrap();

    provider.wait_for_delivered_webhooks(2).await;
    let counts = provider.webhook_counts();
    assert_eq!((counts.tries, counts.delivered), (2, 2), "neither was refused first");
    assert_eq!(test.scalar("SELECT count(*) FROM webhook_event").await, 1);
    ann.until_order_is(&order, "PAID").await;
    until_applied(&test, 1).await;
    assert_paid_once(&test, &ann, &order).await;
    test.finish().await;
}

#[tokio::test]
async fn an_event_before_our_own_answer_and_the_answer_make_one_paid_order() {
    let test = TestApp::start_with(&[("JOB_VISIBILITY_SECONDS", "60"), ("JOB_STEP_DEADLINE_SECONDS", "50")]).await;
    test.start_jobs();
    test.send_webhooks();
    let sale = test.open_sale(1, 1).await;
    let ann = test.customer().await;
    let provider = &test.simulator.simulator;
    provider.script(FaultScript::once(Operation::ConfirmIntent, Fault::HoldAfter)).unwrap();

    let order = ann.must_buy(sale, 1, json!({})).await;
    provider.wait_for_held(1).await;
    until_applied(&test, 1).await;
    assert_eq!(ann.order(&order).await["status"], "AWAITING_PAYMENT", "whoever is at it will know");
    provider.clear_faults();

    ann.until_order_is(&order, "PAID").await;
    assert_eq!(provider.calls(Operation::RetrieveIntent), 0);
    assert_paid_once(&test, &ann, &order).await;
    test.finish().await;
}

#[tokio::test]
async fn an_order_that_an_event_has_paid_stays_as_it_is_when_our_own_answer_comes() {
    let test = TestApp::start_with(&[("JOB_VISIBILITY_SECONDS", "60"), ("JOB_STEP_DEADLINE_SECONDS", "50")]).await;
    test.execute(ASK_ON_EVENTS_ONLY).await;
    test.start_jobs();
    test.send_webhooks();
    let sale = test.open_sale(1, 1).await;
    let ann = test.customer().await;
    let provider = &test.simulator.simulator;
    provider.script_webhooks(WebhookScript::always(WebhookKind::Succeeded, WebhookFault::Hold)).unwrap();
    provider.script(FaultScript::once(Operation::ConfirmIntent, Fault::HoldAfter)).unwrap();
    let order = ann.must_buy(sale, 1, json!({})).await;
    provider.wait_for_held(1).await;

    // The first worker counts as gone, yet its answer is only late.
    test.execute("UPDATE payment SET deadline = now() - interval '1 second'").await;
    let held: Vec<String> = provider.held_webhooks().into_iter().map(|event| event.id).collect();
    assert_eq!(provider.release_webhooks(&held).await.unwrap(), 1);
    ann.until_order_is(&order, "PAID").await;
    assert_eq!(test.scalar("SELECT count(*) FROM pgmq.q_payment").await, 1, "the late answer's message");
    provider.clear_faults();

    until(async || (test.scalar("SELECT count(*) FROM pgmq.q_payment").await == 0).then_some(())).await;
    assert_paid_once(&test, &ann, &order).await;
    test.finish().await;
}

#[tokio::test]
async fn a_failure_told_of_after_the_success_takes_nothing_back() {
    for is_reversed in [true, false] {
        tells_of_failure_and_success(is_reversed).await;
    }
}

async fn tells_of_failure_and_success(is_reversed: bool) {
    let test = TestApp::start().await;
    test.execute(ASK_ON_EVENTS_ONLY).await;
    test.start_jobs();
    test.send_webhooks();
    let sale = test.open_sale(1, 1).await;
    let ann = test.customer().await;
    let provider = &test.simulator.simulator;
    provider.script_webhooks(WebhookScript::always(WebhookKind::RequiresAction, WebhookFault::Drop)).unwrap();
    for kind in [WebhookKind::PaymentFailed, WebhookKind::Succeeded] {
        provider.script_webhooks(WebhookScript::always(kind, WebhookFault::Hold)).unwrap();
    }
    let order = ann.must_buy(sale, 1, json!({ "paymentMethod": "pm_card_authenticationRequired" })).await;
    until(async || (ann.order(&order).await["payments"][0]["status"] == "REQUIRES_ACTION").then_some(())).await;

    // At the bank the customer fails, and pays with another card after that.
    let intent = intent(&ann, &order).await;
    let bank = reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none()).build().unwrap();
    let page = format!("{}/authenticate/{intent}", test.simulator.url);
    assert_eq!(bank.post(page).form(&[("outcome", "fail")]).send().await.unwrap().status(), 303);
    let confirm = bank.post(format!("{}/v1/payment_intents/{intent}/confirm", test.simulator.url)).bearer_auth("sk_test_bank");
    assert_eq!(confirm.form(&[("payment_method", "pm_card_visa")]).send().await.unwrap().status(), 200);
    let mut held = provider.held_webhooks();
    assert_eq!([held[0].kind, held[1].kind], [WebhookKind::PaymentFailed, WebhookKind::Succeeded]);
    if is_reversed {
        held.reverse();
    }

    for (number, event) in (1..).zip(held) {
        assert_eq!(provider.release_webhooks(&[event.id]).await.unwrap(), 1);
        until_applied(&test, number).await;
        ann.until_order_is(&order, "PAID").await;
    }
    until(async || (test.scalar("SELECT count(*) FROM pgmq.q_payment").await == 0).then_some(())).await;
    assert_paid_once(&test, &ann, &order).await;
    test.finish().await;
}

#[tokio::test]
async fn a_charge_made_after_we_stopped_waiting_is_told_of_and_pays_the_order() {
    let test = TestApp::start().await;
    test.execute(ASK_ON_EVENTS_ONLY).await;
    test.start_jobs();
    test.send_webhooks();
    let sale = test.open_sale(1, 1).await;
    let ann = test.customer().await;
    let provider = &test.simulator.simulator;
    provider.script(FaultScript::once(Operation::ConfirmIntent, Fault::HoldBefore)).unwrap();
    let order = ann.must_buy(sale, 1, json!({})).await;
    provider.wait_for_held(1).await;

    until(async || (test.scalar("SELECT count(*) FROM pgmq.q_payment").await == 0).then_some(())).await;
    assert_eq!((provider.ledger().charges, test.free_units(sale).await), (0, 0), "nothing is taken, nothing given back");
    assert_eq!(ann.order(&order).await["status"], "AWAITING_PAYMENT");
    provider.clear_faults();

    ann.until_order_is(&order, "PAID").await;
    assert_paid_once(&test, &ann, &order).await;
    assert_eq!(test.scalar(APPLIED).await, 1);
    test.finish().await;
}

#[tokio::test]
async fn an_event_about_a_refund_is_matched_with_its_payment() {
    let test = TestApp::start_with_jobs().await;
    test.send_webhooks();
    let sale = test.open_sale(1, 1).await;
    let ann = test.customer().await;
    let order = ann.must_buy(sale, 1, json!({})).await;
    ann.until_order_is(&order, "PAID").await;

    let cancel = "mutation($input: CancelOrderInput!) { cancelOrder(input: $input) { userErrors { code } } }";
    ann.send(cancel, json!({ "input": { "orderId": order, "idempotencyKey": new_key() } })).await;

    ann.until_order_is(&order, "CANCELLED").await;
    until_applied(&test, 2).await;
    let intent = intent(&ann, &order).await;
    let of_refund = format!("SELECT count(*) FROM webhook_event WHERE kind = 'charge.refunded' AND object_id = '{intent}'");
    assert_eq!(test.scalar(&of_refund).await, 1);
    test.finish().await;
}
