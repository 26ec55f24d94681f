//! Accounts and addresses.

use argon2::{Algorithm, Argon2, Params, PasswordHasher, Version};
use serde_json::{Value, json};
use whitemonday::{
    domain::customer::{EmailAddress, Role},
    services::{self, account::GrantRole},
};

use crate::support::{
    Barrier, Client, PASSWORD, Step, TestApp,
    account::{SIGN_UP, VERIFY, VIEWER, account, change_password, log_in, owner, refresh, sign_up, signed_in},
    new_key, until,
};

const SAVE: &str =
    "mutation($input: SaveAddressInput!) { saveAddress(input: $input) { address { id recipient isDefault } userErrors { code field } } }";

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
async fn a_password_reset_ends_all_sessions() {
    let test = TestApp::start_with_jobs().await;
    account(&test, "ann@example.com").await;
    let visitor = test.anonymous();
    let tokens = log_in(&visitor, "ann@example.com", PASSWORD).await;

    let request = "mutation($input: RequestPasswordResetInput!) { requestPasswordReset(input: $input) { accepted userErrors { code } } }";
    let known = visitor.send(request, json!({ "input": { "email": "ann@example.com" } })).await;
    let unknown = visitor.send(request, json!({ "input": { "email": "nobody@example.com" } })).await;
    assert_eq!(known, unknown);
    let token = test.token_mailed_to("ann@example.com", 2).await;
    let reset = "mutation($input: ResetPasswordInput!) { resetPassword(input: $input) { done userErrors { code field } } }";
    let weak = visitor.send(reset, json!({ "input": { "token": token, "newPassword": "short" } })).await;
    assert_eq!(weak["resetPassword"]["userErrors"][0]["field"], json!(["newPassword"]));
    let done = visitor.send(reset, json!({ "input": { "token": token, "newPassword": "a brand new one" } })).await;
    assert_eq!(done["resetPassword"]["done"], true, "a refused password leaves the link as it was");

    let old = visitor.with_token(tokens["tokens"]["accessToken"].as_str().unwrap());
    assert_eq!(old.error_code(VIEWER, json!({})).await, "UNAUTHENTICATED");
    assert!(log_in(&visitor, "ann@example.com", PASSWORD).await["tokens"].is_null());
    assert!(!log_in(&visitor, "ann@example.com", "a brand new one").await["tokens"].is_null());
    test.finish().await;
}

#[tokio::test]
async fn a_changed_password_ends_all_other_sessions_and_voids_links_to_reset_it() {
    let test = TestApp::start_with_jobs().await;
    let laptop = owner(&test, "ann@example.com").await;
    let phone = signed_in(&test, "ann@example.com", PASSWORD).await;
    let request = "mutation($input: RequestPasswordResetInput!) { requestPasswordReset(input: $input) { accepted } }";
    test.anonymous().send(request, json!({ "input": { "email": "ann@example.com" } })).await;
    let reset_link = test.token_mailed_to("ann@example.com", 2).await;

    let wrong = json!({ "done": false, "userErrors": [{ "code": "BAD_CREDENTIALS", "field": ["currentPassword"] }] });
    assert_eq!(change_password(&laptop, "not her password", "a brand new one").await, wrong);
    assert_eq!(change_password(&laptop, "", "a brand new one").await, wrong);
    let weak = json!({ "done": false, "userErrors": [{ "code": "INVALID", "field": ["newPassword"] }] });
    assert_eq!(change_password(&laptop, PASSWORD, "short").await, weak);
    assert!(phone.send(VIEWER, json!({})).await["viewer"].is_object(), "nothing has changed");

    assert_eq!(change_password(&laptop, PASSWORD, "a brand new one").await, json!({ "done": true, "userErrors": [] }));

    assert!(laptop.send(VIEWER, json!({})).await["viewer"].is_object(), "the session that asked goes on");
    assert_eq!(phone.error_code(VIEWER, json!({})).await, "UNAUTHENTICATED");
    assert!(log_in(&test.anonymous(), "ann@example.com", PASSWORD).await["tokens"].is_null());
    assert!(!log_in(&test.anonymous(), "ann@example.com", "a brand new one").await["tokens"].is_null());
    let reset = "mutation($input: ResetPasswordInput!) { resetPassword(input: $input) { userErrors { code } } }";
    let void = test.anonymous().send(reset, json!({ "input": { "token": reset_link, "newPassword": PASSWORD } })).await;
    assert_eq!(void["resetPassword"]["userErrors"][0]["code"], "TOKEN_INVALID");
    let mails = until(async || Some(test.mails_to("ann@example.com")).filter(|mails| mails.len() == 3)).await;
    assert!(mails[2].contains("password of your account has been changed"), "{}", mails[2]);
    test.finish().await;
}

