//! Products and their listing.

use async_graphql::{Context, Enum, ID, InputObject, MaybeUndefined, Object, Result, SimpleObject, connection::Connection};
use chrono::DateTime as Timestamp;
use sqlx::PgConnection;
use uuid::Uuid;

use super::{
    category::Category,
    connection::{PageArguments, PageRequest, connection, page_cost},
    context::ContextExt,
    errors::{ApiError, UserError, UserErrorCode},
    flash_sale::FlashSale,
    loaders::{CurrentSaleOf, InWishlist},
    scalars::{CurrencyCode, DateTime, Decimal, Money},
};
use crate::{
    domain::{
        ids::{CategoryId, ProductId},
        money,
        page::PageTagKind,
    },
    services::{
        idempotency::ClientKey,
        product::{self, CategoryChange, CreateProduct, SavedProduct, UpdateProduct},
    },
    store::{
        self, StoreError,
        product::{
            Archived, ProductFilter, ProductPosition, ProductSlice, ProductSort as Order,
            search::{Found, FoundSlice},
        },
    },
};

/// Of a search's text; more than any title that somebody pastes.
const SEARCHED_CHARACTERS: usize = 200;

pub struct Product(pub store::product::Product);

/// Something that is sold.
#[Object]
impl Product {
    pub(super) async fn id(&self) -> ID {
        self.0.id.to_string().into()
    }

    async fn title(&self) -> &str {
        &self.0.title
    }

    async fn description(&self) -> &str {
        &self.0.description
    }

    async fn category(&self, ctx: &Context<'_>) -> Result<Option<Category>> {
        match self.0.category_id {
            Some(id) => Ok(ctx.loader().load_one(id).await?.map(Category)),
            None => Ok(None),
        }
    }

    /// The first of `images`.
    async fn image_url(&self) -> Option<&str> {
        self.0.images.first().map(String::as_str)
    }

    async fn images(&self) -> &[String] {
        &self.0.images
    }

    /// The ordinary price; a flash sale has its own.
    async fn price(&self) -> Money {
        self.0.price().into()
    }

    /// No longer sold; orders still show it.
    async fn archived(&self) -> bool {
        self.0.archived_at.is_some()
    }

    /// Units that can be bought now outside a flash sale.
    async fn available(&self) -> i32 {
        self.0.available
    }

    /// The sale that is open now, or else the next one scheduled.
    async fn flash_sale(&self, ctx: &Context<'_>) -> Result<Option<FlashSale>> {
        Ok(ctx.loader().load_one(CurrentSaleOf(self.0.id)).await?.map(FlashSale))
    }

    /// Whether it is on the signed-in customer's wishlist; null when nobody is signed in.
    async fn in_wishlist(&self, ctx: &Context<'_>) -> Result<Option<bool>> {
        match ctx.viewer() {
            Some(viewer) => Ok(Some(ctx.loader().load_one(InWishlist(viewer.customer, self.0.id)).await?.is_some())),
            None => Ok(None),
        }
    }

    async fn created_at(&self) -> DateTime {
        self.0.created_at.into()
    }

    async fn updated_at(&self) -> DateTime {
        self.0.updated_at.into()
    }
}

/// What the listing is narrowed to; everything that is given must hold.
#[derive(InputObject, Clone, Default)]
#[graphql(name = "ProductFilter")]
pub struct ProductFilterInput {
    /// Words that must be in title or description, in any order; an empty text is no search. Korean is found within words: 무선 finds
    /// 초경량무선청소기. A word of Latin letters that no title has finds words that differ by a letter or two. There are no operators, and
    /// what follows the first 200 characters is not looked at.
    pub search: Option<String>,
    /// The category or any below it.
    pub category_id: Option<ID>,
    /// At least this ordinary price, in the shop's currency.
    pub min_price: Option<Decimal>,
    /// At most this ordinary price, in the shop's currency.
    pub max_price: Option<Decimal>,
    /// Only what can (or cannot) be bought outside a flash sale.
    pub in_stock: Option<bool>,
    /// Only what is (or is not) in a flash sale now.
    pub flash_sale: Option<bool>,
}

/// The order of a listing; equal products follow their ids.
#[derive(Enum, Clone, Copy, PartialEq, Eq)]
pub enum ProductSort {
    /// What answers the search best comes first: its words are words of the title, then parts of them, then stand in the description,
    /// then are misspelt; among these, short titles first. Of what a very common word finds, some two thousand are listed. Without a
    /// search the same as NEWEST.
    Relevance,
    Newest,
    #[graphql(name = "PRICE_ASC")]
    PriceAscending,
    #[graphql(name = "PRICE_DESC")]
    PriceDescending,
    Title,
}

