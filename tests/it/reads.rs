//! Catalogue reads: pages, filters, nodes, and how many statements they take.

use std::collections::HashSet;

use serde_json::{Value, json};
use sqlx::PgPool;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;
use whitemonday::{
    domain::ids::{CategoryId, ProductId},
    services::seed,
};

use crate::support::{Client, TestApp, statements, until};

const SORTS: [&str; 4] = ["NEWEST", "PRICE_ASC", "PRICE_DESC", "TITLE"];
const PAGE: &str = "query($first: Int, $after: String, $last: Int, $before: String, $sort: ProductSort, $filter: ProductFilter) {
    products(first: $first, after: $after, last: $last, before: $before, sort: $sort, filter: $filter) {
        totalCount pageInfo { hasNextPage hasPreviousPage startCursor endCursor } nodes { id title available price { amount } } edges { cursor }
    }
}";

const STAFF_PAGE: &str = "query($first: Int, $archived: Boolean, $filter: ProductFilter) {
    admin { products(first: $first, archived: $archived, filter: $filter) { nodes { id } } }
}";

async fn page(client: &Client, variables: Value) -> Value {
    client.send(PAGE, variables).await["products"].take()
}

fn ids(page: &Value) -> Vec<String> {
    page["nodes"].as_array().unwrap().iter().map(|node| node["id"].as_str().unwrap().to_owned()).collect()
}

pub const FORWARDS: [&str; 5] = ["first", "after", "endCursor", "hasNextPage", "hasPreviousPage"];
pub const BACKWARDS: [&str; 5] = ["last", "before", "startCursor", "hasPreviousPage", "hasNextPage"];

/// A whole listing in its own order, read page by page.
pub async fn walk(visitor: &Client, listing: &Value, [size, from, end, more, behind]: [&str; 5]) -> Vec<String> {
    let (mut pages, mut cursor) = (Vec::new(), Value::Null);
    loop {
        let mut variables = json!({ size: 7, from: cursor });
        variables.as_object_mut().unwrap().extend(listing.as_object().unwrap().clone());
        let page = page(visitor, variables).await;
        assert_eq!(page["pageInfo"][behind], !pages.is_empty(), "{listing}");
        pages.push(ids(&page));
        cursor = page["pageInfo"][end].clone();
        if page["pageInfo"][more] == false {
            break;
        }
    }
    if size == "last" {
        pages.reverse();
    }
    pages.concat()
}

#[tokio::test]
async fn pages_are_complete_and_without_doubles_in_every_sort_and_both_directions() {
    let test = TestApp::start().await;
    seed::catalogue(&test.app, 55, |_| ()).await.unwrap();
    let visitor = test.anonymous();
    for sort in SORTS {
        let listing = json!({ "sort": sort });
        assert_eq!(page(&visitor, listing.clone()).await["totalCount"], 55);
        let forwards = walk(&visitor, &listing, FORWARDS).await;
        let unique: HashSet<_> = forwards.iter().collect();
        assert_eq!((forwards.len(), unique.len()), (55, 55), "{sort}");
        assert_eq!(walk(&visitor, &listing, BACKWARDS).await, forwards, "{sort}");
    }
    test.finish().await;
}

