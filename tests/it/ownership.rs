//! Who may see and do what: every field, mutation and subscription of the running schema, asked by a stranger, by another customer and
//! by staff with the ids of a third person's things. What is new in the schema fails here until somebody has said who may have it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use secrecy::ExposeSecret;
use serde_json::{Value, json};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use uuid::Uuid;
use whitemonday::{
    auth::Viewer,
    domain::{
        customer::Role,
        ids::{AddressId, OrderId, SessionId},
    },
    jobs,
    services::seed::{self, DemoAccount},
};

use crate::support::{Client, PASSWORD, TestApp, account::signed_in, change, customer_id, new_key, until};

const SAY_WHO: &str = "say in tests/it/ownership.rs who may do this";
const ANN: &str = "ann.the.owner@example.com";
const NAME: &str = "Ann the Owner";
const WISH: &str = "for Ann's birthday";
const NOTE: &str = "behind Ann's red door";

/// Who sees the objects of a type (whatever has an id: through `node`), and which fields these are. Of what has no id, whoever sees the
/// object that it belongs to.
const OBJECTS: &[(&str, Sees, &str)] = &[
    ("Address", Sees::Owner, "city countryCode id isDefault line1 line2 phone postalCode recipient"),
    ("AdminQuery", Sees::Staff, "audit breakers customer customerByEmail deadLetters orderByNumber orders products queues stockMovements"),
    ("AuditInvariant", Sees::Staff, "description name violations"),
    ("AuditReport", Sees::Staff, "checkedAt invariants ok"),
    ("Breaker", Sees::Staff, "failureRate name since state"),
    ("Cart", Sees::Owner, "id lines problems total totalQuantity"),
    ("CartLine", Sees::Owner, "flashSale id lineTotal product quantity unitPrice"),
    ("CartProblem", Sees::WithItsParent, "code line message"),
    ("Category", Sees::Everybody, "children id name parent products slug"),
    // `cart`, `sessions`, `wishlist`: for their owner alone, nobody else sees any.
    ("Customer", Sees::OwnerAndStaff, "addresses cart createdAt email emailVerified id locale name orders phone role sessions wishlist"),
    ("DeadLetter", Sees::Staff, "attempts deadAt enqueuedAt id kind lastError payload queue reason traceId"),
    // `viewerUnits`: the caller's own.
    (
        "FlashSale",
        Sees::Everybody,
        "closesAt discountPercent holdSeconds id opensAt perCustomerLimit phase price product remainingUnits serverTime totalUnits viewerUnits",
    ),
    ("Money", Sees::WithItsParent, "amount currency"),
    // `reviewReason`: for staff alone.
    (
        "Order",
        Sees::OwnerAndStaff,
        "cancellable createdAt customer deliveryNote history holdExpiresAt id lines number payments refunded returnable reviewReason \
         shippingAddress status total trackingNumber updatedAt version",
    ),
    ("OrderEvent", Sees::WithItsParent, "at reason reasonCode status"),
    ("OrderLine", Sees::WithItsParent, "flashSale lineTotal product quantity title unitPrice"),
    (
        "Payment",
        Sees::OwnerAndStaff,
        "amount attempts createdAt failureCode id methodLabel nextActionUrl provider providerReference refunded refunds status updatedAt",
    ),
    // `inWishlist`: the caller's own.
    (
        "Product",
        Sees::Everybody,
        "archived available category createdAt description flashSale id imageUrl images inWishlist price title updatedAt",
    ),
    ("QueueStats", Sees::Staff, "deadLetters delayed inFlight name oldestReadyAgeSeconds ready"),
    ("Refund", Sees::OwnerAndStaff, "amount createdAt id reason status"),
    ("Session", Sees::Owner, "createdAt current expiresAt id lastUsedAt userAgent"),
    ("StockMovement", Sees::Staff, "at flashSale id kind order product quantity reason"),
    ("ShippingAddress", Sees::WithItsParent, "city countryCode line1 line2 phone postalCode recipient"),
    ("WishlistItem", Sees::Owner, "addedAt id note notifyOnSale product"),
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sees {
    Everybody,
    Owner,
    OwnerAndStaff,
    Staff,
    WithItsParent,
}

impl Sees {
    /// Somebody else's object: what a stranger, another customer and staff get.
    const fn of_others(self) -> [&'static str; 3] {
        match self {
            Self::Everybody => ["seen"; 3],
            Self::Owner => ["null"; 3],
            Self::OwnerAndStaff | Self::Staff => ["null", "null", "seen"],
            Self::WithItsParent => panic!("it has no id"),
        }
    }
}

/// The fields of `Query`, with Ann's ids.
fn queries(ann: &Ann) -> Vec<(&'static str, Value, [&'static str; 3])> {
    vec![
        ("admin", json!({}), ["UNAUTHENTICATED", "FORBIDDEN", "seen"]),
        ("categories", json!({}), ["seen"; 3]),
        ("flashSale", json!({ "id": ann.sale }), ["seen"; 3]),
        ("flashSales", json!({}), ["seen"; 3]),
        // By type in OBJECTS.
        ("node", json!({ "id": ann.order }), ["null", "null", "seen"]),
        ("order", json!({ "id": ann.order }), ["null", "null", "seen"]),
        ("product", json!({ "id": ann.product }), ["seen"; 3]),
        ("products", json!({}), ["seen"; 3]),
        ("serverTime", json!({}), ["seen"; 3]),
        ("viewer", json!({}), ["null", "seen", "seen"]),
    ]
}

