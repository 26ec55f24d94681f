//! Nothing personal and no secret stands in clear where it should not: in a dump of the database, in the log, in debug output.

use std::{fmt::Debug, fs::File, process::Command};

use base64::{
    Engine,
    prelude::{BASE64_STANDARD, BASE64_STANDARD_NO_PAD},
};
use futures_util::{StreamExt, stream};
use secrecy::SecretString;
use serde_json::{Value, json};
use uuid::Uuid;
use whitemonday::{
    auth::{password::Verdict, secret_token::SecretToken},
    clients::mailer::Mail,
    config::{Config, MailTransport, Settings},
    domain::{
        address::PostalAddress,
        customer::EmailAddress,
        ids::{CustomerId, FlashSaleId},
    },
    embedded,
    resolvers::context::Caller,
    sealing::SealedColumn,
    services::{
        account::{PhoneChange, SignUp, UpdateProfile},
        address::SaveAddress,
        order::CheckOut,
        purchase::BuyNow,
        session::Tokens,
    },
    store,
};

use crate::support::{Client, PASSWORD, Process, TestApp, collector::Collector, customer_id, until};

const SIGN_UP: &str = "mutation($input: SignUpInput!) { signUp(input: $input) { accepted } }";
const LOG_IN: &str = "mutation($input: LogInInput!) { logIn(input: $input) { tokens { accessToken refreshToken } } }";
const SAVE: &str = "mutation($input: SaveAddressInput!) { saveAddress(input: $input) { address { recipient } } }";

/// What a text looks like when it is written as it is, in hex, or in base64 from any place of a longer text.
fn disguises(text: &str) -> Vec<String> {
    let hex = text.bytes().fold(String::new(), |hex, byte| format!("{hex}{byte:02x}"));
    let base64 = (0..3).map(|before| {
        let encoded = BASE64_STANDARD_NO_PAD.encode([&b"\0\0\0"[..before], text.as_bytes()].concat());
        // Characters that hold bits of what stands before or behind are not the text's own.
        encoded[(before * 8).div_ceil(6)..(before + text.len()) * 8 / 6].to_owned()
    });
    [text.to_owned(), hex].into_iter().chain(base64).collect()
}

fn assert_absent(haystack: &str, texts: &[&str]) {
    for text in texts {
        for disguise in disguises(text) {
            if let Some(at) = haystack.find(&disguise) {
                let line = haystack[..at].rfind('\n').map_or(0, |newline| newline + 1);
                let shown: String = haystack[line..].lines().next().unwrap_or_default().chars().take(1_000).collect();
                panic!("{text:?} stands as {disguise:?} in: {shown}");
            }
        }
    }
}

#[test]
fn disguises_are_recognised() {
    let text = "person@needle.example";
    for before in ["", "a", "ab", "abc"] {
        let longer = format!("{before}{text}behind");
        assert!(disguises(text).iter().any(|disguise| BASE64_STANDARD.encode(&longer).contains(disguise.as_str())), "{longer}");
    }
    assert!(disguises("Ann").contains(&"416e6e".to_owned()));
}

#[tokio::test]
async fn a_value_that_was_moved_does_not_open_and_costs_only_its_field() {
    let test = TestApp::start().await;
    let (ann, bob) = (test.customer().await, test.customer().await);
    let [ann_id, bob_id] = [&ann, &bob].map(|client| customer_id(&client.customer_id.clone().into()).0);
    let fields = "{ viewer { id name email phone } other: viewer { email addresses { id line1 } } }";
    let before = ann.send(fields, json!({})).await;
    let swap = format!(
        "UPDATE customer a SET name_sealed = b.name_sealed FROM customer b
          WHERE (a.id, b.id) IN (('{ann_id}', '{bob_id}'), ('{bob_id}', '{ann_id}'))"
    );

    test.execute(&swap).await;
    assert_only_lost(&ann.answer(fields, json!({})).await, &before, "name");
    test.execute(&swap).await;
    assert_eq!(ann.send(fields, json!({})).await, before);

    test.execute(&format!("UPDATE customer SET phone_sealed = name_sealed WHERE id = '{ann_id}'")).await;
    assert_only_lost(&ann.answer(fields, json!({})).await, &before, "phone");
    test.finish().await;
}

