//! What a web or mobile client does: POST for queries and mutations, a WebSocket for subscriptions.

use std::{net::SocketAddr, time::Instant};

use futures_util::{SinkExt, StreamExt};
use secrecy::ExposeSecret;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::{
    WebSocketStream, client_async,
    tungstenite::{Message, client::IntoClientRequest, protocol::CloseFrame},
};
use whitemonday::{domain::ids::FlashSaleId, services::seed::SeededCustomer};

use super::{PATIENCE, new_key};

#[derive(Clone)]
pub struct Client {
    pub address: SocketAddr,
    pub access_token: Option<String>,
    pub customer_id: Option<String>,
    pub email: Option<String>,
    http: reqwest::Client,
}

pub const BUY_NOW: &str = "mutation BuyNow($input: BuyNowInput!) {
    buyNow(input: $input) {
        result {
            __typename
            ... on OrderAccepted { replayed holdExpiresAt order { id number version status holdExpiresAt lines { quantity } } }
            ... on SoldOut { holdsPending flashSale { phase remainingUnits } }
            ... on NotEnoughLeft { remaining }
            ... on PurchaseLimitReached { limit held }
            ... on SaleNotOpen { opensAt closesAt serverTime }
            ... on Busy { retryAfterMs }
        }
        userErrors { code field }
    }
}";

impl Client {
    pub fn new(address: SocketAddr, customer: Option<SeededCustomer>) -> Self {
        Self {
            address,
            access_token: customer.as_ref().map(|customer| customer.access_token.expose_secret().to_owned()),
            customer_id: customer.as_ref().map(|customer| customer.id.to_string()),
            email: customer.map(|customer| customer.email),
            http: reqwest::Client::builder().no_proxy().build().unwrap(),
        }
    }

    /// The same client with another token.
    pub fn with_token(&self, token: impl Into<String>) -> Self {
        Self { access_token: Some(token.into()), ..self.clone() }
    }

