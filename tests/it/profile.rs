//! What customers change of their account: the profile, the e-mail address.

use serde_json::{Value, json};
use whitemonday::services;

use crate::support::{
    Barrier, Client, PASSWORD, Step, TestApp,
    account::{VIEWER, change_password, log_in, owner, sign_up},
    until,
};

const CONFIRM: &str = "mutation($input: ConfirmEmailChangeInput!) {
    confirmEmailChange(input: $input) { customer { email emailVerified } userErrors { code field } } }";

async fn request_change(client: &Client, new_email: &str, password: &str) -> Value {
    let mutation =
        "mutation($input: RequestEmailChangeInput!) { requestEmailChange(input: $input) { accepted userErrors { code field } } }";
    client.send(mutation, json!({ "input": { "newEmail": new_email, "password": password } })).await["requestEmailChange"].take()
}

async fn confirm_change(client: &Client, token: &str) -> Value {
    client.send(CONFIRM, json!({ "input": { "token": token } })).await["confirmEmailChange"].take()
}

fn token_invalid() -> Value {
    json!({ "customer": null, "userErrors": [{ "code": "TOKEN_INVALID", "field": ["token"] }] })
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
async fn an_account_moves_to_another_address_by_the_link_that_is_mailed_there() {
    let test = TestApp::start_with_jobs().await;
    let ann = owner(&test, "ann@example.com").await;
    let visitor = test.anonymous();
    let request = "mutation($input: RequestPasswordResetInput!) { requestPasswordReset(input: $input) { accepted } }";
    visitor.send(request, json!({ "input": { "email": "ann@example.com" } })).await;
    let reset_link = test.token_mailed_to("ann@example.com", 2).await;

    for (email, password, code, field) in [
        ("ann.new@example.com", "not her password", "BAD_CREDENTIALS", "password"),
        ("nonsense", PASSWORD, "INVALID", "newEmail"),
        ("Ann@Example.com", PASSWORD, "INVALID", "newEmail"),
    ] {
        let refused = json!({ "accepted": false, "userErrors": [{ "code": code, "field": [field] }] });
        assert_eq!(request_change(&ann, email, password).await, refused);
    }
    assert_eq!(request_change(&ann, "ann.new@example.com", PASSWORD).await, json!({ "accepted": true, "userErrors": [] }));
    let first = test.token_mailed_to("ann.new@example.com", 1).await;
    assert_eq!(request_change(&ann, "ann.newer@example.com", PASSWORD).await["accepted"], true);
    let second = test.token_mailed_to("ann.newer@example.com", 1).await;
    let notices = until(async || Some(test.mails_to("ann@example.com")).filter(|mails| mails.len() == 4)).await;
    for notice in &notices[2..] {
        assert!(notice.contains("move your account to another") && !notice.contains("token="), "{notice}");
    }
    assert_eq!(confirm_change(&visitor, &first).await, token_invalid(), "a later request has made it void");
    assert_eq!(ann.send(VIEWER, json!({})).await["viewer"]["email"], "ann@example.com", "nothing has changed");

    let moved = json!({ "customer": { "email": "ann.newer@example.com", "emailVerified": true }, "userErrors": [] });
    assert_eq!(confirm_change(&visitor, &second).await, moved);

    assert_eq!(confirm_change(&visitor, &second).await, token_invalid(), "it works once");
    assert_eq!(ann.send(VIEWER, json!({})).await["viewer"]["email"], "ann.newer@example.com", "sessions go on");
    assert!(log_in(&visitor, "ann@example.com", PASSWORD).await["tokens"].is_null());
    assert!(!log_in(&visitor, "ann.newer@example.com", PASSWORD).await["tokens"].is_null());
    let reset = "mutation($input: ResetPasswordInput!) { resetPassword(input: $input) { userErrors { code } } }";
    let void = visitor.send(reset, json!({ "input": { "token": reset_link, "newPassword": "a brand new one" } })).await;
    assert_eq!(void["resetPassword"]["userErrors"][0]["code"], "TOKEN_INVALID", "it was mailed to the old address");
    assert_eq!(sign_up(&visitor, "ann@example.com", "Somebody else", PASSWORD).await["accepted"], true);
    assert!(test.token_mailed_to("ann@example.com", 5).await.len() > 20, "the old address is free");
    test.finish().await;
}

#[tokio::test]
async fn moving_to_an_address_that_has_an_account_looks_the_same_and_tells_its_owner() {
    let test = TestApp::start_with_jobs().await;
    let ann = owner(&test, "ann@example.com").await;
    owner(&test, "bob@example.com").await;

    let free = request_change(&ann, "nobody@example.com", PASSWORD).await;
    let taken = request_change(&ann, "bob@example.com", PASSWORD).await;

    assert_eq!(free, taken);
    let to_bob = until(async || Some(test.mails_to("bob@example.com")).filter(|mails| mails.len() == 2)).await;
    assert!(!to_bob[1].contains("token="), "{}", to_bob[1]);
    until(async || (test.mails_to("ann@example.com").len() == 3).then_some(())).await;
    let link = test.token_mailed_to("nobody@example.com", 1).await;
    assert_eq!(confirm_change(&ann, &link).await, token_invalid(), "the later request counts, whatever came of it");
    test.finish().await;
}

#[tokio::test]
async fn an_address_goes_to_who_confirms_or_signs_up_first() {
    let test = TestApp::start_with_jobs().await;
    let ann = owner(&test, "ann@example.com").await;
    request_change(&ann, "wanted@example.com", PASSWORD).await;
    let link = test.token_mailed_to("wanted@example.com", 1).await;

    let barrier = Barrier::at(&test, Step::insert("customer")).await;
    let visitor = test.anonymous();
    let signing_up = tokio::spawn({
        let visitor = visitor.clone();
        async move { sign_up(&visitor, "wanted@example.com", "Bob", PASSWORD).await }
    });
    barrier.reached(&test).await;
    let confirming = tokio::spawn(async move { confirm_change(&visitor, &link).await });
    barrier.has_queue(&test).await;
    barrier.lift().await;

    assert_eq!(signing_up.await.unwrap()["accepted"], true);
    assert_eq!(confirming.await.unwrap(), token_invalid());
    assert_eq!(ann.send(VIEWER, json!({})).await["viewer"]["email"], "ann@example.com");
    test.finish().await;
}

#[tokio::test]
async fn a_change_or_reset_of_the_password_voids_the_link_that_moves_the_account() {
    let test = TestApp::start_with_jobs().await;
    let mallory = owner(&test, "ann@example.com").await;
    request_change(&mallory, "mallory@example.com", PASSWORD).await;
    let first = test.token_mailed_to("mallory@example.com", 1).await;
    assert_eq!(change_password(&mallory, PASSWORD, "a brand new one").await["done"], true);
    assert_eq!(confirm_change(&mallory, &first).await, token_invalid());

    request_change(&mallory, "mallory@example.com", "a brand new one").await;
    let second = test.token_mailed_to("mallory@example.com", 2).await;
    let request = "mutation($input: RequestPasswordResetInput!) { requestPasswordReset(input: $input) { accepted } }";
    test.anonymous().send(request, json!({ "input": { "email": "ann@example.com" } })).await;
    let reset_link = until(async || test.mails_to("ann@example.com").into_iter().find(|mail| mail.contains("/reset?token="))).await;
    let token = reset_link.split("token=").nth(1).unwrap().split_whitespace().next().unwrap();
    let reset = "mutation($input: ResetPasswordInput!) { resetPassword(input: $input) { done } }";
    let done = test.anonymous().send(reset, json!({ "input": { "token": token, "newPassword": PASSWORD } })).await;
    assert_eq!(done["resetPassword"]["done"], true);
    assert_eq!(confirm_change(&test.anonymous(), &second).await, token_invalid());
    test.finish().await;
}

#[tokio::test]
async fn a_link_to_move_an_account_works_for_a_day_and_is_then_forgotten() {
    let test = TestApp::start_with_jobs().await;
    let ann = owner(&test, "ann@example.com").await;
    request_change(&ann, "late@example.com", PASSWORD).await;
    let link = test.token_mailed_to("late@example.com", 1).await;
    let lifetime = "SELECT extract(epoch FROM expires_at - created_at)::bigint FROM one_time_token WHERE purpose = 'CHANGE_EMAIL'";
    assert_eq!(test.scalar(lifetime).await, 24 * 3600);
    test.execute("UPDATE one_time_token SET expires_at = now()").await;
    assert_eq!(confirm_change(&ann, &link).await, token_invalid());
    services::account::forget_expired_links(&test.app).await.unwrap();
    assert_eq!(test.scalar("SELECT count(*) FROM one_time_token").await, 0);
    test.finish().await;
}
