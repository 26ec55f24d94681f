//! Two who come to one order at the same moment, in both orders: each race has one right outcome. Barriers and calls that the
//! provider holds force who is first; the number is the race's in the specification.

use serde_json::{Value, json};
use tokio::task::JoinHandle;
use whitemonday::{
    app::App,
    services::{
        self, leader,
        payment::{self, Answer, Begun},
        refund,
    },
    simulator::{Fault, FaultScript, LedgerLine, Operation},
    store::queue::{self, Delivery, Queue},
};

use crate::support::{Barrier, Client, Step, TestApp, change, kept, new_key, refused, status_after, statuses, until};

/// Nothing runs out while a test holds it up.
const PATIENT: &[(&str, &str)] = &[("JOB_VISIBILITY_SECONDS", "60"), ("JOB_STEP_DEADLINE_SECONDS", "50")];
const CANCELLING: Step = Step::update("orders", "NEW.status = 'CANCELLING'");

/// The messages of a queue, as a worker gets them.
async fn deliveries(test: &TestApp, queue: Queue) -> Vec<Delivery> {
    let mut db = test.app.db.acquire().await.unwrap();
    let messages = queue::read(&mut db, queue, test.app.config.jobs.visibility, 10).await.unwrap();
    messages.into_iter().map(|message| message.expect("a message that can be read")).collect()
}

/// Begins the one payment that is to be begun.
async fn begin(test: &TestApp, deliveries: &[Delivery]) -> Begun {
    let [begun] = payment::begin(&test.app, deliveries.to_vec()).await.unwrap().try_into().expect("one payment begins");
    begun
}

async fn create(app: &App, begun: Begun) -> Begun {
    payment::create_intent(app, begun).await.expect("the provider makes an intent")
}

async fn note(app: &App, begun: Begun) -> Begun {
    payment::record_references(app, vec![begun]).await.unwrap().remove(0)
}

async fn settle(app: &App, begun: &Begun, answer: &Answer) {
    payment::settle(app, &[(begun.clone(), answer.clone())]).await.unwrap();
}

/// The worker that has begun a payment counts as gone from now on.
async fn end_deadline(test: &TestApp) {
    test.execute("UPDATE payment SET deadline = now() - interval '1 second'").await;
}

async fn queued(test: &TestApp, queue: Queue) -> i64 {
    test.scalar(&format!("SELECT count(*) FROM pgmq.q_{queue}")).await
}

fn calls(test: &TestApp) -> [u64; 4] {
    use Operation::{CancelIntent, ConfirmIntent, CreateIntent, RetrieveIntent};
    [CreateIntent, ConfirmIntent, RetrieveIntent, CancelIntent].map(|operation| test.simulator.simulator.calls(operation))
}

/// The charges of an order, by the id that the API prints.
fn charges(test: &TestApp, order: &str) -> Vec<LedgerLine> {
    let id = uuid::Uuid::parse_str(order.strip_prefix("ord_").unwrap()).unwrap();
    test.simulator.simulator.charges_of_order(&id.to_string())
}

/// A mutation that goes on beside the test; its payload.
fn spawn_change(client: &Client, mutation: &'static str, input: Value) -> JoinHandle<Value> {
    let client = client.clone();
    tokio::spawn(async move { change(&client, mutation, input).await })
}

fn cancel(order: &str) -> Value {
    json!({ "orderId": order, "idempotencyKey": new_key() })
}

/// Race 1.
#[tokio::test]
async fn a_message_of_a_payment_that_is_over_is_acknowledged_without_a_call_of_the_provider() {
    for (card, status) in [("pm_card_visa", "PAID"), ("pm_card_chargeDeclined", "PAYMENT_FAILED")] {
        let test = TestApp::start_with_jobs().await;
        let sale = test.open_sale(1, 1).await;
        let ann = test.customer().await;
        let order = ann.must_buy(sale, 1, json!({ "paymentMethod": card })).await;
        let settled = ann.until_order_is(&order, status).await;
        let before = calls(&test);

        let again = "SELECT pgmq.send('payment', jsonb_build_object('v', 1, 'kind', 'pay', 'id', id)) FROM orders";
        test.execute(&format!("{again}; {again}")).await;
        until(async || (queued(&test, Queue::Payment).await == 0).then_some(())).await;

        assert_eq!(calls(&test), before);
        assert_eq!(ann.order(&order).await, settled);
        test.finish().await;
    }
}

