//! The address book.

use serde_json::{Value, json};

use crate::support::{Client, TestApp, account::SAVE, new_key};

#[tokio::test]
async fn addresses_are_versions_and_one_of_them_is_the_default() {
    let test = TestApp::start().await;
    let [ann, bob] = test.customers(2).await.try_into().unwrap_or_else(|_| panic!());
    let address = |recipient: &str| json!({ "recipient": recipient, "line1": "세종대로 110", "city": "서울", "postalCode": "04524", "countryCode": "KR" });
    let save = async |client: &Client, input: Value| client.send(SAVE, json!({ "input": input })).await["saveAddress"].take();
    let book = async || ann.send("{ viewer { addresses { id recipient isDefault } } }", json!({})).await["viewer"]["addresses"].take();
    let first = book().await[0]["id"].take();

    let key = new_key();
    let input = json!({ "address": address("Office"), "idempotencyKey": key });
    let office = save(&ann, input.clone()).await;
    assert_eq!(office["address"]["isDefault"], false, "the first address stays the default");
    assert_eq!(save(&ann, input).await, office, "the same key, the same address");
    let changed = save(&ann, json!({ "address": address("Other"), "idempotencyKey": key })).await;
    assert_eq!(changed["userErrors"][0]["code"], "IDEMPOTENCY_KEY_REUSED");

    let replaced = save(&ann, json!({ "id": first, "address": address("Home") })).await;
    assert_ne!(replaced["address"]["id"], first, "an edit is a new version");
    assert_eq!(replaced["address"]["isDefault"], true);
    let gone = save(&ann, json!({ "id": first, "address": address("Home") })).await;
    assert_eq!(gone["userErrors"], json!([{ "code": "NOT_FOUND", "field": ["id"] }]), "an old version cannot be replaced again");
    let foreign = save(&bob, json!({ "id": replaced["address"]["id"], "address": address("Mine") })).await;
    assert_eq!(foreign["userErrors"][0]["code"], "NOT_FOUND");

    let mut office_default = address("Office");
    office_default["isDefault"] = json!(true);
    save(&ann, json!({ "id": office["address"]["id"], "address": office_default })).await;
    let recipients: Vec<_> = book().await.as_array().unwrap().iter().map(|a| (a["recipient"].clone(), a["isDefault"].clone())).collect();
    assert_eq!(recipients, [(json!("Home"), json!(false)), (json!("Office"), json!(true))]);

    for (field, value) in [("recipient", ""), ("line1", "\n"), ("countryCode", "kr"), ("countryCode", "KOR"), ("phone", "x")] {
        let mut bad = address("Ann");
        bad[field] = json!(value);
        assert_eq!(save(&ann, json!({ "address": bad })).await["userErrors"], json!([{ "code": "INVALID", "field": ["address", field] }]));
    }
    test.finish().await;
}

#[tokio::test]
async fn a_removed_address_leaves_the_book_and_its_default_to_the_oldest_left() {
    let test = TestApp::start().await;
    let [ann, bob] = test.customers(2).await.try_into().unwrap_or_else(|_| panic!());
    let book = "{ viewer { addresses { id recipient isDefault } } }";
    let first = ann.send(book, json!({})).await["viewer"]["addresses"][0]["id"].take();
    for recipient in ["Second", "Third"] {
        let address = json!({ "recipient": recipient, "line1": "x", "city": "x", "postalCode": "1", "countryCode": "KR" });
        ann.send(SAVE, json!({ "input": { "address": address } })).await;
    }
    let remove = async |client: &Client, id: &Value| {
        let mutation = "mutation($input: RemoveAddressInput!) {
            removeAddress(input: $input) { customer { addresses { recipient isDefault } } userErrors { code field } } }";
        client.send(mutation, json!({ "input": { "id": id } })).await["removeAddress"].take()
    };

    let refused = json!({ "customer": null, "userErrors": [{ "code": "NOT_FOUND", "field": ["id"] }] });
    assert_eq!(remove(&bob, &first).await, refused, "of somebody else");
    assert_eq!(remove(&ann, &json!("addr_1")).await, refused);

    let left = remove(&ann, &first).await;
    assert_eq!(
        left["customer"]["addresses"],
        json!([{ "recipient": "Second", "isDefault": true }, { "recipient": "Third", "isDefault": false }])
    );
    assert_eq!(remove(&ann, &first).await, refused, "it is gone already");
    let rest = ann.send(book, json!({})).await["viewer"]["addresses"].take();
    let left = remove(&ann, &rest[1]["id"]).await;
    assert_eq!(left["customer"]["addresses"], json!([{ "recipient": "Second", "isDefault": true }]));
    assert_eq!(remove(&ann, &rest[0]["id"]).await["customer"]["addresses"], json!([]));
    test.finish().await;
}

#[tokio::test]
async fn an_order_keeps_the_address_it_was_made_with() {
    let test = TestApp::start().await;
    let sale = test.open_sale(1, 1).await;
    let ann = test.customer().await;
    let first = ann.send("{ viewer { addresses { id recipient } } }", json!({})).await["viewer"]["addresses"][0].take();
    let order = ann.must_buy(sale, 1, json!({ "deliveryNote": "문 앞에 놓아 주세요" })).await;

    let address = json!({ "recipient": "Somebody else", "line1": "x", "city": "x", "postalCode": "1", "countryCode": "KR" });
    ann.send(SAVE, json!({ "input": { "id": first["id"], "address": address } })).await;

    let query = "query($id: ID!) { order(id: $id) { shippingAddress { recipient } deliveryNote } }";
    let order = ann.send(query, json!({ "id": order })).await;
    assert_eq!(order["order"], json!({ "shippingAddress": { "recipient": first["recipient"] }, "deliveryNote": "문 앞에 놓아 주세요" }));
    test.finish().await;
}