    /// The same client at another server.
    pub fn at(&self, address: SocketAddr) -> Self {
        Self { address, ..self.clone() }
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// A request that the test finishes itself.
    pub fn post(&self) -> reqwest::RequestBuilder {
        let request = self.http.post(self.url("/graphql"));
        match &self.access_token {
            Some(token) => request.bearer_auth(token),
            None => request,
        }
    }

    pub fn get(&self, path: &str) -> reqwest::RequestBuilder {
        self.http.get(self.url(path))
    }

    pub fn head(&self, path: &str) -> reqwest::RequestBuilder {
        self.http.head(self.url(path))
    }

    pub fn options(&self, path: &str) -> reqwest::RequestBuilder {
        self.http.request(reqwest::Method::OPTIONS, self.url(path))
    }

    pub fn post_to(&self, path: &str) -> reqwest::RequestBuilder {
        self.http.post(self.url(path))
    }

    /// The whole answer, errors and all.
    pub async fn answer(&self, query: &str, variables: Value) -> Value {
        let body = json!({ "query": query, "variables": variables });
        self.post().json(&body).send().await.unwrap().json().await.unwrap()
    }

    /// The data of an operation that must not have errors. One that a busy machine keeps waiting for a connection is UNAVAILABLE, with
    /// nothing done: it is sent again, as the answer says.
    pub async fn send(&self, query: &str, variables: Value) -> Value {
        let patience = Instant::now() + PATIENCE;
        let mut answer = self.answer(query, variables.clone()).await;
        while answer["errors"][0]["extensions"]["code"] == "UNAVAILABLE" && Instant::now() < patience {
            answer = self.answer(query, variables.clone()).await;
        }
        assert!(answer.get("errors").is_none(), "{answer:#}");
        answer["data"].take()
    }

    /// The code of the one error of an operation.
    pub async fn error_code(&self, query: &str, variables: Value) -> String {
        let answer = self.answer(query, variables).await;
        answer["errors"][0]["extensions"]["code"].as_str().unwrap_or_else(|| panic!("{answer:#}")).to_owned()
    }

    /// `buyNow`'s payload. `input` adds to sale, quantity, a good card and a fresh key.
    pub async fn buy(&self, sale: FlashSaleId, quantity: i32, input: Value) -> Value {
        let mut whole = json!({
            "flashSaleId": sale.to_string(), "quantity": quantity, "paymentMethod": "pm_card_visa", "idempotencyKey": new_key(),
        });
        whole.as_object_mut().unwrap().extend(input.as_object().unwrap().clone());
        self.send(BUY_NOW, json!({ "input": whole })).await["buyNow"].take()
    }

    /// What a patient client does: the same key again, until the server is neither `Busy` nor unavailable.
    pub async fn buy_patiently(&self, sale: FlashSaleId, quantity: i32, payment_method: &str, key: &Value) -> Value {
        let input = json!({
            "flashSaleId": sale.to_string(), "quantity": quantity, "paymentMethod": payment_method, "idempotencyKey": key,
        });
        loop {
            let mut answer = self.answer(BUY_NOW, json!({ "input": input })).await;
            match answer["errors"][0]["extensions"]["code"].as_str() {
                Some("UNAVAILABLE") => {}
                Some(_) => panic!("{answer:#}"),
                None if answer["data"]["buyNow"]["result"]["__typename"] == "Busy" => {}
                None => return answer["data"]["buyNow"].take(),
            }
        }
    }

    /// Asks once, as somebody does whose server may die meanwhile; the order's id, if it was answered with one.
    pub async fn buy_once(&self, sale: FlashSaleId, quantity: i32, payment_method: &str, key: &Value) -> Option<String> {
        let input = json!({
            "flashSaleId": sale.to_string(), "quantity": quantity, "paymentMethod": payment_method, "idempotencyKey": key,
        });
        let body = json!({ "query": BUY_NOW, "variables": { "input": input } });
        let answer = self.post().json(&body).timeout(PATIENCE).send().await.ok()?;
        let answer: Value = answer.json().await.ok()?;
        answer["data"]["buyNow"]["result"]["order"]["id"].as_str().map(str::to_owned)
    }

    /// The id of an order that must be accepted.
    pub async fn must_buy(&self, sale: FlashSaleId, quantity: i32, input: Value) -> String {
        let payload = self.buy(sale, quantity, input).await;
        assert_eq!(payload["result"]["__typename"], "OrderAccepted", "{payload:#}");
        payload["result"]["order"]["id"].as_str().unwrap().to_owned()
    }

    pub async fn order(&self, id: &str) -> Value {
        let query = "query($id: ID!) { order(id: $id) { id status version history { status reasonCode }
            payments { status attempts methodLabel failureCode providerReference } } }";
        self.send(query, json!({ "id": id })).await["order"].take()
    }

    /// Waits until an order has this status.
    pub async fn until_order_is(&self, id: &str, status: &str) -> Value {
        let is_there = super::until_or_late(async || Some(self.order(id).await).filter(|order| order["status"] == status)).await;
        match is_there {
            Some(order) => order,
            None => panic!("the order never was {status}: {:#}", self.order(id).await),
        }
    }

    /// A socket after `connection_init`.
    pub async fn socket(&self) -> Socket {
        let mut socket = Socket::open(self.address).await;
        self.introduce(&mut socket).await;
        assert_eq!(socket.next().await["type"], "connection_ack");
        socket
    }

    /// A socket after `connection_init`, unless there are too many.
    pub async fn try_socket(&self) -> Option<Socket> {
        let mut socket = Socket::open(self.address).await;
        self.introduce(&mut socket).await;
        match socket.next_or_closed().await {
            Ok(_) => Some(socket),
            Err(code) => {
                assert_eq!(code, 1013);
                None
            }
        }
    }

    /// Sends `connection_init`.
    pub async fn introduce(&self, socket: &mut Socket) {
        let payload = self.access_token.as_ref().map_or(json!({}), |token| json!({ "Authorization": format!("Bearer {token}") }));
        socket.send(&json!({ "type": "connection_init", "payload": payload })).await;
    }

    /// A socket with one subscription.
    pub async fn subscribe(&self, query: &str, variables: Value) -> Socket {
        let mut socket = self.socket().await;
        socket.begin("1", query, variables).await;
        socket
    }
}

/// Runs a mutation that answers an order; its payload.
pub async fn change(client: &Client, mutation: &str, input: Value) -> Value {
    let input_type = format!("{}{}Input", mutation[..1].to_uppercase(), &mutation[1..]);
    let query = format!(
        "mutation($input: {input_type}!) {{ {mutation}(input: $input) {{
             order {{ id status version cancellable returnable trackingNumber refunded {{ amount }}
                      history {{ status reasonCode reason }} payments {{ status refunds {{ status amount {{ amount }} }} }} }}
             userErrors {{ code field }} }} }}"
    );
    client.send(&query, json!({ "input": input })).await[mutation].take()
}

