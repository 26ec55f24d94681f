//! The adapter against the simulator over real HTTP, and against listeners that answer nonsense.

mod guarded;

use std::{net::Ipv4Addr, time::Duration};

use chrono::TimeDelta;
use prometheus_client::registry::Registry;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};
use uuid::Uuid;

use super::*;
use crate::simulator::{Fault, FaultScript, LedgerLine, Operation, RunningSimulator, Simulator, SimulatorOptions};

const RETURN_URL: &str = "https://shop.example/orders";

struct Shop {
    running: RunningSimulator,
    gateway: PaymentGateway,
    order: Uuid,
    attempt: Uuid,
}

impl Shop {
    async fn open() -> Self {
        Self::open_with(SimulatorOptions::default()).await
    }

    async fn open_with(options: SimulatorOptions) -> Self {
        let running = Simulator::start((Ipv4Addr::LOCALHOST, 0).into(), options).await.unwrap();
        let gateway = PaymentGateway::new(&config(&running.url)).unwrap();
        Self { running, gateway, order: Uuid::now_v7(), attempt: Uuid::now_v7() }
    }

    fn fault(&self, operation: Operation, fault: Fault) {
        self.running.simulator.script(FaultScript::once(operation, fault)).unwrap();
    }

    fn always(&self, operation: Operation, fault: Fault) {
        self.running.simulator.script(FaultScript::always(operation, fault)).unwrap();
    }

    fn new_intent<'a>(&self, payment_method: &'a str) -> NewIntent<'a> {
        NewIntent { amount_minor: 19_900, currency: "KRW", payment_method, order_id: self.order, attempt_id: self.attempt }
    }

    async fn create(&self, payment_method: &str) -> Intent {
        self.gateway.create_intent(&self.key("create"), &self.new_intent(payment_method)).await.unwrap()
    }

    async fn confirm(&self, id: &str, payment_method: &str) -> Result<Intent, GatewayError> {
        self.gateway.confirm_intent(&self.key("confirm"), id, payment_method).await
    }

    fn key(&self, step: &str) -> String {
        format!("pay:{}:{}:{step}", self.order, self.attempt)
    }

    fn charges(&self) -> Vec<LedgerLine> {
        self.running.simulator.charges_of_order(&self.order.to_string())
    }
}

fn config(url: &str) -> GatewayConfig {
    GatewayConfig {
        calls: ProviderCalls::new(&mut Registry::default()),
        base_url: url.to_owned(),
        secret_key: "sk_test_whitemonday".into(),
        return_url: RETURN_URL.to_owned(),
        connect_timeout: Duration::from_secs(2),
        answer_timeout: Duration::from_secs(8),
        calls_per_second: None,
        repetitions: 0,
    }
}

#[tokio::test]
async fn a_confirmed_intent_is_charged_once_and_tells_the_card() {
    let shop = Shop::open().await;

    let created = shop.create("pm_card_visa").await;
    assert_eq!(created.status, IntentStatus::RequiresConfirmation);
    assert!(shop.charges().is_empty(), "no money moves before the confirmation");
    let paid = shop.confirm(&created.id, "pm_card_visa").await.unwrap();

    assert_eq!(paid.status, IntentStatus::Succeeded);
    assert_eq!((paid.amount_minor, paid.received_minor, paid.currency.as_str()), (19_900, 19_900, "KRW"));
    assert_eq!(paid.method_label.as_deref(), Some("Visa •••• 4242"));
    assert_eq!((paid.order_id, paid.attempt_id), (Some(shop.order), Some(shop.attempt)));
    assert_eq!(shop.gateway.retrieve_intent(&created.id).await.unwrap(), paid);
    let charges = shop.charges();
    assert_eq!(charges.len(), 1);
    assert_eq!((charges[0].amount, charges[0].currency.as_str()), (19_900, "krw"));
    assert_eq!(
        (charges[0].payment_intent.as_str(), charges[0].idempotency_key.as_deref()),
        (paid.id.as_str(), Some(&*shop.key("confirm")))
    );
}

