//! Products and their listing; `search.rs` is the listing by relevance.

pub mod search;

use chrono::{DateTime, Utc};
use sqlx::{FromRow, PgConnection, Postgres, QueryBuilder};

use super::{Page, StoreError, expect_one};
use crate::domain::{
    ids::{CategoryId, ProductId},
    money::{Currency, Money},
};

#[derive(Clone, Debug, FromRow)]
pub struct Product {
    pub id: ProductId,
    pub category_id: Option<CategoryId>,
    pub title: String,
    pub description: String,
    pub images: Vec<String>,
    pub price_minor: i64,
    pub currency: Currency,
    pub available: i32,
    pub archived_at: Option<DateTime<Utc>>,
    pub created_at: DateTime<Utc>,
    pub updated_at: DateTime<Utc>,
}

impl Product {
    #[must_use]
    pub const fn price(&self) -> Money {
        Money::new(self.price_minor, self.currency)
    }
}

/// What a listing shows; no archived products unless it says so.
#[derive(Clone, Debug, Default)]
pub struct ProductFilter {
    /// Words that must be found.
    pub search: Option<String>,
    pub archived: Archived,
    pub category: Option<CategoryId>,
    pub min_price_minor: Option<i64>,
    pub max_price_minor: Option<i64>,
    pub in_stock: Option<bool>,
    /// With (or without) a sale that is open at `now`.
    pub in_flash_sale: Option<bool>,
    pub now: DateTime<Utc>,
}

impl ProductFilter {
    /// The category that drives the statement: it is read category by category. Where there is a search, or only open sales are wanted,
    /// these find fewer products, and the category is a condition like others.
    fn driving_category(&self) -> Option<CategoryId> {
        self.category.filter(|_| self.search.is_none() && self.in_flash_sale != Some(true))
    }
}

/// Which side of the archive a listing shows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Archived {
    #[default]
    Never,
    Only,
    Too,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProductSort {
    Newest,
    PriceAscending,
    PriceDescending,
    Title,
}

/// A product's place in a sort order: the sorted value and, for ties, the id.
#[derive(Clone, Debug)]
pub enum ProductPosition {
    Created(DateTime<Utc>, ProductId),
    Price(i64, ProductId),
    Title(String, ProductId),
}

impl ProductSort {
    /// The product's place in this order.
    #[must_use]
    pub fn position(self, product: &Product) -> ProductPosition {
        match self {
            Self::Newest => ProductPosition::Created(product.created_at, product.id),
            Self::PriceAscending | Self::PriceDescending => ProductPosition::Price(product.price_minor, product.id),
            Self::Title => ProductPosition::Title(product.title.clone(), product.id),
        }
    }

    const fn column(self) -> &'static str {
        match self {
            Self::Newest => "p.created_at",
            Self::PriceAscending | Self::PriceDescending => "p.price_minor",
            Self::Title => "p.title",
        }
    }

    const fn is_descending(self) -> bool {
        matches!(self, Self::Newest | Self::PriceDescending)
    }
}

/// Which rows of a listing: so many after (or, backwards, before) a position.
#[derive(Clone, Debug)]
pub struct ProductSlice {
    pub sort: ProductSort,
    pub from: Option<ProductPosition>,
    pub backwards: bool,
    pub size: usize,
}

const COLUMNS: &str = "p.id, p.category_id, p.title, p.description, p.images, p.price_minor, p.currency, p.available, p.archived_at, p.created_at, p.updated_at";

