//! The wishlist, and the mails to those who wish.

use chrono::TimeDelta;
use serde_json::{Value, json};
use whitemonday::{
    domain::ids::{FlashSaleId, ProductId},
    services::{leader, mail, wishlist::sale_notice},
    store,
};

use crate::support::{Barrier, Client, Process, Step, TestApp, until};

/// The payload of a mutation of the wishlist.
async fn change(client: &Client, mutation: &str, input: Value) -> Value {
    let input_type = format!("{}{}Input", mutation[..1].to_uppercase(), &mutation[1..]);
    let query = format!(
        "mutation($input: {input_type}!) {{ {mutation}(input: $input) {{
             item {{ id note notifyOnSale product {{ id }} }} userErrors {{ code field }} }} }}"
    );
    client.send(&query, json!({ "input": input })).await[mutation].take()
}

async fn add(client: &Client, product: ProductId, notify: bool) -> Value {
    change(client, "addToWishlist", json!({ "productId": product.to_string(), "notifyOnSale": notify })).await["item"].take()
}

/// All that the leader has to tell about sales.
async fn notify(test: &TestApp) {
    let app = test.app.for_jobs();
    let term = leader::take_or_renew(&app).await.unwrap().unwrap();
    while sale_notice::notify_some(&app, term).await.unwrap() {}
}

/// The same, as if each mail went out at once: those in the queue are moved to its archive.
async fn notify_all(test: &TestApp) {
    let app = test.app.for_jobs();
    let term = leader::take_or_renew(&app).await.unwrap().unwrap();
    while sale_notice::notify_some(&app, term).await.unwrap() || drain(test).await > 0 {}
}

/// Takes all messages out of the queue of mails; how many there were.
async fn drain(test: &TestApp) -> i64 {
    test.scalar("SELECT count(pgmq.archive('mail', msg_id)) FROM pgmq.q_mail").await
}

/// Mails about sales by kind.
async fn mails(test: &TestApp, kind: &str) -> i64 {
    test.scalar(&format!("SELECT count(*) FROM mail WHERE kind = '{kind}'")).await
}

async fn opens_in(test: &TestApp, sale: FlashSaleId, minutes: i64) {
    test.execute(&format!("UPDATE flash_sale SET opens_at = now() + interval '{minutes} minutes' WHERE id = '{}'", sale.0)).await;
}

