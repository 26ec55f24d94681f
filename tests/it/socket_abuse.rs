//! What goes wrong on a WebSocket, by mistake or on purpose: each has its answer, and the server serves on with as much memory as
//! before.

use std::{
    collections::HashSet,
    time::{Duration, Instant},
};

use chrono::TimeDelta;
use futures_util::future::join_all;
use secrecy::ExposeSecret;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpSocket,
    time::timeout,
};
use tokio_tungstenite::tungstenite::Message;
use whitemonday::{
    auth::{Viewer, access_token},
    domain::{
        customer::Role,
        ids::{FlashSaleId, OrderId, SessionId},
    },
    services,
};

use crate::support::{Client, PATIENCE, Process, Socket, TestApp, customer_id, until};

const ORDER: &str = "subscription($id: ID) { orderUpdates(orderId: $id) { id version } }";
const SALE: &str = "subscription($id: ID!) { flashSaleUpdates(flashSaleId: $id) { remainingUnits } }";

/// A server in a process of its own, whose memory can be looked at.
struct Target {
    test: TestApp,
    server: Process,
    client: Client,
    sale: FlashSaleId,
    resident_before: u64,
}

impl Target {
    async fn start() -> Self {
        let test = TestApp::start().await;
        let sale = test.open_sale(1, 1).await;
        let (server, address) = Process::server(&test, &[]).await;
        let client = test.anonymous().at(address);
        // What the first socket costs is no growth.
        client.subscribe(SALE, json!({ "id": sale.to_string() })).await.data().await;
        let resident_before = resident_bytes(server.id());
        Self { test, server, client, sale, resident_before }
    }

    fn grown_mib(&self) -> u64 {
        resident_bytes(self.server.id()).saturating_sub(self.resident_before) / (1024 * 1024)
    }

    async fn finish(self) {
        let mut updates = self.client.subscribe(SALE, json!({ "id": self.sale.to_string() })).await;
        assert_eq!(updates.data().await["flashSaleUpdates"]["remainingUnits"], 1);
        assert_eq!(self.client.send("{ __typename }", json!({})).await["__typename"], "Query");
        assert!(self.grown_mib() < 32, "{} MiB more than before", self.grown_mib());
        self.test.finish().await;
    }
}

/// 0 where the system does not tell.
fn resident_bytes(process: u32) -> u64 {
    let statm = std::fs::read_to_string(format!("/proc/{process}/statm")).unwrap_or_default();
    let pages: u64 = statm.split(' ').nth(1).map_or(0, |pages| pages.parse().unwrap());
    pages * 4096
}

async fn close_code(mut socket: Socket) -> u16 {
    timeout(PATIENCE, socket.closed_at_last()).await.expect("it is closed in time").expect("with a code")
}

#[tokio::test]
async fn a_thousand_sockets_of_one_address() {
    let target = Target::start().await;
    let mut served = Vec::new();
    let mut refused = 0;
    for _ in 0..1_000 {
        match target.client.try_socket().await {
            Some(socket) => served.push(socket),
            None => refused += 1,
        }
    }
    assert_eq!((served.len(), refused), (500, 500));
    drop(served);
    until(async || target.client.try_socket().await).await;
    target.finish().await;
}

#[tokio::test]
async fn more_sockets_than_the_process_or_an_account_may_have() {
    let test = TestApp::start_with(&[("MAX_SOCKETS", "7")]).await;
    let ann = test.customer().await;
    let mut served = Vec::new();
    for _ in 0..5 {
        served.push(ann.socket().await);
    }
    assert!(ann.try_socket().await.is_none());
    for _ in 0..2 {
        served.push(until(async || test.anonymous().try_socket().await).await);
    }
    assert_eq!(close_code(Socket::open(test.address).await).await, 1013);

    served.remove(0);
    until(async || ann.try_socket().await).await;
    test.finish().await;
}