/// The mutations with Ann's ids, as a stranger, another customer and staff call them. `done` of what names no id of hers concerns the
/// caller's own things; what has no effect for want of a password or a token says so. In this order staff can do what they may.
pub fn mutations(ann: &Ann) -> Vec<(&'static str, Value, [&'static str; 3])> {
    let (order, parcel, address, letter) = (&ann.order, &ann.parcel, &ann.address, &ann.dead_letter);
    let key = new_key;
    let own = |outcome| ["UNAUTHENTICATED", outcome, outcome];
    let not_theirs = own("NOT_FOUND");
    let owner_or_staff = ["UNAUTHENTICATED", "NOT_FOUND", "done"];
    let staff_alone = |outcome| ["UNAUTHENTICATED", "FORBIDDEN", outcome];
    let home = json!({ "recipient": "x", "line1": "x", "city": "x", "line2": "x", "postalCode": "1", "countryCode": "KR", "phone": "010-1234-5678" });
    let buy =
        json!({ "flashSaleId": ann.sale, "quantity": 1, "paymentMethod": "pm_card_visa", "deliveryNote": "x", "idempotencyKey": key() });
    let mut buy_to_ann = buy.clone();
    buy_to_ann["addressId"] = json!(address);
    buy_to_ann["idempotencyKey"] = json!(key());
    vec![
        // Whoever is there.
        ("signUp", json!({ "email": ANN, "password": "another password", "name": "Mallory", "phone": "010-1234-5678" }), ["done"; 3]),
        ("logIn", json!({ "email": ANN, "password": "not her password" }), ["BAD_CREDENTIALS"; 3]),
        ("requestPasswordReset", json!({ "email": ANN }), ["done"; 3]),
        ("resendVerificationEmail", json!({ "email": ANN }), ["done"; 3]),
        // Whoever has the token.
        ("verifyEmail", json!({ "token": "x" }), ["TOKEN_INVALID"; 3]),
        ("resetPassword", json!({ "token": "x", "newPassword": "another password" }), ["TOKEN_INVALID"; 3]),
        ("confirmEmailChange", json!({ "token": "x" }), ["TOKEN_INVALID"; 3]),
        ("refreshSession", json!({ "refreshToken": "x" }), ["TOKEN_INVALID"; 3]),
        // Customers, their own account.
        ("changePassword", json!({ "currentPassword": "not the password", "newPassword": "another password" }), own("BAD_CREDENTIALS")),
        ("deleteAccount", json!({ "password": PASSWORD }), own("BAD_CREDENTIALS")),
        ("requestEmailChange", json!({ "newEmail": "b@example.com", "password": PASSWORD }), own("BAD_CREDENTIALS")),
        ("updateProfile", json!({ "name": "Mallory", "phone": "010-1234-5678" }), own("done")),
        ("logOut", Value::Null, own("done")),
        ("logOutEverywhere", Value::Null, own("done")),
        ("endSession", json!({ "sessionId": ann.session }), own("nothing")),
        ("saveAddress", json!({ "id": address, "address": home }), not_theirs),
        ("saveAddress", json!({ "address": home }), own("done")),
        ("removeAddress", json!({ "id": address }), not_theirs),
        // Customers, their own cart and wishlist.
        ("addToCart", json!({ "productId": ann.product, "quantity": 1 }), own("done")),
        ("setCartQuantity", json!({ "lineId": ann.cart_line, "quantity": 1 }), not_theirs),
        ("removeFromCart", json!({ "lineId": ann.cart_line }), not_theirs),
        ("checkOutCart", json!({ "addressId": address, "paymentMethod": "pm_card_visa", "idempotencyKey": key() }), not_theirs),
        (
            "checkOutCart",
            json!({ "paymentMethod": "pm_card_visa", "deliveryNote": "x", "expectedTotal": "1", "idempotencyKey": key() }),
            own("CART_EMPTY"),
        ),
        ("clearCart", Value::Null, own("done")),
        ("addToWishlist", json!({ "productId": ann.product, "note": "x" }), own("done")),
        ("updateWishlistItem", json!({ "id": ann.wish, "note": "x" }), not_theirs),
        ("removeFromWishlist", json!({ "id": ann.wish }), not_theirs),
        // Customers, their own orders.
        ("buyNow", buy_to_ann, not_theirs),
        ("buyNow", buy, own("done")),
        ("retryPayment", json!({ "orderId": order, "paymentMethod": "pm_card_visa", "idempotencyKey": key() }), not_theirs),
        ("requestReturn", json!({ "orderId": order, "reason": "x", "idempotencyKey": key() }), not_theirs),
        // Customers their own orders, staff every order.
        ("setShippingAddress", json!({ "orderId": order, "addressId": address, "deliveryNote": "x" }), owner_or_staff),
        ("cancelOrder", json!({ "orderId": order, "reason": "x", "idempotencyKey": key() }), owner_or_staff),
        // Staff.
        ("refundOrder", json!({ "orderId": parcel, "reason": "x", "amount": "1", "idempotencyKey": key() }), staff_alone("done")),
        ("markPreparing", json!({ "orderId": parcel }), staff_alone("done")),
        ("markShipped", json!({ "orderId": parcel, "trackingNumber": "x" }), staff_alone("done")),
        ("markDelivered", json!({ "orderId": parcel }), staff_alone("done")),
        ("rejectReturn", json!({ "orderId": parcel, "reason": "x" }), staff_alone("WRONG_STATE")),
        ("approveReturn", json!({ "orderId": parcel, "restock": true }), staff_alone("WRONG_STATE")),
        (
            "resolveReview",
            json!({ "orderId": parcel, "resolution": "RESUME", "note": "x", "idempotencyKey": key() }),
            staff_alone("WRONG_STATE"),
        ),
        ("saveCategory", json!({ "slug": "new", "name": "x" }), staff_alone("done")),
        ("saveCategory", json!({ "id": ann.category, "slug": "renamed", "name": "x", "parentId": null }), staff_alone("done")),
        ("removeCategory", json!({ "id": ann.category }), staff_alone("WRONG_STATE")),
        (
            "createProduct",
            json!({ "title": "x", "description": "x", "price": "1", "stock": 1, "idempotencyKey": key() }),
            staff_alone("done"),
        ),
        ("updateProduct", json!({ "id": ann.product, "title": "x" }), staff_alone("done")),
        (
            "adjustStock",
            json!({ "productId": ann.product, "delta": 1, "expectedAvailable": 0, "reason": "x", "idempotencyKey": key() }),
            staff_alone("done"),
        ),
        (
            "scheduleFlashSale",
            json!({ "productId": ann.product, "price": "1", "units": 1, "perCustomerLimit": 1, "idempotencyKey": key(),
                    "opensAt": "2100-01-01T00:00:00Z", "closesAt": "2100-01-02T00:00:00Z" }),
            staff_alone("done"),
        ),
        ("replayDeadLetters", json!({ "ids": [letter] }), staff_alone("done")),
        ("discardDeadLetters", json!({ "ids": [letter] }), staff_alone("nothing")),
        // Last: nothing is bought in it any more.
        ("cancelFlashSale", json!({ "id": ann.sale, "reason": "x" }), staff_alone("done")),
    ]
}

