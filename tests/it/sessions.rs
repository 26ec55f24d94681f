//! Sessions: their tokens, and their end.

use serde_json::{Value, json};

use crate::support::{
    Client, PASSWORD, TestApp,
    account::{LOG_IN, VIEWER, account, log_in, refresh, signed_in},
    until,
};

const LOG_OUT: &str = "mutation { logOut { done } }";
const LOG_OUT_EVERYWHERE: &str = "mutation { logOutEverywhere { done } }";
const END: &str = "mutation($id: ID!) { endSession(input: { sessionId: $id }) { done } }";
const SESSIONS: &str = "{ viewer { sessions { id createdAt lastUsedAt expiresAt userAgent current } } }";
const NODE: &str = "query($id: ID!) { node(id: $id) { __typename id } }";

#[tokio::test]
async fn a_refresh_token_rotates_and_a_spent_one_ends_the_session() {
    let test = TestApp::start_with_jobs().await;
    account(&test, "ann@example.com").await;
    let visitor = test.anonymous();
    let first = log_in(&visitor, "ann@example.com", PASSWORD).await["tokens"]["refreshToken"].take();

    let tabs = tokio::join!(refresh(&visitor, &first), refresh(&visitor, &first));
    let second = tabs.0["tokens"]["refreshToken"].clone();
    assert_eq!(second, tabs.1["tokens"]["refreshToken"], "two tabs at the same moment get the same successor");
    assert_ne!(first, second);

    let third = refresh(&visitor, &second).await;
    let access = third["tokens"]["accessToken"].as_str().unwrap();
    assert!(visitor.with_token(access).send(VIEWER, json!({})).await["viewer"].is_object());

    // The first token is two generations old now: somebody has a copy.
    assert_eq!(refresh(&visitor, &first).await["userErrors"][0]["code"], "TOKEN_INVALID");
    assert_eq!(visitor.with_token(access).error_code(VIEWER, json!({})).await, "UNAUTHENTICATED", "the whole session has ended");
    assert_eq!(refresh(&visitor, &third["tokens"]["refreshToken"]).await["userErrors"][0]["code"], "TOKEN_INVALID");
    for nonsense in ["", "x", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"] {
        assert_eq!(refresh(&visitor, &json!(nonsense)).await["userErrors"][0]["code"], "TOKEN_INVALID");
    }
    test.finish().await;
}

#[tokio::test]
async fn a_log_out_reaches_every_server() {
    let test = TestApp::start().await;
    let (_second, address) = test.second_server().await;
    let ann = test.customer().await;
    let elsewhere = ann.at(address);
    assert!(elsewhere.send(VIEWER, json!({})).await["viewer"].is_object());

    assert_eq!(ann.send(LOG_OUT, json!({})).await["logOut"]["done"], true);

    assert_eq!(ann.error_code(VIEWER, json!({})).await, "UNAUTHENTICATED", "here at once");
    until(async || (elsewhere.answer(VIEWER, json!({})).await["errors"][0]["extensions"]["code"] == "UNAUTHENTICATED").then_some(())).await;
    assert!(test.anonymous().send(VIEWER, json!({})).await["viewer"].is_null());
    assert_eq!(test.anonymous().error_code(LOG_OUT, json!({})).await, "UNAUTHENTICATED");
    test.finish().await;
}

#[tokio::test]
async fn an_owner_sees_the_sessions_of_the_account_and_nobody_else_does() {
    let test = TestApp::start_with_jobs().await;
    account(&test, "ann@example.com").await;
    let input = json!({ "query": LOG_IN, "variables": { "input": { "email": "ann@example.com", "password": PASSWORD } } });
    let phone = test.anonymous().post().header("user-agent", "Phone/1.0").json(&input).send().await.unwrap();
    let phone: Value = phone.json().await.unwrap();
    let phone = test.anonymous().with_token(phone["data"]["logIn"]["tokens"]["accessToken"].as_str().unwrap());
    let laptop = signed_in(&test, "ann@example.com", PASSWORD).await;

    let data = laptop.send(SESSIONS, json!({})).await;
    let sessions = data["viewer"]["sessions"].as_array().unwrap();
    assert_eq!(sessions.len(), 2, "{sessions:#?}");
    assert_eq!((&sessions[0]["current"], &sessions[1]["current"]), (&json!(true), &json!(false)), "last used first");
    assert_eq!(sessions[1]["userAgent"], "Phone/1.0");
    assert!(sessions[0]["expiresAt"].as_str() > sessions[0]["lastUsedAt"].as_str());
    let id = sessions[1]["id"].clone();
    assert!(id.as_str().unwrap().starts_with("sess_"));
    assert_eq!(phone.send(NODE, json!({ "id": id })).await["node"], json!({ "__typename": "Session", "id": id }));

    let staff = test.staff().await;
    let customer = "query($id: ID!) { node(id: $id) { ... on Customer { email sessions { id } } } }";
    let owner = laptop.send(VIEWER, json!({})).await["viewer"]["id"].take();
    let seen = staff.send(customer, json!({ "id": owner })).await;
    assert_eq!(seen["node"], json!({ "email": "ann@example.com", "sessions": [] }));
    for stranger in [&staff, &test.customer().await, &test.anonymous()] {
        assert_eq!(stranger.send(NODE, json!({ "id": id })).await["node"], json!(null));
    }
    test.finish().await;
}

