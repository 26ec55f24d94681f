//! What changes with the keys: sealed values of any column, and the blind indexes of customers.
//!
//! Updates never wait for a lock: a row that somebody holds is skipped, and so is one that has changed since it was read.

use sqlx::{FromRow, PgConnection};
use uuid::Uuid;

use super::StoreError;
use crate::{
    domain::{customer::EmailIndex, ids::CustomerId},
    sealing::SealedColumn,
};

#[derive(FromRow)]
pub struct SealedValue {
    pub id: Uuid,
    pub sealed: Vec<u8>,
}

/// Values of a column by row, from after this one on.
pub async fn list_values(db: &mut PgConnection, column: SealedColumn, after: Uuid, limit: i64) -> Result<Vec<SealedValue>, StoreError> {
    let (table, column) = (column.table(), column.column());
    let sql = format!("SELECT id, {column} AS sealed FROM {table} WHERE id > $1 AND {column} IS NOT NULL ORDER BY id LIMIT $2");
    Ok(sqlx::query_as(&sql).bind(after).bind(limit).fetch_all(db).await?)
}

/// A value as it was read, and the same sealed anew.
pub struct Resealed {
    pub old: SealedValue,
    pub new: Vec<u8>,
}

/// Replaces values that still are as they were read; how many.
pub async fn update_values(db: &mut PgConnection, column: SealedColumn, values: &[Resealed]) -> Result<u64, StoreError> {
    let (table, column) = (column.table(), column.column());
    let sql = format!(
        "WITH resealed AS (SELECT * FROM unnest($1::uuid[], $2::bytea[], $3::bytea[]) AS r (id, old, new)),
              unchanged AS (SELECT t.id, r.new FROM {table} t JOIN resealed r ON r.id = t.id AND r.old = t.{column}
                               FOR NO KEY UPDATE OF t SKIP LOCKED)
         UPDATE {table} t SET {column} = u.new FROM unchanged u WHERE t.id = u.id"
    );
    let ids: Vec<_> = values.iter().map(|value| value.old.id).collect();
    let old: Vec<_> = values.iter().map(|value| value.old.sealed.as_slice()).collect();
    let new: Vec<_> = values.iter().map(|value| value.new.as_slice()).collect();
    Ok(sqlx::query(&sql).bind(ids).bind(old).bind(new).execute(db).await?.rows_affected())
}

/// How many values of a column a key has sealed. `None` is what is too short to name a key.
#[derive(Clone, Copy, Debug, FromRow)]
pub struct KeyCount {
    pub key: Option<i32>,
    pub count: i64,
}

pub async fn count_values(db: &mut PgConnection, column: SealedColumn) -> Result<Vec<KeyCount>, StoreError> {
    let (table, column) = (column.table(), column.column());
    let sql = format!(
        "SELECT CASE WHEN octet_length({column}) > 1 THEN get_byte({column}, 1) END AS key, count(*) AS count
           FROM {table} WHERE {column} IS NOT NULL GROUP BY 1 ORDER BY 1"
    );
    Ok(sqlx::query_as(&sql).fetch_all(db).await?)
}

pub struct IndexedCustomer {
    pub id: CustomerId,
    pub email_sealed: Vec<u8>,
    pub index: EmailIndex,
}

/// Customers from before this one on, newest first.
pub async fn list_indexes(db: &mut PgConnection, before: CustomerId, limit: i64) -> Result<Vec<IndexedCustomer>, StoreError> {
    let rows = sqlx::query!(
        r#"SELECT id AS "id: CustomerId", email_sealed AS "email_sealed!", email_index, email_index_even
             FROM customer
            WHERE id < $1 AND email_sealed IS NOT NULL
            ORDER BY id DESC
            LIMIT $2"#,
        before as _,
        limit,
    )
    .map(|row| IndexedCustomer {
        id: row.id,
        email_sealed: row.email_sealed,
        index: EmailIndex { odd: row.email_index, even: row.email_index_even },
    });
    Ok(rows.fetch_all(db).await?)
}

/// The oldest customer: the last one that a rotation comes to.
pub async fn find_oldest_index(db: &mut PgConnection) -> Result<Option<IndexedCustomer>, StoreError> {
    let row = sqlx::query!(
        r#"SELECT id AS "id: CustomerId", email_sealed AS "email_sealed!", email_index, email_index_even
             FROM customer
            WHERE email_sealed IS NOT NULL
            ORDER BY id
            LIMIT 1"#
    )
    .map(|row| IndexedCustomer {
        id: row.id,
        email_sealed: row.email_sealed,
        index: EmailIndex { odd: row.email_index, even: row.email_index_even },
    });
    Ok(row.fetch_optional(db).await?)
}

/// Gives customers these indexes, where the address still is as it was read; how many.
pub async fn update_indexes(db: &mut PgConnection, customers: &[IndexedCustomer]) -> Result<u64, StoreError> {
    // FOR UPDATE, as the columns are unique: the weaker lock would be raised by the update, and that would wait.
    let updated = sqlx::query!(
        "WITH indexed AS (SELECT * FROM unnest($1::uuid[], $2::bytea[], $3::bytea[], $4::bytea[]) AS i (id, email_sealed, odd, even)),
              unchanged AS (SELECT c.id, i.odd, i.even FROM customer c JOIN indexed i ON i.id = c.id AND i.email_sealed = c.email_sealed
                               FOR UPDATE OF c SKIP LOCKED)
         UPDATE customer c SET email_index = u.odd, email_index_even = u.even FROM unchanged u WHERE c.id = u.id",
        &customers.iter().map(|customer| customer.id.0).collect::<Vec<_>>(),
        &customers.iter().map(|customer| customer.email_sealed.clone()).collect::<Vec<_>>(),
        &customers.iter().map(|customer| customer.index.odd.clone()).collect::<Vec<_>>() as _,
        &customers.iter().map(|customer| customer.index.even.clone()).collect::<Vec<_>>() as _,
    );
    Ok(updated.execute(db).await?.rows_affected())
}

/// How many customers there are, and how many are indexed in each column.
#[derive(Clone, Copy, Debug)]
pub struct IndexCounts {
    pub customers: i64,
    pub odd: i64,
    pub even: i64,
}

pub async fn count_indexes(db: &mut PgConnection) -> Result<IndexCounts, StoreError> {
    let counts = sqlx::query_as!(
        IndexCounts,
        r#"SELECT count(*) AS "customers!", count(email_index) AS "odd!", count(email_index_even) AS "even!"
             FROM customer
            WHERE email_sealed IS NOT NULL"#
    );
    Ok(counts.fetch_one(db).await?)
}

/// Whether a customer lacks an index in the column of even keys, or of odd ones.
pub async fn has_unindexed(db: &mut PgConnection, even: bool) -> Result<bool, StoreError> {
    let has = sqlx::query_scalar!(
        r#"SELECT CASE WHEN $1 THEN EXISTS (SELECT 1 FROM customer WHERE email_index_even IS NULL AND email_sealed IS NOT NULL)
                       ELSE EXISTS (SELECT 1 FROM customer WHERE email_index IS NULL AND email_sealed IS NOT NULL) END AS "has!""#,
        even,
    );
    Ok(has.fetch_one(db).await?)
}
