//! Traces: one purchase from its request to the payment provider, what is never in them, and that nobody waits for a collector.

use std::sync::{Arc, Mutex};

use axum::{
    Router,
    extract::{Request, State},
    response::IntoResponse,
};
use futures_util::future::join_all;
use reqwest::StatusCode;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};
use tracing::Instrument;
use whitemonday::{config::Settings, domain::ids::FlashSaleId, jobs, services::purchase::batcher::Placed, telemetry::Telemetry};

use crate::{
    batches::purchase,
    support::{
        Client, Process, TestApp,
        client::BUY_NOW,
        collector::{Collector, ancestry, hex, is_call, named, of_trace},
        new_key, status_after, until,
    },
};

const STRANGER: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

/// What stands before the payment provider and notes the traces of the calls.
#[derive(Clone)]
struct Gate {
    provider: String,
    http: reqwest::Client,
    traceparents: Arc<Mutex<Vec<String>>>,
}

impl Gate {
    async fn open(provider: &str) -> (Self, String, AbortOnDropHandle<()>) {
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        let gate = Self { provider: provider.to_owned(), http, traceparents: Arc::default() };
        let router = Router::new().fallback(pass).with_state(gate.clone());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let server = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        (gate, url, AbortOnDropHandle::new(server))
    }
}

async fn pass(State(gate): State<Gate>, request: Request) -> impl IntoResponse {
    let (parts, body) = request.into_parts();
    let traceparent = parts.headers["traceparent"].to_str().unwrap().to_owned();
    gate.traceparents.lock().unwrap().push(traceparent);
    let body = axum::body::to_bytes(body, usize::MAX).await.unwrap();
    let call = gate.http.request(parts.method, format!("{}{}", gate.provider, parts.uri)).headers(parts.headers).body(body);
    let answer = call.send().await.unwrap();
    let (status, headers) = (answer.status(), answer.headers().clone());
    (status, headers, answer.bytes().await.unwrap())
}

/// Buys one; the request's id, and the order's.
async fn buy(client: &Client, sale: FlashSaleId, traceparent: Option<&str>) -> (String, String) {
    let input = json!({ "flashSaleId": sale.to_string(), "quantity": 1, "paymentMethod": "pm_card_visa", "idempotencyKey": new_key() });
    let mut request = client.post().json(&json!({ "query": BUY_NOW, "variables": { "input": input } }));
    if let Some(traceparent) = traceparent {
        request = request.header("traceparent", traceparent);
    }
    let answer = request.send().await.unwrap();
    let id = answer.headers()["x-request-id"].to_str().unwrap().to_owned();
    let answer: Value = answer.json().await.unwrap();
    let order = answer["data"]["buyNow"]["result"]["order"]["id"].as_str().unwrap_or_else(|| panic!("{answer:#}")).to_owned();
    (id, order)
}

/// Starts the traces of this process, which is the test's own.
fn start_traces(settings: &[(&str, &str)]) -> Telemetry {
    let settings = settings.iter().chain(&[("LOG", "off")]).map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    Telemetry::start(&Settings::fixed(settings.collect())).unwrap()
}

