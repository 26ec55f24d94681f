//! Live updates over a real WebSocket.

use chrono::TimeDelta;
use serde_json::json;
use tokio_tungstenite::tungstenite::{
    Message,
    protocol::{CloseFrame, frame::coding::CloseCode},
};

use crate::support::{Socket, TestApp};

const UPDATES: &str = "subscription($id: ID) { orderUpdates(orderId: $id) { id status version } }";
const SALE: &str = "subscription($id: ID!) { flashSaleUpdates(flashSaleId: $id) { phase remainingUnits } }";

#[tokio::test]
async fn an_order_is_shown_as_it_is_and_then_after_each_change() {
    let test = TestApp::start().await;
    let sale = test.open_sale(2, 2).await;
    let ann = test.customer().await;
    let order = ann.must_buy(sale, 1, json!({})).await;

    let mut updates = ann.subscribe(UPDATES, json!({ "id": order })).await;
    assert_eq!(updates.data().await["orderUpdates"], json!({ "id": order, "status": "AWAITING_PAYMENT", "version": 1 }));
    test.start_jobs();
    assert_eq!(updates.data().await["orderUpdates"], json!({ "id": order, "status": "PAID", "version": 2 }));
    test.finish().await;
}

#[tokio::test]
async fn every_server_tells_of_changes_that_others_made() {
    let test = TestApp::start_with_jobs().await;
    let (_second, address) = test.second_server().await;
    let sale = test.open_sale(2, 2).await;
    let ann = test.customer().await;

    let mut elsewhere = ann.at(address).subscribe(UPDATES, json!({})).await;
    let order = ann.must_buy(sale, 1, json!({})).await;

    loop {
        let update = elsewhere.data().await["orderUpdates"].take();
        assert_eq!(update["id"], json!(order));
        if update["status"] == "PAID" {
            break;
        }
    }
    test.finish().await;
}

#[tokio::test]
async fn a_ring_tells_another_process_which_orders_have_changed() {
    let test = TestApp::start().await;
    let (second, _) = test.second_server().await;
    let mut bell = whitemonday::services::order_feed::listener(&second).await.unwrap();
    let sale = test.open_sale(1, 1).await;
    let ann = test.customer().await;

    let order = ann.must_buy(sale, 1, json!({})).await;

    let heard = bell.hear().await.unwrap();
    assert_eq!(heard.iter().map(ToString::to_string).collect::<Vec<_>>(), [order]);
    test.finish().await;
}

#[tokio::test]
async fn nobody_hears_of_the_orders_of_others() {
    let test = TestApp::start().await;
    let sale = test.open_sale(2, 2).await;
    let [ann, bob] = test.customers(2).await.try_into().unwrap_or_else(|_| panic!());
    let order = ann.must_buy(sale, 1, json!({})).await;

    let mut updates = bob.subscribe(UPDATES, json!({ "id": order })).await;
    assert_eq!(updates.next().await["type"], "complete");
    let mut updates = test.anonymous().subscribe(UPDATES, json!({})).await;
    let refused = updates.next().await;
    assert_eq!(refused["payload"]["errors"][0]["extensions"]["code"], "UNAUTHENTICATED", "{refused:#}");
    test.finish().await;
}

#[tokio::test]
async fn a_sale_tells_its_phase_and_what_remains() {
    let test = TestApp::start().await;
    let sale = test.open_sale(1, 1).await;
    let ann = test.customer().await;

    let mut updates = test.anonymous().subscribe(SALE, json!({ "id": sale.to_string() })).await;
    assert_eq!(updates.data().await["flashSaleUpdates"], json!({ "phase": "OPEN", "remainingUnits": 1 }));
    let order = ann.must_buy(sale, 1, json!({})).await;
    assert_eq!(updates.data().await["flashSaleUpdates"], json!({ "phase": "SOLD_OUT_HOLDS_PENDING", "remainingUnits": 0 }));
    test.start_jobs();
    ann.until_order_is(&order, "PAID").await;
    assert_eq!(updates.data().await["flashSaleUpdates"], json!({ "phase": "SOLD_OUT", "remainingUnits": 0 }));

    let mut nothing = test.anonymous().subscribe(SALE, json!({ "id": "sale_x" })).await;
    assert_eq!(nothing.next().await["type"], "complete");
    test.finish().await;
}

#[tokio::test]
async fn a_sale_opens_by_itself() {
    let test = TestApp::start().await;
    let sale = test.sale_opening_in(TimeDelta::hours(1)).await;
    let mut updates = test.anonymous().subscribe(SALE, json!({ "id": sale.to_string() })).await;
    assert_eq!(updates.data().await["flashSaleUpdates"]["phase"], "SCHEDULED");
    test.execute("UPDATE flash_sale SET opens_at = now()").await;
    assert_eq!(updates.data().await["flashSaleUpdates"]["phase"], "OPEN");
    test.finish().await;
}

#[tokio::test]
async fn a_bad_token_closes_the_socket_with_4403() {
    let test = TestApp::start().await;
    for payload in [json!({ "Authorization": "Bearer nonsense" }), json!({ "Authorization": "nonsense" }), json!({ "Authorization": 7 })] {
        let mut socket = Socket::open(test.address).await;
        socket.send(&json!({ "type": "connection_init", "payload": payload })).await;
        assert_eq!(u16::from(socket.closed().await.code), 4403, "{payload}");
    }
    test.finish().await;
}

#[tokio::test]
async fn a_log_out_ends_the_sockets_of_its_session() {
    let test = TestApp::start().await;
    let ann = test.customer().await;
    let mut socket = ann.socket().await;
    ann.send("mutation { logOut { done } }", json!({})).await;
    assert_eq!(u16::from(socket.closed().await.code), 4403);
    test.finish().await;
}

#[tokio::test]
async fn what_is_no_message_closes_the_socket_with_4400() {
    let test = TestApp::start().await;
    let mut socket = Socket::open(test.address).await;
    socket.send(&json!("nonsense")).await;
    assert_eq!(u16::from(socket.closed().await.code), 4400);
    test.finish().await;
}

#[tokio::test]
async fn a_stopping_server_closes_its_sockets_with_1012() {
    let test = TestApp::start().await;
    let mut socket = test.anonymous().socket().await;
    test.stop.cancel();
    assert_eq!(u16::from(socket.closed().await.code), 1012);
    test.finish().await;
}

#[tokio::test]
async fn a_client_that_closes_its_socket_is_answered() {
    let test = TestApp::start().await;
    let mut socket = test.anonymous().socket().await;
    let frame = CloseFrame { code: CloseCode::Normal, reason: "bye".into() };
    socket.send_frame(Message::Close(Some(frame.clone()))).await;
    assert_eq!(socket.closed().await, frame);
    test.finish().await;
}