/// The status of the order that a mutation answers; it must have no errors.
pub async fn status_after(client: &Client, mutation: &str, input: Value) -> String {
    let payload = change(client, mutation, input).await;
    assert_eq!(payload["userErrors"], json!([]), "{mutation}: {payload:#}");
    payload["order"]["status"].as_str().unwrap().to_owned()
}

/// The code of the one user error of a mutation.
pub async fn refused(client: &Client, mutation: &str, input: Value) -> String {
    let payload = change(client, mutation, input).await;
    assert!(payload["order"].is_null(), "{payload:#}");
    payload["userErrors"][0]["code"].as_str().unwrap_or_else(|| panic!("{payload:#}")).to_owned()
}

pub struct Socket(WebSocketStream<TcpStream>);

impl Socket {
    pub async fn open(address: SocketAddr) -> Self {
        Self::over(TcpStream::connect(address).await.unwrap()).await
    }

    /// On a connection that the test has made.
    pub async fn over(stream: TcpStream) -> Self {
        let mut request = format!("ws://{}/graphql/ws", stream.peer_addr().unwrap()).into_client_request().unwrap();
        request.headers_mut().insert("sec-websocket-protocol", "graphql-transport-ws".parse().unwrap());
        Self(client_async(request, stream).await.unwrap().0)
    }

    pub async fn send(&mut self, message: &Value) {
        self.send_frame(Message::text(message.to_string())).await;
    }

    pub async fn send_frame(&mut self, frame: Message) {
        self.0.send(frame).await.unwrap();
    }

    /// The connection below, for what is no frame.
    pub fn stream(&mut self) -> &mut TcpStream {
        self.0.get_mut()
    }

    /// A subscription of this socket.
    pub async fn begin(&mut self, id: &str, query: &str, variables: Value) {
        self.send(&json!({ "id": id, "type": "subscribe", "payload": { "query": query, "variables": variables } })).await;
    }

    async fn frame(&mut self) -> Message {
        tokio::time::timeout(PATIENCE, self.0.next()).await.expect("a message came in time").unwrap().unwrap()
    }

    /// The next message but pings.
    pub async fn next(&mut self) -> Value {
        loop {
            let frame = self.frame().await;
            let message: Value = match frame {
                Message::Text(text) => serde_json::from_str(&text).unwrap(),
                Message::Ping(_) | Message::Pong(_) => continue,
                other => panic!("{other:?}"),
            };
            match message["type"].as_str() {
                Some("ping") => self.send(&json!({ "type": "pong" })).await,
                _ => return message,
            }
        }
    }

    /// The data of the next event, which must have no errors.
    pub async fn data(&mut self) -> Value {
        let mut message = self.next().await;
        assert_eq!(message["type"], "next", "{message:#}");
        assert!(message["payload"].get("errors").is_none(), "{message:#}");
        message["payload"]["data"].take()
    }

    /// The next message but pings, or the code that the socket is closed with instead.
    pub async fn next_or_closed(&mut self) -> Result<Value, u16> {
        loop {
            match self.frame().await {
                Message::Text(text) => return Ok(serde_json::from_str(&text).unwrap()),
                Message::Close(frame) => return Err(frame.unwrap().code.into()),
                _ => {}
            }
        }
    }

    /// What the socket is closed with, whatever comes before; `None` when the connection just ends.
    pub async fn closed_at_last(&mut self) -> Option<u16> {
        while let Some(Ok(frame)) = self.0.next().await {
            if let Message::Close(frame) = frame {
                return frame.map(|frame| frame.code.into());
            }
        }
        None
    }

    /// Closes it; afterwards the server has no place taken for it.
    pub async fn close(mut self) {
        self.send_frame(Message::Close(None)).await;
        while let Some(Ok(_)) = self.0.next().await {}
    }

    /// The close frame that must come next.
    pub async fn closed(&mut self) -> CloseFrame {
        loop {
            match self.frame().await {
                Message::Close(frame) => return frame.unwrap(),
                Message::Ping(_) | Message::Pong(_) => {}
                other => panic!("{other:?}"),
            }
        }
    }
}
