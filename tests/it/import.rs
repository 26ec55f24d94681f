//! The import of Shopify's product CSV: what becomes of it, that twice is once, and what a broken file leaves behind.

use std::io::Write;

use chrono::TimeDelta;
use serde_json::{Value, json};
use uuid::Uuid;
use whitemonday::{
    domain::{ids::ProductId, money::Money},
    services::{
        flash_sale::{self, Schedule, Scheduled},
        import::{self, Report},
    },
};

use crate::support::{Barrier, PATIENCE, Process, Step, TestApp};

const FILE: &str = include_str!("../fixtures/shopify-products.csv");
const HEADER: &str = "Handle,Title,Body (HTML),Type,Option1 Value,Variant Inventory Qty,Variant Price,Image Src";

async fn import(test: &TestApp, file: impl AsRef<[u8]>) -> Report {
    import::shopify(&test.app.for_jobs(), file.as_ref(), false, |_| ()).await
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
    let description = nodes[0]["description"].as_str().unwrap();
    let lines: Vec<_> = description.lines().filter(|line| !line.is_empty()).collect();
    assert_eq!(lines, ["Washed linen,", "made in Daegu.", "Size", "Chest", "M", "104 cm"]);

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
        "WITH sold AS (UPDATE product SET available = available - 3 WHERE title LIKE '%네이비' RETURNING id)
         INSERT INTO stock_movement (id, kind, quantity, product_id, at) SELECT gen_random_uuid(), 'ADJUSTED', -3, id, now() FROM sold",
    )
    .await;
    assert_eq!(counts(&import(&test, FILE).await), (0, 0, 5, 0), "the file says nothing new");
    let left = "SELECT available::bigint FROM product WHERE title LIKE '%네이비'";
    assert_eq!(test.scalar(left).await, 2);

    let more = FILE.replace("CV-N,500,shopify,5", "CV-N,500,shopify,15");
    assert_eq!(counts(&import(&test, more).await), (0, 1, 4, 0));
    assert_eq!(test.scalar(left).await, 12, "ten more have come");
    let none = FILE.replace("CV-N,500,shopify,5", "CV-N,500,shopify,0");
    import(&test, &none).await;
    assert_eq!(test.scalar(left).await, 0, "never less than nothing");
    assert_eq!(counts(&import(&test, &none).await), (0, 0, 5, 0), "there is nothing more to take away");
    let again = FILE.replace("CV-N,500,shopify,5", "CV-N,500,shopify,10");
    import(&test, again).await;
    assert_eq!(test.scalar(left).await, 7, "three of the ten are sold");
    test.finish().await;
}

