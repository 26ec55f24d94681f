//! Mail over a real connection: a mail server with TLS, one that is down, one that never answers.

use std::{
    net::SocketAddr,
    path::Path,
    process::Stdio,
    sync::{Arc, Mutex},
};

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    net::TcpListener,
    process::{Child, Command},
};

use crate::support::{
    PASSWORD, Process, TestApp,
    account::{SIGN_UP, VERIFY},
    free_address, until,
};

const USER: &str = "shop";
const SMTP_PASSWORD: &str = "smtp-secret";

/// The server's certificate, which nobody else has signed.
struct Certificate(TempDir);

impl Certificate {
    fn new() -> Self {
        let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("cert.pem"), made.cert.pem()).unwrap();
        std::fs::write(folder.path().join("key.pem"), made.signing_key.serialize_pem()).unwrap();
        Self(folder)
    }

    fn path(&self, name: &str) -> String {
        self.0.path().join(name).to_str().unwrap().to_owned()
    }
}

/// A mail server that runs, and what it has received.
struct MailServer {
    _process: Child,
    mails: Arc<Mutex<Vec<Value>>>,
}

impl MailServer {
    async fn start(address: SocketAddr, certificate: &Certificate) -> Self {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/npm");
        assert!(folder.join("node_modules").is_dir(), "tests/npm/node_modules is missing: `make test` installs it");
        let arguments = [&address.port().to_string(), &certificate.path("cert.pem"), &certificate.path("key.pem"), USER, SMTP_PASSWORD];
        let mut process = Command::new("node")
            .arg(folder.join("smtp.mjs"))
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        assert_eq!(lines.next_line().await.unwrap().as_deref(), Some("\"ready\""));
        let mails = Arc::default();
        tokio::spawn({
            let mails: Arc<Mutex<Vec<Value>>> = Arc::clone(&mails);
            async move {
                while let Some(line) = lines.next_line().await.unwrap() {
                    mails.lock().unwrap().push(serde_json::from_str(&line).unwrap());
                }
            }
        });
        Self { _process: process, mails }
    }

    fn mails(&self) -> Vec<Value> {
        self.mails.lock().unwrap().clone()
    }

    /// The only mail, once it is there.
    async fn mail(&self) -> Value {
        until(async || self.mails().pop()).await;
        let [mail] = self.mails().try_into().unwrap_or_else(|mails| panic!("{mails:#?}"));
        mail
    }
}

/// A worker that sends its mail to this address and trusts this certificate alone.
fn worker(test: &TestApp, address: SocketAddr, certificate: &Certificate) -> Process {
    let url = format!("smtp://{USER}:{SMTP_PASSWORD}@{address}?tls=required");
    let settings =
        [("SMTP_URL", url.as_str()), ("SSL_CERT_FILE", &certificate.path("cert.pem")), ("MAIL_FROM", "가게 <shop@whitemonday.example>")];
    Process::worker_with(test, &settings)
}

async fn sign_up(test: &TestApp, locale: &str) {
    let input = json!({ "email": "ann@example.com", "password": PASSWORD, "name": "Ann", "locale": locale });
    let data = test.anonymous().send(SIGN_UP, json!({ "input": input })).await;
    assert_eq!(data["signUp"], json!({ "accepted": true, "userErrors": [] }));
}

/// The address that a mail links to.
fn link(mail: &Value) -> String {
    let text = mail["text"].as_str().unwrap();
    text.split_whitespace().find(|word| word.starts_with("http")).unwrap_or_else(|| panic!("{text}")).to_owned()
}

async fn until_put_off(test: &TestApp, error: &str) {
    let put_off = format!("SELECT count(*) FROM retry WHERE queue = 'mail' AND due_at IS NOT NULL AND last_error = '{error}'");
    until(async || (test.scalar(&put_off).await == 1).then_some(())).await;
}