/// However the statement reads a category: by itself, or as one condition among others.
#[tokio::test]
async fn pages_of_a_category_are_those_of_the_shop_that_are_of_its_tree() {
    let test = TestApp::start().await;
    seed::catalogue(&test.app, 90, |_| ()).await.unwrap();
    test.execute("UPDATE product SET available = 0 WHERE id IN (SELECT id FROM product ORDER BY id LIMIT 40)").await;
    test.execute("UPDATE product SET archived_at = now() WHERE id IN (SELECT id FROM product ORDER BY title LIMIT 9)").await;
    let (visitor, staff) = (test.anonymous(), test.staff().await);
    let tree = visitor.send("{ categories { id children { id } } }", json!({})).await;
    let root = &tree["categories"][0];
    assert!(root["children"].as_array().unwrap().len() > 1, "{tree}");
    let of_tree = "SELECT p.id FROM product p JOIN category c ON c.id = p.category_id
                    WHERE $1::uuid IN (c.id, c.parent_id)";
    let category = CategoryId::parse(root["id"].as_str().unwrap()).unwrap();
    let leaf = CategoryId::parse(root["children"][0]["id"].as_str().unwrap()).unwrap();
    let sale = test.open_sale(1, 1).await;
    let on_sale =
        format!("UPDATE product SET category_id = '{}' WHERE id = (SELECT product_id FROM flash_sale WHERE id = '{}')", leaf.0, sale.0);
    test.execute(&on_sale).await;
    let inside: HashSet<String> = sqlx::query_scalar(of_tree)
        .bind(category.0)
        .fetch_all(&*test.app.db)
        .await
        .unwrap()
        .into_iter()
        .map(|id: Uuid| ProductId(id).to_string())
        .collect();

    for sort in SORTS {
        for filter in [
            json!({}),
            json!({ "inStock": false }),
            json!({ "minPrice": "50000", "flashSale": false }),
            json!({ "flashSale": true }),
            json!({ "search": "블랙" }),
        ] {
            let mut narrowed = filter.clone();
            narrowed["categoryId"] = root["id"].clone();
            let listing = json!({ "sort": sort, "filter": narrowed });
            let mut expected = walk(&visitor, &json!({ "sort": sort, "filter": filter }), FORWARDS).await;
            expected.retain(|id| inside.contains(id));
            assert!(!expected.is_empty(), "{listing}");
            assert_eq!(walk(&visitor, &listing, FORWARDS).await, expected, "{listing}");
            assert_eq!(walk(&visitor, &listing, BACKWARDS).await, expected, "{listing}");
            assert_eq!(page(&visitor, listing.clone()).await["totalCount"], expected.len(), "{listing}");
        }
    }
    for archived in [Value::Null, json!(true)] {
        let listing = |filter: Value| json!({ "first": 100, "archived": archived, "filter": filter });
        let mut expected = ids(&staff.send(STAFF_PAGE, listing(json!({}))).await["admin"]["products"]);
        expected.retain(|id| inside.contains(id));
        let found = staff.send(STAFF_PAGE, listing(json!({ "categoryId": root["id"] }))).await;
        assert_eq!(ids(&found["admin"]["products"]), expected, "{archived}");
        assert!(!expected.is_empty(), "{archived}");
    }
    // What the movements of the stock tell, for the audit.
    let in_stock = "UPDATE product p SET available = (SELECT coalesce(sum(quantity), 0) FROM stock_movement m WHERE m.product_id = p.id) WHERE available = 0";
    test.execute(in_stock).await;
    test.finish().await;
}

#[tokio::test]
async fn a_page_goes_on_where_it_was_while_products_are_added() {
    let test = TestApp::start().await;
    seed::catalogue(&test.app, 20, |_| ()).await.unwrap();
    let visitor = test.anonymous();
    let first = page(&visitor, json!({ "first": 10 })).await;
    seed::sale(&test.app, 1, 1, chrono::TimeDelta::zero()).await.unwrap();
    test.execute("UPDATE product SET archived_at = now() WHERE id = (SELECT id FROM product ORDER BY created_at LIMIT 1)").await;

    let second = page(&visitor, json!({ "first": 10, "after": first["pageInfo"]["endCursor"] })).await;

    let (first, second) = (ids(&first), ids(&second));
    assert_eq!(second.len(), 9, "one of the twenty is archived now, and the new one is before the first page");
    assert!(second.iter().all(|id| !first.contains(id)));
    test.finish().await;
}

/// Adds products all over the listing and archives them again until it is told to stop; how many.
async fn come_and_go(db: PgPool, stop: CancellationToken) -> i64 {
    let mut count = 0;
    while !stop.is_cancelled() {
        let come = "INSERT INTO product (id, category_id, title, description, price_minor, currency, available, created_at, updated_at)
                    SELECT gen_random_uuid(), p.category_id, left(md5(random()::text), (20 + $1 % 12)::int), 'with a warranty', p.price_minor + $1 % 2, 'KRW', 0, p.created_at, now()
                      FROM product p WHERE p.archived_at IS NULL ORDER BY random() LIMIT 3 RETURNING id";
        let come: Vec<Uuid> = sqlx::query_scalar(come).bind(count).fetch_all(&db).await.unwrap();
        sqlx::query("UPDATE product SET archived_at = now() WHERE id = ANY($1)").bind(come).execute(&db).await.unwrap();
        count += 1;
    }
    count
}