#[tokio::test]
async fn a_dry_run_tells_and_does_nothing() {
    let test = TestApp::start().await;
    let report = import::shopify(&test.app, FILE.as_bytes(), true, |_| ()).await;
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
            (8, "an image is no https URL of at most 2,048 bytes"),
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
async fn products_that_are_spelt_alike_are_not_mixed_up() {
    let test = TestApp::start().await;
    let header = HEADER.replace("Option1 Value", "Option1 Value,Option2 Value");
    let file = format!("{header}\na,A,,,b,,1,1000,\na/b,AB,,,,,1,1000,\nc,C,,,1/2,,1,1000,\nc,,,,1,2,1,1000,\n");
    assert_eq!(counts(&import(&test, &file).await), (4, 0, 0, 0));
    assert_eq!(counts(&import(&test, &file).await), (0, 0, 4, 0));

    let report = import(&test, format!("{HEADER}\nd,D,,,S,1,1000,\ne,E,,,,1,1000,\nd,D,,,M,1,1000,\nf,F,,,,1,1000,\n")).await;
    assert_eq!(refused(&report), [(4, "this handle came before; its rows must stand together")]);
    assert_eq!(report.created, 3);

    import(&test, format!("{HEADER}\ng,G,,C,,1,1000,\nh,H,,C++,,1,1000,\ni,I,,C#,,1,1000,\nj,J,,c,,1,1000,\n")).await;
    assert_eq!(test.scalar("SELECT count(*) FROM category").await, 3, "C, C++ and C#");
    test.finish().await;
}

#[tokio::test]
async fn a_product_with_too_many_rows_is_refused_whole() {
    let test = TestApp::start().await;
    let rows: Vec<_> = (0..=5_000).map(|number| format!("a,A,,,{number},1,1000,\n")).collect();
    let report = import(&test, format!("{HEADER}\n{}b,B,,,,1,1000,\n", rows.concat())).await;
    assert_eq!(refused(&report), [(2, "more than 5,000 rows, or 16 MB")]);
    assert_eq!((report.created, report.rows), (1, 5_002));
    test.finish().await;
}

#[tokio::test]
async fn states_are_known_ones_and_columns_may_have_one_name() {
    let test = TestApp::start().await;
    let header = format!("{HEADER},Tag,Tag,Published,Status");
    let row = |name: &str, states: &str| format!("{name},{name},,,,1,1000,,x,y,{states}\n");
    let rows = [
        row("a", ","),
        row("b", "TRUE,Active"),
        row("c", "false,active"),
        row("d", "true,draft"),
        row("e", ",archived"),
        row("f", "yes,"),
        row("g", ",\"active\ng,G\""),
    ];
    let report = import(&test, format!("{header}\n{}", rows.concat())).await;
    assert_eq!(refused(&report), [(7, "Published is neither true nor false"), (8, "Status is none of active, draft and archived")]);
    assert_eq!(test.scalar("SELECT count(*) FROM product WHERE archived_at IS NULL").await, 2);
    assert_eq!(test.scalar("SELECT count(*) FROM product").await, 5);
    test.finish().await;
}

#[tokio::test]
async fn the_file_keeps_the_rules_of_the_catalogue() {
    let test = TestApp::start().await;
    let (body, title) = ("x".repeat(20_001), "x".repeat(256));
    let rows = [
        format!("a,A,{body},,,1,1000,"),
        format!("b,{title},,,,1,1000,"),
        "c,\"C\nc\",,,,1,1000,".to_owned(),
        "d,D,,\"D\nd\",,1,1000,".to_owned(),
        "e,E,,,,1,1000,http://a.example/x.jpg".to_owned(),
        "f,F,,,,1,1000000000001,".to_owned(),
        "g,G,,,,100000001,1000,".to_owned(),
        format!("h,H,,,{},1,1000,", "가".repeat(334)),
    ];
    let report = import(&test, format!("{HEADER}\n{}\n", rows.join("\n"))).await;
    assert_eq!(report.refused.iter().map(|row| row.handle.as_str()).collect::<String>(), "abcdefgh", "{report:#?}");
    test.finish().await;
}

#[tokio::test]
async fn what_is_in_a_sale_is_not_archived_and_for_the_rest_the_file_wins() {
    let test = TestApp::start().await;
    let file = format!("{HEADER}\na,A,,Shirts,S,1,1000,\na,,,,M,1,1000,\nb,B,,Shirts,,1,1000,\n");
    import(&test, &file).await;
    let on_sale: Uuid = sqlx::query_scalar("SELECT id FROM product WHERE title = 'A – M'").fetch_one(&*test.app.db).await.unwrap();
    let now = test.app.clock.now();
    let schedule = Schedule {
        product: ProductId(on_sale),
        price: Money::new(900, test.app.config.currency),
        opens_at: now + TimeDelta::days(1),
        closes_at: now + TimeDelta::days(2),
        units: 1,
        per_customer_limit: 1,
        hold: TimeDelta::minutes(5),
    };
    assert!(matches!(flash_sale::schedule(&test.app, &schedule, None).await.unwrap(), Scheduled::Done(_)));
    test.execute("UPDATE product SET title = 'Changed', price_minor = 1, archived_at = now() WHERE title = 'B'").await;

    let drafts = file.replace(HEADER, &format!("{HEADER},Status")).replace("1000,\n", "1000,,draft\n");
    let report = import(&test, drafts).await;
    assert_eq!(refused(&report), [(3, "it has a sale that is open or scheduled, and cannot be archived")]);
    assert_eq!(counts(&report), (0, 1, 0, 1));
    assert_eq!(test.scalar("SELECT count(*) FROM product WHERE archived_at IS NULL AND title LIKE 'A%'").await, 2, "refused whole");

    assert_eq!(counts(&import(&test, &file).await), (0, 1, 2, 0));
    assert_eq!(test.scalar("SELECT count(*) FROM product WHERE title = 'B' AND price_minor = 1000 AND archived_at IS NULL").await, 1);
    test.finish().await;
}

/// So many products of one row each.
fn many(count: usize) -> String {
    let rows: Vec<_> = (0..count).map(|number| format!("p{number},P{number},,Shirts,,1,1000,\n")).collect();
    format!("{HEADER}\n{}", rows.concat())
}

/// Writes of this product fail: always, or once.
async fn fail_at(test: &TestApp, title: &str, code: &str, once: bool) {
    let sql = format!(
        "CREATE SEQUENCE fault;
         CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$
         BEGIN
             IF nextval('fault') = 1 OR NOT {once} THEN RAISE EXCEPTION 'a fault' USING ERRCODE = '{code}'; END IF;
             RETURN NEW;
         END $$;
         CREATE TRIGGER fail BEFORE INSERT ON product FOR EACH ROW WHEN (NEW.title = '{title}') EXECUTE FUNCTION fail();"
    );
    test.execute(&sql).await;
}

#[tokio::test]
async fn a_fault_leaves_the_report_of_what_is_imported() {
    let test = TestApp::start().await;
    fail_at(&test, "P600", "XX000", false).await;
    let report = import(&test, many(700)).await;
    assert!(report.broken_off.as_ref().unwrap().to_string().contains("a fault"), "{report:?}");
    assert_eq!((report.created, test.scalar("SELECT count(*) FROM product").await), (500, 500));
    test.finish().await;
}

#[tokio::test]
async fn a_transaction_that_others_made_fail_is_repeated() {
    let test = TestApp::start().await;
    fail_at(&test, "P1", "40P01", true).await;
    assert_eq!(counts(&import(&test, many(3)).await), (3, 0, 0, 0));
    assert_eq!(test.scalar("SELECT count(*) FROM product").await, 3);
    test.finish().await;
}

#[tokio::test]
async fn an_import_waits_neither_for_new_orders_nor_for_staff_at_a_category() {
    let test = TestApp::start().await;
    import(&test, many(3)).await;
    let mut tx = test.app.db.begin().await.unwrap();
    sqlx::raw_sql("SELECT FROM product FOR KEY SHARE; SELECT FROM category FOR NO KEY UPDATE").execute(&mut *tx).await.unwrap();
    let dearer = many(4).replace("1000", "2000");
    let report = tokio::time::timeout(PATIENCE, import(&test, dearer)).await.expect("it waits for nobody");
    assert_eq!(counts(&report), (1, 3, 0, 0));
    tx.rollback().await.unwrap();
    test.finish().await;
}

#[tokio::test]
async fn the_command_prints_the_report_and_fails_when_rows_are_refused() {
    let test = TestApp::start().await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("products.csv");
    let path = path.to_str().unwrap();
    let run = async |more: &[&str]| {
        let output = test.command(&[&["import", path], more].concat()).await;
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    };
    std::fs::write(path, FILE).unwrap();
    let (code, told) = run(&["--json", "--dry-run"]).await;
    let told: Value = serde_json::from_str(&told).unwrap();
    assert_eq!((code, &told["ok"], &told["dryRun"], &told["created"]), (Some(0), &json!(true), &json!(true), &json!(5)));
    assert_eq!(test.scalar("SELECT count(*) FROM product").await, 0);

    std::fs::write(path, format!("{HEADER}\na,A,,,,1,0,\nb,B,,,,1,1000,\n")).unwrap();
    let (code, told) = run(&[]).await;
    assert_eq!(code, Some(1));
    assert!(told.contains("no positive amount") && told.contains("Products that are new: 1"), "{told}");
    let (code, told) = run(&["--json"]).await;
    let told: Value = serde_json::from_str(&told).unwrap();
    assert_eq!((code, &told["ok"], &told["unchanged"]), (Some(1), &json!(false), &json!(1)));
    assert_eq!(told["refused"][0]["line"], 2);
    test.finish().await;
}

#[tokio::test]
async fn an_import_that_is_killed_leaves_whole_products_and_the_next_one_ends_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("products.csv");
    std::fs::write(&path, many(700)).unwrap();
    let command = ["import", path.to_str().unwrap(), "--json"];
    for step in [Step::insert("product"), Step::insert("stock_movement").at_commit()] {
        let test = TestApp::start().await;
        let barrier = Barrier::after(&test, step, 600).await;
        let mut first = Process::start(&test, &command, &[]);
        barrier.reached(&test).await;
        first.kill();
        barrier.lift().await;

        let output = test.command(&command).await;
        let told: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!((output.status.code(), &told["ok"]), (Some(0), &json!(true)), "{told}");
        assert!(told["unchanged"].as_u64().unwrap() >= 500, "what was committed before stays: {told}");
        let products = "SELECT count(*) FROM product WHERE available = 1 AND import_quantity = 1";
        assert_eq!((test.scalar(products).await, test.scalar("SELECT count(*) FROM stock_movement").await), (700, 700));
        test.finish().await;
    }
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
