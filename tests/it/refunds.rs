//! Money that goes back: in parts, whole, once, whatever the provider answers; and what staff see when it does not.

use std::time::Duration;

use serde_json::json;
use uuid::Uuid;
use whitemonday::{
    clients::payment_gateway::NewIntent,
    simulator::{Fault, FaultScript, Operation, SimulatorOptions},
};

use crate::support::{TestApp, change, kept, new_key, refused, status_after, statuses, until};

/// What staff look at when something has failed.
const LETTERS: &str = "{ admin { deadLetters { totalCount nodes { id queue kind reason lastError attempts } }
    queues { name deadLetters delayed } orders(filter: { statuses: [IN_REVIEW] }) { totalCount nodes { id reviewReason } } } }";

#[tokio::test]
async fn refunds_of_parts_move_no_state_and_never_add_up_to_more_than_was_paid() {
    let test = TestApp::start_with_jobs().await;
    let sale = test.open_sale(1, 1).await;
    let ann = test.customer().await;
    let eve = test.staff().await;
    let order = ann.must_buy(sale, 1, json!({})).await;
    ann.until_order_is(&order, "PAID").await;
    let total = test.scalar("SELECT total_minor FROM orders").await;
    let part =
        |amount: i64, key: &str| json!({ "orderId": order, "amount": amount.to_string(), "reason": "A scratch", "idempotencyKey": key });

    let key = new_key();
    assert_eq!(status_after(&eve, "refundOrder", part(total / 4, &key)).await, "PAID");
    assert_eq!(status_after(&eve, "refundOrder", part(total / 4, &key)).await, "PAID", "the same request again");
    assert_eq!(refused(&eve, "refundOrder", part(total, &new_key())).await, "INVALID");
    let [a, b] = [new_key(), new_key()];
    let half = total / 2 + 1;
    let (first, second) = tokio::join!(change(&eve, "refundOrder", part(half, &a)), change(&eve, "refundOrder", part(half, &b)));
    let refusals = [&first, &second].iter().filter(|payload| payload["userErrors"][0]["code"] == "INVALID").count();
    assert_eq!(refusals, 1, "{first:#} {second:#}");
    until(async || (test.scalar("SELECT count(*) FROM refund WHERE status = 'SUCCEEDED'").await == 2).then_some(())).await;
    assert_eq!(kept(&test), total - total / 4 - half);

    assert_eq!(status_after(&eve, "markPreparing", json!({ "orderId": order })).await, "PREPARING", "a part does not stop the shipping");
    let rest = json!({ "orderId": order, "reason": "All of it", "idempotencyKey": new_key() });
    assert_eq!(status_after(&eve, "refundOrder", rest).await, "REFUNDING");
    ann.until_order_is(&order, "REFUNDED").await;
    assert_eq!(kept(&test), 0);
    let more = json!({ "orderId": order, "reason": "More", "idempotencyKey": new_key() });
    assert_eq!(refused(&eve, "refundOrder", more).await, "WRONG_STATE");
    test.finish().await;
}

#[tokio::test]
async fn an_order_is_refunding_until_the_last_of_its_refunds_has_gone() {
    let test = TestApp::start_with_jobs().await;
    let sale = test.open_sale(1, 1).await;
    let ann = test.customer().await;
    let eve = test.staff().await;
    let order = ann.must_buy(sale, 1, json!({})).await;
    ann.until_order_is(&order, "PAID").await;
    let provider = &test.simulator.simulator;

    // The first part is held back at the provider; the rest overtakes it.
    provider.script(FaultScript::once(Operation::CreateRefund, Fault::HoldBefore)).unwrap();
    let part = json!({ "orderId": order, "amount": "100", "reason": "A scratch", "idempotencyKey": new_key() });
    assert_eq!(status_after(&eve, "refundOrder", part).await, "PAID");
    provider.wait_for_held(1).await;
    let rest = json!({ "orderId": order, "reason": "All of it", "idempotencyKey": new_key() });
    assert_eq!(status_after(&eve, "refundOrder", rest).await, "REFUNDING");
    provider.clear_faults();

    let refunded = ann.until_order_is(&order, "REFUNDED").await;
    assert_eq!(statuses(&refunded), ["AWAITING_PAYMENT", "PAID", "REFUNDING", "REFUNDED"]);
    assert_eq!((kept(&test), provider.ledger().refunds), (0, 2));
    test.finish().await;
}

#[tokio::test]
async fn a_refund_whose_answer_is_lost_is_asked_for_again_and_paid_once() {
    let test = TestApp::start_with_jobs().await;
    let sale = test.open_sale(1, 1).await;
    let ann = test.customer().await;
    let order = ann.must_buy(sale, 1, json!({})).await;
    ann.until_order_is(&order, "PAID").await;
    let provider = &test.simulator.simulator;
    for fault in [Fault::DropAfter, Fault::DropBefore, Fault::Unavailable] {
        provider.script(FaultScript::once(Operation::CreateRefund, fault)).unwrap();
    }

    status_after(&ann, "cancelOrder", json!({ "orderId": order, "idempotencyKey": new_key() })).await;
    // What is put off is due at once for this test.
    until(async || {
        test.execute("UPDATE retry SET due_at = now() WHERE due_at > now()").await;
        (ann.order(&order).await["status"] == "CANCELLED").then_some(())
    })
    .await;

    assert!(provider.calls(Operation::CreateRefund) >= 4);
    assert_eq!((provider.ledger().refunds, kept(&test)), (1, 0));
    assert_eq!(test.scalar("SELECT count(*) FROM retry").await, 0);
    test.finish().await;
}

