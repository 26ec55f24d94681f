//! What staff do with the catalogue: products, categories, stock, sales.

use chrono::{TimeDelta, Utc};
use serde_json::{Value, json};
use whitemonday::{
    domain::ids::{FlashSaleId, OrderId},
    services,
};

use crate::support::{Barrier, Client, Step, TestApp, new_key, statuses, until};

const PRODUCT: &str = "product { id title description images imageUrl available archived price { amount } category { id } }";
const SALE: &str = "flashSale { id phase totalUnits remainingUnits holdSeconds }";
const CATEGORY: &str = "category { id slug name parent { id } }";

/// A mutation's payload, with these fields of it.
async fn ask(client: &Client, mutation: &str, fields: &str, input: Value) -> Value {
    let kind = format!("{}{}Input", mutation[..1].to_uppercase(), &mutation[1..]);
    let query = format!("mutation($input: {kind}!) {{ {mutation}(input: $input) {{ {fields} userErrors {{ code field }} }} }}");
    client.send(&query, json!({ "input": input })).await[mutation].take()
}

/// Code and field of the one user error, like `INVALID price`.
fn error(payload: &Value) -> String {
    let error = &payload["userErrors"][0];
    format!("{} {}", error["code"].as_str().unwrap_or_else(|| panic!("{payload:#}")), error["field"][0].as_str().unwrap_or_default())
}

async fn create(client: &Client, more: Value) -> Value {
    let mut input = json!({ "title": "Cordless vacuum", "description": "Quiet.", "price": "129000", "stock": 10 });
    input.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    ask(client, "createProduct", PRODUCT, input).await
}

async fn new_product(client: &Client, stock: i32) -> String {
    create(client, json!({ "stock": stock })).await["product"]["id"].as_str().unwrap().to_owned()
}

async fn update(client: &Client, input: Value) -> Value {
    ask(client, "updateProduct", PRODUCT, input).await
}

async fn adjust(client: &Client, product: &str, delta: i32, expected: i32, key: &str) -> Value {
    let input = json!({ "productId": product, "delta": delta, "expectedAvailable": expected, "reason": "counted", "idempotencyKey": key });
    ask(client, "adjustStock", PRODUCT, input).await
}

fn sale_of(product: &str, units: i32) -> Value {
    let now = Utc::now();
    json!({ "productId": product, "price": "99000", "opensAt": now - TimeDelta::minutes(1), "closesAt": now + TimeDelta::hours(1),
            "units": units, "perCustomerLimit": 300 })
}

async fn schedule(client: &Client, input: Value) -> Value {
    ask(client, "scheduleFlashSale", SALE, input).await
}

/// An open sale of a product of its own, with all units there.
async fn open_sale(test: &TestApp, staff: &Client, stock: i32, units: i32) -> (String, FlashSaleId) {
    let product = new_product(staff, stock).await;
    let payload = schedule(staff, sale_of(&product, units)).await;
    let sale = FlashSaleId::parse(payload["flashSale"]["id"].as_str().unwrap_or_else(|| panic!("{payload:#}"))).unwrap();
    services::flash_sale::make_units(&test.app, sale).await.unwrap();
    (product, sale)
}

async fn cancel(client: &Client, sale: FlashSaleId) -> Value {
    ask(client, "cancelFlashSale", SALE, json!({ "id": sale.to_string(), "reason": "a fault in the goods" })).await
}

async fn available(client: &Client, product: &str) -> i64 {
    let data = client.send("query($id: ID!) { product(id: $id) { available } }", json!({ "id": product })).await;
    data["product"]["available"].as_i64().unwrap()
}