/// Counts the whole listing, only when it is asked for.
pub struct ProductTotal(ProductFilter);

#[Object]
impl ProductTotal {
    /// How many there are in all, with a search up to 2,000. Counted when asked for: leave it out where you do not show it.
    async fn total_count(&self, ctx: &Context<'_>) -> Result<i32> {
        let mut db = ctx.app().db.acquire().await.map_err(StoreError::from)?;
        let count = store::product::count(&mut db, &self.0).await?;
        Ok(i32::try_from(count).unwrap_or(i32::MAX))
    }
}

/// A position as a cursor carries it: the sorted value, then the id.
type Cursor = (CursorValue, Uuid);

#[derive(Clone, serde::Serialize, serde::Deserialize)]
enum CursorValue {
    Created(i64),
    Price(i64),
    Title(String),
    Rank(i32),
}

fn cursor(position: ProductPosition) -> Cursor {
    match position {
        ProductPosition::Created(at, id) => (CursorValue::Created(at.timestamp_micros()), id.0),
        ProductPosition::Price(minor, id) => (CursorValue::Price(minor), id.0),
        ProductPosition::Title(title, id) => (CursorValue::Title(title), id.0),
    }
}

/// `None` when the cursor belongs to another sort.
fn position(order: Order, (value, id): Cursor) -> Option<ProductPosition> {
    let id = ProductId(id);
    match (order, value) {
        (Order::Newest, CursorValue::Created(micros)) => {
            Timestamp::from_timestamp_micros(micros).map(|at| ProductPosition::Created(at, id))
        }
        (Order::PriceAscending | Order::PriceDescending, CursorValue::Price(minor)) => Some(ProductPosition::Price(minor, id)),
        (Order::Title, CursorValue::Title(title)) => Some(ProductPosition::Title(title, id)),
        _ => None,
    }
}

/// One page of the listing.
pub async fn list(
    ctx: &Context<'_>,
    arguments: PageArguments,
    filter: ProductFilterInput,
    archived: Archived,
    sort: ProductSort,
) -> Result<Connection<String, Product, ProductTotal>> {
    let request: PageRequest<Cursor> = arguments.read()?;
    let filter = ProductFilter { archived, ..read_filter(ctx, filter)? };
    let mut db = ctx.app().db.acquire().await.map_err(StoreError::from)?;
    let order = match (sort, &filter.search) {
        (ProductSort::Relevance, Some(search)) => return list_found(ctx, &mut db, &request, search, &filter).await,
        (ProductSort::Relevance, None) | (ProductSort::Newest, _) => Order::Newest,
        (ProductSort::PriceAscending, _) => Order::PriceAscending,
        (ProductSort::PriceDescending, _) => Order::PriceDescending,
        (ProductSort::Title, _) => Order::Title,
    };
    let from = request.read_from(|cursor| position(order, cursor))?;
    let slice = ProductSlice { sort: order, from, backwards: request.backwards, size: request.size };
    let page = store::product::list(&mut db, &filter, &slice).await?;
    note_sources(ctx, &filter, page.rows.iter());
    Ok(connection(page, &request, ProductTotal(filter), |row| cursor(order.position(row)), Product))
}

async fn list_found(
    ctx: &Context<'_>,
    db: &mut PgConnection,
    request: &PageRequest<Cursor>,
    search: &str,
    filter: &ProductFilter,
) -> Result<Connection<String, Product, ProductTotal>> {
    let from = request.read_from(|(value, id)| match value {
        CursorValue::Rank(rank) => Some((rank, ProductId(id))),
        _ => None,
    })?;
    let slice = FoundSlice { from, backwards: request.backwards, size: request.size };
    let page = store::product::search::list(db, search, filter, &slice).await?;
    note_sources(ctx, filter, page.rows.iter().map(|row| &row.product));
    let cursor = |row: &Found| (CursorValue::Rank(row.rank), row.product.id.0);
    Ok(connection(page, request, ProductTotal(filter.clone()), cursor, |row| Product(row.product)))
}

