//! Operations by their hash, and a manifest that only grows.

use std::{collections::BTreeMap, fmt::Write, process::Command};

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::support::{Client, TestApp};

const MANIFEST: &str = "frontend-queries/manifest.json";

/// Documents by their id.
fn documents(manifest: &str) -> BTreeMap<String, String> {
    let manifest: Value = serde_json::from_str(manifest).unwrap();
    assert_eq!((&manifest["format"], &manifest["version"]), (&json!("apollo-persisted-query-manifest"), &json!(1)));
    let text = |operation: &Value, field: &str| operation[field].as_str().unwrap().to_owned();
    manifest["operations"].as_array().unwrap().iter().map(|operation| (text(operation, "id"), text(operation, "body"))).collect()
}

fn present() -> BTreeMap<String, String> {
    documents(&std::fs::read_to_string(MANIFEST).unwrap())
}

fn sha256(text: &str) -> String {
    let mut hex = String::with_capacity(64);
    for byte in Sha256::digest(text) {
        let _ = write!(hex, "{byte:02x}");
    }
    hex
}

fn git(arguments: &[&str]) -> String {
    let output = Command::new("git").args(arguments).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn every_operation_of_our_clients_is_in_the_manifest() {
    let present = present();
    for (id, body) in &present {
        assert_eq!(*id, sha256(body));
    }
    for client in ["frontend-queries/web", "frontend-queries/mobile", "frontend-queries/admin", "web/src/account"] {
        for entry in std::fs::read_dir(client).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|extension| extension == "graphql") {
                let text = std::fs::read_to_string(&path).unwrap();
                let body = text.lines().filter(|line| !line.starts_with('#')).collect::<Vec<_>>().join("\n");
                assert!(present.contains_key(&sha256(body.trim())), "run `make manifest`: {}", path.display());
            }
        }
    }
}

/// As far as the history reaches: a shallow clone knows only its own commit.
#[test]
fn nothing_that_was_ever_in_the_manifest_has_gone() {
    let present = present();
    for commit in git(&["rev-list", "HEAD", "--", MANIFEST]).lines() {
        for (id, body) in documents(&git(&["show", &format!("{commit}:{MANIFEST}")])) {
            assert_eq!(present.get(&id), Some(&body), "{id} of {commit} is gone: phones send it still");
        }
    }
}

/// Whatever else is wrong without variables and without a customer: no document of a phone's may be invalid.
#[tokio::test]
async fn every_document_that_was_ever_sent_is_valid_today() {
    let test = TestApp::start().await;
    let client = test.anonymous();
    for (id, body) in present() {
        let answer = if body.starts_with("subscription") {
            client.subscribe(&body, json!({})).await.next().await["payload"].take()
        } else {
            client.answer(&body, json!({})).await
        };
        let errors = answer.get("errors").unwrap_or(&answer).as_array().cloned().unwrap_or_default();
        for error in errors {
            let message = error["message"].as_str().unwrap();
            let is_about_variables = message.contains("is not defined") || message.contains("Invalid value for argument");
            assert!(is_about_variables || error.get("path").is_some(), "{id}: {message}\n{body}");
        }
    }
    test.finish().await;
}

async fn run(client: &Client, request: Value) -> Value {
    client.post().json(&request).send().await.unwrap().json().await.unwrap()
}

fn by_hash(hash: &str) -> Value {
    json!({ "extensions": { "persistedQuery": { "version": 1, "sha256Hash": hash } } })
}

#[tokio::test]
async fn a_hash_stands_for_a_document_and_only_trusted_ones_are_run_where_configured() {
    let known = present().into_iter().find(|(_, body)| body.contains("query ServerTime")).unwrap();
    let (hash, body) = known;
    let unknown = "{ serverTime }";
    let refused = |answer: &Value| answer["errors"][0]["extensions"]["code"] == "BAD_REQUEST" && answer["data"].is_null();

    let open = TestApp::start().await;
    let client = open.anonymous();
    assert!(run(&client, by_hash(&hash)).await["data"]["serverTime"].is_string());
    assert!(run(&client, json!({ "query": unknown })).await["data"]["serverTime"].is_string());
    assert!(refused(&run(&client, by_hash(&sha256(unknown))).await));
    assert!(refused(&run(&client, by_hash("nonsense")).await));
    let mut swapped = by_hash(&hash);
    swapped["query"] = json!(unknown);
    assert!(refused(&run(&client, swapped).await), "a hash says what it says");
    open.finish().await;

    let closed = TestApp::start_with(&[("TRUSTED_DOCUMENTS", "only")]).await;
    let client = closed.anonymous();
    assert!(run(&client, by_hash(&hash)).await["data"]["serverTime"].is_string());
    assert!(run(&client, json!({ "query": body })).await["data"]["serverTime"].is_string(), "by its text as well");
    assert!(refused(&run(&client, json!({ "query": unknown })).await));
    let mut own_hash = by_hash(&sha256(unknown));
    own_hash["query"] = json!(unknown);
    assert!(refused(&run(&client, own_hash).await), "nobody adds to the list");
    for persisted in [json!(7), json!({}), json!({ "version": 2, "sha256Hash": hash }), json!({ "sha256Hash": 7 })] {
        assert!(refused(&run(&client, json!({ "extensions": { "persistedQuery": persisted } })).await));
    }

    let mut socket = client.socket().await;
    let payload = json!({ "query": "subscription { flashSaleUpdates(flashSaleId: \"x\") { id } }" });
    socket.send(&json!({ "id": "1", "type": "subscribe", "payload": payload })).await;
    let answer = socket.next().await;
    assert!(refused(&answer["payload"]) || answer["type"] == "error", "{answer:#}");
    let (hash, _) = present().into_iter().find(|(_, body)| body.starts_with("subscription FlashSaleUpdates")).unwrap();
    let mut payload = by_hash(&hash);
    payload["variables"] = json!({ "flashSaleId": closed.open_sale(1, 1).await.to_string() });
    socket.send(&json!({ "id": "2", "type": "subscribe", "payload": payload })).await;
    let update = socket.next().await;
    assert_eq!(update["type"], if update["id"] == "1" { "complete" } else { "next" }, "{update:#}");
    closed.finish().await;
}