#[tokio::test]
async fn a_mail_goes_over_tls_and_says_the_same_as_text_and_html() {
    let test = TestApp::start().await;
    let (certificate, address) = (Certificate::new(), free_address());
    let server = MailServer::start(address, &certificate).await;
    let _worker = worker(&test, address, &certificate);

    sign_up(&test, "KO").await;

    let mail = server.mail().await;
    assert_eq!(mail["tls"], true);
    assert_eq!((&mail["from"], &mail["to"]), (&json!("shop@whitemonday.example"), &json!(["ann@example.com"])));
    assert_eq!(mail["envelope"], mail["to"]);
    assert_eq!(mail["subject"], "이메일 주소를 확인해 주세요");
    assert_eq!((&mail["contentType"], &mail["attachments"]), (&json!("multipart/alternative"), &json!(0)));
    let (plain, html) = (mail["text"].as_str().unwrap(), mail["html"].as_str().unwrap());
    for part in [plain, html] {
        assert!(part.contains("WhiteMonday에 오신 것을 환영합니다") && part.contains(&link(&mail)), "{part}");
    }
    assert!(html.contains(r#"<html lang="ko">"#), "{html}");
    assert!(link(&mail).starts_with(&format!("{}/verify?token=", test.app.config.http.public_url)), "{}", link(&mail));

    let token = link(&mail).split_once("token=").unwrap().1.to_owned();
    let verified = test.anonymous().send(VERIFY, json!({ "input": { "token": token } })).await;
    assert_eq!(verified["verifyEmail"]["customer"]["emailVerified"], true);
    until(async || (test.scalar("SELECT count(*) FROM pgmq.q_mail").await == 0).then_some(())).await;
    assert_eq!(test.scalar("SELECT count(*) FROM mail WHERE content_sealed IS NOT NULL").await, 0, "what is sent is forgotten");
    test.finish().await;
}

#[tokio::test]
async fn a_server_whose_certificate_nobody_trusts_gets_no_mail() {
    let test = TestApp::start().await;
    let (certificate, address) = (Certificate::new(), free_address());
    let server = MailServer::start(address, &certificate).await;
    let stranger = Certificate::new();
    let _worker = worker(&test, address, &stranger);
    sign_up(&test, "EN").await;
    until_put_off(&test, "the mail server cannot be reached").await;
    assert_eq!(server.mails(), Vec::<Value>::new());
    test.finish().await;
}

#[tokio::test]
async fn mail_waits_while_the_server_is_down_and_arrives_once_it_is_back() {
    let test = TestApp::start().await;
    let (certificate, address) = (Certificate::new(), free_address());
    let _worker = worker(&test, address, &certificate);

    sign_up(&test, "EN").await;
    until_put_off(&test, "the mail server cannot be reached").await;

    let server = MailServer::start(address, &certificate).await;
    test.execute("UPDATE retry SET due_at = now()").await;
    let mail = server.mail().await;
    assert_eq!(mail["subject"], "Confirm your e-mail address");
    until(async || (test.scalar("SELECT count(*) FROM mail WHERE sent_at IS NULL").await == 0).then_some(())).await;
    test.finish().await;
}

#[tokio::test]
async fn a_server_that_never_answers_delays_its_mail_and_nothing_else() {
    let test = TestApp::start().await;
    let sale = test.open_sale(1, 1).await;
    let certificate = Certificate::new();
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = silent.local_addr().unwrap();
    let _worker = worker(&test, address, &certificate);

    sign_up(&test, "EN").await;
    // The connection is accepted, and held.
    let (held, _) = silent.accept().await.unwrap();
    let ann = test.customer().await;
    let order = ann.must_buy(sale, 1, json!({})).await;
    ann.until_order_is(&order, "PAID").await;
    assert_eq!(test.scalar("SELECT count(*) FROM retry").await, 0, "the mail is being sent all the while");

    until_put_off(&test, "the mail server does not answer").await;

    drop((silent, held));
    let server = MailServer::start(address, &certificate).await;
    test.execute("UPDATE retry SET due_at = now()").await;
    server.mail().await;
    until(async || (test.scalar("SELECT count(*) FROM mail WHERE sent_at IS NULL").await == 0).then_some(())).await;
    assert_eq!(server.mails().len(), 1);
    test.finish().await;
}