#[tokio::test]
async fn a_product_is_on_a_wishlist_once_with_a_note_for_its_owner_alone() {
    let test = TestApp::start().await;
    let [ann, bob] = test.customers(2).await.try_into().unwrap_or_else(|_| panic!());
    let (cup, pot) = (test.product(1, 1_500).await, test.product(1, 40_000).await);

    let first = change(&ann, "addToWishlist", json!({ "productId": cup.to_string(), "note": "  For Bora " })).await["item"].take();
    assert_eq!((&first["note"], &first["notifyOnSale"]), (&json!("For Bora"), &json!(false)));
    let again = change(&ann, "addToWishlist", json!({ "productId": cup.to_string(), "notifyOnSale": true })).await["item"].take();
    assert_eq!(
        (&again["id"], &again["note"], &again["notifyOnSale"]),
        (&first["id"], &json!("For Bora"), &json!(true)),
        "what is left out stays"
    );
    let other = change(&ann, "addToWishlist", json!({ "productId": cup.to_string(), "note": "For Chul" })).await["item"].take();
    assert_eq!((&other["id"], &other["note"]), (&first["id"], &json!("For Chul")));
    add(&ann, pot, false).await;

    let page = "query($first: Int, $after: String) { viewer { wishlist(first: $first, after: $after) {
        totalCount pageInfo { hasNextPage endCursor } nodes { product { id inWishlist } } } } }";
    let newest = ann.send(page, json!({ "first": 1 })).await["viewer"]["wishlist"].take();
    assert_eq!(
        (&newest["totalCount"], &newest["nodes"]),
        (&json!(2), &json!([{ "product": { "id": pot.to_string(), "inWishlist": true } }]))
    );
    let older = ann.send(page, json!({ "first": 1, "after": newest["pageInfo"]["endCursor"] })).await["viewer"]["wishlist"].take();
    assert_eq!(older["nodes"][0]["product"]["id"], cup.to_string());
    assert_eq!(older["pageInfo"]["hasNextPage"], false);
    let product = "query($id: ID!) { product(id: $id) { inWishlist } }";
    for (client, wished) in [(&ann, json!(true)), (&bob, json!(false)), (&test.anonymous(), json!(null))] {
        assert_eq!(client.send(product, json!({ "id": cup.to_string() })).await["product"]["inWishlist"], wished);
    }
    let seen_by_staff = "query($id: ID!) { node(id: $id) { ... on Customer { wishlist { nodes { id } } cart { lines { id } } } } }";
    let seen = test.staff().await.send(seen_by_staff, json!({ "id": ann.customer_id })).await;
    assert_eq!(seen["node"], json!({ "wishlist": null, "cart": { "lines": [] } }));

    let id = &first["id"];
    for (client, mutation, input, code, field) in [
        (&ann, "addToWishlist", json!({ "productId": ProductId::new().to_string() }), "NOT_FOUND", "productId"),
        (&ann, "addToWishlist", json!({ "productId": "x" }), "NOT_FOUND", "productId"),
        (&ann, "addToWishlist", json!({ "productId": cup.to_string(), "note": "a\nb" }), "INVALID", "note"),
        (&ann, "updateWishlistItem", json!({ "id": id, "note": "x".repeat(501) }), "INVALID", "note"),
        (&ann, "updateWishlistItem", json!({ "id": "x" }), "NOT_FOUND", "id"),
        (&bob, "updateWishlistItem", json!({ "id": id, "note": "mine" }), "NOT_FOUND", "id"),
        (&bob, "removeFromWishlist", json!({ "id": id }), "NOT_FOUND", "id"),
    ] {
        let refused = json!({ "item": null, "userErrors": [{ "code": code, "field": [field] }] });
        assert_eq!(change(client, mutation, input).await, refused);
    }
    let updated = change(&ann, "updateWishlistItem", json!({ "id": id, "note": null, "notifyOnSale": false })).await["item"].take();
    assert_eq!((&updated["note"], &updated["notifyOnSale"]), (&json!(null), &json!(false)));
    let removed = change(&ann, "removeFromWishlist", json!({ "id": id })).await;
    assert_eq!(removed["item"]["id"], *id);
    assert_eq!(change(&ann, "removeFromWishlist", json!({ "id": id })).await["userErrors"][0]["code"], "NOT_FOUND");
    assert_eq!(ann.send(page, json!({})).await["viewer"]["wishlist"]["totalCount"], 1);
    test.finish().await;
}

#[tokio::test]
async fn the_same_wish_twice_at_the_same_moment_is_one() {
    let test = TestApp::start().await;
    let ann = test.customer().await;
    let cup = test.product(1, 1_500).await;
    let items = futures_util::future::join_all((0..6).map(|_| add(&ann, cup, true))).await;
    assert!(items.iter().all(|item| item["id"] == items[0]["id"]), "{items:#?}");
    assert_eq!(test.scalar("SELECT count(*) FROM wishlist_item").await, 1);
    test.finish().await;
}

#[tokio::test]
async fn wishers_are_told_once_when_a_sale_is_scheduled_and_once_before_it_opens() {
    let test = TestApp::start().await;
    let sale = test.sale_opening_in(TimeDelta::hours(1)).await;
    let product = test.product_of(sale).await;
    let [ann, bob, chul, dora, eve] = test.customers(5).await.try_into().unwrap_or_else(|_| panic!());
    for wisher in [&ann, &bob, &chul, &dora] {
        add(wisher, product, true).await;
    }
    add(&eve, product, false).await;
    let id = |client: &Client| crate::support::customer_id(&json!(client.customer_id)).0;
    test.execute(&format!("UPDATE customer SET email_verified_at = NULL WHERE id = '{}'", id(&chul))).await;
    test.execute(&format!("UPDATE customer SET locale = 'KO' WHERE id = '{}'", id(&bob))).await;
    let gone = "email_sealed = NULL, email_index = NULL, email_index_even = NULL, email_verified_at = NULL, name_sealed = NULL, phone_sealed = NULL, password_hash = NULL, deleted_at = now()";
    test.execute(&format!("UPDATE customer SET {gone} WHERE id = '{}'", id(&dora))).await;

    for _ in 0..2 {
        notify(&test).await;
        assert_eq!((mails(&test, "sale-scheduled").await, mails(&test, "sale-opening").await), (2, 0));
    }
    opens_in(&test, sale, 6).await;
    notify(&test).await;
    assert_eq!(mails(&test, "sale-opening").await, 0, "not yet");
    opens_in(&test, sale, 4).await;
    for _ in 0..2 {
        notify(&test).await;
        assert_eq!((mails(&test, "sale-scheduled").await, mails(&test, "sale-opening").await), (2, 2));
    }
    test.start_jobs();
    until(async || (test.all_mails().len() == 4).then_some(())).await;
    let [english, korean] = [&ann, &bob].map(|client| test.mails_to(client.email.as_ref().unwrap()));
    assert!(english.iter().all(|mail| mail.contains("wishlist") && mail.contains("UTC")), "{english:?}");
    assert!(korean.iter().all(|mail| mail.contains("위시리스트") && mail.contains("한국 시간")), "{korean:?}");
    test.finish().await;
}