/// Everything is as before but this field of the viewer, for which there is one error that says nothing of what is inside.
fn assert_only_lost(answer: &Value, before: &Value, field: &str) {
    let without = |data: &Value| {
        let mut rest = data.clone();
        rest["viewer"].as_object_mut().unwrap().remove(field);
        rest
    };
    assert_eq!(without(&answer["data"]), without(before));
    assert!(answer["data"]["viewer"][field].is_null());
    let errors = answer["errors"].as_array().unwrap();
    assert_eq!((errors.len(), &errors[0]["extensions"]["code"]), (1, &json!("INTERNAL")), "{answer:#}");
    assert_eq!(errors[0]["path"], json!(["viewer", field]));
    let text = answer["errors"].to_string();
    assert!(!text.contains("sealed") && !text.contains("customer"), "{text}");
}

const USER_AGENT: &str = "NeedleBrowser/7.5 (Needle OS)";

/// Whoever is in a dump is in its needles: what all these people have in common.
const NEEDLES: [&str; 8] =
    ["@needle.example", "Needlewoman", "+82-10-7777-", "Needle Street", "Needleton", "Behind the needle", USER_AGENT, PASSWORD];

async fn sign_up(client: &Client, number: usize) {
    let input = json!({
        "email": format!("person-{number}@needle.example"), "password": PASSWORD, "name": format!("Ann {number} Needlewoman"),
        "phone": format!("+82-10-7777-{number:04}"),
    });
    let answer = post(client, SIGN_UP, json!({ "input": input })).await;
    assert_eq!(answer["data"]["signUp"]["accepted"], true, "{answer:#}");
}

async fn post(client: &Client, query: &str, variables: Value) -> Value {
    let body = json!({ "query": query, "variables": variables });
    client.post().header("user-agent", USER_AGENT).json(&body).send().await.unwrap().json().await.unwrap()
}

/// Logs in, saves an address and buys; access and refresh token.
async fn shop(test: &TestApp, visitor: &Client, number: usize, sale: FlashSaleId) -> [String; 2] {
    let input = json!({ "email": format!("person-{number}@needle.example"), "password": PASSWORD });
    let answer = post(visitor, LOG_IN, json!({ "input": input })).await;
    let [access, refresh] =
        ["accessToken", "refreshToken"].map(|name| answer["data"]["logIn"]["tokens"][name].as_str().unwrap().to_owned());
    let client = visitor.with_token(access.as_str());
    let address = json!({
        "recipient": "Ann Needlewoman", "line1": format!("{number} Needle Street"), "city": "Needleton", "postalCode": "12345",
        "countryCode": "KR", "phone": "+82-10-7777-0000",
    });
    let saved = client.send(SAVE, json!({ "input": { "address": address } })).await;
    assert_eq!(saved["saveAddress"]["address"]["recipient"], "Ann Needlewoman");
    test.execute("UPDATE customer SET email_verified_at = now() WHERE email_verified_at IS NULL").await;
    let wish = "mutation($input: AddToWishlistInput!) { addToWishlist(input: $input) { item { note } } }";
    let item = json!({ "productId": test.product_of(sale).await.to_string(), "note": "Behind the needle, a birthday." });
    assert!(client.send(wish, json!({ "input": item })).await["addToWishlist"]["item"]["note"].is_string());
    let order = client.must_buy(sale, 1, json!({ "deliveryNote": "Behind the needle, please." })).await;
    client.until_order_is(&order, "PAID").await;
    [access, refresh]
}