/// A customer, and the ids of her things.
pub struct Ann {
    pub client: Client,
    id: String,
    address: String,
    session: String,
    /// Paid; a part of the money went back.
    order: String,
    /// Paid.
    parcel: String,
    order_number: String,
    payment: String,
    refund: String,
    dead_letter: String,
    cart: String,
    cart_line: String,
    wish: String,
    sale: String,
    product: String,
    category: String,
    movement: String,
}

impl Ann {
    pub async fn come(test: &TestApp) -> Self {
        seed::account(&test.app, &DemoAccount { email: ANN, name: NAME, role: Role::Customer }, PASSWORD).await.unwrap();
        let client = signed_in(test, ANN, PASSWORD).await;
        let sale = test.open_sale(20, 5).await;
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        jobs::start_workers(&test.app, &tasks, &stop);
        let order = client.must_buy(sale, 1, json!({ "deliveryNote": NOTE })).await;
        let parcel = client.must_buy(sale, 1, json!({})).await;
        for order in [&order, &parcel] {
            client.until_order_is(order, "PAID").await;
        }
        let refund = json!({ "orderId": order, "amount": "1", "reason": "a scratch", "idempotencyKey": new_key() });
        change(&test.staff().await, "refundOrder", refund).await;
        until(async || (test.unsettled().await == 0).then_some(())).await;
        // From now on nothing changes but by what is asked.
        stop.cancel();
        tasks.close();
        tasks.wait().await;
        let letter = Uuid::now_v7();
        let bury = "INSERT INTO dead_letter (id, queue, message_id, kind, payload, reason, attempts, enqueued_at, dead_at)
                    SELECT $1, 'payment', 4711, 'pay', jsonb_build_object('kind', 'pay', 'id', id), 'x', 1, now(), now() FROM orders LIMIT 1";
        sqlx::query(bury).bind(letter).execute(&*test.app.db).await.unwrap();

        let product = test.product_of(sale).await;
        client.add_to_cart(product, 1).await;
        let wish = "mutation($input: AddToWishlistInput!) { addToWishlist(input: $input) { item { id } } }";
        client.send(wish, json!({ "input": { "productId": product.to_string(), "note": WISH } })).await;
        let movement: Uuid =
            sqlx::query_scalar("SELECT id FROM stock_movement WHERE kind = 'SOLD' LIMIT 1").fetch_one(&*test.app.db).await.unwrap();
        let query = "query($id: ID!) {
            viewer { id addresses { id } sessions { id } cart { id lines { id } } wishlist { nodes { id } } }
            order(id: $id) { number payments { id refunds { id } } lines { product { id category { id } } } } }";
        let data = client.send(query, json!({ "id": order })).await;
        let at = |path: &str| data.pointer(path).and_then(Value::as_str).unwrap_or_else(|| panic!("{path}: {data:#}")).to_owned();
        Self {
            client,
            id: at("/viewer/id"),
            address: at("/viewer/addresses/0/id"),
            session: at("/viewer/sessions/0/id"),
            payment: at("/order/payments/0/id"),
            refund: at("/order/payments/0/refunds/0/id"),
            order_number: at("/order/number"),
            dead_letter: format!("dead_{}", letter.simple()),
            cart: at("/viewer/cart/id"),
            cart_line: at("/viewer/cart/lines/0/id"),
            wish: at("/viewer/wishlist/nodes/0/id"),
            movement: format!("move_{}", movement.simple()),
            sale: sale.to_string(),
            product: at("/order/lines/0/product/id"),
            category: at("/order/lines/0/product/category/id"),
            order,
            parcel,
        }
    }

    /// An object of each type that has an id.
    pub fn nodes(&self) -> BTreeMap<&'static str, &str> {
        BTreeMap::from([
            ("Address", self.address.as_str()),
            ("Cart", &self.cart),
            ("CartLine", &self.cart_line),
            ("Category", &self.category),
            ("Customer", &self.id),
            ("DeadLetter", &self.dead_letter),
            ("FlashSale", &self.sale),
            ("Order", &self.order),
            ("Payment", &self.payment),
            ("Product", &self.product),
            ("Refund", &self.refund),
            ("Session", &self.session),
            ("WishlistItem", &self.wish),
            ("StockMovement", &self.movement),
        ])
    }

    /// What no other customer may ever read.
    fn secrets(&self) -> [&str; 14] {
        let Self { id, address, session, order, parcel, order_number, payment, refund, cart, cart_line, wish, .. } = self;
        [id, address, session, order, parcel, order_number, payment, refund, cart, cart_line, wish, ANN, NOTE, WISH]
    }
}