/// Race 2.
#[tokio::test]
async fn of_two_workers_with_one_message_the_second_takes_over_when_the_deadline_is_past() {
    for first_settles_first in [true, false] {
        let test = TestApp::start_with(PATIENT).await;
        let sale = test.open_sale(1, 1).await;
        let ann = test.customer().await;
        let order = ann.must_buy(sale, 1, json!({})).await;
        let message = deliveries(&test, Queue::Payment).await;
        let first = begin(&test, &message).await;
        let first = note(&test.app, create(&test.app, first).await).await;

        assert!(payment::begin(&test.app, message.clone()).await.unwrap().is_empty(), "the first one is at it");
        assert_eq!(queued(&test, Queue::Payment).await, 1, "the message is put back, not acknowledged");
        let firsts_answer = payment::confirm(&test.app, &first).await;

        end_deadline(&test).await;
        let second = begin(&test, &message).await;
        let before = calls(&test);
        let seconds_answer = payment::confirm(&test.app, &create(&test.app, second.clone()).await).await;
        let [created, confirmed, asked, cancelled] = before;
        assert_eq!(calls(&test), [created, confirmed, asked + 1, cancelled], "it asks, and no more");

        let both = [(&first, &firsts_answer), (&second, &seconds_answer)];
        assert!(both.iter().all(|(_, answer)| matches!(answer, Answer::Captured { .. })), "{both:?}");
        let [earlier, later] = if first_settles_first { both } else { [both[1], both[0]] };
        settle(&test.app, earlier.0, earlier.1).await;
        let settled = ann.order(&order).await;
        settle(&test.app, later.0, later.1).await;
        assert_eq!(ann.order(&order).await, settled, "what comes later changes nothing");
        assert_eq!((&settled["status"], &settled["version"]), (&json!("PAID"), &json!(2)));
        assert_eq!((charges(&test, &order).len(), queued(&test, Queue::Payment).await), (1, 0));
        test.finish().await;
    }
}

/// Races 2 and 3: a worker that was too slow has an intent, too, which nobody has heard of.
#[tokio::test]
async fn of_two_intents_for_one_try_only_the_one_that_was_noted_first_is_charged() {
    for first_notes_first in [true, false] {
        let test = TestApp::start_with(PATIENT).await;
        let sale = test.open_sale(1, 1).await;
        let ann = test.customer().await;
        let order = ann.must_buy(sale, 1, json!({})).await;
        let message = deliveries(&test, Queue::Payment).await;
        let first = create(&test.app, begin(&test, &message).await).await;
        end_deadline(&test).await;
        let second = create(&test.app, begin(&test, &message).await).await;
        assert_eq!(calls(&test)[0], 2);

        let (earlier, later) = if first_notes_first { (first, second) } else { (second, first) };
        let (earlier, later) = (note(&test.app, earlier).await, note(&test.app, later).await);
        let reference = ann.order(&order).await["payments"][0]["providerReference"].take();
        for begun in [&later, &earlier] {
            let answer = payment::confirm(&test.app, begun).await;
            assert!(matches!(answer, Answer::Captured { .. }), "{answer:?}");
            settle(&test.app, begun, &answer).await;
        }

        let charges = charges(&test, &order);
        assert_eq!(charges.iter().map(|charge| charge.payment_intent.as_str()).collect::<Vec<_>>(), [reference.as_str().unwrap()]);
        assert_eq!(ann.order(&order).await["version"], 2);
        test.finish().await;
    }
}