#[tokio::test]
async fn a_password_that_is_changed_twice_at_the_same_moment_is_changed_once() {
    let test = TestApp::start_with_jobs().await;
    let ann = owner(&test, "ann@example.com").await;
    let barrier = Barrier::at(&test, Step::update("customer", "OLD.password_hash <> NEW.password_hash")).await;
    let first = tokio::spawn({
        let ann = ann.clone();
        async move { change_password(&ann, PASSWORD, "the first new one").await }
    });
    barrier.reached(&test).await;
    let second = tokio::spawn(async move { change_password(&ann, PASSWORD, "the second new one").await });
    barrier.has_queue(&test).await;
    barrier.lift().await;

    assert_eq!(first.await.unwrap()["done"], true);
    assert_eq!(second.await.unwrap()["userErrors"][0]["code"], "BAD_CREDENTIALS", "the password was another one by then");
    assert!(!log_in(&test.anonymous(), "ann@example.com", "the first new one").await["tokens"].is_null());
    test.finish().await;
}

#[tokio::test]
async fn a_password_hash_of_other_parameters_is_made_anew_at_the_next_log_in() {
    let test = TestApp::start_with_jobs().await;
    account(&test, "ann@example.com").await;
    let cheap = Argon2::new(Algorithm::Argon2id, Version::V0x13, Params::new(64, 1, 1, None).unwrap());
    let old = cheap.hash_password(PASSWORD.as_bytes()).unwrap().to_string();
    sqlx::query("UPDATE customer SET password_hash = $1").bind(&old).execute(&test.app.db).await.unwrap();
    let stored = async || sqlx::query_scalar::<_, String>("SELECT password_hash FROM customer").fetch_one(&test.app.db).await.unwrap();
    let visitor = test.anonymous();

    assert!(log_in(&visitor, "ann@example.com", "not her password").await["tokens"].is_null());
    assert_eq!(stored().await, old, "only who knows the password can renew its hash");

    // Two at the same moment: both get in.
    let both = tokio::join!(log_in(&visitor, "ann@example.com", PASSWORD), log_in(&visitor, "ann@example.com", PASSWORD));
    assert!(!both.0["tokens"].is_null() && !both.1["tokens"].is_null(), "{both:?}");
    let renewed = stored().await;
    assert!(renewed.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{renewed}");
    assert!(!log_in(&visitor, "ann@example.com", PASSWORD).await["tokens"].is_null());
    assert_eq!(stored().await, renewed);
    test.finish().await;
}

#[tokio::test]
async fn a_profile_keeps_what_is_left_out_and_loses_a_phone_that_is_null() {
    let test = TestApp::start_with_jobs().await;
    let ann = owner(&test, "ann@example.com").await;
    let update = async |input: Value| {
        let mutation = "mutation($input: UpdateProfileInput!) {
            updateProfile(input: $input) { customer { name phone locale } userErrors { code field } } }";
        ann.send(mutation, json!({ "input": input })).await["updateProfile"].take()
    };
    let profile = |name, phone: Value, locale| json!({ "customer": { "name": name, "phone": phone, "locale": locale }, "userErrors": [] });

    assert_eq!(update(json!({})).await, profile("Ann", json!("010-1234-5678"), "EN"));
    assert_eq!(update(json!({ "name": "  안나 " })).await, profile("안나", json!("010-1234-5678"), "EN"));
    assert_eq!(update(json!({ "locale": "KO", "name": null })).await, profile("안나", json!("010-1234-5678"), "KO"));
    assert_eq!(update(json!({ "phone": null })).await, profile("안나", json!(null), "KO"));
    assert_eq!(update(json!({ "phone": "02-555-0000" })).await, profile("안나", json!("02-555-0000"), "KO"));
    for (field, value) in [("name", " "), ("name", "a\u{0}b"), ("phone", "call me")] {
        let refused = update(json!({ field: value, "locale": "EN" })).await;
        assert_eq!(refused, json!({ "customer": null, "userErrors": [{ "code": "INVALID", "field": [field] }] }));
    }
    assert_eq!(update(json!({})).await, profile("안나", json!("02-555-0000"), "KO"), "a refused change changes nothing");
    for mutation in [
        "updateProfile(input: {}) { userErrors { code } }",
        r#"changePassword(input: { currentPassword: "", newPassword: "" }) { done }"#,
        r#"removeAddress(input: { id: "" }) { userErrors { code } }"#,
    ] {
        assert_eq!(test.anonymous().error_code(&format!("mutation {{ {mutation} }}"), json!({})).await, "UNAUTHENTICATED");
    }
    test.finish().await;
}