/// The schema as the server tells it: the fields of each type.
pub struct Schema {
    types: BTreeMap<String, Value>,
}

impl Schema {
    pub async fn of(test: &TestApp) -> Self {
        let query = "{ __schema { types { kind name possibleTypes { name }
            fields { name args { type { ofType { name } } }
                     type { kind name ofType { kind name ofType { kind name ofType { kind name } } } } } } } }";
        let mut data = test.anonymous().send(query, json!({})).await;
        let Value::Array(types) = data["__schema"]["types"].take() else { panic!("{data:#}") };
        Self { types: types.into_iter().map(|kind| (kind["name"].as_str().unwrap().to_owned(), kind)).collect() }
    }

    pub fn fields(&self, name: &str) -> impl Iterator<Item = (&str, &Value)> {
        self.types[name]["fields"].as_array().into_iter().flatten().map(|field| (field["name"].as_str().unwrap(), field))
    }

    pub fn names(&self, name: &str) -> BTreeSet<&str> {
        self.fields(name).map(|(field, _)| field).collect()
    }

    /// The objects that a field may answer.
    pub fn objects<'a>(&'a self, field: &'a Value) -> Vec<&'a str> {
        let mut kind = &field["type"];
        while kind["name"].is_null() {
            kind = &kind["ofType"];
        }
        let name = kind["name"].as_str().unwrap();
        match kind["kind"].as_str().unwrap() {
            "OBJECT" => vec![name],
            "INTERFACE" | "UNION" => possible(&self.types[name]),
            _ => Vec::new(),
        }
    }

    /// Each object that is found from these fields of `Query`, with the selections that lead to it, the first and shortest way.
    pub fn paths<'a>(&'a self, roots: &[&str]) -> BTreeMap<&'a str, Vec<String>> {
        let mut paths = BTreeMap::new();
        let mut queue: VecDeque<(&str, Vec<String>)> = VecDeque::from([("Query", Vec::new())]);
        while let Some((object, path)) = queue.pop_front() {
            for (name, field) in self.fields(object).filter(|(name, _)| object != "Query" || roots.contains(name)) {
                for next in self.objects(field).into_iter().filter(|next| *next != "Query") {
                    let mut longer = path.clone();
                    longer.push(name.to_owned());
                    if !paths.contains_key(next) {
                        paths.insert(next, longer.clone());
                        queue.push_back((next, longer));
                    }
                }
            }
        }
        paths
    }

    /// Fields without fields of their own.
    pub fn leaves(&self, object: &str) -> String {
        self.fields(object).filter(|(_, field)| self.objects(field).is_empty()).map(|(name, _)| name).collect::<Vec<_>>().join(" ")
    }
}