#[tokio::test]
async fn a_decline_tells_the_banks_word_and_another_card_may_pay() {
    let shop = Shop::open().await;
    let created = shop.create("pm_card_chargeDeclinedInsufficientFunds").await;

    let declined = shop.confirm(&created.id, "pm_card_chargeDeclinedInsufficientFunds").await.unwrap_err();

    let code = "insufficient_funds".to_owned();
    let method_label = Some("Visa •••• 9995".to_owned());
    assert_eq!(declined, GatewayError::Declined { code: code.clone(), method_label: method_label.clone() });
    let seen = shop.gateway.retrieve_intent(&created.id).await.unwrap();
    assert_eq!(seen.status, IntentStatus::RequiresPaymentMethod);
    assert_eq!((seen.failure_code, seen.method_label), (Some(code), method_label));
    assert!(shop.charges().is_empty());
    assert_eq!(
        shop.confirm(&created.id, "pm_card_chargeDeclinedInsufficientFunds").await.unwrap_err(),
        declined,
        "the same key repeats it"
    );
    let paid = shop.gateway.confirm_intent("another key", &created.id, "pm_card_mastercard").await.unwrap();
    assert_eq!((paid.status, paid.failure_code), (IntentStatus::Succeeded, None));
}

#[tokio::test]
async fn a_decline_without_a_reason_and_one_by_script_have_the_plain_code() {
    let shop = Shop::open().await;
    let created = shop.create("pm_card_chargeDeclined").await;
    let plain =
        |last4| GatewayError::Declined { code: "card_declined".to_owned(), method_label: Some(format!("Visa •••• {last4}")) };

    assert_eq!(shop.confirm(&created.id, "pm_card_chargeDeclined").await.unwrap_err(), plain("0002"));
    shop.fault(Operation::ConfirmIntent, Fault::Decline { decline_code: None });
    assert_eq!(shop.gateway.confirm_intent("another key", &created.id, "pm_card_visa").await.unwrap_err(), plain("4242"));
}

#[tokio::test]
async fn a_method_that_does_not_exist_is_a_decline() {
    let shop = Shop::open().await;
    let refused = shop.gateway.create_intent("k", &shop.new_intent("pm_card_nobody")).await.unwrap_err();
    assert_eq!(refused, GatewayError::Declined { code: "resource_missing".to_owned(), method_label: None });
}

#[tokio::test]
async fn the_same_call_with_the_same_key_is_executed_once() {
    let shop = Shop::open().await;
    let created = shop.create("pm_card_visa").await;
    assert_eq!(shop.create("pm_card_visa").await, created);

    let paid = shop.confirm(&created.id, "pm_card_visa").await.unwrap();
    assert_eq!(shop.confirm(&created.id, "pm_card_visa").await.unwrap(), paid);

    assert_eq!(shop.create("pm_card_visa").await, created, "the kept answer, not the state of today");
    assert_eq!(shop.charges().len(), 1);
}

#[tokio::test]
async fn a_key_used_for_another_call_is_our_mistake() {
    let shop = Shop::open().await;
    shop.create("pm_card_visa").await;

    let other = NewIntent { amount_minor: 1, ..shop.new_intent("pm_card_visa") };
    let refused = shop.gateway.create_intent(&shop.key("create"), &other).await.unwrap_err();

    let GatewayError::Rejected { status: 400, code, request_id: Some(_), .. } = refused else { panic!("{refused:?}") };
    assert_eq!(code, "idempotency_error");
}

#[tokio::test]
async fn a_second_confirmation_under_another_key_finds_the_intent_settled() {
    let shop = Shop::open().await;
    let created = shop.create("pm_card_visa").await;
    let paid = shop.confirm(&created.id, "pm_card_visa").await.unwrap();

    let again = shop.gateway.confirm_intent("another key", &created.id, "pm_card_visa").await.unwrap_err();

    let GatewayError::WrongState { intent } = again else { panic!("{again:?}") };
    assert_eq!((intent.id, intent.status, intent.received_minor), (paid.id, IntentStatus::Succeeded, 19_900));
    assert_eq!(shop.charges().len(), 1);
}