#[tokio::test]
async fn a_sale_that_is_called_off_open_or_soon_to_open_is_not_told_of_as_scheduled() {
    let test = TestApp::start().await;
    let ann = test.customer().await;
    let [open, soon, off, later] = [0, 4, 60, 60].map(TimeDelta::minutes);
    let mut sales = Vec::new();
    for opening in [open, soon, off, later] {
        let sale = test.sale_opening_in(opening).await;
        add(&ann, test.product_of(sale).await, true).await;
        sales.push(sale);
    }
    test.execute(&format!("UPDATE flash_sale SET cancelled_at = now() WHERE id = '{}'", sales[2].0)).await;
    notify(&test).await;
    assert_eq!((mails(&test, "sale-scheduled").await, mails(&test, "sale-opening").await), (1, 1));

    // Mails that are written and not sent when it is called off stay unsent.
    test.execute("UPDATE flash_sale SET cancelled_at = now()").await;
    test.start_jobs();
    until(async || (test.scalar("SELECT count(*) FROM pgmq.q_mail").await == 0).then_some(())).await;
    assert_eq!(test.all_mails(), Vec::<String>::new());
    test.execute("UPDATE flash_sale SET cancelled_at = NULL").await;
    test.finish().await;
}

#[tokio::test]
async fn a_mail_that_was_not_sent_before_its_sale_opens_is_never_sent() {
    let test = TestApp::start().await;
    let ann = test.customer().await;
    let [late, due] = [test.sale_opening_in(TimeDelta::minutes(4)).await, test.sale_opening_in(TimeDelta::minutes(4)).await];
    for sale in [late, due] {
        add(&ann, test.product_of(sale).await, true).await;
    }
    notify(&test).await;
    assert_eq!(mails(&test, "sale-opening").await, 2);
    opens_in(&test, late, 0).await;
    test.start_jobs();
    until(async || (test.scalar("SELECT count(*) FROM pgmq.q_mail").await == 0).then_some(())).await;
    assert_eq!(test.all_mails().len(), 1);
    test.finish().await;
}

#[tokio::test]
async fn mails_about_a_sale_are_forgotten_once_it_has_closed() {
    let test = TestApp::start().await;
    let ann = test.customer().await;
    let [closed, open] = [test.sale_opening_in(TimeDelta::minutes(60)).await, test.sale_opening_in(TimeDelta::minutes(60)).await];
    for sale in [closed, open] {
        add(&ann, test.product_of(sale).await, true).await;
    }
    notify(&test).await;
    test.execute(&format!("UPDATE flash_sale SET opens_at = now() - interval '1 hour', closes_at = now() WHERE id = '{}'", closed.0)).await;
    mail::forget_closed_sales(&test.app).await.unwrap();
    assert_eq!(test.scalar(&format!("SELECT count(*) FROM mail WHERE sale_id = '{}'", closed.0)).await, 0, "though it was never sent");
    assert_eq!(mails(&test, "sale-scheduled").await, 1);
    test.finish().await;
}