#[tokio::test]
async fn a_product_is_made_once_per_key_and_its_first_stock_is_explained() {
    let test = TestApp::start().await;
    let staff = test.staff().await;
    let input = json!({ "imageUrl": "https://a.example/1.jpg", "images": ["https://a.example/2.jpg", "https://a.example/1.jpg"],
                        "idempotencyKey": new_key() });
    let made = create(&staff, input.clone()).await;
    assert_eq!(made["product"]["images"], json!(["https://a.example/1.jpg", "https://a.example/2.jpg"]));
    assert_eq!(made["product"]["available"], 10);
    let (again, same) = tokio::join!(create(&staff, input.clone()), create(&staff, input.clone()));
    assert_eq!((&again, &same), (&made, &made));
    let mut other = input.clone();
    other["stock"] = json!(11);
    assert_eq!(error(&create(&staff, other).await), "IDEMPOTENCY_KEY_REUSED idempotencyKey");
    assert_eq!(test.scalar("SELECT count(*) FROM product").await, 1);

    let too_many: Vec<_> = (0..21).map(|number| format!("https://a.example/{number}")).collect();
    for (input, expected) in [
        (json!({ "title": " " }), "INVALID title"),
        (json!({ "description": "x".repeat(20_001) }), "INVALID description"),
        (json!({ "price": "0" }), "INVALID price"),
        (json!({ "price": "1.5" }), "INVALID price"),
        (json!({ "price": "1000000000001" }), "INVALID price"),
        (json!({ "currency": "USD", "price": "1.50" }), "INVALID currency"),
        (json!({ "stock": -1 }), "INVALID stock"),
        (json!({ "images": ["http://a.example/1.jpg"] }), "INVALID images"),
        (json!({ "imageUrl": "javascript:alert(1)" }), "INVALID imageUrl"),
        (json!({ "images": too_many }), "INVALID images"),
        (json!({ "categoryId": "cat_unknown" }), "NOT_FOUND categoryId"),
        (json!({ "categoryId": "cat_00000000000000000000000000000001" }), "NOT_FOUND categoryId"),
    ] {
        assert_eq!(error(&create(&staff, input.clone()).await), expected, "{input}");
    }
    assert_eq!(test.scalar("SELECT count(*) FROM product").await, 1, "what is refused leaves nothing");
    test.finish().await;
}

#[tokio::test]
async fn what_is_left_out_of_an_update_stays_and_null_clears() {
    let test = TestApp::start().await;
    let staff = test.staff().await;
    let category = ask(&staff, "saveCategory", CATEGORY, json!({ "slug": "home", "name": "Home" })).await["category"]["id"].take();
    let made = create(&staff, json!({ "categoryId": category, "images": ["https://a.example/1.jpg"] })).await;
    let id = made["product"]["id"].clone();
    assert_eq!(update(&staff, json!({ "id": id })).await, made);

    let changed = update(&staff, json!({ "id": id, "title": "Vacuum", "price": "99000", "imageUrl": "https://a.example/2.jpg" })).await;
    let product = &changed["product"];
    assert_eq!(
        (&product["title"], &product["price"]["amount"], &product["category"]["id"]),
        (&json!("Vacuum"), &json!("99000"), &category)
    );
    assert_eq!(product["images"], json!(["https://a.example/2.jpg", "https://a.example/1.jpg"]));
    assert_eq!(product["description"], made["product"]["description"]);
    let cleared = update(&staff, json!({ "id": id, "categoryId": null, "images": null, "title": null })).await;
    assert_eq!(cleared["product"]["category"], json!(null));
    assert_eq!(cleared["product"]["images"], json!([]));
    assert_eq!(cleared["product"]["title"], "Vacuum");

    let sale = schedule(&staff, sale_of(id.as_str().unwrap(), 5)).await;
    assert_eq!(sale["flashSale"]["phase"], "SCHEDULED", "its units are not there");
    assert_eq!(error(&update(&staff, json!({ "id": id, "archived": true })).await), "WRONG_STATE archived");
    cancel(&staff, FlashSaleId::parse(sale["flashSale"]["id"].as_str().unwrap()).unwrap()).await;
    assert_eq!(update(&staff, json!({ "id": id, "archived": true })).await["product"]["archived"], true);
    assert_eq!(error(&schedule(&staff, sale_of(id.as_str().unwrap(), 1)).await), "NOT_FOUND productId");

    let count = async |archived: Value| {
        let query = "query($archived: Boolean) { admin { products(archived: $archived) { totalCount nodes { id } } } }";
        staff.send(query, json!({ "archived": archived })).await["admin"]["products"]["totalCount"].take()
    };
    create(&staff, json!({})).await;
    assert_eq!([count(json!(true)).await, count(json!(false)).await, count(json!(null)).await], [json!(1), json!(1), json!(2)]);
    assert_eq!(update(&staff, json!({ "id": id, "archived": false })).await["product"]["archived"], false);
    assert_eq!(error(&update(&staff, json!({ "id": "prod_unknown" })).await), "NOT_FOUND id");

    update(&staff, json!({ "id": id, "archived": true })).await;
    let search = "query { admin { products(filter: { search: \"vacuum\" }) { nodes { id archived } } } }";
    let found = staff.send(search, json!({})).await["admin"]["products"]["nodes"].take();
    assert!(found.as_array().unwrap().contains(&json!({ "id": id, "archived": true })), "staff find archived ones: {found:#}");

    // As before the shop's currency was changed.
    test.execute("UPDATE product SET currency = 'USD'").await;
    assert_eq!(update(&staff, json!({ "id": id, "title": "Vacuum cleaner" })).await["userErrors"], json!([]));
    update(&staff, json!({ "id": id, "price": "88000" })).await;
    assert_eq!(test.scalar("SELECT count(*) FROM product WHERE currency = 'KRW' AND price_minor = 88000").await, 1, "a price has one");
    test.execute("UPDATE product SET currency = 'KRW'").await;
    test.finish().await;
}