fn possible(kind: &Value) -> Vec<&str> {
    kind["possibleTypes"].as_array().unwrap().iter().map(|kind| kind["name"].as_str().unwrap()).collect()
}

/// Everything in the database. Sessions, too: nobody logs in between two readings.
pub async fn digest(test: &TestApp) -> BTreeMap<String, String> {
    let tables = "SELECT format('%I.%I', schemaname, tablename) FROM pg_tables WHERE schemaname IN ('public', 'pgmq') ORDER BY 1";
    let tables: Vec<String> = sqlx::query_scalar(tables).fetch_all(&*test.app.for_jobs().db).await.unwrap();
    assert!(tables.len() > 20);
    // Who asks for units and gets none leaves a row that was locked meanwhile.
    let rows = |table: &str| match table {
        "public.purchase_quota" => "purchase_quota t WHERE held > 0".to_owned(),
        _ => format!("{table} t"),
    };
    let digest = "coalesce(md5(string_agg(t::text, E'\\n' ORDER BY t::text)), '')";
    let each = |table: &String| format!("SELECT '{table}', {digest} FROM {}", rows(table));
    let sql = tables.iter().map(each).collect::<Vec<_>>().join(" UNION ALL ");
    sqlx::query_as(&sql).fetch_all(&*test.app.for_jobs().db).await.unwrap().into_iter().collect()
}

/// The rows of one customer, with their orders'. Mails to her and their links are not: anybody may ask for those.
async fn digest_of(test: &TestApp, customer: &str) -> Vec<(String, Option<String>)> {
    let own = "SELECT 'customer', md5(string_agg(t::text, '' ORDER BY t::text)) FROM customer t WHERE id = $1
        UNION ALL SELECT 'session', md5(string_agg(t::text, '' ORDER BY t::text)) FROM session t WHERE customer_id = $1
        UNION ALL SELECT 'address', md5(string_agg(t::text, '' ORDER BY t::text)) FROM address t WHERE customer_id = $1
        UNION ALL SELECT 'cart', md5(string_agg(t::text, '' ORDER BY t::text)) FROM cart_line t WHERE customer_id = $1
        UNION ALL SELECT 'wishlist', md5(string_agg(t::text, '' ORDER BY t::text)) FROM wishlist_item t WHERE customer_id = $1
        UNION ALL SELECT 'key', md5(string_agg(t::text, '' ORDER BY t::text)) FROM idempotency_key t WHERE customer_id = $1
        UNION ALL SELECT 'quota', md5(string_agg(t::text, '' ORDER BY t::text)) FROM purchase_quota t WHERE customer_id = $1
        UNION ALL SELECT 'orders', md5(string_agg(t::text, '' ORDER BY t::text)) FROM orders t WHERE customer_id = $1
        UNION ALL SELECT 'event', md5(string_agg(t::text, '' ORDER BY t::text)) FROM order_event t JOIN orders o ON o.id = t.order_id WHERE customer_id = $1
        UNION ALL SELECT 'payment', md5(string_agg(t::text, '' ORDER BY t::text)) FROM payment t JOIN orders o ON o.id = t.order_id WHERE customer_id = $1
        UNION ALL SELECT 'refund', md5(string_agg(t::text, '' ORDER BY t::text)) FROM refund t JOIN orders o ON o.id = t.order_id WHERE customer_id = $1
        UNION ALL SELECT 'unit', md5(string_agg(t::text, '' ORDER BY t::text)) FROM stock_unit t JOIN orders o ON o.id = t.order_id WHERE customer_id = $1";
    let id = customer_id(&json!(customer));
    let rows: Vec<(String, Option<String>)> = sqlx::query_as(own).bind(id.0).fetch_all(&*test.app.for_jobs().db).await.unwrap();
    assert!(rows.iter().filter(|(_, digest)| digest.is_some()).count() >= 11, "{rows:?}");
    rows
}

/// The error's code, the user error's, or in a word what came.
pub fn outcome(answer: &Value, field: &str) -> String {
    if let Some(code) = answer["errors"][0]["extensions"]["code"].as_str() {
        return code.to_owned();
    }
    let value = &answer["data"][field];
    if let Some(code) = value["userErrors"][0]["code"].as_str() {
        return code.to_owned();
    }
    let has_no_effect = value["done"] == false || value["count"] == 0;
    if has_no_effect { "nothing" } else { "done" }.to_owned()
}

fn seen(answer: &Value, field: &str) -> String {
    if let Some(code) = answer["errors"][0]["extensions"]["code"].as_str() {
        return code.to_owned();
    }
    if answer["data"][field].is_null() { "null" } else { "seen" }.to_owned()
}

