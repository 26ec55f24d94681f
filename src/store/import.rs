//! Products that another shop's file describes.

use chrono::{DateTime, Utc};
use sqlx::PgConnection;

use super::StoreError;
use crate::domain::{
    ids::{CategoryId, ProductId},
    money::Currency,
};

/// A product as the last import left it, and what became of it since.
pub struct ImportedRow {
    pub id: ProductId,
    pub key: String,
    pub category_id: Option<CategoryId>,
    pub title: String,
    pub description: String,
    pub images: Vec<String>,
    pub price_minor: i64,
    pub available: i32,
    /// The quantity that the source told last.
    pub told_quantity: Option<i32>,
    pub is_archived: bool,
}

/// What the source says about a product.
pub struct ProductContent<'a> {
    pub category: Option<CategoryId>,
    pub title: &'a str,
    pub description: &'a str,
    pub images: &'a [String],
    pub price_minor: i64,
    pub told_quantity: Option<i32>,
    pub is_archived: bool,
}

/// The products with these keys, locked until the transaction ends. Until then no other import goes on, so that a key which is not
/// there stays free.
pub async fn lock(db: &mut PgConnection, keys: &[String]) -> Result<Vec<ImportedRow>, StoreError> {
    sqlx::query!("SELECT pg_advisory_xact_lock(hashtext('product import'))").execute(&mut *db).await?;
    let rows = sqlx::query_as!(
        ImportedRow,
        r#"SELECT id AS "id: ProductId", import_key AS "key!", category_id AS "category_id: CategoryId", title, description, images,
                  price_minor, available, import_quantity AS told_quantity, archived_at IS NOT NULL AS "is_archived!"
             FROM product
            WHERE import_key = ANY($1)
            ORDER BY id
              FOR UPDATE"#,
        keys,
    );
    Ok(rows.fetch_all(db).await?)
}

/// Inserts a product with as many units as the source tells. Their movement is the caller's.
pub async fn insert(
    db: &mut PgConnection,
    id: ProductId,
    key: &str,
    currency: Currency,
    content: &ProductContent<'_>,
    at: DateTime<Utc>,
) -> Result<(), StoreError> {
    sqlx::query!(
        "INSERT INTO product (id, import_key, category_id, title, description, images, price_minor, currency, available, import_quantity,
                              archived_at, created_at, updated_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, coalesce($9, 0), $9, CASE WHEN $10 THEN $11::timestamptz END, $11, $11)",
        id as _,
        key,
        content.category as _,
        content.title,
        content.description,
        content.images,
        content.price_minor,
        currency.as_str(),
        content.told_quantity,
        content.is_archived,
        at,
    )
    .execute(db)
    .await?;
    Ok(())
}

/// Changes a product to what the source says, and its stock by `delta`, whose movement is the caller's.
pub async fn update(
    db: &mut PgConnection,
    id: ProductId,
    content: &ProductContent<'_>,
    delta: i32,
    at: DateTime<Utc>,
) -> Result<(), StoreError> {
    sqlx::query!(
        "UPDATE product
            SET category_id = $2, title = $3, description = $4, images = $5, price_minor = $6, available = available + $7,
                import_quantity = coalesce($8, import_quantity),
                archived_at = CASE WHEN $9 THEN coalesce(archived_at, $10) END, updated_at = $10
          WHERE id = $1",
        id as _,
        content.category as _,
        content.title,
        content.description,
        content.images,
        content.price_minor,
        delta,
        content.told_quantity,
        content.is_archived,
        at,
    )
    .execute(db)
    .await?;
    Ok(())
}
