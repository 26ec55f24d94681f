//! The reference implementations of the two protocols, run against the program by Node.js.

use std::{collections::BTreeSet, path::Path, process::Stdio};

use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout, Command},
    time::timeout,
};
use whitemonday::{
    domain::customer::Role,
    services::seed::{self, DemoAccount},
};

use crate::support::{Client, PASSWORD, PATIENCE, Process, TestApp, account::signed_in, until};

/// Items of the GraphQL-over-HTTP audit that the program does not pass, and why. All are a MAY.
const DIFFERENCES: [(&str, &str); 3] = [
    ("5A70", "no operation is sent by GET: addresses end up in logs, and a link would be enough to run one"),
    ("6A70", "the same, with variables"),
    ("D6D5", "the same, with variables, for application/graphql-response+json"),
];

/// A script of tests/npm.
fn script(name: &str, arguments: &[&str]) -> Command {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/npm");
    assert!(folder.join("node_modules").is_dir(), "tests/npm/node_modules is missing: `make test` installs it");
    let mut command = Command::new("node");
    command.current_dir(folder).arg(name).args(arguments).kill_on_drop(true);
    command
}

/// What a script prints; it must succeed.
async fn run_script(name: &str, arguments: &[&str]) -> String {
    let run = script(name, arguments).output().await.expect("there is Node.js: `make test` installs it");
    let (out, err) = (String::from_utf8_lossy(&run.stdout), String::from_utf8_lossy(&run.stderr));
    assert!(run.status.success(), "{}\n{out}{err}", run.status);
    out.into_owned()
}

#[tokio::test]
async fn graphql_over_http_is_as_its_audit_wants_it() {
    let test = TestApp::start().await;
    let results: Vec<Value> = serde_json::from_str(&run_script("http-audit.mjs", &[&test.anonymous().url("/graphql")]).await).unwrap();

    assert!(results.len() > 50, "{results:#?}");
    let others: Vec<_> = results.iter().filter(|item| item["status"] != "ok").collect();
    assert!(others.iter().all(|item| item["name"].as_str().unwrap().starts_with("MAY ")), "{others:#?}");
    let found: BTreeSet<&str> = others.iter().map(|item| item["id"].as_str().unwrap()).collect();
    assert_eq!(found, DIFFERENCES.iter().map(|(id, _)| *id).collect(), "{others:#?}");
    test.finish().await;
}

/// The reference client, which tells what happens and asks before it does anything.
struct Subscriber {
    told: Lines<BufReader<ChildStdout>>,
    answers: ChildStdin,
    _process: Child,
}

impl Subscriber {
    fn start(arguments: &[&str]) -> Self {
        let mut process = script("subscriber.mjs", arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        Self { told: BufReader::new(process.stdout.take().unwrap()).lines(), answers: process.stdin.take().unwrap(), _process: process }
    }

    async fn next(&mut self) -> Value {
        let line = timeout(PATIENCE, self.told.next_line()).await.expect("it tells in time").unwrap().expect("it still runs");
        serde_json::from_str(&line).unwrap()
    }

    /// What it tells next must be this.
    async fn tells(&mut self, event: &str) -> Value {
        let told = self.next().await;
        assert_eq!(told["event"], event, "{told:#}");
        told
    }

    async fn is_answered(&mut self, answer: &str) {
        self.answers.write_all(format!("{answer}\n").as_bytes()).await.unwrap();
    }

    /// It asks for leave to connect, and gets it.
    async fn connects(&mut self) {
        self.tells("connect?").await;
        self.is_answered("").await;
    }

    async fn introduces_itself_with(&mut self, token: &str) {
        self.tells("token?").await;
        self.is_answered(token).await;
    }

    async fn is_closed_with(&mut self, code: u16) {
        assert_eq!(self.tells("closed").await["code"], code);
    }

    /// Is let in, and told how things stand.
    async fn gets_in_with(&mut self, token: &str) {
        self.introduces_itself_with(token).await;
        self.tells("connected").await;
        for _ in 0..2 {
            let told = self.next().await;
            let expected = match told["event"].as_str() {
                Some("orderUpdates") => json!({ "status": "AWAITING_PAYMENT", "version": 1 }),
                Some("flashSaleUpdates") => json!({ "phase": "SOLD_OUT_HOLDS_PENDING" }),
                _ => panic!("{told:#}"),
            };
            assert_eq!(told["data"], expected, "{told:#}");
        }
    }
}

#[tokio::test]
async fn the_reference_client_comes_back_after_every_close_that_is_no_mistake_of_its_own() {
    let test = TestApp::start().await;
    let sale = test.open_sale(1, 1).await;
    let account = DemoAccount { email: "ann@example.com", name: "Ann", role: Role::Customer };
    seed::account(&test.app, &account, PASSWORD).await.unwrap();
    let new_session = async || signed_in(&test, account.email, PASSWORD).await;
    let log_out = async |client: &Client| client.send("mutation { logOut { done } }", json!({})).await;
    let token = |client: &Client| client.access_token.clone().unwrap();
    let first = new_session().await;
    let order = first.must_buy(sale, 1, json!({})).await;
    let one_socket = [("SOCKETS_PER_ADDRESS", "1")];
    let (mut server, address) = Process::server_with(&test, &[], &one_socket).await;
    let socket_url = format!("ws://{address}/graphql/ws");
    let mut subscriber = Subscriber::start(&[&socket_url, &order, &sale.to_string()]);

    subscriber.connects().await;
    subscriber.gets_in_with(&token(&first)).await;

    // Its session ends; the first token it tries next is no better.
    log_out(&first).await;
    subscriber.is_closed_with(4403).await;
    subscriber.connects().await;
    subscriber.introduces_itself_with(&token(&first)).await;
    subscriber.is_closed_with(4403).await;
    let second = new_session().await;
    subscriber.connects().await;
    subscriber.gets_in_with(&token(&second)).await;

    // The server restarts.
    server.terminate().await;
    subscriber.is_closed_with(1012).await;
    subscriber.connects().await;
    subscriber.is_closed_with(1006).await;
    let listen = address.to_string();
    let _server = Process::start(&test, &["serve"], &[&[("LISTEN", listen.as_str())], &one_socket[..]].concat());
    until(async || reqwest::get(format!("http://{address}/healthz/ready")).await.ok().filter(|answer| answer.status() == 200)).await;
    subscriber.connects().await;
    subscriber.gets_in_with(&token(&second)).await;

    // The one place is taken.
    log_out(&second).await;
    subscriber.is_closed_with(4403).await;
    let elsewhere = test.anonymous().at(address);
    let in_the_way = until(async || elsewhere.try_socket().await).await;
    let third = new_session().await;
    subscriber.connects().await;
    subscriber.tells("token?").await;
    subscriber.is_closed_with(1013).await;
    subscriber.is_answered("too late").await;
    in_the_way.close().await;

    // It says nothing for too long.
    subscriber.connects().await;
    subscriber.tells("token?").await;
    subscriber.is_closed_with(4408).await;
    subscriber.is_answered("too late").await;
    subscriber.connects().await;
    subscriber.gets_in_with(&token(&third)).await;

    // And it has missed nothing that comes now.
    test.start_jobs();
    let mut told = BTreeSet::new();
    while told.len() < 2 {
        let event = subscriber.next().await;
        if event["data"]["status"] == "PAID" || event["data"]["phase"] == "SOLD_OUT" {
            told.insert(event["event"].to_string());
        }
    }
    test.finish().await;
}
