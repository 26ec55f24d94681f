//! Payments whose workers die, whose answers are lost, whose provider misbehaves: each order is charged once or not at all.

use std::time::{Duration, Instant};

use futures_util::{StreamExt, stream};
use serde_json::json;
use whitemonday::{
    domain::ids::FlashSaleId,
    simulator::{Fault, FaultScript, Operation},
};

use crate::support::{Barrier, Client, Process, Step, TestApp, new_key, until};

async fn buy_many(test: &TestApp, sale: FlashSaleId, count: usize) -> Vec<(Client, String)> {
    let buyers = test.customers(count).await;
    let buy = |buyer: Client| async move {
        // A busy machine may answer "try again": a patient client does, with the same key.
        let payload = buyer.buy_patiently(sale, 1, "pm_card_visa", &json!(new_key())).await;
        let order = payload["result"]["order"]["id"].as_str().unwrap_or_else(|| panic!("{payload:#}")).to_owned();
        (buyer, order)
    };
    stream::iter(buyers).map(buy).buffer_unordered(8).collect().await
}

async fn until_none_awaits_payment(test: &TestApp) {
    let sql = "SELECT count(*) FROM orders WHERE status = 'AWAITING_PAYMENT'";
    until(async || (test.scalar(sql).await == 0).then_some(())).await;
}

#[tokio::test]
async fn payments_of_a_killed_worker_are_settled_by_the_next_one_and_charged_once() {
    let test = TestApp::start().await;
    let sale = test.open_sale(200, 1).await;
    let orders = buy_many(&test, sale, 200).await;
    let provider = &test.simulator.simulator;

    // The first worker is killed while the provider holds its answers back: the charges are made, nobody knows.
    provider.script(FaultScript::always(Operation::ConfirmIntent, Fault::HoldAfter)).unwrap();
    let mut first = test.worker();
    provider.wait_for_held(30).await;
    first.kill();
    provider.clear_faults();
    assert!(provider.ledger().charges >= 30);

    let mut second = test.worker();
    until_none_awaits_payment(&test).await;
    second.kill();

    for (_, order) in &orders {
        let id = order.strip_prefix("ord_").unwrap();
        let id = uuid::Uuid::parse_str(id).unwrap().to_string();
        assert_eq!(provider.charges_of_order(&id).len(), 1, "{order}");
    }
    assert_eq!(test.scalar("SELECT count(*) FROM orders WHERE status = 'PAID'").await, 200);
    assert_eq!(test.scalar("SELECT count(*) FROM payment WHERE status = 'CAPTURED'").await, 200);
    assert_eq!(test.scalar("SELECT count(*) FROM pgmq.q_payment").await, 0);
    test.finish().await;
}

#[tokio::test]
async fn a_worker_killed_before_the_provider_knows_leaves_nothing_behind() {
    let test = TestApp::start().await;
    let sale = test.open_sale(20, 1).await;
    buy_many(&test, sale, 20).await;
    let provider = &test.simulator.simulator;

    provider.script(FaultScript::always(Operation::CreateIntent, Fault::HoldBefore)).unwrap();
    let mut first = test.worker();
    provider.wait_for_held(20).await;
    first.kill();
    provider.clear_faults();
    assert_eq!(provider.ledger().charges, 0);

    test.start_jobs();
    until_none_awaits_payment(&test).await;
    assert_eq!(provider.ledger().charges, 20);
    test.finish().await;
}

#[tokio::test]
async fn whatever_the_provider_does_an_order_is_charged_once() {
    let test = TestApp::start().await;
    let sale = test.open_sale(60, 1).await;
    let provider = &test.simulator.simulator;
    for (operation, fault) in [
        (Operation::CreateIntent, Fault::ErrorBefore),
        (Operation::CreateIntent, Fault::ErrorAfter),
        (Operation::CreateIntent, Fault::DropBefore),
        (Operation::CreateIntent, Fault::DropAfter),
        (Operation::ConfirmIntent, Fault::ErrorAfter),
        (Operation::ConfirmIntent, Fault::DropBefore),
        (Operation::ConfirmIntent, Fault::DropAfter),
        (Operation::ConfirmIntent, Fault::Unavailable),
        (Operation::ConfirmIntent, Fault::RateLimit { retry_after_s: Some(1) }),
        (Operation::RetrieveIntent, Fault::DropBefore),
    ] {
        provider.script(FaultScript { times: Some(3), ..FaultScript::always(operation, fault) }).unwrap();
    }
    buy_many(&test, sale, 60).await;

    test.start_jobs();
    until_none_awaits_payment(&test).await;

    assert_eq!(test.scalar("SELECT count(*) FROM orders WHERE status = 'PAID'").await, 60);
    assert_eq!(provider.ledger().charges, 60);
    test.finish().await;
}

