//! The cart: what goes in, and what it says of its lines.

use chrono::TimeDelta;
use serde_json::{Value, json};
use whitemonday::{
    domain::{ids::ProductId, money::Money},
    services::flash_sale::{self, Schedule, Scheduled},
};

use crate::support::{Client, TestApp, new_key};

/// The user errors of a mutation that changes nothing.
async fn refusal(client: &Client, mutation: &str, input: Value) -> Value {
    let before = client.cart().await;
    let mut payload = client.change_cart(mutation, input).await;
    assert!(payload["cart"].is_null(), "{payload:#}");
    assert_eq!(client.cart().await, before);
    payload["userErrors"].take()
}

fn error(code: &str, field: &str) -> Value {
    json!([{ "code": code, "field": [field] }])
}

/// A sale of a product that has ordinary stock as well, open now.
async fn sale_of(test: &TestApp, product: ProductId, units: i32, per_customer_limit: i32) {
    let now = test.app.clock.now();
    let schedule = Schedule {
        product,
        price: Money::new(700, test.app.config.currency),
        opens_at: now - TimeDelta::minutes(1),
        closes_at: now + TimeDelta::hours(1),
        units,
        per_customer_limit,
        hold: TimeDelta::minutes(5),
    };
    let Scheduled::Done(sale) = flash_sale::schedule(&test.app, &schedule, None).await.unwrap() else { panic!("it is scheduled") };
    flash_sale::make_units(&test.app, sale).await.unwrap();
}

#[tokio::test]
async fn a_cart_adds_up_one_line_a_product_and_only_its_owner_changes_it() {
    let test = TestApp::start().await;
    let [ann, bob] = test.customers(2).await.try_into().unwrap_or_else(|_| panic!());
    let (cup, pot) = (test.product(2_000, 1_500).await, test.product(5, 40_000).await);
    let empty = ann.cart().await;
    assert_eq!((&empty["lines"], &empty["total"]["amount"]), (&json!([]), &json!("0")));

    ann.add_to_cart(cup, 2).await;
    ann.add_to_cart(pot, 1).await;
    let cart = ann.add_to_cart(cup, 3).await;
    assert_eq!(cart["id"], empty["id"], "one cart, always");
    assert_eq!((&cart["totalQuantity"], &cart["total"]["amount"], &cart["problems"]), (&json!(6), &json!("47500"), &json!([])));
    let lines: Vec<_> =
        cart["lines"].as_array().unwrap().iter().map(|line| (&line["product"]["id"], &line["lineTotal"]["amount"])).collect();
    assert_eq!(lines, [(&json!(cup.to_string()), &json!("7500")), (&json!(pot.to_string()), &json!("40000"))], "in the order of adding");

    let keyed = json!({ "productId": cup.to_string(), "quantity": 1, "idempotencyKey": new_key() });
    for _ in 0..2 {
        assert_eq!(ann.change_cart("addToCart", keyed.clone()).await["cart"]["totalQuantity"], 7, "the same key adds once");
    }
    let mut other = keyed.clone();
    other["quantity"] = json!(2);
    assert_eq!(refusal(&ann, "addToCart", other).await, error("IDEMPOTENCY_KEY_REUSED", "idempotencyKey"));

    let [cups, pots] = [&cart["lines"][0]["id"], &cart["lines"][1]["id"]];
    let set = |line: &Value, quantity: i32| json!({ "lineId": line, "quantity": quantity });
    for (code, field, mutation, input) in [
        ("INVALID", "quantity", "addToCart", json!({ "productId": cup.to_string(), "quantity": 0 })),
        ("INVALID", "quantity", "addToCart", json!({ "productId": cup.to_string(), "quantity": 1_000 })),
        ("LIMIT_REACHED", "quantity", "addToCart", json!({ "productId": cup.to_string(), "quantity": 994 })),
        ("OUT_OF_STOCK", "quantity", "addToCart", json!({ "productId": pot.to_string(), "quantity": 5 })),
        ("NOT_FOUND", "productId", "addToCart", json!({ "productId": ProductId::new().to_string(), "quantity": 1 })),
        ("NOT_FOUND", "productId", "addToCart", json!({ "productId": "prod_1", "quantity": 1 })),
        ("INVALID", "quantity", "setCartQuantity", set(cups, -1)),
        ("INVALID", "quantity", "setCartQuantity", set(cups, 1_000)),
        ("OUT_OF_STOCK", "quantity", "setCartQuantity", set(pots, 6)),
        ("NOT_FOUND", "lineId", "setCartQuantity", set(&json!("line_1"), 1)),
        ("NOT_FOUND", "lineId", "removeFromCart", json!({ "lineId": pot.to_string() })),
    ] {
        assert_eq!(refusal(&ann, mutation, input.clone()).await, error(code, field), "{mutation} {input}");
    }
    for (mutation, input) in [("setCartQuantity", set(cups, 1)), ("removeFromCart", json!({ "lineId": cups }))] {
        assert_eq!(refusal(&bob, mutation, input).await, error("NOT_FOUND", "lineId"), "of somebody else");
    }

    assert_eq!(ann.change_cart("setCartQuantity", set(pots, 5)).await["cart"]["totalQuantity"], 11);
    assert_eq!(ann.change_cart("setCartQuantity", set(pots, 0)).await["cart"]["totalQuantity"], 6, "none is removed");
    assert_eq!(refusal(&ann, "removeFromCart", json!({ "lineId": pots })).await, error("NOT_FOUND", "lineId"));
    assert_eq!(ann.change_cart("removeFromCart", json!({ "lineId": cups })).await["cart"]["lines"], json!([]));
    ann.add_to_cart(cup, 1).await;
    let cleared = ann.send("mutation { clearCart { cart { lines { id } } userErrors { code } } }", json!({})).await;
    assert_eq!(cleared["clearCart"], json!({ "cart": { "lines": [] }, "userErrors": [] }));
    assert_eq!(bob.cart().await["lines"], json!([]));
    test.finish().await;
}