#[tokio::test]
async fn of_two_who_adjust_the_stock_at_once_one_is_stale_and_a_key_counts_once() {
    let test = TestApp::start().await;
    let staff = test.staff().await;
    let product = new_product(&staff, 10).await;
    let barrier = Barrier::at(&test, Step { when: "NEW.reason = 'counted'", ..Step::insert("stock_movement") }).await;
    let (first, second) = (new_key(), new_key());
    let (one, other, ()) = tokio::join!(adjust(&staff, &product, 5, 10, &first), adjust(&staff, &product, -3, 10, &second), async {
        barrier.reached(&test).await;
        barrier.has_queue(&test).await;
        barrier.lift().await;
    });
    let outcomes = [&one, &other].map(|payload| payload["userErrors"][0]["code"].clone());
    assert!(outcomes.contains(&json!("STALE")) && outcomes.contains(&json!(null)), "{outcomes:?}");
    let now = available(&staff, &product).await;
    assert!([15, 7].contains(&now));

    let (key, now) = (new_key(), i32::try_from(now).unwrap());
    let (a, b) = tokio::join!(adjust(&staff, &product, 1, now, &key), adjust(&staff, &product, 1, now, &key));
    assert_eq!((&a["userErrors"], &b["userErrors"]), (&json!([]), &json!([])));
    assert_eq!(available(&staff, &product).await, i64::from(now) + 1, "once");
    assert_eq!(error(&adjust(&staff, &product, 2, now + 1, &key).await), "IDEMPOTENCY_KEY_REUSED idempotencyKey");
    assert_eq!(error(&adjust(&staff, &product, 0, now + 1, &new_key()).await), "INVALID delta");
    assert_eq!(error(&adjust(&staff, &product, -now - 2, now + 1, &new_key()).await), "INVALID delta");
    assert_eq!(error(&adjust(&staff, &product, i32::MAX, now + 1, &new_key()).await), "INVALID delta");
    assert_eq!(error(&adjust(&staff, "prod_unknown", 1, 0, &new_key()).await), "NOT_FOUND productId");

    let query = "query($id: ID!, $after: String) { admin { stockMovements(productId: $id, first: 2, after: $after) {
        totalCount pageInfo { hasNextPage endCursor } nodes { id kind quantity reason order { id } flashSale { id } product { id } } } } }";
    let page = staff.send(query, json!({ "id": product })).await["admin"]["stockMovements"].take();
    assert_eq!(page["totalCount"], 3);
    assert_eq!(page["nodes"][0]["kind"], "RECEIVED");
    assert_eq!(page["nodes"][0]["reason"], "counted");
    let rest = staff.send(query, json!({ "id": product, "after": page["pageInfo"]["endCursor"] })).await["admin"]["stockMovements"].take();
    assert_eq!(rest["nodes"][0]["reason"], "first stock");
    let sum: i64 =
        [&page, &rest].iter().flat_map(|page| page["nodes"].as_array().unwrap()).map(|node| node["quantity"].as_i64().unwrap()).sum();
    assert_eq!(sum, available(&staff, &product).await);
    let node = staff.send("query($id: ID!) { node(id: $id) { __typename } }", json!({ "id": page["nodes"][0]["id"] })).await;
    assert_eq!(node["node"]["__typename"], "StockMovement");
    test.finish().await;
}

