//! Addresses: immutable, sealed versions.

use chrono::{DateTime, Utc};
use sqlx::PgConnection;

use super::{StoreError, expect_one};
use crate::domain::ids::{AddressId, CustomerId};

#[derive(Clone, Debug)]
pub struct Address {
    pub id: AddressId,
    pub customer_id: CustomerId,
    pub content_sealed: Vec<u8>,
    pub is_default: bool,
}

/// The address book of a customer: versions that stand, oldest first.
pub async fn list_for_customers(db: &mut PgConnection, customers: &[CustomerId]) -> Result<Vec<Address>, StoreError> {
    let rows = sqlx::query_as!(
        Address,
        r#"SELECT id AS "id: AddressId", customer_id AS "customer_id: CustomerId", content_sealed AS "content_sealed!", is_default
             FROM address
            WHERE customer_id = ANY($1) AND retired_at IS NULL
            ORDER BY created_at, id"#,
        customers as _,
    );
    Ok(rows.fetch_all(db).await?)
}

/// Of the versions with these ids the ones of `customer`, retired ones too.
pub async fn list_by_ids_for_customer(db: &mut PgConnection, ids: &[AddressId], customer: CustomerId) -> Result<Vec<Address>, StoreError> {
    let rows = sqlx::query_as!(
        Address,
        r#"SELECT id AS "id: AddressId", customer_id AS "customer_id: CustomerId", content_sealed AS "content_sealed!", is_default
             FROM address
            WHERE id = ANY($1) AND customer_id = $2 AND content_sealed IS NOT NULL"#,
        ids as _,
        customer as _,
    );
    Ok(rows.fetch_all(db).await?)
}

/// Versions by id, retired ones too: orders keep theirs, until the customer's account is deleted.
pub async fn list_by_ids(db: &mut PgConnection, ids: &[AddressId]) -> Result<Vec<Address>, StoreError> {
    let rows = sqlx::query_as!(
        Address,
        r#"SELECT id AS "id: AddressId", customer_id AS "customer_id: CustomerId", content_sealed AS "content_sealed!", is_default
             FROM address
            WHERE id = ANY($1) AND content_sealed IS NOT NULL"#,
        ids as _,
    );
    Ok(rows.fetch_all(db).await?)
}

/// The customer's standing addresses, the customer's row locked: two saves at the same moment follow one another. `None` when the
/// account is deleted.
pub async fn lock_book(db: &mut PgConnection, customer: CustomerId) -> Result<Option<Vec<Address>>, StoreError> {
    let lock = sqlx::query!("SELECT id FROM customer WHERE id = $1 AND deleted_at IS NULL FOR NO KEY UPDATE", customer as _);
    if lock.fetch_optional(&mut *db).await?.is_none() {
        return Ok(None);
    }
    list_for_customers(db, &[customer]).await.map(Some)
}

/// Empties a customer's address book; orders keep their versions.
pub async fn update_all_retired(db: &mut PgConnection, customer: CustomerId, at: DateTime<Utc>) -> Result<(), StoreError> {
    sqlx::query!("UPDATE address SET retired_at = $2, is_default = false WHERE customer_id = $1 AND retired_at IS NULL", customer as _, at)
        .execute(db)
        .await?;
    Ok(())
}

/// Takes a standing address out of the book. Call with the book locked.
pub async fn update_retired(db: &mut PgConnection, id: AddressId, at: DateTime<Utc>) -> Result<(), StoreError> {
    let retired = sqlx::query!("UPDATE address SET retired_at = $2, is_default = false WHERE id = $1 AND retired_at IS NULL", id as _, at);
    expect_one(retired.execute(db).await?.rows_affected(), "standing address")
}

/// Makes a standing address the default of a book that has none. Call with the book locked.
pub async fn update_default(db: &mut PgConnection, id: AddressId) -> Result<(), StoreError> {
    let updated = sqlx::query!("UPDATE address SET is_default = true WHERE id = $1 AND retired_at IS NULL", id as _);
    expect_one(updated.execute(db).await?.rows_affected(), "standing address")
}

/// Erases all addresses of a customer, those of orders too.
pub async fn erase(db: &mut PgConnection, customer: CustomerId, at: DateTime<Utc>) -> Result<(), StoreError> {
    sqlx::query!(
        "UPDATE address SET content_sealed = NULL, retired_at = coalesce(retired_at, $2), is_default = false WHERE customer_id = $1",
        customer as _,
        at,
    )
    .execute(db)
    .await?;
    Ok(())
}

pub struct NewAddress {
    pub id: AddressId,
    pub customer: CustomerId,
    pub replaces: Option<AddressId>,
    pub content_sealed: Vec<u8>,
    pub is_default: bool,
}

/// Inserts a version; retires the one it replaces, and takes the default from the others when it is the new default.
pub async fn insert(db: &mut PgConnection, address: &NewAddress, at: DateTime<Utc>) -> Result<(), StoreError> {
    if address.is_default {
        sqlx::query!("UPDATE address SET is_default = false WHERE customer_id = $1 AND is_default", address.customer as _)
            .execute(&mut *db)
            .await?;
    }
    sqlx::query!("UPDATE address SET retired_at = $2, is_default = false WHERE id = $1 AND retired_at IS NULL", address.replaces as _, at,)
        .execute(&mut *db)
        .await?;
    sqlx::query!(
        "INSERT INTO address (id, customer_id, replaces_id, content_sealed, is_default, created_at) VALUES ($1, $2, $3, $4, $5, $6)",
        address.id as _,
        address.customer as _,
        address.replaces as _,
        address.content_sealed,
        address.is_default,
        at,
    )
    .execute(db)
    .await?;
    Ok(())
}
