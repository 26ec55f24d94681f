//! What reaches the server from outside: each gets a clear typed answer.

use chrono::TimeDelta;
use secrecy::ExposeSecret;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use whitemonday::{
    auth::{Viewer, access_token},
    domain::{customer::Role, ids::SessionId},
};

use crate::support::{Client, PATIENCE, TestApp, client::BUY_NOW, customer_id, until};

const TYPENAME: &str = r#"{"query":"{ __typename }"}"#;

async fn error_of(response: reqwest::Response) -> (u16, String) {
    let status = response.status().as_u16();
    let answer: Value = response.json().await.unwrap();
    let extensions = &answer["errors"][0]["extensions"];
    assert!(extensions["requestId"].as_str().is_some_and(|id| id.len() == 32), "{answer:#}");
    (status, extensions["code"].as_str().unwrap().to_owned())
}

#[tokio::test]
async fn only_one_json_request_by_post_is_taken() {
    let test = TestApp::start().await;
    let client = test.anonymous();
    let post = |content_type: &'static str, body: String| client.post().header("content-type", content_type).body(body).send();
    let json = "application/json";

    assert_eq!(error_of(client.get("/graphql?query={__typename}").send().await.unwrap()).await, (405, "BAD_REQUEST".into()));
    for content_type in ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "application/graphql"] {
        assert_eq!(error_of(post(content_type, TYPENAME.into()).await.unwrap()).await, (415, "BAD_REQUEST".into()), "{content_type}");
    }
    let batch = format!("[{TYPENAME},{TYPENAME}]");
    for body in ["", "{", "null", "{}", "[]", &batch, r#"{"query": 7}"#, r#"{"query": ""}"#, "\u{0}"] {
        assert_eq!(error_of(post(json, body.into()).await.unwrap()).await, (400, "BAD_REQUEST".into()), "{body}");
    }
    let large = format!(r#"{{"query":"{{ __typename }}","variables":{{"x":"{}"}}}}"#, "x".repeat(70_000));
    assert_eq!(error_of(post(json, large).await.unwrap()).await, (413, "BAD_REQUEST".into()));

    let answer = post("application/json; charset=utf-8", TYPENAME.into()).await.unwrap();
    assert_eq!(answer.json::<Value>().await.unwrap()["data"], json!({ "__typename": "Query" }));
    test.finish().await;
}

#[tokio::test]
async fn a_bad_token_is_unauthenticated_and_never_anonymous() {
    let test = TestApp::start().await;
    let ann = test.customer().await;
    let viewer = Viewer { customer: customer_id(&json!(ann.customer_id)), session: SessionId::new(), role: Role::Customer };
    let (expired, _) = test.app.access_tokens.sign(viewer, test.app.clock.now() - access_token::LIFETIME).unwrap();
    let (from_the_future, _) = test.app.access_tokens.sign(viewer, test.app.clock.now() + TimeDelta::minutes(5)).unwrap();
    let changed = format!("{}x", ann.access_token.clone().unwrap());

    let values = [expired.expose_secret(), from_the_future.expose_secret(), &changed, "", "a.b.c"];
    for value in values.map(|token| format!("Bearer {token}")).into_iter().chain(["Basic YTpi".into(), "nonsense".into()]) {
        let request = test.anonymous().post().header("authorization", &value).header("content-type", "application/json").body(TYPENAME);
        assert_eq!(error_of(request.send().await.unwrap()).await, (401, "UNAUTHENTICATED".into()), "{value}");
    }
    test.finish().await;
}