#[tokio::test]
async fn a_500_after_the_charge_is_unknown_and_a_query_finds_the_charge() {
    let shop = Shop::open().await;
    let created = shop.create("pm_card_visa").await;
    shop.fault(Operation::ConfirmIntent, Fault::ErrorAfter);

    for repeated in [false, true] {
        let failed = shop.confirm(&created.id, "pm_card_visa").await.unwrap_err();
        assert!(
            matches!(failed, GatewayError::Unknown { kept, .. } if kept == if repeated { Kept::Already } else { Kept::Now }),
            "{failed:?}"
        );
    }

    assert_eq!(shop.gateway.retrieve_intent(&created.id).await.unwrap().status, IntentStatus::Succeeded);
    assert_eq!(shop.charges().len(), 1);
    assert_eq!(shop.running.simulator.calls(Operation::ConfirmIntent), 2);
}

#[tokio::test]
async fn a_500_before_the_charge_is_kept_and_a_new_key_pays_the_same_intent() {
    let shop = Shop::open().await;
    let created = shop.create("pm_card_visa").await;
    shop.fault(Operation::ConfirmIntent, Fault::ErrorBefore);

    for _ in 0..2 {
        assert!(matches!(shop.confirm(&created.id, "pm_card_visa").await, Err(GatewayError::Unknown { .. })));
    }
    assert_eq!(shop.gateway.retrieve_intent(&created.id).await.unwrap().status, IntentStatus::RequiresConfirmation);

    let paid = shop.gateway.confirm_intent("another key", &created.id, "pm_card_visa").await.unwrap();
    assert_eq!((paid.status, shop.charges().len()), (IntentStatus::Succeeded, 1));
}

#[tokio::test]
async fn a_dropped_connection_is_unknown_whether_or_not_it_charged() {
    for (fault, charges) in [(Fault::DropBefore, 0), (Fault::DropAfter, 1)] {
        let shop = Shop::open().await;
        let created = shop.create("pm_card_visa").await;
        shop.fault(Operation::ConfirmIntent, fault);

        let dropped = shop.confirm(&created.id, "pm_card_visa").await.unwrap_err();

        assert_eq!(dropped, GatewayError::unknown("the connection ended without an answer"));
        assert_eq!(shop.charges().len(), charges);
        assert_eq!(shop.confirm(&created.id, "pm_card_visa").await.unwrap().status, IntentStatus::Succeeded, "the same key settles it");
        assert_eq!(shop.charges().len(), 1);
    }
}

#[tokio::test]
async fn a_charge_may_come_after_our_time_is_over() {
    let mut shop = Shop::open().await;
    let created = shop.create("pm_card_visa").await;
    shop.fault(Operation::ConfirmIntent, Fault::HoldBefore);
    let patient = shop.gateway.clone();
    shop.gateway = PaymentGateway::new(&GatewayConfig { answer_timeout: Duration::from_millis(300), ..config(&shop.running.url) }).unwrap();

    let late = shop.confirm(&created.id, "pm_card_visa").await.unwrap_err();

    assert_eq!(late, GatewayError::unknown("no answer in time"));
    // Our hanging up does not stop the provider.
    shop.running.simulator.wait_for_held(1).await;
    assert!(shop.charges().is_empty());
    shop.running.simulator.clear_faults();
    let paid = loop {
        let seen = patient.retrieve_intent(&created.id).await.unwrap();
        if seen.status == IntentStatus::Succeeded {
            break seen;
        }
    };
    assert_eq!((paid.id, shop.charges().len()), (created.id, 1));
}

#[tokio::test]
async fn a_key_in_flight_says_wait() {
    let shop = Shop::open().await;
    let created = shop.create("pm_card_visa").await;
    shop.fault(Operation::ConfirmIntent, Fault::HoldBefore);
    let (first, second) = tokio::join!(shop.confirm(&created.id, "pm_card_visa"), async {
        shop.running.simulator.wait_for_held(1).await;
        let second = shop.confirm(&created.id, "pm_card_visa").await;
        shop.running.simulator.clear_faults();
        second
    });

    assert_eq!(second.unwrap_err(), GatewayError::InFlight { retry_after: None });
    assert_eq!(first.unwrap().status, IntentStatus::Succeeded);
    assert_eq!(shop.charges().len(), 1);
}

