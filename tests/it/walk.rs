//! The main job, as a person does it: over real HTTP and WebSocket, from the sign-up to the paid order.

use serde_json::json;

use crate::support::{PASSWORD, TestApp, client::BUY_NOW, new_key};

const ORDER_UPDATES: &str = "subscription { orderUpdates { id version status history { status } } }";

#[tokio::test]
async fn from_sign_up_to_a_paid_order() {
    let test = TestApp::start_with_jobs().await;
    let sale = test.open_sale(3, 2).await;
    let visitor = test.anonymous();

    let sign_up = "mutation($input: SignUpInput!) { signUp(input: $input) { accepted userErrors { code } } }";
    let input = json!({ "email": "Ann@Example.com", "password": PASSWORD, "name": "Ann", "locale": "KO" });
    let data = visitor.send(sign_up, json!({ "input": input })).await;
    assert_eq!(data["signUp"], json!({ "accepted": true, "userErrors": [] }));

    let token = test.token_mailed_to("ann@example.com", 1).await;
    let verify =
        "mutation($input: VerifyEmailInput!) { verifyEmail(input: $input) { customer { email emailVerified } userErrors { code } } }";
    let data = visitor.send(verify, json!({ "input": { "token": token } })).await;
    assert_eq!(data["verifyEmail"]["customer"], json!({ "email": "ann@example.com", "emailVerified": true }));

    let log_in =
        "mutation($input: LogInInput!) { logIn(input: $input) { tokens { accessToken } customer { name locale } userErrors { code } } }";
    let data = visitor.send(log_in, json!({ "input": { "email": "ann@example.com", "password": PASSWORD } })).await;
    assert_eq!(data["logIn"]["customer"], json!({ "name": "Ann", "locale": "KO" }));
    let ann = visitor.with_token(data["logIn"]["tokens"]["accessToken"].as_str().unwrap());

    let mut updates = ann.subscribe(ORDER_UPDATES, json!({})).await;
    let sales = "{ flashSales(phases: [OPEN]) { nodes { id remainingUnits perCustomerLimit } } }";
    let data = ann.send(sales, json!({})).await;
    let open = &data["flashSales"]["nodes"][0];
    assert_eq!(*open, json!({ "id": sale.to_string(), "remainingUnits": 3, "perCustomerLimit": 2 }));

    let key = new_key();
    let input = json!({ "flashSaleId": open["id"], "quantity": 2, "paymentMethod": "pm_card_visa", "idempotencyKey": key });
    let data = ann.send(BUY_NOW, json!({ "input": input })).await;
    let result = &data["buyNow"]["result"];
    assert_eq!((&result["__typename"], &result["replayed"]), (&json!("OrderAccepted"), &json!(false)));
    let order = result["order"]["id"].as_str().unwrap();

    let mut version = 0;
    let paid = loop {
        let update = updates.data().await["orderUpdates"].take();
        assert_eq!(update["id"], order);
        assert!(update["version"].as_i64().unwrap() > version, "versions rise");
        version = update["version"].as_i64().unwrap();
        if update["status"] == "PAID" {
            break update;
        }
    };
    assert_eq!(paid["history"], json!([{ "status": "AWAITING_PAYMENT" }, { "status": "PAID" }]));

    let data = ann.send(BUY_NOW, json!({ "input": input })).await;
    let replay = &data["buyNow"]["result"];
    assert_eq!((&replay["replayed"], &replay["order"]["id"]), (&json!(true), &json!(order)));
    assert_eq!(replay["order"]["status"], "PAID", "a replay shows the order as it is now");
    assert_eq!(replay["holdExpiresAt"], result["holdExpiresAt"]);
    assert_eq!(test.simulator.simulator.ledger().charges, 1);
    assert_eq!(test.free_units(sale).await, 1);
    test.finish().await;
}

#[tokio::test]
async fn a_declined_card_fails_the_order_and_frees_its_units() {
    let test = TestApp::start_with_jobs().await;
    let sale = test.open_sale(2, 2).await;
    let ann = test.customer().await;
    let mut updates = ann.subscribe(ORDER_UPDATES, json!({})).await;

    let order = ann.must_buy(sale, 2, json!({ "paymentMethod": "pm_card_chargeDeclined" })).await;

    let failed = ann.until_order_is(&order, "PAYMENT_FAILED").await;
    assert_eq!(
        failed["history"],
        json!([{ "status": "AWAITING_PAYMENT", "reasonCode": null }, { "status": "PAYMENT_FAILED", "reasonCode": "PAYMENT_DECLINED" }])
    );
    assert_eq!(failed["payments"][0]["status"], "DECLINED");
    while updates.data().await["orderUpdates"]["status"] != "PAYMENT_FAILED" {}
    assert_eq!(test.free_units(sale).await, 2);
    assert_eq!(test.simulator.simulator.ledger().charges, 0);
    // The limit counts what is held: all of it may be bought again.
    let again = ann.must_buy(sale, 2, json!({})).await;
    ann.until_order_is(&again, "PAID").await;
    test.finish().await;
}