#[tokio::test]
async fn operations_that_ask_for_too_much_or_make_no_sense_are_refused() {
    let test = TestApp::start().await;
    let client = test.anonymous();
    let deep = format!("{{ categories {}{} }}", "{ children ".repeat(30), "{ id }".to_owned() + &" }".repeat(30));
    let wide = format!("{{ {} }}", (0..3_000).map(|n| format!("a{n}: serverTime")).collect::<Vec<_>>().join(" "));
    let circular = "query { ...a } fragment a on Query { ...b } fragment b on Query { ...a }";
    assert_eq!(client.error_code(&deep, json!({})).await, "TOO_COMPLEX");
    assert_eq!(client.error_code(&wide, json!({})).await, "TOO_COMPLEX");
    let pages = "{ products(first: 100) { nodes { category { products(first: 100) { nodes { id } } } } } }";
    assert_eq!(client.error_code(pages, json!({})).await, "TOO_COMPLEX", "a page in a page counts once per entry");
    assert_eq!(client.error_code(circular, json!({})).await, "TOO_COMPLEX");
    let few_times = |count: usize| format!("{{ {} }}", (0..count).map(|n| format!("a{n}: serverTime ")).collect::<Vec<_>>().concat());
    assert!(client.answer(&few_times(30), json!({})).await["errors"].is_null());
    assert_eq!(client.error_code(&few_times(31), json!({})).await, "TOO_COMPLEX", "aliases");
    let by_fragments = format!("{{ {} }} fragment f on Query {{ serverTime }}", "...f ".repeat(31));
    assert_eq!(client.error_code(&by_fragments, json!({})).await, "TOO_COMPLEX", "root fields");
    let twice = "mutation { a: logOut { done } ... on Mutation { logOut { done } } }";
    assert_eq!(client.error_code(twice, json!({})).await, "BAD_REQUEST", "one mutation at a time");
    // What is too much for a visitor is not for a customer or for staff.
    let page = |fields: usize| {
        let fields =
            ["id", "title", "description", "imageUrl", "images", "archived", "available", "createdAt", "updatedAt"][..fields].join(" ");
        format!("{{ products(first: 100) {{ nodes {{ {fields} price {{ amount currency }} }} }} }}")
    };
    let answer = client.answer(&page(8), json!({})).await;
    assert_eq!(answer["errors"][0]["extensions"]["code"], "TOO_COMPLEX", "{answer:#}");
    assert!(answer["errors"][0]["message"].as_str().unwrap().contains("may cost 1000"), "{answer:#}");
    let ann = test.customer().await;
    let answer = ann.answer(&page(8), json!({})).await;
    assert!(answer["errors"].is_null() && answer["extensions"]["analyzer"]["complexity"].as_i64().unwrap() > 1_000, "{answer:#}");
    let orders = "{ viewer { orders(first: 100) { nodes { id number version status lines { title quantity } total { amount }
        history { status at } payments { id status amount { amount } } shippingAddress { city line1 } trackingNumber createdAt updatedAt } } } }";
    assert_eq!(ann.error_code(orders, json!({})).await, "TOO_COMPLEX");
    assert!(test.staff().await.answer(orders, json!({})).await["errors"].is_null());
    for query in ["{ nonsense }", "{", "query($x: Int!) { serverTime }", "subscription { flashSaleUpdates(flashSaleId: \"x\") { id } }"] {
        assert_eq!(client.error_code(query, json!({})).await, "BAD_REQUEST", "{query}");
    }
    test.finish().await;
}

#[tokio::test]
async fn a_fault_is_masked_and_has_a_request_id() {
    let test = TestApp::start().await;
    test.execute("ALTER TABLE category RENAME TO somewhere_else").await;

    let response = test.anonymous().post().json(&json!({ "query": "{ categories { id } }" })).send().await.unwrap();
    let id = response.headers()["x-request-id"].to_str().unwrap().to_owned();
    let answer: Value = response.json().await.unwrap();

    let error = &answer["errors"][0];
    assert_eq!((&error["extensions"]["code"], &error["extensions"]["requestId"]), (&json!("INTERNAL"), &json!(id)));
    assert!(!answer.to_string().contains("category") && !answer.to_string().contains("relation"), "{answer:#}");
    test.execute("ALTER TABLE somewhere_else RENAME TO category").await;
    test.finish().await;
}

#[tokio::test]
async fn without_developer_tools_there_is_no_introspection_and_no_graphiql() {
    let test = TestApp::start_with(&[("DEVELOPER_TOOLS", "off")]).await;
    let client = test.anonymous();
    let answer = client.answer("{ __schema { queryType { name } } }", json!({})).await;
    assert!(answer["data"]["__schema"].is_null(), "{answer:#}");
    assert_eq!(client.get("/").send().await.unwrap().status(), 404);
    let answer = client.answer("{ serverTim }", json!({})).await;
    assert!(!answer.to_string().contains("serverTime"), "no suggestions: {answer:#}");
    test.finish().await;
}

