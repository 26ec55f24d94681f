//! What becomes of an order after the purchase: called off, shipped, returned, refunded, paid with a second card.

use serde_json::{Value, json};
use uuid::Uuid;
use whitemonday::{
    services::{self, order},
    simulator::{Fault, FaultScript, Operation},
};

use crate::support::{Client, TestApp, change, kept, new_key, refused, status_after, statuses, until};

#[tokio::test]
async fn an_order_that_nobody_is_charged_for_is_called_off_at_once_and_once() {
    let test = TestApp::start().await;
    let sale = test.open_sale(3, 3).await;
    let ann = test.customer().await;
    let order = ann.must_buy(sale, 2, json!({})).await;
    let input = json!({ "orderId": order, "reason": "Too many of them", "idempotencyKey": new_key() });

    let payload = change(&ann, "cancelOrder", input.clone()).await;
    assert_eq!(payload["order"]["status"], "CANCELLED", "{payload:#}");
    assert_eq!(statuses(&payload["order"]), ["AWAITING_PAYMENT", "CANCELLING", "CANCELLED"]);
    assert_eq!(payload["order"]["history"][1]["reasonCode"], "CUSTOMER");
    assert_eq!(payload["order"]["history"][1]["reason"], "Too many of them");
    assert_eq!(payload["order"]["cancellable"], false);
    assert_eq!(test.free_units(sale).await, 3);

    let again = change(&ann, "cancelOrder", input.clone()).await;
    assert_eq!(again["order"]["version"], payload["order"]["version"], "the same request again changes nothing");
    let other = json!({ "orderId": order, "reason": "Another", "idempotencyKey": input["idempotencyKey"] });
    assert_eq!(refused(&ann, "cancelOrder", other).await, "IDEMPOTENCY_KEY_REUSED");
    assert_eq!(refused(&ann, "cancelOrder", json!({ "orderId": order, "idempotencyKey": new_key() })).await, "WRONG_STATE");

    // The message that waits for the payment charges nobody any more, and the limit is free again.
    test.start_jobs();
    until(async || (test.scalar("SELECT count(*) FROM pgmq.q_payment").await == 0).then_some(())).await;
    assert_eq!(test.simulator.simulator.ledger().charges, 0);
    let next = ann.must_buy(sale, 3, json!({})).await;
    ann.until_order_is(&next, "PAID").await;
    test.finish().await;
}

#[tokio::test]
async fn one_key_for_two_orders_at_the_same_moment_is_used_for_one_of_them() {
    let test = TestApp::start().await;
    let sale = test.open_sale(2, 2).await;
    let ann = test.customer().await;
    let [first, second] = [ann.must_buy(sale, 1, json!({})).await, ann.must_buy(sale, 1, json!({})).await];
    let key = new_key();
    let cancel = |order: &str| change(&ann, "cancelOrder", json!({ "orderId": order, "idempotencyKey": key }));

    let (a, b) = tokio::join!(cancel(&first), cancel(&second));

    let reused = [&a, &b].iter().filter(|payload| payload["userErrors"][0]["code"] == "IDEMPOTENCY_KEY_REUSED").count();
    assert_eq!(reused, 1, "{a:#} {b:#}");
    assert_eq!(test.free_units(sale).await, 1);
    test.finish().await;
}

