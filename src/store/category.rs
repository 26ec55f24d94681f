//! Categories.

use chrono::{DateTime, Utc};
use sqlx::PgConnection;

use super::{StoreError, expect_one};
use crate::domain::ids::CategoryId;

#[derive(Clone, Debug)]
pub struct Category {
    pub id: CategoryId,
    pub parent_id: Option<CategoryId>,
    pub slug: String,
    pub name: String,
}

/// The roots of the tree, by name.
pub async fn list_roots(db: &mut PgConnection) -> Result<Vec<Category>, StoreError> {
    let rows = sqlx::query_as!(
        Category,
        r#"SELECT id AS "id: CategoryId", parent_id AS "parent_id: CategoryId", slug, name
             FROM category
            WHERE parent_id IS NULL
            ORDER BY name, id"#
    );
    Ok(rows.fetch_all(db).await?)
}

/// The categories with these ids, in no particular order.
pub async fn list_by_ids(db: &mut PgConnection, ids: &[CategoryId]) -> Result<Vec<Category>, StoreError> {
    let rows = sqlx::query_as!(
        Category,
        r#"SELECT id AS "id: CategoryId", parent_id AS "parent_id: CategoryId", slug, name
             FROM category
            WHERE id = ANY($1)"#,
        ids as _,
    );
    Ok(rows.fetch_all(db).await?)
}

/// The direct children of these categories, by name.
pub async fn list_children(db: &mut PgConnection, parents: &[CategoryId]) -> Result<Vec<Category>, StoreError> {
    let rows = sqlx::query_as!(
        Category,
        r#"SELECT id AS "id: CategoryId", parent_id AS "parent_id: CategoryId", slug, name
             FROM category
            WHERE parent_id = ANY($1)
            ORDER BY name, id"#,
        parents as _,
    );
    Ok(rows.fetch_all(db).await?)
}

/// Inserts a category unless its slug is taken; the id of the one with that slug either way.
pub async fn insert_if_new(db: &mut PgConnection, category: &Category, at: DateTime<Utc>) -> Result<CategoryId, StoreError> {
    // Read first: one that is there is neither locked nor written.
    let known = sqlx::query_scalar!(r#"SELECT id AS "id: CategoryId" FROM category WHERE slug = $1"#, category.slug);
    if let Some(known) = known.fetch_optional(&mut *db).await? {
        return Ok(known);
    }
    let id = sqlx::query_scalar!(
        r#"INSERT INTO category (id, parent_id, slug, name, created_at)
           VALUES ($1, $2, $3, $4, $5)
               ON CONFLICT (slug) DO UPDATE SET slug = excluded.slug
           RETURNING id AS "id: CategoryId""#,
        category.id as _,
        category.parent_id as _,
        category.slug,
        category.name,
        at,
    );
    Ok(id.fetch_one(db).await?)
}

/// The constraint that a slug which is taken breaks.
pub const SLUG_UNIQUE: &str = "category_slug_unique";
/// The constraint of a slug's form.
pub const SLUG_FORM: &str = "category_slug_form";
/// The constraint that a parent which is not there breaks; and, when a category is deleted, one that has children.
pub const PARENT_EXISTS: &str = "category_parent_id_fkey";
/// The constraints that a category breaks which would be below itself.
pub const NOT_BELOW_ITSELF: [&str; 2] = ["category_no_cycle", "category_not_its_own_parent"];

pub async fn insert(db: &mut PgConnection, category: &Category, at: DateTime<Utc>) -> Result<(), StoreError> {
    sqlx::query!(
        "INSERT INTO category (id, parent_id, slug, name, created_at) VALUES ($1, $2, $3, $4, $5)",
        category.id as _,
        category.parent_id as _,
        category.slug,
        category.name,
        at,
    )
    .execute(db)
    .await?;
    Ok(())
}

/// The category, locked until the transaction ends, and before it the tree: two who change it at once follow one another, so that neither
/// holds its row while it waits for the other's.
pub async fn lock(db: &mut PgConnection, id: CategoryId) -> Result<Option<Category>, StoreError> {
    sqlx::query!("SELECT pg_advisory_xact_lock(hashtext('category tree'))").execute(&mut *db).await?;
    let row = sqlx::query_as!(
        Category,
        r#"SELECT id AS "id: CategoryId", parent_id AS "parent_id: CategoryId", slug, name FROM category WHERE id = $1 FOR NO KEY UPDATE"#,
        id as _,
    );
    Ok(row.fetch_optional(db).await?)
}

/// Writes a category, and with its parent moves it and all that is below. Call with the row locked.
pub async fn update(db: &mut PgConnection, category: &Category) -> Result<(), StoreError> {
    let updated = sqlx::query!(
        "UPDATE category SET parent_id = $2, slug = $3, name = $4 WHERE id = $1",
        category.id as _,
        category.parent_id as _,
        category.slug,
        category.name,
    );
    expect_one(updated.execute(db).await?.rows_affected(), "category")
}

/// Deletes a category; as it was, or `None` when there is none. The constraints refuse one that has children or products.
pub async fn delete(db: &mut PgConnection, id: CategoryId) -> Result<Option<Category>, StoreError> {
    let row = sqlx::query_as!(
        Category,
        r#"DELETE FROM category WHERE id = $1 RETURNING id AS "id: CategoryId", parent_id AS "parent_id: CategoryId", slug, name"#,
        id as _,
    );
    Ok(row.fetch_optional(db).await?)
}
