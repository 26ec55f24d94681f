//! What the clients send, frontend-queries/, runs: every operation with its example variables, against a real server.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use serde_json::{Value, json};
use whitemonday::{
    domain::{customer::Role, ids::FlashSaleId},
    services::seed::{self, DemoAccount},
};

use crate::support::{Client, PASSWORD, TestApp, account::signed_in, new_key};

/// What a client sends with its access token; the others go without one.
const SIGNED_IN: [&str; 31] = [
    "add-to-cart",
    "add-to-wishlist",
    "all-order-updates",
    "buy-now",
    "cancel-order",
    "cart",
    "change-password",
    "check-out-cart",
    "clear-cart",
    "delete-account",
    "end-session",
    "log-out",
    "log-out-everywhere",
    "node",
    "order",
    "order-updates",
    "orders",
    "remove-address",
    "remove-from-cart",
    "remove-from-wishlist",
    "request-email-change",
    "request-return",
    "retry-payment",
    "save-address",
    "sessions",
    "set-cart-quantity",
    "set-shipping-address",
    "update-profile",
    "update-wishlist-item",
    "viewer",
    "wishlist",
];

/// There is nothing about these that a client could mend.
const ENDS_SESSIONS: [&str; 3] = ["end-session", "log-out", "log-out-everywhere"];

const PLACEHOLDERS: [&str; 19] = [
    "addressId",
    "cartLineId",
    "cartTotal",
    "categoryId",
    "deliveredOrderId",
    "email",
    "emailChangeToken",
    "failedOrderId",
    "flashSaleId",
    "knownEmail",
    "orderId",
    "password",
    "productId",
    "refreshToken",
    "resetToken",
    "sessionId",
    "uuid",
    "verificationToken",
    "wishlistItemId",
];

const KNOWN_EMAIL: &str = "minji@whitemonday.example";

#[tokio::test]
async fn every_operation_of_the_web_client_runs() {
    let used = run_all("web").await;
    assert_eq!(used, PLACEHOLDERS.map(str::to_owned).into());
}

#[tokio::test]
async fn every_operation_of_the_mobile_client_runs() {
    let used = run_all("mobile").await;
    assert!(used.iter().all(|name| PLACEHOLDERS.contains(&name.as_str())), "{used:?}");
}

#[tokio::test]
async fn every_operation_of_the_admin_client_runs() {
    let used = run_all("admin").await;
    let of_staff = ["emptyCategoryId", "ownSaleId", "stockedProductId"];
    assert!(of_staff.iter().all(|name| used.contains(*name)), "{used:?}");
}

#[test]
fn both_clients_have_the_same_operations() {
    let names = |client| operations(client).into_keys().collect::<Vec<_>>();
    assert_eq!(names("web"), names("mobile"));
}

#[test]
fn every_file_is_an_operation_of_its_name_with_a_comment_and_variables() {
    for client in ["web", "mobile", "admin"] {
        for (name, operation) in operations(client) {
            let (comment, document): (Vec<&str>, Vec<&str>) = operation.document.lines().partition(|line| line.starts_with('#'));
            assert!((1..=2).contains(&comment.len()), "{client}/{name}: a comment of one or two lines");
            let opening = format!("{} {}", operation.kind.keyword(), pascal_case(&name));
            let rest = document[0].strip_prefix(&opening).unwrap_or_else(|| panic!("{client}/{name} begins with `{opening}`"));
            assert!(rest.starts_with(['(', ' ']), "{client}/{name} begins with `{opening}`");
            assert!(serde_json::from_str::<Value>(&operation.variables).unwrap().is_object(), "{client}/{name}: variables are an object");
        }
    }
}

/// Runs a client's operations, each as a customer of its own, so that none disturbs another; staff's as staff. Tells the placeholders
/// used.
async fn run_all(client: &str) -> BTreeSet<String> {
    let test = TestApp::start_with_jobs().await;
    let known = DemoAccount { email: KNOWN_EMAIL, name: "Kim Minji", role: Role::Customer };
    seed::account(&test.app, &known, PASSWORD).await.unwrap();
    let sale = test.open_sale(100, 5).await;
    let operations = operations(client);
    let customers = test.customers(operations.len()).await;
    // Everybody has the known password.
    test.execute("UPDATE customer SET password_hash = (SELECT password_hash FROM customer ORDER BY created_at LIMIT 1)").await;
    let mut used = BTreeSet::new();
    let staff = test.staff().await;
    for ((name, operation), customer) in operations.into_iter().zip(customers) {
        let is_signed_in = client == "admin" || SIGNED_IN.contains(&name.as_str());
        let customer = if client == "admin" { staff.clone() } else { customer };
        let mut visit = Visit { test: &test, sale, customer, is_signed_in, used: &mut used };
        visit.run(&name, &operation).await;
    }
    test.finish().await;
    used
}