fn note_sources<'a>(ctx: &Context<'_>, filter: &ProductFilter, rows: impl Iterator<Item = &'a store::product::Product>) {
    let sources = ctx.sources();
    sources.read_products(filter.category);
    sources.read(PageTagKind::Product, rows.map(|row| row.id.0));
    if filter.in_stock.is_some() || filter.in_flash_sale.is_some() {
        sources.depend_on_the_moment();
    }
}

fn read_filter(ctx: &Context<'_>, input: ProductFilterInput) -> Result<ProductFilter> {
    let currency = ctx.app().config.currency;
    let minor = |amount: Option<Decimal>| -> Result<Option<i64>> {
        let parse = |amount: Decimal| {
            money::Money::parse(&amount.0, currency)
                .map_err(|_| ApiError::BadRequest("A price is an exact decimal of the shop's currency."))
        };
        Ok(amount.map(parse).transpose()?.map(|money| money.minor))
    };
    // An id that cannot exist is a category without products.
    let category = input.category_id.map(|id| CategoryId::parse(&id).unwrap_or(CategoryId(Uuid::nil())));
    Ok(ProductFilter {
        search: input.search.as_deref().and_then(searched),
        archived: Archived::default(),
        category,
        min_price_minor: minor(input.min_price)?,
        max_price_minor: minor(input.max_price)?,
        in_stock: input.in_stock,
        in_flash_sale: input.flash_sale,
        now: ctx.app().clock.now(),
    })
}

/// What is searched for; `None` when that is nothing.
fn searched(text: &str) -> Option<String> {
    // The database holds no null, which is no part of a word either.
    let text: String = text.trim().chars().take(SEARCHED_CHARACTERS).map(|c| if c == '\0' { ' ' } else { c }).collect();
    (!text.is_empty()).then_some(text)
}

/// The product of a global id.
pub async fn find(ctx: &Context<'_>, id: &str) -> Result<Option<Product>> {
    match ProductId::parse(id) {
        Some(id) => Ok(ctx.loader().load_one(id).await?.map(Product)),
        None => Ok(None),
    }
}

#[derive(Default)]
pub struct ProductQuery;

#[Object]
impl ProductQuery {
    /// A product by its id, archived ones too.
    async fn product(&self, ctx: &Context<'_>, id: ID) -> Result<Option<Product>> {
        find(ctx, &id).await
    }

    /// The catalogue without archived products, page by page, forwards with `first` and `after` or backwards with `last`
    /// and `before`. Pages stay complete and without doubles while products are added.
    #[allow(clippy::too_many_arguments, reason = "the API's arguments")]
    #[graphql(complexity = "page_cost(first.or(last), child_complexity)")]
    async fn products(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "1 to 100; 20 when left out.")] first: Option<i32>,
        after: Option<String>,
        last: Option<i32>,
        before: Option<String>,
        filter: Option<ProductFilterInput>,
        #[graphql(desc = "RELEVANCE when left out.")] sort: Option<ProductSort>,
    ) -> Result<Option<Connection<String, Product, ProductTotal>>> {
        let arguments = PageArguments { first, after, last, before };
        list(ctx, arguments, filter.unwrap_or_default(), Archived::Never, sort.unwrap_or(ProductSort::Relevance)).await.map(Some)
    }
}

#[derive(InputObject)]
pub struct CreateProductInput {
    /// One line of 1 to 255 characters.
    title: String,
    /// At most 20,000 characters, of any number of lines.
    description: String,
    /// More than nothing.
    price: Decimal,
    /// The shop's; any other one is INVALID.
    currency: Option<CurrencyCode>,
    category_id: Option<ID>,
    /// Becomes the first of `images`.
    image_url: Option<String>,
    /// At most 20 https URLs of at most 2,048 bytes each, the first one being shown in lists.
    images: Option<Vec<String>>,
    /// The first stock, 0 to 100,000,000.
    stock: i32,
    /// Made by the client: the same request under the same key answers the same product, for 7 days.
    idempotency_key: Option<Uuid>,
}

/// What is left out stays as it is.
#[derive(InputObject)]
pub struct UpdateProductInput {
    id: ID,
    /// One line of 1 to 255 characters.
    title: Option<String>,
    /// At most 20,000 characters, of any number of lines.
    description: Option<String>,
    /// In the shop's currency. Sales and orders keep their own.
    price: Option<Decimal>,
    /// Null takes the product out of its category.
    category_id: MaybeUndefined<ID>,
    /// Becomes the first of `images`, or of those that are there.
    image_url: Option<String>,
    /// All images, instead of those that are there; null is none.
    images: MaybeUndefined<Vec<String>>,
    /// True takes the product out of the catalogue, false puts it back. `WRONG_STATE` while a sale of it is on or scheduled.
    archived: Option<bool>,
}

