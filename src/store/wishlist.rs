//! Wishlists. Notes come and go sealed.

use chrono::{DateTime, Utc};
use sqlx::PgConnection;

use super::{Page, StoreError, expect_one};
use crate::domain::{
    customer::Locale,
    ids::{CustomerId, ProductId, WishlistItemId},
};

#[derive(Clone, Debug)]
pub struct WishlistItem {
    pub id: WishlistItemId,
    pub customer_id: CustomerId,
    pub product_id: ProductId,
    pub note_sealed: Option<Vec<u8>>,
    pub notify_on_sale: bool,
    pub added_at: DateTime<Utc>,
}

/// An item's place in its list: by when it was added, then id.
#[derive(Clone, Copy, Debug)]
pub struct WishlistPosition {
    pub added_at: DateTime<Utc>,
    pub id: WishlistItemId,
}

/// One page of a customer's list, newest first.
pub async fn list_for_customer(
    db: &mut PgConnection,
    customer: CustomerId,
    after: Option<WishlistPosition>,
    size: usize,
) -> Result<Page<WishlistItem>, StoreError> {
    let rows = sqlx::query_as!(
        WishlistItem,
        r#"SELECT id AS "id: WishlistItemId", customer_id AS "customer_id: CustomerId", product_id AS "product_id: ProductId", note_sealed,
                  notify_on_sale, added_at
             FROM wishlist_item
            WHERE customer_id = $1 AND ($2::timestamptz IS NULL OR (added_at, id) < ($2, $3::uuid))
            ORDER BY added_at DESC, id DESC
            LIMIT $4"#,
        customer as _,
        after.map(|position| position.added_at),
        after.map(|position| position.id) as _,
        i64::try_from(size).unwrap_or(i64::MAX).saturating_add(1),
    );
    Ok(Page::from_surplus(rows.fetch_all(db).await?, size))
}

pub async fn count_for_customer(db: &mut PgConnection, customer: CustomerId) -> Result<i64, StoreError> {
    let count = sqlx::query_scalar!(r#"SELECT count(*) AS "count!" FROM wishlist_item WHERE customer_id = $1"#, customer as _);
    Ok(count.fetch_one(db).await?)
}

pub async fn find_for_customer(
    db: &mut PgConnection,
    id: WishlistItemId,
    customer: CustomerId,
) -> Result<Option<WishlistItem>, StoreError> {
    let row = sqlx::query_as!(
        WishlistItem,
        r#"SELECT id AS "id: WishlistItemId", customer_id AS "customer_id: CustomerId", product_id AS "product_id: ProductId", note_sealed,
                  notify_on_sale, added_at
             FROM wishlist_item
            WHERE id = $1 AND customer_id = $2"#,
        id as _,
        customer as _,
    );
    Ok(row.fetch_optional(db).await?)
}

/// The item of a product in a customer's list.
pub async fn find_by_product(db: &mut PgConnection, customer: CustomerId, product: ProductId) -> Result<Option<WishlistItem>, StoreError> {
    let row = sqlx::query_as!(
        WishlistItem,
        r#"SELECT id AS "id: WishlistItemId", customer_id AS "customer_id: CustomerId", product_id AS "product_id: ProductId", note_sealed,
                  notify_on_sale, added_at
             FROM wishlist_item
            WHERE customer_id = $1 AND product_id = $2"#,
        customer as _,
        product as _,
    );
    Ok(row.fetch_optional(db).await?)
}

/// Those of the products that are in the customer's list.
pub async fn list_wished(db: &mut PgConnection, customer: CustomerId, products: &[ProductId]) -> Result<Vec<ProductId>, StoreError> {
    let wished = sqlx::query_scalar!(
        r#"SELECT product_id AS "product_id: ProductId" FROM wishlist_item WHERE customer_id = $1 AND product_id = ANY($2)"#,
        customer as _,
        products as _,
    );
    Ok(wished.fetch_all(db).await?)
}

/// Adds an item, or writes an existing one's note and wish anew. Call with the customer's row locked.
pub async fn save(db: &mut PgConnection, item: &WishlistItem) -> Result<(), StoreError> {
    sqlx::query!(
        "INSERT INTO wishlist_item (id, customer_id, product_id, note_sealed, notify_on_sale, added_at)
         VALUES ($1, $2, $3, $4, $5, $6)
             ON CONFLICT (id) DO UPDATE SET note_sealed = excluded.note_sealed, notify_on_sale = excluded.notify_on_sale",
        item.id as _,
        item.customer_id as _,
        item.product_id as _,
        item.note_sealed.as_deref(),
        item.notify_on_sale,
        item.added_at,
    )
    .execute(db)
    .await?;
    Ok(())
}

/// Takes an item out of its list. Call with the customer's row locked.
pub async fn delete(db: &mut PgConnection, id: WishlistItemId) -> Result<(), StoreError> {
    let deleted = sqlx::query!("DELETE FROM wishlist_item WHERE id = $1", id as _);
    expect_one(deleted.execute(db).await?.rows_affected(), "item of a wishlist")
}

/// Empties a customer's list.
pub async fn delete_all(db: &mut PgConnection, customer: CustomerId) -> Result<(), StoreError> {
    sqlx::query!("DELETE FROM wishlist_item WHERE customer_id = $1", customer as _).execute(db).await?;
    Ok(())
}

/// Somebody who wants to hear of sales of a product.
pub struct Wisher {
    pub customer: CustomerId,
    pub email_sealed: Vec<u8>,
    pub locale: Locale,
}

/// The next customers after this one who want to hear of sales of a product and whose address is verified, by id. Their items stay until
/// the transaction ends: whoever deletes an account waits, and finds the mails that are written here.
pub async fn lock_wishers(
    db: &mut PgConnection,
    product: ProductId,
    after: Option<CustomerId>,
    limit: i64,
) -> Result<Vec<Wisher>, StoreError> {
    let rows = sqlx::query_as!(
        Wisher,
        r#"SELECT c.id AS "customer: CustomerId", c.email_sealed AS "email_sealed!", c.locale AS "locale: Locale"
             FROM wishlist_item w
             JOIN customer c ON c.id = w.customer_id
            WHERE w.product_id = $1 AND w.notify_on_sale AND ($2::uuid IS NULL OR w.customer_id > $2)
              AND c.email_verified_at IS NOT NULL AND c.deleted_at IS NULL
            ORDER BY w.customer_id
            LIMIT $3
              FOR KEY SHARE OF w"#,
        product as _,
        after as _,
        limit,
    );
    Ok(rows.fetch_all(db).await?)
}