/// Race 7.
#[tokio::test]
async fn an_error_that_is_kept_under_the_key_is_followed_by_a_question_and_by_the_same_intent() {
    for (fault, charged_by_first) in [(Fault::ErrorBefore, false), (Fault::ErrorAfter, true)] {
        let test = TestApp::start().await;
        let sale = test.open_sale(1, 1).await;
        let ann = test.customer().await;
        let order = ann.must_buy(sale, 1, json!({})).await;
        test.simulator.simulator.script(FaultScript::once(Operation::ConfirmIntent, fault)).unwrap();
        test.start_jobs();
        ann.until_order_is(&order, "PAID").await;

        let [created, _, asked, _] = calls(&test);
        assert_eq!(created, 1, "there is no second intent");
        assert!(asked > 0);
        let charges = charges(&test, &order);
        assert_eq!(charges.len(), 1);
        let key = charges[0].idempotency_key.as_ref().unwrap();
        assert_eq!(key.ends_with(":confirm"), charged_by_first, "the same key would only repeat the error: {key}");
        test.finish().await;
    }
}

/// Race 8.
#[tokio::test]
async fn a_call_whose_key_is_in_flight_leaves_the_payment_open_and_harms_nothing() {
    for operation in [Operation::CreateIntent, Operation::ConfirmIntent] {
        for refused_settles_first in [true, false] {
            let test = TestApp::start_with(PATIENT).await;
            let sale = test.open_sale(1, 1).await;
            let ann = test.customer().await;
            let order = ann.must_buy(sale, 1, json!({})).await;
            let mut begun = begin(&test, &deliveries(&test, Queue::Payment).await).await;
            let provider = &test.simulator.simulator;
            if operation == Operation::ConfirmIntent {
                begun = note(&test.app, create(&test.app, begun).await).await;
            }

            provider.script(FaultScript::once(operation, Fault::HoldBefore)).unwrap();
            let first = tokio::spawn(pay(test.app.clone(), begun.clone()));
            provider.wait_for_held(1).await;
            let (second, refusal) = pay(test.app.clone(), begun).await;
            assert!(matches!(&refusal, Answer::Open { reason, .. } if reason.contains("in flight")), "{refusal:?}");

            if refused_settles_first {
                settle(&test.app, &second, &refusal).await;
                assert_eq!(ann.order(&order).await["status"], "AWAITING_PAYMENT");
            }
            provider.clear_faults();
            let (first, answer) = first.await.unwrap();
            assert!(matches!(answer, Answer::Captured { .. }), "{answer:?}");
            settle(&test.app, &first, &answer).await;
            if !refused_settles_first {
                settle(&test.app, &second, &refusal).await;
            }

            let paid = ann.order(&order).await;
            assert_eq!((&paid["status"], &paid["payments"][0]["status"]), (&json!("PAID"), &json!("CAPTURED")));
            assert_eq!(charges(&test, &order).len(), 1);
            test.finish().await;
        }
    }
}

/// All that a worker does until it has an answer.
async fn pay(app: App, begun: Begun) -> (Begun, Answer) {
    match payment::create_intent(&app, begun).await {
        Ok(begun) => {
            let begun = note(&app, begun).await;
            let answer = payment::confirm(&app, &begun).await;
            (begun, answer)
        }
        Err(answered) => answered,
    }
}

/// Races 8 and 16: one refund at two workers.
#[tokio::test]
async fn one_refund_at_two_workers_gives_the_money_back_once() {
    for put_off_first in [true, false] {
        let test = TestApp::start().await;
        let (sale, ann, order) = paid_order(&test).await;
        status_after(&ann, "cancelOrder", cancel(&order)).await;
        let [message] = deliveries(&test, Queue::Compensation).await.try_into().unwrap();
        let provider = &test.simulator.simulator;
        provider.script(FaultScript::once(Operation::CreateRefund, Fault::HoldBefore)).unwrap();
        let (app, delivery) = (test.app.clone(), message.clone());
        let first = tokio::spawn(async move { refund::carry_out(&app, &delivery).await.unwrap() });
        provider.wait_for_held(1).await;

        if put_off_first {
            refund::carry_out(&test.app, &message).await.unwrap();
            assert_eq!(test.scalar("SELECT count(*) FROM retry WHERE last_error LIKE '%in flight%'").await, 1);
        }
        provider.clear_faults();
        first.await.unwrap();
        if !put_off_first {
            refund::carry_out(&test.app, &message).await.unwrap();
        }

        assert_eq!(ann.order(&order).await["status"], "CANCELLED");
        assert_eq!((kept(&test), provider.ledger().refunds, test.free_units(sale).await), (0, 1, 1));
        assert_eq!((test.scalar("SELECT count(*) FROM retry").await, queued(&test, Queue::Compensation).await), (0, 0));
        test.finish().await;
    }
}

