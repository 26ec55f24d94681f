//! `buyNow`: every answer it can give, and that it never gives more than there is.

use std::collections::HashMap;

use chrono::TimeDelta;
use futures_util::{StreamExt, future::join_all, stream};
use serde_json::json;

use crate::support::{TestApp, client::BUY_NOW, new_key};

#[tokio::test]
async fn more_than_the_limit_is_refused_with_what_is_held() {
    let test = TestApp::start().await;
    let sale = test.open_sale(10, 3).await;
    let ann = test.customer().await;

    assert_eq!(ann.buy(sale, 4, json!({})).await["result"], json!({ "__typename": "PurchaseLimitReached", "limit": 3, "held": 0 }));
    ann.must_buy(sale, 2, json!({})).await;
    assert_eq!(ann.buy(sale, 2, json!({})).await["result"], json!({ "__typename": "PurchaseLimitReached", "limit": 3, "held": 2 }));
    ann.must_buy(sale, 1, json!({})).await;
    assert_eq!(test.free_units(sale).await, 7);
    test.finish().await;
}

#[tokio::test]
async fn the_last_units_go_to_whoever_asks_for_no_more_than_are_left() {
    let test = TestApp::start().await;
    let sale = test.open_sale(3, 3).await;
    let [ann, bob, cid] = test.customers(3).await.try_into().unwrap_or_else(|_| panic!());

    ann.must_buy(sale, 2, json!({})).await;
    assert_eq!(bob.buy(sale, 2, json!({})).await["result"], json!({ "__typename": "NotEnoughLeft", "remaining": 1 }));
    bob.must_buy(sale, 1, json!({})).await;
    assert_eq!(
        cid.buy(sale, 1, json!({})).await["result"],
        json!({ "__typename": "SoldOut", "holdsPending": true, "flashSale": { "phase": "SOLD_OUT_HOLDS_PENDING", "remainingUnits": 0 } })
    );
    test.finish().await;
}

#[tokio::test]
async fn sold_out_says_whether_units_may_come_back() {
    let test = TestApp::start_with_jobs().await;
    let sale = test.open_sale(1, 1).await;
    let [ann, bob] = test.customers(2).await.try_into().unwrap_or_else(|_| panic!());

    let order = ann.must_buy(sale, 1, json!({})).await;
    ann.until_order_is(&order, "PAID").await;

    let answer = bob.buy(sale, 1, json!({})).await;
    assert_eq!(answer["result"]["holdsPending"], false);
    assert_eq!(answer["result"]["flashSale"]["phase"], "SOLD_OUT");
    test.finish().await;
}

#[tokio::test]
async fn a_sale_sells_only_between_its_opening_and_its_end() {
    let test = TestApp::start().await;
    let ann = test.customer().await;
    let early = test.sale_opening_in(TimeDelta::hours(1)).await;
    assert_eq!(ann.buy(early, 1, json!({})).await["result"]["__typename"], "SaleNotOpen");

    let sale = test.open_sale(5, 5).await;
    let key = json!({ "idempotencyKey": new_key() });
    let order = ann.must_buy(sale, 1, key.clone()).await;
    test.execute("UPDATE flash_sale SET opens_at = now() - interval '2 hours', closes_at = now() - interval '1 hour'").await;

    assert_eq!(ann.buy(sale, 1, json!({})).await["result"]["__typename"], "SaleNotOpen");
    let replay = ann.buy(sale, 1, key).await;
    assert_eq!(replay["result"]["order"]["id"], json!(order), "an earlier success is answered whatever the window says");
    assert_eq!(test.free_units(early).await, 5);
    assert_eq!(test.free_units(sale).await, 4);
    test.finish().await;
}

#[tokio::test]
async fn a_key_belongs_to_one_request_of_one_customer() {
    let test = TestApp::start().await;
    let sale = test.open_sale(2, 2).await;
    let [ann, bob] = test.customers(2).await.try_into().unwrap_or_else(|_| panic!());
    let key = json!({ "idempotencyKey": new_key() });

    let order = ann.must_buy(sale, 1, key.clone()).await;
    let changed = ann.buy(sale, 2, key.clone()).await;
    assert_eq!(changed["userErrors"], json!([{ "code": "IDEMPOTENCY_KEY_REUSED", "field": ["idempotencyKey"] }]));
    assert_eq!(changed["result"], json!(null));

    // A client that lost the answer makes a new card token, and the shop is sold out by now.
    let bobs = bob.must_buy(sale, 1, key.clone()).await;
    assert_ne!(bobs, order, "keys of two customers are two keys");
    let replay = ann.buy(sale, 1, json!({ "idempotencyKey": key["idempotencyKey"], "paymentMethod": "pm_card_mastercard" })).await;
    assert_eq!((&replay["result"]["order"]["id"], &replay["result"]["replayed"]), (&json!(order), &json!(true)));
    test.finish().await;
}