#[tokio::test]
async fn a_purchase_is_one_trace_from_its_request_to_the_payment_provider() {
    let test = TestApp::start().await;
    let (sale, ann) = (test.open_sale(1, 1).await, test.customer().await);
    let collector = Collector::start().await;
    let (gate, provider, _open) = Gate::open(&test.simulator.url).await;
    let log = tempfile::NamedTempFile::new().unwrap();
    let settings = [("PAYMENT_URL", provider.as_str()), ("LOG", "info,sqlx=debug"), ("LOG_FORMAT", "json")];
    let settings = [&settings[..], &collector.settings("1")].concat();
    let (mut server, address) = Process::server_with_log(&test, log.reopen().unwrap(), &settings).await;

    let (trace, order) = buy(&ann.at(address), sale, Some(STRANGER)).await;
    ann.until_order_is(&order, "PAID").await;
    server.terminate().await;

    let spans = of_trace(&collector.spans(), &trace);
    let job = ["payment pay", "mutation BuyNow", "POST /graphql"];
    for (name, above) in [
        ("SELECT buy_now", &["place purchases", "mutation BuyNow", "POST /graphql"][..]),
        ("INSERT payment", &[&["begin"], &job[..]].concat()),
        ("create_intent", &[&["gateway.create_intent"], &job[..]].concat()),
        ("confirm_intent", &[&["gateway.confirm_intent"], &job[..]].concat()),
        ("SELECT pgmq.delete", &[&["settle"], &job[..]].concat()),
    ] {
        let found = named(&spans, name);
        assert_eq!(found.len(), 1, "{name} of {:#?}", spans.iter().map(|span| &span.name).collect::<Vec<_>>());
        assert!(is_call(found[0]), "{name}");
        assert_eq!(ancestry(&spans, found[0])[1..], *above);
    }
    assert!(spans.iter().all(|span| ancestry(&spans, span).last() == Some(&"POST /graphql")), "it is one");
    let told = gate.traceparents.lock().unwrap().clone();
    let of_call = |name| format!("00-{trace}-{}-01", hex(&named(&spans, name)[0].span_id));
    let told: Vec<_> = told.into_iter().filter(|told| told.contains(&trace)).collect();
    assert_eq!(told, ["create_intent", "confirm_intent"].map(of_call), "the provider knows of it");
    let linked = named(&spans, "POST /graphql")[0].links.iter().map(|link| hex(&link.trace_id));
    assert_eq!(linked.collect::<Vec<_>>(), [&STRANGER[3..35]]);

    let log = std::fs::read_to_string(log.path()).unwrap();
    let lines: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    for name in ["request", "delivery"] {
        let ids = lines.iter().flat_map(|line| line["spans"].as_array().into_iter().flatten()).filter(|span| span["name"] == name);
        let ids: Vec<&Value> = ids.map(|span| &span["trace_id"]).collect();
        assert!(ids.iter().all(|id| id.as_str().is_some_and(|id| id.len() == 32)), "each line of a {name} tells its trace");
        assert!(ids.iter().any(|id| **id == trace.as_str()), "as do those of this {name}");
    }
    test.finish().await;
}

#[tokio::test]
async fn a_refund_and_the_mail_about_it_are_in_the_trace_of_the_cancellation() {
    let test = TestApp::start().await;
    let (sale, ann) = (test.open_sale(1, 1).await, test.customer().await);
    let collector = Collector::start().await;
    let log = tempfile::NamedTempFile::new().unwrap();
    let (mut server, address) = Process::server_with_log(&test, log.reopen().unwrap(), &collector.settings("1")).await;
    let ann = ann.at(address);
    let order = ann.must_buy(sale, 1, json!({})).await;
    ann.until_order_is(&order, "PAID").await;

    status_after(&ann, "cancelOrder", json!({ "orderId": order, "idempotencyKey": new_key() })).await;
    // No mail server answers: both mails are put off.
    until(async || (test.scalar("SELECT count(*) FROM retry WHERE queue = 'mail'").await == 2).then_some(())).await;
    server.terminate().await;

    let spans = collector.spans();
    let above = ["compensation refund", "mutation without a name", "POST /graphql"];
    assert_eq!(ancestry(&spans, named(&spans, "create_refund")[0])[1..], [&["gateway.create_refund"], &above[..]].concat());
    let mails: Vec<_> = named(&spans, "mailer.send").into_iter().map(|span| ancestry(&spans, span)).collect();
    assert!(mails.contains(&[&["mailer.send", "mail send"], &above[..]].concat()), "the one about the refund: {mails:?}");
    assert!(mails.contains(&[&["mailer.send", "mail send"], &above[1..]].concat()), "the one about the cancellation: {mails:?}");
    test.finish().await;
}

#[tokio::test]
async fn each_purchase_of_a_claim_leads_there_and_back() {
    let test = TestApp::start().await;
    let (sale, buyers) = (test.open_sale(3, 1).await, test.customers(3).await);
    let collector = Collector::start().await;
    let telemetry = start_traces(&collector.settings("1"));
    // Its workers start when all three wait.
    let app = test.app_with(&[]);
    let place = async |buyer| {
        let span = tracing::info_span!(target: "whitemonday::test", "buyer");
        app.purchases.place(purchase(buyer, sale, 1)).instrument(span).await
    };
    let served = CancellationToken::new();
    let start = async { jobs::start_purchase_workers(&app, &test.tasks, &served) };
    let (placed, ()) = tokio::join!(join_all(buyers.iter().map(place)), start);
    assert!(placed.iter().all(|placed| matches!(placed, Ok(Placed::Outcome(_)))), "{placed:?}");
    served.cancel();
    telemetry.finish().await;

    let spans = collector.spans();
    let claims = named(&spans, "place purchases");
    assert_eq!(claims.len(), 1);
    let claim = claims[0];
    assert_eq!(ancestry(&spans, claim), ["place purchases", "buyer"]);
    assert_eq!(claim.links.len(), 2);
    for buyer in named(&spans, "buyer") {
        if buyer.span_id == claim.parent_span_id {
            assert_eq!(buyer.links, []);
        } else {
            assert_eq!(buyer.links[0].span_id, claim.span_id, "the way there");
            assert!(claim.links.iter().any(|link| link.span_id == buyer.span_id), "and back");
        }
    }
    test.finish().await;
}