#[tokio::test]
async fn a_paid_order_that_is_called_off_gives_money_back_and_then_units_once() {
    let test = TestApp::start_with_jobs().await;
    let sale = test.open_sale(2, 2).await;
    let ann = test.customer().await;
    let provider = &test.simulator.simulator;
    let order = ann.must_buy(sale, 2, json!({})).await;
    ann.until_order_is(&order, "PAID").await;
    assert!(kept(&test) > 0);

    // While the provider has not answered, the order is on its way back and keeps its units.
    provider.script(FaultScript::always(Operation::CreateRefund, Fault::HoldBefore)).unwrap();
    let input = json!({ "orderId": order, "idempotencyKey": new_key() });
    let (first, second) = tokio::join!(change(&ann, "cancelOrder", input.clone()), change(&ann, "cancelOrder", input.clone()));
    assert_eq!((&first["order"]["status"], &second["order"]["status"]), (&json!("CANCELLING"), &json!("CANCELLING")));
    provider.wait_for_held(1).await;
    assert_eq!(test.free_units(sale).await, 0, "units come back after the money");
    provider.clear_faults();

    ann.until_order_is(&order, "CANCELLED").await;
    assert_eq!((kept(&test), provider.ledger().refunds), (0, 1));
    assert_eq!(test.free_units(sale).await, 2);
    assert_eq!(test.scalar("SELECT count(*) FROM stock_movement WHERE kind = 'RELEASED'").await, 1);
    let payload = change(&ann, "cancelOrder", input).await;
    assert_eq!(payload["order"]["payments"][0]["status"], "REFUNDED", "{payload:#}");
    assert_eq!(payload["order"]["payments"][0]["refunds"][0]["status"], "SUCCEEDED");
    test.finish().await;
}

#[tokio::test]
async fn an_order_called_off_while_it_is_charged_ends_by_what_the_provider_says() {
    for (answer, kept_in_the_end) in [(None, 0), (Some(Fault::Decline { decline_code: None }), 0)] {
        let test = TestApp::start_with_jobs().await;
        let sale = test.open_sale(1, 1).await;
        let ann = test.customer().await;
        let provider = &test.simulator.simulator;
        provider.script(FaultScript::always(Operation::CreateIntent, Fault::HoldBefore)).unwrap();
        let order = ann.must_buy(sale, 1, json!({})).await;
        provider.wait_for_held(1).await;

        let input = json!({ "orderId": order, "idempotencyKey": new_key() });
        assert_eq!(status_after(&ann, "cancelOrder", input).await, "CANCELLING");
        assert_eq!(test.free_units(sale).await, 0);
        provider.clear_faults();
        let refunds = usize::from(answer.is_none());
        if let Some(answer) = answer {
            provider.script(FaultScript::always(Operation::ConfirmIntent, answer)).unwrap();
        }

        ann.until_order_is(&order, "CANCELLED").await;
        assert_eq!((kept(&test), provider.ledger().refunds), (kept_in_the_end, refunds));
        assert_eq!(test.free_units(sale).await, 1);
        test.finish().await;
    }
}

#[tokio::test]
async fn an_order_that_waits_for_its_customer_at_the_bank_is_called_off() {
    let test = TestApp::start_with_jobs().await;
    let sale = test.open_sale(1, 1).await;
    let ann = test.customer().await;
    let order = ann.must_buy(sale, 1, json!({ "paymentMethod": "pm_card_authenticationRequired" })).await;
    until(async || (ann.order(&order).await["payments"][0]["status"] == "REQUIRES_ACTION").then_some(())).await;

    let input = json!({ "orderId": order, "idempotencyKey": new_key() });
    assert_eq!(status_after(&ann, "cancelOrder", input).await, "CANCELLING");

    let cancelled = ann.until_order_is(&order, "CANCELLED").await;
    assert_eq!(cancelled["payments"][0]["status"], "FAILED");
    assert_eq!((test.free_units(sale).await, kept(&test)), (1, 0));
    test.finish().await;
}