#[tokio::test]
async fn a_thousand_subscriptions_on_a_socket() {
    let target = Target::start().await;
    let sale = json!({ "id": target.sale.to_string() });
    let mut socket = target.client.socket().await;
    let (mut news, mut refused) = (0, 0);
    for n in 0..1_000 {
        socket.begin(&n.to_string(), SALE, sale.clone()).await;
        let answer = socket.next().await;
        match answer["type"].as_str().unwrap() {
            "next" => news += 1,
            "error" => {
                assert_eq!(answer["payload"][0]["extensions"]["code"], "BAD_REQUEST", "{answer:#}");
                refused += 1;
            }
            _ => panic!("{answer:#}"),
        }
    }
    assert_eq!((news, refused), (20, 980));
    socket.send(&json!({ "id": "3", "type": "complete" })).await;
    socket.begin("another", SALE, sale).await;
    assert_eq!(socket.next().await["id"], "another");
    drop(socket);
    target.finish().await;
}

#[tokio::test]
async fn ten_thousand_subscriptions_one_after_the_other() {
    let target = Target::start().await;
    let sale = json!({ "id": target.sale.to_string() });
    let mut socket = target.client.socket().await;
    for n in 0..10_000 {
        socket.begin(&n.to_string(), SALE, sale.clone()).await;
        // Some are ended before they have begun.
        if n % 100 == 0 {
            while socket.next().await["id"] != json!(n.to_string()) {}
        }
        socket.send(&json!({ "id": n.to_string(), "type": "complete" })).await;
    }
    socket.begin("last", SALE, sale).await;
    while socket.next().await["id"] != "last" {}
    drop(socket);
    target.finish().await;
}

#[tokio::test]
async fn what_breaks_the_protocol_closes_the_socket_with_the_code_of_the_reference_implementation() {
    let test = TestApp::start().await;
    let sale = test.open_sale(1, 1).await;
    let client = test.anonymous();
    let subscribe = json!({ "id": "1", "type": "subscribe", "payload": { "query": SALE, "variables": { "id": sale.to_string() } } });
    let init = json!({ "type": "connection_init" });

    let after = async |messages: &[&Value]| {
        let mut socket = Socket::open(test.address).await;
        for message in messages {
            socket.send(message).await;
        }
        close_code(socket).await
    };
    assert_eq!(after(&[&subscribe]).await, 4401);
    assert_eq!(after(&[&init, &init]).await, 4429);
    assert_eq!(after(&[&init, &subscribe, &subscribe]).await, 4409);
    for nonsense in [
        json!("nonsense"),
        json!(null),
        json!([init]),
        json!({}),
        json!({ "type": "start" }),
        json!({ "type": "connection_terminate" }),
        json!({ "type": "subscribe", "id": 7, "payload": { "query": SALE } }),
        json!({ "type": "subscribe", "id": "1" }),
        json!({ "type": "subscribe", "id": "1", "payload": { "query": 7 } }),
        json!({ "type": "complete" }),
    ] {
        assert_eq!(after(&[&init, &nonsense]).await, 4400, "{nonsense}");
    }

    // None of these does any harm.
    let mut socket = client.socket().await;
    socket.send(&json!({ "id": "nothing", "type": "complete" })).await;
    socket.send(&json!({ "type": "pong" })).await;
    socket.send(&json!({ "type": "ping", "payload": { "n": 1 } })).await;
    assert_eq!(socket.next().await, json!({ "type": "pong", "payload": { "n": 1 } }));
    socket.send_frame(Message::binary(subscribe.to_string())).await;
    assert_eq!(socket.data().await["flashSaleUpdates"]["remainingUnits"], 1);
    test.finish().await;
}