/// One page of the listing, in the order of the sort also when read backwards. Stays complete and without doubles while
/// rows are inserted, because it continues from a position and not from a row number.
pub async fn list(db: &mut PgConnection, filter: &ProductFilter, slice: &ProductSlice) -> Result<Page<Product>, StoreError> {
    let wanted = i64::try_from(slice.size).unwrap_or(i64::MAX).saturating_add(1);
    let descending = slice.sort.is_descending() != slice.backwards;
    let (comparison, direction) = if descending { ("<", " DESC") } else { (">", "") };
    let push_order = |query: &mut QueryBuilder<'_, Postgres>, of: &str| {
        query.push(format_args!(" ORDER BY {of}.place{direction}, {of}.id{direction} LIMIT ")).push_bind(wanted);
    };
    let driving = filter.driving_category();

    let mut query = QueryBuilder::new("SELECT ");
    query.push(COLUMNS).push(" FROM ");
    if let Some(category) = driving {
        // A page of each category of the tree from the index that has it in this order, and of them the first: the planner would walk
        // the whole shop's order instead, which is long where few products are of the category.
        query.push("(SELECT found.id, found.place FROM ");
        push_tree(&mut query, category);
        query.push(" tree CROSS JOIN LATERAL (SELECT p.id, p.place FROM ");
    }
    query.push("(SELECT ").push(COLUMNS).push(", ").push(slice.sort.column()).push(" AS place FROM product p WHERE ");
    push_filter(&mut query, filter, driving.is_some());
    if let Some(search) = &filter.search {
        search::push_search(&mut query, search);
        // Keeps the sort's index out: walking through it until enough is found takes long for words that few products have.
        query.push(" OFFSET 0");
    }
    query.push(") p");
    if let Some(position) = &slice.from {
        query.push(" WHERE (p.place, p.id) ").push(comparison).push(" (");
        match position {
            ProductPosition::Created(at, id) => query.push_bind(*at).push(", ").push_bind(*id),
            ProductPosition::Price(minor, id) => query.push_bind(*minor).push(", ").push_bind(*id),
            ProductPosition::Title(title, id) => query.push_bind(title.clone()).push(", ").push_bind(*id),
        };
        query.push(")");
    }
    push_order(&mut query, "p");
    if driving.is_some() {
        query.push(") found");
        push_order(&mut query, "found");
        query.push(") page JOIN product p ON p.id = page.id");
        push_order(&mut query, "page");
    }
    let rows = query.build_query_as::<Product>().fetch_all(db).await?;
    let mut page = Page::from_surplus(rows, slice.size);
    if slice.backwards {
        page.rows.reverse();
    }
    Ok(page)
}

/// How many products the listing has in all; a search counts no further than [`search::MOST_FOUND`].
pub async fn count(db: &mut PgConnection, filter: &ProductFilter) -> Result<i64, StoreError> {
    let mut query = QueryBuilder::new("SELECT count(*) FROM (SELECT FROM ");
    let driving = filter.driving_category();
    if let Some(category) = driving {
        push_tree(&mut query, category);
        query.push(" tree, ");
    }
    query.push("product p WHERE ");
    push_filter(&mut query, filter, driving.is_some());
    if let Some(search) = &filter.search {
        search::push_search(&mut query, search);
        query.push(" LIMIT ").push_bind(search::MOST_FOUND);
    }
    query.push(") found");
    Ok(query.build_query_scalar().fetch_one(db).await?)
}

/// The category and everything below it.
fn push_tree(query: &mut QueryBuilder<'_, Postgres>, category: CategoryId) {
    query
        .push("(WITH RECURSIVE below AS (SELECT id FROM category WHERE id = ")
        .push_bind(category)
        .push(" UNION ALL SELECT c.id FROM category c JOIN below ON c.parent_id = below.id) SELECT id FROM below)");
}

/// Narrows a statement over product p; of the category it takes what `tree` has if that is among what the statement reads.
fn push_filter(query: &mut QueryBuilder<'_, Postgres>, filter: &ProductFilter, reads_tree: bool) {
    query.push(match filter.archived {
        Archived::Never => "p.archived_at IS NULL",
        Archived::Only => "p.archived_at IS NOT NULL",
        Archived::Too => "true",
    });
    if reads_tree {
        query.push(" AND p.category_id = tree.id");
    } else if let Some(category) = filter.category {
        query.push(" AND p.category_id IN ");
        push_tree(query, category);
    }
    if let Some(minor) = filter.min_price_minor {
        query.push(" AND p.price_minor >= ").push_bind(minor);
    }
    if let Some(minor) = filter.max_price_minor {
        query.push(" AND p.price_minor <= ").push_bind(minor);
    }
    if let Some(in_stock) = filter.in_stock {
        query.push(if in_stock { " AND p.available > 0" } else { " AND p.available = 0" });
    }
    if let Some(in_flash_sale) = filter.in_flash_sale {
        query
            .push(if in_flash_sale { " AND EXISTS" } else { " AND NOT EXISTS" })
            .push(" (SELECT 1 FROM flash_sale s WHERE s.product_id = p.id AND s.cancelled_at IS NULL AND s.units_ready_at IS NOT NULL AND s.opens_at <= ")
            .push_bind(filter.now)
            .push(" AND s.closes_at > ")
            .push_bind(filter.now)
            .push(")");
    }
}