#[tokio::test]
async fn what_was_surely_not_executed_is_safe() {
    let shop = Shop::open().await;
    let created = shop.create("pm_card_visa").await;
    shop.fault(Operation::ConfirmIntent, Fault::RateLimit { retry_after_s: Some(7) });
    let busy = shop.confirm(&created.id, "pm_card_visa").await.unwrap_err();
    assert_eq!(busy, GatewayError::Safe { reason: "too many calls".to_owned(), retry_after: Some(Duration::from_secs(7)) });
    assert!(shop.charges().is_empty());
    assert!(shop.confirm(&created.id, "pm_card_visa").await.is_ok(), "the key was left free");

    let nobody = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let url = format!("http://{}", nobody.local_addr().unwrap());
    drop(nobody);
    let refused = PaymentGateway::new(&config(&url)).unwrap().retrieve_intent("pi_1").await.unwrap_err();
    assert_eq!(refused, GatewayError::Safe { reason: "no connection".to_owned(), retry_after: None });
}

#[tokio::test]
async fn a_503_is_unknown_and_leaves_the_key_free() {
    let shop = Shop::open().await;
    shop.fault(Operation::CreateIntent, Fault::Unavailable);
    let new = shop.new_intent("pm_card_visa");
    let down = shop.gateway.create_intent(&shop.key("create"), &new).await;
    assert!(matches!(down, Err(GatewayError::Unknown { .. })), "{down:?}");
    assert_eq!(shop.create("pm_card_visa").await.status, IntentStatus::RequiresConfirmation);
}

#[tokio::test]
async fn a_restarted_provider_with_a_state_file_knows_the_payment() {
    let folder = tempfile::tempdir().unwrap();
    let options = SimulatorOptions { state_file: Some(folder.path().join("state.jsonl")), ..SimulatorOptions::default() };
    let mut shop = Shop::open_with(options.clone()).await;
    let created = shop.create("pm_card_visa").await;
    let paid = shop.confirm(&created.id, "pm_card_visa").await.unwrap();
    shop.running.stop().await.unwrap();

    let again = Shop::open_with(options).await;
    (shop.running, shop.gateway) = (again.running, again.gateway);

    assert_eq!(shop.gateway.retrieve_intent(&created.id).await.unwrap(), paid);
    assert_eq!(shop.confirm(&created.id, "pm_card_visa").await.unwrap(), paid, "the key is known too");
    assert_eq!(shop.charges().len(), 1);
}

#[tokio::test]
async fn an_authentication_has_a_page_that_settles_the_payment() {
    for (outcome, status, charges) in [("complete", IntentStatus::Succeeded, 1), ("fail", IntentStatus::RequiresPaymentMethod, 0)] {
        let shop = Shop::open().await;
        let created = shop.create("pm_card_authenticationRequired").await;

        let asked = shop.confirm(&created.id, "pm_card_authenticationRequired").await.unwrap();
        assert_eq!(asked.status, IntentStatus::RequiresAction);
        assert!(shop.charges().is_empty());
        let page = asked.next_action_url.unwrap();
        let browser = Client::builder().redirect(redirect::Policy::none()).no_proxy().build().unwrap();
        assert!(browser.get(&page).send().await.unwrap().text().await.unwrap().contains("<form"));
        let back = browser.post(&page).form(&[("outcome", outcome)]).send().await.unwrap();

        let location = back.headers()["location"].to_str().unwrap();
        assert!(location.starts_with(&format!("{RETURN_URL}?payment_intent={}&", created.id)), "{location}");
        let settled = shop.gateway.retrieve_intent(&created.id).await.unwrap();
        assert_eq!((settled.status, shop.charges().len()), (status, charges));
        assert_eq!(settled.failure_code.as_deref(), (charges == 0).then_some("payment_intent_authentication_failure"));
        assert_eq!(browser.get(&page).send().await.unwrap().status(), 404, "it can be answered once");
    }
}

