//! What stands before the calls: tries, circuit breakers, the rate.

use std::time::Instant;

use prometheus_client::encoding::prometheus_text;

use super::{super::Operation as Call, *};

/// A gateway as the program has it.
fn patient(url: &str) -> PaymentGateway {
    PaymentGateway::new(&GatewayConfig { repetitions: 2, ..config(url) }).unwrap()
}

#[tokio::test]
async fn a_failure_that_passes_is_repeated_with_the_same_key_and_charged_once() {
    for fault in [Fault::DropAfter, Fault::DropBefore, Fault::Unavailable, Fault::RateLimit { retry_after_s: None }] {
        let shop = Shop::open().await;
        let gateway = patient(&shop.running.url);
        let intent = gateway.create_intent("key", &shop.new_intent("pm_card_visa")).await.unwrap();
        shop.fault(Operation::ConfirmIntent, fault.clone());

        let paid = gateway.confirm_intent("confirm", &intent.id, "pm_card_visa").await.unwrap();

        assert_eq!(paid.status, IntentStatus::Succeeded, "{fault:?}");
        assert_eq!(shop.charges().len(), 1, "{fault:?}");
        assert_eq!(shop.running.simulator.calls(Operation::ConfirmIntent), 2, "{fault:?}");
    }
}

#[tokio::test]
async fn a_decline_and_a_long_retry_after_are_not_repeated() {
    let shop = Shop::open().await;
    let gateway = patient(&shop.running.url);
    shop.always(Operation::CreateIntent, Fault::RateLimit { retry_after_s: Some(6) });
    let error = gateway.create_intent("key", &shop.new_intent("pm_card_visa")).await.unwrap_err();
    assert_eq!(error.retry_after(), Some(Duration::from_secs(6)));
    assert_eq!(shop.running.simulator.calls(Operation::CreateIntent), 1);
    shop.running.simulator.clear_faults();

    let intent = gateway.create_intent("other", &shop.new_intent("pm_card_chargeDeclined")).await.unwrap();
    gateway.confirm_intent("confirm", &intent.id, "pm_card_chargeDeclined").await.unwrap_err();
    assert_eq!(shop.running.simulator.calls(Operation::ConfirmIntent), 1);
}

#[tokio::test]
async fn an_ill_provider_is_left_alone_and_tried_with_five_calls() {
    let shop = Shop::open().await;
    let gateway = PaymentGateway::new(&config(&shop.running.url)).unwrap();
    let create = async |number: usize| gateway.create_intent(&format!("key {number}"), &shop.new_intent("pm_card_visa")).await;
    let calls = || shop.running.simulator.calls(Operation::CreateIntent);
    shop.always(Operation::CreateIntent, Fault::Unavailable);
    for number in 0..30 {
        create(number).await.unwrap_err();
    }
    assert_eq!(calls(), 10, "it opens with the tenth failure");
    let GatewayError::BreakerOpen { retry_after } = create(0).await.unwrap_err() else { panic!("it is open") };
    assert_eq!(gateway.room(&[Call::CreateIntent]), Some(0));
    assert_eq!(gateway.room(&[Call::RetrieveIntent]), None, "other operations have breakers of their own");

    // Half-open, and a hundred callers at once: five are let through.
    shop.running.simulator.clear_faults();
    shop.always(Operation::CreateIntent, Fault::HoldBefore);
    tokio::time::sleep(retry_after).await;
    let callers = futures_util::future::join_all((100..200).map(create));
    let release = async {
        shop.running.simulator.wait_for_held(5).await;
        assert_eq!(calls(), 15);
        shop.running.simulator.clear_faults();
    };
    let (answers, ()) = tokio::join!(callers, release);
    assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), 5);
    assert_eq!(calls(), 15);
    create(300).await.unwrap();
    assert_eq!(gateway.room(&[Call::CreateIntent]), None);
}

#[tokio::test]
async fn calls_keep_to_their_rate() {
    let shop = Shop::open().await;
    let calls_per_second = std::num::NonZeroU32::new(20);
    let gateway = PaymentGateway::new(&GatewayConfig { calls_per_second, ..config(&shop.running.url) }).unwrap();
    let start = Instant::now();
    let call = async |number: usize| gateway.create_intent(&format!("key {number}"), &shop.new_intent("pm_card_visa")).await;
    for answer in futures_util::future::join_all((0..30).map(call)).await {
        answer.unwrap();
    }
    // Twenty at once, and ten more at twenty a second; never sooner, however fast the machine.
    assert!(start.elapsed() >= Duration::from_millis(450), "{:?}", start.elapsed());
}

#[tokio::test]
async fn each_call_is_counted_by_what_came_of_it() {
    let shop = Shop::open().await;
    let mut registry = Registry::default();
    let calls = ProviderCalls::new(&mut registry);
    let gateway = PaymentGateway::new(&GatewayConfig { calls: calls.clone(), ..config(&shop.running.url) }).unwrap();
    let answer_timeout = Duration::from_millis(300);
    let hasty = PaymentGateway::new(&GatewayConfig { answer_timeout, calls, ..config(&shop.running.url) }).unwrap();

    let intent = gateway.create_intent("made", &shop.new_intent("pm_card_chargeDeclined")).await.unwrap();
    gateway.confirm_intent("declined", &intent.id, "pm_card_chargeDeclined").await.unwrap_err();
    shop.fault(Operation::CreateIntent, Fault::Unavailable);
    gateway.create_intent("failed", &shop.new_intent("pm_card_visa")).await.unwrap_err();
    shop.fault(Operation::CreateIntent, Fault::HoldBefore);
    hasty.create_intent("late", &shop.new_intent("pm_card_visa")).await.unwrap_err();

    let mut text = String::new();
    prometheus_text::encode(&mut text, &registry).unwrap();
    for (series, count) in [
        (r#"{call="create_intent",outcome="ok"}"#, 1),
        (r#"{call="create_intent",outcome="failed"}"#, 1),
        (r#"{call="create_intent",outcome="timed_out"}"#, 1),
        (r#"{call="confirm_intent",outcome="declined"}"#, 1),
        (r#"{call="create_refund",outcome="failed"}"#, 0),
    ] {
        assert!(text.contains(&format!("provider_calls_total{series} {count}\n")), "{series}: {text}");
    }
    shop.running.simulator.clear_faults();
}