#[tokio::test]
async fn the_same_request_many_times_at_once_is_one_order() {
    let test = TestApp::start().await;
    let sale = test.open_sale(20, 20).await;
    let ann = test.customer().await;
    let key = json!({ "idempotencyKey": new_key() });

    let answers = join_all((0..10).map(|_| ann.buy(sale, 1, key.clone()))).await;

    let orders: Vec<_> = answers.iter().filter_map(|answer| answer["result"]["order"]["id"].as_str()).collect();
    assert!(!orders.is_empty());
    assert!(orders.iter().all(|id| *id == orders[0]));
    let others = answers.iter().filter(|answer| answer["result"]["order"].is_null());
    others.for_each(|answer| assert_eq!(answer["result"]["__typename"], "Busy", "{answer:#}"));
    assert_eq!(test.free_units(sale).await, 19);
    test.finish().await;
}

#[tokio::test]
async fn two_hundred_buyers_share_fifty_units_and_not_one_more() {
    let test = TestApp::start_with_jobs().await;
    let sale = test.open_sale(50, 3).await;
    let buyers = test.customers(200).await;

    let buy = |(number, buyer): (usize, &crate::support::Client)| {
        let buyer = buyer.clone();
        async move {
            let quantity = i32::try_from(number % 3).unwrap() + 1;
            let answer = buyer.buy_patiently(sale, quantity, "pm_card_visa", &json!(new_key())).await;
            (buyer, quantity, answer)
        }
    };
    let answers: Vec<_> = stream::iter(buyers.iter().enumerate()).map(buy).buffer_unordered(200).collect().await;

    let mut outcomes: HashMap<String, i32> = HashMap::new();
    let mut sold = 0;
    for (buyer, quantity, answer) in &answers {
        let outcome = answer["result"]["__typename"].as_str().unwrap_or_else(|| panic!("{answer:#}"));
        *outcomes.entry(outcome.to_owned()).or_default() += 1;
        if outcome == "OrderAccepted" {
            sold += quantity;
            buyer.until_order_is(answer["result"]["order"]["id"].as_str().unwrap(), "PAID").await;
        }
    }
    assert_eq!(sold, 50, "{outcomes:?}");
    assert!(outcomes.keys().all(|name| matches!(name.as_str(), "OrderAccepted" | "SoldOut" | "NotEnoughLeft")), "{outcomes:?}");
    assert_eq!(test.free_units(sale).await, 0);
    assert_eq!(
        test.simulator.simulator.ledger().charges as usize,
        answers.iter().filter(|(.., a)| !a["result"]["order"].is_null()).count()
    );
    test.finish().await;
}

