//! Products and their listing.

use async_graphql::{Context, Enum, ID, InputObject, Object, Result, connection::Connection};
use chrono::DateTime as Timestamp;
use uuid::Uuid;

use super::{
    category::Category,
    connection::{PageArguments, PageRequest, connection, page_cost},
    context::ContextExt,
    errors::ApiError,
    flash_sale::FlashSale,
    loaders::{CurrentSaleOf, InWishlist},
    scalars::{DateTime, Decimal, Money},
};
use crate::{
    domain::{
        ids::{CategoryId, ProductId},
        money,
        page::PageTagKind,
    },
    store::{
        self, StoreError,
        product::{ProductFilter, ProductPosition, ProductSlice},
    },
};

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
#[graphql(remote = "store::product::ProductSort")]
pub enum ProductSort {
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
    /// How many there are in all. Counted when asked for: leave it out where you do not show it.
    async fn total_count(&self, ctx: &Context<'_>) -> Result<i32> {
        let mut db = ctx.app().db.acquire().await.map_err(StoreError::from)?;
        let count = store::product::count(&mut db, &self.0).await?;
        Ok(i32::try_from(count).unwrap_or(i32::MAX))
    }
}

/// A position as a cursor carries it: the sorted value, then the id.
type Cursor = (CursorValue, Uuid);

#[derive(serde::Serialize, serde::Deserialize)]
enum CursorValue {
    Created(i64),
    Price(i64),
    Title(String),
}

fn cursor(position: ProductPosition) -> Cursor {
    match position {
        ProductPosition::Created(at, id) => (CursorValue::Created(at.timestamp_micros()), id.0),
        ProductPosition::Price(minor, id) => (CursorValue::Price(minor), id.0),
        ProductPosition::Title(title, id) => (CursorValue::Title(title), id.0),
    }
}

/// `None` when the cursor belongs to another sort.
fn position(sort: ProductSort, (value, id): Cursor) -> Option<ProductPosition> {
    let id = ProductId(id);
    match (sort, value) {
        (ProductSort::Newest, CursorValue::Created(micros)) => {
            Timestamp::from_timestamp_micros(micros).map(|at| ProductPosition::Created(at, id))
        }
        (ProductSort::PriceAscending | ProductSort::PriceDescending, CursorValue::Price(minor)) => Some(ProductPosition::Price(minor, id)),
        (ProductSort::Title, CursorValue::Title(title)) => Some(ProductPosition::Title(title, id)),
        _ => None,
    }
}

/// One page of the listing.
pub async fn list(
    ctx: &Context<'_>,
    arguments: PageArguments,
    filter: ProductFilterInput,
    sort: ProductSort,
) -> Result<Connection<String, Product, ProductTotal>> {
    let request: PageRequest<Cursor> = arguments.read()?;
    let PageRequest { size, from, backwards } = request;
    let other_sort = ApiError::BadRequest("This cursor belongs to another sort.");
    let from = from.map(|cursor| position(sort, cursor).ok_or(other_sort)).transpose()?;
    let slice = ProductSlice { sort: sort.into(), from, backwards, size };
    let filter = read_filter(ctx, filter)?;

    let mut db = ctx.app().db.acquire().await.map_err(StoreError::from)?;
    let page = store::product::list(&mut db, &filter, &slice).await?;
    note_sources(ctx, &filter, &page.rows);
    let request = PageRequest { size, from: slice.from.clone(), backwards };
    Ok(connection(page, &request, ProductTotal(filter), |row| cursor(slice.sort.position(row)), Product))
}

fn note_sources(ctx: &Context<'_>, filter: &ProductFilter, rows: &[store::product::Product]) {
    let sources = ctx.sources();
    sources.read_products(filter.category);
    sources.read(PageTagKind::Product, rows.iter().map(|row| row.id.0));
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
        category,
        min_price_minor: minor(input.min_price)?,
        max_price_minor: minor(input.max_price)?,
        in_stock: input.in_stock,
        in_flash_sale: input.flash_sale,
        now: ctx.app().clock.now(),
    })
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
        #[graphql(desc = "NEWEST when left out.")] sort: Option<ProductSort>,
    ) -> Result<Option<Connection<String, Product, ProductTotal>>> {
        let arguments = PageArguments { first, after, last, before };
        list(ctx, arguments, filter.unwrap_or_default(), sort.unwrap_or(ProductSort::Newest)).await.map(Some)
    }
}
