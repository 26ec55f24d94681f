//! The catalogue's search: parts of Korean words, misspelt words, order, pages, and what nobody would type in good faith.

use std::collections::HashSet;

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use serde_json::json;
use whitemonday::services::seed;

use crate::{
    reads::{BACKWARDS, FORWARDS, walk},
    support::{Client, TestApp},
};

const SEARCH: &str = "query($filter: ProductFilter, $sort: ProductSort, $first: Int, $after: String, $last: Int, $before: String) {
    products(filter: $filter, sort: $sort, first: $first, after: $after, last: $last, before: $before) {
        totalCount pageInfo { hasNextPage hasPreviousPage startCursor endCursor } nodes { id title }
    }
}";

/// A product for each of these titles and descriptions, the newest last.
async fn sell(test: &TestApp, products: &[(&str, &str)]) {
    for (title, description) in products {
        let sql = format!(
            "INSERT INTO product (id, title, description, price_minor, currency, available, created_at, updated_at)
             VALUES ('{}', '{title}', '{description}', 1000, 'KRW', 0, now(), now())",
            uuid::Uuid::now_v7()
        );
        test.execute(&sql).await;
    }
}

async fn titles(client: &Client, search: &str) -> Vec<String> {
    let data = client.send(SEARCH, json!({ "filter": { "search": search } })).await;
    let nodes = data["products"]["nodes"].as_array().unwrap();
    assert_eq!(data["products"]["totalCount"], nodes.len(), "{search}");
    nodes.iter().map(|node| node["title"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn korean_is_found_within_words_and_across_spaces() {
    let test = TestApp::start().await;
    sell(&test, &[("초경량무선청소기", ""), ("로봇 청소기", ""), ("LG전자 냉장고", ""), ("세탁기", "무선으로 예약합니다"), ("녹차", "")])
        .await;
    let visitor = test.anonymous();
    assert_eq!(titles(&visitor, "무선").await, ["초경량무선청소기", "세탁기"], "the title before the description");
    assert_eq!(titles(&visitor, "로봇청소기").await, ["로봇 청소기"], "written without the space");
    assert_eq!(titles(&visitor, "청소기 무선").await, ["초경량무선청소기"], "in any order");
    assert_eq!(titles(&visitor, "전자").await, ["LG전자 냉장고"]);
    assert_eq!(titles(&visitor, "lg").await, ["LG전자 냉장고"], "without case");
    assert_eq!(titles(&visitor, "차").await, ["녹차"], "one syllable, at the end of a word");
    assert_eq!(titles(&visitor, "녹").await, ["녹차"], "and at its beginning");
    // The same syllables, taken apart as some systems send them.
    assert_eq!(titles(&visitor, "\u{1102}\u{1169}\u{11a8}\u{110e}\u{1161}").await, ["녹차"]);
    assert_eq!(titles(&visitor, "선무").await, Vec::<String>::new());
    test.finish().await;
}

#[tokio::test]
async fn words_are_letters_and_digits_however_they_are_joined() {
    let test = TestApp::start().await;
    sell(&test, &[("MX-500 mouse", ""), ("USB-C/HDMI cable", ""), ("T-Shirt", "size 2.5/3"), ("Node.js", "see www.nodejs.org/docs")]).await;
    let visitor = test.anonymous();
    for (searches, found) in [
        (&["mx 500", "500", "mx-500", "MX/500"][..], "MX-500 mouse"),
        (&["hdmi", "usb c", "usb-c", "hdmi/usb"], "USB-C/HDMI cable"),
        (&["t shirt", "t-shirt", "shirt t", "2.5", "3 2.5"], "T-Shirt"),
        (&["node", "node js", "node.js", "js", "docs", "nodejs.org"], "Node.js"),
    ] {
        for search in searches {
            assert_eq!(titles(&visitor, search).await, [found], "{search}");
        }
    }
    test.finish().await;
}

#[tokio::test]
async fn a_misspelt_word_finds_what_it_stands_for_and_a_known_one_only_itself() {
    let test = TestApp::start().await;
    sell(&test, &[("Wireless vacuum", ""), ("Gaming mouse", ""), ("House plant", "")]).await;
    let visitor = test.anonymous();
    for misspelt in ["wireles vacuum", "wirelss", "vacum", "WIRELESS VACCUM", "vacuums"] {
        assert_eq!(titles(&visitor, misspelt).await, ["Wireless vacuum"], "{misspelt}");
    }
    assert_eq!(titles(&visitor, "mouse").await, ["Gaming mouse"], "the house is a letter away, but there are mice");
    assert_eq!(titles(&visitor, "ｍｏｕｓｅ").await, ["Gaming mouse"], "full width");
    assert_eq!(titles(&visitor, "vacum mouse").await, Vec::<String>::new(), "every word must be found");
    test.execute("UPDATE product SET title = 'Cordless sweeper' WHERE title = 'Wireless vacuum'").await;
    assert_eq!(titles(&visitor, "sweaper").await, ["Cordless sweeper"], "a changed title is found by its new words");
    test.finish().await;
}

#[tokio::test]
async fn the_best_answer_comes_first() {
    let test = TestApp::start().await;
    let warranty = ("Kettle", "comes with a lamp");
    sell(
        &test,
        &[("Desk lamp with a wooden foot", ""), ("Lamp", ""), warranty, ("무선램프", ""), ("램프 스탠드", ""), ("Archived lamp", "")],
    )
    .await;
    test.execute("UPDATE product SET archived_at = now() WHERE title = 'Archived lamp'").await;
    let visitor = test.anonymous();
    assert_eq!(titles(&visitor, "lamp").await, ["Lamp", "Desk lamp with a wooden foot", "Kettle"]);
    assert_eq!(titles(&visitor, "램프").await, ["램프 스탠드", "무선램프"], "a whole word before a part");
    // Another sort keeps what is found.
    let data = visitor.send(SEARCH, json!({ "filter": { "search": "lamp" }, "sort": "TITLE" })).await;
    let sorted: Vec<_> = data["products"]["nodes"].as_array().unwrap().iter().map(|node| node["title"].as_str().unwrap()).collect();
    assert_eq!(sorted, ["Desk lamp with a wooden foot", "Kettle", "Lamp"]);
    test.finish().await;
}

#[tokio::test]
async fn pages_of_a_search_are_complete_in_both_directions() {
    let test = TestApp::start().await;
    seed::catalogue(&test.app, 200, |_| ()).await.unwrap();
    sell(&test, &[("Kettle", "화이트"), ("화이트", "")]).await;
    let visitor = test.anonymous();
    let listing = json!({ "filter": { "search": "화이트" }, "sort": "RELEVANCE" });
    let forwards = walk(&visitor, &listing, FORWARDS).await;
    assert!(forwards.len() > 14, "{} found", forwards.len());
    assert_eq!(forwards.iter().collect::<HashSet<_>>().len(), forwards.len());
    assert_eq!(walk(&visitor, &listing, BACKWARDS).await, forwards);
    let products = visitor.send(SEARCH, listing).await["products"].take();
    assert_eq!(products["totalCount"], forwards.len());
    // A cursor of this order is none of another one.
    let variables = json!({ "filter": { "search": "화이트" }, "sort": "NEWEST", "after": products["pageInfo"]["endCursor"] });
    assert_eq!(visitor.error_code(SEARCH, variables).await, "BAD_REQUEST");
    test.finish().await;
}

#[tokio::test]
async fn a_forged_rank_is_a_place_before_or_behind_everything() {
    let test = TestApp::start().await;
    sell(&test, &[("Lamp", "")]).await;
    let visitor = test.anonymous();
    for (rank, above, below) in [(5_000, 0, 1), (i32::MAX, 0, 1), (4_000, 0, 1), (-1, 1, 0), (-1_000, 1, 0), (i32::MIN, 1, 0)] {
        let cursor = json!([{ "Rank": rank }, uuid::Uuid::nil()]);
        let cursor = BASE64_URL_SAFE_NO_PAD.encode(cursor.to_string());
        for (from, expected) in [("before", above), ("after", below)] {
            let size = if from == "before" { "last" } else { "first" };
            let variables = json!({ "filter": { "search": "lamp" }, "sort": "RELEVANCE", size: 5, from: cursor });
            let nodes = visitor.send(SEARCH, variables).await["products"]["nodes"].take();
            assert_eq!(nodes.as_array().unwrap().len(), expected, "{from} {rank}");
        }
    }
    test.finish().await;
}

#[tokio::test]
async fn an_empty_search_is_none_and_relevance_without_one_is_newest() {
    let test = TestApp::start().await;
    seed::catalogue(&test.app, 5, |_| ()).await.unwrap();
    let visitor = test.anonymous();
    let newest = visitor.send(SEARCH, json!({ "sort": "NEWEST" })).await;
    for variables in [json!({}), json!({ "sort": "RELEVANCE" }), json!({ "filter": { "search": "  " }, "sort": "RELEVANCE" })] {
        assert_eq!(visitor.send(SEARCH, variables).await, newest);
    }
    test.finish().await;
}

#[tokio::test]
async fn a_hostile_search_is_a_search() {
    let test = TestApp::start().await;
    // In NFKC it is six characters.
    let (square, squares) = ("㌖".repeat(255), "㌖".repeat(200));
    sell(&test, &[("The lamp", "100% cotton, l''été, C:\\\\back"), ("무선청소기", ""), (&square, "")]).await;
    let visitor = test.anonymous();
    let (long, long_korean, many) = ("x".repeat(10_000), "무선청소기".repeat(2_000), "lamp lomp limp lump ".repeat(500));
    for (search, found) in [
        ("%", 0),
        ("100%", 1),
        ("_", 0),
        ("the", 1),
        ("l", 1),
        ("🧹", 0),
        ("🧹 lamp", 1),
        ("lamp & !the | :* <-> ( '", 1),
        ("lamp:*A", 0),
        ("'; DROP TABLE product; --", 0),
        ("la\0mp", 0),
        ("the\0lamp", 1),
        ("\\", 0),
        ("'''", 0),
        ("c:\\back 'lamp'", 1),
        ("http://a.b/c?d='e'&f=\\", 0),
        (&long, 0),
        (&long_korean, 0),
        (&squares, 1),
        (&square, 1),
        ("キロメートル", 1),
        // Each of them may stand for the lamp.
        (&many, 1),
    ] {
        let data = visitor.send(SEARCH, json!({ "filter": { "search": search } })).await;
        assert_eq!(data["products"]["nodes"].as_array().unwrap().len(), found, "{}", search.chars().take(40).collect::<String>());
    }
    test.finish().await;
}