/// A paid order of the only unit, without jobs.
async fn paid_order(test: &TestApp) -> (whitemonday::domain::ids::FlashSaleId, Client, String) {
    let sale = test.open_sale(1, 1).await;
    let ann = test.customer().await;
    let order = ann.must_buy(sale, 1, json!({})).await;
    let begun = begin(test, &deliveries(test, Queue::Payment).await).await;
    let (begun, answer) = pay(test.app.clone(), begun).await;
    settle(&test.app, &begun, &answer).await;
    assert_eq!(ann.order(&order).await["status"], "PAID");
    (sale, ann, order)
}

/// Race 9: the charge is made, and its answer is on the way, or was lost and is asked for.
#[tokio::test]
async fn an_order_called_off_at_the_moment_of_its_settlement_keeps_no_money_and_no_units() {
    for answer_was_lost in [false, true] {
        for settles_first in [true, false] {
            let test = TestApp::start_with(PATIENT).await;
            let sale = test.open_sale(1, 1).await;
            let ann = test.customer().await;
            let order = ann.must_buy(sale, 1, json!({})).await;
            let provider = &test.simulator.simulator;
            let mut held = Operation::ConfirmIntent;
            if answer_was_lost {
                // Of all tries in one delivery.
                let lost = FaultScript::always(Operation::ConfirmIntent, Fault::DropAfter);
                provider.script(FaultScript { times: Some(3), ..lost }).unwrap();
                held = Operation::RetrieveIntent;
            }
            provider.script(FaultScript::always(held, Fault::HoldAfter)).unwrap();
            test.start_jobs();
            provider.wait_for_held(1).await;

            let acknowledged = Step::delete("pgmq.q_payment");
            let barrier = Barrier::at(&test, if settles_first { acknowledged } else { CANCELLING }).await;
            let cancelled = if settles_first {
                provider.clear_faults();
                barrier.reached(&test).await;
                spawn_change(&ann, "cancelOrder", cancel(&order))
            } else {
                let cancelled = spawn_change(&ann, "cancelOrder", cancel(&order));
                barrier.reached(&test).await;
                provider.clear_faults();
                cancelled
            };
            barrier.has_queue(&test).await;
            assert_eq!(test.free_units(sale).await, 0);
            barrier.lift().await;

            assert_eq!(cancelled.await.unwrap()["order"]["status"], "CANCELLING");
            let order = ann.until_order_is(&order, "CANCELLED").await;
            let with_paid = ["AWAITING_PAYMENT", "PAID", "CANCELLING", "CANCELLED"];
            let without = ["AWAITING_PAYMENT", "CANCELLING", "CANCELLED"];
            assert_eq!(statuses(&order), if settles_first { &with_paid[..] } else { &without });
            assert_eq!((provider.ledger().charges, provider.ledger().refunds, kept(&test)), (1, 1, 0));
            assert_eq!(test.free_units(sale).await, 1);
            test.finish().await;
        }
    }
}