#[tokio::test]
async fn a_second_card_pays_after_a_decline_while_units_last() {
    let test = TestApp::start_with_jobs().await;
    let sale = test.open_sale(2, 2).await;
    let [ann, bob] = test.customers(2).await.try_into().unwrap_or_else(|_| panic!());
    let declined = json!({ "paymentMethod": "pm_card_chargeDeclined" });
    let order = ann.must_buy(sale, 2, declined).await;
    ann.until_order_is(&order, "PAYMENT_FAILED").await;
    assert_eq!(test.free_units(sale).await, 2);

    // Somebody else has one of the units just now.
    let bobs = bob.must_buy(sale, 1, json!({})).await;
    bob.until_order_is(&bobs, "PAID").await;
    let input = json!({ "orderId": order, "paymentMethod": "pm_card_visa", "idempotencyKey": new_key() });
    assert_eq!(refused(&ann, "retryPayment", input.clone()).await, "OUT_OF_STOCK");
    assert_eq!(test.free_units(sale).await, 1, "a part is not taken");
    assert_eq!(refused(&bob, "retryPayment", input.clone()).await, "NOT_FOUND");
    status_after(&bob, "cancelOrder", json!({ "orderId": bobs, "idempotencyKey": new_key() })).await;
    bob.until_order_is(&bobs, "CANCELLED").await;

    // A refusal has left the key free.
    assert_eq!(status_after(&ann, "retryPayment", input.clone()).await, "AWAITING_PAYMENT");
    // A new hold, from the retry on, as long as the sale says.
    let holds = "SELECT count(*) FROM orders o JOIN order_line l ON l.order_id = o.id JOIN flash_sale s ON s.id = l.flash_sale_id
                  WHERE o.hold_expires_at BETWEEN o.created_at + make_interval(secs => s.hold_seconds + 0.000001)
                                              AND now() + make_interval(secs => s.hold_seconds)";
    assert_eq!(test.scalar(holds).await, 1);
    let paid = ann.until_order_is(&order, "PAID").await;
    assert_eq!(statuses(&paid), ["AWAITING_PAYMENT", "PAYMENT_FAILED", "AWAITING_PAYMENT", "PAID"]);
    assert_eq!(paid["payments"].as_array().unwrap().len(), 2);
    assert_eq!(status_after(&ann, "retryPayment", input).await, "PAID", "the same request again answers the order as it is");
    let other = json!({ "orderId": order, "paymentMethod": "pm_card_visa", "idempotencyKey": new_key() });
    assert_eq!(refused(&ann, "retryPayment", other).await, "WRONG_STATE");
    test.finish().await;
}

#[tokio::test]
async fn an_order_goes_from_packing_to_a_return_and_its_goods_are_sold_again() {
    let test = TestApp::start_with_jobs().await;
    let sale = test.open_sale(1, 1).await;
    let [ann, bob] = test.customers(2).await.try_into().unwrap_or_else(|_| panic!());
    let eve = test.staff().await;
    let order = ann.must_buy(sale, 1, json!({})).await;
    ann.until_order_is(&order, "PAID").await;
    let id = json!({ "orderId": order });

    assert_eq!(refused(&eve, "markDelivered", id.clone()).await, "WRONG_STATE");
    assert_eq!(status_after(&eve, "markPreparing", id.clone()).await, "PREPARING");
    assert_eq!(status_after(&eve, "markPreparing", id.clone()).await, "PREPARING", "twice is once");
    let parcel = json!({ "orderId": order, "trackingNumber": "KR-12345" });
    assert_eq!(status_after(&eve, "markShipped", parcel.clone()).await, "SHIPPED");
    assert_eq!(change(&eve, "markShipped", parcel).await["order"]["trackingNumber"], "KR-12345");
    assert_eq!(refused(&ann, "cancelOrder", json!({ "orderId": order, "idempotencyKey": new_key() })).await, "WRONG_STATE");
    assert_eq!(status_after(&eve, "markDelivered", id.clone()).await, "DELIVERED");

    let wish = |reason: &str| json!({ "orderId": order, "reason": reason, "idempotencyKey": new_key() });
    assert_eq!(refused(&bob, "requestReturn", wish("not mine")).await, "NOT_FOUND");
    assert_eq!(status_after(&ann, "requestReturn", wish("It is broken")).await, "RETURN_REQUESTED");
    assert_eq!(status_after(&eve, "rejectReturn", json!({ "orderId": order, "reason": "It is not" })).await, "DELIVERED");
    assert_eq!(status_after(&ann, "requestReturn", wish("It is")).await, "RETURN_REQUESTED");
    assert_eq!(status_after(&eve, "approveReturn", json!({ "orderId": order, "restock": true })).await, "REFUNDING");

    let refunded = ann.until_order_is(&order, "REFUNDED").await;
    assert_eq!(refunded["payments"][0]["status"], "REFUNDED");
    assert_eq!((kept(&test), test.free_units(sale).await), (0, 1));
    assert_eq!(test.scalar("SELECT count(*) FROM stock_movement WHERE kind = 'RETURNED'").await, 1);
    test.finish().await;
}

