//! The end of an account: what is erased, what stays, and purchases at the same moment.

use serde_json::{Value, json};
use whitemonday::{
    domain::{customer::Role, order::OrderStatus},
    services::{
        self,
        seed::{self, DemoAccount},
    },
};

use crate::{
    late_money::charge_late,
    support::{
        Barrier, Client, PASSWORD, Step, TestApp,
        account::{VIEWER, log_in, sign_up, signed_in},
        client::BUY_NOW,
        customer_id, kept, new_key, status_after, until,
    },
};

const ANN: &str = "ann@example.com";
const ERASING: Step = Step::update("customer", "NEW.deleted_at IS NOT NULL");

/// A verified account with an address and [`PASSWORD`], signed in.
async fn ann(test: &TestApp) -> Client {
    seed::account(&test.app, &DemoAccount { email: ANN, name: "Ann", role: Role::Customer }, PASSWORD).await.unwrap();
    let mut ann = signed_in(test, ANN, PASSWORD).await;
    ann.customer_id = ann.send(VIEWER, json!({})).await["viewer"]["id"].as_str().map(str::to_owned);
    ann
}

async fn delete(client: &Client, password: &str) -> Value {
    let mutation = "mutation($input: DeleteAccountInput!) { deleteAccount(input: $input) { done userErrors { code field } } }";
    client.send(mutation, json!({ "input": { "password": password } })).await["deleteAccount"].take()
}

/// Puts one piece of a product's ordinary stock into the cart: no sale, and so no quota.
async fn fill_cart(test: &TestApp, client: &Client) {
    client.add_to_cart(test.product(1, 1_500).await, 1).await;
}

fn done() -> Value {
    json!({ "done": true, "userErrors": [] })
}

fn wrong_state() -> Value {
    json!({ "done": false, "userErrors": [{ "code": "WRONG_STATE", "field": null }] })
}