#[tokio::test]
async fn categories_move_but_never_below_themselves_even_two_at_once() {
    let test = TestApp::start().await;
    let staff = test.staff().await;
    let save = async |input: Value| ask(&staff, "saveCategory", CATEGORY, input).await;
    let make =
        async |slug: &str, parent: Value| save(json!({ "slug": slug, "name": slug, "parentId": parent })).await["category"]["id"].take();
    let (a, b) = (make("a", json!(null)).await, make("b", json!(null)).await);
    let c = make("c", b.clone()).await;
    assert_eq!(error(&save(json!({ "id": b, "slug": "b", "name": "b", "parentId": c })).await), "INVALID parentId");
    assert_eq!(error(&save(json!({ "id": b, "slug": "b", "name": "b", "parentId": b })).await), "INVALID parentId");
    assert_eq!(error(&save(json!({ "slug": "a", "name": "A" })).await), "INVALID slug");
    for slug in ["", "A", "a b", "-a", "a--b", "홈"] {
        assert_eq!(error(&save(json!({ "slug": slug, "name": "x" })).await), "INVALID slug", "{slug}");
    }
    assert_eq!(error(&save(json!({ "slug": "x", "name": "" })).await), "INVALID name");
    assert_eq!(error(&save(json!({ "slug": "x", "name": "x", "parentId": "cat_unknown" })).await), "NOT_FOUND parentId");
    assert_eq!(
        error(&save(json!({ "slug": "x", "name": "x", "parentId": "cat_00000000000000000000000000000001" })).await),
        "NOT_FOUND parentId"
    );
    let renamed = save(json!({ "id": c, "slug": "c", "name": "C" })).await;
    assert_eq!(renamed["category"]["parent"]["id"], b, "it stays where it is");

    // Each of the two moves is right by itself.
    let barrier = Barrier::at(&test, Step::update("category", "NEW.parent_id IS NOT NULL")).await;
    let (one, other, ()) = tokio::join!(
        save(json!({ "id": a, "slug": "a", "name": "a", "parentId": b })),
        save(json!({ "id": b, "slug": "b", "name": "b", "parentId": a })),
        async {
            until(async || (test.waiting_for_locks().await == 2).then_some(())).await;
            barrier.lift().await;
        }
    );
    let refused = [&one, &other].into_iter().filter(|payload| payload["category"].is_null()).count();
    assert_eq!(refused, 1, "{one:#} {other:#}");

    let remove = async |id: &Value| ask(&staff, "removeCategory", CATEGORY, json!({ "id": id })).await;
    assert_eq!(error(&remove(&b).await), "WRONG_STATE id", "something is below it");
    create(&staff, json!({ "categoryId": c })).await;
    assert_eq!(error(&remove(&c).await), "WRONG_STATE id", "it has a product");
    let d = make("d", json!(null)).await;
    assert_eq!(remove(&d).await["category"]["slug"], "d");
    assert_eq!(error(&remove(&d).await), "NOT_FOUND id");
    test.finish().await;
}

