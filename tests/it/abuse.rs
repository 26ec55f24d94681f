//! Attacks by documents, JSON and texts over real HTTP that no other file makes; docs/ABUSE.md lists them all. What might end or fill a process meets one of its own.

use std::{
    collections::BTreeSet,
    fs,
    time::{Duration, Instant},
};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::{
    ownership::{Ann, Schema, digest, mutations, operation, outcome},
    support::{Client, PATIENCE, Process, TestApp, account::SAVE, new_key, until},
};

pub const TYPENAME: &str = r#"{"query":"{ __typename }"}"#;
pub const JSON: &str = "application/json";
/// An answer to what is refused unread comes within this, on a machine that does other things too.
const AT_ONCE: Duration = Duration::from_secs(5);

/// A server in a process of its own.
pub struct Target {
    pub test: TestApp,
    pub process: Process,
    pub client: Client,
}

impl Target {
    pub async fn start(settings: &[(&str, &str)]) -> Self {
        let test = TestApp::start().await;
        let (process, address) = Process::server_with(&test, &[], settings).await;
        let client = test.anonymous().at(address);
        let target = Self { test, process, client };
        target.is_well().await;
        target
    }

    pub async fn is_well(&self) {
        assert!(self.client.send("{ categories { id } }", json!({})).await["categories"].is_array());
    }

    /// Memory in MiB: what the process has now (`VmRSS`), or the most that it ever had (`VmHWM`).
    pub fn memory(&self, kind: &str) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.process.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with(kind)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() / 1024
    }

    /// It answers, and the attack has never taken more than this.
    pub async fn finish(self, before: u64, mib: u64) {
        self.is_well().await;
        let most = self.memory("VmHWM");
        assert!(most < before + mib, "{before} MiB before, {most} MiB at most");
        drop(self.process);
        self.test.finish().await;
    }
}

/// A text for each number, one behind the other.
pub fn numbered(numbers: std::ops::Range<usize>, text: impl Fn(usize) -> String) -> String {
    numbers.map(text).collect::<Vec<_>>().concat()
}

/// The status and the code of an answer to this body.
async fn post(client: &Client, body: impl Into<reqwest::Body>) -> (u16, Value) {
    let request = client.post().header("content-type", JSON).body(body).timeout(PATIENCE);
    let answer = request.send().await.unwrap();
    (answer.status().as_u16(), answer.json().await.unwrap())
}

pub fn code(answer: &Value) -> &str {
    answer["errors"][0]["extensions"]["code"].as_str().unwrap_or_else(|| panic!("{answer:#}"))
}