#[tokio::test]
async fn a_dump_of_the_database_shows_nobody() {
    let test = TestApp::start().await;
    let visitor = test.anonymous();
    let sale = test.open_sale(20, 20).await;
    // Nobody sends the mails meanwhile: they wait with what they say.
    stream::iter(0..1_000).for_each_concurrent(4, |number| sign_up(&visitor, number)).await;
    let _worker = test.worker();
    for number in 0..10 {
        shop(&test, &visitor, number, sale).await;
    }

    let program = embedded::postgres_program("pg_dump").await.expect("pg_dump comes with the server");
    let output = Command::new(program).arg("--dbname").arg(&test.settings()["DATABASE_URL"]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let dump = String::from_utf8(output.stdout).unwrap();
    // Version 1, key 1: three values of each customer and a mail.
    assert!(dump.matches(r"\\x0101").count() >= 4_000, "the dump has everything");
    assert!(dump.contains("order-cancelled") || dump.contains("verify-email"), "and shows what is not sealed");
    assert_absent(&dump, &NEEDLES);
    assert_absent(&dump, &["person-7@needle", "Ann 7 Needle", "+82-10-7777-0007", "verify?token="]);
    test.finish().await;
}

#[tokio::test]
async fn the_most_talkative_log_and_traces_show_nobody_and_no_secret() {
    let test = TestApp::start().await;
    let sale = test.open_sale(5, 5).await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log");
    let collector = Collector::start().await;
    let settings = [&[("LOG", "trace")], &collector.settings("1")[..]].concat();
    let (mut server, address) = Process::server_with_log(&test, File::create(&path).unwrap(), &settings).await;
    let visitor = test.anonymous().at(address);

    // What goes well.
    sign_up(&visitor, 1).await;
    let [access, refresh] = shop(&test, &visitor, 1, sale).await;
    let client = visitor.with_token(access.as_str());
    let query = "{ viewer { email name phone addresses { line1 } orders(first: 5) { nodes { deliveryNote } } } }";
    assert_eq!(client.send(query, json!({})).await["viewer"]["email"], "person-1@needle.example");
    let mut socket = client.subscribe("subscription { orderUpdates { id } }", json!({})).await;
    let rotate = "mutation($input: RefreshSessionInput!) { refreshSession(input: $input) { tokens { accessToken refreshToken } } }";
    let tokens = client.send(rotate, json!({ "input": { "refreshToken": refresh } })).await["refreshSession"]["tokens"].take();
    // No mail server answers: the mail is put off.
    until(async || (test.scalar("SELECT count(*) FROM retry WHERE queue = 'mail'").await > 0).then_some(())).await;
    let (mail, sealed): (Uuid, Vec<u8>) =
        sqlx::query_as("SELECT id, content_sealed FROM mail WHERE content_sealed IS NOT NULL").fetch_one(&*test.app.db).await.unwrap();
    let letter = test.app.sealing.open(SealedColumn::MailContent, mail, &sealed).unwrap();
    let link_token = letter.split("token=").nth(1).unwrap().split('\\').next().unwrap().to_owned();

    // What does not.
    let wrong = json!({ "input": { "email": "person-1@needle.example", "password": "wrong needle password" } });
    assert!(visitor.send(LOG_IN, wrong).await["logIn"]["tokens"].is_null());
    let inline =
        format!(r#"mutation {{ logIn(input: {{ email: "person-1@needle.example", password: "{PASSWORD}", x: 1 }}) {{ tokens }} }}"#);
    assert_eq!(visitor.error_code(&inline, json!({})).await, "BAD_REQUEST");
    let unknown_field = json!({ "input": { "email": "person-1@needle.example", "password": PASSWORD, "name": ["Ann Needlewoman"] } });
    assert_eq!(visitor.error_code(SIGN_UP, unknown_field).await, "BAD_REQUEST");
    let cut_off = format!(r#"{{ "query": "{{ viewer }}", "variables": {{ "password": "{PASSWORD}", "#);
    let answer = visitor.post().header("content-type", "application/json").body(cut_off).send().await.unwrap();
    assert_eq!(answer.status(), 400);
    assert_eq!(visitor.with_token(format!("{access}x")).error_code(query, json!({})).await, "UNAUTHENTICATED");
    test.execute("ALTER TABLE mail RENAME TO mail_away").await;
    let input = json!({ "input": { "email": "person-2@needle.example", "password": PASSWORD, "name": "Ann Needlewoman" } });
    assert_eq!(visitor.error_code(SIGN_UP, input).await, "INTERNAL");
    test.execute("ALTER TABLE mail_away RENAME TO mail").await;
    test.execute("UPDATE customer SET name_sealed = email_sealed").await;
    assert_eq!(client.error_code(query, json!({})).await, "INTERNAL");
    socket.send(&json!({ "id": "2", "type": "subscribe", "payload": { "query": inline } })).await;
    server.terminate().await;

    let log = std::fs::read_to_string(&path).unwrap();
    for expected in ["TRACE", "a request failed", "does not open", "sqlx"] {
        assert!(log.contains(expected), "the log tells much, but not of {expected}");
    }
    let [next_access, next_refresh] = ["accessToken", "refreshToken"].map(|name| tokens[name].as_str().unwrap());
    let traces = collector.text();
    assert!(traces.contains("mutation SignUp") || traces.contains("INSERT customer"), "the traces tell much, too");
    let secrets = [&access, &refresh, next_access, next_refresh, &link_token, "wrong needle password"];
    for told in [&log, &traces] {
        assert_absent(told, &NEEDLES);
        assert_absent(told, &secrets);
    }
    assert_absent(&traces, &["SELECT id", "viewer {", "$1"]);
    test.finish().await;
}

#[test]
fn debug_output_shows_nothing_personal_and_no_secret() {
    fn assert_opaque(value: &dyn Debug, needles: &[&str]) {
        assert_absent(&format!("{value:?}"), needles);
        assert_absent(&format!("{value:#?}"), needles);
    }

    let needle = || "needle".to_owned();
    let secret = || SecretString::from("needle");
    let address = || PostalAddress {
        recipient: needle(),
        line1: needle(),
        line2: Some(needle()),
        city: needle(),
        postal_code: needle(),
        country_code: needle(),
        phone: Some(needle()),
    };
    let key = format!("1:{}", BASE64_STANDARD.encode("needle needle needle needle need"));
    let settings = [
        ("DATABASE_URL", "postgres://needle:needle@localhost/needle"),
        ("REDIS_URL", "redis://default:needle@localhost"),
        ("SEALING_KEYS", &key),
        ("BLIND_INDEX_KEY", &key),
        ("TOKEN_KEYS", &key),
        ("SMTP_URL", "smtps://needle:needle@localhost"),
        ("PAYMENT_SECRET_KEY", "sk_test_needle"),
        ("PAYMENT_WEBHOOK_SECRET", "whsec_needle"),
    ];
    let settings = Settings::fixed(settings.map(|(name, value)| (name.to_owned(), value.to_owned())).into());
    let config = Config::read(&settings, MailTransport::Smtp).unwrap();
    let bytes = format!("{:?}", b"needle");
    let needles = ["needle", bytes.trim_matches(['[', ']']), "NEEDLE"];
    assert_opaque(&settings, &needles);
    assert_opaque(&config, &needles);
    assert_opaque(&EmailAddress::parse("needle@needle.example").unwrap(), &needles);
    assert_opaque(&address(), &needles);
    let sign_up = SignUp { email: needle(), password: needle(), name: needle(), phone: Some(needle()), locale: None };
    assert_opaque(&sign_up, &needles);
    assert_opaque(&UpdateProfile { name: Some(needle()), phone: PhoneChange::Set(needle()), locale: None }, &needles);
    assert_opaque(&Mail { to: needle(), subject: needle(), text: needle(), html: Some(needle()) }, &needles);
    assert_opaque(&SaveAddress { id: None, address: address(), is_default: None, idempotency_key: None }, &needles);
    let buy_now = BuyNow {
        sale: FlashSaleId::new(),
        quantity: 1,
        payment_method: needle(),
        address: None,
        delivery_note: Some(needle()),
        idempotency_key: Uuid::nil(),
    };
    assert_opaque(&buy_now, &needles);
    let check_out = CheckOut {
        payment_method: needle(),
        address: None,
        delivery_note: Some(needle()),
        expected_total: None,
        idempotency_key: Uuid::nil(),
    };
    assert_opaque(&check_out, &needles);
    assert_opaque(&Caller { user_agent: Some(needle()), ..Caller::default() }, &needles);
    assert_opaque(&SecretToken::received(needle()), &needles);
    let now = chrono::DateTime::UNIX_EPOCH;
    let tokens = Tokens { access: secret(), access_expires_at: now, refresh: SecretToken::received(needle()), refresh_expires_at: now };
    assert_opaque(&tokens, &needles);
    let customer = store::customer::Customer {
        id: CustomerId::new(),
        email_sealed: needle().into(),
        email_verified_at: None,
        name_sealed: needle().into(),
        phone_sealed: Some(needle().into()),
        password_hash: needle(),
        role: whitemonday::domain::customer::Role::Customer,
        locale: whitemonday::domain::customer::Locale::En,
        created_at: now,
    };
    assert_opaque(&customer, &needles);
    assert_eq!(format!("{:?}", Verdict::Wrong), "Wrong", "what is not secret is shown");
}