#[tokio::test]
async fn a_sale_takes_its_units_from_the_stock_once() {
    let test = TestApp::start_with_jobs().await;
    let staff = test.staff().await;
    let product = new_product(&staff, 10).await;
    let mut input = sale_of(&product, 6);
    input["idempotencyKey"] = json!(new_key());
    let (one, other) = tokio::join!(schedule(&staff, input.clone()), schedule(&staff, input.clone()));
    assert_eq!(one["flashSale"]["id"], other["flashSale"]["id"], "{one:#} {other:#}");
    assert_eq!(one["flashSale"]["holdSeconds"], 300);
    assert_eq!(available(&staff, &product).await, 4);
    let sale = FlashSaleId::parse(one["flashSale"]["id"].as_str().unwrap()).unwrap();
    until(async || (test.free_units(sale).await == 6).then_some(())).await;

    let now = Utc::now();
    let with = |field: &str, value: Value| {
        let mut input = sale_of(&product, 1);
        input[field] = value;
        input
    };
    for (input, expected) in [
        (sale_of(&product, 1), "INVALID opensAt"),
        (with("price", json!("0")), "INVALID price"),
        (with("units", json!(0)), "INVALID units"),
        (with("perCustomerLimit", json!(1000)), "INVALID perCustomerLimit"),
        (with("holdSeconds", json!(29)), "INVALID holdSeconds"),
        (with("closesAt", json!(now - TimeDelta::hours(2))), "INVALID closesAt"),
        (with("closesAt", json!(now - TimeDelta::seconds(1))), "INVALID closesAt"),
        (with("units", json!(5)), "OUT_OF_STOCK units"),
        (with("productId", json!("prod_unknown")), "NOT_FOUND productId"),
    ] {
        assert_eq!(error(&schedule(&staff, input.clone()).await), expected, "{input}");
    }
    input["units"] = json!(1);
    assert_eq!(error(&schedule(&staff, input).await), "IDEMPOTENCY_KEY_REUSED idempotencyKey");

    let fresh = new_product(&staff, 10).await;
    let (one, other) = tokio::join!(schedule(&staff, sale_of(&fresh, 1)), schedule(&staff, sale_of(&fresh, 1)));
    let made = [&one, &other].into_iter().filter(|payload| !payload["flashSale"].is_null()).count();
    assert_eq!(made, 1, "one sale of a product at a time: {one:#} {other:#}");
    assert_eq!(available(&staff, &fresh).await, 9);
    test.finish().await;
}

#[tokio::test]
async fn a_cancelled_sale_gives_money_and_units_back_and_tells_its_customers() {
    let test = TestApp::start().await;
    let staff = test.staff().await;
    let (product, sale) = open_sale(&test, &staff, 12, 10).await;
    let [paid, declined, asks, waiting, shipped] = test.customers(5).await.try_into().unwrap_or_else(|_| panic!());
    test.start_jobs();
    let card = |method: &str| json!({ "paymentMethod": method });
    let paid_order = paid.must_buy(sale, 2, json!({})).await;
    let declined_order = declined.must_buy(sale, 1, card("pm_card_chargeDeclined")).await;
    let asks_order = asks.must_buy(sale, 1, card("pm_card_authenticationRequired")).await;
    let shipped_order = shipped.must_buy(sale, 1, json!({})).await;
    paid.until_order_is(&paid_order, "PAID").await;
    declined.until_order_is(&declined_order, "PAYMENT_FAILED").await;
    shipped.until_order_is(&shipped_order, "PAID").await;
    crate::support::change(&staff, "markPreparing", json!({ "orderId": shipped_order })).await;
    crate::support::change(&staff, "markShipped", json!({ "orderId": shipped_order, "trackingNumber": "KR-1" })).await;

    assert_eq!(cancel(&staff, sale).await["flashSale"]["phase"], "CANCELLED");
    assert_eq!(error(&cancel(&staff, sale).await), "WRONG_STATE id");
    let refused = waiting.buy(sale, 1, json!({})).await;
    assert_eq!(refused["result"]["__typename"], "SaleNotOpen", "{refused:#}");

    paid.until_order_is(&paid_order, "CANCELLED").await;
    asks.until_order_is(&asks_order, "CANCELLED").await;
    // Of ten units one has left; two more were never in the sale.
    until(async || (available(&staff, &product).await == 11).then_some(())).await;
    until(async || (test.unsettled().await == 0).then_some(())).await;
    let query = "query($id: ID!) { order(id: $id) { status history { status reasonCode reason } refunded { amount } } }";
    let order = paid.send(query, json!({ "id": paid_order })).await["order"].take();
    assert_eq!(statuses(&order), ["AWAITING_PAYMENT", "PAID", "CANCELLING", "CANCELLED"]);
    assert_eq!(order["history"][2]["reasonCode"], "SALE_CANCELLED");
    assert_eq!(order["history"][2]["reason"], "a fault in the goods");
    assert_eq!(order["refunded"]["amount"], "198000");
    assert_eq!(shipped.order(&shipped_order).await["status"], "SHIPPED", "what has left has left");
    assert_eq!(declined.order(&declined_order).await["status"], "PAYMENT_FAILED");
    for customer in [&paid, &asks] {
        let told =
            async || test.mails_to(customer.email.as_ref().unwrap()).iter().any(|mail| mail.contains("call off the sale")).then_some(());
        until(told).await;
    }
    assert!(test.mails_to(shipped.email.as_ref().unwrap()).is_empty());
    assert_eq!(test.free_units(sale).await, 0);
    let sale_sum = "SELECT sum(quantity)::bigint FROM stock_movement WHERE kind = 'DEALLOCATED'";
    assert_eq!(test.scalar(sale_sum).await, 9);
    test.finish().await;
}