#[tokio::test]
async fn a_cart_has_a_hundred_lines_at_most() {
    let test = TestApp::start().await;
    let ann = test.customer().await;
    test.execute(
        "WITH p AS (INSERT INTO product (id, title, description, price_minor, currency, available, created_at, updated_at)
             SELECT gen_random_uuid(), 'A thing', '', 9000000000000000000, 'KRW', 0, now(), now() FROM generate_series(1, 100) RETURNING id)
         INSERT INTO cart_line (id, customer_id, product_id, quantity, agreed_price_minor)
         SELECT gen_random_uuid(), c.id, p.id, 999, 1 FROM p, customer c",
    )
    .await;
    let one_more = json!({ "productId": test.product(1, 1).await.to_string(), "quantity": 1 });
    let refused = ann.change_cart("addToCart", one_more).await;
    assert_eq!(refused["userErrors"], json!([{ "code": "LIMIT_REACHED", "field": null }]));
    assert_eq!(ann.cart().await["total"]["amount"], i64::MAX.to_string(), "more than fits is the most that does");
    test.finish().await;
}

#[tokio::test]
async fn additions_at_the_same_moment_add_up_and_one_key_counts_once() {
    let test = TestApp::start().await;
    let ann = test.customer().await;
    let cup = test.product(100, 1_500).await;
    let keyed = json!({ "productId": cup.to_string(), "quantity": 3, "idempotencyKey": new_key() });
    let each = (0..8).map(|n| {
        let input = if n % 2 == 0 { keyed.clone() } else { json!({ "productId": cup.to_string(), "quantity": 1 }) };
        ann.change_cart("addToCart", input)
    });
    for payload in futures_util::future::join_all(each).await {
        assert_eq!(payload["userErrors"], json!([]), "{payload:#}");
    }
    let cart = ann.cart().await;
    assert_eq!((&cart["totalQuantity"], cart["lines"].as_array().unwrap().len()), (&json!(3 + 4), 1));
    test.finish().await;
}

