//! Keys that change while the service runs.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::{Value, json};
use sqlx::{Connection, PgConnection};
use uuid::Uuid;
use whitemonday::{
    app::App,
    domain::{customer::EmailAddress, ids::FlashSaleId},
    sealing::SealedColumn,
    services::{
        key_rotation::{self, KeyRotationError},
        seed::{self, SeededCustomer},
    },
    store,
};

use crate::support::{Barrier, Client, PASSWORD, PATIENCE, Process, Step, TestApp, new_key, until};

/// Settings with these keys, the first one first. Key 1 is the one that all tests have.
struct Keys {
    sealing: String,
    index: String,
}

impl Keys {
    fn new(sealing: &[u8], index: &[u8]) -> Self {
        let key = |number: &u8| match number {
            1 => "1:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=".to_owned(),
            _ => format!("{number}:{}", BASE64_STANDARD.encode([*number; 32])),
        };
        let list = |numbers: &[u8]| numbers.iter().map(key).collect::<Vec<_>>().join(",");
        Self { sealing: list(sealing), index: list(index) }
    }

    /// With limits that a few customers who do nothing but buy do not reach.
    fn settings(&self) -> [(&str, &str); 5] {
        [
            ("SEALING_KEYS", self.sealing.as_str()),
            ("BLIND_INDEX_KEY", self.index.as_str()),
            ("SMTP_URL", "smtp://127.0.0.1:9"),
            ("BUY_NOW_PER_MINUTE", "60000"),
            ("BUY_NOW_BURST", "10000"),
        ]
    }
}

fn app(test: &TestApp, sealing: &[u8], index: &[u8]) -> App {
    test.app_with(&Keys::new(sealing, index).settings()).for_jobs()
}

/// `keys rotate` as an operator runs it, as JSON, and whether it left nothing.
async fn rotate(test: &TestApp, keys: &Keys) -> (Value, bool) {
    let output = test.command_with(&["keys", "rotate", "--json"], &keys.settings()).await;
    let report = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr)));
    (report, output.status.success())
}

/// Many customers, of whom few will be clients.
async fn customers(test: &TestApp, count: usize) -> Vec<SeededCustomer> {
    let mut customers = Vec::new();
    seed::customers(&test.app.for_jobs(), count, |made| customers.extend(made)).await.unwrap();
    customers
}

/// Whether a program with these keys finds the customer by the address.
async fn is_found(app: &App, customer: &SeededCustomer) -> bool {
    let email = EmailAddress::parse(&customer.email).unwrap();
    let mut db = app.db.acquire().await.unwrap();
    let found = store::customer::find_by_email_index(&mut db, &app.sealing.email_index(&email)).await.unwrap();
    found.is_some_and(|found| found.id == customer.id)
}

async fn count_by_key(test: &TestApp, column: &str, table: &str, key: u8) -> i64 {
    test.scalar(&format!("SELECT count(*) FROM {table} WHERE get_byte({column}, 1) = {key}")).await
}

#[tokio::test]
async fn the_list_of_sealed_columns_is_the_databases() {
    let test = TestApp::start().await;
    let sql = r"SELECT table_name || '.' || column_name FROM information_schema.columns
                 WHERE table_schema = 'public' AND column_name LIKE '%\_sealed'";
    let columns: Vec<String> = sqlx::query_scalar(sql).fetch_all(&*test.app.db).await.unwrap();
    let listed = SealedColumn::ALL.map(|column| column.to_string());
    assert_eq!(columns.into_iter().collect::<BTreeSet<_>>(), BTreeSet::from(listed));
    test.finish().await;
}

/// Customers who sign up, log in, save addresses and buy, at whichever server is there, until they are told to stop.
struct Load {
    stop: Arc<AtomicBool>,
    rounds: Arc<Vec<AtomicUsize>>,
    tasks: Vec<tokio::task::JoinHandle<Vec<Client>>>,
}