#[tokio::test]
async fn a_purchase_that_was_under_way_at_the_cancellation_is_called_off_like_the_others() {
    let test = TestApp::start().await;
    let staff = test.staff().await;
    let (product, sale) = open_sale(&test, &staff, 3, 3).await;
    let ann = test.customer().await;
    let barrier = Barrier::at(&test, Step::insert("orders")).await;
    let buys = ann.buy(sale, 1, json!({}));
    let (bought, ()) = tokio::join!(buys, async {
        barrier.reached(&test).await;
        cancel(&staff, sale).await;
        services::flash_sale::end_sales(&test.app).await.unwrap();
        assert_eq!(test.scalar("SELECT count(*) FROM flash_sale WHERE units_returned_at IS NOT NULL").await, 0, "one is being bought");
        barrier.lift().await;
    });
    let order = bought["result"]["order"]["id"].as_str().unwrap_or_else(|| panic!("{bought:#}"));
    assert_eq!(available(&staff, &product).await, 2);
    test.start_jobs();
    ann.until_order_is(order, "CANCELLED").await;
    until(async || (available(&staff, &product).await == 3).then_some(())).await;
    until(async || (test.unsettled().await == 0).then_some(())).await;
    test.finish().await;
}

#[tokio::test]
async fn whoever_is_killed_while_a_sale_is_called_off_is_followed_by_one_who_goes_on() {
    for step in [
        Step::update("orders", "NEW.status = 'CANCELLING'").at_commit(),
        // The last order is one of the second chunk.
        Step::update("orders", "NEW.status = 'CANCELLING' AND NEW.total_minor = 495000").at_commit(),
        Step { when: "NEW.kind = 'DEALLOCATED'", ..Step::insert("stock_movement") },
    ] {
        let test = TestApp::start().await;
        let staff = test.staff().await;
        let (product, sale) = open_sale(&test, &staff, 450, 450).await;
        for (buyer, quantity) in test.customers(3).await.iter().zip([250, 100, 5]) {
            buyer.must_buy(sale, quantity, json!({})).await;
        }
        let mut barrier = Barrier::at(&test, step).await;
        let mut worker = test.worker();
        cancel(&staff, sale).await;
        barrier.reached(&test).await;
        worker.kill();
        barrier.end_waiting().await;
        barrier.lift().await;
        let _next = test.worker();
        until(async || (available(&staff, &product).await == 450 && test.unsettled().await == 0).then_some(())).await;
        assert_eq!(test.scalar("SELECT sum(quantity)::bigint FROM stock_movement WHERE kind = 'DEALLOCATED'").await, 450);
        assert_eq!(test.scalar("SELECT count(*) FROM orders WHERE status = 'CANCELLED'").await, 3);
        test.finish().await;
    }
}

#[tokio::test]
async fn units_that_are_left_of_a_closed_sale_go_back_once_and_so_do_those_that_come_later() {
    let test = TestApp::start().await;
    let staff = test.staff().await;
    let (product, sale) = open_sale(&test, &staff, 10, 10).await;
    let ann = test.customer().await;
    ann.must_buy(sale, 3, json!({})).await;
    test.execute("UPDATE flash_sale SET opens_at = now() - interval '2 hours', closes_at = now() - interval '1 hour'").await;
    assert_eq!(error(&cancel(&staff, sale).await), "WRONG_STATE id", "it has closed");
    let (one, other) = tokio::join!(services::flash_sale::end_sales(&test.app), services::flash_sale::end_sales(&test.app));
    one.and(other).unwrap();
    assert_eq!(available(&staff, &product).await, 7);

    test.execute("UPDATE orders SET hold_expires_at = now() - interval '1 second', created_at = now() - interval '1 hour'").await;
    assert_eq!(test.expire_due().await, 1);
    assert_eq!(available(&staff, &product).await, 10, "at once");
    services::flash_sale::end_sales(&test.app).await.unwrap();
    assert_eq!(available(&staff, &product).await, 10);
    assert_eq!(test.scalar("SELECT count(*) FROM stock_unit").await, 0);
    test.execute("SELECT pgmq.purge_queue('payment')").await;
    test.finish().await;
}

