//! The simulator alone: what the adapter does not use yet, and its state over restarts.

use std::path::Path;

use axum::{body::Body, http::Request};
use serde_json::{Value, json};
use tower::ServiceExt;

use super::*;

/// What a call was answered: status, whether from the key store, body.
#[derive(Debug, PartialEq)]
struct Answer {
    status: u16,
    replayed: bool,
    body: Value,
}

async fn call(simulator: &Simulator, method: &str, path: &str, key: Option<&str>, form: &str) -> Answer {
    let mut request = Request::builder().method(method).uri(path).header("authorization", "Bearer sk_test_1");
    if let Some(key) = key {
        request = request.header("idempotency-key", key);
    }
    let kind = if form.starts_with('{') { "application/json" } else { "application/x-www-form-urlencoded" };
    let request = request.header("content-type", kind).body(Body::from(form.to_owned())).unwrap();
    let response = simulator.router().oneshot(request).await.unwrap();
    let (status, replayed) = (response.status().as_u16(), response.headers().contains_key("idempotent-replayed"));
    let body = axum::body::to_bytes(response.into_body(), usize::MAX).await.unwrap();
    Answer { status, replayed, body: serde_json::from_slice(&body).unwrap_or(Value::Null) }
}

async fn post(simulator: &Simulator, path: &str, key: &str, form: &str) -> Answer {
    call(simulator, "POST", path, Some(key), form).await
}

async fn get(simulator: &Simulator, path: &str) -> Answer {
    call(simulator, "GET", path, None, "").await
}

const NEW: &str = "amount=500&currency=krw&payment_method=pm_card_visa&metadata[order_id]=order-1";

/// Creates and confirms; the id of the intent.
async fn pay(simulator: &Simulator, name: &str) -> String {
    let created = post(simulator, "/v1/payment_intents", &format!("{name}:create"), NEW).await;
    let id = created.body["id"].as_str().unwrap().to_owned();
    let paid = post(simulator, &format!("/v1/payment_intents/{id}/confirm"), &format!("{name}:confirm"), "").await;
    assert_eq!(paid.body["status"], "succeeded");
    id
}

fn simulator() -> Simulator {
    Simulator::open(SimulatorOptions::default()).unwrap()
}

fn with_file(path: &Path) -> Result<Simulator, SimulatorError> {
    Simulator::open(SimulatorOptions { state_file: Some(path.to_owned()), ..SimulatorOptions::default() })
}

#[tokio::test]
async fn a_repeated_call_is_answered_word_by_word_and_marked() {
    let simulator = simulator();
    let first = post(&simulator, "/v1/payment_intents", "k", NEW).await;
    assert_eq!((first.status, first.replayed), (200, false));

    let again = post(&simulator, "/v1/payment_intents", "k", NEW).await;
    assert_eq!(again, Answer { replayed: true, ..first });

    let other = post(&simulator, "/v1/payment_intents", "k", &NEW.replace("500", "600")).await;
    assert_eq!((other.status, &other.body["error"]["type"]), (400, &json!("idempotency_error")));
}

#[tokio::test]
async fn refused_calls_leave_their_key_free() {
    let simulator = simulator();
    for (form, code) in [
        ("amount=500&currency=krw&amonut=1", "parameter_unknown"),
        ("currency=krw", "parameter_missing"),
        ("amount=0&currency=krw", "parameter_invalid_integer"),
        ("amount=100000000&currency=krw", "amount_too_large"),
        ("amount=500&currency=won1", "parameter_invalid"),
        ("amount=500&currency=krw&payment_method=pm_x", "resource_missing"),
    ] {
        let refused = post(&simulator, "/v1/payment_intents", "k", form).await;
        assert_eq!((refused.status, &refused.body["error"]["code"]), (400, &json!(code)), "{form}");
    }
    assert_eq!(post(&simulator, "/v1/payment_intents/pi_x/confirm", "k", "").await.status, 404);

    assert_eq!(post(&simulator, "/v1/payment_intents", "k", NEW).await.status, 200);
}

#[tokio::test]
async fn only_test_keys_are_let_in() {
    let simulator = simulator();
    // Basic, `sk_test_1:` and `sk_live_1:`.
    for (authorization, status) in
        [("Basic c2tfdGVzdF8xOg==", 200), ("Basic c2tfbGl2ZV8xOg==", 401), ("Bearer sk_live_1", 401), ("Bearer", 401), ("", 401)]
    {
        let request = Request::get("/v1/charges").header("authorization", authorization).body(Body::empty()).unwrap();
        assert_eq!(simulator.router().oneshot(request).await.unwrap().status(), status, "{authorization}");
    }
}