#[tokio::test]
async fn a_cart_tells_what_keeps_its_lines_from_being_bought() {
    let test = TestApp::start().await;
    let [ann, bob] = test.customers(2).await.try_into().unwrap_or_else(|_| panic!());
    let cup = test.product(3, 1_500).await;
    let cart = ann.add_to_cart(cup, 2).await;
    let line = cart["lines"][0]["id"].clone();
    let problem = |code: &str| json!([{ "code": code, "line": { "id": line } }]);
    let set = |quantity: i32| json!({ "lineId": line, "quantity": quantity });

    test.execute("UPDATE product SET price_minor = 2000").await;
    let changed = ann.cart().await;
    assert_eq!((&changed["problems"], &changed["total"]["amount"]), (&problem("PRICE_CHANGED"), &json!("4000")));
    assert_eq!(ann.change_cart("setCartQuantity", set(2)).await["cart"]["problems"], json!([]), "the same quantity agrees");

    bob.add_to_cart(cup, 2).await;
    bob.must_check_out(json!({})).await;
    assert_eq!(ann.cart().await["problems"], problem("OUT_OF_STOCK"));
    assert_eq!(refusal(&ann, "setCartQuantity", set(3)).await, error("OUT_OF_STOCK", "quantity"));
    assert_eq!(ann.change_cart("setCartQuantity", set(1)).await["cart"]["problems"], json!([]), "fewer is possible");

    test.execute("UPDATE product SET archived_at = now()").await;
    assert_eq!(ann.cart().await["problems"], problem("PRODUCT_REMOVED"));
    let refused = refusal(&bob, "addToCart", json!({ "productId": cup.to_string(), "quantity": 1 })).await;
    assert_eq!(refused, error("NOT_FOUND", "productId"));
    for quantity in [1, 2] {
        assert_eq!(refusal(&ann, "setCartQuantity", set(quantity)).await, error("NOT_FOUND", "lineId"), "it can only be removed");
    }
    assert_eq!(ann.change_cart("setCartQuantity", set(0)).await["cart"]["lines"], json!([]), "it can be taken out");
    test.finish().await;
}

#[tokio::test]
async fn while_a_sale_is_open_a_line_is_bought_from_it_or_not_at_all() {
    let test = TestApp::start().await;
    let [ann, bob] = test.customers(2).await.try_into().unwrap_or_else(|_| panic!());
    let cup = test.product(10, 1_500).await;
    ann.add_to_cart(cup, 2).await;
    assert!(ann.cart().await["lines"][0]["flashSale"].is_null());

    sale_of(&test, cup, 3, 2).await;
    let cart = ann.cart().await;
    assert!(cart["lines"][0]["flashSale"]["id"].is_string());
    assert_eq!((&cart["lines"][0]["unitPrice"]["amount"], &cart["problems"][0]["code"]), (&json!("700"), &json!("PRICE_CHANGED")));
    let line = cart["lines"][0]["id"].clone();
    assert_eq!(ann.change_cart("setCartQuantity", json!({ "lineId": line, "quantity": 2 })).await["cart"]["problems"], json!([]));
    let more = json!({ "lineId": line, "quantity": 3 });
    assert_eq!(refusal(&ann, "setCartQuantity", more).await, error("LIMIT_REACHED", "quantity"));

    bob.add_to_cart(cup, 2).await;
    bob.must_check_out(json!({})).await;
    assert_eq!(ann.cart_problems().await, ["OUT_OF_STOCK"], "one unit is left, and seven in the ordinary stock");
    let too_few = ann.check_out(json!({})).await;
    assert_eq!(too_few["userErrors"], json!([{ "code": "OUT_OF_STOCK", "field": null }]), "never the ordinary price unasked");
    ann.change_cart("setCartQuantity", json!({ "lineId": line, "quantity": 1 })).await;
    ann.must_check_out(json!({})).await;
    let refused = refusal(&bob, "addToCart", json!({ "productId": cup.to_string(), "quantity": 1 })).await;
    assert_eq!(refused, error("LIMIT_REACHED", "quantity"), "what bob holds counts");

    test.execute("UPDATE flash_sale SET closes_at = now()").await;
    assert_eq!(ann.add_to_cart(cup, 7).await["lines"][0]["unitPrice"]["amount"], "1500");
    test.finish().await;
}
