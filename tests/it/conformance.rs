//! The reference implementations of the two protocols, run against the program by Node.js.

use std::{collections::BTreeSet, path::Path};

use serde_json::Value;
use tokio::process::Command;

use crate::support::TestApp;

/// Items of the GraphQL-over-HTTP audit that the program does not pass, and why. All are a MAY.
const DIFFERENCES: [(&str, &str); 3] = [
    ("5A70", "no operation is sent by GET: addresses end up in logs, and a link would be enough to run one"),
    ("6A70", "the same, with variables"),
    ("D6D5", "the same, with variables, for application/graphql-response+json"),
];

/// Runs a script of tests/npm to its end and returns what it printed; it must succeed.
async fn run_script(name: &str, arguments: &[&str]) -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/npm");
    assert!(folder.join("node_modules").is_dir(), "tests/npm/node_modules is missing: `make test` installs it");
    let run = Command::new("node").current_dir(folder).arg(name).args(arguments).kill_on_drop(true).output().await;
    let run = run.expect("there is Node.js: `make test` installs it");
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