impl Load {
    fn start(at: std::net::SocketAddr, sale: FlashSaleId, buyers: &[Client]) -> Self {
        let (stop, rounds) = (Arc::<AtomicBool>::default(), Arc::new(buyers.iter().map(|_| AtomicUsize::new(0)).collect::<Vec<_>>()));
        let run = |(number, buyer): (usize, &Client)| {
            let (stop, rounds, buyer) = (stop.clone(), rounds.clone(), buyer.at(at));
            tokio::spawn(async move {
                let mut made = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    made.push(everything(&buyer, sale).await);
                    rounds[number].fetch_add(1, Ordering::Relaxed);
                }
                made
            })
        };
        let tasks = buyers.iter().enumerate().map(run).collect();
        Self { stop, rounds, tasks }
    }

    /// Returns when every customer has done everything once more from now on.
    async fn another_round(&self) {
        let before: Vec<_> = self.rounds.iter().map(|rounds| rounds.load(Ordering::Relaxed)).collect();
        // The round that is under way has begun earlier.
        let is_done = |(rounds, before): (&AtomicUsize, &usize)| rounds.load(Ordering::Relaxed) > before + 1;
        until(async || self.rounds.iter().zip(&before).all(is_done).then_some(())).await;
    }

    /// The accounts that were made.
    async fn finish(self) -> Vec<Client> {
        self.stop.store(true, Ordering::Relaxed);
        let mut made = Vec::new();
        for task in self.tasks {
            made.extend(task.await.unwrap());
        }
        made
    }
}

const NOTE: &str = "Leave it at the door.";

/// A sign-up, a log-in, a saved address, a wish for another e-mail address, a wish with a note, and a purchase; the new account, signed in.
async fn everything(buyer: &Client, sale: FlashSaleId) -> Client {
    let email = format!("{}@example.com", Uuid::new_v4().simple());
    let sign_up = "mutation($input: SignUpInput!) { signUp(input: $input) { accepted } }";
    let input = json!({ "email": email, "password": PASSWORD, "name": "New", "phone": "010-1234-5678" });
    assert_eq!(buyer.send(sign_up, json!({ "input": input })).await["signUp"]["accepted"], true);
    let mut made = log_in_as(buyer, &input["email"]).await;
    made.email = Some(email);
    let save_address = "mutation($input: SaveAddressInput!) { saveAddress(input: $input) { address { recipient } } }";
    let address = json!({ "recipient": "New", "line1": "1", "city": "Seoul", "postalCode": "1", "countryCode": "KR" });
    let saved = made.send(save_address, json!({ "input": { "address": address } })).await;
    assert_eq!(saved["saveAddress"]["address"]["recipient"], "New");
    let change = "mutation($input: RequestEmailChangeInput!) { requestEmailChange(input: $input) { accepted userErrors { code } } }";
    let input = json!({ "newEmail": format!("new-{}", made.email.as_ref().unwrap()), "password": PASSWORD });
    assert_eq!(made.send(change, json!({ "input": input })).await["requestEmailChange"]["accepted"], true);
    let product = made.send("query($id: ID!) { flashSale(id: $id) { product { id } } }", json!({ "id": sale.to_string() })).await;
    let wish = "mutation($input: AddToWishlistInput!) { addToWishlist(input: $input) { item { note } } }";
    let input = json!({ "productId": product["flashSale"]["product"]["id"], "note": NOTE });
    assert_eq!(made.send(wish, json!({ "input": input })).await["addToWishlist"]["item"]["note"], NOTE);
    buyer.must_buy(sale, 1, json!({ "deliveryNote": NOTE })).await;
    made
}

async fn log_in_as(client: &Client, email: &Value) -> Client {
    let log_in = "mutation($input: LogInInput!) { logIn(input: $input) { tokens { accessToken } customer { name } } }";
    let body = json!({ "query": log_in, "variables": { "input": { "email": email, "password": PASSWORD } } });
    let answer: Value = client.post().header("user-agent", "Browser").json(&body).send().await.unwrap().json().await.unwrap();
    let answer = &answer["data"];
    assert_eq!(answer["logIn"]["customer"]["name"], "New", "{answer:#}");
    client.with_token(answer["logIn"]["tokens"]["accessToken"].as_str().unwrap())
}