/// The operation of a mutation with whatever of its payload tells how it went.
pub fn operation(schema: &Schema, name: &str) -> String {
    let (_, field) = schema.fields("Mutation").find(|(field, _)| *field == name).unwrap();
    let payload = schema.objects(field)[0];
    let told = schema.names(payload).into_iter().filter_map(|field| match field {
        "userErrors" => Some("userErrors { code message field }"),
        "done" | "count" | "accepted" => Some(field),
        _ => None,
    });
    let told = told.collect::<Vec<_>>().join(" ");
    let Some(input) = field["args"][0]["type"]["ofType"]["name"].as_str() else { return format!("mutation {{ {name} {{ {told} }} }}") };
    format!("mutation($input: {input}!) {{ {name}(input: $input) {{ {told} }} }}")
}

/// The same input with each of Ann's ids replaced by what is no id of anything, an id of nothing, or an id of another type.
fn with_other_ids(input: &Value, ann: &Ann) -> Vec<Value> {
    let unknown = |id: &str| format!("{}_{}", id.split_once('_').unwrap().0, Uuid::now_v7().simple());
    let foreign = |id: &str| {
        let kind = if id.starts_with("ord_") { AddressId::new().to_string() } else { OrderId::new().to_string() };
        format!("{}_{}", kind.split_once('_').unwrap().0, id.split_once('_').unwrap().1)
    };
    let long = |_: &str| "x".repeat(10_000);
    let ways: [&dyn Fn(&str) -> String; 6] =
        [&|_| String::new(), &|_| "nonsense".to_owned(), &|id| format!("{id}\0"), &unknown, &foreign, &long];
    let mut others = Vec::new();
    for way in ways {
        let text = [&ann.address, &ann.session, &ann.order, &ann.parcel, &ann.dead_letter, &ann.cart, &ann.cart_line, &ann.wish]
            .into_iter()
            .fold(input.to_string(), |text, id| text.replace(&json!(id).to_string(), &json!(way(id)).to_string()));
        let changed: Value = serde_json::from_str(&text).unwrap();
        if changed != *input {
            others.push(changed);
        }
    }
    others
}

pub fn without_request_id(mut answer: Value) -> Value {
    for error in answer["errors"].as_array_mut().into_iter().flatten() {
        error["extensions"]["requestId"] = Value::Null;
    }
    answer
}

#[tokio::test]
async fn every_mutation_leaves_what_is_not_the_callers_alone() {
    let test = TestApp::start().await;
    let ann = Ann::come(&test).await;
    let schema = Schema::of(&test).await;
    let table = mutations(&ann);
    let known: BTreeSet<_> = table.iter().map(|(name, ..)| *name).collect();
    assert_eq!(schema.names("Mutation"), known, "{SAY_WHO}");

    for (name, input, expected) in table {
        let operation = operation(&schema, name);
        let variables = |input: &Value| if input.is_null() { json!({}) } else { json!({ "input": input }) };
        for (number, caller) in [test.anonymous(), test.customer().await, test.staff().await].into_iter().enumerate() {
            let is_staff = number == 2;
            let (before, hers) = (digest(&test).await, digest_of(&test, &ann.id).await);
            let answer = caller.answer(&operation, variables(&input)).await;
            assert_eq!(outcome(&answer, name), expected[number], "{name} by caller {number}: {answer:#}");
            if expected[number] != "done" {
                assert_eq!(digest(&test).await, before, "{name} was refused and changed something");
            }
            if is_staff {
                continue;
            }
            assert_eq!(digest_of(&test, &ann.id).await, hers, "{name} changed what is Ann's");
            let refused = without_request_id(answer);
            for other in with_other_ids(&input, &ann) {
                let answer = caller.answer(&operation, variables(&other)).await;
                assert_eq!(without_request_id(answer), refused, "{name}: what is not there and what is not yours are the same: {other}");
            }
        }
    }

    // One's own order never goes to somebody else's address.
    let bob = test.customer().await;
    let sale = test.open_sale(1, 1).await;
    let order = bob.must_buy(sale, 1, json!({})).await;
    let before = digest(&test).await;
    let payload = change(&bob, "setShippingAddress", json!({ "orderId": order, "addressId": ann.address })).await;
    assert_eq!(payload["userErrors"], json!([{ "code": "NOT_FOUND", "field": ["addressId"] }]));
    assert_eq!(digest(&test).await, before);

    test.start_jobs();
    until(async || (test.unsettled().await == 0).then_some(())).await;
    test.finish().await;
}