#[tokio::test]
async fn what_is_no_message_at_all() {
    let target = Target::start().await;
    let sent = async |frame: Message| {
        let mut socket = target.client.socket().await;
        socket.send_frame(frame).await;
        close_code(socket).await
    };
    assert_eq!(sent(Message::text("{")).await, 4400);
    assert_eq!(sent(Message::text("")).await, 4400);
    assert_eq!(sent(Message::text("[".repeat(60_000))).await, 4400);
    assert_eq!(sent(Message::binary(vec![0xff; 1_000])).await, 4400);
    assert_eq!(sent(Message::text("x".repeat(64 * 1024 + 1))).await, 1009);

    let written = async |bytes: &[u8]| {
        let mut socket = target.client.socket().await;
        socket.stream().write_all(bytes).await.unwrap();
        close_code(socket).await
    };
    // FIN and text, masked, of 2^62 bytes.
    assert_eq!(written(&[0x81, 0xff, 0x40, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4]).await, 1009);
    // Parts of 32 KiB that never end.
    let part = [&[0x01, 0xfe, 0x80, 0, 0, 0, 0, 0][..], &vec![b' '; 32 * 1024]].concat();
    let next_part = [&[0x00, 0xfe, 0x80, 0, 0, 0, 0, 0][..], &vec![b' '; 32 * 1024]].concat();
    assert_eq!(written(&[part, next_part.clone(), next_part].concat()).await, 1009);
    assert_eq!(written(&[0x81, 0x82, 0, 0, 0, 0, 0xc3, 0x28]).await, 1007, "not UTF-8");
    assert_eq!(written(&[0x81, 0x02, b'{', b'}']).await, 1002, "not masked");
    assert_eq!(written(b"GET / HTTP/1.1\r\n\r\n").await, 1002);
    target.finish().await;
}

#[tokio::test]
async fn upgrades_that_are_refused() {
    let test = TestApp::start().await;
    let upgrade = async |headers: &[(&str, &str)]| {
        let mut request = test.anonymous().get("/graphql/ws");
        let usual = [("connection", "upgrade"), ("upgrade", "websocket"), ("sec-websocket-version", "13"), ("sec-websocket-key", "AAAA")];
        for (name, value) in usual.iter().chain(headers) {
            request = request.header(*name, *value);
        }
        request.send().await.unwrap().status().as_u16()
    };
    let protocol = ("sec-websocket-protocol", "graphql-transport-ws");
    let own = test.anonymous().url("");
    assert_eq!(upgrade(&[protocol]).await, 101);
    assert_eq!(upgrade(&[protocol, ("origin", &own)]).await, 101);
    for origin in ["https://evil.example", "null", "", "http://127.0.0.1", &format!("{own}.evil.example"), &own.replace("http", "https")] {
        assert_eq!(upgrade(&[protocol, ("origin", origin)]).await, 403, "{origin}");
    }
    assert_eq!(upgrade(&[]).await, 400);
    assert_eq!(upgrade(&[("sec-websocket-protocol", "graphql-ws")]).await, 400);
    test.finish().await;
}

#[tokio::test]
async fn tokens_that_are_good_no_longer() {
    let test = TestApp::start().await;
    let ann = test.customer().await;
    let viewer = Viewer { customer: customer_id(&json!(ann.customer_id)), session: SessionId::new(), role: Role::Customer };
    let (expired, _) = test.app.access_tokens.sign(viewer, test.app.clock.now() - access_token::LIFETIME).unwrap();
    let bob = test.customer().await;
    bob.send("mutation { logOut { done } }", json!({})).await;
    for client in [ann.with_token(expired.expose_secret()), bob] {
        let mut socket = Socket::open(test.address).await;
        client.introduce(&mut socket).await;
        assert_eq!(close_code(socket).await, 4403);
    }
    test.finish().await;
}

