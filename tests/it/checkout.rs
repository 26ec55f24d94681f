//! The checkout: a cart becomes one order, of all its lines or of none.

use futures_util::future::join_all;
use serde_json::{Value, json};
use whitemonday::domain::ids::{AddressId, ProductId};

use crate::support::{Barrier, Client, Process, Step, TestApp, change, kept, new_key, status_after, until};

/// What a mixed cart has been made of: a sale's product and an ordinary one.
struct Shop {
    test: TestApp,
    sale: whitemonday::domain::ids::FlashSaleId,
    in_sale: ProductId,
    ordinary: ProductId,
}

impl Shop {
    const UNITS: i64 = 5;
    const PIECES: i64 = 8;

    async fn open(test: TestApp) -> Self {
        let sale = test.open_sale(5, 5).await;
        let (in_sale, ordinary) = (test.product_of(sale).await, test.product(8, 1_500).await);
        Self { test, sale, in_sale, ordinary }
    }

    /// Two units and three pieces.
    async fn fill(&self, client: &Client) -> Value {
        client.add_to_cart(self.ordinary, 3).await;
        client.add_to_cart(self.in_sale, 2).await
    }

    /// Units and pieces that nobody holds.
    async fn left(&self) -> (i64, i64) {
        (self.test.free_units(self.sale).await, self.test.available(self.ordinary).await)
    }

    /// Nobody holds anything.
    async fn assert_full(&self) {
        assert_eq!(self.left().await, (Self::UNITS, Self::PIECES));
        assert_eq!(self.test.broken_invariants().await, Vec::<&str>::new());
    }
}

fn user_error(code: &str, field: Value) -> Value {
    json!({ "order": null, "userErrors": [{ "code": code, "field": field }] })
}

#[tokio::test]
async fn a_cart_of_ordinary_and_flash_lines_becomes_one_order_and_is_empty_afterwards() {
    let shop = Shop::open(TestApp::start_with_jobs().await).await;
    let ann = shop.test.customer().await;
    let cart = shop.fill(&ann).await;
    let input = json!({ "expectedTotal": cart["total"]["amount"], "deliveryNote": "The red door", "idempotencyKey": new_key() });

    let order = ann.check_out(input.clone()).await["order"].take();
    assert_eq!(order["total"], cart["total"]);
    let sold: Vec<_> = order["lines"].as_array().unwrap().iter().map(|line| [&line["quantity"], &line["flashSale"]["id"]]).collect();
    assert_eq!(sold, [[&json!(3), &json!(null)], [&json!(2), &json!(shop.sale.to_string())]]);
    assert_eq!(shop.left().await, (Shop::UNITS - 2, Shop::PIECES - 3));
    assert_eq!(ann.cart().await["lines"], json!([]));

    // A cart that was filled anew is not what the first call was about.
    shop.fill(&ann).await;
    assert_eq!(ann.check_out(input.clone()).await["order"]["id"], order["id"], "the same key, the same order");
    assert_eq!(ann.cart().await["totalQuantity"], 5);
    let mut other = input.clone();
    other["expectedTotal"] = json!("1");
    assert_eq!(ann.check_out(other).await, user_error("IDEMPOTENCY_KEY_REUSED", json!(["idempotencyKey"])));

    let id = order["id"].as_str().unwrap();
    ann.until_order_is(id, "PAID").await;
    let note = ann.send("query($id: ID!) { order(id: $id) { deliveryNote } }", json!({ "id": id })).await;
    assert_eq!(note["order"]["deliveryNote"], "The red door");
    status_after(&ann, "cancelOrder", json!({ "orderId": id, "idempotencyKey": new_key() })).await;
    ann.until_order_is(id, "CANCELLED").await;
    shop.assert_full().await;
    assert_eq!(kept(&shop.test), 0);
    shop.test.finish().await;
}

