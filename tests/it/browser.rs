//! The program's own pages in a real browser: a first purchase in `GraphiQL`, the mailbox, the link of a mail.

use std::path::Path;

use serde_json::{Value, json};
use tokio::process::Command;
use whitemonday::{
    domain::customer::Role,
    services::seed::{self, DemoAccount},
};

use crate::support::{PASSWORD, TestApp};

const SIGN_UP: &str = "mutation($input: SignUpInput!) { signUp(input: $input) { accepted } }";
const LOG_IN: &str = "mutation($input: LogInInput!) { logIn(input: $input) { customer { emailVerified } userErrors { code } } }";

#[tokio::test]
async fn a_first_purchase_in_the_browser() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    assert!(root.join("web/node_modules/playwright-core").is_dir(), "web/node_modules is missing: `make test` installs it");
    let test = TestApp::start_with_jobs().await;
    seed::catalogue(&test.app, 30, |_| {}).await.unwrap();
    let sale = test.open_sale(5, 2).await;
    let buyer = DemoAccount { email: "jiho@example.com", name: "Jiho", role: Role::Customer };
    seed::account(&test.app, &buyer, PASSWORD).await.unwrap();
    let visitor = test.anonymous();
    let newcomer = json!({ "email": "minji@example.com", "password": PASSWORD, "name": "Kim Minji", "locale": "EN" });
    visitor.send(SIGN_UP, json!({ "input": newcomer })).await;
    test.token_mailed_to("minji@example.com", 1).await;

    let pictures = Path::new(env!("CARGO_TARGET_TMPDIR")).join("browser");
    let _ = std::fs::remove_dir_all(&pictures);
    let run = Command::new("node")
        .arg(root.join("web/test/pages.mjs"))
        .args([visitor.url("").as_str(), buyer.email, PASSWORD, sale.to_string().as_str()])
        .arg(&pictures)
        .kill_on_drop(true)
        .output()
        .await
        .expect("there is Node.js: `make test` installs it");

    let (out, err) = (String::from_utf8_lossy(&run.stdout), String::from_utf8_lossy(&run.stderr));
    assert!(run.status.success(), "{}\n{out}{err}", run.status);
    let log_in = json!({ "email": "minji@example.com", "password": PASSWORD });
    let newcomer: Value = visitor.send(LOG_IN, json!({ "input": log_in })).await;
    assert_eq!(newcomer["logIn"]["customer"]["emailVerified"], true, "{newcomer:#}");
    assert_eq!(test.free_units(sale).await, 4);
    test.finish().await;
}