#[tokio::test]
async fn an_order_goes_to_another_address_until_it_is_shipped() {
    let test = TestApp::start_with_jobs().await;
    let sale = test.open_sale(1, 1).await;
    let [ann, bob] = test.customers(2).await.try_into().unwrap_or_else(|_| panic!());
    let eve = test.staff().await;
    let order = ann.must_buy(sale, 1, json!({})).await;
    ann.until_order_is(&order, "PAID").await;
    let address =
        async |client: &Client| client.send("{ viewer { addresses { id } } }", json!({})).await["viewer"]["addresses"][0]["id"].take();
    let to = |address: Value| json!({ "orderId": order, "addressId": address, "deliveryNote": "The blue door" });

    assert_eq!(refused(&ann, "setShippingAddress", to(address(&bob).await)).await, "NOT_FOUND");
    assert_eq!(status_after(&ann, "setShippingAddress", to(address(&ann).await)).await, "PAID");
    let seen = ann.send("query($id: ID!) { order(id: $id) { deliveryNote shippingAddress { city } } }", json!({ "id": order })).await;
    assert_eq!(seen["order"]["deliveryNote"], "The blue door");

    status_after(&eve, "markPreparing", json!({ "orderId": order })).await;
    status_after(&eve, "markShipped", json!({ "orderId": order, "trackingNumber": "1" })).await;
    assert_eq!(refused(&ann, "setShippingAddress", to(address(&ann).await)).await, "WRONG_STATE");
    test.finish().await;
}

#[tokio::test]
async fn lists_show_a_customer_their_own_orders_and_staff_all_of_them() {
    const OWN: &str = "query($first: Int, $after: String, $filter: OrderFilter) {
        viewer { orders(first: $first, after: $after, filter: $filter) { totalCount pageInfo { hasNextPage endCursor } nodes { id status } } } }";
    const ALL: &str = "query($filter: OrderFilter) { admin { orders(filter: $filter) { totalCount nodes { id customer { id } } } } }";
    let test = TestApp::start().await;
    let sale = test.open_sale(10, 5).await;
    let [ann, bob] = test.customers(2).await.try_into().unwrap_or_else(|_| panic!());
    let eve = test.staff().await;
    let mut anns = Vec::new();
    for _ in 0..3 {
        anns.insert(0, ann.must_buy(sale, 1, json!({})).await);
    }
    let bobs = bob.must_buy(sale, 1, json!({})).await;

    let mut seen = Vec::new();
    let mut after = Value::Null;
    loop {
        let page = ann.send(OWN, json!({ "first": 2, "after": after })).await["viewer"]["orders"].take();
        assert_eq!(page["totalCount"], 3);
        seen.extend(page["nodes"].as_array().unwrap().iter().map(|node| node["id"].as_str().unwrap().to_owned()));
        if page["pageInfo"]["hasNextPage"] == false {
            break;
        }
        after = page["pageInfo"]["endCursor"].clone();
    }
    assert_eq!(seen, anns, "newest first, each once");
    let of_bob = json!({ "filter": { "customerId": bob.customer_id } });
    assert_eq!(ann.send(OWN, of_bob.clone()).await["viewer"]["orders"]["totalCount"], 3, "still one's own");

    assert_eq!(ann.error_code(ALL, json!({})).await, "FORBIDDEN");
    assert_eq!(test.anonymous().error_code(ALL, json!({})).await, "UNAUTHENTICATED");
    assert_eq!(eve.send(ALL, json!({})).await["admin"]["orders"]["totalCount"], 4);
    let page = eve.send(ALL, of_bob).await["admin"]["orders"].take();
    assert_eq!(page["nodes"], json!([{ "id": bobs, "customer": { "id": bob.customer_id } }]));
    for (filter, count) in [
        (json!({ "statuses": ["PAID"] }), 0),
        (json!({ "statuses": ["AWAITING_PAYMENT", "PAID"], "flashSaleOnly": true }), 4),
        (json!({ "createdTo": "2020-01-01T00:00:00.000Z" }), 0),
        (json!({ "minTotal": "1", "maxTotal": "99999999" }), 4),
        (json!({ "minTotal": "99999999" }), 0),
    ] {
        let answer = eve.send(ALL, json!({ "filter": filter })).await;
        assert_eq!(answer["admin"]["orders"]["totalCount"], count, "{filter}");
    }

    let number = ann.send("query($id: ID!) { order(id: $id) { number } }", json!({ "id": anns[0] })).await["order"]["number"].take();
    let find =
        "query($number: String!, $email: String!) { admin { orderByNumber(number: $number) { id } customerByEmail(email: $email) { id }
        audit { ok invariants { name violations } } } }";
    let found = eve.send(find, json!({ "number": number, "email": bob.email })).await["admin"].take();
    assert_eq!((&found["orderByNumber"]["id"], &found["customerByEmail"]["id"]), (&json!(anns[0]), &json!(bob.customer_id)));
    assert_eq!(found["audit"]["ok"], true, "{found:#}");
    test.finish().await;
}