#[tokio::test]
async fn an_order_or_a_sale_that_cannot_be_ended_keeps_no_other_waiting() {
    let test = TestApp::start().await;
    let staff = test.staff().await;
    let (first, later) = (open_sale(&test, &staff, 3, 3).await, open_sale(&test, &staff, 2, 2).await);
    test.execute(&format!("UPDATE flash_sale SET closes_at = closes_at - interval '1 minute' WHERE id = '{}'", first.1.0)).await;
    let [broken, reviewed, ann, bob] = test.customers(4).await.try_into().unwrap_or_else(|_| panic!());
    let mut orders = Vec::new();
    for (customer, sale) in [(&broken, first.1), (&reviewed, first.1), (&ann, first.1), (&bob, later.1)] {
        orders.push(customer.must_buy(sale, 1, json!({})).await);
    }
    let id_of = |order: &str| OrderId::parse(order).unwrap().0;
    let set = async |order: &str, set: &str| test.execute(&format!("UPDATE orders SET {set} WHERE id = '{}'", id_of(order))).await;
    let mails_of = format!("customer SET email_sealed = $1 WHERE id = (SELECT customer_id FROM orders WHERE id = '{}')", id_of(&orders[0]));
    let sealed: Vec<u8> = sqlx::query_scalar("SELECT email_sealed FROM customer c JOIN orders o ON o.customer_id = c.id WHERE o.id = $1")
        .bind(id_of(&orders[0]))
        .fetch_one(&*test.app.db)
        .await
        .unwrap();
    let seal = async |bytes: &[u8]| sqlx::query(&format!("UPDATE {mails_of}")).bind(bytes).execute(&*test.app.db).await.unwrap();
    seal(b"no mail can be written to it").await;
    set(&orders[1], "status = 'IN_REVIEW', status_before_review = 'AWAITING_PAYMENT'").await;
    cancel(&staff, first.1).await;
    cancel(&staff, later.1).await;

    services::flash_sale::end_sales(&test.app).await.unwrap();

    let status = async |order: &str| {
        let status = sqlx::query_scalar("SELECT status FROM orders WHERE id = $1").bind(id_of(order));
        status.fetch_one(&*test.app.db).await.map(|status: String| status).unwrap()
    };
    assert_eq!((status(&orders[2]).await.as_str(), status(&orders[3]).await.as_str()), ("CANCELLED", "CANCELLED"));
    assert_eq!((available(&staff, &first.0).await, available(&staff, &later.0).await), (1, 2));
    assert_eq!(test.scalar("SELECT count(*) FROM flash_sale WHERE units_returned_at IS NOT NULL").await, 1, "two are waited for");

    seal(&sealed).await;
    services::flash_sale::end_sales(&test.app).await.unwrap();
    assert_eq!(status(&orders[0]).await, "CANCELLED");
    assert_eq!(test.scalar("SELECT count(*) FROM flash_sale WHERE units_returned_at IS NOT NULL").await, 1, "one is in review");
    set(&orders[1], "status = 'AWAITING_PAYMENT', status_before_review = NULL").await;
    services::flash_sale::end_sales(&test.app).await.unwrap();
    assert_eq!(status(&orders[1]).await, "CANCELLED");
    assert_eq!(available(&staff, &first.0).await, 3);
    assert_eq!(test.scalar("SELECT count(*) FROM flash_sale WHERE units_returned_at IS NOT NULL").await, 2);
    test.execute("SELECT pgmq.purge_queue('payment')").await;
    test.execute("SELECT pgmq.purge_queue('mail')").await;
    test.finish().await;
}
