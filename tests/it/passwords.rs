//! Passwords: their change, their reset, their hashes.

use argon2::{Algorithm, Argon2, Params, PasswordHasher, Version};
use serde_json::json;

use crate::support::{
    Barrier, PASSWORD, Step, TestApp,
    account::{VIEWER, account, change_password, log_in, owner, signed_in},
    until,
};

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
    sqlx::query("UPDATE customer SET password_hash = $1").bind(&old).execute(&*test.app.db).await.unwrap();
    let stored = async || sqlx::query_scalar::<_, String>("SELECT password_hash FROM customer").fetch_one(&*test.app.db).await.unwrap();
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