#[tokio::test]
async fn of_a_batch_with_eight_poison_messages_the_others_are_done_and_operators_have_the_eight() {
    let test = TestApp::start().await;
    let sale = test.open_sale(42, 1).await;
    let poison = [
        r#"{"v": 2, "kind": "pay", "id": "0198f0d2-a1b2-7c3d-8e4f-5061728394a5"}"#,
        r#"{"v": 1, "kind": "pay"}"#,
        r#"{"v": 1, "kind": "pay", "id": "x"}"#,
        r#"{"v": 1, "kind": "pay", "id": 7}"#,
        r#"{"v": 1, "id": "0198f0d2-a1b2-7c3d-8e4f-5061728394a5"}"#,
        r#""nonsense""#,
        "null",
        "[]",
    ];
    for body in poison {
        test.execute(&format!("SELECT pgmq.send('payment', '{body}'::jsonb)")).await;
    }
    let orders = buy_many(&test, sale, 42).await;

    test.start_jobs();
    for (buyer, order) in &orders {
        buyer.until_order_is(order, "PAID").await;
    }
    let dead = "SELECT count(*) FROM dead_letter WHERE queue = 'payment' AND reason <> ''";
    assert_eq!(test.scalar(dead).await, 8);

    let run = async |arguments: &[&str]| {
        let output = test.command(&[&["dead-letters"], arguments].concat()).await;
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let lines = run(&["list", "--json"]).await;
    let ids: Vec<String> =
        lines.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["id"].as_str().unwrap().to_owned()).collect();
    assert_eq!(ids.len(), 8);
    assert!(run(&["list", "--queue", "mail"]).await.contains("no dead letters"));
    assert!(run(&["show", &ids[0]]).await.contains("envelope version is not 1"));
    assert_eq!(run(&["discard", &ids[0]]).await, "1 discarded.\n");

    // Sent again they are no better: they come back, and nothing else happens.
    assert_eq!(run(&["replay", "--all", "--queue", "payment"]).await, "7 put back into their queues.\n");
    until(async || (test.scalar(dead).await == 7).then_some(())).await;
    assert_eq!(test.simulator.simulator.ledger().charges, 42);
    test.finish().await;
}

#[tokio::test]
async fn a_customer_who_authenticates_pays_and_one_who_does_not_gives_the_units_back() {
    let test = TestApp::start_with_jobs().await;
    let sale = test.open_sale(2, 1).await;
    let [ann, bob] = test.customers(2).await.try_into().unwrap_or_else(|_| panic!());
    let card = json!({ "paymentMethod": "pm_card_authenticationRequired" });
    let query = "subscription { orderUpdates { id version payments { status nextActionUrl } } }";
    let mut updates = ann.subscribe(query, json!({})).await;
    let anns = ann.must_buy(sale, 1, card.clone()).await;
    let bobs = bob.must_buy(sale, 1, card).await;

    // The subscription tells where to authenticate, without another question.
    let url = loop {
        let update = updates.data().await["orderUpdates"].take();
        if update["payments"][0]["status"] == "REQUIRES_ACTION" {
            break update["payments"][0]["nextActionUrl"].as_str().unwrap().to_owned();
        }
    };
    let bank = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).build().unwrap();
    let answer = bank.post(&url).form(&[("outcome", "complete")]).send().await.unwrap();
    assert_eq!(answer.status(), 303);
    ann.until_order_is(&anns, "PAID").await;

    test.execute("UPDATE orders SET hold_expires_at = now() - interval '1 second' WHERE status = 'AWAITING_PAYMENT'").await;
    let expired = bob.until_order_is(&bobs, "EXPIRED").await;
    assert_eq!(expired["payments"][0]["failureCode"], "not_authenticated");
    assert_eq!(test.free_units(sale).await, 1);
    assert_eq!(test.simulator.simulator.ledger().charges, 1);
    test.finish().await;
}

