//! `/metrics` over HTTP: what a scrape shows while things happen, and that documents, dashboards and rules speak of the same.

use std::{
    collections::BTreeSet,
    fs,
    net::SocketAddr,
    path::Path,
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use whitemonday::{
    app::App,
    services::audit,
    simulator::{Fault, FaultScript, Operation},
};

use crate::{
    dependency_faults::own_services,
    support::{Process, Prometheus, TestApp, complaints, free_address, statements, until},
};

const TABLE: &str = "docs/METRICS.md";

/// What one scrape showed.
struct Scrape(String);

impl Scrape {
    async fn of(address: SocketAddr) -> Self {
        let answer = reqwest::get(format!("http://{address}/metrics")).await.unwrap();
        assert_eq!(answer.headers()["content-type"], "text/plain; version=0.0.4; charset=utf-8");
        Self(answer.text().await.unwrap())
    }

    /// The value of a series, written as in the text, without what all our names begin with.
    fn value(&self, series: &str) -> Option<f64> {
        let values = self.0.lines().filter_map(|line| line.strip_prefix("whitemonday_")?.rsplit_once(' '));
        values.into_iter().find(|(name, _)| *name == series).map(|(_, value)| value.parse().unwrap())
    }

    #[track_caller]
    fn assert(&self, expected: &[(&str, f64)]) {
        for (series, value) in expected {
            assert_eq!(self.value(series), Some(*value), "{series}\n{}", self.0);
        }
    }

    /// Every metric that it describes.
    fn names(&self) -> BTreeSet<&str> {
        self.0.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect()
    }
}

/// A scrape that shows these values, once there is one.
async fn until_shown(address: SocketAddr, expected: &[(&str, f64)]) -> Scrape {
    until(async || {
        let scrape = Scrape::of(address).await;
        expected.iter().all(|(series, value)| scrape.value(series) == Some(*value)).then_some(scrape)
    })
    .await
}

async fn health(address: SocketAddr, path: &str) -> (u16, Value) {
    let answer = reqwest::get(format!("http://{address}{path}")).await.unwrap();
    (answer.status().as_u16(), answer.json().await.unwrap())
}

/// A document of our own clients, with its hash.
fn document(name: &str) -> Value {
    let manifest: Value = serde_json::from_str(include_str!("../../frontend-queries/manifest.json")).unwrap();
    manifest["operations"].as_array().unwrap().iter().find(|operation| operation["name"] == name).unwrap().clone()
}

#[tokio::test]
async fn an_operation_that_is_cut_off_counts_as_failed_and_by_its_name() {
    let test = TestApp::start_with(&[("REQUEST_DEADLINE_SECONDS", "1")]).await;
    let mut held = test.app.for_jobs().db.begin().await.unwrap();
    sqlx::raw_sql("LOCK TABLE category IN ACCESS EXCLUSIVE MODE").execute(&mut *held).await.unwrap();
    let answer = test.anonymous().answer(document("Categories")["body"].as_str().unwrap(), json!({})).await;
    assert_eq!(answer["errors"][0]["extensions"]["code"], "TIMEOUT");
    held.rollback().await.unwrap();

    let scrape = Scrape(test.app.metrics.text());
    scrape.assert(&[(r#"operations_total{operation="Categories",outcome="failed"}"#, 1.0)]);
    assert!(scrape.value(r#"pool_wait_seconds_count{pool="requests"}"#) >= Some(1.0), "{}", scrape.0);
    test.finish().await;
}

#[tokio::test]
async fn a_scrape_shows_a_purchase_and_what_becomes_of_it() {
    let test = TestApp::start().await;
    let metrics = test.show_metrics().await;
    let sale = test.open_sale(5, 2).await;
    let ann = test.customer().await;

    ann.must_buy(sale, 2, json!({})).await;
    ann.buy(sale, 1, json!({})).await;
    ann.buy(sale, 0, json!({})).await;

    let placed = Scrape::of(metrics).await;
    placed.assert(&[
        (r#"purchases_total{outcome="accepted"}"#, 1.0),
        (r#"purchases_total{outcome="limit_reached"}"#, 1.0),
        (r#"purchases_total{outcome="invalid"}"#, 1.0),
        ("purchase_batch_size_count", 2.0),
        ("purchase_batch_size_sum", 2.0),
        ("claim_duration_seconds_count", 2.0),
        (r#"operations_total{operation="other",outcome="ok"}"#, 2.0),
        (r#"operations_total{operation="other",outcome="refused"}"#, 1.0),
        (r#"operation_duration_seconds_count{operation="other"}"#, 3.0),
        ("operations_in_flight", 0.0),
        (r#"units{state="free"}"#, 3.0),
        (r#"units{state="held"}"#, 2.0),
        (r#"units{state="sold"}"#, 0.0),
        ("oldest_hold_seconds", 0.0),
        (r#"orders{status="AWAITING_PAYMENT"}"#, 1.0),
        (r#"queue_messages{queue="payment",state="ready"}"#, 1.0),
        (r#"queue_messages{queue="mail",state="ready"}"#, 0.0),
        (r#"lease_held{lease="leader"}"#, 0.0),
        (r#"pool_max_connections{pool="requests"}"#, 12.0),
        ("database_up", 1.0),
        ("schema_version_is_current", 1.0),
    ]);
    assert!(placed.value(r#"queue_oldest_message_seconds{queue="payment"}"#) > Some(0.0), "{}", placed.0);
    assert!(placed.0.contains("\nprocess_resident_memory_bytes ") || !cfg!(target_os = "linux"), "{}", placed.0);

    test.start_jobs();
    let settled = [
        (r#"units{state="sold"}"#, 2.0),
        (r#"lease_held{lease="leader"}"#, 1.0),
        (r#"messages_in_flight{queue="payment"}"#, 0.0),
        (r#"message_duration_seconds_count{queue="payment"}"#, 1.0),
    ];
    let paid = until_shown(metrics, &settled).await;
    paid.assert(&[
        (r#"units{state="held"}"#, 0.0),
        (r#"orders{status="PAID"}"#, 1.0),
        (r#"payments{status="CAPTURED"}"#, 1.0),
        (r#"queue_messages{queue="payment",state="ready"}"#, 0.0),
        (r#"queue_oldest_message_seconds{queue="payment"}"#, 0.0),
        (r#"messages_total{queue="payment",outcome="done"}"#, 1.0),
        (r#"messages_total{queue="payment",outcome="dead"}"#, 0.0),
        (r#"provider_calls_total{call="create_intent",outcome="ok"}"#, 1.0),
        (r#"provider_calls_total{call="confirm_intent",outcome="ok"}"#, 1.0),
        (r#"provider_calls_total{call="confirm_intent",outcome="failed"}"#, 0.0),
        (r#"provider_call_duration_seconds_count{call="confirm_intent"}"#, 1.0),
        (r#"dead_letters{queue="payment"}"#, 0.0),
    ]);
    assert_eq!(complaints(&paid.0).await, "");
    test.finish().await;
}

#[tokio::test]
async fn operations_of_our_clients_are_counted_by_name_wherever_they_are_answered() {
    let (test, _) = TestApp::start_with_pages(&[("MAX_IN_FLIGHT", "1")]).await;
    let metrics = test.show_metrics().await;
    let ann = test.customer().await;
    let visitor = test.anonymous();
    let by_hash = |name: &str| json!({ "extensions": { "persistedQuery": { "version": 1, "sha256Hash": document(name)["id"] } } });

    // Made, then from memory; by its text and by address.
    for _ in 0..3 {
        visitor.post().json(&by_hash("Categories")).send().await.unwrap();
    }
    visitor.send(document("Categories")["body"].as_str().unwrap(), json!({})).await;
    let address = format!("/graphql/q/{}", document("Categories")["id"].as_str().unwrap());
    assert_eq!(visitor.get(&address).send().await.unwrap().status(), 200);
    let remove = document("RemoveFromCart");
    let remove = remove["body"].as_str().unwrap();
    ann.answer(remove, json!({ "input": { "lineId": "nonsense" } })).await;
    ann.answer("{ nonsense }", json!({})).await;
    visitor.post().body("nonsense").send().await.unwrap();

    let scrape = Scrape::of(metrics).await;
    scrape.assert(&[
        (r#"operations_total{operation="Categories",outcome="ok"}"#, 5.0),
        (r#"operation_duration_seconds_count{operation="Categories"}"#, 5.0),
        (r#"operations_total{operation="RemoveFromCart",outcome="refused"}"#, 1.0),
        (r#"operations_total{operation="other",outcome="refused"}"#, 2.0),
        (r#"operations_total{operation="other",outcome="ok"}"#, 0.0),
        ("page_cache_misses_total", 1.0),
        (r#"page_cache_hits_total{level="memory"}"#, 4.0),
        ("page_age_seconds_count", 4.0),
    ]);
    assert_eq!(scrape.value(r#"operations_total{operation="ServerTime",outcome="ok"}"#), None);

    let mut held = test.app.for_jobs().db.begin().await.unwrap();
    sqlx::query("LOCK TABLE category").execute(&mut *held).await.unwrap();
    let for_ann = "{ categories { id } viewer { id } }";
    let waiting = tokio::spawn({
        let ann = ann.clone();
        async move { ann.send(for_ann, json!({})).await }
    });
    until(async || (test.waiting_for_locks().await == 1).then_some(())).await;
    assert_eq!(visitor.post().json(&json!({ "query": for_ann })).send().await.unwrap().status(), 503);
    Scrape::of(metrics)
        .await
        .assert(&[("operations_in_flight", 1.0), (r#"operations_total{operation="other",outcome="overloaded"}"#, 1.0)]);
    held.rollback().await.unwrap();
    waiting.await.unwrap();
    Scrape::of(metrics).await.assert(&[("operations_in_flight", 0.0), (r#"operations_total{operation="other",outcome="ok"}"#, 1.0)]);
    test.finish().await;
}

#[tokio::test]
async fn sockets_and_streams_are_counted_while_they_are_open() {
    let test = TestApp::start().await;
    let metrics = test.show_metrics().await;
    let ann = test.customer().await;
    let mut socket = ann.subscribe("subscription { orderUpdates { id } }", json!({})).await;
    until_shown(metrics, &[("sockets", 1.0), ("streams", 1.0)]).await;
    socket.send(&json!({ "id": "1", "type": "complete" })).await;
    until_shown(metrics, &[("sockets", 1.0), ("streams", 0.0)]).await;
    socket.close().await;
    until_shown(metrics, &[("sockets", 0.0)]).await;
    test.finish().await;
}

#[tokio::test]
async fn an_ill_provider_and_work_that_fails_are_seen() {
    let test = TestApp::start_with_jobs().await;
    let metrics = test.show_metrics().await;
    let sale = test.open_sale(20, 1).await;
    let provider = &test.simulator.simulator;
    provider.script(FaultScript::always(Operation::CreateIntent, Fault::Unavailable)).unwrap();

    let buyers = test.customers(12).await;
    let orders = join_all(buyers.iter().map(|buyer| buyer.must_buy(sale, 1, json!({})))).await;
    let state = |scrape: &Scrape, state: &str| scrape.value(&format!(r#"breaker_state{{state="{state}"}}"#));
    let ill = until(async || {
        let scrape = Scrape::of(metrics).await;
        // Between two outages of calls it tries.
        [state(&scrape, "open"), state(&scrape, "half_open")].contains(&Some(1.0)).then_some(scrape)
    })
    .await;
    assert_eq!(state(&ill, "closed"), Some(0.0));
    assert!(ill.value(r#"provider_calls_total{call="create_intent",outcome="failed"}"#) >= Some(10.0), "{}", ill.0);

    provider.clear_faults();
    for (buyer, order) in buyers.iter().zip(&orders) {
        buyer.until_order_is(order, "PAID").await;
    }
    until_shown(metrics, &[(r#"breaker_state{state="closed"}"#, 1.0), (r#"breaker_state{state="open"}"#, 0.0)]).await;

    test.execute("SELECT pgmq.send('mail', '{}')").await;
    let dead = [(r#"messages_total{queue="mail",outcome="dead"}"#, 1.0), (r#"dead_letters{queue="mail"}"#, 1.0)];
    until_shown(metrics, &dead).await;
    test.finish().await;
}

#[tokio::test]
async fn a_worker_audits_by_itself() {
    let test = TestApp::start_with(&[("AUDIT_EVERY_SECONDS", "1")]).await;
    let metrics = test.show_metrics().await;
    let sale = test.open_sale(5, 5).await;
    test.customer().await.must_buy(sale, 2, json!({})).await;
    assert_eq!(Scrape::of(metrics).await.value("audit_age_seconds"), None, "nobody has audited yet");

    test.start_jobs();
    let well = until_shown(metrics, &[(r#"audit_violations{invariant="I11"}"#, 0.0), (r#"lease_held{lease="audit"}"#, 1.0)]).await;
    well.assert(&[("oversold_sales", 0.0)]);
    assert!(well.value("audit_age_seconds") >= Some(0.0), "{}", well.0);
    test.execute("UPDATE purchase_quota SET held = 1").await;
    until_shown(metrics, &[(r#"audit_violations{invariant="I11"}"#, 1.0)]).await;
    test.execute("UPDATE purchase_quota SET held = 2").await;
    until_shown(metrics, &[(r#"audit_violations{invariant="I11"}"#, 0.0)]).await;
    test.finish().await;
}

#[tokio::test]
async fn of_several_workers_one_audits_and_only_its_report_is_shown() {
    const EVERY: Duration = Duration::from_mins(5);
    let test = TestApp::start().await;
    let [one, other] = [test.app.for_jobs(), test.app_with(&[]).for_jobs()];
    let is_shown = |app: &App| app.last_audit.get().is_some();
    for _ in 0..2 {
        audit::run_in_turn(&one, EVERY).await.unwrap();
        audit::run_in_turn(&other, EVERY).await.unwrap();
        assert_eq!((is_shown(&one), is_shown(&other)), (true, false));
    }
    audit::give_up_turn(&one).await.unwrap();
    audit::run_in_turn(&other, EVERY).await.unwrap();
    audit::run_in_turn(&one, EVERY).await.unwrap();
    assert_eq!((is_shown(&one), is_shown(&other)), (false, true));
    test.finish().await;
}

#[tokio::test]
async fn the_database_is_read_once_however_many_look_and_its_absence_is_shown() {
    statements::count("FROM pg_stat_user_tables");
    let (mut services, _folder) = own_services().await;
    let test = TestApp::start_on_services(&services).await;
    let metrics = test.show_metrics().await;

    let start = Instant::now();
    for scrape in join_all((0..20).map(|_| Scrape::of(metrics))).await {
        scrape.assert(&[("database_up", 1.0)]);
    }
    assert!((1..=1 + start.elapsed().as_secs() / 5).contains(&u64::try_from(statements::sent()).unwrap()), "once in five seconds");

    kill_process(Pid::from_raw(i32::try_from(services.postgres_pid()).unwrap()).unwrap(), Signal::KILL).unwrap();
    let away = until_shown(metrics, &[("database_up", 0.0)]).await;
    away.assert(&[("operations_in_flight", 0.0), (r#"lease_held{lease="leader"}"#, 0.0)]);
    assert_eq!((away.value("schema_version_is_current"), away.value(r#"units{state="free"}"#)), (None, None));
    assert_eq!(complaints(&away.0).await, "");
    let (status, body) = health(metrics, "/healthz/ready").await;
    assert_eq!((status, &body["database"]), (503, &json!("down")));
    assert_eq!(health(metrics, "/healthz/live").await, (200, json!({ "status": "live" })));

    services.restart_postgres().await.unwrap();
    until_shown(metrics, &[("database_up", 1.0)]).await;
    test.finish().await;
    services.stop_and_delete().await.unwrap();
}

/// The names in the first column of the table.
fn documented() -> BTreeSet<String> {
    let text = fs::read_to_string(TABLE).unwrap();
    let names = text.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next());
    names.filter(|name| cfg!(target_os = "linux") || !name.starts_with("process_")).map(str::to_owned).collect()
}

/// Words of a text that are names of ours.
fn named(text: &str) -> impl Iterator<Item = &str> {
    let words = text.split(|letter: char| !(letter.is_ascii_alphanumeric() || letter == '_' || letter == ':'));
    words.filter(|word| word.starts_with("whitemonday_"))
}

/// Every series that dashboards and rules name, with the file that does.
fn wanted() -> Vec<(String, String)> {
    let mut wanted = Vec::new();
    let mut folders = vec![Path::new("deploy").to_owned()];
    while let Some(folder) = folders.pop() {
        // Where nothing is deployed from, nothing is named.
        for entry in fs::read_dir(folder).into_iter().flatten() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| ["json", "yml", "yaml"].iter().any(|wanted| extension == *wanted)) {
                let text = fs::read_to_string(&path).unwrap();
                wanted.extend(named(&text).map(|name| (name.to_owned(), path.display().to_string())));
            }
        }
    }
    wanted
}

/// The whole program as it is operated: a server and a worker, each with its port, and a Prometheus that scrapes both.
#[tokio::test]
async fn a_prometheus_finds_every_series_that_documents_dashboards_and_rules_name() {
    let test = TestApp::start().await;
    let [of_server, of_worker] = [free_address(), free_address()];
    let settings = |metrics: SocketAddr| [("METRICS_ADDRESS", metrics.to_string()), ("AUDIT_EVERY_SECONDS", "1".to_owned())];
    let settings = [settings(of_server), settings(of_worker)];
    let [server, worker] = settings.each_ref().map(|settings| settings.each_ref().map(|(name, value)| (*name, value.as_str())));
    let (_server, address) = Process::server_with(&test, &[], &server).await;
    let mut worker = Process::worker_with(&test, &worker);
    let sale = test.open_sale(5, 5).await;
    let ann = test.customer().await.at(address);
    let order = ann.must_buy(sale, 1, json!({})).await;
    ann.until_order_is(&order, "PAID").await;
    assert_eq!(health(of_worker, "/healthz/live").await.0, 200);
    let (status, body) = health(of_worker, "/healthz/ready").await;
    assert_eq!((status, &body["oldestMessageSeconds"]["payment"]), (200, &json!(0.0)), "{body:#}");

    let prometheus = Prometheus::start(&[of_server, of_worker]).await;
    until(async || (prometheus.query(r#"sum(whitemonday_purchases_total{outcome="accepted"})"#).await? >= 1.0).then_some(())).await;
    until(async || (prometheus.query(r#"max(whitemonday_units{state="sold"})"#).await? >= 1.0).then_some(())).await;
    until(async || prometheus.query("max(whitemonday_audit_age_seconds)").await).await;
    let known: BTreeSet<String> = prometheus.names().await.into_iter().collect();

    let documented = documented();
    for name in &documented {
        let is_there = known.contains(name) || known.contains(&format!("{name}_bucket"));
        assert!(is_there, "{TABLE} has {name}, which Prometheus does not know:\n{known:#?}");
    }
    let shown = [Scrape::of(of_server).await, Scrape::of(of_worker).await];
    for name in shown.iter().flat_map(Scrape::names) {
        assert!(documented.contains(name), "{TABLE} lacks {name}");
    }
    assert!(documented.len() > 40, "{documented:?}");
    for (name, file) in wanted() {
        assert!(known.contains(&name), "{file} names {name}, which Prometheus does not know:\n{known:#?}");
    }

    worker.terminate().await;
    test.finish().await;
}
