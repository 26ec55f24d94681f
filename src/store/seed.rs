//! Bulk inserts of sample data: thousands of rows a statement.

use chrono::{DateTime, Utc};
use sqlx::PgConnection;

use super::StoreError;
use crate::domain::{
    customer::Role,
    ids::{CategoryId, ProductId},
    money::Currency,
};

pub struct SampleProduct {
    pub id: ProductId,
    pub category: CategoryId,
    pub title: String,
    pub description: String,
    pub image: String,
    pub price_minor: i64,
    pub available: i32,
    pub created_at: DateTime<Utc>,
}

pub async fn count_products(db: &mut PgConnection) -> Result<i64, StoreError> {
    Ok(sqlx::query_scalar!(r#"SELECT count(*) AS "count!" FROM product"#).fetch_one(db).await?)
}

/// Inserts products with the movements that explain their stock.
pub async fn insert_products(db: &mut PgConnection, products: &[SampleProduct], currency: Currency) -> Result<(), StoreError> {
    sqlx::query!(
        "WITH new AS (
             INSERT INTO product (id, category_id, title, description, images, price_minor, currency, available, created_at, updated_at)
             SELECT p.id, p.category_id, p.title, p.description, ARRAY[p.image], p.price_minor, $9, p.available, p.created_at, p.created_at
               FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::text[], $5::text[], $6::bigint[], $7::integer[], $8::timestamptz[])
                    AS p (id, category_id, title, description, image, price_minor, available, created_at)
          RETURNING id, available, created_at
         )
         INSERT INTO stock_movement (id, kind, quantity, product_id, reason, at)
         SELECT gen_random_uuid(), 'RECEIVED', available, id, 'sample data', created_at FROM new WHERE available > 0",
        &products.iter().map(|p| p.id.0).collect::<Vec<_>>(),
        &products.iter().map(|p| p.category.0).collect::<Vec<_>>(),
        &products.iter().map(|p| p.title.clone()).collect::<Vec<_>>(),
        &products.iter().map(|p| p.description.clone()).collect::<Vec<_>>(),
        &products.iter().map(|p| p.image.clone()).collect::<Vec<_>>(),
        &products.iter().map(|p| p.price_minor).collect::<Vec<_>>(),
        &products.iter().map(|p| p.available).collect::<Vec<_>>(),
        &products.iter().map(|p| p.created_at).collect::<Vec<_>>(),
        currency.as_str(),
    )
    .execute(db)
    .await?;
    Ok(())
}

/// A verified customer with a default address and a session, everything sealed already.
pub struct SampleCustomer {
    pub customer: super::customer::NewCustomer,
    pub address: super::address::NewAddress,
    pub session: uuid::Uuid,
    pub refresh_hash: Vec<u8>,
}

/// Inserts verified customers, their addresses and sessions. Customers who exist already are an error.
pub async fn insert_customers(
    db: &mut PgConnection,
    customers: &[SampleCustomer],
    session_expires_at: DateTime<Utc>,
    at: DateTime<Utc>,
) -> Result<(), StoreError> {
    let ids: Vec<_> = customers.iter().map(|sample| sample.customer.id.0).collect();
    sqlx::query!(
        "INSERT INTO customer (id, email_sealed, email_index, email_index_even, email_verified_at, name_sealed, password_hash, role, locale,
                               created_at, updated_at)
         SELECT c.id, c.email_sealed, c.email_index, c.email_index_even, $9, c.name_sealed, c.password_hash, $7, c.locale, $9, $9
           FROM unnest($1::uuid[], $2::bytea[], $3::bytea[], $4::bytea[], $5::bytea[], $6::text[], $8::text[])
                AS c (id, email_sealed, email_index, email_index_even, name_sealed, password_hash, locale)",
        &ids,
        &customers.iter().map(|sample| sample.customer.email_sealed.clone()).collect::<Vec<_>>(),
        &customers.iter().map(|sample| sample.customer.email_index.odd.clone()).collect::<Vec<_>>() as _,
        &customers.iter().map(|sample| sample.customer.email_index.even.clone()).collect::<Vec<_>>() as _,
        &customers.iter().map(|sample| sample.customer.name_sealed.clone()).collect::<Vec<_>>(),
        &customers.iter().map(|sample| sample.customer.password_hash.clone()).collect::<Vec<_>>(),
        Role::Customer as _,
        &customers.iter().map(|sample| sample.customer.locale.as_str().to_owned()).collect::<Vec<_>>(),
        at,
    )
    .execute(&mut *db)
    .await?;
    sqlx::query!(
        "INSERT INTO address (id, customer_id, content_sealed, is_default, created_at)
         SELECT a.id, a.customer_id, a.content_sealed, true, $4
           FROM unnest($1::uuid[], $2::uuid[], $3::bytea[]) AS a (id, customer_id, content_sealed)",
        &customers.iter().map(|sample| sample.address.id.0).collect::<Vec<_>>(),
        &ids,
        &customers.iter().map(|sample| sample.address.content_sealed.clone()).collect::<Vec<_>>(),
        at,
    )
    .execute(&mut *db)
    .await?;
    sqlx::query!(
        "INSERT INTO session (id, customer_id, refresh_hash, rotated_at, created_at, last_used_at, expires_at)
         SELECT s.id, s.customer_id, s.refresh_hash, $4, $4, $4, $5
           FROM unnest($1::uuid[], $2::uuid[], $3::bytea[]) AS s (id, customer_id, refresh_hash)",
        &customers.iter().map(|sample| sample.session).collect::<Vec<_>>(),
        &ids,
        &customers.iter().map(|sample| sample.refresh_hash.clone()).collect::<Vec<_>>(),
        at,
        session_expires_at,
    )
    .execute(db)
    .await?;
    Ok(())
}
