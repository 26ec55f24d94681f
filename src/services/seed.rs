//! Sample data: a catalogue in Korean and English, customers with tokens, sales. The same numbers give the same catalogue.

mod catalogue;

use chrono::{DateTime, TimeDelta, Utc};
use secrecy::{ExposeSecret, SecretString};
use uuid::Uuid;
use zeroize::Zeroizing;

use super::{
    ServiceError,
    flash_sale::{self, Schedule, Scheduled},
    purchase::{self, Bought, BuyNow},
    session::SESSION_LIFETIME,
};
use crate::{
    app::App,
    auth::Viewer,
    domain::{
        address::PostalAddress,
        customer::{EmailAddress, Locale, Role, normalise_password},
        flash_sale::FlashSalePhase,
        ids::{AddressId, CategoryId, CustomerId, FlashSaleId, ProductId, SessionId},
        money::Money,
    },
    sealing::SealedColumn,
    store::{
        self, StoreError,
        address::NewAddress,
        category::Category,
        customer::NewCustomer,
        product::{Product, ProductFilter, ProductSlice, ProductSort},
        purchase::PurchaseOutcome,
        seed::{SampleCustomer, SampleProduct},
    },
};

const ROWS_PER_STATEMENT: usize = 1_000;

/// Fills the catalogue up to `wanted` products; `progress` is called with how many there are.
pub async fn catalogue(app: &App, wanted: usize, progress: impl Fn(usize)) -> Result<(), ServiceError> {
    let now = app.clock.now();
    let mut db = app.db.acquire().await?;
    let mut categories = Vec::new();
    for branch in catalogue::BRANCHES {
        let root = insert_category(&mut db, None, branch.slug, branch.name, now).await?;
        for leaf in branch.leaves {
            categories.push(insert_category(&mut db, Some(root), leaf.slug, leaf.name, now).await?);
        }
    }
    let existing = usize::try_from(store::seed::count_products(&mut db).await?).unwrap_or_default();
    for start in (existing..wanted).step_by(ROWS_PER_STATEMENT) {
        let numbers = start..(start + ROWS_PER_STATEMENT).min(wanted);
        let end = numbers.end;
        let products: Vec<SampleProduct> =
            numbers.map(|number| catalogue::product(number, &categories, now, app.config.currency)).collect();
        store::seed::insert_products(&mut db, &products, app.config.currency).await?;
        progress(end);
    }
    Ok(())
}

async fn insert_category(
    db: &mut sqlx::PgConnection,
    parent_id: Option<CategoryId>,
    slug: &str,
    name: &str,
    now: DateTime<Utc>,
) -> Result<CategoryId, StoreError> {
    let category = Category { id: CategoryId::new(), parent_id, slug: slug.to_owned(), name: name.to_owned() };
    store::category::insert_if_new(db, &category, now).await
}

/// A customer who can buy at once.
pub struct SeededCustomer {
    pub id: CustomerId,
    pub email: String,
    pub access_token: SecretString,
}

/// Makes verified, signed-in customers with a default address. They share one password hash, of a password that nobody
/// knows: a hundred thousand hashes would take half an hour. `each` gets every batch.
pub async fn customers(app: &App, wanted: usize, mut each: impl FnMut(Vec<SeededCustomer>)) -> Result<(), ServiceError> {
    let password_hash = app.passwords.hash(Zeroizing::new(Uuid::new_v4().to_string())).await?;
    let run = Uuid::now_v7().simple().to_string();
    for start in (0..wanted).step_by(ROWS_PER_STATEMENT) {
        let now = app.clock.now();
        let (mut rows, mut made) = (Vec::new(), Vec::new());
        for number in start..(start + ROWS_PER_STATEMENT).min(wanted) {
            let email = format!("buyer-{number}.{run}@whitemonday.example");
            let (row, customer) = sample_customer(app, email, &format!("Buyer {number}"), password_hash.clone())?;
            rows.push(row);
            made.push(customer);
        }
        store::seed::insert_customers(&mut *app.db.acquire().await?, &rows, now + SESSION_LIFETIME, now).await?;
        each(made);
    }
    Ok(())
}