/// One operation being tried.
struct Visit<'a> {
    test: &'a TestApp,
    sale: FlashSaleId,
    customer: Client,
    is_signed_in: bool,
    used: &'a mut BTreeSet<String>,
}

impl Visit<'_> {
    async fn run(&mut self, name: &str, operation: &Operation) {
        let variables = self.filled(&operation.variables).await;
        let client = if self.is_signed_in { self.customer.clone() } else { self.test.anonymous() };
        let data = match operation.kind {
            Kind::Query | Kind::Mutation => client.send(&operation.document, variables).await,
            Kind::Subscription => {
                let mut socket = client.subscribe(&operation.document, variables).await;
                // What the customer then buys is what `all-order-updates` waits for.
                self.value("orderId").await;
                socket.data().await
            }
        };
        // A field that is null was refused, or its placeholder stood for nothing.
        let fields = data.as_object().unwrap();
        assert!(fields.values().all(|value| !value.is_null()), "{name}: {data:#}");
        if operation.kind == Kind::Mutation {
            let payload = fields.values().next().unwrap();
            let has_user_errors = !ENDS_SESSIONS.contains(&name);
            assert_eq!(payload.get("userErrors"), has_user_errors.then(|| json!([])).as_ref(), "{name}: {data:#}");
            assert_ne!(payload.get("done"), Some(&json!(false)), "{name}: {data:#}");
        }
        match name {
            "buy-now" => assert_eq!(data["buyNow"]["result"]["__typename"], "OrderAccepted", "{data:#}"),
            "log-in" => assert!(data["logIn"]["tokens"].is_object(), "{data:#}"),
            "browse-products" => {
                let page = &data["products"];
                let rows = page["edges"].as_array().or_else(|| page["nodes"].as_array()).unwrap();
                assert!(!rows.is_empty(), "the example's filter finds the sale's product: {data:#}");
            }
            _ => {}
        }
    }

    /// Variables with a value for each placeholder.
    async fn filled(&mut self, template: &str) -> Value {
        let (mut text, mut rest) = (String::new(), template);
        while let Some((before, after)) = rest.split_once("\"{{") {
            let (name, after) = after.split_once("}}\"").expect("a placeholder is a whole string");
            text.push_str(before);
            text.push_str(&json!(self.value(name).await).to_string());
            self.used.insert(name.to_owned());
            rest = after;
        }
        text.push_str(rest);
        serde_json::from_str(&text).unwrap()
    }

    async fn value(&self, name: &str) -> String {
        match name {
            "addressId" => self.read("{ viewer { addresses { id } } }", "/viewer/addresses/0/id").await,
            "cartLineId" => text_at(&self.filled_cart().await, "/lines/0/id"),
            "cartTotal" => text_at(&self.filled_cart().await, "/total/amount"),
            "categoryId" => self.read_of_sale("product { category { id } }", "/flashSale/product/category/id").await,
            "deliveredOrderId" => self.delivered_order().await,
            "email" => fresh_email(),
            "emailChangeToken" => {
                let email = fresh_email();
                let request = "mutation($input: RequestEmailChangeInput!) { requestEmailChange(input: $input) { accepted } }";
                self.customer.send(request, json!({ "input": { "newEmail": email, "password": PASSWORD } })).await;
                self.test.token_mailed_to(&email, 1).await
            }
            "emptyCategoryId" => {
                let save = "mutation($input: SaveCategoryInput!) { saveCategory(input: $input) { category { id } } }";
                let input = json!({ "slug": new_key(), "name": "Empty" });
                text_at(&self.customer.send(save, json!({ "input": input })).await, "/saveCategory/category/id")
            }
            "failedOrderId" => {
                let order = self.customer.must_buy(self.sale, 1, json!({ "paymentMethod": "pm_card_chargeDeclined" })).await;
                self.customer.until_order_is(&order, "PAYMENT_FAILED").await;
                order
            }
            "flashSaleId" => self.sale.to_string(),
            "knownEmail" => KNOWN_EMAIL.to_owned(),
            "orderId" => self.customer.must_buy(self.sale, 1, json!({})).await,
            "ownSaleId" => self.test.open_sale(1, 1).await.to_string(),
            "password" => PASSWORD.to_owned(),
            "productId" => self.read_of_sale("product { id }", "/flashSale/product/id").await,
            "refreshToken" => {
                let log_in = "mutation($input: LogInInput!) { logIn(input: $input) { tokens { refreshToken } } }";
                let input = json!({ "email": KNOWN_EMAIL, "password": PASSWORD });
                text_at(&self.test.anonymous().send(log_in, json!({ "input": input })).await, "/logIn/tokens/refreshToken")
            }
            "resetToken" => {
                let request = "mutation($input: RequestPasswordResetInput!) { requestPasswordReset(input: $input) { accepted } }";
                let email = self.customer.email.as_ref().unwrap();
                self.test.anonymous().send(request, json!({ "input": { "email": email } })).await;
                self.test.token_mailed_to(email, 1).await
            }
            "sessionId" => {
                signed_in(self.test, self.customer.email.as_ref().unwrap(), PASSWORD).await;
                let data = self.customer.send("{ viewer { sessions { id current } } }", json!({})).await;
                let sessions = data["viewer"]["sessions"].as_array().unwrap();
                let other = sessions.iter().find(|session| session["current"] == false).unwrap();
                other["id"].as_str().unwrap().to_owned()
            }
            "stockedProductId" => {
                let create = "mutation($input: CreateProductInput!) { createProduct(input: $input) { product { id } } }";
                let input = json!({ "title": "Vacuum", "description": "", "price": "129000", "stock": 10 });
                text_at(&self.customer.send(create, json!({ "input": input })).await, "/createProduct/product/id")
            }
            "uuid" => new_key(),
            "verificationToken" => {
                let sign_up = "mutation($input: SignUpInput!) { signUp(input: $input) { accepted } }";
                let email = fresh_email();
                let input = json!({ "email": email, "password": PASSWORD, "name": "Kim Minji" });
                self.test.anonymous().send(sign_up, json!({ "input": input })).await;
                self.test.token_mailed_to(&email, 1).await
            }
            "wishlistItemId" => {
                let add = "mutation($input: AddToWishlistInput!) { addToWishlist(input: $input) { item { id } } }";
                let product = self.test.product_of(self.sale).await.to_string();
                text_at(&self.customer.send(add, json!({ "input": { "productId": product } })).await, "/addToWishlist/item/id")
            }
            _ => panic!("{name} is not a placeholder"),
        }
    }

    /// The cart with one piece in it.
    async fn filled_cart(&self) -> Value {
        self.customer.add_to_cart(self.test.product_of(self.sale).await, 1).await
    }

    /// An order that staff have sent, and that has arrived.
    async fn delivered_order(&self) -> String {
        let order = self.customer.must_buy(self.sale, 1, json!({})).await;
        self.customer.until_order_is(&order, "PAID").await;
        let staff = self.test.staff().await;
        for (mutation, more) in [("markPreparing", ""), ("markShipped", ", trackingNumber: \"KR-1\""), ("markDelivered", "")] {
            let query = format!("mutation {{ {mutation}(input: {{ orderId: \"{order}\"{more} }}) {{ userErrors {{ code }} }} }}");
            assert_eq!(staff.send(&query, json!({})).await[mutation]["userErrors"], json!([]));
        }
        order
    }

    async fn read(&self, query: &str, pointer: &str) -> String {
        text_at(&self.customer.send(query, json!({})).await, pointer)
    }

    async fn read_of_sale(&self, fields: &str, pointer: &str) -> String {
        self.read(&format!("{{ flashSale(id: \"{}\") {{ {fields} }} }}", self.sale), pointer).await
    }
}