#[tokio::test]
async fn a_deleted_account_is_erased_and_its_orders_stay_without_a_name() {
    let test = TestApp::start_with_jobs().await;
    let (_second, address) = test.second_server().await;
    let sale = test.open_sale(3, 3).await;
    let (ann, staff) = (ann(&test).await, test.staff().await);
    let delivered = ann.must_buy(sale, 1, json!({ "deliveryNote": "Behind the door" })).await;
    let cancelled = ann.must_buy(sale, 1, json!({})).await;
    for order in [&delivered, &cancelled] {
        ann.until_order_is(order, "PAID").await;
    }
    status_after(&ann, "cancelOrder", json!({ "orderId": cancelled, "reason": "Ann cancels", "idempotencyKey": new_key() })).await;
    ann.until_order_is(&cancelled, "CANCELLED").await;
    status_after(&staff, "markPreparing", json!({ "orderId": delivered })).await;
    status_after(&staff, "markShipped", json!({ "orderId": delivered, "trackingNumber": "KR-1" })).await;
    status_after(&staff, "markDelivered", json!({ "orderId": delivered })).await;
    status_after(&ann, "requestReturn", json!({ "orderId": delivered, "reason": "Ann returns", "idempotencyKey": new_key() })).await;
    assert_eq!(delete(&ann, PASSWORD).await, wrong_state(), "something is on its way back");
    status_after(&staff, "rejectReturn", json!({ "orderId": delivered, "reason": "It is fine" })).await;
    ann.add_to_cart(test.product(1, 1_500).await, 1).await;
    let wish = "mutation($input: AddToWishlistInput!) { addToWishlist(input: $input) { item { note } } }";
    let product = test.product_of(sale).await.to_string();
    ann.send(wish, json!({ "input": { "productId": product, "note": "For Ann" } })).await;
    let version = ann.order(&delivered).await["version"].as_i64().unwrap();
    let request = "mutation($input: RequestEmailChangeInput!) { requestEmailChange(input: $input) { accepted } }";
    ann.send(request, json!({ "input": { "newEmail": "new@example.com", "password": PASSWORD } })).await;
    let link = test.token_mailed_to("new@example.com", 1).await;

    let refused = json!({ "done": false, "userErrors": [{ "code": "BAD_CREDENTIALS", "field": ["password"] }] });
    assert_eq!(delete(&ann, "not her password").await, refused);
    let already = test.mails_to(ANN).len();
    assert_eq!(delete(&ann, PASSWORD).await, done());

    assert_eq!(ann.error_code(VIEWER, json!({})).await, "UNAUTHENTICATED", "here at once");
    let elsewhere = ann.at(address);
    until(async || (elsewhere.answer(VIEWER, json!({})).await["errors"][0]["extensions"]["code"] == "UNAUTHENTICATED").then_some(())).await;
    assert!(log_in(&test.anonymous(), ANN, PASSWORD).await["tokens"].is_null());
    let confirm = "mutation($input: ConfirmEmailChangeInput!) { confirmEmailChange(input: $input) { userErrors { code } } }";
    let void = test.anonymous().send(confirm, json!({ "input": { "token": link } })).await;
    assert_eq!(void["confirmEmailChange"]["userErrors"][0]["code"], "TOKEN_INVALID");
    let mails = until(async || Some(test.mails_to(ANN)).filter(|mails| mails.len() > already)).await;
    assert!(mails.last().unwrap().contains("everything personal in it is deleted"), "{mails:?}");

    let query = "query($id: ID!) { order(id: $id) { status version customer { id } shippingAddress { city } deliveryNote
        history { reason } payments { refunds { reason } } } }";
    let order = staff.send(query, json!({ "id": delivered })).await["order"].take();
    assert_eq!((&order["status"], order["version"].as_i64()), (&json!("DELIVERED"), Some(version + 1)));
    let reasons: Vec<_> = order["history"].as_array().unwrap().iter().map(|event| event["reason"].as_str()).collect();
    assert_eq!(reasons.into_iter().flatten().collect::<Vec<_>>(), ["It is fine"], "only what staff wrote");
    for field in ["customer", "shippingAddress", "deliveryNote"] {
        assert_eq!(order[field], json!(null), "{field}");
    }
    let order = staff.send(query, json!({ "id": cancelled })).await["order"].take();
    assert_eq!(order["payments"][0]["refunds"], json!([{ "reason": null }]));
    assert_eq!(staff.send("query($id: ID!) { node(id: $id) { id } }", json!({ "id": ann.customer_id })).await["node"], json!(null));
    for left in [
        "customer WHERE deleted_at IS NOT NULL AND num_nonnulls(email_sealed, email_index, name_sealed, phone_sealed, password_hash) > 0",
        "address a JOIN customer c ON c.id = a.customer_id WHERE c.deleted_at IS NOT NULL AND a.content_sealed IS NOT NULL",
        "session s JOIN customer c ON c.id = s.customer_id WHERE c.deleted_at IS NOT NULL AND (s.user_agent_sealed IS NOT NULL OR s.revoked_at IS NULL)",
        "one_time_token",
        "cart_line",
        "wishlist_item",
        "order_event WHERE reason LIKE '%Ann%'",
        "refund WHERE reason LIKE '%Ann%'",
    ] {
        assert_eq!(test.scalar(&format!("SELECT count(*) FROM {left}")).await, 0, "{left}");
    }

    // What happens to the order later finds nobody to tell, and goes on.
    let refund = json!({ "orderId": delivered, "reason": "A gift", "idempotencyKey": new_key() });
    assert_eq!(status_after(&staff, "refundOrder", refund).await, "REFUNDING");
    staff.until_order_is(&delivered, "REFUNDED").await;

    // The address is free.
    let mailed = test.mails_to(ANN).len();
    sign_up(&test.anonymous(), ANN, "Another Ann", PASSWORD).await;
    test.token_mailed_to(ANN, mailed + 1).await;
    let again = signed_in(&test, ANN, PASSWORD).await;
    let data = again.send("{ viewer { id name addresses { id } orders { totalCount } } }", json!({})).await;
    assert_ne!(data["viewer"]["id"], json!(ann.customer_id));
    assert_eq!(
        (&data["viewer"]["name"], &data["viewer"]["addresses"], &data["viewer"]["orders"]["totalCount"]),
        (&json!("Another Ann"), &json!([]), &json!(0))
    );
    test.finish().await;
}

#[tokio::test]
async fn mails_that_wait_are_taken_back_and_the_last_one_is_sent() {
    let test = TestApp::start().await;
    let ann = ann(&test).await;
    let request = "mutation($input: RequestPasswordResetInput!) { requestPasswordReset(input: $input) { accepted } }";
    test.anonymous().send(request, json!({ "input": { "email": ANN } })).await;
    assert_eq!(delete(&ann, PASSWORD).await, done());
    assert_eq!(test.scalar("SELECT count(*) FROM mail WHERE kind <> 'account-deleted'").await, 0);

    test.start_jobs();
    until(async || (test.scalar("SELECT count(*) FROM pgmq.q_mail").await == 0).then_some(())).await;

    let mails = test.mails_to(ANN);
    assert_eq!(mails.len(), 1, "{mails:?}");
    assert_eq!(test.scalar("SELECT count(*) FROM dead_letter").await, 0);
    test.finish().await;
}

