//! Categories.

use chrono::{DateTime, Utc};
use sqlx::PgConnection;

use super::StoreError;
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