fn text_at(data: &Value, pointer: &str) -> String {
    data.pointer(pointer).and_then(Value::as_str).unwrap_or_else(|| panic!("{pointer} in {data:#}")).to_owned()
}

fn fresh_email() -> String {
    format!("{}@whitemonday.example", new_key())
}

struct Operation {
    kind: Kind,
    document: String,
    variables: String,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Query,
    Mutation,
    Subscription,
}

impl Kind {
    const fn keyword(self) -> &'static str {
        match self {
            Self::Query => "query",
            Self::Mutation => "mutation",
            Self::Subscription => "subscription",
        }
    }

    fn of(document: &str) -> Option<Self> {
        let opening = document.lines().find(|line| !line.starts_with('#'))?;
        [Self::Query, Self::Mutation, Self::Subscription].into_iter().find(|kind| opening.starts_with(kind.keyword()))
    }
}

/// A client's operations by name. Each has its variables, and there are no other files.
fn operations(client: &str) -> BTreeMap<String, Operation> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("frontend-queries").join(client);
    let mut files: BTreeSet<PathBuf> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    let mut operations = BTreeMap::new();
    while let Some(path) = files.iter().find(|path| path.extension().is_some_and(|extension| extension == "graphql")).cloned() {
        let document = fs::read_to_string(&path).unwrap();
        let variables_path = path.with_extension("variables.json");
        let variables = fs::read_to_string(&variables_path).unwrap_or_else(|error| panic!("{}: {error}", variables_path.display()));
        let kind = Kind::of(&document).unwrap_or_else(|| panic!("{} holds an operation", path.display()));
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        operations.insert(name, Operation { kind, document, variables });
        files.remove(&path);
        files.remove(&variables_path);
    }
    assert!(files.is_empty(), "without an operation: {files:?}");
    assert!(!operations.is_empty(), "{} has operations", folder.display());
    operations
}

fn pascal_case(name: &str) -> String {
    let capital = |word: &str| word[..1].to_uppercase() + &word[1..];
    name.split('-').map(capital).collect()
}