fn sample_customer(app: &App, email: String, name: &str, password_hash: String) -> Result<(SampleCustomer, SeededCustomer), ServiceError> {
    let (id, address_id, session) = (CustomerId::new(), AddressId::new(), SessionId::new());
    let normal = EmailAddress::parse(&email).ok_or(StoreError::Missing("sample address that is valid"))?;
    let address = serde_json::to_string(&PostalAddress {
        recipient: name.to_owned(),
        line1: "세종대로 110".to_owned(),
        line2: None,
        city: "서울특별시".to_owned(),
        postal_code: "04524".to_owned(),
        country_code: "KR".to_owned(),
        phone: Some("02-120-0000".to_owned()),
    })?;
    let customer = NewCustomer {
        id,
        email_sealed: app.sealing.seal(SealedColumn::CustomerEmail, id.0, normal.as_str())?,
        email_index: app.sealing.email_index(&normal),
        name_sealed: app.sealing.seal(SealedColumn::CustomerName, id.0, name)?,
        phone_sealed: None,
        password_hash,
        role: Role::Customer,
        locale: Locale::En,
    };
    let address = NewAddress {
        id: address_id,
        customer: id,
        replaces: None,
        content_sealed: app.sealing.seal(SealedColumn::AddressContent, address_id.0, &address)?,
        is_default: true,
    };
    let viewer = Viewer { customer: id, session, role: Role::Customer };
    let (access_token, _) = app.access_tokens.sign(viewer, app.clock.now())?;
    let refresh_hash = app.refresh_tokens.issue(session, 0).hash();
    let row = SampleCustomer { customer, address, session: session.0, refresh_hash };
    Ok((row, SeededCustomer { id, email, access_token }))
}

/// A sale of a product of its own, open now or after `opens_in`, closing a day later.
pub async fn sale(app: &App, units: i32, per_customer_limit: i32, opens_in: TimeDelta) -> Result<FlashSaleId, ServiceError> {
    let now = app.clock.now();
    let product = SampleProduct { available: units, ..catalogue::sale_product(now, units, app.config.currency) };
    let mut db = app.db.acquire().await?;
    let branch = &catalogue::BRANCHES[0];
    let root = insert_category(&mut db, None, branch.slug, branch.name, now).await?;
    let id = product.id;
    let price = Money::new(product.price_minor / 2, app.config.currency);
    store::seed::insert_products(&mut db, &[SampleProduct { category: root, ..product }], app.config.currency).await?;
    drop(db);
    schedule(app, id, price, units, per_customer_limit, opens_in).await
}

async fn schedule(
    app: &App,
    product: ProductId,
    price: Money,
    units: i32,
    per_customer_limit: i32,
    opens_in: TimeDelta,
) -> Result<FlashSaleId, ServiceError> {
    let opens_at = app.clock.now() + opens_in;
    let schedule = Schedule {
        product,
        price,
        opens_at,
        closes_at: opens_at + TimeDelta::days(1),
        units,
        per_customer_limit,
        hold: TimeDelta::minutes(5),
    };
    match flash_sale::schedule(app, &schedule, None).await? {
        Scheduled::Done(id) => {
            flash_sale::make_units(app, id).await?;
            Ok(id)
        }
        refused => {
            tracing::error!(?refused, "a sample sale was refused");
            Err(StoreError::Missing("sample sale").into())
        }
    }
}

/// An account that demo prints.
pub struct DemoAccount<'a> {
    pub email: &'a str,
    pub name: &'a str,
    pub role: Role,
}