#[tokio::test]
async fn operations_that_a_socket_is_not_for() {
    let test = TestApp::start().await;
    let sale = test.open_sale(1, 1).await;
    let [ann, bob] = test.customers(2).await.try_into().unwrap_or_else(|_| panic!());
    let order = ann.must_buy(sale, 1, json!({})).await;
    let first_of_two = "subscription A { flashSaleUpdates(flashSaleId: \"x\") { id } } mutation B { logOut { done } }";

    let refused = async |client: &Client, query: &str| {
        let mut socket = client.subscribe(query, json!({})).await;
        let answer = socket.next().await;
        let errors = if answer["type"] == "error" { &answer["payload"] } else { &answer["payload"]["errors"] };
        assert!(errors[0]["extensions"]["requestId"].is_string(), "{answer:#}");
        errors[0]["extensions"]["code"].as_str().unwrap_or_else(|| panic!("{answer:#}")).to_owned()
    };
    let anonymous = test.anonymous();
    for query in ["{ serverTime }", "{ __schema { types { name } } }", "mutation { logOut { done } }", first_of_two, ORDER] {
        assert_eq!(refused(&anonymous, query).await, "UNAUTHENTICATED", "{query}");
    }
    for query in ["{ serverTime }", "mutation { logOut { done } }", first_of_two, "subscription { nonsense }", "nonsense", ""] {
        assert_eq!(refused(&bob, query).await, "BAD_REQUEST", "{query}");
    }
    assert!(ann.order(&order).await["id"].is_string(), "nobody has been logged out");
    assert!(bob.send("{ viewer { id } }", json!({})).await["viewer"].is_object(), "nobody has been logged out");

    let mut socket = bob.subscribe(ORDER, json!({ "id": order })).await;
    assert_eq!(socket.next().await, json!({ "id": "1", "type": "complete" }));
    test.finish().await;
}

#[tokio::test]
async fn a_flood_of_pings_whose_pongs_nobody_reads() {
    let target = Target::start().await;
    let mut socket = target.client.socket().await;
    let pings = [&[0x89, 0xfd, 0, 0, 0, 0][..], &[b'x'; 125]].concat().repeat(1_000);
    let mut sent = 0;
    // Until the server reads no more.
    while let Ok(written) = timeout(Duration::from_secs(1), socket.stream().write(&pings[sent % pings.len()..])).await {
        sent += written.unwrap();
        assert!(sent < 256 * 1024 * 1024, "the server reads on though nobody reads its answers");
    }
    assert!(target.grown_mib() < 4, "{} MiB for {sent} bytes", target.grown_mib());
    drop(socket);
    target.finish().await;
}

/// A socket of somebody who reads nothing for now, with so many subscriptions.
async fn slow_reader(client: &Client, subscriptions: &[(&str, Value)]) -> Socket {
    let connection = TcpSocket::new_v4().unwrap();
    connection.set_recv_buffer_size(4096).unwrap();
    let mut socket = Socket::over(connection.connect(client.address).await.unwrap()).await;
    client.introduce(&mut socket).await;
    for (n, (query, variables)) in subscriptions.iter().enumerate() {
        socket.begin(&n.to_string(), query, variables.clone()).await;
    }
    socket
}

/// With long messages, so that few of them fill what the systems at both ends keep.
fn wordy(subscription: &str) -> String {
    subscription.replace("id }", &format!("id {}: id }}", "x".repeat(4_000)))
}

#[tokio::test]
async fn who_reads_slowly_gets_the_newest_state_and_no_backlog() {
    let test = TestApp::start().await;
    let sale = test.open_sale(1, 1).await;
    let ann = test.customer().await;
    let order = ann.must_buy(sale, 1, json!({})).await;
    let changed = [(OrderId::parse(&order).unwrap(), customer_id(&json!(ann.customer_id)))];
    let order_query = wordy("subscription($id: ID) { orderUpdates(orderId: $id) { version id } }");
    let sale_query = wordy("subscription($id: ID!) { flashSaleUpdates(flashSaleId: $id) { phase id } }");
    let subscriptions = [(order_query.as_str(), json!({ "id": order })), (&sale_query, json!({ "id": sale.to_string() }))];
    let subscriptions: Vec<_> = std::iter::repeat_n(subscriptions, 10).flatten().collect();
    let mut slow = slow_reader(&ann, &subscriptions).await;
    let mut quick = ann.subscribe(ORDER, json!({ "id": order })).await;
    quick.data().await;
    let resident_before = resident_bytes(std::process::id());

    for version in 2..=1_001 {
        test.execute(&format!("UPDATE orders SET version = {version}")).await;
        test.app.order_feed.ring(&changed);
        if version % 20 == 1 {
            let opens = if version % 40 == 21 { "now() + interval '1 hour'" } else { "now() - interval '1 hour'" };
            let closes = if version == 1_001 { "now()" } else { "now() + interval '2 hours'" };
            test.execute(&format!("UPDATE flash_sale SET opens_at = {opens}, closes_at = {closes}")).await;
            services::sale_feed::poll(&test.app).await.unwrap();
            while quick.data().await["orderUpdates"]["version"] != version {}
        }
    }
    let grown = resident_bytes(std::process::id()).saturating_sub(resident_before);
    assert!(grown < 32 * 1024 * 1024, "{grown} bytes more than before");

    let (mut newest, mut messages) = (HashSet::new(), 0);
    while newest.len() < subscriptions.len() {
        let update = slow.next().await;
        messages += 1;
        let data = &update["payload"]["data"];
        if data["orderUpdates"]["version"] == 1_001 || data["flashSaleUpdates"]["phase"] == "CLOSED" {
            assert!(newest.insert(update["id"].to_string()), "nothing comes after the newest state");
        }
    }
    assert!(messages < 200, "{messages} messages, of 1,000 changes for 20 subscriptions");
    test.execute("UPDATE orders SET version = 1").await;
    test.finish().await;
}

