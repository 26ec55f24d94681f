//! Attacks on accounts, tokens and keys; docs/ABUSE.md lists them all.

use std::time::{Duration, Instant};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use futures_util::future::join_all;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::{Value, json};
use uuid::Uuid;
use whitemonday::{domain::customer::Role, sealing, services::seed, services::seed::DemoAccount};

use crate::{
    abuse::Target,
    ownership::outcome,
    support::{
        Client, PASSWORD, PATIENCE, TestApp,
        account::{LOG_IN, SAVE, SIGN_UP, VIEWER, log_in, sign_up, signed_in},
        change,
        client::BUY_NOW,
        customer_id, new_key, until,
    },
};

#[tokio::test]
async fn a_thousand_log_ins_at_once_take_the_memory_of_a_few() {
    let target = Target::start(&[]).await;
    let before = target.memory("VmHWM");
    let known = target.test.customer().await.email.unwrap();
    let one = async |n: usize| {
        let email = if n.is_multiple_of(2) { known.clone() } else { format!("nobody-{n}@example.com") };
        let answer = target.client.answer(LOG_IN, json!({ "input": { "email": email, "password": "not the password" } })).await;
        outcome(&answer, "logIn")
    };
    let outcomes = tokio::time::timeout(3 * PATIENCE, join_all((0..1_000).map(one))).await.expect("all are answered");
    let count = |wanted: &[&str]| outcomes.iter().filter(|outcome| wanted.contains(&outcome.as_str())).count();
    let (checked, put_off) = (count(&["BAD_CREDENTIALS"]), count(&["UNAVAILABLE", "RATE_LIMITED"]));
    assert_eq!(checked + put_off, 1_000, "{outcomes:?}");
    assert!(checked >= 1 && put_off >= 1, "{checked} checked, {put_off} put off");
    let hashes = 19 * std::thread::available_parallelism().unwrap().get() as u64;
    // Beside the hashes: a thousand connections.
    target.finish(before, hashes + 150).await;
}

/// The answer with headers, without what differs from request to request.
async fn whole(client: &Client, query: &str, input: &Value) -> String {
    let answer = client.post().json(&json!({ "query": query, "variables": { "input": input } })).send().await.unwrap();
    let mut headers = answer.headers().clone();
    let id = headers.remove("x-request-id").unwrap().to_str().unwrap().to_owned();
    headers.remove("date");
    format!("{} {headers:?} {}", answer.status(), answer.text().await.unwrap().replace(&id, "the request's id"))
}

const RESET: &str =
    "mutation($input: RequestPasswordResetInput!) { requestPasswordReset(input: $input) { accepted userErrors { code field message } } }";
const RESEND: &str = "mutation($input: ResendVerificationEmailInput!) { resendVerificationEmail(input: $input) { accepted userErrors { code field message } } }";

#[tokio::test]
async fn nobody_learns_from_answers_which_addresses_have_accounts() {
    let test = TestApp::start().await;
    let visitor = test.anonymous();
    let verified = test.customer().await.email.unwrap();
    sign_up(&visitor, "unverified@example.com", "Ann", PASSWORD).await;
    for (query, more) in [
        (LOG_IN, json!({ "password": "not the password" })),
        (RESET, json!({})),
        (RESEND, json!({})),
        (SIGN_UP, json!({ "password": PASSWORD, "name": "Ann" })),
    ] {
        let mut answers = Vec::new();
        for email in [&verified, "unverified@example.com", "nobody@example.com", "NOBODY.ELSE@example.com"] {
            let mut input = more.clone();
            input["email"] = json!(email);
            answers.push(whole(&visitor, query, &input).await);
        }
        assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:#?}");
    }
    let broken = "mutation($input: RequestPasswordResetInput!) { requestPasswordReset(input: $input) { accepted nonsense } }";
    assert_eq!(
        whole(&visitor, broken, &json!({ "email": verified })).await,
        whole(&visitor, broken, &json!({ "email": "x@example.com" })).await
    );
    test.finish().await;
}