#[tokio::test]
async fn bad_input_is_a_user_error_and_leaves_nothing() {
    let test = TestApp::start().await;
    let sale = test.open_sale(5, 5).await;
    let [ann, bob] = test.customers(2).await.try_into().unwrap_or_else(|_| panic!());
    let bobs_address = bob.send("{ viewer { addresses { id } } }", json!({})).await["viewer"]["addresses"][0]["id"].take();

    for (input, code, field) in [
        (json!({ "quantity": 0 }), "INVALID", "quantity"),
        (json!({ "quantity": -1 }), "INVALID", "quantity"),
        (json!({ "quantity": 10_000 }), "INVALID", "quantity"),
        (json!({ "paymentMethod": "" }), "INVALID", "paymentMethod"),
        (json!({ "paymentMethod": "pm card" }), "INVALID", "paymentMethod"),
        (json!({ "deliveryNote": "a\u{0}b" }), "INVALID", "deliveryNote"),
        (json!({ "deliveryNote": "x".repeat(501) }), "INVALID", "deliveryNote"),
        (json!({ "flashSaleId": "sale_1" }), "NOT_FOUND", "flashSaleId"),
        (json!({ "flashSaleId": "sale_00000000000000000000000000000000" }), "NOT_FOUND", "flashSaleId"),
        (json!({ "addressId": bobs_address }), "NOT_FOUND", "addressId"),
        (json!({ "addressId": "addr_x" }), "NOT_FOUND", "addressId"),
    ] {
        let payload = ann.buy(sale, 1, input.clone()).await;
        assert_eq!(payload, json!({ "result": null, "userErrors": [{ "code": code, "field": [field] }] }), "{input}");
    }
    let whole = json!({ "flashSaleId": sale.to_string(), "quantity": 1, "paymentMethod": "pm_card_visa", "idempotencyKey": "not-a-uuid" });
    assert_eq!(ann.error_code(BUY_NOW, json!({ "input": whole })).await, "BAD_REQUEST");
    let whole =
        json!({ "flashSaleId": sale.to_string(), "quantity": 3_000_000_000_i64, "paymentMethod": "x", "idempotencyKey": new_key() });
    assert_eq!(ann.error_code(BUY_NOW, json!({ "input": whole })).await, "BAD_REQUEST");

    assert_eq!(test.scalar("SELECT count(*) FROM orders").await, 0);
    assert_eq!(test.free_units(sale).await, 5);
    test.finish().await;
}

#[tokio::test]
async fn only_a_signed_in_customer_with_a_verified_address_may_buy() {
    let test = TestApp::start().await;
    let sale = test.open_sale(5, 5).await;
    let input = json!({ "flashSaleId": sale.to_string(), "quantity": 1, "paymentMethod": "pm_card_visa", "idempotencyKey": new_key() });
    assert_eq!(test.anonymous().error_code(BUY_NOW, json!({ "input": input })).await, "UNAUTHENTICATED");

    let ann = test.customer().await;
    test.execute("UPDATE customer SET email_verified_at = NULL").await;
    assert_eq!(ann.buy(sale, 1, json!({})).await["userErrors"], json!([{ "code": "EMAIL_NOT_VERIFIED", "field": null }]));
    assert_eq!(test.free_units(sale).await, 5);
    test.finish().await;
}

#[tokio::test]
async fn without_a_connection_to_be_had_the_answer_is_busy_and_nothing_is_taken() {
    let test = TestApp::start().await;
    let sale = test.open_sale(5, 5).await;
    let ann = test.customer().await;

    let taken = join_all((0..2).map(|_| test.app.claims_db.acquire())).await;
    let answer = ann.buy(sale, 1, json!({})).await;
    drop(taken);

    assert_eq!(answer["result"]["__typename"], "Busy");
    assert!(answer["result"]["retryAfterMs"].as_i64().unwrap() > 0);
    assert_eq!(test.free_units(sale).await, 5);
    test.finish().await;
}

#[tokio::test]
async fn units_that_others_have_locked_are_contended_and_never_called_sold_out() {
    let test = TestApp::start().await;
    let sale = test.open_sale(2, 2).await;
    let ann = test.customer().await;

    let mut other = test.app.db.begin().await.unwrap();
    sqlx::query("SELECT 1 FROM stock_unit FOR UPDATE").execute(&mut *other).await.unwrap();
    assert_eq!(ann.buy(sale, 1, json!({})).await["result"]["__typename"], "Busy");
    other.rollback().await.unwrap();

    ann.must_buy(sale, 1, json!({})).await;
    test.finish().await;
}

#[tokio::test]
async fn many_different_purchases_of_one_customer_at_once_stay_within_the_limit() {
    let test = TestApp::start_with(&[("BUY_NOW_BURST", "100")]).await;
    let (_second, address) = test.second_server().await;
    let sale = test.open_sale(50, 3).await;
    let ann = test.customer().await;

    let clients = [ann.clone(), ann.at(address)];
    let answers = join_all((0..20).map(|number| clients[number % 2].buy(sale, 1, json!({})))).await;

    let accepted = answers.iter().filter(|answer| answer["result"]["__typename"] == "OrderAccepted").count();
    assert_eq!(accepted, 3);
    let others = answers.iter().map(|answer| answer["result"]["__typename"].as_str().unwrap());
    assert!(
        others.clone().all(|name| matches!(name, "OrderAccepted" | "PurchaseLimitReached" | "Busy")),
        "{:?}",
        others.collect::<Vec<_>>()
    );
    assert_eq!(test.free_units(sale).await, 47);
    test.finish().await;
}

