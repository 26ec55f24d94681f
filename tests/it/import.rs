//! The import of Shopify's product CSV: what becomes of it, that twice is once, and what a broken file leaves behind.

use std::io::Write;

use serde_json::json;
use whitemonday::services::import::{self, Report};

use crate::support::TestApp;

const FILE: &str = include_str!("../fixtures/shopify-products.csv");
const HEADER: &str = "Handle,Title,Body (HTML),Type,Option1 Value,Variant Inventory Qty,Variant Price,Image Src";

async fn import(test: &TestApp, file: impl AsRef<[u8]>) -> Report {
    import::shopify(&test.app, file.as_ref(), false, |_| ()).await.unwrap()
}

fn counts(report: &Report) -> (usize, usize, usize, usize) {
    (report.created, report.updated, report.unchanged, report.refused_rows)
}

/// Lines and reasons of the refused rows.
fn refused(report: &Report) -> Vec<(u64, &str)> {
    report.refused.iter().map(|row| (row.line, row.reason.as_str())).collect()
}

/// Everything about the products that an import may change.
async fn fingerprint(test: &TestApp) -> i64 {
    test.scalar("SELECT coalesce(sum(hashtext(p::text)), 0)::bigint + (SELECT count(*) FROM stock_movement) FROM product p").await
}

#[tokio::test]
async fn an_export_becomes_products_and_the_same_file_again_changes_nothing() {
    let test = TestApp::start().await;
    assert_eq!(counts(&import(&test, FILE).await), (5, 0, 0, 0));

    let query = "{ products(sort: TITLE) { nodes { title description available price { amount } images category { name } } } }";
    let data = test.anonymous().send(query, json!({})).await;
    let nodes = data["products"]["nodes"].as_array().unwrap();
    let titles: Vec<_> = nodes.iter().map(|node| node["title"].as_str().unwrap()).collect();
    assert_eq!(
        titles,
        [
            "Linen Shirt, \"Summer\" – L / White",
            "Linen Shirt, \"Summer\" – M / White",
            "초경량 무선청소기 – 네이비",
            "초경량 무선청소기 – 화이트"
        ],
        "a draft is not sold"
    );
    let white = &nodes[3];
    assert_eq!((&white["available"], &white["price"]["amount"]), (&json!(12), &json!("289000")));
    assert_eq!(white["category"]["name"], "청소기");
    let description = white["description"].as_str().unwrap();
    assert!(description.contains("가볍고 조용한 청소기.") && description.contains("1.2 kg & 60분"), "{description}");
    let images: Vec<_> = white["images"].as_array().unwrap().iter().map(|url| url.as_str().unwrap().rsplit('/').next().unwrap()).collect();
    assert_eq!(images, ["vacuum-white.jpg", "vacuum-1.jpg", "vacuum-2.jpg", "vacuum-3.jpg"]);
    assert_eq!(nodes[0]["available"], 0, "what Shopify has oversold is none");

    let before = fingerprint(&test).await;
    assert_eq!(counts(&import(&test, FILE).await), (0, 0, 5, 0));
    assert_eq!(fingerprint(&test).await, before);
    test.finish().await;
}

#[tokio::test]
async fn a_newer_file_changes_what_differs_and_what_was_sold_stays_sold() {
    let test = TestApp::start().await;
    import(&test, FILE).await;
    test.execute(
        "WITH sold AS (UPDATE product SET available = available - 3 WHERE import_key = 'shopify:cordless-vacuum/네이비' RETURNING id)
         INSERT INTO stock_movement (id, kind, quantity, product_id, at) SELECT gen_random_uuid(), 'ADJUSTED', -3, id, now() FROM sold",
    )
    .await;
    assert_eq!(counts(&import(&test, FILE).await), (0, 0, 5, 0), "the file says nothing new");
    let left = "SELECT available::bigint FROM product WHERE import_key = 'shopify:cordless-vacuum/네이비'";
    assert_eq!(test.scalar(left).await, 2);

    let more = FILE.replace("CV-N,500,shopify,5", "CV-N,500,shopify,15");
    assert_eq!(counts(&import(&test, more).await), (0, 1, 4, 0));
    assert_eq!(test.scalar(left).await, 12, "ten more have come");
    let none = FILE.replace("CV-N,500,shopify,5", "CV-N,500,shopify,0");
    import(&test, none).await;
    assert_eq!(test.scalar(left).await, 0, "never less than nothing");
    test.finish().await;
}