#[tokio::test]
async fn a_payment_that_waits_is_no_message_and_the_leader_has_the_provider_asked() {
    let test = TestApp::start_with_jobs().await;
    let sale = test.open_sale(2, 1).await;
    let [ann, bob] = test.customers(2).await.try_into().unwrap_or_else(|_| panic!());
    let provider = &test.simulator.simulator;
    let waiting = "SELECT count(*) FROM payment WHERE status IN ('PROCESSING', 'REQUIRES_ACTION') AND next_query_at > now()
                      AND NOT EXISTS (SELECT 1 FROM pgmq.q_payment)";

    // Of one the answer is lost, the other one waits for its customer at the bank.
    provider.script(FaultScript::always(Operation::ConfirmIntent, Fault::DropAfter)).unwrap();
    let anns = ann.must_buy(sale, 1, json!({})).await;
    until(async || (test.scalar(waiting).await == 1).then_some(())).await;
    provider.clear_faults();
    let bobs = bob.must_buy(sale, 1, json!({ "paymentMethod": "pm_card_authenticationRequired" })).await;
    until(async || (bob.order(&bobs).await["payments"][0]["status"] == "REQUIRES_ACTION").then_some(())).await;

    ann.until_order_is(&anns, "PAID").await;
    until(async || (test.scalar(waiting).await == 1).then_some(())).await;
    let asked = provider.calls(Operation::RetrieveIntent);
    until(async || (provider.calls(Operation::RetrieveIntent) > asked).then_some(())).await;
    assert_eq!(bob.order(&bobs).await["status"], "AWAITING_PAYMENT");
    assert_eq!(provider.ledger().charges, 1);
    test.finish().await;
}

#[tokio::test]
async fn a_worker_that_is_told_to_stop_cuts_what_hangs_and_gives_it_back() {
    let test = TestApp::start().await;
    let sale = test.open_sale(3, 1).await;
    let orders = buy_many(&test, sale, 3).await;
    let provider = &test.simulator.simulator;
    provider.script(FaultScript::always(Operation::ConfirmIntent, Fault::HoldAfter)).unwrap();
    // As in production: its steps would last longer than a process may take to stop.
    let mut first = Process::worker_with(&test, &[("JOB_VISIBILITY_SECONDS", "45"), ("JOB_STEP_DEADLINE_SECONDS", "30")]);
    provider.wait_for_held(3).await;

    let told = Instant::now();
    tokio::time::timeout(Duration::from_secs(25), first.terminate()).await.expect("it stops within 25 s");
    assert!(told.elapsed() > Duration::from_secs(5), "it let the work go on for a while");
    let visible = "SELECT count(*) FROM pgmq.q_payment WHERE vt <= clock_timestamp()";
    assert_eq!(test.scalar(visible).await, 3, "others need not wait for the visibility's end");

    provider.clear_faults();
    // The tries are the first worker's still, until their deadline: nothing else is waited for.
    test.execute("UPDATE payment SET deadline = now(), next_query_at = now()").await;
    test.start_jobs();
    for (buyer, order) in &orders {
        buyer.until_order_is(order, "PAID").await;
    }
    assert_eq!(provider.ledger().charges, 3);
    test.finish().await;
}

#[tokio::test]
async fn a_message_stays_hidden_for_as_long_as_its_work_lasts() {
    let test = TestApp::start().await;
    let sale = test.open_sale(1, 1).await;
    let ann = test.customer().await;
    let order = ann.must_buy(sale, 1, json!({})).await;
    let barrier = Barrier::at(&test, Step::update("payment", "NEW.status = 'CAPTURED'")).await;
    test.start_jobs();
    barrier.reached(&test).await;

    // Read once with a visibility of two seconds, and hidden beyond it again and again.
    let hidden = "SELECT count(*) FROM pgmq.q_payment WHERE read_ct = 1 AND vt > enqueued_at + interval '5 seconds'";
    until(async || (test.scalar(hidden).await == 1).then_some(())).await;
    barrier.lift().await;
    ann.until_order_is(&order, "PAID").await;
    assert_eq!(test.simulator.simulator.ledger().charges, 1);
    test.finish().await;
}
