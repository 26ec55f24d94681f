//! Accounts: sign-up and log-in, and what others see of them.

use serde_json::json;
use whitemonday::{
    domain::customer::{EmailAddress, Role},
    services::{self, account::GrantRole},
};

use crate::support::{
    PASSWORD, TestApp,
    account::{SAVE, SIGN_UP, VERIFY, VIEWER, account, log_in, refresh, sign_up},
    until,
};

#[tokio::test]
async fn the_answer_to_a_sign_up_never_tells_whether_the_address_is_known() {
    let test = TestApp::start_with_jobs().await;
    let visitor = test.anonymous();
    account(&test, "ann@example.com").await;

    let known = sign_up(&visitor, "ann@example.com", "Mallory", "another password").await;
    let unknown = sign_up(&visitor, "bob@example.com", "Bob", PASSWORD).await;

    assert_eq!(known, unknown);
    let mails = until(async || Some(test.mails_to("ann@example.com")).filter(|mails| mails.len() == 2)).await;
    assert!(!mails[1].contains("token="), "the owner is told, and gets no link");
    assert!(log_in(&visitor, "ann@example.com", "another password").await["tokens"].is_null(), "nothing has changed");
    assert!(!log_in(&visitor, "ann@example.com", PASSWORD).await["tokens"].is_null());
    test.finish().await;
}

#[tokio::test]
async fn a_second_sign_up_for_an_unverified_address_replaces_the_first_and_voids_its_link() {
    let test = TestApp::start_with_jobs().await;
    let visitor = test.anonymous();
    sign_up(&visitor, "ann@example.com", "Mallory", "mallory's password").await;
    let first = test.token_mailed_to("ann@example.com", 1).await;
    sign_up(&visitor, "ann@example.com", "Ann", PASSWORD).await;
    let second = test.token_mailed_to("ann@example.com", 2).await;

    let void = visitor.send(VERIFY, json!({ "input": { "token": first } })).await;
    assert_eq!(void["verifyEmail"]["userErrors"], json!([{ "code": "TOKEN_INVALID", "field": ["token"] }]));
    let verified = visitor.send(VERIFY, json!({ "input": { "token": second } })).await;
    assert_eq!(verified["verifyEmail"]["customer"]["emailVerified"], true);
    let again = visitor.send(VERIFY, json!({ "input": { "token": second } })).await;
    assert_eq!(again["verifyEmail"]["userErrors"][0]["code"], "TOKEN_INVALID", "a link works once");
    assert!(log_in(&visitor, "ann@example.com", "mallory's password").await["tokens"].is_null());

    let tokens = log_in(&visitor, "ann@example.com", PASSWORD).await;
    let ann = visitor.with_token(tokens["tokens"]["accessToken"].as_str().unwrap());
    let viewer = ann.send(VIEWER, json!({})).await;
    assert_eq!((&viewer["viewer"]["name"], &viewer["viewer"]["phone"]), (&json!("Ann"), &json!("010-1234-5678")));
    test.finish().await;
}

#[tokio::test]
async fn bad_sign_ups_name_the_field() {
    let test = TestApp::start().await;
    let good = json!({ "email": "ann@example.com", "password": PASSWORD, "name": "Ann" });
    for (field, value) in [
        ("email", json!("nobody")),
        ("email", json!("a@b@c.example")),
        ("password", json!("short")),
        ("password", json!("x".repeat(129))),
        ("name", json!("  ")),
        ("name", json!("a\u{0}b")),
        ("phone", json!("call me")),
    ] {
        let mut input = good.clone();
        input[field] = value.clone();
        let data = test.anonymous().send(SIGN_UP, json!({ "input": input })).await;
        assert_eq!(data["signUp"], json!({ "accepted": false, "userErrors": [{ "code": "INVALID", "field": [field] }] }), "{value}");
    }
    assert_eq!(test.scalar("SELECT count(*) FROM customer").await, 0);
    test.finish().await;
}

#[tokio::test]
async fn wrong_passwords_and_unknown_addresses_get_the_same_answer() {
    let test = TestApp::start_with_jobs().await;
    account(&test, "ann@example.com").await;
    let visitor = test.anonymous();
    let refused = json!({ "tokens": null, "userErrors": [{ "code": "BAD_CREDENTIALS", "field": null }] });
    assert_eq!(log_in(&visitor, "ann@example.com", "not her password").await, refused);
    assert_eq!(log_in(&visitor, "nobody@example.com", "not her password").await, refused);
    assert_eq!(log_in(&visitor, "nonsense", "").await, refused);
    test.finish().await;
}

#[tokio::test]
async fn nothing_personal_stands_in_the_database_in_clear() {
    let test = TestApp::start_with_jobs().await;
    let sale = test.open_sale(1, 1).await;
    account(&test, "very.personal@example.com").await;
    let tokens = log_in(&test.anonymous(), "very.personal@example.com", PASSWORD).await;
    let ann = test.anonymous().with_token(tokens["tokens"]["accessToken"].as_str().unwrap());
    let address = json!({ "recipient": "Personal Recipient", "line1": "Personal Street 1", "city": "Personalia", "postalCode": "P3R50", "countryCode": "KR" });
    ann.send(SAVE, json!({ "input": { "address": address } })).await;
    ann.must_buy(sale, 1, json!({ "deliveryNote": "Personal note" })).await;

    let tables: Vec<String> =
        sqlx::query_scalar("SELECT format('%I.%I', schemaname, tablename) FROM pg_tables WHERE schemaname IN ('public', 'pgmq')")
            .fetch_all(&*test.app.db)
            .await
            .unwrap();
    assert!(tables.len() > 15);
    for table in tables {
        // bytea is compared as hex too: what is merely encoded is not sealed.
        for needle in ["personal", "010-1234-5678"] {
            let hex = needle.bytes().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().concat();
            let sql = format!("SELECT count(*) FROM {table} t WHERE lower(t::text) LIKE '%{needle}%' OR t::text LIKE '%{hex}%'");
            assert_eq!(test.scalar(&sql).await, 0, "{needle} in {table}");
        }
    }
    test.finish().await;
}