#[tokio::test]
async fn a_refused_checkout_takes_nothing_and_leaves_the_key_free() {
    let shop = Shop::open(TestApp::start().await).await;
    let test = &shop.test;
    let ann = test.customer().await;
    let key = new_key();
    let check_out = async |input: Value| {
        let mut input = input;
        input["idempotencyKey"] = json!(key);
        ann.check_out(input).await
    };
    assert_eq!(check_out(json!({})).await, user_error("CART_EMPTY", json!(null)));

    let total = shop.fill(&ann).await["total"]["amount"].as_str().unwrap().to_owned();
    let long = "x".repeat(501);
    for (input, refused) in [
        (json!({ "expectedTotal": "1" }), user_error("CART_CHANGED", json!(["expectedTotal"]))),
        (json!({ "expectedTotal": "1.5" }), user_error("INVALID", json!(["expectedTotal"]))),
        (json!({ "paymentMethod": "" }), user_error("INVALID", json!(["paymentMethod"]))),
        (json!({ "deliveryNote": long }), user_error("INVALID", json!(["deliveryNote"]))),
        (json!({ "addressId": AddressId::new().to_string() }), user_error("NOT_FOUND", json!(["addressId"]))),
        (json!({ "addressId": "nonsense" }), user_error("NOT_FOUND", json!(["addressId"]))),
    ] {
        assert_eq!(check_out(input.clone()).await, refused, "{input}");
    }
    for (make, unmake, code, field) in [
        (
            "UPDATE customer SET email_verified_at = NULL",
            "UPDATE customer SET email_verified_at = now()",
            "EMAIL_NOT_VERIFIED",
            json!(null),
        ),
        ("UPDATE product SET archived_at = now()", "UPDATE product SET archived_at = NULL", "CART_CHANGED", json!(["expectedTotal"])),
        (
            "UPDATE product SET price_minor = price_minor + 1 WHERE title = 'A thing'",
            "UPDATE product SET price_minor = price_minor - 1 WHERE title = 'A thing'",
            "CART_CHANGED",
            json!(["expectedTotal"]),
        ),
        (
            "UPDATE purchase_quota SET purchase_limit = 1; UPDATE flash_sale SET per_customer_limit = 1",
            "UPDATE purchase_quota SET purchase_limit = 5; UPDATE flash_sale SET per_customer_limit = 5",
            "LIMIT_REACHED",
            json!(null),
        ),
        ("UPDATE cart_line SET quantity = 9", "UPDATE cart_line SET quantity = 3", "OUT_OF_STOCK", json!(null)),
    ] {
        test.execute(make).await;
        assert_eq!(check_out(json!({})).await, user_error(code, field), "{make}");
        test.execute(unmake).await;
        assert_eq!(ann.cart_problems().await, Vec::<String>::new());
    }
    assert_eq!(test.anonymous().try_check_out(json!({})).await["errors"][0]["extensions"]["code"], "UNAUTHENTICATED");
    shop.assert_full().await;
    assert_eq!(test.scalar("SELECT count(*) FROM orders").await, 0);

    // A total that the customer was shown agrees to a price that has changed.
    test.execute("UPDATE cart_line SET quantity = 2; UPDATE product SET price_minor = price_minor + 100 WHERE title = 'A thing'").await;
    assert_eq!(check_out(json!({ "expectedTotal": total })).await, user_error("CART_CHANGED", json!(["expectedTotal"])));
    let now = ann.cart().await["total"]["amount"].take();
    assert_eq!(check_out(json!({ "expectedTotal": now })).await["order"]["total"]["amount"], now);
    shop.test.finish().await;
}

#[tokio::test]
async fn a_claim_that_is_refused_in_its_midst_takes_nothing_and_leaves_the_key_free() {
    let shop = Shop::open(TestApp::start().await).await;
    let test = &shop.test;
    let ann = test.customer().await;
    shop.fill(&ann).await;
    let cart = ann.cart().await;
    let key = new_key();
    // What others do between the look at the cart and the claim: units are claimed by then, pieces are not; the sale is over.
    for (make, unmake, code, field) in [
        (
            format!("UPDATE product SET available = available - 6 WHERE id = '{}'", shop.ordinary.0),
            format!("UPDATE product SET available = available + 6 WHERE id = '{}'", shop.ordinary.0),
            "OUT_OF_STOCK",
            json!(null),
        ),
        (
            format!("UPDATE flash_sale SET closes_at = now() WHERE id = '{}'", shop.sale.0),
            format!("UPDATE flash_sale SET closes_at = now() + interval '1 hour' WHERE id = '{}'", shop.sale.0),
            "CART_CHANGED",
            json!(["expectedTotal"]),
        ),
    ] {
        let barrier = Barrier::at(test, Step::insert("order_line")).await;
        let checked_out = tokio::spawn({
            let (ann, input) = (ann.clone(), json!({ "idempotencyKey": key }));
            async move { ann.check_out(input).await }
        });
        barrier.reached(test).await;
        test.execute(&make).await;
        barrier.lift().await;
        assert_eq!(checked_out.await.unwrap(), user_error(code, field));
        test.execute(&unmake).await;
        shop.assert_full().await;
        assert_eq!(ann.cart().await, cart);
        assert_eq!(test.scalar("SELECT count(*) FROM orders").await, 0);
    }
    ann.must_check_out(json!({ "idempotencyKey": key })).await;
    assert_eq!(shop.left().await, (Shop::UNITS - 2, Shop::PIECES - 3));
    shop.test.finish().await;
}