#[tokio::test]
async fn an_unpaid_intent_can_be_cancelled_and_a_paid_one_can_not() {
    let shop = Shop::open().await;
    let unpaid = shop.create("pm_card_visa").await;
    assert_eq!(shop.gateway.cancel_intent("c1", &unpaid.id).await.unwrap().status, IntentStatus::Canceled);
    let late = shop.confirm(&unpaid.id, "pm_card_visa").await.unwrap_err();
    assert!(matches!(late, GatewayError::WrongState { intent } if intent.status == IntentStatus::Canceled));
    assert!(shop.charges().is_empty());

    let paid = shop.gateway.create_intent("k2", &shop.new_intent("pm_card_visa")).await.unwrap();
    shop.gateway.confirm_intent("k3", &paid.id, "pm_card_visa").await.unwrap();
    let refused = shop.gateway.cancel_intent("c2", &paid.id).await.unwrap_err();
    assert!(matches!(refused, GatewayError::WrongState { intent } if intent.status == IntentStatus::Succeeded));
}

#[tokio::test]
async fn charges_of_a_time_are_listed_page_by_page_with_what_was_given_back() {
    let shop = Shop::open().await;
    let mut intents = Vec::new();
    for number in 0..101 {
        let created = shop.gateway.create_intent(&format!("create {number}"), &shop.new_intent("pm_card_visa")).await.unwrap();
        shop.gateway.confirm_intent(&format!("confirm {number}"), &created.id, "pm_card_visa").await.unwrap();
        intents.insert(0, Some(created.id));
    }
    let declined = shop.create("pm_card_chargeDeclined").await;
    shop.confirm(&declined.id, "pm_card_chargeDeclined").await.unwrap_err();
    let newest = intents[0].clone().unwrap();
    let refund = NewRefund { intent: &newest, amount_minor: 900, refund_id: Uuid::now_v7(), order_id: shop.order };
    shop.gateway.create_refund("refund", &refund).await.unwrap();
    let (from, to) = (DateTime::UNIX_EPOCH, DateTime::from_timestamp(4_000_000_000, 0).unwrap());

    let first = shop.gateway.list_charges(from, to, None).await.unwrap();
    assert_eq!((first.charges.len(), first.has_more), (100, true));
    let rest = shop.gateway.list_charges(from, to, Some(&first.charges[99].id)).await.unwrap();
    assert_eq!((rest.charges.len(), rest.has_more), (1, false));

    let all: Vec<_> = first.charges.iter().chain(&rest.charges).map(|charge| charge.intent.clone()).collect();
    assert_eq!(all, intents, "newest first, each once");
    let charge = &first.charges[0];
    assert_eq!((charge.amount_minor, charge.refunded_minor, charge.currency.as_str()), (19_900, 900, "KRW"));
    assert_eq!((charge.status, charge.captured), (ChargeStatus::Succeeded, true));
    assert_eq!((charge.order_id, charge.attempt_id), (Some(shop.order), Some(shop.attempt)));
    assert_eq!(rest.charges[0].refunded_minor, 0);

    let at = rest.charges[0].created_at;
    let in_second = async |from, to| {
        let listed = shop.gateway.list_charges(from, to, None).await.unwrap().charges;
        listed.iter().filter(|charge| charge.created_at == at).count()
    };
    assert!(in_second(at, at + TimeDelta::seconds(1)).await > 0, "the beginning belongs to it");
    assert_eq!(in_second(at - TimeDelta::seconds(9), at).await, 0, "the end does not");
    let unknown = shop.gateway.list_charges(from, to, Some("ch_unknown")).await;
    assert!(matches!(unknown, Err(GatewayError::Rejected { status: 400, .. })), "{unknown:?}");
}