#[tokio::test]
async fn keys_rotate_under_load_and_the_old_ones_are_needed_no_more() {
    let test = TestApp::start().await;
    // Several batches, sealed and indexed by key 1.
    let customers = customers(&test, 1_200).await;
    let buyers = test.customers(3).await;
    let sale = test.open_sale(5_000, 999).await;
    let mut made = Vec::new();

    for (step, keys) in [&[1, 2][..], &[2, 1], &[2]].into_iter().enumerate() {
        let keys = Keys::new(keys, keys);
        let (_server, address) = Process::server_with(&test, &[], &keys.settings()).await;
        let _worker = Process::worker_with(&test, &keys.settings());
        let load = Load::start(address, sale, &buyers);
        load.another_round().await;
        let (report, is_complete) = rotate(&test, &keys).await;
        load.another_round().await;
        made.extend(load.finish().await);

        assert!(is_complete, "step {step}: {report:#}");
        for column in report["columns"].as_array().unwrap() {
            assert_eq!(column["unreadable"], json!([]), "{column:#}");
        }
        let reindexed = report["blindIndex"]["reindexed"].as_i64().unwrap();
        match step {
            0 => assert!(reindexed >= 1_200, "the new column is filled: {report:#}"),
            1 => {
                assert_eq!(report["columns"][0]["keys"].as_array().unwrap().len(), 1, "{report:#}");
                assert_eq!(report["removableSealingKeys"], json!([1]), "{report:#}");
                assert!(report["columns"][0]["resealed"].as_i64().unwrap() >= 1_200, "{report:#}");
                let resealed = |column: &Value| column["resealed"].as_i64().unwrap() > 0;
                assert!(report["columns"].as_array().unwrap().iter().all(resealed), "every column had values of key 1: {report:#}");
            }
            _ => assert!(reindexed >= 1_200, "the old column is emptied: {report:#}"),
        }
        until(async || (test.unsettled().await == 0).then_some(())).await;
    }

    // A server that has never heard of key 1 opens and finds everything.
    let keys = Keys::new(&[2], &[2]);
    let (_server, address) = Process::server_with(&test, &[], &keys.settings()).await;
    let visitor = test.anonymous().at(address);
    for account in made.iter().step_by(10) {
        log_in_as(&visitor, &json!(account.email)).await;
    }
    let buyer = buyers[0].at(address);
    let orders = "{ viewer { email name addresses { line1 } orders(first: 100) { nodes { deliveryNote shippingAddress { line1 } } } } }";
    let viewer = buyer.send(orders, json!({})).await["viewer"].take();
    assert_eq!(viewer["email"], json!(buyers[0].email));
    for order in viewer["orders"]["nodes"].as_array().unwrap() {
        assert_eq!(order["deliveryNote"], NOTE);
        assert_eq!(order["shippingAddress"]["line1"], viewer["addresses"][0]["line1"]);
    }
    let only_two = app(&test, &[2], &[2]);
    for customer in customers.iter().step_by(50) {
        assert!(is_found(&only_two, customer).await);
    }
    assert_eq!(test.scalar("SELECT count(email_index) FROM customer").await, 0);
    let (report, is_complete) = rotate(&test, &keys).await;
    assert!(is_complete, "{report:#}");
    let resealed: Vec<_> = report["columns"].as_array().unwrap().iter().map(|column| &column["resealed"]).collect();
    assert!(
        resealed.iter().all(|count| **count == 0) && report["blindIndex"]["reindexed"] == 0,
        "a second run changes nothing: {report:#}"
    );
    test.finish().await;
}

#[tokio::test]
async fn a_rotation_that_is_killed_is_taken_up_again() {
    let test = TestApp::start().await;
    let customers = customers(&test, 1_500).await;
    let keys = Keys::new(&[2, 1], &[1, 2]);
    for step in ["OLD.email_sealed <> NEW.email_sealed", "NEW.email_index_even IS NOT NULL"] {
        let barrier = Barrier::after(&test, Step::update("customer", step), 700).await;
        let mut rotation = Process::start(&test, &["keys", "rotate"], &keys.settings());
        barrier.reached(&test).await;
        rotation.kill();
        barrier.lift().await;
        let app = app(&test, &[2, 1], &[1, 2]);
        assert!(is_found(&app, &customers[0]).await && is_found(&app, &customers[1_499]).await, "halfway, everything goes on");
    }
    assert!(count_by_key(&test, "email_sealed", "customer", 2).await > 0);
    let half_indexed = test.scalar("SELECT count(email_index_even) FROM customer").await;
    assert!((1..1_500).contains(&half_indexed), "{half_indexed}");

    let (report, is_complete) = rotate(&test, &keys).await;
    assert!(is_complete, "{report:#}");
    assert_eq!(count_by_key(&test, "email_sealed", "customer", 2).await, 1_500);
    let only_two = app(&test, &[2], &[2]);
    key_rotation::check_email_index(&only_two).await.unwrap();
    for customer in customers.iter().step_by(100) {
        assert!(is_found(&only_two, customer).await);
    }
    test.finish().await;
}