/// Race 10.
#[tokio::test]
async fn an_order_is_called_off_or_shipped_and_never_both() {
    for cancelled_first in [true, false] {
        let test = TestApp::start().await;
        let (sale, ann, order) = paid_order(&test).await;
        let eve = test.staff().await;
        status_after(&eve, "markPreparing", json!({ "orderId": order })).await;
        let shipped = Step::update("orders", "NEW.status = 'SHIPPED'");
        let barrier = Barrier::at(&test, if cancelled_first { CANCELLING } else { shipped }).await;
        let cancels = || spawn_change(&ann, "cancelOrder", cancel(&order));
        let ships = || spawn_change(&eve, "markShipped", json!({ "orderId": order, "trackingNumber": "KR-1" }));

        let first = if cancelled_first { cancels() } else { ships() };
        barrier.reached(&test).await;
        let second = if cancelled_first { ships() } else { cancels() };
        barrier.has_queue(&test).await;
        barrier.lift().await;

        let (first, second) = (first.await.unwrap(), second.await.unwrap());
        assert_eq!(first["order"]["status"], if cancelled_first { "CANCELLING" } else { "SHIPPED" }, "{first:#}");
        assert_eq!(second["userErrors"][0]["code"], "WRONG_STATE", "{second:#}");
        test.start_jobs();
        until(async || (queued(&test, Queue::Compensation).await == 0).then_some(())).await;
        let (status, refunds, free) = if cancelled_first { ("CANCELLED", 1, 1) } else { ("SHIPPED", 0, 0) };
        assert_eq!(ann.order(&order).await["status"], status);
        assert_eq!((test.simulator.simulator.ledger().refunds, test.free_units(sale).await), (refunds, free));
        test.finish().await;
    }
}

/// Race 16.
#[tokio::test]
async fn two_refunds_at_once_never_add_up_to_more_than_was_paid() {
    // Quarters of the total that are asked for, all that is left where there is none; and what goes back then.
    for (first, second, gone) in [(Some(3), Some(3), 3), (None, Some(1), 4), (Some(3), None, 4)] {
        let test = TestApp::start().await;
        let (_, ann, order) = paid_order(&test).await;
        let eve = test.staff().await;
        let total = test.scalar("SELECT total_minor FROM orders").await;
        let refunds = |quarters: Option<i64>| {
            let amount = quarters.map(|quarters| (total / 4 * quarters).to_string());
            let input = json!({ "orderId": order, "amount": amount, "reason": "A scratch", "idempotencyKey": new_key() });
            spawn_change(&eve, "refundOrder", input)
        };
        let barrier = Barrier::at(&test, Step::insert("refund")).await;

        let earlier = refunds(first);
        barrier.reached(&test).await;
        let later = refunds(second);
        barrier.has_queue(&test).await;
        barrier.lift().await;

        let (earlier, later) = (earlier.await.unwrap(), later.await.unwrap());
        assert_eq!(earlier["userErrors"], json!([]));
        // Only the rest of a part can still be asked for.
        assert_eq!(later["userErrors"].as_array().unwrap().is_empty(), second.is_none(), "{later:#}");
        test.start_jobs();
        until(async || (queued(&test, Queue::Compensation).await == 0).then_some(())).await;
        assert_eq!(kept(&test), if gone == 4 { 0 } else { total - total / 4 * gone });
        assert_eq!(ann.order(&order).await["status"], if gone == 4 { "REFUNDED" } else { "PAID" });
        test.finish().await;
    }
}

/// Race 16: the same request twice at one moment.
#[tokio::test]
async fn a_refund_that_is_asked_for_twice_with_one_key_is_one() {
    let test = TestApp::start().await;
    let (_, _ann, order) = paid_order(&test).await;
    let eve = test.staff().await;
    let input = json!({ "orderId": order, "amount": "100", "reason": "A scratch", "idempotencyKey": new_key() });
    let barrier = Barrier::at(&test, Step::insert("refund")).await;

    let first = spawn_change(&eve, "refundOrder", input.clone());
    barrier.reached(&test).await;
    let second = spawn_change(&eve, "refundOrder", input.clone());
    barrier.has_queue(&test).await;
    barrier.lift().await;

    assert_eq!(first.await.unwrap(), second.await.unwrap());
    let other = json!({ "orderId": order, "amount": "101", "reason": "A scratch", "idempotencyKey": input["idempotencyKey"] });
    assert_eq!(refused(&eve, "refundOrder", other).await, "IDEMPOTENCY_KEY_REUSED");
    assert_eq!((test.scalar("SELECT count(*) FROM refund").await, queued(&test, Queue::Compensation).await), (1, 1));
    test.finish().await;
}