#[tokio::test]
async fn with_developer_tools_the_standard_introspection_query_passes_the_limits() {
    let test = TestApp::start().await;
    let types =
        "{ kind name ofType { kind name ofType { kind name ofType { kind name ofType { kind name ofType { kind name ofType { kind name
        ofType { kind name ofType { kind name } } } } } } } } }";
    let query = format!(
        "query IntrospectionQuery {{ __schema {{ queryType {{ name }} mutationType {{ name }} subscriptionType {{ name }}
            types {{ kind name description specifiedByURL fields(includeDeprecated: true) {{ name description
                args(includeDeprecated: true) {{ name description type {types} defaultValue }} type {types} isDeprecated }}
                inputFields(includeDeprecated: true) {{ name type {types} }} interfaces {types} enumValues(includeDeprecated: true) {{ name }}
                possibleTypes {types} }} directives {{ name locations args(includeDeprecated: true) {{ name type {types} }} }} }} }}"
    );
    let data = test.anonymous().send(&query, json!({})).await;
    assert!(data["__schema"]["types"].as_array().unwrap().len() > 50);
    test.finish().await;
}

#[tokio::test]
async fn health_tells_alive_ready_and_degraded() {
    let test = TestApp::start_with(&[("REDIS_TIMEOUT_MILLISECONDS", "10000")]).await;
    let client = test.anonymous();
    let health = async |path| {
        let response = client.get(path).send().await.unwrap();
        (response.status().as_u16(), response.json::<Value>().await.unwrap()["status"].take())
    };
    assert_eq!(health("/healthz/live").await, (200, json!("live")));
    let until_it_is = async |status: u16, word: &str| {
        until(async || (health("/healthz/ready").await == (status, json!(word))).then_some(())).await;
    };
    assert_eq!(health("/healthz/ready").await, (200, json!("ready")));
    test.execute("SELECT pgmq.send('mail', '{}'); UPDATE pgmq.q_mail SET enqueued_at = now() - interval '2 minutes'").await;
    until_it_is(200, "degraded").await;
    test.execute("DELETE FROM pgmq.q_mail").await;
    // While a newer release is rolled out, its schema is there before its last process.
    test.execute(
        "UPDATE _sqlx_migrations SET version = version + 50000000000000 WHERE version = (SELECT max(version) FROM _sqlx_migrations)",
    )
    .await;
    until(async || {
        let answer: Value = client.get("/healthz/ready").send().await.unwrap().json().await.unwrap();
        (answer["schema"] == "newer" && answer["status"] == "ready").then_some(())
    })
    .await;
    test.execute("DELETE FROM _sqlx_migrations WHERE version = (SELECT max(version) FROM _sqlx_migrations)").await;
    until_it_is(503, "unready").await;
    test.finish().await;

    let degraded = TestApp::start_with(&[("REDIS_URL", "redis://127.0.0.1:1")]).await;
    let response = degraded.anonymous().get("/healthz/ready").send().await.unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(response.json::<Value>().await.unwrap()["status"], "degraded");
    degraded.finish().await;
}

#[tokio::test]
async fn the_pages_are_served_with_a_strict_policy() {
    let test = TestApp::start().await;
    let client = test.anonymous();
    for path in ["/", "/verify?token=x", "/reset?token=x", "/confirm-email?token=x", "/dev/mailbox"] {
        let response = client.get(path).send().await.unwrap();
        assert_eq!(response.status(), 200, "{path}: run `make web`");
        let policy = response.headers()["content-security-policy"].to_str().unwrap().to_owned();
        assert!(policy.contains("default-src 'none'") && policy.contains("script-src 'self';"), "{policy}");
        let html = response.text().await.unwrap();
        let asset = html.split('"').find(|part| part.starts_with("/assets/")).unwrap_or_else(|| panic!("{html}"));
        let asset = client.get(asset).send().await.unwrap();
        assert_eq!(asset.status(), 200);
        assert!(asset.headers()["cache-control"].to_str().unwrap().contains("immutable"));
    }
    let mails = client.get("/dev/mailbox").header("accept", "application/json").send().await.unwrap();
    assert_eq!(mails.json::<Value>().await.unwrap(), json!([]));
    assert_eq!(client.get("/nowhere").send().await.unwrap().status(), 404);
    assert_eq!(client.get("/assets/..%2Findex.html").send().await.unwrap().status(), 404);
    test.finish().await;
}