#[tokio::test]
async fn somebody_whose_address_cannot_be_read_keeps_no_mail_from_others() {
    let test = TestApp::start().await;
    let sale = test.sale_opening_in(TimeDelta::hours(1)).await;
    let [ann, bob] = test.customers(2).await.try_into().unwrap_or_else(|_| panic!());
    for wisher in [&ann, &bob] {
        add(wisher, test.product_of(sale).await, true).await;
    }
    let first = "id = (SELECT min(id::text)::uuid FROM customer)";
    test.execute(&format!("UPDATE customer SET email_sealed = decode('00', 'hex') WHERE {first}")).await;
    notify(&test).await;
    assert_eq!(mails(&test, "sale-scheduled").await, 1);
    test.finish().await;
}

/// Many verified customers who wish for a product, made in the database.
async fn wishers(test: &TestApp, product: ProductId, count: usize) {
    test.customers(count).await;
    test.execute(&format!(
        "INSERT INTO wishlist_item (id, customer_id, product_id, notify_on_sale, added_at)
         SELECT gen_random_uuid(), id, '{}', true, now() FROM customer",
        product.0
    ))
    .await;
}

#[tokio::test]
async fn whoever_is_killed_among_many_mails_is_followed_by_one_who_goes_on() {
    let test = TestApp::start().await;
    let sale = test.sale_opening_in(TimeDelta::hours(1)).await;
    wishers(&test, test.product_of(sale).await, 1_200).await;
    // In the second of three chunks.
    for step in [Step::insert("mail"), Step::update("sale_notice", "true"), Step::insert("pgmq.q_mail").at_commit()] {
        let forget = ["mail", "sale_notice", "pgmq.q_mail", "pgmq.a_mail"].map(|table| format!("DELETE FROM {table};")).concat();
        test.execute(&format!("{forget} UPDATE lease SET expires_at = now()")).await;
        let barrier = Barrier::after(&test, step, if step.table == "sale_notice" { 0 } else { 700 }).await;
        let mut worker = Process::worker(&test);
        barrier.reached(&test).await;
        worker.kill();
        barrier.lift().await;
        test.execute("UPDATE lease SET expires_at = now()").await;
        notify_all(&test).await;
        assert_eq!(mails(&test, "sale-scheduled").await, 1_200, "{step:?}");
        assert_eq!(test.scalar("SELECT count(DISTINCT customer_id) FROM mail").await, 1_200);
        let queued = "SELECT count(DISTINCT message ->> 'id') FROM pgmq.a_mail";
        let sent = "SELECT count(*) FROM mail WHERE sent_at IS NOT NULL";
        assert_eq!(
            test.scalar(queued).await + test.scalar(sent).await + test.scalar("SELECT count(*) FROM retry WHERE due_at IS NOT NULL").await,
            1_200
        );
        test.execute("DELETE FROM retry").await;
    }
    test.finish().await;
}

#[tokio::test]
async fn mails_about_sales_are_written_as_fast_as_mail_is_sent() {
    let test = TestApp::start().await;
    let sale = test.sale_opening_in(TimeDelta::hours(1)).await;
    wishers(&test, test.product_of(sale).await, 1_200).await;
    for (waiting, written) in [(0, 500), (500, 500), (499, 1_000), (500, 1_000), (0, 1_200)] {
        drain(&test).await;
        test.execute(&format!("SELECT pgmq.send('mail', '{{}}') FROM generate_series(1, {waiting})")).await;
        notify(&test).await;
        assert_eq!(mails(&test, "sale-scheduled").await, written, "{waiting} wait");
    }
    test.finish().await;
}

#[tokio::test]
async fn two_who_write_at_the_same_moment_write_each_mail_once() {
    let test = TestApp::start().await;
    let sale = test.sale_opening_in(TimeDelta::hours(1)).await;
    wishers(&test, test.product_of(sale).await, 600).await;
    let app = test.app.for_jobs();
    let term = leader::take_or_renew(&app).await.unwrap().unwrap();
    let write = async || while sale_notice::notify_some(&app, term).await.unwrap() || drain(&test).await > 0 {};
    tokio::join!(write(), write());
    assert_eq!(mails(&test, "sale-scheduled").await, 600);
    assert_eq!(test.scalar("SELECT count(*) FROM pgmq.a_mail").await, 600);
    let mut db = app.db.acquire().await.unwrap();
    assert!(store::lease::lock_term(&mut db, store::lease::LEADER, term.0).await.unwrap());
    drop(db);
    test.finish().await;
}
