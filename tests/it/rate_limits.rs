//! Who tries too often is told how long to wait, at one server and over all of them.

use serde_json::{Value, json};

use crate::support::{Client, PASSWORD, TestApp, until};

const LOG_IN: &str = "mutation($input: LogInInput!) { logIn(input: $input) { tokens { accessToken } userErrors { code } } }";
const RESET: &str = "mutation($input: RequestPasswordResetInput!) { requestPasswordReset(input: $input) { accepted } }";
const TYPENAME: &str = "{ __typename }";
const NEW: &str = "application/graphql-response+json";

async fn code(client: &Client, query: &str, input: &Value) -> Option<String> {
    let answer = client.answer(query, json!({ "input": input })).await;
    answer["errors"][0]["extensions"]["code"].as_str().map(str::to_owned)
}

#[tokio::test]
async fn log_ins_to_one_address_are_limited_whoever_tries_and_whether_or_not_it_is_known() {
    let test = TestApp::start_with(&[("LOG_IN_PER_MINUTE", "5")]).await;
    let client = test.anonymous();
    for email in ["ann@example.com", "nobody@example.com"] {
        for spelling in [email, &email.to_uppercase(), email, email, email] {
            assert_eq!(code(&client, LOG_IN, &json!({ "email": spelling, "password": PASSWORD })).await, None);
        }
        let answer = client.answer(LOG_IN, json!({ "input": { "email": email, "password": PASSWORD } })).await;
        let extensions = &answer["errors"][0]["extensions"];
        assert_eq!(extensions["code"], "RATE_LIMITED", "{answer:#}");
        assert!((1..=12_000).contains(&extensions["retryAfterMs"].as_i64().unwrap()), "{answer:#}");
    }
    assert_eq!(code(&client, LOG_IN, &json!({ "email": "bob@example.com", "password": PASSWORD })).await, None, "others may");
    test.finish().await;
}

#[tokio::test]
async fn nobody_can_have_an_address_flooded_with_mail() {
    let test = TestApp::start_with(&[("MAILS_PER_HOUR", "3")]).await;
    let client = test.anonymous();
    let input = json!({ "email": "ann@example.com" });
    for _ in 0..3 {
        assert_eq!(code(&client, RESET, &input).await, None);
    }
    assert_eq!(code(&client, RESET, &input).await.as_deref(), Some("RATE_LIMITED"));
    let resend = "mutation($input: ResendVerificationEmailInput!) { resendVerificationEmail(input: $input) { accepted } }";
    assert_eq!(code(&client, resend, &input).await.as_deref(), Some("RATE_LIMITED"), "one limit for both");
    let request = "mutation($input: RequestEmailChangeInput!) { requestEmailChange(input: $input) { accepted } }";
    let input = json!({ "newEmail": "ann@example.com", "password": PASSWORD });
    assert_eq!(code(&test.customer().await, request, &input).await.as_deref(), Some("RATE_LIMITED"), "and for moving there");
    test.finish().await;
}

#[tokio::test]
async fn anonymous_operations_count_for_their_address_and_others_for_their_account() {
    let test = TestApp::start_with(&[("ADDRESS_PER_MINUTE", "3"), ("ACCOUNT_PER_MINUTE", "4"), ("TRUSTED_PROXY_HOPS", "1")]).await;
    let from = async |client: &Client, address: &str, content_type: &str| {
        let request = client.post().header("x-forwarded-for", address).header("accept", content_type);
        let answer = request.json(&json!({ "query": TYPENAME })).send().await.unwrap();
        answer.status().as_u16()
    };
    let visitor = test.anonymous();
    for forged in ["198.51.100.1", "198.51.100.2", "198.51.100.3"] {
        assert_eq!(from(&visitor, &format!("{forged}, 203.0.113.7"), NEW).await, 200);
    }
    assert_eq!(from(&visitor, "203.0.113.7", NEW).await, 429, "what stands left of our proxy's entry changes nothing");
    assert_eq!(from(&visitor, "203.0.113.7", "application/json").await, 200, "older clients read the error's code");
    assert_eq!(from(&visitor, "203.0.113.8", NEW).await, 200);
    for number in 0..3 {
        assert_eq!(from(&visitor, &format!("2001:db8::{number}"), NEW).await, 200);
    }
    assert_eq!(from(&visitor, "2001:db8::ffff", NEW).await, 429, "a /64 is one client");

    let ann = test.customer().await;
    for number in 0..4 {
        assert_eq!(from(&ann, &format!("192.0.2.{number}"), NEW).await, 200);
    }
    assert_eq!(from(&ann, "203.0.113.9", NEW).await, 429, "wherever they are");
    test.finish().await;
}

#[tokio::test]
async fn servers_put_their_counts_together_and_do_without_redis() {
    let limits = [("LOG_IN_PER_MINUTE", "4")];
    let test = TestApp::start_with(&limits).await;
    let (_second, address) = test.second_server_with(&limits).await;
    let (here, there) = (test.anonymous(), test.anonymous().at(address));
    let input = json!({ "email": format!("{}@example.com", uuid::Uuid::new_v4()), "password": PASSWORD });
    for _ in 0..3 {
        assert_eq!(code(&here, LOG_IN, &input).await, None);
    }
    assert_eq!(code(&there, LOG_IN, &input).await, None, "the fourth of four");

    // Both are empty once they have heard of each other: fifteen seconds are one more try.
    until(async || (code(&there, LOG_IN, &input).await.as_deref() == Some("RATE_LIMITED")).then_some(())).await;
    let counted = test.app.clock.now();
    until(async || (code(&here, LOG_IN, &input).await.as_deref() == Some("RATE_LIMITED")).then_some(())).await;
    assert!(test.app.clock.now() - counted < chrono::TimeDelta::seconds(5));
    test.finish().await;

    let alone = TestApp::start_with(&[("LOG_IN_PER_MINUTE", "4"), ("REDIS_URL", "redis://127.0.0.1:1")]).await;
    for _ in 0..4 {
        assert_eq!(code(&alone.anonymous(), LOG_IN, &input).await, None);
    }
    assert_eq!(code(&alone.anonymous(), LOG_IN, &input).await.as_deref(), Some("RATE_LIMITED"));
    alone.finish().await;
}

#[tokio::test]
async fn a_stolen_session_cannot_guess_the_password() {
    let test = TestApp::start_with(&[("LOG_IN_PER_MINUTE", "3")]).await;
    let ann = test.customer().await;
    let change = "mutation($input: ChangePasswordInput!) { changePassword(input: $input) { userErrors { code } } }";
    let delete = "mutation($input: DeleteAccountInput!) { deleteAccount(input: $input) { userErrors { code } } }";
    let email = "mutation($input: RequestEmailChangeInput!) { requestEmailChange(input: $input) { userErrors { code } } }";
    let guesses = [
        (change, json!({ "currentPassword": "not her password", "newPassword": PASSWORD })),
        (delete, json!({ "password": "not her password" })),
        (email, json!({ "newEmail": "mallory@example.com", "password": "not her password" })),
    ];
    for (mutation, input) in &guesses {
        assert_eq!(code(&ann, mutation, input).await, None);
    }
    for (mutation, input) in &guesses {
        assert_eq!(code(&ann, mutation, input).await.as_deref(), Some("RATE_LIMITED"), "one limit for all of them");
    }
    test.finish().await;
}
