//! The command `stampede` against a server of the test's, and what it says when a promise was broken.

use serde_json::Value;

use crate::support::{TestApp, until};

/// A small stampede's exit code and JSON.
async fn stampede(test: &TestApp, arguments: &[&str]) -> (Option<i32>, Value) {
    let url = format!("http://{}", test.address);
    let small = ["stampede", "--url", &url, "--in-flight", "8", "--duration", "20s", "--measure", "200ms", "--json", "-"];
    let output = test.command(&[&small[..], arguments].concat()).await;
    let json = serde_json::from_slice(&output.stdout);
    (output.status.code(), json.unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr))))
}

fn answers(report: &Value, kind: &str) -> i64 {
    report["answers"][kind].as_i64().unwrap_or_default()
}

#[tokio::test]
async fn a_stampede_sells_every_unit_once_settles_and_says_so() {
    let test = TestApp::start_with_jobs().await;
    let folder = tempfile::tempdir().unwrap();
    let chart = folder.path().join("chart.svg");

    let (code, report) = stampede(
        &test,
        &[
            "--buyers",
            "60",
            "--units",
            "50",
            "--requests",
            "200",
            "--repeat",
            "20",
            "--per-customer-limit",
            "3",
            "--chart",
            chart.to_str().unwrap(),
        ],
    )
    .await;

    assert_eq!((code, &report["ok"]), (Some(0), &Value::Bool(true)), "{report:#}");
    assert_eq!(report["sale"]["unitsSold"], 50);
    let orders = report["sale"]["orders"].as_i64().unwrap();
    assert_eq!(answers(&report, "OrderAccepted"), orders, "{report:#}");
    assert_eq!(report["sale"]["paid"], orders);
    assert_eq!(report["settlement"]["unsettled"], 0);
    assert!(answers(&report, "SoldOut") > 0, "{report:#}");
    for measured in
        [&report["ceilings"]["graphql"], &report["ceilings"]["sql"], &report["http"]["cheapestQuery"], &report["http"]["soldOut"]]
    {
        assert!(measured.as_f64().unwrap() > 0.0, "{report:#}");
    }
    assert!(std::fs::read_to_string(chart).unwrap().ends_with("</svg>\n"));
    // The measurements took place elsewhere, and that is gone.
    let left = "SELECT count(*) FROM pg_database WHERE datname LIKE 'whitemonday_scratch_%' AND datname NOT IN
                    (SELECT datname FROM pg_stat_activity WHERE datname IS NOT NULL)";
    assert_eq!(test.scalar(left).await, 0);
    // Those who made the sold-out sale of the measurements sold out are paying still.
    until(async || (test.unsettled().await == 0).then_some(())).await;
    test.finish().await;
}

#[tokio::test]
async fn a_stampede_starts_as_many_servers_as_it_is_told_to() {
    let test = TestApp::start().await;
    let arguments = ["stampede", "--servers", "2", "--buyers", "30", "--units", "60", "--quantity", "1", "--requests", "30"];
    let output = test.command(&[&arguments[..], &["--in-flight", "4", "--no-ceilings", "--json", "-"]].concat()).await;
    let report: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr)));
    assert_eq!((output.status.code(), &report["ok"]), (Some(0), &Value::Bool(true)), "{report:#}");
    assert_eq!((answers(&report, "OrderAccepted"), &report["form"]["servers"], &report["sale"]["paid"]), (30, &2.into(), &30.into()));
    test.finish().await;
}

#[tokio::test]
async fn a_stampede_at_a_fixed_rate_takes_customers_made_before() {
    let test = TestApp::start().await;
    let folder = tempfile::tempdir().unwrap();
    let tokens = folder.path().join("buyers.jsonl");
    let seeded = test.command(&["seed", "--customers", "40", "--tokens-out", tokens.to_str().unwrap()]).await;
    assert!(seeded.status.success());

    let arguments = ["--tokens", tokens.to_str().unwrap(), "--requests", "40", "--rate", "400", "--no-settlement", "--no-ceilings"];
    let (code, report) = stampede(&test, &arguments).await;

    assert_eq!(code, Some(0), "{report:#}");
    assert_eq!(answers(&report, "OrderAccepted"), 40);
    assert_eq!((&report["form"]["ratePerSecond"], &report["settlement"]), (&Value::from(400.0), &Value::Null));
    assert_eq!(test.scalar("SELECT count(*) FROM customer").await, 40);
    test.finish().await;
}

#[tokio::test]
async fn a_stampede_finds_what_was_broken_behind_its_back() {
    let test = TestApp::start().await;
    // Every order of the stampede gets units that nobody claimed for it.
    test.execute(
        "CREATE FUNCTION more() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.quantity := NEW.quantity + 1; RETURN NEW; END $$;
         CREATE TRIGGER more BEFORE INSERT ON order_line FOR EACH ROW EXECUTE FUNCTION more()",
    )
    .await;

    let arguments = ["--buyers", "20", "--units", "10", "--quantity", "1", "--requests", "20", "--no-settlement", "--no-ceilings"];
    let (code, report) = stampede(&test, &arguments).await;

    assert_eq!((code, &report["ok"]), (Some(1), &Value::Bool(false)), "{report:#}");
    assert_eq!(report["proof"]["oversold"], 10);
    assert!(report["proof"]["brokenInvariants"].as_array().unwrap().contains(&"I2".into()));
    test.execute("DROP TRIGGER more ON order_line; UPDATE order_line SET quantity = quantity - 1").await;
    test.finish().await;
}

#[tokio::test]
async fn every_design_of_the_comparison_sells() {
    let test = TestApp::start().await;
    let arguments = ["--buyers", "5", "--units", "10", "--requests", "5", "--no-settlement", "--no-ceilings", "--compare"];
    let (code, report) = stampede(&test, &arguments).await;

    assert_eq!(code, Some(0), "{report:#}");
    let compared = report["comparison"].as_array().unwrap();
    assert_eq!(compared.len(), 5);
    let has_redis = std::env::var("WHITEMONDAY_TEST_REDIS_URL").is_ok();
    for design in compared {
        let may_be_left_out = !has_redis && design["design"].as_str().unwrap().contains("Redis");
        assert!(may_be_left_out || design["purchasesPerSecond"].as_f64().unwrap() > 0.0, "{design:#}");
        assert_eq!(design["failed"], 0);
    }
    test.finish().await;
}

#[tokio::test]
async fn browse_reads_from_the_cache_and_beside_it_and_counts_statements() {
    let test = TestApp::start().await;
    let output = test.command(&["browse", "--products", "300", "--in-flight", "4", "--duration", "200ms", "--json", "-"]).await;
    let report: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr)));
    assert_eq!((output.status.code(), &report["failed"]), (Some(0), &Value::from(0)));
    // So few misses are outnumbered by what the server does anyway.
    assert!(report["statementsPerMiss"].as_f64().unwrap() >= 1.0, "{report:#}");
    assert!(report["listingMs"]["pages"].as_i64().unwrap() > 0, "{report:#}");
    assert!(report["searchMs"]["searches"].as_i64().unwrap() > 0 && report["cachedPage"][2].as_f64().unwrap() > 0.0, "{report:#}");
    test.finish().await;
}
