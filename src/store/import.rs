//! Products that another shop's file describes.

use chrono::{DateTime, Utc};
use sqlx::PgConnection;

use super::{StoreError, expect_one};
use crate::domain::{
    ids::{CategoryId, ProductId},
    money::Currency,
};

/// A product that an import has made, as it is now.
pub struct ImportedRow {
    pub id: ProductId,
    pub key: String,
    pub category_id: Option<CategoryId>,
    pub title: String,
    pub description: String,
    pub images: Vec<String>,
    pub price_minor: i64,
    pub available: i32,
    /// The units that imports have put into its stock so far.
    pub import_quantity: i32,
    pub is_archived: bool,
}

/// What the source says about a product.
pub struct ProductContent<'a> {
    pub category: Option<CategoryId>,
    pub title: &'a str,
    pub description: &'a str,
    pub images: &'a [String],
    pub price_minor: i64,
    pub is_archived: bool,
}

/// The products with these keys, locked until the transaction ends. Until then no other import writes, so that a key which is not
/// there stays free.
pub async fn lock(db: &mut PgConnection, keys: &[String]) -> Result<Vec<ImportedRow>, StoreError> {
    sqlx::query!("SELECT pg_advisory_xact_lock(hashtext('product import'))").execute(&mut *db).await?;
    let rows = sqlx::query_as!(
        ImportedRow,
        r#"SELECT id AS "id: ProductId", import_key AS "key!", category_id AS "category_id: CategoryId", title, description, images,
                  price_minor, available, import_quantity, archived_at IS NOT NULL AS "is_archived!"
             FROM product
            WHERE import_key = ANY($1)
            ORDER BY id
              FOR NO KEY UPDATE"#,
        keys,
    );
    Ok(rows.fetch_all(db).await?)
}

/// Inserts a product with its first units. Their movement is the caller's.
pub async fn insert(
    db: &mut PgConnection,
    id: ProductId,
    key: &str,
    currency: Currency,
    content: &ProductContent<'_>,
    units: i32,
    at: DateTime<Utc>,
) -> Result<(), StoreError> {
    sqlx::query!(
        "INSERT INTO product (id, import_key, category_id, title, description, images, price_minor, currency, available, import_quantity,
                              archived_at, created_at, updated_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $9, CASE WHEN $10 THEN $11::timestamptz END, $11, $11)",
        id as _,
        key,
        content.category as _,
        content.title,
        content.description,
        content.images,
        content.price_minor,
        currency.as_str(),
        units,
        content.is_archived,
        at,
    )
    .execute(db)
    .await?;
    Ok(())
}

/// Changes a product to what the source says, and its stock by `units`, whose movement is the caller's. Call with the row locked.
pub async fn update(
    db: &mut PgConnection,
    id: ProductId,
    content: &ProductContent<'_>,
    units: i32,
    at: DateTime<Utc>,
) -> Result<(), StoreError> {
    let updated = sqlx::query!(
        "UPDATE product
            SET category_id = $2, title = $3, description = $4, images = $5, price_minor = $6, available = available + $7,
                import_quantity = import_quantity + $7,
                archived_at = CASE WHEN $8 THEN coalesce(archived_at, $9) END, updated_at = $9
          WHERE id = $1",
        id as _,
        content.category as _,
        content.title,
        content.description,
        content.images,
        content.price_minor,
        units,
        content.is_archived,
        at,
    );
    expect_one(updated.execute(db).await?.rows_affected(), "product")
}