/// Race 19: the provider cannot be asked for longer than it keeps its keys. Nobody is charged anew; people decide.
#[tokio::test]
async fn a_payment_that_the_provider_has_not_spoken_of_for_a_day_is_for_people() {
    let test = TestApp::start().await;
    let sale = test.open_sale(1, 1).await;
    let ann = test.customer().await;
    let order = ann.must_buy(sale, 1, json!({})).await;
    let provider = &test.simulator.simulator;
    // Charged, and the answer is lost with its worker.
    provider.script(FaultScript::always(Operation::ConfirmIntent, Fault::HoldAfter)).unwrap();
    let mut worker = test.worker();
    provider.wait_for_held(1).await;
    worker.kill();
    provider.clear_faults();
    let gone = FaultScript { operation: None, fault: Fault::Unavailable, times: None, probability: None, seed: 0 };
    provider.script(gone).unwrap();
    test.execute("UPDATE payment SET created_at = created_at - interval '25 hours', deadline = now(), next_query_at = now()").await;
    test.execute(
        "UPDATE orders SET created_at = created_at - interval '25 hours', hold_expires_at = hold_expires_at - interval '25 hours'",
    )
    .await;

    test.start_jobs();
    let in_review = ann.until_order_is(&order, "IN_REVIEW").await;
    assert_eq!(in_review["payments"][0]["status"], "UNKNOWN");
    assert_eq!((provider.ledger().charges, test.free_units(sale).await), (1, 0), "its units are still its own");

    // The provider is back, and staff have the payment asked about.
    provider.clear_faults();
    let eve = test.staff().await;
    let resume = json!({ "orderId": order, "resolution": "RESUME", "note": "The provider is back", "idempotencyKey": new_key() });
    status_after(&eve, "resolveReview", resume).await;
    ann.until_order_is(&order, "PAID").await;
    assert_eq!(provider.ledger().charges, 1);
    test.finish().await;
}

/// Race 24: whoever believes to lead and does not any more changes nothing, whichever of the two comes first.
#[tokio::test]
async fn a_leader_whose_term_is_over_writes_nothing() {
    for old_comes_first in [true, false] {
        let test = TestApp::start().await;
        let sale = test.open_sale(1, 1).await;
        let ann = test.customer().await;
        let order = ann.must_buy(sale, 1, json!({})).await;
        let (other, _) = test.second_server().await;
        let (app, other) = (test.app.for_jobs(), other.for_jobs());
        let old = leader::take_or_renew(&app).await.unwrap().unwrap();
        test.execute("UPDATE lease SET expires_at = now() - interval '1 second'").await;
        let new = leader::take_or_renew(&other).await.unwrap().unwrap();
        assert!(new.0 > old.0);
        test.execute("UPDATE orders SET hold_expires_at = now() - interval '1 second'").await;
        let expire = async |app: &App, term| services::order::expire_due(app, term).await.unwrap();

        if old_comes_first {
            assert_eq!(expire(&app, old).await, 0);
            assert_eq!(ann.order(&order).await["status"], "AWAITING_PAYMENT");
            assert_eq!(expire(&other, new).await, 1);
        } else {
            assert_eq!(expire(&other, new).await, 1);
            assert_eq!(expire(&app, old).await, 0);
        }
        assert_eq!(ann.order(&order).await["status"], "EXPIRED");
        assert_eq!(test.scalar("SELECT count(*) FROM stock_movement WHERE kind = 'RELEASED'").await, 1);
        // Everything else that a leader does asks for its term, too.
        for written in [
            services::payment::send_due(&app, old).await,
            services::retry::send_due(&app, old).await,
            services::webhook::apply_due(&app, old).await,
            services::payment_pause::update(&app, old).await,
        ] {
            written.unwrap();
        }
        test.finish().await;
    }
}