/// A known and an unknown address are asked about at the same moment, in turns who is first, so that whatever else the machine does
/// delays both. The bound on the medians' ratio is wide, since each is the time of a dozen answers on a busy machine; what it must show is the
/// work that only a known address would cause: without a hash a log-in takes a tenth, and a mail more makes a request for a link take
/// three times as long.
#[tokio::test]
async fn nobody_learns_from_the_time_of_answers_which_addresses_have_accounts() {
    const PAIRS: usize = 15;
    let test = TestApp::start_with(&[("LOG_IN_PER_MINUTE", "100000"), ("MAILS_PER_HOUR", "100000")]).await;
    let visitor = test.anonymous();
    let verified = test.customer().await.email.unwrap();
    sign_up(&visitor, "unverified@example.com", "Ann", PASSWORD).await;
    for (query, known, more) in [
        (LOG_IN, verified.as_str(), json!({ "password": "not the password" })),
        (RESET, &verified, json!({})),
        (RESEND, "unverified@example.com", json!({})),
        (SIGN_UP, &verified, json!({ "password": PASSWORD, "name": "Ann" })),
    ] {
        let time = async |email: String| {
            let mut input = more.clone();
            input["email"] = json!(email);
            let began = Instant::now();
            visitor.answer(query, json!({ "input": input })).await;
            began.elapsed()
        };
        let (mut of_known, mut of_unknown) = (Vec::new(), Vec::new());
        for n in 0..PAIRS {
            let (known, unknown) = (known.to_owned(), format!("nobody-{n}@example.com"));
            let (k, u) = if n % 2 == 0 {
                tokio::join!(time(known), time(unknown))
            } else {
                let (u, k) = tokio::join!(time(unknown), time(known));
                (k, u)
            };
            of_known.push(k);
            of_unknown.push(u);
        }
        let median = |times: &mut Vec<Duration>| {
            times.sort();
            times[PAIRS / 2].as_secs_f64()
        };
        let (known, unknown) = (median(&mut of_known), median(&mut of_unknown));
        let ratio = known / unknown;
        assert!((0.67..1.5).contains(&ratio), "{query}: {known} s when known, {unknown} s when not");
    }
    test.finish().await;
}

#[tokio::test]
async fn a_role_that_is_taken_away_is_gone_on_every_process() {
    let target = Target::start(&[]).await;
    let test = &target.test;
    let email = "staff@example.com";
    seed::account(&test.app, &DemoAccount { email, name: "Staff", role: Role::Staff }, PASSWORD).await.unwrap();
    let tokens = log_in(&test.anonymous(), email, PASSWORD).await["tokens"].take();
    let staff = test.anonymous().with_token(tokens["accessToken"].as_str().unwrap());
    let elsewhere = staff.at(target.client.address);
    let admin = "{ admin { queues { name } } }";
    for client in [&staff, &elsewhere] {
        assert!(client.send(admin, json!({})).await["admin"]["queues"].is_array());
    }

    let granted = test.command(&["grant-role", email, "customer"]).await;
    assert!(granted.status.success(), "{}", String::from_utf8_lossy(&granted.stderr));

    for client in [&staff, &elsewhere] {
        until(async || (client.answer(admin, json!({})).await["errors"][0]["extensions"]["code"] == "UNAUTHENTICATED").then_some(())).await;
    }
    let refresh = "mutation($input: RefreshSessionInput!) { refreshSession(input: $input) { tokens { accessToken } userErrors { code } } }";
    let data = test.anonymous().send(refresh, json!({ "input": { "refreshToken": tokens["refreshToken"] } })).await;
    assert_eq!(data["refreshSession"], json!({ "tokens": null, "userErrors": [{ "code": "TOKEN_INVALID" }] }));
    let again = signed_in(test, email, PASSWORD).await;
    assert_eq!(again.send(VIEWER, json!({})).await["viewer"]["role"], "CUSTOMER");
    assert_eq!(again.error_code(admin, json!({})).await, "FORBIDDEN");
    drop(target.process);
    target.test.finish().await;
}