#[tokio::test]
async fn an_unpaid_order_is_kept_as_long_as_the_shortest_hold_of_its_lines() {
    let shop = Shop::open(TestApp::start_with_jobs().await).await;
    let test = &shop.test;
    let ann = test.customer().await;
    let minutes_from = |start: &str| {
        format!("SELECT round(extract(epoch FROM hold_expires_at - {start}) / 60)::bigint FROM orders ORDER BY id DESC LIMIT 1")
    };
    for (hold, products, kept) in [
        (5, &[shop.in_sale, shop.ordinary][..], 5),
        (30, &[shop.in_sale, shop.ordinary], 15),
        (30, &[shop.in_sale], 30),
        (30, &[shop.ordinary], 15),
    ] {
        test.execute(&format!("UPDATE flash_sale SET hold_seconds = {hold} * 60")).await;
        for product in products {
            ann.add_to_cart(*product, 1).await;
        }
        let order = ann.must_check_out(json!({ "paymentMethod": "pm_card_chargeDeclined" })).await;
        ann.until_order_is(&order, "PAYMENT_FAILED").await;
        assert_eq!(test.scalar(&minutes_from("created_at")).await, kept, "{products:?}");
        let again = json!({ "orderId": order, "paymentMethod": "pm_card_authenticationRequired", "idempotencyKey": new_key() });
        assert_eq!(status_after(&ann, "retryPayment", again).await, "AWAITING_PAYMENT");
        assert_eq!(test.scalar(&minutes_from("updated_at")).await, kept, "{products:?}, once more");
        status_after(&ann, "cancelOrder", json!({ "orderId": order, "idempotencyKey": new_key() })).await;
        ann.until_order_is(&order, "CANCELLED").await;
    }
    shop.test.finish().await;
}

#[tokio::test]
async fn different_checkouts_of_one_customer_have_a_limit_and_a_repeated_one_has_none() {
    let test = TestApp::start_with(&[("BUY_NOW_BURST", "2"), ("BUY_NOW_PER_MINUTE", "1")]).await;
    let ann = test.customer().await;
    let key = new_key();
    for _ in 0..5 {
        assert_eq!(ann.check_out(json!({ "idempotencyKey": key })).await["userErrors"][0]["code"], "CART_EMPTY");
    }
    ann.check_out(json!({})).await;
    assert_eq!(ann.try_check_out(json!({})).await["errors"][0]["extensions"]["code"], "RATE_LIMITED");
    test.finish().await;
}

#[tokio::test]
async fn two_checkouts_of_one_cart_at_the_same_moment_are_one_order() {
    let shop = Shop::open(TestApp::start().await).await;
    let test = &shop.test;
    let (_second, address) = test.second_server().await;
    for has_one_key in [true, false] {
        let ann = test.customer().await;
        shop.fill(&ann).await;
        let first_key = new_key();
        let second_key = if has_one_key { first_key.clone() } else { new_key() };
        // The first one waits in the midst of its transaction, the second one behind it.
        let barrier = Barrier::at(test, Step::insert("order_line")).await;
        let spawn = |client: Client, key: &str| {
            let input = json!({ "idempotencyKey": key });
            tokio::spawn(async move { client.check_out(input).await })
        };
        let first = spawn(ann.clone(), &first_key);
        barrier.reached(test).await;
        let second = spawn(ann.at(address), &second_key);
        barrier.has_queue(test).await;
        barrier.lift().await;

        let (first, second) = (first.await.unwrap(), second.await.unwrap());
        assert!(first["order"]["id"].is_string(), "{first:#}");
        if has_one_key {
            assert_eq!(first["order"]["id"], second["order"]["id"]);
        } else {
            assert_eq!(second, user_error("CART_EMPTY", json!(null)));
        }
        change(&ann, "cancelOrder", json!({ "orderId": first["order"]["id"], "idempotencyKey": new_key() })).await;
        shop.assert_full().await;
    }
    assert_eq!(test.scalar("SELECT count(*) FROM orders").await, 2);
    shop.test.finish().await;
}