#[tokio::test]
async fn a_refund_whose_error_is_kept_under_its_key_is_looked_up_and_paid_once() {
    for fault in [Fault::ErrorBefore, Fault::ErrorAfter] {
        let test = TestApp::start_with_jobs().await;
        let sale = test.open_sale(1, 1).await;
        let ann = test.customer().await;
        let eve = test.staff().await;
        let order = ann.must_buy(sale, 1, json!({})).await;
        ann.until_order_is(&order, "PAID").await;
        let provider = &test.simulator.simulator;
        provider.script(FaultScript { times: Some(2), ..FaultScript::always(Operation::CreateRefund, fault) }).unwrap();

        // A part: the provider would pay it twice if it were asked twice.
        let part = json!({ "orderId": order, "amount": "100", "reason": "A scratch", "idempotencyKey": new_key() });
        assert_eq!(status_after(&eve, "refundOrder", part).await, "PAID");
        until(async || {
            test.execute("UPDATE retry SET due_at = now() WHERE due_at > now()").await;
            (test.scalar("SELECT count(*) FROM refund WHERE status = 'SUCCEEDED'").await == 1).then_some(())
        })
        .await;

        assert_eq!((provider.ledger().refunds, provider.ledger().refunded.values().sum::<i64>()), (1, 100));
        test.finish().await;
    }
}

/// Race 19 for refunds: under a key that the provider has forgotten, a part would be paid a second time.
#[tokio::test]
async fn a_refund_older_than_the_providers_memory_is_looked_up_first() {
    let lifetime = Duration::from_secs(10);
    let test = TestApp::start_with_provider(SimulatorOptions { key_lifetime: lifetime, ..SimulatorOptions::default() }).await;
    test.start_jobs();
    let sale = test.open_sale(1, 1).await;
    let ann = test.customer().await;
    let eve = test.staff().await;
    let order = ann.must_buy(sale, 1, json!({})).await;
    ann.until_order_is(&order, "PAID").await;
    let provider = &test.simulator.simulator;
    // Paid, and every answer is lost.
    provider.script(FaultScript::always(Operation::CreateRefund, Fault::DropAfter)).unwrap();
    let part = json!({ "orderId": order, "amount": "100", "reason": "A scratch", "idempotencyKey": new_key() });
    status_after(&eve, "refundOrder", part).await;
    until(async || (test.scalar("SELECT count(*) FROM retry WHERE due_at IS NOT NULL").await == 1).then_some(())).await;
    assert_eq!(provider.ledger().refunds, 1);

    // A day later: a key as old as the refund's makes another intent.
    test.execute("UPDATE retry SET due_at = now() + interval '1 hour'").await;
    provider.clear_faults();
    let new = NewIntent {
        amount_minor: 1,
        currency: "KRW",
        payment_method: "pm_card_visa",
        order_id: Uuid::now_v7(),
        attempt_id: Uuid::now_v7(),
    };
    let intent = async || test.app.payment_gateway.create_intent("remembered?", &new).await.unwrap().id;
    let first = intent().await;
    until(async || (intent().await != first).then_some(())).await;
    test.execute("UPDATE refund SET created_at = now() - interval '25 hours'; UPDATE retry SET due_at = now()").await;

    until(async || (test.scalar("SELECT count(*) FROM refund WHERE status = 'SUCCEEDED'").await == 1).then_some(())).await;
    assert_eq!(provider.ledger().refunds, 1, "not a second time");
    test.finish().await;
}

#[tokio::test]
async fn a_refund_that_fails_too_often_is_a_dead_letter_that_can_be_sent_again() {
    let test = TestApp::start_with_jobs().await;
    let sale = test.open_sale(1, 1).await;
    let ann = test.customer().await;
    let eve = test.staff().await;
    let order = ann.must_buy(sale, 1, json!({})).await;
    ann.until_order_is(&order, "PAID").await;
    let provider = &test.simulator.simulator;
    provider.script(FaultScript::always(Operation::CreateRefund, Fault::Unavailable)).unwrap();
    status_after(&ann, "cancelOrder", json!({ "orderId": order, "idempotencyKey": new_key() })).await;
    until(async || (test.scalar("SELECT count(*) FROM retry WHERE due_at IS NOT NULL").await == 1).then_some(())).await;

    test.execute("UPDATE retry SET attempts = 19, due_at = now()").await;
    let in_review = ann.until_order_is(&order, "IN_REVIEW").await;
    assert_eq!(in_review["history"].as_array().unwrap().last().unwrap()["reasonCode"], "DEAD_LETTER");
    assert_eq!(test.free_units(sale).await, 0, "never silently given back");
    let admin = eve.send(LETTERS, json!({})).await["admin"].take();
    let letter = &admin["deadLetters"]["nodes"][0];
    assert_eq!((&letter["queue"], &letter["kind"], &letter["attempts"]), (&json!("compensation"), &json!("refund"), &json!(20)));
    assert!(letter["lastError"].as_str().unwrap().contains("status 503"), "{letter:#}");
    assert_eq!(admin["orders"]["nodes"], json!([{ "id": order, "reviewReason": "A refund failed too often." }]));

    provider.clear_faults();
    let replay = "mutation($input: DeadLettersInput!) { replayDeadLetters(input: $input) { count userErrors { code } } }";
    let input = json!({ "input": { "ids": [letter["id"]] } });
    assert_eq!(ann.error_code(replay, input.clone()).await, "FORBIDDEN");
    assert_eq!(eve.send(replay, input.clone()).await["replayDeadLetters"]["count"], 1);
    assert_eq!(eve.send(replay, input).await["replayDeadLetters"]["count"], 0, "twice is once");
    ann.until_order_is(&order, "CANCELLED").await;
    assert_eq!((provider.ledger().refunds, kept(&test), test.free_units(sale).await), (1, 0, 1));
    test.finish().await;
}