#[derive(SimpleObject)]
pub struct ProductPayload {
    product: Option<Product>,
    user_errors: Vec<UserError>,
}

impl From<UserError> for ProductPayload {
    fn from(error: UserError) -> Self {
        Self { product: None, user_errors: vec![error] }
    }
}

impl ProductPayload {
    /// The product as it is now.
    pub async fn of(ctx: &Context<'_>, id: ProductId) -> Result<Self> {
        Ok(Self { product: ctx.loader().load_one(id).await?.map(Product), user_errors: Vec::new() })
    }
}

#[derive(Default)]
pub struct ProductMutation;

#[Object]
impl ProductMutation {
    /// For staff: a new product.
    async fn create_product(&self, ctx: &Context<'_>, input: CreateProductInput) -> Result<ProductPayload> {
        let customer = ctx.staff()?.customer;
        let currency = input.currency.map_or(ctx.app().config.currency, |currency| currency.0);
        let price = match read_price(&input.price, currency) {
            Ok(price) => price,
            Err(error) => return Ok(error.into()),
        };
        let category = input.category_id.map(|id| CategoryId::parse(&id));
        if category == Some(None) {
            return payload(ctx, SavedProduct::NoSuchCategory).await;
        }
        let wanted = CreateProduct {
            title: input.title,
            description: input.description,
            price,
            category: category.flatten(),
            image_url: input.image_url,
            images: input.images.unwrap_or_default(),
            stock: input.stock,
        };
        let key = input.idempotency_key.map(|key| ClientKey { customer, key });
        payload(ctx, product::create(ctx.app(), wanted, key).await?).await
    }

    /// For staff: changes a product, or takes it out of the catalogue.
    async fn update_product(&self, ctx: &Context<'_>, input: UpdateProductInput) -> Result<ProductPayload> {
        ctx.staff()?;
        let Some(id) = ProductId::parse(&input.id) else { return payload(ctx, SavedProduct::NoSuchProduct).await };
        let price = match input.price.map(|price| read_price(&price, ctx.app().config.currency)).transpose() {
            Ok(price) => price,
            Err(error) => return Ok(error.into()),
        };
        let category = match input.category_id {
            MaybeUndefined::Undefined => CategoryChange::Keep,
            MaybeUndefined::Null => CategoryChange::Remove,
            MaybeUndefined::Value(id) => match CategoryId::parse(&id) {
                Some(id) => CategoryChange::Set(id),
                None => return payload(ctx, SavedProduct::NoSuchCategory).await,
            },
        };
        let images = match input.images {
            MaybeUndefined::Undefined => None,
            MaybeUndefined::Null => Some(Vec::new()),
            MaybeUndefined::Value(images) => Some(images),
        };
        let UpdateProductInput { title, description, image_url, archived, .. } = input;
        let wanted = UpdateProduct { title, description, price, category, image_url, images, archived };
        payload(ctx, product::update(ctx.app(), id, wanted).await?).await
    }
}

/// The amount of a field `price`.
pub fn read_price(amount: &Decimal, currency: money::Currency) -> Result<money::Money, UserError> {
    money::Money::parse(&amount.0, currency).map_err(|error| UserError::new(UserErrorCode::Invalid, &["price"], error.to_string()))
}

async fn payload(ctx: &Context<'_>, saved: SavedProduct) -> Result<ProductPayload> {
    let (code, field, message) = match saved {
        SavedProduct::Saved(id) => return ProductPayload::of(ctx, id).await,
        SavedProduct::Invalid(invalid) => return Ok(UserError::from(invalid).into()),
        SavedProduct::NoSuchProduct => (UserErrorCode::NotFound, "id", "No such product."),
        SavedProduct::NoSuchCategory => (UserErrorCode::NotFound, "categoryId", "No such category."),
        SavedProduct::HasSale => (UserErrorCode::WrongState, "archived", "A sale of it is on or scheduled: cancel that first."),
        SavedProduct::KeyReused => {
            (UserErrorCode::IdempotencyKeyReused, "idempotencyKey", "This key was used for another product: make a new one.")
        }
    };
    Ok(UserError::new(code, &[field], message).into())
}