#[tokio::test]
async fn documents_that_explode_or_have_no_end_are_refused_at_once() {
    let target = Target::start(&[]).await;
    let before = target.memory("VmRSS");
    let bomb = |count: usize, spreads: usize| {
        let fragment = |n: usize| format!("fragment f{n} on Category {{ {} }}", format!("...f{} ", n + 1).repeat(spreads));
        let fragments: String = numbered(0..count, fragment);
        format!("{fragments} fragment f{count} on Category {{ id }}")
    };
    let nested = |open: &str, inner: &str, close: &str, times: usize| format!("{}{inner}{}", open.repeat(times), close.repeat(times));
    let documents = [
        ("a fragment of itself", "{ categories { ...a } } fragment a on Category { ...a }".to_owned()),
        (
            "a circle through a field",
            "{ categories { ...a } } fragment a on Category { parent { ...b } } fragment b on Category { ...a }".to_owned(),
        ),
        ("a circle that nobody uses", "{ serverTime } fragment a on Category { ...b } fragment b on Category { ...a }".to_owned()),
        ("a bomb of two", format!("{{ categories {{ ...f0 }} }} {}", bomb(29, 2))),
        ("a bomb of a hundred", format!("{{ categories {{ ...f0 }} }} {}", bomb(25, 100))),
        ("a bomb that nobody uses", format!("{{ serverTime }} {}", bomb(29, 2))),
        ("a bomb through fields", {
            let fragment = |n: usize| format!("fragment f{n} on Category {{ parent {{ ...f{} ...f{} }} }}", n + 1, n + 1);
            let fragments: String = numbered(0..15, fragment);
            format!("{{ categories {{ ...f0 }} }} {fragments} fragment f15 on Category {{ id }}")
        }),
        ("much, often", {
            format!("{{ categories {{ {} }} }} fragment f on Category {{ {} }}", "children{...f}".repeat(2_000), "id ".repeat(10_000))
        }),
        ("much, often, unused", {
            format!(
                "{{ serverTime }} fragment g on Category {{ {} }} fragment f on Category {{ {} }}",
                "children{...f}".repeat(2_000),
                "id ".repeat(10_000)
            )
        }),
        ("the same field", format!("{{ categories {{ {} }} }}", "id ".repeat(20_000))),
        ("ten thousand aliases", format!("{{ {} }}", numbered(0..6_000, |n| format!("a{n}:x ")))),
        ("deep fields", format!("{{ categories {} }}", nested("{ children ", "{ id }", "}", 4_000))),
        ("deep inline fragments", format!("{{ categories {} }}", nested("{...", "{ id }", "}", 12_000))),
        ("deep lists", format!("{{ node(id: {}) {{ id }} }}", nested("[", "", "]", 30_000))),
        ("deep lists without an end", format!("{{ node(id: {}", "[".repeat(60_000))),
        ("deep lists beside texts that seem to end them", format!("{{ node(id: {}", "[\"]\"".repeat(10_000))),
        ("deep lists beside blocks that seem to end them", format!("{{ node(id: {}", "[\"\"\"\\\"\"\"]]\"\"\"".repeat(2_500))),
        ("deep lists beside comments that seem to end them", format!("{{ node(id: {}", "[#]\n".repeat(10_000))),
        ("deep objects", format!("{{ node(id: {}) {{ id }} }}", nested("{a:", "1", "}", 15_000))),
        ("deep types", format!("query($a: {}) {{ serverTime }}", nested("[", "Int", "]", 30_000))),
        ("deep defaults", format!("query($a: Int = {}) {{ serverTime }}", nested("[", "", "]", 30_000))),
        ("deep directives", format!("{{ serverTime @skip(if: {}) }}", nested("[", "", "]", 30_000))),
        ("braces alone", "{".repeat(60_000)),
        ("ten thousand directives", format!("{{ serverTime {} }}", "@a".repeat(10_000))),
        ("ten thousand directives that are known", format!("{{ serverTime {} }}", "@skip(if:0)".repeat(5_000))),
        ("ten thousand unknown fields", format!("{{ categories {{ {} }} }}", "x ".repeat(9_000))),
        ("ten thousand variables", format!("query({}) {{ serverTime }}", numbered(0..5_000, |n| format!("$a{n}:Int ")))),
        ("ten thousand arguments", format!("{{ node({}) {{ id }} }}", "a:1 ".repeat(10_000))),
        ("a thousand operations", numbered(0..3_000, |n| format!("query q{n}{{x}} "))),
        ("a long name", format!("{{ {} }}", "x".repeat(60_000))),
        ("a long number", format!("{{ products(first: {}) {{ totalCount }} }}", "9".repeat(60_000))),
        ("nothing but a comment", format!("#{}", "x".repeat(60_000))),
        ("a text that does not end", format!("{{ node(id: \"{}", "\\\"".repeat(14_000))),
    ];
    for (name, query) in documents {
        let body = json!({ "query": query }).to_string();
        assert!(body.len() < 64 * 1024, "{name}: {}", body.len());
        let began = Instant::now();
        let (status, answer) = post(&target.client, body).await;
        let (took, size) = (began.elapsed(), answer.to_string().len());
        assert_eq!(status, 200, "{name}");
        assert!(["TOO_COMPLEX", "BAD_REQUEST"].contains(&code(&answer)), "{name}: {answer:#}");
        assert!(took < AT_ONCE, "{name} took {took:?}");
        assert!(size < 16 * 1024, "{name}: an answer of {size} bytes");
    }
    target.finish(before, 300).await;
}

#[tokio::test]
async fn lists_of_a_hundred_cost_what_they_may_bring() {
    let test = TestApp::start().await;
    let ann = test.customer().await;
    let id = new_key();
    let catalogue = "product { category { products(first: 100) { nodes { id } } } }";
    for query in [
        format!("{{ viewer {{ cart {{ lines {{ {catalogue} }} }} }} }}"),
        format!("{{ viewer {{ cart {{ problems {{ line {{ {catalogue} }} }} }} }} }}"),
        format!("{{ order(id: \"{id}\") {{ lines {{ {catalogue} }} }} }}"),
        format!("{{ order(id: \"{id}\") {{ lines {{ flashSale {{ {catalogue} }} }} }} }}"),
    ] {
        assert_eq!(ann.error_code(&query, json!({})).await, "TOO_COMPLEX", "{query}");
    }
    let wanted =
        "{ viewer { orders(first: 100) { nodes { id number version status createdAt cancellable returnable total { amount currency }
        lines { title quantity } } pageInfo { hasNextPage endCursor } } } }";
    assert!(ann.answer(wanted, json!({})).await["errors"].is_null(), "what a page of orders shows is not dear");
    test.finish().await;
}