#[tokio::test]
async fn of_many_carts_one_gets_the_last_unit_and_one_the_last_piece() {
    let test = TestApp::start().await;
    let sale = test.open_sale(1, 1).await;
    for product in [test.product(1, 1_500).await, test.product_of(sale).await] {
        let rivals = test.customers(8).await;
        for rival in &rivals {
            rival.add_to_cart(product, 1).await;
        }
        let payloads = join_all(rivals.iter().map(|rival| rival.check_out(json!({})))).await;
        let (won, lost): (Vec<_>, Vec<_>) = payloads.iter().partition(|payload| payload["order"]["id"].is_string());
        assert_eq!(won.len(), 1, "{payloads:#?}");
        assert!(lost.iter().all(|payload| **payload == user_error("OUT_OF_STOCK", json!(null))), "{lost:#?}");
    }
    test.finish().await;
}

#[tokio::test]
async fn carts_in_any_order_purchases_and_ends_of_orders_never_wait_in_a_circle() {
    let test = TestApp::start_with_jobs().await;
    let (_second, address) = test.second_server().await;
    let mut products = Vec::new();
    let mut sales = Vec::new();
    for _ in 0..3 {
        let sale = test.open_sale(200, 200).await;
        products.extend([test.product_of(sale).await, test.product(200, 1_500).await]);
        sales.push(sale);
    }
    let buyers = test.customers(10).await;
    let work = buyers.into_iter().enumerate().map(|(number, buyer)| {
        let buyer = if number % 2 == 0 { buyer } else { buyer.at(address) };
        let mut wanted = products.clone();
        let sale = sales[number % sales.len()];
        // Some begin with the first product, some with the last.
        if number % 3 == 0 {
            wanted.reverse();
        }
        wanted.rotate_left(number % products.len());
        async move {
            for round in 0..3 {
                for product in &wanted {
                    buyer.add_to_cart(*product, 1).await;
                }
                let card = if (number + round) % 3 == 0 { "pm_card_chargeDeclined" } else { "pm_card_visa" };
                let key = json!(new_key());
                let (order, _) =
                    tokio::join!(buyer.must_check_out(json!({ "paymentMethod": card })), buyer.buy_patiently(sale, 1, card, &key));
                if (number + round) % 2 == 0 {
                    change(&buyer, "cancelOrder", json!({ "orderId": order, "idempotencyKey": new_key() })).await;
                }
            }
        }
    });
    join_all(work).await;
    until(async || (test.unsettled().await == 0).then_some(())).await;
    assert_eq!(test.scalar("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()").await, 0);
    assert_eq!(test.scalar("SELECT count(*) FROM orders WHERE mutation = 'checkOutCart'").await, 30);
    test.finish().await;
}

#[tokio::test]
async fn a_claim_has_all_its_quotas_before_it_touches_a_counter() {
    let test = TestApp::start().await;
    let mut sales = [test.open_sale(5, 5).await, test.open_sale(5, 5).await];
    sales.sort_by_key(|sale| sale.0);
    let buyer = test.customer().await;
    let fill = async || {
        for sale in sales {
            buyer.add_to_cart(test.product_of(sale).await, 1).await;
        }
    };
    // Afterwards there are rows of its quotas and counters.
    fill().await;
    buyer.must_check_out(json!({})).await;

    fill().await;
    let mut held = test.app.for_jobs().db.begin().await.unwrap();
    sqlx::query("SELECT FROM purchase_quota WHERE sale_id = $1 FOR UPDATE").bind(sales[1].0).execute(&mut *held).await.unwrap();
    let look = async {
        until(async || (test.waiting_for_locks().await == 1).then_some(())).await;
        let counters = sqlx::query("SELECT FROM sale_counter WHERE sale_id = $1 FOR UPDATE NOWAIT").bind(sales[0].0);
        assert_eq!(counters.execute(&mut *held).await.expect("nobody has them").rows_affected(), 1);
        held.rollback().await.unwrap();
    };
    tokio::join!(buyer.must_check_out(json!({})), look);
    test.finish().await;
}