#[tokio::test]
async fn a_token_that_we_did_not_sign_for_this_is_unauthenticated() {
    let test = TestApp::start().await;
    let ann = test.customer().await;
    let now = test.app.clock.now().timestamp();
    let customer = customer_id(&json!(ann.customer_id)).0;
    let good = json!({
        "iss": "whitemonday", "aud": "whitemonday-api", "sub": customer, "sid": Uuid::now_v7(), "role": "CUSTOMER",
        "iat": now, "nbf": now, "exp": now + 600,
    });
    let with = |name: &str, value: Value| {
        let mut claims = good.clone();
        claims[name] = value;
        claims
    };
    let without = |name: &str| {
        let mut claims = good.clone();
        claims.as_object_mut().unwrap().remove(name);
        claims
    };
    // The key of the tests' settings.
    let secret = std::array::from_fn(|n| u8::try_from(n).unwrap());
    let ours = sealing::derive(&secret, b"whitemonday access token v1").to_vec();
    let sign = |algorithm, kid: Option<&str>, key: &[u8], claims: &Value| {
        let header = Header { kid: kid.map(str::to_owned), ..Header::new(algorithm) };
        encode(&header, claims, &EncodingKey::from_secret(key)).unwrap()
    };
    let hs256 = |claims: &Value| sign(Algorithm::HS256, Some("1"), &ours, claims);
    let part = |value: &Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
    let headed = |header: Value| {
        let signed = hs256(&good);
        let (_, rest) = signed.split_once('.').unwrap();
        format!("{}.{rest}", part(&header))
    };
    let viewer = async |token: &str| {
        let answer = test.anonymous().with_token(token).answer("{ viewer { id } }", json!({})).await;
        answer["errors"][0]["extensions"]["code"].as_str().map(str::to_owned)
    };
    assert_eq!(viewer(&hs256(&good)).await, None, "the test signs as the server does");

    let genuine = ann.access_token.clone().unwrap();
    let (head, rest) = genuine.split_once('.').unwrap();
    let (_, signature) = rest.split_once('.').unwrap();
    let mut forged = vec![
        ("no algorithm", format!("{}.{}.", part(&json!({ "alg": "none", "kid": "1" })), part(&good))),
        ("no algorithm, written otherwise", format!("{}.{}.", part(&json!({ "alg": "nOnE", "kid": "1" })), part(&good))),
        ("no algorithm, with a signature", headed(json!({ "alg": "none", "kid": "1" }))),
        ("a signature left out", format!("{head}.{}.", part(&good))),
        ("another's content under a good signature", format!("{head}.{}.{signature}", part(&with("role", json!("ADMIN"))))),
        ("an asymmetric algorithm", headed(json!({ "alg": "RS256", "kid": "1" }))),
        ("another hash", sign(Algorithm::HS384, Some("1"), &ours, &good)),
        ("another hash still", sign(Algorithm::HS512, Some("1"), &ours, &good)),
        ("no key's number", sign(Algorithm::HS256, None, &ours, &good)),
        ("a key of its own", headed(json!({ "alg": "HS256", "kid": "1", "jwk": { "kty": "oct", "k": "AA" }, "jku": "http://127.0.0.1/" }))),
        ("the undivided key", sign(Algorithm::HS256, Some("1"), &secret, &good)),
        ("an old one", hs256(&with("exp", json!(now - 1)))),
        ("one of tomorrow", hs256(&with("nbf", json!(now + 3_600)))),
        ("one without an end", hs256(&without("exp"))),
        ("one that ends in no number", hs256(&with("exp", json!("never")))),
        ("one beyond all time", hs256(&with("exp", json!(i64::MAX)))),
        ("for another audience", hs256(&with("aud", json!("another-api")))),
        ("for no audience", hs256(&without("aud"))),
        ("of another issuer", hs256(&with("iss", json!("blackfriday")))),
        ("of no issuer", hs256(&without("iss"))),
        ("of nobody", hs256(&without("sub"))),
        ("of somebody without a number", hs256(&with("sub", json!("' OR 1=1 --")))),
        ("of no session", hs256(&without("sid"))),
        ("of a role that is not known", hs256(&with("role", json!("ROOT")))),
        ("of two roles", hs256(&with("role", json!(["CUSTOMER", "ADMIN"])))),
        ("a good one and more", format!("{genuine}.x")),
        ("two", format!("{genuine} {genuine}")),
        ("a long one", "x.".repeat(3_000)),
    ];
    for kid in ["2", "", "../../../../dev/null", "1' OR '1'='1", "1\u{0}"] {
        forged.push(("another key's number", sign(Algorithm::HS256, Some(kid), &ours, &good)));
    }
    for public in ["", "secret", "whitemonday", "whitemonday-api", "whitemonday access token v1", "1"] {
        forged.push(("a public text as the key", sign(Algorithm::HS256, Some("1"), public.as_bytes(), &good)));
    }
    for (what, token) in forged {
        assert_eq!(viewer(&token).await.as_deref(), Some("UNAUTHENTICATED"), "{what}");
    }
    // A token that we signed says which role its session was opened with; nobody else can.
    assert_eq!(viewer(&genuine).await, None);
    test.finish().await;
}

#[tokio::test]
async fn keys_of_others_lead_to_nothing_of_theirs() {
    let test = TestApp::start().await;
    let sale = test.open_sale(5, 5).await;
    let [ann, bob] = test.customers(2).await.try_into().unwrap_or_else(|_| panic!());
    let key = json!(new_key());
    let hers = ann.must_buy(sale, 1, json!({ "idempotencyKey": key })).await;
    let input = json!({ "flashSaleId": sale.to_string(), "quantity": 1, "paymentMethod": "pm_card_visa", "idempotencyKey": key });
    let bought = bob.send(BUY_NOW, json!({ "input": input })).await["buyNow"]["result"].take();
    assert_eq!((&bought["__typename"], &bought["replayed"]), (&json!("OrderAccepted"), &json!(false)));
    let his = bought["order"]["id"].as_str().unwrap();
    assert_ne!(his, hers);

    let address = |name: &str| json!({ "recipient": name, "line1": "x", "city": "x", "postalCode": "1", "countryCode": "KR" });
    let save_name = async |client: &Client, name: &str| {
        client.send(SAVE, json!({ "input": { "address": address(name), "idempotencyKey": key } })).await["saveAddress"].take()
    };
    let (anns, bobs) = (save_name(&ann, "Ann").await, save_name(&bob, "Bob").await);
    assert_eq!((&anns["address"]["recipient"], &bobs["address"]["recipient"]), (&json!("Ann"), &json!("Bob")));
    assert_ne!(anns["address"]["id"], bobs["address"]["id"]);

    let cancel =
        async |client: &Client, order: &str| change(client, "cancelOrder", json!({ "orderId": order, "idempotencyKey": key })).await;
    assert_eq!(cancel(&ann, &hers).await["order"]["status"], "CANCELLED");
    assert_eq!(cancel(&bob, &hers).await["userErrors"][0]["code"], "NOT_FOUND", "as if it had never been used");
    assert_eq!(cancel(&bob, his).await["order"]["status"], "CANCELLED");
    test.finish().await;
}