#[tokio::test]
async fn a_document_that_is_known_already_lets_no_other_variables_through() {
    const SALES: &str = "query($phases: [FlashSalePhase!], $first: Int) {
        flashSales(phases: $phases, first: $first) { nodes { id product { title category { name } } } }
    }";
    let test = TestApp::start().await;
    let ann = test.customer().await;
    let good = ann.answer(SALES, json!({ "phases": ["OPEN"], "first": 2 })).await;
    assert!(good["errors"].is_null(), "{good:#}");
    let again = ann.answer(SALES, json!({ "phases": ["OPEN"], "first": 2 })).await;
    assert_eq!(again["extensions"], good["extensions"], "it costs the same");

    for variables in [
        json!({ "phases": ["SHUT"], "first": 2 }),
        json!({ "phases": ["open"], "first": 2 }),
        json!({ "phases": [7], "first": 2 }),
        json!({ "phases": ["OPEN"], "first": "2" }),
        json!({ "phases": ["OPEN", null], "first": 2 }),
    ] {
        let answer = ann.answer(SALES, variables.clone()).await;
        assert_eq!(answer["errors"][0]["extensions"]["code"], "BAD_REQUEST", "{variables}: {answer:#}");
        assert!(answer["data"].is_null(), "{variables}: {answer:#}");
    }
    let dearer = ann.answer(SALES, json!({ "phases": ["OPEN"], "first": 90 })).await;
    assert!(dearer["extensions"]["analyzer"]["complexity"].as_u64() > good["extensions"]["analyzer"]["complexity"].as_u64());

    let sale = test.open_sale(5, 5).await;
    let input = |more: Value| {
        let mut input = json!({ "flashSaleId": sale.to_string(), "quantity": 1, "paymentMethod": "pm_card_visa",
                                "idempotencyKey": crate::support::new_key() });
        input.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!({ "input": input })
    };
    assert!(ann.answer(BUY_NOW, input(json!({}))).await["errors"].is_null());
    for more in
        [json!({ "surplus": 1 }), json!({ "quantity": "1" }), json!({ "idempotencyKey": null }), json!({ "idempotencyKey": "no uuid" })]
    {
        let answer = ann.answer(BUY_NOW, input(more.clone())).await;
        assert_eq!(answer["errors"][0]["extensions"]["code"], "BAD_REQUEST", "{more}: {answer:#}");
    }
    test.finish().await;
}

#[tokio::test]
async fn more_requests_than_the_limit_are_refused_at_once_while_health_and_webhooks_have_lanes_of_their_own() {
    let test = TestApp::start_with(&[("MAX_IN_FLIGHT", "3")]).await;
    let client = test.anonymous();
    // Whoever reads the catalogue waits.
    let mut held = test.app.for_jobs().db.begin().await.unwrap();
    sqlx::raw_sql("LOCK TABLE category IN ACCESS EXCLUSIVE MODE").execute(&mut *held).await.unwrap();
    let under_way: Vec<_> = (0..3).map(|_| tokio::spawn(categories(client.clone()))).collect();
    until(async || (test.waiting_for_locks().await == 3).then_some(())).await;

    let refused = client.post().json(&json!({ "query": "{ __typename }" })).send().await.unwrap();
    assert_eq!(refused.headers()["retry-after"], "1");
    assert_eq!(error_of(refused).await, (503, "UNAVAILABLE".into()));
    assert_eq!(client.get("/healthz/ready").send().await.unwrap().status(), 200);
    let webhook = client.post_to("/webhooks/stripe").body("{}").send().await.unwrap();
    assert_eq!(webhook.status(), 400, "it is looked at, and its signature is missing");

    held.rollback().await.unwrap();
    for answer in under_way {
        assert!(answer.await.unwrap()["errors"].is_null());
    }
    assert!(categories(client).await["errors"].is_null(), "the places are free again");
    test.finish().await;
}