#[tokio::test]
async fn addresses_are_versions_and_one_of_them_is_the_default() {
    let test = TestApp::start().await;
    let [ann, bob] = test.customers(2).await.try_into().unwrap_or_else(|_| panic!());
    let address = |recipient: &str| json!({ "recipient": recipient, "line1": "세종대로 110", "city": "서울", "postalCode": "04524", "countryCode": "KR" });
    let save = async |client: &Client, input: Value| client.send(SAVE, json!({ "input": input })).await["saveAddress"].take();
    let book = async || ann.send("{ viewer { addresses { id recipient isDefault } } }", json!({})).await["viewer"]["addresses"].take();
    let first = book().await[0]["id"].take();

    let key = new_key();
    let input = json!({ "address": address("Office"), "idempotencyKey": key });
    let office = save(&ann, input.clone()).await;
    assert_eq!(office["address"]["isDefault"], false, "the first address stays the default");
    assert_eq!(save(&ann, input).await, office, "the same key, the same address");
    let changed = save(&ann, json!({ "address": address("Other"), "idempotencyKey": key })).await;
    assert_eq!(changed["userErrors"][0]["code"], "IDEMPOTENCY_KEY_REUSED");

    let replaced = save(&ann, json!({ "id": first, "address": address("Home") })).await;
    assert_ne!(replaced["address"]["id"], first, "an edit is a new version");
    assert_eq!(replaced["address"]["isDefault"], true);
    let gone = save(&ann, json!({ "id": first, "address": address("Home") })).await;
    assert_eq!(gone["userErrors"], json!([{ "code": "NOT_FOUND", "field": ["id"] }]), "an old version cannot be replaced again");
    let foreign = save(&bob, json!({ "id": replaced["address"]["id"], "address": address("Mine") })).await;
    assert_eq!(foreign["userErrors"][0]["code"], "NOT_FOUND");

    let mut office_default = address("Office");
    office_default["isDefault"] = json!(true);
    save(&ann, json!({ "id": office["address"]["id"], "address": office_default })).await;
    let recipients: Vec<_> = book().await.as_array().unwrap().iter().map(|a| (a["recipient"].clone(), a["isDefault"].clone())).collect();
    assert_eq!(recipients, [(json!("Home"), json!(false)), (json!("Office"), json!(true))]);

    for (field, value) in [("recipient", ""), ("line1", "\n"), ("countryCode", "kr"), ("countryCode", "KOR"), ("phone", "x")] {
        let mut bad = address("Ann");
        bad[field] = json!(value);
        assert_eq!(save(&ann, json!({ "address": bad })).await["userErrors"], json!([{ "code": "INVALID", "field": ["address", field] }]));
    }
    test.finish().await;
}

#[tokio::test]
async fn a_removed_address_leaves_the_book_and_its_default_to_the_oldest_left() {
    let test = TestApp::start().await;
    let [ann, bob] = test.customers(2).await.try_into().unwrap_or_else(|_| panic!());
    let book = "{ viewer { addresses { id recipient isDefault } } }";
    let first = ann.send(book, json!({})).await["viewer"]["addresses"][0]["id"].take();
    for recipient in ["Second", "Third"] {
        let address = json!({ "recipient": recipient, "line1": "x", "city": "x", "postalCode": "1", "countryCode": "KR" });
        ann.send(SAVE, json!({ "input": { "address": address } })).await;
    }
    let remove = async |client: &Client, id: &Value| {
        let mutation = "mutation($input: RemoveAddressInput!) {
            removeAddress(input: $input) { customer { addresses { recipient isDefault } } userErrors { code field } } }";
        client.send(mutation, json!({ "input": { "id": id } })).await["removeAddress"].take()
    };

    let refused = json!({ "customer": null, "userErrors": [{ "code": "NOT_FOUND", "field": ["id"] }] });
    assert_eq!(remove(&bob, &first).await, refused, "of somebody else");
    assert_eq!(remove(&ann, &json!("addr_1")).await, refused);

    let left = remove(&ann, &first).await;
    assert_eq!(
        left["customer"]["addresses"],
        json!([{ "recipient": "Second", "isDefault": true }, { "recipient": "Third", "isDefault": false }])
    );
    assert_eq!(remove(&ann, &first).await, refused, "it is gone already");
    let rest = ann.send(book, json!({})).await["viewer"]["addresses"].take();
    let left = remove(&ann, &rest[1]["id"]).await;
    assert_eq!(left["customer"]["addresses"], json!([{ "recipient": "Second", "isDefault": true }]));
    assert_eq!(remove(&ann, &rest[0]["id"]).await["customer"]["addresses"], json!([]));
    test.finish().await;
}

#[tokio::test]
async fn an_order_keeps_the_address_it_was_made_with() {
    let test = TestApp::start().await;
    let sale = test.open_sale(1, 1).await;
    let ann = test.customer().await;
    let first = ann.send("{ viewer { addresses { id recipient } } }", json!({})).await["viewer"]["addresses"][0].take();
    let order = ann.must_buy(sale, 1, json!({ "deliveryNote": "문 앞에 놓아 주세요" })).await;

    let address = json!({ "recipient": "Somebody else", "line1": "x", "city": "x", "postalCode": "1", "countryCode": "KR" });
    ann.send(SAVE, json!({ "input": { "id": first["id"], "address": address } })).await;

    let query = "query($id: ID!) { order(id: $id) { shippingAddress { recipient } deliveryNote } }";
    let order = ann.send(query, json!({ "id": order })).await;
    assert_eq!(order["order"], json!({ "shippingAddress": { "recipient": first["recipient"] }, "deliveryNote": "문 앞에 놓아 주세요" }));
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
            .fetch_all(&test.app.db)
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
