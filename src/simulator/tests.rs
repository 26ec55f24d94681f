//! The simulator alone: what the adapter does not use yet, its events, and its state over restarts.

use std::{collections::VecDeque, path::Path};

use axum::{
    body::{Body, Bytes},
    http::{HeaderMap, Request, StatusCode},
};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tower::ServiceExt;

use super::*;
use crate::clients::payment_gateway::webhook;

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
    let list = async |intent: &str| get(&simulator, &format!("/v1/refunds?payment_intent={intent}")).await.body["data"].take();
    assert_eq!((list(&intent).await, list("pi_x").await), (json!([rest, part]), json!([])));
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

const SECRET: &str = "whsec_simulator";

/// A simulator whose events go to an endpoint that hands them over: it answers these statuses first, then 200.
async fn with_endpoint(statuses: &[u16]) -> (Simulator, mpsc::UnboundedReceiver<(String, Bytes)>) {
    let (taken, events) = mpsc::unbounded_channel();
    let statuses = Arc::new(Mutex::new(VecDeque::from(statuses.to_vec())));
    let take = async move |headers: HeaderMap, body: Bytes| {
        taken.send((headers["stripe-signature"].to_str().unwrap().to_owned(), body)).unwrap();
        StatusCode::from_u16(statuses.lock().unwrap().pop_front().unwrap_or(200)).unwrap()
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/events", listener.local_addr().unwrap());
    let router = Router::new().route("/events", axum::routing::post(take));
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    let options = SimulatorOptions { webhook_pause: Duration::from_millis(1), ..SimulatorOptions::default() };
    let simulator = Simulator::open(options).unwrap();
    simulator.send_webhooks_to(&url, &SECRET.into()).unwrap();
    (simulator, events)
}

/// The next event: what the shop reads of it once it has checked the signature, and the object that it carries.
async fn next(events: &mut mpsc::UnboundedReceiver<(String, Bytes)>) -> (webhook::Event, Value) {
    let (signature, body) = events.recv().await.unwrap();
    let now = chrono::DateTime::from_timestamp_millis(i64::try_from(now_ms()).unwrap()).unwrap();
    let event = webhook::read(&SECRET.into(), &signature, &body, now).unwrap();
    let mut whole: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!((&whole["object"], &whole["livemode"]), (&json!("event"), &json!(false)));
    assert!(event.id.starts_with("evt_"), "{}", event.id);
    (event, whole["data"]["object"].take())
}

fn held_ids(simulator: &Simulator) -> Vec<String> {
    simulator.held_webhooks().into_iter().map(|event| event.id).collect()
}

#[tokio::test]
async fn what_becomes_of_a_payment_is_told_once_and_signed() {
    let (simulator, mut events) = with_endpoint(&[]).await;
    let mut told = async |kind: &str, intent: &str| {
        let (event, object) = next(&mut events).await;
        assert_eq!((event.kind.as_str(), event.object_id.as_str()), (kind, intent));
        object
    };
    let create = async |key: &str, card: &str| {
        let created = post(&simulator, "/v1/payment_intents", key, &NEW.replace("pm_card_visa", card)).await.body;
        created["id"].as_str().unwrap().to_owned()
    };
    let confirm = async |intent: &str| post(&simulator, &format!("/v1/payment_intents/{intent}/confirm"), intent, "").await;

    let paid = create("c1", "pm_card_visa").await;
    confirm(&paid).await;
    assert_eq!(told("payment_intent.succeeded", &paid).await, get(&simulator, &format!("/v1/payment_intents/{paid}")).await.body);
    assert!(confirm(&paid).await.replayed);
    post(&simulator, "/v1/refunds", "r", &format!("payment_intent={paid}&amount=200")).await;
    let charge = told("charge.refunded", &paid).await;
    assert_eq!(charge, get(&simulator, "/v1/charges").await.body["data"][0]);
    assert_eq!(charge["amount_refunded"], 200);

    let declined = create("c2", "pm_card_chargeDeclined").await;
    confirm(&declined).await;
    assert_eq!(told("payment_intent.payment_failed", &declined).await["last_payment_error"]["code"], "card_declined");
    post(&simulator, &format!("/v1/payment_intents/{declined}/cancel"), "x", "").await;
    assert_eq!(told("payment_intent.canceled", &declined).await["status"], "canceled");

    let waiting = create("c3", "pm_card_authenticationRequired").await;
    confirm(&waiting).await;
    assert_eq!(told("payment_intent.requires_action", &waiting).await["status"], "requires_action");
    let form = Body::from("outcome=complete");
    let answer = Request::post(format!("/authenticate/{waiting}")).header("content-type", "application/x-www-form-urlencoded").body(form);
    simulator.router().oneshot(answer.unwrap()).await.unwrap();
    told("payment_intent.succeeded", &waiting).await;

    simulator.wait_for_delivered_webhooks(6).await;
    assert_eq!(simulator.webhook_counts(), WebhookCounts { tries: 6, delivered: 6, ..WebhookCounts::default() });
}

#[tokio::test]
async fn an_event_that_is_not_accepted_comes_again_and_is_given_up_in_the_end() {
    let (simulator, mut events) = with_endpoint(&[500, 302, 200, 503, 503, 503, 503, 503, 503]).await;
    simulator.script_webhooks(WebhookScript::always(WebhookKind::Succeeded, WebhookFault::Hold)).unwrap();
    pay(&simulator, "a").await;
    pay(&simulator, "b").await;
    let held = held_ids(&simulator);

    assert_eq!(simulator.release_webhooks(&held).await.unwrap(), 1);

    let mut seen = Vec::new();
    for _ in 0..9 {
        seen.push(next(&mut events).await.0.id);
    }
    assert_eq!((&seen[..3], &seen[3..]), (&vec![held[0].clone(); 3][..], &vec![held[1].clone(); 6][..]));
    assert_eq!(simulator.webhook_counts(), WebhookCounts { tries: 9, delivered: 1, given_up: 1, dropped: 0 });
}

#[tokio::test]
async fn events_come_twice_late_in_another_order_or_never_when_a_script_says_so() {
    let (simulator, mut events) = with_endpoint(&[]).await;
    let script = |text: &'static str| call(&simulator, "POST", "/admin/webhooks", None, text);
    for bad in [
        r#"{"event": "payment_intent.created", "fault": {"kind": "hold"}}"#,
        r#"{"fault": {"kind": "lose"}}"#,
        r#"{"fault": {"kind": "drop"}, "probability": 2}"#,
    ] {
        assert_eq!(script(bad).await.status, 422, "{bad}");
    }
    for good in [
        r#"{"event": "payment_intent.succeeded", "fault": {"kind": "duplicate"}, "times": 1}"#,
        r#"{"event": "payment_intent.succeeded", "fault": {"kind": "drop"}, "times": 1}"#,
        r#"{"event": "payment_intent.succeeded", "fault": {"kind": "late", "ms": 1}, "times": 1}"#,
        r#"{"fault": {"kind": "hold"}}"#,
    ] {
        assert_eq!(script(good).await.status, 201, "{good}");
    }

    let twice = pay(&simulator, "a").await;
    let (first, second) = (next(&mut events).await.0, next(&mut events).await.0);
    assert_eq!((&first.object_id, &first), (&twice, &second));
    pay(&simulator, "dropped").await;
    let late = pay(&simulator, "late").await;
    assert_eq!(next(&mut events).await.0.object_id, late);
    simulator.wait_for_delivered_webhooks(3).await;

    let (older, newer) = (pay(&simulator, "b").await, pay(&simulator, "c").await);
    let shown = get(&simulator, "/admin/webhooks").await.body;
    assert_eq!(shown["counts"], json!({ "tries": 3, "delivered": 3, "given_up": 0, "dropped": 1 }));
    assert_eq!((&shown["held"][0]["object_id"], &shown["held"][1]["object_id"]), (&json!(older), &json!(newer)));
    assert_eq!((&shown["held"][0]["type"], &shown["scripts"][3]["struck"]), (&json!("payment_intent.succeeded"), &json!(2)));
    assert_eq!(call(&simulator, "DELETE", "/admin/webhooks", None, "").await.status, 204);
    let reversed = json!({ "ids": [shown["held"][1]["id"], shown["held"][0]["id"], "evt_unknown"] }).to_string();
    assert_eq!(call(&simulator, "POST", "/admin/webhooks/release", None, &reversed).await.status, 422);
    assert_eq!(next(&mut events).await.0.object_id, newer);
    assert_eq!(next(&mut events).await.0.object_id, older);
    assert_eq!(get(&simulator, "/admin/webhooks").await.body["held"], json!([]));
    let at_once = pay(&simulator, "d").await;
    assert_eq!(next(&mut events).await.0.object_id, at_once);
}

#[tokio::test]
async fn webhooks_need_an_address_and_a_secret() {
    let open = |url: &str, secret: Option<&str>| {
        let webhook_secret = secret.map(Into::into);
        Simulator::open(SimulatorOptions { webhook_url: Some(url.to_owned()), webhook_secret, ..SimulatorOptions::default() })
    };
    assert!(open("http://127.0.0.1:1/events", Some(SECRET)).is_ok());
    assert!(matches!(open("http://127.0.0.1:1/events", None), Err(SimulatorError::Endpoint(EndpointError::NoSecret))));
    assert!(matches!(open("127.0.0.1:1", Some(SECRET)), Err(SimulatorError::Endpoint(EndpointError::Url))));
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

    let default = format!("{:?}", SimulatorOptions::default());
    assert_eq!(format!("{:?}", parse(&[]).unwrap()), default);
    let given = parse(&["--latency-ms", "20", "--state-file", "s.jsonl", "--key-lifetime-s", "61"]).unwrap();
    assert_eq!((given.latency, given.key_lifetime), (Duration::from_millis(20), Duration::from_secs(61)));
    assert!(parse(&["--latency-ms", "soon"]).is_err());
    let told = parse(&["--webhook-url", "http://localhost/events", "--webhook-secret", SECRET, "--webhook-pause-ms", "9"]).unwrap();
    assert_eq!((told.webhook_url.as_deref(), told.webhook_pause), (Some("http://localhost/events"), Duration::from_millis(9)));
    assert!(!format!("{:?}", told.webhook_secret.unwrap()).contains(SECRET));
}