#[tokio::test]
async fn pages_are_complete_and_without_doubles_while_products_come_and_go() {
    let test = TestApp::start().await;
    seed::catalogue(&test.app, 100, |_| ()).await.unwrap();
    let (visitor, stop) = (test.anonymous(), CancellationToken::new());
    let tree = visitor.send("{ categories { id } }", json!({})).await;
    let mut listings = SORTS.map(|sort| json!({ "sort": sort })).to_vec();
    listings.extend(SORTS.map(|sort| json!({ "sort": sort, "filter": { "categoryId": tree["categories"][0]["id"] } })));
    // What comes is found too, by words of its description, among what stays and is shorter or longer.
    listings.push(json!({ "sort": "RELEVANCE", "filter": { "search": "warranty" } }));
    let mut staying = Vec::new();
    for listing in &listings {
        staying.push(walk(&visitor, listing, FORWARDS).await.into_iter().collect::<HashSet<_>>());
    }
    let coming = tokio::spawn(come_and_go(PgPool::clone(&test.app.for_jobs().db), stop.clone()));

    for (listing, staying) in listings.iter().zip(staying) {
        assert!(staying.len() >= 30, "{listing}");
        for direction in [FORWARDS, BACKWARDS] {
            let seen = walk(&visitor, listing, direction).await;
            let unique: HashSet<_> = seen.iter().cloned().collect();
            assert_eq!(unique.len(), seen.len(), "{listing} {direction:?}: one twice");
            assert!(unique.is_superset(&staying), "{listing} {direction:?}: one is missing");
        }
    }

    stop.cancel();
    assert!(coming.await.unwrap() > 20, "they came and went all the while");
    test.finish().await;
}

#[tokio::test]
async fn filters_narrow_the_listing() {
    let test = TestApp::start().await;
    seed::catalogue(&test.app, 60, |_| ()).await.unwrap();
    let sale = test.open_sale(1, 1).await;
    // Whole pages cost more than a visitor may spend.
    let visitor = test.customer().await;
    let price = |node: &Value| node["price"]["amount"].as_str().unwrap().parse::<i64>().unwrap();

    let cheap = page(&visitor, json!({ "first": 100, "filter": { "minPrice": "80000", "maxPrice": "150000" } })).await;
    assert!(!ids(&cheap).is_empty());
    assert!(cheap["nodes"].as_array().unwrap().iter().all(|node| (80_000..=150_000).contains(&price(node))));

    let on_sale = page(&visitor, json!({ "filter": { "flashSale": true } })).await;
    assert_eq!(on_sale["totalCount"], 1);
    let out_of_stock = page(&visitor, json!({ "filter": { "inStock": false } })).await;
    assert_eq!(ids(&out_of_stock), ids(&on_sale), "all of its units are in the sale");

    let tree = "{ categories { id name children { id products(first: 100) { totalCount } } } }";
    let data = visitor.send(tree, json!({})).await;
    for root in data["categories"].as_array().unwrap() {
        let below: i64 = root["children"].as_array().unwrap().iter().map(|leaf| leaf["products"]["totalCount"].as_i64().unwrap()).sum();
        let whole = page(&visitor, json!({ "filter": { "categoryId": root["id"] } })).await;
        assert!(whole["totalCount"].as_i64().unwrap() >= below && below > 0, "a branch holds what is below it");
    }
    let nothing = page(&visitor, json!({ "filter": { "categoryId": "cat_unknown" } })).await;
    assert_eq!(nothing["totalCount"], 0);
    let node =
        visitor.send("query($id: ID!) { flashSale(id: $id) { product { flashSale { id } } } }", json!({ "id": sale.to_string() })).await;
    assert_eq!(node["flashSale"]["product"]["flashSale"]["id"], sale.to_string());
    test.finish().await;
}

