//! The command `audit`.

use std::process::Output;

use serde_json::Value;

use crate::support::TestApp;

#[tokio::test]
async fn a_watch_tells_when_something_is_broken_and_when_it_is_not() {
    let test = TestApp::start().await;
    let sale = test.open_sale(5, 5).await;
    let ann = test.customer().await;
    ann.must_buy(sale, 2, serde_json::json!({})).await;
    let watch = ["audit", "--watch", "--json", "--every", "10ms", "--for", "400ms"];

    let well = test.command(&watch).await;
    test.execute("UPDATE purchase_quota SET held = 1").await;
    let broken = test.command(&watch).await;
    test.execute("UPDATE purchase_quota SET held = 2").await;

    let looks = |output: &Output| -> Vec<Value> {
        String::from_utf8_lossy(&output.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    assert_eq!((well.status.code(), broken.status.code()), (Some(0), Some(1)), "{}", String::from_utf8_lossy(&well.stdout));
    assert!(looks(&well).iter().all(|look| look["ok"] == true));
    assert_eq!(looks(&broken)[0]["broken"][0]["name"], "I11");
    test.finish().await;
}