#[tokio::test]
async fn a_change_between_reading_and_writing_is_not_undone() {
    let test = TestApp::start().await;
    let customers = customers(&test, 600).await;
    let id = customers[300].id.0;
    let both = app(&test, &[2, 1], &[1, 2]);

    // Reading goes on under this lock, writing waits for it.
    let mut holder = PgConnection::connect(&test.settings()["DATABASE_URL"]).await.unwrap();
    let mut tx = holder.begin().await.unwrap();
    sqlx::query("LOCK TABLE customer IN SHARE MODE").execute(&mut *tx).await.unwrap();
    let rotation = tokio::spawn({
        let both = both.clone();
        async move { key_rotation::run(&both, |_, _| ()).await.unwrap() }
    });
    let waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
    until(async || (test.scalar(waiting).await == 1).then_some(())).await;
    // With the old key, as a process does that does not seal with the new one yet.
    let sealed = test.app.sealing.seal(SealedColumn::CustomerEmail, id, "moved@example.com").unwrap();
    sqlx::query("UPDATE customer SET email_sealed = $2 WHERE id = $1").bind(id).bind(sealed).execute(&mut *tx).await.unwrap();
    tx.commit().await.unwrap();

    assert!(rotation.await.unwrap().is_complete());
    let only_two = app(&test, &[2], &[2]);
    let sealed: Vec<u8> =
        sqlx::query_scalar("SELECT email_sealed FROM customer WHERE id = $1").bind(id).fetch_one(&*both.db).await.unwrap();
    assert_eq!(only_two.sealing.open(SealedColumn::CustomerEmail, id, &sealed).unwrap().as_str(), "moved@example.com");
    let email = EmailAddress::parse("moved@example.com").unwrap();
    for app in [&test.app, &only_two] {
        let mut db = app.db.acquire().await.unwrap();
        let found = store::customer::find_by_email_index(&mut db, &app.sealing.email_index(&email)).await.unwrap();
        assert_eq!(found.unwrap().id.0, id);
    }
    test.finish().await;
}

#[tokio::test]
async fn a_row_that_somebody_holds_is_not_waited_for_and_told_of() {
    let test = TestApp::start().await;
    let customers = customers(&test, 600).await;
    let mut holder = PgConnection::connect(&test.settings()["DATABASE_URL"]).await.unwrap();
    let mut tx = holder.begin().await.unwrap();
    sqlx::query("SELECT 1 FROM customer WHERE id = $1 FOR UPDATE").bind(customers[300].id.0).execute(&mut *tx).await.unwrap();

    let both = app(&test, &[2, 1], &[1, 2]);
    let rotation = key_rotation::run(&both, |_, _| ()).await.unwrap();
    assert!(!rotation.is_complete());
    let held = [SealedColumn::CustomerEmail, SealedColumn::CustomerName].map(|column| (column, 1));
    assert_eq!(rotation.needing(1).collect::<Vec<_>>(), held);
    assert_eq!((rotation.index.counts.odd, rotation.index.counts.even), (600, 599));

    tx.rollback().await.unwrap();
    assert!(key_rotation::run(&both, |_, _| ()).await.unwrap().is_complete());
    test.finish().await;
}

#[tokio::test]
async fn what_does_not_open_is_named_and_fails_the_command() {
    let test = TestApp::start().await;
    let customers = customers(&test, 30).await;
    let ids: Vec<Uuid> = customers.iter().map(|customer| customer.id.0).collect();
    let change = |what: &str, id: Uuid| format!("UPDATE customer SET {what} WHERE id = '{id}';");
    let changes = [
        // Moved from another row, damaged, too short for anything.
        change(&format!("name_sealed = (SELECT name_sealed FROM customer WHERE id = '{}')", ids[1]), ids[0]),
        change("name_sealed = overlay(name_sealed PLACING 'x' FROM 20)", ids[2]),
        change("name_sealed = ''", ids[3]),
    ];
    test.execute(&changes.concat()).await;
    let keys = Keys::new(&[2, 1], &[1, 2]);

    let (report, is_complete) = rotate(&test, &keys).await;
    assert!(!is_complete);
    let names = report["columns"].as_array().unwrap().iter().find(|column| column["column"] == "customer.name_sealed").unwrap();
    assert_eq!(names["unreadable"], json!([ids[0], ids[2], ids[3]]), "{names:#}");
    assert_eq!(names["resealed"], 27);
    assert_eq!(report["removableSealingKeys"], json!([]));
    assert!(report["blindIndex"]["keys"].as_array().unwrap().iter().all(|key| key["indexed"] == 30), "{report:#}");

    let output = test.command_with(&["keys", "rotate"], &keys.settings()).await;
    assert!(!output.status.success());
    let printed = String::from_utf8(output.stdout).unwrap();
    for id in [ids[0], ids[2], ids[3]] {
        assert!(printed.contains(&format!("customer.name_sealed of row {id} does not open")), "{printed}");
    }
    assert!(printed.contains("Key 1 of SEALING_KEYS is still needed: customer.name_sealed (2)."), "{printed}");
    test.finish().await;
}