#[tokio::test]
async fn staff_see_every_order_and_a_stranger_sees_none() {
    let test = TestApp::start_with_jobs().await;
    let sale = test.open_sale(1, 1).await;
    let [ann, bob] = test.customers(2).await.try_into().unwrap_or_else(|_| panic!());
    let order = ann.must_buy(sale, 1, json!({})).await;
    let payment = "query($id: ID!) { order(id: $id) { customer { email } payments { id } } node(id: $id) { id } }";
    ann.until_order_is(&order, "PAID").await;
    let own = ann.send(payment, json!({ "id": order })).await;
    let payment_id = own["order"]["payments"][0]["id"].clone();

    let node = "query($id: ID!) { node(id: $id) { id } }";
    for stranger in [&bob, &test.anonymous()] {
        assert_eq!(stranger.send(payment, json!({ "id": order })).await, json!({ "order": null, "node": null }));
        assert_eq!(stranger.send(node, json!({ "id": payment_id })).await["node"], json!(null));
        assert_eq!(stranger.send(node, json!({ "id": ann.customer_id })).await["node"], json!(null));
    }

    account(&test, "staff@example.com").await;
    let before = log_in(&test.anonymous(), "staff@example.com", PASSWORD).await;
    let email = EmailAddress::parse("staff@example.com").unwrap();
    assert_eq!(services::account::grant_role(&test.app, &email, Role::Staff).await.unwrap(), GrantRole::Granted);
    let nobody = EmailAddress::parse("nobody@example.com").unwrap();
    assert_eq!(services::account::grant_role(&test.app, &nobody, Role::Staff).await.unwrap(), GrantRole::NoSuchCustomer);
    let old = test.anonymous().with_token(before["tokens"]["accessToken"].as_str().unwrap());
    until(async || (old.answer(VIEWER, json!({})).await["errors"][0]["extensions"]["code"] == "UNAUTHENTICATED").then_some(())).await;

    let after = log_in(&test.anonymous(), "staff@example.com", PASSWORD).await;
    let staff = test.anonymous().with_token(after["tokens"]["accessToken"].as_str().unwrap());
    assert_eq!(staff.send(VIEWER, json!({})).await["viewer"]["role"], "STAFF");
    assert_eq!(staff.send(payment, json!({ "id": order })).await["order"], own["order"]);
    test.finish().await;
}

#[tokio::test]
async fn who_signed_up_with_the_address_of_another_keeps_nothing_once_its_owner_comes() {
    let test = TestApp::start_with_jobs().await;
    let visitor = test.anonymous();
    sign_up(&visitor, "victim@example.com", "Mallory", "mallory's password").await;
    let tokens = log_in(&visitor, "victim@example.com", "mallory's password").await;
    let mallory = visitor.with_token(tokens["tokens"]["accessToken"].as_str().unwrap());
    let address = json!({ "recipient": "Mallory", "line1": "x", "city": "x", "postalCode": "1", "countryCode": "KR" });
    mallory.send(SAVE, json!({ "input": { "address": address } })).await;

    sign_up(&visitor, "victim@example.com", "Victor", PASSWORD).await;
    let link = test.token_mailed_to("victim@example.com", 2).await;
    visitor.send(VERIFY, json!({ "input": { "token": link } })).await;

    assert_eq!(mallory.error_code(VIEWER, json!({})).await, "UNAUTHENTICATED");
    assert!(refresh(&visitor, &tokens["tokens"]["refreshToken"]).await["tokens"].is_null());
    let tokens = log_in(&visitor, "victim@example.com", PASSWORD).await;
    let victor = visitor.with_token(tokens["tokens"]["accessToken"].as_str().unwrap());
    let data = victor.send("{ viewer { name addresses { recipient } } }", json!({})).await;
    assert_eq!(data["viewer"], json!({ "name": "Victor", "addresses": [] }));
    test.finish().await;
}

#[tokio::test]
async fn a_mail_that_cannot_be_sent_is_tried_again_and_arrives() {
    let test = TestApp::start().await;
    assert_eq!(sign_up(&test.anonymous(), "late@example.com", "Late", PASSWORD).await["accepted"], true);

    let mut worker = test.worker();
    let put_off = "SELECT count(*) FROM retry WHERE queue = 'mail' AND attempts = 1 AND due_at IS NOT NULL
                      AND last_error = 'the mail server cannot be reached' AND NOT EXISTS (SELECT 1 FROM pgmq.q_mail)";
    until(async || (test.scalar(put_off).await == 1).then_some(())).await;
    worker.kill();

    // The mail server is back, and the pause is over.
    test.execute("UPDATE retry SET due_at = now(); UPDATE lease SET expires_at = now()").await;
    test.start_jobs();
    test.token_mailed_to("late@example.com", 1).await;
    until(async || (test.scalar("SELECT count(*) FROM retry").await == 0).then_some(())).await;
    test.finish().await;
}