#[tokio::test]
async fn charges_that_are_no_money_or_not_ours_are_listed_as_such() {
    const LIST: &str = r#"{"object":"list","has_more":false,"data":[
        {"id":"ch_1","amount":5,"amount_refunded":0,"captured":false,"status":"failed","currency":"usd","created":1800000000,
         "payment_intent":null,"metadata":{"order_id":"7"}},
        {"id":"ch_2","amount":6,"amount_refunded":0,"captured":false,"status":"pending","currency":"usd","created":1800000001,
         "payment_intent":"pi_2","metadata":{}}]}"#;
    let gateway = says(format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{LIST}", LIST.len())).await;

    let charges = gateway.list_charges(DateTime::UNIX_EPOCH, DateTime::UNIX_EPOCH, None).await.unwrap().charges;

    assert_eq!((charges[0].status, charges[0].captured, charges[0].intent.as_deref()), (ChargeStatus::Failed, false, None));
    assert_eq!((charges[0].order_id, charges[0].created_at.timestamp()), (None, 1_800_000_000));
    assert_eq!((charges[1].status, charges[1].intent.as_deref(), charges[1].attempt_id), (ChargeStatus::Pending, Some("pi_2"), None));
}

#[tokio::test]
async fn an_unknown_intent_is_not_found_and_an_impossible_id_is_not_sent() {
    let shop = Shop::open().await;
    assert_eq!(shop.gateway.retrieve_intent("pi_unknown").await, Err(GatewayError::NotFound));
    for id in ["", "..", "pi_1/cancel", "pi_1?x"] {
        assert_eq!(shop.gateway.confirm_intent("k", id, "pm_card_visa").await, Err(GatewayError::NotFound));
    }
    assert_eq!(shop.running.simulator.calls(Operation::ConfirmIntent), 0);
}

#[tokio::test]
async fn a_wrong_key_is_our_mistake_and_is_not_told() {
    let shop = Shop::open().await;
    let config = GatewayConfig { secret_key: "nonsense".into(), ..config(&shop.running.url) };
    let refused = PaymentGateway::new(&config).unwrap().retrieve_intent("pi_1").await.unwrap_err();
    assert!(matches!(refused, GatewayError::Rejected { status: 401, .. }), "{refused:?}");
    assert!(!format!("{refused} {refused:?}").contains("nonsense"));
}

#[test]
fn a_live_key_is_not_sent_in_the_open() {
    let build = |base_url: &str, key: &str| {
        PaymentGateway::new(&GatewayConfig { secret_key: key.into(), ..config(base_url) }).map(|_| ()).map_err(|error| error.to_string())
    };
    assert!(build("http://localhost", "sk_live_1").is_err());
    assert!(build("https://api.stripe.com", "sk_live_1").is_ok());
    assert!(build("ftp://localhost", "sk_test_1").is_err());
    assert!(build("mailto:a@b.example", "sk_test_1").is_err());
    assert!(!build("http://localhost", "sk_test_\n1").unwrap_err().contains("sk_test"));
}

/// A provider that sends `answer` to every call, whatever it is asked.
async fn says(answer: impl Into<String>) -> PaymentGateway {
    let answer = answer.into();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = [0; 4096];
            let _ = stream.read(&mut request).await;
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    });
    PaymentGateway::new(&config(&url)).unwrap()
}

#[tokio::test]
async fn an_answer_that_is_not_clear_is_unknown() {
    for answer in [
        "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}",
        "HTTP/1.1 200 OK\r\ncontent-length: 500\r\n\r\n{\"id\":",
        "HTTP/1.1 200 OK\r\ncontent-length: 63\r\n\r\n{\"id\":\"pi_1\",\"amount\":1,\"currency\":\"krw\",\"status\":\"new_status\"}",
        "HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n",
        "HTTP/1.1 402 Payment Required\r\ncontent-length: 4\r\n\r\noops",
        "HTTP/1.1 504 Gateway Timeout\r\ncontent-length: 4\r\n\r\noops",
        "nonsense\r\n\r\n",
    ] {
        let unclear = says(answer).await.confirm_intent("k", "pi_1", "pm_card_visa").await.unwrap_err();
        assert!(matches!(unclear, GatewayError::Unknown { .. }), "{answer}: {unclear:?}");
    }
    let proxy = says("HTTP/1.1 404 Not Found\r\ncontent-length: 4\r\n\r\noops").await;
    let elsewhere = proxy.retrieve_intent("pi_1").await.unwrap_err();
    assert!(matches!(elsewhere, GatewayError::Rejected { status: 404, .. }), "not Stripe's own 404: {elsewhere:?}");
}