#[tokio::test]
async fn one_session_ends_and_the_others_go_on() {
    let test = TestApp::start_with_jobs().await;
    let (_second, address) = test.second_server().await;
    account(&test, "ann@example.com").await;
    let lost = log_in(&test.anonymous(), "ann@example.com", PASSWORD).await["tokens"].take();
    let lost_phone = test.anonymous().with_token(lost["accessToken"].as_str().unwrap());
    let laptop = signed_in(&test, "ann@example.com", PASSWORD).await;
    let id = lost_phone.send(SESSIONS, json!({})).await["viewer"]["sessions"][1]["id"].take();
    let end = async |client: &Client, id: &Value| client.send(END, json!({ "id": id })).await["endSession"]["done"].take();

    assert_eq!(end(&test.customer().await, &id).await, false, "of somebody else");
    for nonsense in ["sess_", "sess_00000000000000000000000000000000", "ord_00000000000000000000000000000000"] {
        assert_eq!(end(&laptop, &json!(nonsense)).await, false);
    }
    assert!(lost_phone.send(VIEWER, json!({})).await["viewer"].is_object());
    assert_eq!(test.anonymous().error_code(END, json!({ "id": id })).await, "UNAUTHENTICATED");

    assert_eq!(end(&laptop, &id).await, true);
    assert_eq!(end(&laptop, &id).await, false, "it is over already");

    assert_eq!(lost_phone.error_code(VIEWER, json!({})).await, "UNAUTHENTICATED", "here at once");
    let elsewhere = lost_phone.at(address);
    until(async || (elsewhere.answer(VIEWER, json!({})).await["errors"][0]["extensions"]["code"] == "UNAUTHENTICATED").then_some(())).await;
    assert!(refresh(&test.anonymous(), &lost["refreshToken"]).await["tokens"].is_null());
    assert_eq!(laptop.send(NODE, json!({ "id": id })).await["node"], json!(null));
    assert_eq!(laptop.send(SESSIONS, json!({})).await["viewer"]["sessions"].as_array().unwrap().len(), 1);
    test.finish().await;
}

#[tokio::test]
async fn logging_out_everywhere_ends_this_session_too_and_those_of_nobody_else() {
    let test = TestApp::start_with_jobs().await;
    let (_second, address) = test.second_server().await;
    account(&test, "ann@example.com").await;
    let [phone, laptop] = [signed_in(&test, "ann@example.com", PASSWORD).await, signed_in(&test, "ann@example.com", PASSWORD).await];
    let bob = test.customer().await;
    assert_eq!(test.anonymous().error_code(LOG_OUT_EVERYWHERE, json!({})).await, "UNAUTHENTICATED");

    assert_eq!(laptop.send(LOG_OUT_EVERYWHERE, json!({})).await["logOutEverywhere"]["done"], true);

    for ended in [&laptop, &phone] {
        assert_eq!(ended.error_code(VIEWER, json!({})).await, "UNAUTHENTICATED", "here at once");
        let elsewhere = ended.at(address);
        until(async || (elsewhere.answer(VIEWER, json!({})).await["errors"][0]["extensions"]["code"] == "UNAUTHENTICATED").then_some(()))
            .await;
    }
    assert!(bob.send(VIEWER, json!({})).await["viewer"].is_object());
    assert!(signed_in(&test, "ann@example.com", PASSWORD).await.send(VIEWER, json!({})).await["viewer"].is_object());
    test.finish().await;
}