#[tokio::test]
async fn a_mixed_order_that_ends_in_any_way_gives_all_of_it_back_once() {
    let shop = Shop::open(TestApp::start_with_jobs().await).await;
    let test = &shop.test;
    let (ann, staff) = (test.customer().await, test.staff().await);
    let key = || json!(new_key());

    // Declined, then paid by another card, then called off.
    shop.fill(&ann).await;
    let order = ann.must_check_out(json!({ "paymentMethod": "pm_card_chargeDeclined" })).await;
    ann.until_order_is(&order, "PAYMENT_FAILED").await;
    shop.assert_full().await;
    let retry = json!({ "orderId": order, "paymentMethod": "pm_card_visa", "idempotencyKey": key() });
    assert_eq!(status_after(&ann, "retryPayment", retry).await, "AWAITING_PAYMENT");
    ann.until_order_is(&order, "PAID").await;
    assert_eq!(shop.left().await, (Shop::UNITS - 2, Shop::PIECES - 3));
    status_after(&staff, "cancelOrder", json!({ "orderId": order, "idempotencyKey": key() })).await;
    ann.until_order_is(&order, "CANCELLED").await;
    shop.assert_full().await;

    // Its customer never comes back from the bank.
    shop.fill(&ann).await;
    let order = ann.must_check_out(json!({ "paymentMethod": "pm_card_authenticationRequired" })).await;
    until(async || (ann.order(&order).await["payments"][0]["status"] == "REQUIRES_ACTION").then_some(())).await;
    test.execute("UPDATE orders SET hold_expires_at = now() - interval '1 second' WHERE status = 'AWAITING_PAYMENT'").await;
    test.execute("UPDATE payment SET next_query_at = now() WHERE status = 'REQUIRES_ACTION'").await;
    ann.until_order_is(&order, "EXPIRED").await;
    shop.assert_full().await;

    // Sent, and sent back.
    shop.fill(&ann).await;
    let order = ann.must_check_out(json!({})).await;
    ann.until_order_is(&order, "PAID").await;
    let id = json!({ "orderId": order });
    status_after(&staff, "markPreparing", id.clone()).await;
    status_after(&staff, "markShipped", json!({ "orderId": order, "trackingNumber": "KR-1" })).await;
    status_after(&staff, "markDelivered", id.clone()).await;
    status_after(&ann, "requestReturn", json!({ "orderId": order, "reason": "x", "idempotencyKey": key() })).await;
    status_after(&staff, "approveReturn", json!({ "orderId": order, "restock": true })).await;
    ann.until_order_is(&order, "REFUNDED").await;
    shop.assert_full().await;
    assert_eq!(kept(test), 0);
    shop.test.finish().await;
}

#[tokio::test]
async fn a_server_killed_in_the_midst_of_a_checkout_leaves_an_order_with_all_of_it_or_a_full_cart() {
    let order = Step::insert("orders");
    let line = Step::delete("cart_line");
    for step in [order, Step::update("product", "NEW.available < OLD.available"), line, line.at_commit(), order.at_commit()] {
        let shop = Shop::open(TestApp::start().await).await;
        let ann = shop.test.customer().await;
        shop.fill(&ann).await;
        let (mut server, address) = Process::server(&shop.test, &[]).await;
        let barrier = Barrier::at(&shop.test, step).await;
        let key = json!(new_key());
        let asked = tokio::spawn({
            let (ann, key) = (ann.at(address), key.clone());
            async move {
                let input = json!({ "paymentMethod": "pm_card_visa", "idempotencyKey": key });
                let query = "mutation($input: CheckOutCartInput!) { checkOutCart(input: $input) { order { id } } }";
                ann.post().json(&json!({ "query": query, "variables": { "input": input } })).send().await.is_ok()
            }
        });
        barrier.reached(&shop.test).await;
        server.kill();
        assert!(!asked.await.unwrap(), "the answer is lost");
        barrier.lift().await;

        // The same request again, at another server.
        let order = ann.must_check_out(json!({ "idempotencyKey": key })).await;
        assert_eq!(ann.must_check_out(json!({ "idempotencyKey": key })).await, order);
        assert_eq!(ann.cart().await["lines"], json!([]), "{step:?}");
        assert_eq!(shop.left().await, (Shop::UNITS - 2, Shop::PIECES - 3), "{step:?}");
        assert_eq!(shop.test.scalar("SELECT count(*) FROM orders").await, 1);
        shop.test.start_jobs();
        ann.until_order_is(&order, "PAID").await;
        shop.test.finish().await;
    }
}