/// Makes a verified account with this password, or leaves the one that is there.
pub async fn account(app: &App, account: &DemoAccount<'_>, password: &str) -> Result<(), ServiceError> {
    let normal = EmailAddress::parse(account.email).ok_or(StoreError::Missing("sample address that is valid"))?;
    let mut db = app.db.acquire().await?;
    if store::customer::find_by_email_index(&mut db, &app.sealing.email_index(&normal)).await?.is_some() {
        return Ok(());
    }
    let password = normalise_password(password).ok_or(StoreError::Missing("sample password that is valid"))?;
    let hash = app.passwords.hash(Zeroizing::new(password)).await?;
    let (mut row, _) = sample_customer(app, account.email.to_owned(), account.name, hash)?;
    row.customer.role = account.role;
    let now = app.clock.now();
    let id = row.customer.id;
    store::seed::insert_customers(&mut db, &[row], now + SESSION_LIFETIME, now).await?;
    store::customer::update_role(&mut db, id, account.role, now).await?;
    Ok(())
}

/// Sees to it that there is a sale that is open, one that opens in a minute, and one that is sold out. The last one is
/// really bought, by sample customers.
pub async fn demo_sales(app: &App) -> Result<(), ServiceError> {
    let now = app.clock.now();
    let mut db = app.db.acquire().await?;
    let mut is_there = async |phases: &[FlashSalePhase]| Ok::<_, StoreError>(store::flash_sale::count(&mut db, phases, now).await? > 0);
    let has_open = is_there(&[FlashSalePhase::Open]).await?;
    let has_scheduled = is_there(&[FlashSalePhase::Scheduled]).await?;
    let has_sold_out = is_there(&[FlashSalePhase::SoldOut, FlashSalePhase::SoldOutHoldsPending]).await?;
    drop(db);
    if !has_open {
        demo_sale(app, 50, 2, TimeDelta::zero()).await?;
    }
    if !has_scheduled {
        demo_sale(app, 100, 1, TimeDelta::minutes(1)).await?;
    }
    if !has_sold_out {
        let sale = demo_sale(app, 2, 1, TimeDelta::zero()).await?;
        let mut buyers = Vec::new();
        customers(app, 2, |made| buyers.extend(made)).await?;
        for buyer in buyers {
            buy_one(app, buyer.id, sale).await?;
        }
    }
    Ok(())
}

/// A sale at half price of the newest product that has enough in stock and no sale.
async fn demo_sale(app: &App, units: i32, limit: i32, opens_in: TimeDelta) -> Result<FlashSaleId, ServiceError> {
    let now = app.clock.now();
    let filter = ProductFilter { in_stock: Some(true), in_flash_sale: Some(false), now, ..ProductFilter::default() };
    let slice = ProductSlice { sort: ProductSort::Newest, from: None, backwards: false, size: 100 };
    let mut db = app.db.acquire().await?;
    let page = store::product::list(&mut db, &filter, &slice).await?;
    let ids: Vec<ProductId> = page.rows.iter().map(|product| product.id).collect();
    let taken = store::flash_sale::list_current_for_products(&mut db, &ids, now).await?;
    drop(db);
    let is_free = |product: &Product| product.available >= units && taken.iter().all(|sale| sale.product_id != product.id);
    let product = page.rows.into_iter().find(is_free).ok_or(StoreError::Missing("sample product with enough in stock"))?;
    schedule(app, product.id, Money::new(product.price_minor / 2, product.currency), units, limit, opens_in).await
}

async fn buy_one(app: &App, customer: CustomerId, sale: FlashSaleId) -> Result<(), ServiceError> {
    let wanted = BuyNow {
        sale,
        quantity: 1,
        payment_method: "pm_card_visa".to_owned(),
        address: None,
        delivery_note: None,
        idempotency_key: Uuid::new_v4(),
    };
    match purchase::buy_now(app, customer, wanted).await? {
        Bought::Outcome(PurchaseOutcome::Accepted { .. }) => Ok(()),
        refused => {
            tracing::error!(?refused, "a sample purchase was refused");
            Err(StoreError::Missing("sample purchase").into())
        }
    }
}

/// The line of a file of seeded customers.
#[must_use]
pub fn json_line(customer: &SeededCustomer) -> String {
    serde_json::json!({
        "customerId": customer.id.to_string(),
        "email": customer.email,
        "accessToken": customer.access_token.expose_secret(),
    })
    .to_string()
}