/// The products with these ids, archived ones too, in no particular order.
pub async fn list_by_ids(db: &mut PgConnection, ids: &[ProductId]) -> Result<Vec<Product>, StoreError> {
    let rows = sqlx::query_as!(
        Product,
        r#"SELECT id AS "id: ProductId", category_id AS "category_id: CategoryId", title, description, images, price_minor,
                  currency AS "currency: Currency", available, archived_at, created_at, updated_at
             FROM product
            WHERE id = ANY($1)"#,
        ids as _,
    );
    Ok(rows.fetch_all(db).await?)
}

/// The product, locked until the transaction ends.
pub async fn lock(db: &mut PgConnection, id: ProductId) -> Result<Option<Product>, StoreError> {
    let row = sqlx::query_as!(
        Product,
        r#"SELECT id AS "id: ProductId", category_id AS "category_id: CategoryId", title, description, images, price_minor,
                  currency AS "currency: Currency", available, archived_at, created_at, updated_at
             FROM product
            WHERE id = $1
              FOR UPDATE"#,
        id as _,
    );
    Ok(row.fetch_optional(db).await?)
}

/// Takes units out of the ordinary stock if there are as many; false when there are not.
pub async fn take_available(db: &mut PgConnection, id: ProductId, units: i32) -> Result<bool, StoreError> {
    let taken = sqlx::query!("UPDATE product SET available = available - $2 WHERE id = $1 AND available >= $2", id as _, units);
    Ok(taken.execute(db).await?.rows_affected() == 1)
}

/// The constraint that a category which is not there breaks.
pub const CATEGORY_EXISTS: &str = "product_category_id_fkey";

pub async fn insert(db: &mut PgConnection, product: &Product) -> Result<(), StoreError> {
    sqlx::query!(
        "INSERT INTO product (id, category_id, title, description, images, price_minor, currency, available, archived_at, created_at, updated_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
        product.id as _,
        product.category_id as _,
        product.title,
        product.description,
        &product.images,
        product.price_minor,
        product.currency as _,
        product.available,
        product.archived_at,
        product.created_at,
        product.updated_at,
    )
    .execute(db)
    .await?;
    Ok(())
}

/// Writes everything that staff may change of a product; the stock is not among it. Call with the row locked.
pub async fn update(db: &mut PgConnection, product: &Product) -> Result<(), StoreError> {
    let updated = sqlx::query!(
        "UPDATE product
            SET category_id = $2, title = $3, description = $4, images = $5, price_minor = $6, currency = $7, archived_at = $8, updated_at = $9
          WHERE id = $1",
        product.id as _,
        product.category_id as _,
        product.title,
        product.description,
        &product.images,
        product.price_minor,
        product.currency as _,
        product.archived_at,
        product.updated_at,
    );
    expect_one(updated.execute(db).await?.rows_affected(), "product")
}

/// Puts units into the ordinary stock, or takes them out when there are fewer than none. Call with the row locked.
pub async fn add_available(db: &mut PgConnection, id: ProductId, units: i32, at: DateTime<Utc>) -> Result<(), StoreError> {
    let updated = sqlx::query!("UPDATE product SET available = available + $2, updated_at = $3 WHERE id = $1", id as _, units, at);
    expect_one(updated.execute(db).await?.rows_affected(), "product")
}