#[tokio::test]
async fn an_intent_without_a_method_waits_for_one() {
    let simulator = simulator();
    let created = post(&simulator, "/v1/payment_intents", "k1", "amount=500&currency=USD").await.body;
    assert_eq!((&created["status"], &created["currency"]), (&json!("requires_payment_method"), &json!("usd")));
    let path = format!("/v1/payment_intents/{}/confirm", created["id"].as_str().unwrap());

    assert_eq!(post(&simulator, &path, "k2", "").await.body["error"]["code"], "payment_intent_unexpected_state");
    let asked = post(&simulator, &path, "k3", "payment_method=pm_card_authenticationRequired").await.body;
    assert_eq!(asked["next_action"]["type"], "use_stripe_sdk", "no page without a return address");
    let paid = post(&simulator, &path, "k4", "payment_method=pm_card_jcb&expand[]=payment_method").await.body;
    assert_eq!((&paid["status"], &paid["payment_method"]["card"]["last4"]), (&json!("succeeded"), &json!("0505")));
}

#[tokio::test]
async fn refunds_never_exceed_the_charge() {
    let simulator = simulator();
    let intent = pay(&simulator, "a").await;
    let form = |amount: u32| format!("payment_intent={intent}&amount={amount}&reason=requested_by_customer");

    let part = post(&simulator, "/v1/refunds", "r1", &form(200)).await.body;
    assert_eq!((&part["amount"], &part["status"]), (&json!(200), &json!("succeeded")));
    assert!(post(&simulator, "/v1/refunds", "r1", &form(200)).await.replayed);
    assert_eq!(post(&simulator, "/v1/refunds", "r2", &form(301)).await.body["error"]["code"], "amount_too_large");
    let rest = post(&simulator, "/v1/refunds", "r3", &format!("charge={}", part["charge"].as_str().unwrap())).await.body;
    assert_eq!(rest["amount"], 300);
    assert_eq!(post(&simulator, "/v1/refunds", "r4", &form(1)).await.body["error"]["code"], "charge_already_refunded");

    assert_eq!(get(&simulator, &format!("/v1/refunds/{}", part["id"].as_str().unwrap())).await.body, part);
    assert_eq!(get(&simulator, "/v1/refunds/re_x").await.status, 404);
    let charge = &get(&simulator, &format!("/v1/charges?payment_intent={intent}")).await.body["data"][0];
    assert_eq!((&charge["amount_refunded"], &charge["refunded"]), (&json!(500), &json!(true)));
    let ledger = simulator.ledger();
    assert_eq!((ledger.charged["krw"], ledger.refunded["krw"], ledger.refunds), (500, 500, 2));
}

#[tokio::test]
async fn lists_are_paged_from_the_newest_and_by_time() {
    let simulator = simulator();
    let mut intents = Vec::new();
    for name in ["a", "b", "c"] {
        intents.push(json!(pay(&simulator, name).await));
    }
    let ids = |body: &Value, field: &str| body["data"].as_array().unwrap().iter().map(|row| row[field].clone()).collect::<Vec<_>>();

    let first = get(&simulator, "/v1/payment_intents?limit=2").await.body;
    assert_eq!((ids(&first, "id"), &first["has_more"]), (vec![intents[2].clone(), intents[1].clone()], &json!(true)));
    let rest = get(&simulator, &format!("/v1/payment_intents?limit=2&starting_after={}", intents[1].as_str().unwrap())).await.body;
    assert_eq!((ids(&rest, "id"), &rest["has_more"]), (vec![intents[0].clone()], &json!(false)));
    assert_eq!(get(&simulator, "/v1/payment_intents?starting_after=pi_x").await.status, 400);
    assert_eq!(get(&simulator, "/v1/charges?limit=0").await.status, 400);

    let charges = get(&simulator, "/v1/charges").await.body;
    assert_eq!(ids(&charges, "payment_intent"), [intents[2].clone(), intents[1].clone(), intents[0].clone()]);
    let newest = charges["data"][0]["created"].as_u64().unwrap();
    let later = get(&simulator, &format!("/v1/charges?created[gt]={newest}")).await.body;
    assert_eq!(ids(&later, "id"), Vec::<Value>::new());
    let until = get(&simulator, &format!("/v1/charges?created[gte]=0&created[lte]={newest}")).await.body;
    assert_eq!(ids(&until, "id").len(), 3);
}

#[tokio::test]
async fn the_judge_sees_every_charge_and_the_order_that_paid_twice() {
    let simulator = simulator();
    let (first, second) = (pay(&simulator, "a").await, pay(&simulator, "b").await);

    let ledger = get(&simulator, "/admin/ledger?limit=1").await.body;
    assert_eq!(ledger["summary"]["orders_charged_more_than_once"], json!(["order-1"]));
    assert_eq!((&ledger["charges"][0]["payment_intent"], &ledger["next_offset"]), (&json!(first), &json!(1)));
    assert_eq!(ledger["calls"], json!({ "create_intent": 2, "confirm_intent": 2 }));
    let of_order = get(&simulator, "/admin/ledger?order_id=order-1").await.body;
    assert_eq!(of_order["charges"][1]["payment_intent"], json!(second));
    assert_eq!(of_order["charges"][1]["idempotency_key"], "b:confirm");
    assert_eq!(get(&simulator, "/admin/ledger?order_id=order-2").await.body["charges"], json!([]));
}