async fn categories(client: Client) -> Value {
    client.answer("{ categories { id } }", json!({})).await
}

#[tokio::test]
async fn a_request_that_takes_too_long_is_cut_off_and_leaves_nothing_behind() {
    let test = TestApp::start_with(&[("REQUEST_DEADLINE_SECONDS", "1")]).await;
    let client = test.anonymous();
    let mut held = test.app.for_jobs().db.begin().await.unwrap();
    sqlx::raw_sql("LOCK TABLE category IN ACCESS EXCLUSIVE MODE").execute(&mut *held).await.unwrap();

    // More than there are connections, in turns: each that is cut off gives its own back, though its statement still waits.
    for _ in 0..4 {
        for answer in futures_util::future::join_all((0..4).map(|_| categories(client.clone()))).await {
            assert_eq!(answer["errors"][0]["extensions"]["code"], "TIMEOUT");
        }
    }

    held.rollback().await.unwrap();
    assert!(client.send("{ categories { id } }", json!({})).await["categories"].is_array());
    test.finish().await;
}

#[tokio::test]
async fn a_connection_without_a_whole_request_is_closed() {
    let test = TestApp::start_with(&[("IDLE_CONNECTION_SECONDS", "1"), ("REQUEST_DEADLINE_SECONDS", "1")]).await;
    let mut slow_header = tokio::net::TcpStream::connect(test.address).await.unwrap();
    slow_header.write_all(b"POST /graphql HTTP/1.1\r\nhost: x\r\n").await.unwrap();
    let mut slow_body = tokio::net::TcpStream::connect(test.address).await.unwrap();
    slow_body
        .write_all(b"POST /graphql HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{")
        .await
        .unwrap();
    let answer = async |mut stream: tokio::net::TcpStream| {
        let mut answer = String::new();
        tokio::time::timeout(PATIENCE, stream.read_to_string(&mut answer)).await.expect("it is closed").unwrap();
        answer
    };
    let header = answer(slow_header).await;
    assert!(header.is_empty() || header.starts_with("HTTP/1.1 408"), "{header}");
    let body = answer(slow_body).await;
    assert!(body.starts_with("HTTP/1.1 504"), "{body}");
    test.finish().await;
}

#[tokio::test]
async fn pages_of_allowed_origins_may_call_and_no_others() {
    let test = TestApp::start_with(&[("ALLOWED_ORIGINS", "https://shop.example.com")]).await;
    let client = test.anonymous();
    let preflight = async |origin: &str| {
        let request = client.options("/graphql").header("origin", origin);
        let request = request.header("access-control-request-method", "POST").header("access-control-request-headers", "content-type");
        request.send().await.unwrap().headers().get("access-control-allow-origin").cloned()
    };
    assert_eq!(preflight("https://shop.example.com").await.unwrap(), "https://shop.example.com");
    assert_eq!(preflight("https://evil.example.com").await, None);
    assert_eq!(preflight("null").await, None);
    let answer =
        client.post().header("origin", "https://shop.example.com").json(&json!({ "query": "{ __typename }" })).send().await.unwrap();
    assert_eq!(answer.headers()["access-control-allow-origin"], "https://shop.example.com");
    assert!(answer.headers().get("access-control-allow-credentials").is_none());
    test.finish().await;
}

#[tokio::test]
async fn every_answer_carries_the_headers_that_browsers_need() {
    let test = TestApp::start_with(&[("PUBLIC_URL", "https://shop.example.com")]).await;
    let client = test.anonymous();
    for path in ["/graphql", "/healthz/live", "/nowhere", "/verify"] {
        let answer = client.get(path).send().await.unwrap();
        let header = |name: &str| answer.headers()[name].to_str().unwrap();
        assert_eq!(header("x-content-type-options"), "nosniff", "{path}");
        assert_eq!(header("referrer-policy"), "no-referrer");
        assert_eq!(header("cache-control"), "no-store");
        assert_eq!(header("strict-transport-security"), "max-age=31536000");
        assert_eq!(header("cross-origin-opener-policy"), "same-origin");
        assert!(header("content-security-policy").starts_with("default-src 'none'"), "{path}");
    }
    test.finish().await;
}
