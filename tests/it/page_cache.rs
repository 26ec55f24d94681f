//! The page cache: what may be shown from it, what makes it forget, and what it does without Redis or Postgres.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use chrono::TimeDelta;
use futures_util::future::join_all;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use whitemonday::{
    app::App,
    domain::page::PageLifetime,
    resolvers::{public_fields, trusted_documents},
    services::{page_cache, seed},
};

use crate::{
    dependency_faults::own_services,
    ownership::{Ann, Schema, without_request_id},
    support::{Client, Process, TestApp, new_key, statements, until},
};

pub const TITLES: &str = "{ products { nodes { id title price { amount } } } }";
const TWENTY: &str =
    "{ products(first: 20) { nodes { id title price { amount } category { name } flashSale { opensAt price { amount } } } } }";

pub fn misses(app: &App) -> u64 {
    app.pages.counters.misses.get()
}

fn uses(app: &App) -> u64 {
    misses(app) + app.pages.counters.memory_hits.get()
}

/// Whatever this process was told until now is known to it.
pub async fn hear(app: &App) {
    page_cache::follow(&app.for_followers()).await.unwrap();
}

/// Every field, by the shortest way from each of these roots: the operation, and what it selects last.
fn operations(schema: &Schema, ann: &Ann) -> Vec<(String, String, String)> {
    let nodes = ann.nodes();
    let id = |kind: &str| format!("(id: \"{}\")", nodes[kind]);
    let roots = [
        ("categories", String::new()),
        ("product", id("Product")),
        ("products", String::new()),
        ("flashSale", id("FlashSale")),
        ("flashSales", String::new()),
        ("order", id("Order")),
        ("viewer", String::new()),
        ("admin", String::new()),
    ];
    let mut found = Vec::new();
    let mut add = |before: &str, object: &str| {
        for (name, field) in schema.fields(object) {
            let needs_arguments = field["args"].as_array().unwrap().iter().any(|argument| argument["type"]["ofType"]["name"].is_string());
            if !needs_arguments {
                let selection = if schema.objects(field).is_empty() { name.to_owned() } else { format!("{name} {{ __typename }}") };
                let closing = "}".repeat(before.matches('{').count());
                found.push((format!("{before} {selection} {closing}"), object.to_owned(), name.to_owned()));
            }
        }
    };
    add("{", "Query");
    for (root, arguments) in &roots {
        for (object, path) in schema.paths(&[root]) {
            if path.iter().any(|name| name == "node" || name == "orderByNumber" || name == "customerByEmail" || name == "customer") {
                continue;
            }
            add(&format!("{{ {} {{", path.join(" { ").replacen(root, &format!("{root}{arguments}"), 1)), object);
        }
    }
    for (object, id) in nodes {
        add(&format!("{{ node(id: \"{id}\") {{ ... on {object} {{"), object);
    }
    found
}

#[tokio::test]
async fn nothing_private_is_ever_shown_from_the_cache() {
    let (test, _) = TestApp::start_with_pages(&[]).await;
    let ann = Ann::come(&test).await;
    let schema = Schema::of(&test).await;
    let (without_pages, plain) = test.second_server().await;
    let viewers = [ann.client.clone(), test.customer().await, test.anonymous()];
    let listed: BTreeSet<_> = public_fields::listed().map(|(of, name, _)| (of.to_owned(), name.to_owned())).collect();
    let mut cached = BTreeSet::new();
    let operations = operations(&schema, &ann);
    assert!(operations.len() > 300, "{} operations", operations.len());
    for (operation, object, field) in operations {
        for viewer in &viewers {
            let before = uses(&test.app);
            let answer = without_request_id(viewer.answer(&operation, json!({})).await);
            let was_used = uses(&test.app) > before;
            let own = without_request_id(viewer.at(plain).answer(&operation, json!({})).await);
            assert_eq!(answer, own, "{operation}");
            if was_used {
                assert!(listed.contains(&(object.clone(), field.clone())), "{object}.{field} is not public: {operation}");
                cached.insert((object.clone(), field.clone()));
            }
        }
    }
    let unused: Vec<_> = listed.difference(&cached).filter(|(object, name)| object != "Query" || name.ends_with('s')).collect();
    assert!(unused.is_empty(), "each public field was shown from the cache: {unused:?}");
    assert_eq!(uses(&without_pages), 0);
    test.start_jobs();
    test.finish().await;
}