#[tokio::test]
async fn who_keeps_the_server_waiting_is_cut_off() {
    let test = TestApp::start().await;
    tokio::join!(no_init(&test), no_pong(&test), no_reading(&test), no_new_token(&test));
    test.finish().await;
}

async fn no_init(test: &TestApp) {
    let opened_at = Instant::now();
    assert_eq!(close_code(Socket::open(test.address).await).await, 4408);
    assert!(opened_at.elapsed() >= Duration::from_secs(5));
}

async fn no_pong(test: &TestApp) {
    let opened_at = Instant::now();
    let mut socket = test.anonymous().socket().await;
    let mut received = Vec::new();
    socket.stream().read_to_end(&mut received).await.unwrap();
    assert_eq!(received, [0x89, 0], "one ping, and the end");
    assert!((50..60).contains(&opened_at.elapsed().as_secs()), "{:?}", opened_at.elapsed());
}

async fn no_reading(test: &TestApp) {
    let sale = test.open_sale(1, 1).await;
    let ann = test.customer().await;
    let order = ann.must_buy(sale, 1, json!({})).await;
    let changed = [(OrderId::parse(&order).unwrap(), customer_id(&json!(ann.customer_id)))];
    let query = wordy("subscription($id: ID) { orderUpdates(orderId: $id) { version id } }");
    let _slow = slow_reader(&ann, &vec![(query.as_str(), json!({ "id": order })); 20]).await;
    let _others = [ann.socket().await, ann.socket().await, ann.socket().await, ann.socket().await];
    assert!(ann.try_socket().await.is_none());
    let began_at = Instant::now();
    for version in 2..=500 {
        test.execute(&format!("UPDATE orders SET version = {version}")).await;
        test.app.order_feed.ring(&changed);
    }
    until(async || ann.try_socket().await).await;
    assert!(began_at.elapsed() >= Duration::from_secs(10));
    test.execute("UPDATE orders SET version = 1").await;
}

async fn no_new_token(test: &TestApp) {
    let mut sockets = Vec::new();
    let expires_at = test.app.clock.now() + TimeDelta::seconds(3);
    for customer in test.customers(4).await {
        let viewer = Viewer { customer: customer_id(&json!(customer.customer_id)), session: SessionId::new(), role: Role::Customer };
        let (token, _) = test.app.access_tokens.sign(viewer, expires_at - access_token::LIFETIME).unwrap();
        for _ in 0..5 {
            sockets.push(customer.with_token(token.expose_secret()).socket().await);
        }
    }
    let closed = join_all(sockets.into_iter().map(async |mut socket| {
        assert_eq!(socket.closed_at_last().await, Some(4403));
        (test.app.clock.now() - expires_at).num_seconds()
    }));
    let mut seconds = closed.await;
    seconds.sort_unstable();
    assert!(seconds[0] >= 0 && seconds[19] <= 30, "{seconds:?}");
    assert!(seconds[19] - seconds[0] > 5, "not all at once: {seconds:?}");
}