#[tokio::test]
async fn bad_pages_are_bad_requests() {
    let test = TestApp::start().await;
    seed::catalogue(&test.app, 2, |_| ()).await.unwrap();
    // Whole pages cost more than a visitor may spend.
    let visitor = test.customer().await;
    let title_cursor = page(&visitor, json!({ "first": 1, "sort": "TITLE" })).await["pageInfo"]["endCursor"].take();
    for variables in [
        json!({ "first": 0 }),
        json!({ "first": 101 }),
        json!({ "first": -1 }),
        json!({ "last": 0 }),
        json!({ "first": 1, "last": 1 }),
        json!({ "first": 1, "before": "x" }),
        json!({ "after": "nonsense" }),
        json!({ "after": title_cursor, "sort": "NEWEST" }),
        json!({ "filter": { "minPrice": "a lot" } }),
        json!({ "filter": { "minPrice": 10 } }),
    ] {
        assert_eq!(visitor.error_code(PAGE, variables.clone()).await, "BAD_REQUEST", "{variables}");
    }
    test.finish().await;
}

#[tokio::test]
async fn every_kind_of_thing_is_found_by_its_id() {
    let test = TestApp::start_with_jobs().await;
    seed::catalogue(&test.app, 3, |_| ()).await.unwrap();
    let sale = test.open_sale(1, 1).await;
    let ann = test.customer().await;
    let order = ann.must_buy(sale, 1, json!({})).await;
    let paid = "query($id: ID!) { order(id: $id) { status payments { id } } }";
    ann.until_order_is(&order, "PAID").await;
    let data = ann.send("{ products(first: 1) { nodes { id } } categories { id } viewer { id addresses { id } } }", json!({})).await;
    let payment = ann.send(paid, json!({ "id": order })).await["order"]["payments"][0]["id"].take();

    let node = "query($id: ID!) { node(id: $id) { __typename id } }";
    for (id, kind) in [
        (data["products"]["nodes"][0]["id"].clone(), "Product"),
        (data["categories"][0]["id"].clone(), "Category"),
        (data["viewer"]["id"].clone(), "Customer"),
        (data["viewer"]["addresses"][0]["id"].clone(), "Address"),
        (json!(sale.to_string()), "FlashSale"),
        (json!(order), "Order"),
        (payment, "Payment"),
    ] {
        assert_eq!(ann.send(node, json!({ "id": id })).await["node"], json!({ "__typename": kind, "id": id }));
    }
    for id in ["", "x", "ord_", "prod_00000000000000000000000000000000", "prod_'; --", "sess_00000000000000000000000000000000"] {
        assert_eq!(ann.send(node, json!({ "id": id })).await["node"], json!(null), "{id}");
    }
    test.finish().await;
}

/// Asks until it has cost no more than so many statements. On a busy machine it may cost more: what is loaded together waits for a
/// millisecond for more to load, and followers of the server read now and then.
async fn costs_at_most(most: usize, client: &Client, query: &str) {
    until(async || {
        let before = statements::sent();
        client.send(query, json!({})).await;
        (statements::sent() - before <= most).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_page_takes_as_many_statements_with_forty_rows_as_with_two() {
    statements::count("");
    let test = TestApp::start().await;
    seed::catalogue(&test.app, 40, |_| ()).await.unwrap();
    for _ in 0..5 {
        test.open_sale(3, 3).await;
    }
    let ann = test.customer().await;

    let query = |first| {
        format!(
            "{{ products(first: {first}) {{ totalCount nodes {{ title category {{ name parent {{ name }} children {{ name }} }}
                flashSale {{ phase remainingUnits viewerUnits discountPercent product {{ title }} }} }} }} }}"
        )
    };
    // products, count, category, parent, children, sale, units, product of the sale: a two-row page needs not all of them.
    costs_at_most(8, &ann, &query(2)).await;
    costs_at_most(8, &ann, &query(40)).await;

    for sale in ann.send("{ flashSales { nodes { id } } }", json!({})).await["flashSales"]["nodes"].as_array().unwrap() {
        let sale = whitemonday::domain::ids::FlashSaleId::parse(sale["id"].as_str().unwrap()).unwrap();
        ann.must_buy(sale, 1, json!({})).await;
    }
    let sales = "{ flashSales { nodes { phase viewerUnits product { title category { name } } } } }";
    costs_at_most(4, &ann, sales).await;
    test.finish().await;
}