#[tokio::test]
async fn every_object_is_seen_by_those_who_may_and_by_nobody_else() {
    let test = TestApp::start().await;
    let ann = Ann::come(&test).await;
    test.execute("UPDATE orders SET review_reason = 'a reason of ours'").await;
    let schema = Schema::of(&test).await;
    let callers = [test.anonymous(), test.customer().await, test.staff().await];
    let before = digest(&test).await;

    let table = queries(&ann);
    let known: BTreeSet<_> = table.iter().map(|(name, ..)| *name).collect();
    assert_eq!(schema.names("Query"), known, "{SAY_WHO}");
    for (name, variables, expected) in &table {
        let query = match *name {
            "serverTime" => "{ serverTime }".to_owned(),
            name if variables["id"].is_null() => format!("{{ {name} {{ __typename }} }}"),
            name => format!("query($id: ID!) {{ {name}(id: $id) {{ __typename }} }}"),
        };
        for (caller, expected) in callers.iter().zip(expected) {
            let answer = caller.answer(&query, variables.clone()).await;
            assert_eq!(seen(&answer, name), *expected, "{name}: {answer:#}");
        }
    }

    let roots: Vec<_> = known.into_iter().collect();
    let found: BTreeSet<_> = schema.paths(&roots).into_keys().filter(|name| !is_of_a_page(name)).collect();
    assert_eq!(found, OBJECTS.iter().map(|(name, ..)| *name).collect(), "{SAY_WHO}");
    for (object, _, fields) in OBJECTS {
        assert_eq!(schema.names(object), fields.split_whitespace().collect(), "{object}: {SAY_WHO}");
    }

    let nodes = ann.nodes();
    assert_eq!(possible(&schema.types["Node"]).into_iter().collect::<BTreeSet<_>>(), nodes.keys().copied().collect(), "{SAY_WHO}");
    let node = "query($id: ID!) { node(id: $id) { __typename id } }";
    for (object, sees, _) in OBJECTS.iter().filter(|(object, ..)| nodes.contains_key(object)) {
        let id = nodes[object];
        for (caller, expected) in callers.iter().zip(sees.of_others()) {
            let answer = caller.answer(node, json!({ "id": id })).await;
            assert_eq!(seen(&answer, "node"), expected, "{object}: {answer:#}");
            for other in with_other_ids(&json!({ "id": id }), &ann) {
                assert_eq!(seen(&caller.answer(node, other).await, "node"), "null");
            }
        }
        let own = ann.client.send(node, json!({ "id": id })).await;
        assert_eq!(own["node"].is_null(), *sees == Sees::Staff, "{object}");
    }
    assert_eq!(digest(&test).await, before, "who reads changes nothing");
    test.finish().await;
}

fn is_of_a_page(object: &str) -> bool {
    object == "PageInfo" || object.ends_with("Connection") || object.ends_with("Edge")
}

#[tokio::test]
async fn nothing_of_others_is_found_from_where_everybody_may_begin() {
    let test = TestApp::start().await;
    let ann = Ann::come(&test).await;
    let schema = Schema::of(&test).await;
    let bob = test.customer().await;
    let roots = ["categories", "flashSale", "flashSales", "order", "product", "products", "viewer"];
    let paths = schema.paths(&roots);
    assert!(paths.len() >= 15, "{paths:?}");
    for (object, path) in &paths {
        let leaves = format!("__typename {}", schema.leaves(object));
        let wrapped =
            |begin: &str, fields: String| path[1..].iter().rev().fold(fields, |inner, field| format!("{field} {{ {inner} }}")) + begin;
        let root = match path[0].as_str() {
            "flashSale" => format!("flashSale(id: \"{}\")", ann.sale),
            "product" => format!("product(id: \"{}\")", ann.product),
            "order" => format!("order(id: \"{}\")", ann.order),
            other => other.to_owned(),
        };
        let query = format!("{{ {root} {{ {} }} }}", wrapped("", leaves));
        for caller in [&test.anonymous(), &bob] {
            let answer = caller.answer(&query, json!({})).await;
            assert!(answer["errors"].is_null(), "{query}: {answer:#}");
            let body = answer.to_string();
            for secret in ann.secrets() {
                assert!(!body.contains(secret), "{object} by {query}: {secret}");
            }
        }
    }

    // Filters and cursors of one's own list lead to nobody else's orders.
    let list =
        "query($filter: OrderFilter, $after: String) { viewer { orders(filter: $filter, after: $after) { totalCount nodes { id } } } }";
    let hers = ann.client.send("{ viewer { orders(first: 1) { pageInfo { endCursor } } } }", json!({})).await;
    let cursor = hers["viewer"]["orders"]["pageInfo"]["endCursor"].clone();
    assert!(cursor.is_string());
    for variables in
        [json!({ "filter": { "customerId": ann.id } }), json!({ "filter": { "number": ann.order_number } }), json!({ "after": cursor })]
    {
        let data = bob.send(list, variables).await;
        assert_eq!(data["viewer"]["orders"], json!({ "totalCount": 0, "nodes": [] }));
    }
    let units = "query($id: ID!) { flashSale(id: $id) { viewerUnits } }";
    for (caller, count) in [(&ann.client, json!(2)), (&bob, json!(0)), (&test.anonymous(), json!(null))] {
        assert_eq!(caller.send(units, json!({ "id": ann.sale })).await["flashSale"]["viewerUnits"], count);
    }
    test.finish().await;
}