#[tokio::test]
async fn a_signed_in_customer_is_shown_the_same_bytes_and_counts_as_before() {
    let (test, _) = TestApp::start_with_pages(&[("ACCOUNT_PER_MINUTE", "2"), ("ADDRESS_PER_MINUTE", "2")]).await;
    seed::catalogue(&test.app, 5, |_| ()).await.unwrap();
    hear(&test.app).await;
    let (ann, visitor) = (test.customer().await, test.anonymous());
    let bytes = async |client: &Client| client.post().json(&json!({ "query": TITLES })).send().await.unwrap().bytes().await.unwrap();
    let first = bytes(&visitor).await;
    assert_eq!(bytes(&ann).await, first);
    assert_eq!((misses(&test.app), test.app.pages.counters.memory_hits.get()), (1, 1));
    for client in [&ann, &visitor] {
        bytes(client).await;
        assert_eq!(client.error_code(TITLES, json!({})).await, "RATE_LIMITED", "a page counts as any other operation");
    }
    let stranger = visitor.with_token("no token");
    let answer = stranger.post().json(&json!({ "query": TITLES })).send().await.unwrap();
    assert_eq!(answer.status(), 401, "a bad token is an error, not a visitor");
    test.finish().await;
}

#[tokio::test]
async fn variables_are_part_of_a_page_and_their_order_is_not() {
    let (test, _) = TestApp::start_with_pages(&[]).await;
    seed::catalogue(&test.app, 30, |_| ()).await.unwrap();
    hear(&test.app).await;
    let client = test.anonymous();
    let query = "query A($first: Int, $filter: ProductFilter) { products(first: $first, filter: $filter) { nodes { id } } }
                 query B { products(first: 1) { nodes { title } } }";
    let send = async |body: &str| {
        let request = client.post().header("content-type", "application/json").body(body.replace("QUERY", &json!(query).to_string()));
        let answer: Value = request.send().await.unwrap().json().await.unwrap();
        answer["data"]["products"]["nodes"].as_array().unwrap().len()
    };
    let ordered = r#"{"query":QUERY,"operationName":"A","variables":{"first":3,"filter":{"minPrice":"1","maxPrice":"99999999"}}}"#;
    let otherwise =
        r#"{"operationName":"A","variables":{"filter":{"maxPrice":"99999999","minPrice":"1"},"first":3,"unused":7},"query":QUERY}"#;
    assert_eq!((send(ordered).await, send(otherwise).await), (3, 3));
    assert_eq!(misses(&test.app), 1);
    assert_eq!(send(&ordered.replace(":3", ":4")).await, 4);
    assert_eq!(send(r#"{"query":QUERY,"operationName":"B"}"#).await, 1);
    assert_eq!(misses(&test.app), 3);
    test.finish().await;
}

#[tokio::test]
async fn a_change_is_seen_by_every_server_and_leaves_other_pages_alone() {
    let (test, _) = TestApp::start_with_pages(&[]).await;
    seed::catalogue(&test.app, 40, |_| ()).await.unwrap();
    hear(&test.app).await;
    let (second, address) = test.second_server_with(&[("PAGE_CACHE_BYTES", "10000000")]).await;
    let here = test.anonymous();
    let there = here.at(address);
    let product = "query($id: ID!) { product(id: $id) { id title price { amount } } }";
    let leaves = here.send("{ categories { children { id products(first: 1) { nodes { id } } } } }", json!({})).await;
    let leaf = |number: usize| leaves["categories"][number]["children"][0].clone();
    let changed = leaf(0)["products"]["nodes"][0]["id"].clone();
    let other = leaf(1)["products"]["nodes"][0]["id"].clone();
    let list = "query($filter: ProductFilter) { products(filter: $filter) { nodes { id price { amount } } } }";
    let in_leaf = |number: usize| json!({ "filter": { "categoryId": leaf(number)["id"] } });
    for client in [&here, &there] {
        client.send(product, json!({ "id": changed })).await;
        client.send(product, json!({ "id": other })).await;
        client.send(list, in_leaf(0)).await;
        client.send(list, in_leaf(1)).await;
    }
    let uuid = changed.as_str().unwrap().strip_prefix("prod_").unwrap();

    // By a statement of somebody's own. The clock stands still: no page grows old.
    test.execute(&format!("UPDATE product SET price_minor = 4711 WHERE id = '{uuid}'")).await;

    for client in [&here, &there] {
        until(async || {
            let shown = client.send(product, json!({ "id": changed })).await["product"]["price"]["amount"].take();
            let listed = client.send(list, in_leaf(0)).await["products"]["nodes"].take();
            let listed = listed.as_array().unwrap().iter().find(|node| node["id"] == changed).unwrap()["price"]["amount"].clone();
            (shown == "4711" && listed == "4711").then_some(())
        })
        .await;
    }
    for (app, client) in [(&test.app, &here), (&second, &there)] {
        assert!(app.pages.counters.invalidations.get() >= 2);
        let before = misses(app);
        client.send(product, json!({ "id": other })).await;
        client.send(list, in_leaf(1)).await;
        assert_eq!(misses(app), before, "nothing else was thrown away");
    }

    // Stock is not a change of a page.
    hear(&test.app).await;
    let before = misses(&test.app);
    test.execute(&format!("UPDATE product SET available = available + 1, updated_at = now() WHERE id = '{uuid}'")).await;
    test.execute(&format!("UPDATE product SET available = available - 1, updated_at = now() WHERE id = '{uuid}'")).await;
    hear(&test.app).await;
    here.send(product, json!({ "id": changed })).await;
    assert_eq!(misses(&test.app), before);
    test.finish().await;
}

/// Each change, and a page that it makes untrue.
#[tokio::test]
async fn whatever_changes_the_catalogue_is_written_down() {
    let (test, clock) = TestApp::start_with_pages(&[]).await;
    seed::catalogue(&test.app, 10, |_| ()).await.unwrap();
    hear(&test.app).await;
    let client = test.anonymous();
    let categories = "{ categories { id name children { name parent { name } } } }";
    let all =
        "{ products(first: 1, sort: TITLE) { totalCount nodes { title description archived images category { name } flashSale { id } } } }";
    let sales = "{ flashSales { totalCount nodes { id opensAt product { title } } } }";
    let first = "(SELECT id FROM product WHERE archived_at IS NULL ORDER BY title, id LIMIT 1)";
    let sale = format!(
        "INSERT INTO flash_sale (id, product_id, price_minor, currency, opens_at, closes_at, total_units, per_customer_limit, hold_seconds, created_at)
         SELECT gen_random_uuid(), id, 1, currency, '{opens}', '{closes}', 1, 1, 60, now() FROM product WHERE id = {first}",
        opens = clock.now() + TimeDelta::hours(1),
        closes = clock.now() + TimeDelta::hours(2),
    );
    let insert = "INSERT INTO product (id, title, description, price_minor, currency, available, created_at, updated_at)
                  VALUES (gen_random_uuid(), ' a new one', '', 1, 'KRW', 0, now(), now())";
    for (page, change) in [
        (categories, "UPDATE category SET name = name || '!' WHERE parent_id IS NULL".to_owned()),
        (categories, "UPDATE category SET name = name || '!' WHERE parent_id IS NOT NULL".to_owned()),
        (categories, "INSERT INTO category VALUES (gen_random_uuid(), NULL, 'new', 'A new root', now())".to_owned()),
        (
            categories,
            "INSERT INTO category SELECT gen_random_uuid(), id, 'leaf', 'A new leaf', now() FROM category WHERE slug = 'new'".to_owned(),
        ),
        (categories, "DELETE FROM category WHERE slug = 'leaf'".to_owned()),
        (all, insert.to_owned()),
        (all, format!("UPDATE product SET title = ' b' WHERE id = {first}")),
        (all, format!("UPDATE product SET description = 'x' WHERE id = {first}")),
        (all, format!("UPDATE product SET images = '{{x}}' WHERE id = {first}")),
        (all, format!("UPDATE product SET category_id = (SELECT id FROM category WHERE slug = 'new') WHERE id = {first}")),
        (all, "UPDATE category SET name = 'Newer' WHERE slug = 'new'".to_owned()),
        (all, sale.clone()),
        (all, "UPDATE flash_sale SET cancelled_at = now()".to_owned()),
        (sales, sale),
        (sales, format!("UPDATE product SET title = ' c' WHERE id = {first}")),
        (sales, "UPDATE flash_sale SET opens_at = opens_at + interval '1 minute' WHERE cancelled_at IS NULL".to_owned()),
        (all, format!("UPDATE product SET archived_at = now() WHERE id = {first}")),
    ] {
        let before = client.send(page, json!({})).await;
        assert_eq!(client.send(page, json!({})).await, before);
        let made = misses(&test.app);
        test.execute(&change).await;
        hear(&test.app).await;
        assert_ne!(client.send(page, json!({})).await, before, "{change}");
        assert_eq!(misses(&test.app), made + 1, "{change}");
    }
    test.execute("UPDATE flash_sale SET cancelled_at = now()").await;
    test.finish().await;
}

/// What a sale's visitors send most.
#[test]
fn the_operations_that_everybody_sends_may_be_kept() {
    for client in ["web", "mobile"] {
        for name in ["browse-products", "categories", "flash-sales", "product-page", "search-products"] {
            let text = std::fs::read_to_string(format!("frontend-queries/{client}/{name}.graphql")).unwrap();
            let document = async_graphql::parser::parse_query(text).unwrap();
            let (_, operation) = document.operations.iter().next().unwrap();
            assert!(public_fields::lifetime(&document, &operation.node).is_some(), "{client}/{name}");
        }
    }
}

/// A column that is added must be said to be a change of a page, or not to be one.
#[tokio::test]
async fn the_triggers_know_every_column_of_a_product() {
    let test = TestApp::start().await;
    let columns = "SELECT column_name::text FROM information_schema.columns WHERE table_name = 'product' AND is_generated = 'NEVER'";
    let columns: Vec<String> = sqlx::query_scalar(columns).fetch_all(&*test.app.db).await.unwrap();
    let source: String =
        sqlx::query_scalar("SELECT prosrc FROM pg_proc WHERE proname = 'note_changed_products'").fetch_one(&*test.app.db).await.unwrap();
    let no_change = ["id", "available", "updated_at", "import_key", "import_quantity"];
    let forgotten: Vec<_> =
        columns.iter().filter(|column| !no_change.contains(&column.as_str()) && !source.contains(&format!("a.{column}"))).collect();
    assert!(forgotten.is_empty(), "say in note_changed_products whether these change a page: {forgotten:?}");
    test.finish().await;
}

#[tokio::test]
async fn a_thousand_who_ask_at_once_make_one_query() {
    statements::count("FROM product p WHERE");
    let (test, _) = TestApp::start_with_pages(&[("MAX_IN_FLIGHT", "2000")]).await;
    seed::catalogue(&test.app, 30, |_| ()).await.unwrap();
    hear(&test.app).await;
    let client = test.anonymous();
    let before = statements::sent();
    let mut holder = test.app.for_jobs().db.begin().await.unwrap();
    sqlx::query("LOCK TABLE product").execute(&mut *holder).await.unwrap();

    let asked = join_all((0..1000).map(|_| client.answer(TWENTY, json!({}))));
    let release = async {
        until(async || (test.app.pages.counters.joined.get() == 999).then_some(())).await;
        holder.rollback().await.unwrap();
    };
    let (answers, ()) = tokio::join!(asked, release);

    assert_eq!(answers[0]["data"]["products"]["nodes"].as_array().unwrap().len(), 20);
    assert!(answers.iter().all(|answer| *answer == answers[0]));
    assert_eq!((misses(&test.app), statements::sent() - before), (1, 1));
    test.finish().await;
}

#[tokio::test]
async fn a_miss_of_twenty_products_takes_three_statements() {
    statements::count("");
    let (test, _) = TestApp::start_with_pages(&[]).await;
    seed::catalogue(&test.app, 40, |_| ()).await.unwrap();
    hear(&test.app).await;
    for _ in 0..3 {
        test.open_sale(3, 3).await;
    }
    let client = test.anonymous();
    let (mut least, made) = (usize::MAX, misses(&test.app));
    // The least of a few, because followers of the server read now and then.
    for run in 0..20 {
        let before = statements::sent();
        client.send(&format!("# {run}\n{TWENTY}"), json!({})).await;
        least = least.min(statements::sent() - before);
    }
    assert_eq!(misses(&test.app), made + 20);
    assert_eq!(least, 3, "products, categories, sales");
    test.finish().await;
}

#[tokio::test]
async fn a_page_dies_with_the_opening_of_a_sale_in_it_and_grows_stale_without_one() {
    let (test, clock) = TestApp::start_with_pages(&[]).await;
    seed::catalogue(&test.app, 3, |_| ()).await.unwrap();
    hear(&test.app).await;
    let sale = test.sale_opening_in(TimeDelta::seconds(20)).await;
    hear(&test.app).await;
    let client = test.anonymous();
    let query = "query($id: ID!) { flashSale(id: $id) { opensAt closesAt product { title } } }";
    let ask = async || client.send(query, json!({ "id": sale.to_string() })).await;
    ask().await;
    let counters = &test.app.pages.counters;
    let made = misses(&test.app);
    clock.advance(TimeDelta::milliseconds(19_999));
    ask().await;
    assert_eq!((misses(&test.app), counters.memory_hits.get()), (made, 1));
    clock.advance(TimeDelta::milliseconds(1));
    ask().await;
    assert_eq!((misses(&test.app), counters.stale_hits.get()), (made + 1, 0), "it is not even shown stale");

    clock.advance(TimeDelta::seconds(31));
    ask().await;
    assert_eq!(counters.stale_hits.get(), 1, "shown while it is made anew");
    until(async || (misses(&test.app) == made + 2).then_some(())).await;
    until(async || {
        let (hits, made_late) = (counters.memory_hits.get(), counters.stale_hits.get());
        ask().await;
        (counters.memory_hits.get() > hits && counters.stale_hits.get() == made_late).then_some(())
    })
    .await;

    // Whoever comes much later waits for a new one.
    clock.advance(TimeDelta::seconds(61));
    let made = misses(&test.app);
    ask().await;
    assert_eq!(misses(&test.app), made + 1);
    test.finish().await;
}

#[tokio::test]
async fn stock_is_a_second_old_at_most_and_never_in_redis() {
    let (test, clock) = TestApp::start_with_pages(&[]).await;
    let sale = test.open_sale(5, 5).await;
    hear(&test.app).await;
    let client = test.anonymous();
    let query = "query($id: ID!) { flashSale(id: $id) { phase remainingUnits } }";
    let left = async || client.send(query, json!({ "id": sale.to_string() })).await["flashSale"]["remainingUnits"].take();
    assert_eq!(left().await, 5);
    test.customer().await.must_buy(sale, 2, json!({})).await;
    clock.advance(TimeDelta::milliseconds(999));
    assert_eq!(left().await, 5);
    clock.advance(TimeDelta::milliseconds(1));
    assert_eq!(left().await, 3);
    let (other, address) = test.second_server_with(&[("PAGE_CACHE_BYTES", "10000000")]).await;
    assert_eq!(client.at(address).send(query, json!({ "id": sale.to_string() })).await["flashSale"]["remainingUnits"], 3);
    assert_eq!((misses(&other), other.pages.counters.redis_hits.get()), (1, 0));
    test.start_jobs();
    until(async || (test.unsettled().await == 0).then_some(())).await;
    test.finish().await;
}

#[tokio::test]
async fn errors_are_not_kept() {
    let (test, _) = TestApp::start_with_pages(&[]).await;
    seed::catalogue(&test.app, 5, |_| ()).await.unwrap();
    hear(&test.app).await;
    let client = test.anonymous();
    for query in ["{ products(first: 0) { nodes { id } } }", "{ products(after: \"x\") { nodes { id } } }"] {
        for round in 1..=2 {
            let made = misses(&test.app);
            let answer = client.answer(query, json!({})).await;
            assert_eq!(answer["errors"][0]["extensions"]["code"], "BAD_REQUEST");
            assert!(answer["errors"][0]["extensions"]["requestId"].is_string());
            assert_eq!(misses(&test.app), made + 1, "round {round}");
        }
    }
    let large = "{ products(first: 100) { nodes { id title description imageUrl price { amount } category { id name } } } }";
    assert_eq!(client.error_code(large, json!({})).await, "TOO_COMPLEX");
    let answer = test.customer().await.answer(large, json!({})).await;
    assert_eq!(answer["data"]["products"]["nodes"].as_array().unwrap().len(), 5, "a customer may ask for more: {answer:#}");
    test.finish().await;
}

#[tokio::test]
async fn pages_are_shown_for_five_minutes_while_the_database_is_away() {
    let (mut services, _folder) = own_services().await;
    let (test, clock) = TestApp::start_with_pages_on(&services).await;
    seed::catalogue(&test.app, 5, |_| ()).await.unwrap();
    hear(&test.app).await;
    let client = test.anonymous();
    let live = "{ products { nodes { id available } } }";
    let shown = client.answer(TITLES, json!({})).await;
    client.answer(live, json!({})).await;
    let pid = Pid::from_raw(i32::try_from(services.postgres_pid()).unwrap()).unwrap();
    kill_process(pid, Signal::KILL).unwrap();
    until(async || test.app.pages.changes.are_late().then_some(())).await;

    clock.advance(TimeDelta::seconds(299));
    assert_eq!(client.answer(TITLES, json!({})).await, shown);
    assert!(client.answer(live, json!({})).await["errors"].is_array(), "stock is not");
    clock.advance(TimeDelta::seconds(1));
    assert!(client.answer(TITLES, json!({})).await["errors"].is_array(), "nor anything older");

    services.restart_postgres().await.unwrap();
    until(async || (client.answer(TITLES, json!({})).await == shown).then_some(())).await;
    test.finish().await;
    services.stop_and_delete().await.unwrap();
}

#[tokio::test]
async fn a_new_price_is_shown_by_two_processes_within_a_second() {
    let test = TestApp::start().await;
    seed::catalogue(&test.app, 5, |_| ()).await.unwrap();
    let pages = [("PAGE_CACHE_BYTES", "10000000")];
    let (_one, one) = Process::server_with(&test, &[], &pages).await;
    let (_two, two) = Process::server_with(&test, &[], &pages).await;
    let (client, staff) = (test.anonymous(), test.staff().await.at(one));
    let id = client.send(TITLES, json!({})).await["products"]["nodes"][0]["id"].take();
    let query = "query($id: ID!) { product(id: $id) { price { amount } } }";
    let price_at = async |address| client.at(address).send(query, json!({ "id": id })).await["product"]["price"]["amount"].take();
    let change = "mutation($input: UpdateProductInput!) { updateProduct(input: $input) { userErrors { code } } }";
    // A machine that is busy with other things may be late once, but not every time.
    for price in 4_001..4_020 {
        let before = (price_at(one).await, price_at(two).await);
        assert_eq!(before.0, before.1);
        let input = json!({ "id": id, "price": price.to_string() });
        assert_eq!(staff.send(change, json!({ "input": input })).await["updateProduct"]["userErrors"], json!([]));
        let changed = Instant::now();
        let new = json!(price.to_string());
        until(async || (price_at(one).await == new && price_at(two).await == new).then_some(())).await;
        if changed.elapsed() < Duration::from_secs(1) {
            return test.finish().await;
        }
    }
    panic!("it was never shown within a second");
}

/// A document of the manifest, by its operation.
fn hash_of(operation: &str) -> String {
    let manifest: Value = serde_json::from_str(include_str!("../../frontend-queries/manifest.json")).unwrap();
    let found = manifest["operations"].as_array().unwrap().iter().rev().find(|entry| entry["name"] == operation).unwrap();
    found["id"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_trusted_query_can_be_read_by_get_and_kept_by_others() {
    let (test, clock) = TestApp::start_with_pages(&[]).await;
    seed::catalogue(&test.app, 30, |_| ()).await.unwrap();
    hear(&test.app).await;
    let client = test.anonymous();
    let path = format!("/graphql/q/{}", hash_of("Categories"));
    let header = |answer: &reqwest::Response, name: &str| answer.headers().get(name).map(|value| value.to_str().unwrap().to_owned());

    let answer = client.get(&path).send().await.unwrap();
    assert_eq!(answer.status(), 200);
    assert_eq!(header(&answer, "cache-control").unwrap(), "public, max-age=30, stale-while-revalidate=30");
    assert_eq!(header(&answer, "content-type").unwrap(), "application/graphql-response+json");
    assert!(header(&answer, "vary").unwrap().contains("origin"), "whom CORS lets read it differs");
    let etag = header(&answer, "etag").unwrap();
    let body = answer.bytes().await.unwrap();
    let document = trusted_documents::find(&hash_of("Categories")).unwrap();
    let posted = client.post().json(&json!({ "query": document })).send().await.unwrap();
    assert_eq!(header(&posted, "cache-control").unwrap(), "no-store", "answers to POST are nobody else's");
    assert_eq!(posted.bytes().await.unwrap(), body, "one page for both");
    assert_eq!(misses(&test.app), 1);

    clock.advance(TimeDelta::seconds(10));
    for known in [etag.clone(), format!("W/{etag}"), format!("\"x\", {etag}"), "*".to_owned()] {
        let answer = client.get(&path).header("if-none-match", known).send().await.unwrap();
        assert_eq!((answer.status().as_u16(), header(&answer, "etag").unwrap()), (304, etag.clone()));
        assert_eq!(header(&answer, "cache-control").unwrap(), "public, max-age=20, stale-while-revalidate=30");
        assert!(answer.bytes().await.unwrap().is_empty());
    }
    assert_eq!(client.get(&path).header("if-none-match", "\"x\"").send().await.unwrap().status(), 200);
    // Who asks is not looked at, not even whether the token is good.
    let answer = client.get(&path).bearer_auth("no token").header("origin", "https://elsewhere.example").send().await.unwrap();
    assert_eq!((answer.status().as_u16(), header(&answer, "access-control-allow-origin")), (200, None));
    let head = client.head(&path).send().await.unwrap();
    assert_eq!((head.status().as_u16(), header(&head, "etag").unwrap()), (200, etag));

    let browse = format!("/graphql/q/{}", hash_of("BrowseProducts"));
    let variables = json!({ "first": 2, "withTotal": true }).to_string();
    let answer = client.get(&browse).query(&[("variables", variables.as_str()), ("operationName", "BrowseProducts")]).send().await.unwrap();
    assert_eq!(header(&answer, "cache-control").unwrap(), "public, max-age=1", "it shows stock");
    assert_eq!(answer.json::<Value>().await.unwrap()["data"]["products"]["totalCount"], 30);
    test.finish().await;
}

#[tokio::test]
async fn get_refuses_whatever_is_not_for_everybody() {
    let (test, _) = TestApp::start_with_pages(&[("ADDRESS_PER_MINUTE", "13")]).await;
    let client = test.anonymous();
    let path = |operation: &str| format!("/graphql/q/{}", hash_of(operation));
    let unknown = format!("/graphql/q/{}", "0".repeat(64));
    for (path, query, status) in [
        (path("Viewer"), vec![], 400),
        (path("ServerTime"), vec![], 400),
        (path("LogOut"), vec![], 400),
        (path("BuyNow"), vec![("variables", new_key())], 400),
        (path("FlashSaleUpdates"), vec![], 400),
        (unknown, vec![], 404),
        ("/graphql/q/nonsense".to_owned(), vec![], 404),
        (path("Categories"), vec![("variables", "[]".to_owned())], 400),
        (path("Categories"), vec![("variables", "{".to_owned())], 400),
        (path("Categories"), vec![("query", "{ viewer { id } }".to_owned())], 400),
        (path("Categories"), vec![("operationName", "Other".to_owned())], 400),
        (path("Categories"), vec![("variables", "x".repeat(9_000))], 414),
        (path("BrowseProducts"), vec![("variables", json!({ "first": 0, "withTotal": false }).to_string())], 200),
        (path("BrowseProducts"), vec![("variables", json!({ "first": "x" }).to_string())], 400),
        (path("Categories"), vec![], 429),
    ] {
        let answer = client.get(&path).query(&query).send().await.unwrap();
        assert_eq!(answer.status(), status, "{path} {query:?}");
        assert_eq!(answer.headers()["cache-control"], "no-store");
        assert!(!answer.headers().contains_key("etag"));
        let answer: Value = answer.json().await.unwrap();
        assert!(answer["errors"][0]["extensions"]["requestId"].is_string(), "{answer:#}");
    }
    let posted = client.post_to(&path("Categories")).json(&json!({})).send().await.unwrap();
    assert_eq!(posted.status(), 405);
    test.finish().await;
}

/// Without memory a page is still executed for nobody, and nothing is kept.
#[tokio::test]
async fn a_server_that_keeps_no_pages_answers_each_anew() {
    let test = TestApp::start().await;
    seed::catalogue(&test.app, 5, |_| ()).await.unwrap();
    hear(&test.app).await;
    let client = test.anonymous();
    let path = format!("/graphql/q/{}", hash_of("Categories"));
    for made in 1..=2 {
        client.send(TITLES, json!({})).await;
        assert_eq!(client.get(&path).send().await.unwrap().status(), 200);
        assert_eq!((misses(&test.app), test.app.pages.counters.memory_hits.get()), (made, 0));
    }
    assert!(public_fields::listed().any(|(_, _, lifetime)| lifetime == PageLifetime::Live));
    test.finish().await;
}