#[tokio::test]
async fn an_account_stays_while_an_order_or_its_money_is_on_its_way() {
    let test = TestApp::start_with_jobs().await;
    let sale = test.open_sale(1, 1).await;
    let ann = ann(&test).await;
    let order = ann.must_buy(sale, 1, json!({})).await;
    ann.until_order_is(&order, "PAID").await;
    // Nothing moves the order on meanwhile.
    test.stop.cancel();
    test.tasks.close();
    test.tasks.wait().await;
    let viewer = test.app.access_tokens.verify(ann.access_token.as_ref().unwrap(), test.app.clock.now()).unwrap().0;
    let asked = async || format!("{:?}", services::account::delete_account(&test.app, viewer, PASSWORD).await.unwrap());

    let last = ["DELIVERED", "PAYMENT_FAILED", "CANCELLED", "EXPIRED", "REFUNDED", "PARTLY_REFUNDED"];
    for status in OrderStatus::ALL.iter().filter(|status| !last.contains(&status.as_str())) {
        test.execute(&format!("UPDATE orders SET status = '{status}'")).await;
        assert_eq!(asked().await, "WrongState", "{status}");
    }
    test.execute("UPDATE orders SET status = 'CANCELLED'").await;
    for status in ["PENDING", "PROCESSING", "REQUIRES_ACTION", "UNKNOWN"] {
        test.execute(&format!("UPDATE payment SET status = '{status}'")).await;
        assert_eq!(asked().await, "WrongState", "a payment that is {status}");
    }
    test.execute(
        "UPDATE payment SET status = 'CAPTURED';
         INSERT INTO refund (id, payment_id, order_id, status, amount_minor, currency, created_at, updated_at)
         SELECT gen_random_uuid(), id, order_id, 'REQUESTED', 1, currency, now(), now() FROM payment",
    )
    .await;
    for status in ["REQUESTED", "UNKNOWN"] {
        test.execute(&format!("UPDATE refund SET status = '{status}'")).await;
        assert_eq!(asked().await, "WrongState", "a refund that is {status}");
    }
    test.execute("DELETE FROM refund").await;
    for status in last {
        test.execute(&format!("UPDATE orders SET status = '{status}'")).await;
        let mut check = test.app.db.begin().await.unwrap();
        let customer = customer_id(&json!(ann.customer_id));
        assert!(!whitemonday::store::order::has_unfinished(&mut check, customer).await.unwrap(), "{status}");
    }
    test.execute("UPDATE orders SET status = 'PAID'").await;
    test.finish().await;
}

#[tokio::test]
async fn a_purchase_that_is_under_way_keeps_the_account() {
    for has_bought_before in [false, true] {
        let test = TestApp::start().await;
        let sale = test.open_sale(1, 1).await;
        let ann = ann(&test).await;
        if has_bought_before {
            test.execute("INSERT INTO purchase_quota SELECT s.id, c.id, 0, 1 FROM flash_sale s, customer c WHERE NOT EXISTS (SELECT FROM purchase_quota)")
                .await;
        }
        let barrier = Barrier::at(&test, Step::insert("orders")).await;
        let buying = tokio::spawn({
            let ann = ann.clone();
            async move { ann.must_buy(sale, 1, json!({})).await }
        });
        barrier.reached(&test).await;

        assert_eq!(delete(&ann, PASSWORD).await, wrong_state());

        barrier.lift().await;
        let order = buying.await.unwrap();
        assert_eq!(ann.order(&order).await["status"], "AWAITING_PAYMENT");
        assert_eq!(delete(&ann, PASSWORD).await, wrong_state(), "the order is not finished");
        test.finish().await;
    }
}

#[tokio::test]
async fn a_purchase_that_comes_while_the_account_goes_is_refused() {
    for has_bought_before in [false, true] {
        let test = TestApp::start().await;
        let sale = test.open_sale(1, 1).await;
        let ann = ann(&test).await;
        if has_bought_before {
            test.execute("INSERT INTO purchase_quota SELECT s.id, c.id, 0, 1 FROM flash_sale s, customer c").await;
        }
        let barrier = Barrier::at(&test, ERASING).await;
        let deleting = tokio::spawn({
            let ann = ann.clone();
            async move { delete(&ann, PASSWORD).await }
        });
        barrier.reached(&test).await;
        let buying = tokio::spawn({
            let ann = ann.clone();
            let key = json!(new_key());
            async move {
                let input =
                    json!({ "flashSaleId": sale.to_string(), "quantity": 1, "paymentMethod": "pm_card_visa", "idempotencyKey": key });
                ann.answer(BUY_NOW, json!({ "input": input })).await
            }
        });
        barrier.has_queue(&test).await;
        barrier.lift().await;

        assert_eq!(deleting.await.unwrap(), done());
        let answer = buying.await.unwrap();
        // A machine that is too slow to lift the barrier in time is told to come again.
        let payload = &answer["data"]["buyNow"];
        let refused = payload["userErrors"][0]["code"] == "EMAIL_NOT_VERIFIED" || payload["result"]["__typename"] == "Busy";
        assert!(refused, "{answer:#}");
        assert_eq!(test.scalar("SELECT count(*) FROM orders").await, 0);
        assert_eq!(test.free_units(sale).await, 1);
        test.finish().await;
    }
}