#[tokio::test]
async fn a_dry_run_tells_and_does_nothing() {
    let test = TestApp::start().await;
    let report = import::shopify(&test.app, FILE.as_bytes(), true, |_| ()).await.unwrap();
    assert_eq!(counts(&report), (5, 0, 0, 0));
    assert_eq!(test.scalar("SELECT count(*) FROM product").await + test.scalar("SELECT count(*) FROM category").await, 0);
    test.finish().await;
}

#[tokio::test]
async fn a_product_with_a_refused_row_is_refused_whole_by_its_line() {
    let test = TestApp::start().await;
    let mut file = format!(
        "{HEADER}\na,A,\"two\nlines\",,S,1,1000,\na,,,,M,1,19.99,\nb,B,,,,1,0,\nc,C,,,,many,1000,\nd,,,,,1,1000,\ne,E,,,,1,1000,ftp://x\nf,F\n\
         g,G,,,S,1,1000,\ng,,,,S,1,1000,\nh,H,,,,1,,\n,I,,,,1,1000,\n"
    )
    .into_bytes();
    file.write_all(b"j,Caf\xe9,,,,1,1000,\nok,Fine,,,,1,1000.00,\n").unwrap();
    let report = import(&test, file).await;
    assert_eq!(
        refused(&report),
        [
            (4, "the price \"19.99\" is no positive amount of KRW"),
            (5, "the price \"0\" is no positive amount of KRW"),
            (6, "the quantity \"many\" is no whole number up to 100000000"),
            (7, "Title is empty on the product's first row; do its rows stand together?"),
            (8, "an image is no web address"),
            (9, "2 fields, but the file has 8 columns"),
            (10, "two variants have the same options"),
            (12, "no row of this product has a Variant Price"),
            (13, "Handle is empty"),
            (14, "a field is not UTF-8: save the file as \"CSV UTF-8\""),
        ]
    );
    assert_eq!(counts(&report).0, 1);
    assert_eq!(test.scalar("SELECT count(*) FROM product").await, 1, "nothing of a product of which a row is refused");
    test.finish().await;
}

#[tokio::test]
async fn a_broken_file_is_told_and_leaves_whole_products_only() {
    let test = TestApp::start().await;
    let report = import(&test, "Name,Price\nlamp,3\n").await;
    assert!(report.broken_off.unwrap().to_string().contains("\"Handle\" is missing"));
    assert!(import(&test, "").await.broken_off.is_some());
    assert!(import(&test, b"\xff\xfeH\0a\0n\0d\0l\0e\0").await.broken_off.is_some());

    // The second product's quotation mark is never closed.
    let open = format!("{HEADER}\na,A,,,,1,1000,\nb,B,,,S,1,1000,\nb,,\"{}", "x".repeat(6_000_000));
    let report = import(&test, open).await;
    assert_eq!(report.created, 1);
    assert!(report.broken_off.as_ref().unwrap().to_string().contains("quotation mark"), "{report:?}");
    assert_eq!(test.scalar("SELECT count(*) FROM product WHERE title = 'A'").await, 1);
    assert_eq!(test.scalar("SELECT count(*) FROM product").await, 1, "the product in which it breaks is not begun");
    test.finish().await;
}

#[tokio::test]
async fn imports_at_the_same_time_make_each_product_once() {
    let test = TestApp::start().await;
    let imports = (0..4).map(|_| import(&test, FILE));
    let created: usize = futures_util::future::join_all(imports).await.iter().map(|report| report.created).sum();
    assert_eq!((created, test.scalar("SELECT count(*) FROM product").await), (5, 5));
    test.finish().await;
}