#[tokio::test]
async fn a_stranger_does_not_decide_what_is_recorded_and_ids_go_on_all_the_same() {
    let collector = Collector::start().await;
    let telemetry = start_traces(&collector.settings("0"));
    assert_ids_go_on().await;
    telemetry.finish().await;
    assert!(collector.spans().is_empty());
}

#[tokio::test]
async fn without_a_collector_ids_go_on() {
    let _telemetry = start_traces(&[]);
    assert_ids_go_on().await;
}

/// The payment's message is in the trace of the purchase's request, which is not recorded.
async fn assert_ids_go_on() {
    let test = TestApp::start().await;
    let (sale, ann) = (test.open_sale(1, 1).await, test.customer().await);
    let (trace, _) = buy(&ann, sale, Some(STRANGER)).await;
    let carried: String =
        sqlx::query_scalar("SELECT message ->> 'trace' FROM pgmq.q_payment").fetch_one(&*test.app.for_jobs().db).await.unwrap();
    assert!(carried.starts_with(&format!("00-{trace}-")) && carried.ends_with("-00"), "{carried} of {trace}");
    test.finish().await;
}

#[tokio::test]
async fn messages_of_other_versions_are_read_and_dead_letters_tell_the_trace() {
    let test = TestApp::start().await;
    let (sale, ann) = (test.open_sale(3, 3).await, test.customer().await);
    let mut orders = Vec::new();
    for trace in ["\"0193e0b1c2d34e5f8a9b0c1d2e3f4a5b\"", "\"whatever\"", "{ \"of\": 7 }"] {
        orders.push(ann.must_buy(sale, 1, json!({})).await);
        let set =
            format!("UPDATE pgmq.q_payment SET message = jsonb_set(message, '{{trace}}', '{trace}') WHERE message ->> 'trace' IS NULL");
        test.execute(&set).await;
    }
    let unreadable = |trace| format!("SELECT pgmq.send('payment', jsonb_build_object('v', 99, 'kind', 'pay', 'trace', '{trace}'))");
    test.execute(&unreadable(STRANGER)).await;
    test.execute(&unreadable("0193e0b1c2d34e5f8a9b0c1d2e3f4a5b")).await;
    test.start_jobs();
    for order in &orders {
        ann.until_order_is(order, "PAID").await;
    }
    let ids = async || {
        let ids = sqlx::query_scalar("SELECT trace_id FROM dead_letter ORDER BY message_id").fetch_all(&*test.app.for_jobs().db).await;
        let ids: Vec<String> = ids.unwrap();
        (ids.len() == 2).then_some(ids)
    };
    assert_eq!(until(ids).await, [&STRANGER[3..35], "0193e0b1c2d34e5f8a9b0c1d2e3f4a5b"]);
    test.execute("DELETE FROM dead_letter").await;
    test.finish().await;
}

#[tokio::test]
async fn a_collector_that_is_gone_or_never_answers_keeps_nobody_waiting() {
    let test = TestApp::start().await;
    let (sale, ann) = (test.open_sale(2, 2).await, test.customer().await);
    let silent = Collector::start_silent().await;
    for endpoint in ["http://127.0.0.1:9", &silent.url] {
        let log = tempfile::NamedTempFile::new().unwrap();
        let settings = [("OTLP_ENDPOINT", endpoint), ("TRACE_RATIO", "1"), ("LOG", "warn")];
        let (mut server, address) = Process::server_with_log(&test, log.reopen().unwrap(), &settings).await;
        if endpoint == silent.url {
            let ready = async || {
                let ready = ann.at(address).get("/healthz/ready").send().await.unwrap().status();
                assert_eq!(ready, StatusCode::OK);
            };
            // Until there is no room for spans, however long that takes.
            while !std::fs::read_to_string(log.path()).unwrap().contains("dropped a Span") {
                join_all((0..200).map(|_| ready())).await;
            }
        }
        let (_, order) = buy(&ann.at(address), sale, None).await;
        ann.until_order_is(&order, "PAID").await;
        server.terminate().await;
    }
    test.finish().await;
}