#[tokio::test]
async fn what_is_for_staff_is_for_staff_alone_and_sessions_and_reasons_have_rules_of_their_own() {
    let test = TestApp::start().await;
    let ann = Ann::come(&test).await;
    test.execute("UPDATE orders SET review_reason = 'a reason of ours'").await;
    let schema = Schema::of(&test).await;
    let (bob, staff, admin) = (test.customer().await, test.staff().await, with_role(&test, Role::Admin).await);
    for (field, asked) in [
        ("audit", "audit { ok }".to_owned()),
        ("breakers", "breakers { name }".to_owned()),
        ("customer", format!("customer(id: \"{}\") {{ id }}", ann.id)),
        ("customerByEmail", format!("customerByEmail(email: \"{ANN}\") {{ id }}")),
        ("deadLetters", "deadLetters { nodes { id } }".to_owned()),
        ("orderByNumber", format!("orderByNumber(number: \"{}\") {{ id }}", ann.order_number)),
        ("products", "products { nodes { id } }".to_owned()),
        ("stockMovements", "stockMovements { nodes { id } }".to_owned()),
        ("orders", format!("orders(filter: {{ customerId: \"{}\" }}) {{ nodes {{ id }} }}", ann.id)),
        ("queues", "queues { name }".to_owned()),
    ] {
        assert!(schema.names("AdminQuery").contains(field));
        let query = format!("{{ admin {{ {asked} }} }}");
        // An audit alone costs more than a stranger may spend.
        let refused = if field == "audit" { "TOO_COMPLEX" } else { "UNAUTHENTICATED" };
        assert_eq!(test.anonymous().error_code(&query, json!({})).await, refused, "{field}");
        for customer in [&bob, &ann.client] {
            assert_eq!(customer.error_code(&query, json!({})).await, "FORBIDDEN", "{field}");
        }
        for allowed in [&staff, &admin] {
            assert!(!allowed.send(&query, json!({})).await["admin"][field].is_null(), "{field}");
        }
    }

    let query = "query($order: ID!, $customer: ID!) {
        order(id: $order) { reviewReason customer { email sessions { id } addresses { id } } }
        node(id: $customer) { ... on Customer { name sessions { id } } } }";
    let variables = json!({ "order": ann.order, "customer": ann.id });
    let own = ann.client.send(query, variables.clone()).await;
    assert_eq!(own["order"]["reviewReason"], json!(null), "for staff");
    assert_eq!(own["order"]["customer"]["sessions"].as_array().unwrap().len(), 2);
    let theirs = staff.send(query, variables.clone()).await;
    assert_eq!(theirs["order"]["reviewReason"], "a reason of ours");
    assert_eq!(theirs["order"]["customer"], json!({ "email": ANN, "sessions": [], "addresses": [{ "id": ann.address }] }));
    assert_eq!(theirs["node"], json!({ "name": NAME, "sessions": [] }));
    for stranger in [&bob, &test.anonymous()] {
        assert_eq!(stranger.send(query, variables.clone()).await, json!({ "order": null, "node": null }));
    }
    test.finish().await;
}

async fn with_role(test: &TestApp, role: Role) -> Client {
    let client = test.customer().await;
    let viewer = Viewer { customer: customer_id(&json!(client.customer_id)), session: SessionId::new(), role };
    let (token, _) = test.app.access_tokens.sign(viewer, test.app.clock.now()).unwrap();
    client.with_token(token.expose_secret())
}

#[tokio::test]
async fn every_subscription_tells_only_what_the_caller_may_see() {
    let test = TestApp::start().await;
    let ann = Ann::come(&test).await;
    let schema = Schema::of(&test).await;
    assert_eq!(schema.names("Subscription"), BTreeSet::from(["flashSaleUpdates", "orderUpdates"]), "{SAY_WHO}");
    let (bob, staff) = (test.customer().await, test.staff().await);
    let sale = whitemonday::domain::ids::FlashSaleId::parse(&ann.sale).unwrap();
    let bobs = bob.must_buy(sale, 1, json!({})).await;

    let sale_updates = "subscription($id: ID!) { flashSaleUpdates(flashSaleId: $id) { id viewerUnits } }";
    for caller in [&test.anonymous(), &bob, &staff] {
        assert_eq!(caller.subscribe(sale_updates, json!({ "id": ann.sale })).await.data().await["flashSaleUpdates"]["id"], ann.sale);
    }

    let one = "subscription($id: ID) { orderUpdates(orderId: $id) { id } }";
    for id in [Some(&ann.order), None] {
        let told = test.anonymous().subscribe(one, json!({ "id": id })).await.next().await;
        assert!(told["payload"].to_string().contains("UNAUTHENTICATED"), "{told:#}");
    }
    let unknown = OrderId::new().to_string();
    for id in [ann.order.as_str(), &unknown, "nonsense", &ann.address, ""] {
        assert_eq!(bob.subscribe(one, json!({ "id": id })).await.next().await["type"], "complete", "{id}");
    }
    assert_eq!(staff.subscribe(one, json!({ "id": ann.order })).await.data().await["orderUpdates"]["id"], ann.order);
    // All of one's own: the oldest would come first, and Ann's are older.
    assert_eq!(bob.subscribe(one, json!({})).await.data().await["orderUpdates"]["id"], bobs);
    test.start_jobs();
    until(async || (test.unsettled().await == 0).then_some(())).await;
    test.finish().await;
}