#[tokio::test]
async fn servers_and_workers_refuse_keys_that_would_not_find_everybody() {
    let test = TestApp::start().await;
    let customer = customers(&test, 1).await.remove(0);
    let refusal = async |command: &str, index: &[u8]| {
        let keys = Keys::new(&[1], index);
        let settings = keys.settings();
        let output = tokio::time::timeout(PATIENCE, test.command_with(&[command], &settings)).await.expect("it does not start");
        assert!(!output.status.success());
        String::from_utf8(output.stderr).unwrap()
    };
    for command in ["serve", "work"] {
        for index in [&[2, 1][..], &[2]] {
            let error = refusal(command, index).await;
            assert!(error.contains("key 2 of BLIND_INDEX_KEY comes first") && error.contains("`whitemonday keys rotate`"), "{error}");
        }
        // The column is full, but of another key's values.
        let error = refusal(command, &[3]).await;
        assert!(error.contains("BLIND_INDEX_KEY does not have the key that customers are indexed by"), "{error}");
        let error = refusal(command, &[1, 3]).await;
        assert!(error.contains("one with an odd and one with an even number"), "{error}");
    }
    // A wrong key must not take the place of the right one.
    let wrong = key_rotation::run(&app(&test, &[1], &[3]), |_, _| ()).await;
    assert!(matches!(wrong, Err(KeyRotationError::AnotherIndexKey)));
    assert!(is_found(&test.app, &customer).await);
    test.finish().await;
}

#[tokio::test]
async fn a_column_that_held_an_earlier_key_is_made_anew_for_a_later_one() {
    let test = TestApp::start().await;
    let customers = customers(&test, 600).await;
    assert!(key_rotation::run(&app(&test, &[1], &[1, 2]), |_, _| ()).await.unwrap().is_complete());

    // Key 3 comes before anybody has emptied the column of key 1.
    let during = app(&test, &[1], &[2, 3]);
    assert!(is_found(&during, &customers[0]).await);
    let before = key_rotation::check_email_index(&app(&test, &[1], &[3, 2])).await;
    assert!(matches!(before, Err(KeyRotationError::AnotherIndexKey)));
    let rotation = key_rotation::run(&during, |_, _| ()).await.unwrap();
    assert!(rotation.is_complete() && rotation.index.reindexed == 600);

    let after = app(&test, &[1], &[3]);
    key_rotation::check_email_index(&after).await.unwrap();
    for customer in customers.iter().step_by(50) {
        assert!(is_found(&after, customer).await);
    }
    test.finish().await;
}

/// A request that is repeated is known again until the old key goes.
#[tokio::test]
async fn idempotency_keys_outlive_the_change_of_keys() {
    let test = TestApp::start().await;
    let buyer = test.customer().await;
    let sale = test.open_sale(5, 5).await;
    let key = json!({ "idempotencyKey": new_key() });
    let order = buyer.must_buy(sale, 1, key.clone()).await;
    assert!(key_rotation::run(&app(&test, &[1], &[1, 2]), |_, _| ()).await.unwrap().is_complete());
    for index in [&[1, 2], &[2, 1]] {
        let (_server, address) = Process::server_with(&test, &[], &Keys::new(&[1], index).settings()).await;
        let again = buyer.at(address).buy(sale, 1, key.clone()).await;
        assert_eq!((&again["result"]["replayed"], &again["result"]["order"]["id"]), (&json!(true), &json!(order)), "{index:?}");
    }
    test.finish().await;
}
