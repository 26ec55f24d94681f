//! The demo as a newcomer starts it: one command, data that stays, nothing left behind when it is killed.

use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, ChildStdout, Command, Stdio},
};

use serde_json::{Value, json};

use crate::support::until;

struct Demo {
    process: Child,
    /// What it printed until it was ready, and the lines with its addresses.
    lines: Vec<String>,
    /// Kept open: it prints once more when it stops.
    _output: BufReader<ChildStdout>,
}

impl Demo {
    /// Starts it on a free port and waits until it says `ready` and prints its last line.
    fn start(folder: &Path, arguments: &[&str]) -> Self {
        let mut process = Command::new(env!("CARGO_BIN_EXE_whitemonday"))
            .args(["demo", "--port", "0", "--data-dir"])
            .arg(folder)
            .args(arguments)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut output = BufReader::new(process.stdout.take().unwrap());
        let mut lines = Vec::new();
        while !lines.last().is_some_and(|line: &String| line.starts_with("Ctrl-C")) {
            let mut line = String::new();
            assert!(output.read_line(&mut line).unwrap() > 0, "the demo ended: {lines:?}");
            lines.push(line.trim_end().to_owned());
        }
        Self { process, lines, _output: output }
    }

    fn value(&self, name: &str) -> String {
        let line = self.lines.iter().find_map(|line| line.trim().strip_prefix(name)).unwrap_or_else(|| panic!("{:?}", self.lines));
        line.trim().trim_start_matches('=').to_owned()
    }

    async fn send(&self, query: &str) -> Value {
        let url = format!("{}graphql", self.value("GraphiQL"));
        let answer = reqwest::Client::new().post(url).json(&json!({ "query": query })).send().await.unwrap();
        answer.json::<Value>().await.unwrap()["data"].take()
    }

    /// Waits until the demo's server has accepted an event of the demo's provider.
    async fn until_it_hears_of_payments(&self) {
        let webhooks = self.value("Payments").replace("/admin/ledger", "/admin/webhooks");
        until(async || {
            let shown = reqwest::get(&webhooks).await.unwrap().json::<Value>().await.unwrap();
            (shown["counts"]["delivered"].as_u64() > Some(0)).then_some(())
        })
        .await;
    }

    fn audit(folder: &Path) -> bool {
        let audit = Command::new(env!("CARGO_BIN_EXE_whitemonday")).args(["audit", "--json", "--data-dir"]).arg(folder).output().unwrap();
        audit.status.success()
    }

    fn kill(mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    fn interrupt(mut self) {
        Command::new("kill").args(["-INT", &self.process.id().to_string()]).status().unwrap();
        assert!(self.process.wait().unwrap().success());
    }
}

const SALES: &str = "{ flashSales { nodes { id phase } } products { totalCount } }";

async fn answers(database_url: &str) -> bool {
    use sqlx::Connection;
    sqlx::PgConnection::connect(database_url).await.is_ok()
}

#[tokio::test]
async fn the_demo_keeps_its_data_when_it_is_killed_and_takes_its_services_with_it() {
    let folder = tempfile::tempdir().unwrap();
    let demo = Demo::start(folder.path(), &[]);
    let database = demo.value("DATABASE_URL");
    let first = demo.send(SALES).await;
    assert_eq!(first["products"]["totalCount"], 200);
    let phases: Vec<_> = first["flashSales"]["nodes"].as_array().unwrap().iter().map(|sale| sale["phase"].as_str().unwrap()).collect();
    assert!(phases.contains(&"OPEN") && phases.contains(&"SCHEDULED"), "{phases:?}");
    assert!(phases.iter().any(|phase| phase.starts_with("SOLD_OUT")), "{phases:?}");
    assert!(Demo::audit(folder.path()), "an operator's command acts on the running demo");
    let metrics = reqwest::get(demo.value("Metrics")).await.unwrap().text().await.unwrap();
    assert!(metrics.contains("whitemonday_database_up 1"), "{metrics}");
    // The sample orders of the sale that is sold out are paid in the background.
    demo.until_it_hears_of_payments().await;
    let password = demo.value("Customer");

    demo.kill();
    until(async || (!answers(&database).await).then_some(())).await;

    let again = Demo::start(folder.path(), &[]);
    assert_eq!(again.value("Customer"), password, "keys and password stay");
    let known: Vec<_> = first["flashSales"]["nodes"].as_array().unwrap().iter().map(|sale| sale["id"].clone()).collect();
    let now = again.send(SALES).await;
    let now: Vec<_> = now["flashSales"]["nodes"].as_array().unwrap().iter().map(|sale| sale["id"].clone()).collect();
    assert!(known.iter().all(|sale| now.contains(sale)), "the data stays");
    assert!(Demo::audit(folder.path()));
    let database = again.value("DATABASE_URL");
    again.interrupt();
    assert!(!answers(&database).await, "one signal ends everything");

    let fresh = Demo::start(folder.path(), &["--fresh"]);
    let sales = fresh.send(SALES).await;
    let sales: Vec<_> = sales["flashSales"]["nodes"].as_array().unwrap().iter().map(|sale| sale["id"].clone()).collect();
    assert!(known.iter().all(|sale| !sales.contains(sale)), "--fresh starts over");
    fresh.interrupt();
    // As root the cluster lies elsewhere: it must not stay for ever.
    if let Ok(elsewhere) = std::fs::read_to_string(folder.path().join("services-folder"))
        && elsewhere.starts_with('/')
    {
        std::fs::remove_dir_all(elsewhere).unwrap();
    }
}