#[tokio::test]
async fn a_hurried_customer_is_limited_but_never_for_a_repeated_key() {
    let test = TestApp::start_with(&[("BUY_NOW_BURST", "3"), ("BUY_NOW_PER_MINUTE", "1")]).await;
    let sale = test.open_sale(10, 10).await;
    let ann = test.customer().await;
    let first = json!({ "idempotencyKey": new_key() });
    let order = ann.must_buy(sale, 1, first.clone()).await;
    ann.must_buy(sale, 1, json!({})).await;
    ann.must_buy(sale, 1, json!({})).await;

    let input = json!({ "flashSaleId": sale.to_string(), "quantity": 1, "paymentMethod": "pm_card_visa", "idempotencyKey": new_key() });
    let answer = ann.answer(BUY_NOW, json!({ "input": input })).await;
    let extensions = &answer["errors"][0]["extensions"];
    assert_eq!(extensions["code"], "RATE_LIMITED");
    assert!(extensions["retryAfterMs"].as_i64().unwrap() > 1_000, "{answer:#}");
    assert_eq!(ann.buy(sale, 1, first).await["result"]["order"]["id"], json!(order));
    assert_eq!(test.free_units(sale).await, 7);
    test.finish().await;
}

/// What memory may refuse is only what no earlier success contradicts.
#[tokio::test]
async fn the_last_winner_repeats_the_key_against_a_sold_out_a_full_and_a_closed_sale() {
    let test = TestApp::start().await;
    let sale = test.open_sale(2, 1).await;
    let [ann, bob, cid] = test.customers(3).await.try_into().unwrap_or_else(|_| panic!());
    ann.must_buy(sale, 1, json!({})).await;
    let key = json!({ "idempotencyKey": new_key() });
    let order = bob.must_buy(sale, 1, key.clone()).await;

    // The first refusal looks at the database and puts the flag in place, the second one is from memory.
    for _ in 0..2 {
        assert_eq!(cid.buy(sale, 1, json!({})).await["result"]["__typename"], "SoldOut");
    }
    let customer = whitemonday::domain::ids::CustomerId::parse(cid.customer_id.as_ref().unwrap()).unwrap();
    assert!(test.app.sold_out.refusal(sale, customer, test.app.clock.now()).is_some(), "the flag stands");
    let replay = bob.buy(sale, 1, key.clone()).await;
    assert_eq!((&replay["result"]["order"]["id"], &replay["result"]["replayed"]), (&json!(order), &json!(true)));
    assert_eq!(bob.buy(sale, 1, json!({})).await["result"]["__typename"], "PurchaseLimitReached", "full, and asked for anew");

    test.execute("UPDATE flash_sale SET opens_at = now() - interval '2 hours', closes_at = now() - interval '1 hour'").await;
    assert_eq!(bob.buy(sale, 1, key).await["result"]["order"]["id"], json!(order));
    test.finish().await;
}

#[tokio::test]
async fn units_that_come_back_are_sold_again_on_every_server() {
    let test = TestApp::start().await;
    let (second, address) = test.second_server().await;
    let sale = test.open_sale(1, 1).await;
    let [ann, bob, cid] = test.customers(3).await.try_into().unwrap_or_else(|_| panic!());
    ann.must_buy(sale, 1, json!({})).await;
    for client in [bob.clone(), bob.at(address)] {
        assert_eq!(client.buy(sale, 1, json!({})).await["result"]["__typename"], "SoldOut");
    }
    let customer = whitemonday::domain::ids::CustomerId::parse(cid.customer_id.as_ref().unwrap()).unwrap();
    assert!(second.sold_out.refusal(sale, customer, second.clock.now()).is_some());

    test.execute("UPDATE orders SET hold_expires_at = now() - interval '1 second'").await;
    assert_eq!(test.expire_due().await, 1);

    let elsewhere = cid.at(address);
    let bought = crate::support::until(async || {
        let answer = elsewhere.buy(sale, 1, json!({ "idempotencyKey": "8f9b2c1e-7d3a-4b5c-9e8f-0a1b2c3d4e5f" })).await;
        (answer["result"]["__typename"] == "OrderAccepted").then_some(answer)
    });
    bought.await;
    test.finish().await;
}