#[tokio::test]
async fn an_order_is_neither_placed_nor_paid_again_once_the_account_goes() {
    let test = TestApp::start_with_jobs().await;
    let sale = test.open_sale(1, 1).await;
    let ann = ann(&test).await;
    let failed = ann.must_buy(sale, 1, json!({ "paymentMethod": "pm_card_chargeDeclined" })).await;
    ann.until_order_is(&failed, "PAYMENT_FAILED").await;
    fill_cart(&test, &ann).await;

    let barrier = Barrier::at(&test, ERASING).await;
    let deleting = tokio::spawn({
        let ann = ann.clone();
        async move { delete(&ann, PASSWORD).await }
    });
    barrier.reached(&test).await;
    let placing = tokio::spawn({
        let ann = ann.clone();
        async move { ann.try_check_out(json!({})).await }
    });
    barrier.has_queue(&test).await;
    let retrying = tokio::spawn(async move {
        let query = "mutation($input: RetryPaymentInput!) { retryPayment(input: $input) { order { status } } }";
        ann.answer(query, json!({ "input": { "orderId": failed, "paymentMethod": "pm_card_visa", "idempotencyKey": new_key() } })).await
    });
    let waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND query LIKE '%FROM orders o%FOR UPDATE%'
                      AND wait_event_type = 'Lock'";
    until(async || (test.scalar(waiting).await == 1).then_some(())).await;
    barrier.lift().await;

    assert_eq!(deleting.await.unwrap(), done());
    assert_eq!(placing.await.unwrap()["errors"][0]["extensions"]["code"], "UNAUTHENTICATED");
    assert_eq!(retrying.await.unwrap()["errors"][0]["extensions"]["code"], "UNAUTHENTICATED");
    assert_eq!(test.scalar("SELECT count(*) FROM orders WHERE status <> 'PAYMENT_FAILED'").await, 0);
    test.finish().await;
}

#[tokio::test]
async fn an_order_that_is_being_placed_keeps_the_account() {
    let test = TestApp::start().await;
    let ann = ann(&test).await;
    fill_cart(&test, &ann).await;
    let barrier = Barrier::at(&test, Step::insert("orders")).await;
    let placing = tokio::spawn({
        let ann = ann.clone();
        async move { ann.try_check_out(json!({})).await }
    });
    barrier.reached(&test).await;
    let deleting = tokio::spawn(async move { delete(&ann, PASSWORD).await });
    barrier.has_queue(&test).await;
    barrier.lift().await;
    assert!(placing.await.unwrap()["data"]["checkOutCart"]["order"]["id"].is_string());
    assert_eq!(deleting.await.unwrap(), wrong_state());
    test.finish().await;
}

#[tokio::test]
async fn a_late_charge_of_somebody_who_has_gone_goes_back_though_units_are_left() {
    let test = TestApp::start_with_jobs().await;
    let sale = test.open_sale(1, 1).await;
    let ann = ann(&test).await;
    let order = ann.must_buy(sale, 1, json!({ "paymentMethod": "pm_card_chargeDeclined" })).await;
    ann.until_order_is(&order, "PAYMENT_FAILED").await;
    assert_eq!(delete(&ann, PASSWORD).await, done());

    charge_late(&test, &order).await;

    test.staff().await.until_order_is(&order, "REFUNDED").await;
    assert_eq!((kept(&test), test.free_units(sale).await), (0, 1));
    test.finish().await;
}

#[tokio::test]
async fn somebody_who_signs_up_while_the_address_becomes_free_gets_an_account() {
    let test = TestApp::start_with_jobs().await;
    let ann = ann(&test).await;
    let barrier = Barrier::at(&test, ERASING).await;
    let deleting = tokio::spawn(async move { delete(&ann, PASSWORD).await });
    barrier.reached(&test).await;
    let visitor = test.anonymous();
    let signing_up = tokio::spawn(async move { sign_up(&visitor, ANN, "Another Ann", "another password").await });
    barrier.has_queue(&test).await;
    barrier.lift().await;

    assert_eq!(deleting.await.unwrap(), done());
    assert_eq!(signing_up.await.unwrap()["accepted"], true);
    let mails = until(async || Some(test.mails_to(ANN)).filter(|mails| mails.len() == 2)).await;
    assert!(mails.iter().any(|mail| mail.contains("/verify?token=")), "{mails:?}");
    test.finish().await;
}