#[tokio::test]
async fn a_schedule_moves_paid_and_shipped_orders_on_after_their_time() {
    let test = TestApp::start_with(&[("PREPARE_AFTER_MINUTES", "30"), ("DELIVER_AFTER_DAYS", "14")]).await;
    test.start_jobs();
    let sale = test.open_sale(2, 2).await;
    let [ann, bob] = test.customers(2).await.try_into().unwrap_or_else(|_| panic!());
    let eve = test.staff().await;
    let [anns, bobs] = [ann.must_buy(sale, 1, json!({})).await, bob.must_buy(sale, 1, json!({})).await];
    ann.until_order_is(&anns, "PAID").await;
    bob.until_order_is(&bobs, "PAID").await;
    let advance = async || {
        let app = test.app.for_jobs();
        let term = services::leader::take_or_renew(&app).await.unwrap().unwrap();
        order::advance_due(&app, term).await.unwrap()
    };
    assert_eq!(advance().await, 0);

    test.execute("UPDATE orders SET updated_at = now() - interval '29 minutes'").await;
    assert_eq!(advance().await, 0);
    test.execute(&format!("UPDATE orders SET updated_at = now() - interval '31 minutes' WHERE id = '{}'", uuid_of(&anns))).await;
    advance().await;
    let prepared = ann.until_order_is(&anns, "PREPARING").await;
    assert_eq!(prepared["history"].as_array().unwrap().last().unwrap()["reasonCode"], "SCHEDULE");
    assert_eq!(bob.order(&bobs).await["status"], "PAID");

    status_after(&eve, "markShipped", json!({ "orderId": anns, "trackingNumber": "KR-1" })).await;
    test.execute("UPDATE orders SET updated_at = now() - interval '15 days' WHERE status = 'SHIPPED'").await;
    advance().await;
    ann.until_order_is(&anns, "DELIVERED").await;
    test.finish().await;
}

fn uuid_of(order: &str) -> Uuid {
    whitemonday::domain::ids::OrderId::parse(order).unwrap().0
}

#[tokio::test]
async fn a_customer_is_told_of_a_cancelled_order_and_of_money_that_has_gone_back() {
    let test = TestApp::start_with_jobs().await;
    let sale = test.open_sale(1, 1).await;
    let ann = test.customer().await;
    let order = ann.must_buy(sale, 1, json!({})).await;
    ann.until_order_is(&order, "PAID").await;
    status_after(&ann, "cancelOrder", json!({ "orderId": order, "idempotencyKey": new_key() })).await;
    ann.until_order_is(&order, "CANCELLED").await;

    let told = until(async || Some(test.all_mails()).filter(|mails| mails.len() == 2)).await;
    let number = ann.send("query($id: ID!) { order(id: $id) { number total { amount } } }", json!({ "id": order })).await["order"].take();
    for text in &told {
        assert!(text.contains(number["number"].as_str().unwrap()), "{text}");
    }
    let price = number["total"]["amount"].as_str().unwrap();
    assert_eq!(told.iter().filter(|text| text.contains(price)).count(), 1, "the refund tells its amount: {told:#?}");
    test.finish().await;
}