#[tokio::test]
async fn json_that_is_deep_large_or_ambiguous_is_refused_or_read_as_it_stands() {
    let target = Target::start(&[]).await;
    let before = target.memory("VmRSS");
    let client = &target.client;
    let with = |variables: &str| format!(r#"{{"query":"{{ __typename }}","variables":{variables}}}"#);
    let sale = "query($first: Int) { products(first: $first) { totalCount } }";
    let number = |number: &str| format!(r#"{{"query":"{sale}","variables":{{"first":{number}}}}}"#);
    let name =
        json!({ "query": "mutation($input: UpdateProfileInput!) { updateProfile(input: $input) { userErrors { code } } }" })["query"]
            .to_string();
    let input = |input: &str| format!(r#"{{"query":{name},"variables":{{"input":{input}}}}}"#);
    for (what, body) in [
        ("deep lists", with(&format!(r#"{{"a":{}{}}}"#, "[".repeat(10_000), "]".repeat(10_000)))),
        ("deep objects", with(&format!("{}1{}", r#"{"a":"#.repeat(10_000), "}".repeat(10_000)))),
        ("deep lists without an end", with(&"[".repeat(60_000))),
        ("deep extensions", format!(r#"{{"query":"{{ __typename }}","extensions":{{"a":{}{}}}}}"#, "[".repeat(10_000), "]".repeat(10_000))),
        ("a number beyond all", number("1e999")),
        ("half a surrogate pair", with(r#"{"a":"\ud800"}"#)),
        ("half a surrogate pair in the document", r#"{"query":"{ __typename }\udc00"}"#.to_owned()),
        ("two documents", r#"{"query":"{ __typename }","query":"{ serverTime }"}"#.to_owned()),
        ("two sets of variables", r#"{"query":"{ __typename }","variables":{},"variables":{"a":1}}"#.to_owned()),
        ("no number", number("NaN")),
        ("a list of variables", with("[1]")),
        ("a text of variables", with("\"x\"")),
        ("a byte order mark", format!("\u{feff}{TYPENAME}")),
        ("more behind it", format!("{TYPENAME}{TYPENAME}")),
    ] {
        let (status, answer) = post(client, body).await;
        assert_eq!((status, code(&answer)), (400, "BAD_REQUEST"), "{what}");
    }
    let (status, answer) = post(client, b"{\"query\":\"{ __typename }\xff\"}".to_vec()).await;
    assert_eq!((status, code(&answer)), (400, "BAD_REQUEST"), "no UTF-8");

    let ann = target.test.customer().await.at(client.address);
    for (what, sender, body) in [
        ("a large number", client, number("100000000000000000000000000000")),
        ("a number beyond 32 bits", client, number("2147483648")),
        ("a number below them", client, number("-99999999999")),
        ("a broken number", client, number("1.5")),
        ("a field of JavaScript's", &ann, input(r#"{"__proto__":{"name":"x"}}"#)),
        ("a constructor", &ann, input(r#"{"constructor":{"prototype":{"isAdmin":true}}}"#)),
        ("a role", &ann, input(r#"{"role":"ADMIN"}"#)),
    ] {
        let (status, answer) = post(sender, body).await;
        assert_eq!((status, code(&answer)), (200, "BAD_REQUEST"), "{what}");
    }
    for (what, body) in [
        ("a field beside the document", r#"{"query":"{ __typename }","__proto__":{"query":"x"},"admin":true}"#.to_owned()),
        ("a variable that nobody asked for", with(r#"{"__proto__":{"admin":true}}"#)),
        ("large variables", with(&format!(r#"{{"a":"{}"}}"#, "x".repeat(64 * 1024 - 100)))),
        ("many variables", with(&format!("{{{}\"z\":0}}", numbered(0..6_000, |n| format!("\"{n}\":0,"))))),
        ("a long list", with(&format!(r#"{{"a":[{}0]}}"#, "0,".repeat(30_000)))),
    ] {
        assert!(body.len() <= 64 * 1024, "{what}");
        let (status, answer) = post(client, body).await;
        assert_eq!((status, &answer["data"]), (200, &json!({ "__typename": "Query" })), "{what}");
    }
    target.finish(before, 200).await;
}

/// The paths of all texts in an input.
fn texts(value: &Value, path: String) -> Vec<String> {
    match value {
        Value::String(_) => vec![path],
        Value::Object(fields) => fields.iter().flat_map(|(name, value)| texts(value, format!("{path}/{name}"))).collect(),
        Value::Array(values) => values.iter().enumerate().flat_map(|(n, value)| texts(value, format!("{path}/{n}"))).collect(),
        _ => Vec::new(),
    }
}

#[tokio::test]
async fn no_text_of_any_input_is_more_than_a_text() {
    let test = TestApp::start().await;
    let ann = Ann::come(&test).await;
    let schema = Schema::of(&test).await;
    let staff = test.staff().await;
    let mut tried = BTreeSet::new();
    for (name, input, _) in mutations(&ann).into_iter().filter(|(name, ..)| !name.starts_with("logOut")) {
        let operation = operation(&schema, name);
        for path in texts(&input, String::new()) {
            let with = |text: &str| {
                let mut input = input.clone();
                *input.pointer_mut(&path).unwrap() = json!(text);
                json!({ "input": input })
            };
            // Of a password only the hash is kept.
            let is_kept = !path.ends_with("assword");
            for null in ["\0", "x\0", "a\0b@example.com"].into_iter().filter(|_| is_kept) {
                let before = digest(&test).await;
                let answer = staff.answer(&operation, with(null)).await;
                let outcome = outcome(&answer, name);
                let is_clear =
                    ["INVALID", "BAD_REQUEST", "NOT_FOUND", "BAD_CREDENTIALS", "TOKEN_INVALID", "nothing"].contains(&outcome.as_str());
                assert!(is_clear, "{name}{path}: {answer:#}");
                assert_eq!(digest(&test).await, before, "{name}{path}");
            }
            let long = "x".repeat(60_000);
            let right_to_left = "\u{202e}moc.elpmaxe@nna\u{202c}";
            let sql = "x'; DROP TABLE customer CASCADE; --";
            let graphql = "\"}) { __schema { types { name } } } #";
            for text in [
                "",
                &long,
                right_to_left,
                sql,
                graphql,
                "\u{7}",
                "\u{1f469}\u{200d}\u{1f4bb}",
                "${jndi:ldap://x}",
                "%s%n",
                "../../etc/passwd",
            ] {
                let answer = staff.answer(&operation, with(text)).await;
                let outcome = outcome(&answer, name);
                assert!(
                    !["INTERNAL", "UNAVAILABLE", "TIMEOUT", "UNAUTHENTICATED"].contains(&outcome.as_str()),
                    "{name}{path} {text}: {answer:#}"
                );
            }
            tried.insert(format!("{name}{path}"));
        }
    }
    assert!(tried.len() >= 60, "{tried:#?}");
    assert!(tried.contains("saveAddress/address/line2") && tried.contains("buyNow/deliveryNote"), "optional ones, too");
    test.start_jobs();
    until(async || (test.unsettled().await == 0).then_some(())).await;
    test.finish().await;
}

#[tokio::test]
async fn no_argument_of_any_query_is_more_than_a_text() {
    let test = TestApp::start().await;
    let staff = test.staff().await;
    let cursor = |text: &str| BASE64_URL_SAFE_NO_PAD.encode(text);
    let id = Uuid::nil();
    let far = [
        format!("[{},\"{id}\"]", i64::MAX),
        format!("[{},\"{id}\"]", i64::MIN),
        format!("[-8000000000000000,\"{id}\"]"),
        format!("[0,\"{id}\\u0000\"]"),
    ];
    for (field, argument, texts) in [
        ("admin { orderByNumber(number: $x) { id } }", "String!", vec!["\0", "'; DROP TABLE orders; --", "", "%", "\u{202e}"]),
        ("admin { customerByEmail(email: $x) { id } }", "String!", vec!["\0", "\0@example.com", "' OR 1=1 --@example.com", ""]),
        ("admin { customer(id: $x) { id } }", "ID!", vec!["\0", "cust_\0", ""]),
        ("admin { deadLetters(queue: $x) { nodes { id } } }", "String", vec!["\0", "payment'; --", ""]),
        ("admin { deadLetters(after: $x) { nodes { id } } }", "String", vec!["\0", ""]),
        ("admin { orders(filter: { number: $x }) { totalCount nodes { id } } }", "String", vec!["\0", "%", "_"]),
        ("admin { orders(filter: { customerId: $x }) { totalCount nodes { id } } }", "ID", vec!["\0", "%"]),
        (
            "admin { orders(filter: { minTotal: $x }) { totalCount nodes { id } } }",
            "Decimal",
            vec!["\0", "-1", "1e9", "99999999999999999999", ""],
        ),
        (
            "admin { orders(filter: { createdFrom: $x }) { totalCount nodes { id } } }",
            "DateTime",
            vec!["\0", "0000-01-01T00:00:00Z", "9999-12-31T23:59:60Z", "-9999-01-01T00:00:00Z"],
        ),
        ("viewer { orders(after: $x) { nodes { id } } }", "String", vec!["\0", ""]),
        ("products(after: $x) { nodes { id } }", "String", vec!["\0", ""]),
        ("products(after: $x, sort: TITLE) { nodes { id } }", "String", vec!["\0", ""]),
        ("products(filter: { categoryId: $x }) { nodes { id } }", "ID", vec!["\0", "' OR true --"]),
        ("products(filter: { minPrice: $x }) { nodes { id } }", "Decimal", vec!["\0", "99999999999999999999999"]),
        ("flashSales(after: $x) { nodes { id } }", "String", vec!["\0", ""]),
        ("flashSale(id: $x) { id }", "ID!", vec!["\0", "sale_\0", ""]),
        ("product(id: $x) { id }", "ID!", vec!["\0", "prod_\0", ""]),
        ("order(id: $x) { id }", "ID!", vec!["\0", "ord_\0", ""]),
        ("node(id: $x) { id }", "ID!", vec!["\0", "ord_\0", "_", ""]),
    ] {
        let query = format!("query($x: {argument}) {{ {field} }}");
        let mut values: Vec<String> = texts.iter().map(|text| (*text).to_owned()).collect();
        if field.contains("after") {
            values.extend(far.iter().map(|position| cursor(position)));
            values.push(cursor(&format!("[\"\\u0000\",\"{id}\"]")));
            values.push(cursor(&"[".repeat(10_000)));
        }
        for value in values {
            let answer = staff.answer(&query, json!({ "x": value })).await;
            let told = answer["errors"][0]["extensions"]["code"].as_str();
            assert!([None, Some("BAD_REQUEST")].contains(&told), "{field} {value:?}: {answer:#}");
        }
    }
    test.finish().await;
}

#[tokio::test]
async fn names_are_kept_as_people_write_them() {
    let test = TestApp::start().await;
    let ann = test.customer().await;
    let update = "mutation($input: UpdateProfileInput!) { updateProfile(input: $input) { customer { name } userErrors { code field } } }";
    let longest = "가".repeat(100);
    for name in [
        "\u{410}nn", // A Cyrillic letter that looks like another one.
        "\u{202e}nnA",
        "محمد بن سلمان",
        "\u{1f469}\u{200d}\u{1f469}\u{200d}\u{1f467}",
        "Robert'); DROP TABLE customer;--",
        "<script>alert(1)</script>",
        "{{7*7}} ${7*7} %d",
        "O\u{2019}Neill-Ó Súilleabháin 3rd, \"Bob\"",
        &longest,
    ] {
        let data = ann.send(update, json!({ "input": { "name": name } })).await;
        assert_eq!(data["updateProfile"], json!({ "customer": { "name": name }, "userErrors": [] }));
        let address = json!({ "recipient": name, "line1": name, "city": name, "postalCode": "1", "countryCode": "KR" });
        let saved = ann.send(SAVE, json!({ "input": { "address": address } })).await;
        assert_eq!(saved["saveAddress"]["address"]["recipient"], name);
    }
    let refused = ann.send(update, json!({ "input": { "name": "가".repeat(101) } })).await;
    assert_eq!(refused["updateProfile"]["userErrors"], json!([{ "code": "INVALID", "field": ["name"] }]));
    test.finish().await;
}