#[tokio::test]
async fn faults_are_scripted_shown_and_cleared_over_http() {
    let simulator = simulator();
    let script = |text: &'static str| call(&simulator, "POST", "/admin/faults", None, text);
    let fault = r#"{"operation": "create_intent", "fault": {"kind": "rate_limit", "retry_after_s": 3}, "times": 1}"#;
    assert_eq!(script(fault).await.status, 201);
    assert_eq!(script(r#"{"fault": {"kind": "delay_before", "ms": 1}, "probability": 0.5, "seed": 4}"#).await.status, 201);
    assert_eq!(script(r#"{"fault": {"kind": "decline"}}"#).await.status, 422);
    assert_eq!(script(r#"{"fault": {"kind": "explode"}}"#).await.status, 422);

    assert_eq!(post(&simulator, "/v1/payment_intents", "k", NEW).await.status, 429);
    let shown = get(&simulator, "/admin/faults").await.body;
    assert_eq!((shown["scripts"].as_array().unwrap().len(), &shown["scripts"][0]["struck"]), (2, &json!(1)));
    assert_eq!(call(&simulator, "DELETE", "/admin/faults", None, "").await.status, 204);
    assert_eq!(get(&simulator, "/admin/faults").await.body, json!({ "held": 0, "scripts": [] }));
    assert_eq!(post(&simulator, "/v1/payment_intents", "k", NEW).await.status, 200);
}

#[tokio::test]
async fn a_restarted_simulator_knows_its_intents_charges_and_keys() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("simulator.jsonl");
    let before = with_file(&file).unwrap();
    let intent = pay(&before, "a").await;
    post(&before, "/v1/refunds", "r", &format!("payment_intent={intent}&amount=200")).await;
    before.script(FaultScript::once(Operation::CreateIntent, Fault::ErrorAfter)).unwrap();
    assert_eq!(post(&before, "/v1/payment_intents", "failed", NEW).await.status, 500);
    let path = format!("/v1/payment_intents/{intent}");
    let (seen, ledger) = (get(&before, &path).await, before.ledger());
    assert!(matches!(with_file(&file), Err(SimulatorError::Journal(JournalError::InUse { .. }))));
    drop(before);

    let after = with_file(&file).unwrap();

    assert_eq!((get(&after, &path).await, after.ledger()), (seen, ledger));
    let again = post(&after, &format!("{path}/confirm"), "a:confirm", "").await;
    assert_eq!((again.replayed, &again.body["status"]), (true, &json!("succeeded")));
    let failed = post(&after, "/v1/payment_intents", "failed", NEW).await;
    assert_eq!((failed.replayed, failed.status), (true, 500));
    assert_eq!(after.ledger().charges, 1);
}

#[tokio::test]
async fn a_torn_line_is_dropped_and_a_broken_one_refused() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("simulator.jsonl");
    let first = pay(&with_file(&file).unwrap(), "a").await;
    let whole = std::fs::read_to_string(&file).unwrap();
    assert_eq!(whole.lines().count(), 2, "a line for each call");

    std::fs::write(&file, format!("{whole}[{{\"intent\":{{\"fac")).unwrap();
    let simulator = with_file(&file).unwrap();
    let second = pay(&simulator, "b").await;
    drop(simulator);
    let simulator = with_file(&file).unwrap();
    for intent in [first, second] {
        assert_eq!(get(&simulator, &format!("/v1/payment_intents/{intent}")).await.body["status"], "succeeded");
    }
    drop(simulator);

    std::fs::write(&file, format!("nonsense\n{whole}")).unwrap();
    assert!(matches!(with_file(&file), Err(SimulatorError::Journal(JournalError::Line { line: 1, .. }))));
}

#[tokio::test]
async fn it_stops_while_a_call_is_held_and_frees_its_port() {
    let running = Simulator::start(([127, 0, 0, 1], 0).into(), SimulatorOptions::default()).await.unwrap();
    let address: SocketAddr = running.url.strip_prefix("http://").unwrap().parse().unwrap();
    running.simulator.script(FaultScript::always(Operation::ListCharges, Fault::HoldBefore)).unwrap();
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let request = "GET /v1/charges HTTP/1.1\r\nhost: x\r\nauthorization: Bearer sk_test_1\r\n\r\n";
    tokio::io::AsyncWriteExt::write_all(&mut stream, request.as_bytes()).await.unwrap();
    running.simulator.wait_for_held(1).await;

    running.stop().await.unwrap();

    assert!(TcpListener::bind(address).await.is_ok());
}

#[test]
fn the_flags_read_as_documented() {
    #[derive(clap::Parser)]
    struct Command {
        #[command(flatten)]
        options: SimulatorOptions,
    }
    let parse = |flags: &[&str]| <Command as clap::Parser>::try_parse_from(std::iter::once(&"x").chain(flags)).map(|it| it.options);

    assert_eq!(parse(&[]).unwrap(), SimulatorOptions::default());
    let given = parse(&["--latency-ms", "20", "--state-file", "s.jsonl", "--key-lifetime-s", "61"]).unwrap();
    assert_eq!((given.latency, given.key_lifetime), (Duration::from_millis(20), Duration::from_secs(61)));
    assert!(parse(&["--latency-ms", "soon"]).is_err());
}
