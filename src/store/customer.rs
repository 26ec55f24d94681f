//! Customers and the tokens of their mails. Personal columns come and go sealed.

use chrono::{DateTime, Utc};
use sqlx::PgConnection;

use super::{StoreError, expect_one};
use crate::domain::{
    customer::{EmailIndex, Locale, Role},
    ids::{CustomerId, OneTimeTokenId},
    opaque_debug,
};

#[derive(Clone)]
pub struct Customer {
    pub id: CustomerId,
    pub email_sealed: Vec<u8>,
    pub email_verified_at: Option<DateTime<Utc>>,
    pub name_sealed: Vec<u8>,
    pub phone_sealed: Option<Vec<u8>>,
    pub password_hash: String,
    pub role: Role,
    pub locale: Locale,
    pub created_at: DateTime<Utc>,
}

opaque_debug!(Customer);

pub struct NewCustomer {
    pub id: CustomerId,
    pub email_sealed: Vec<u8>,
    pub email_index: EmailIndex,
    pub name_sealed: Vec<u8>,
    pub phone_sealed: Option<Vec<u8>>,
    pub password_hash: String,
    pub role: Role,
    pub locale: Locale,
}

/// The customers with these ids; who has deleted the account is none any more.
pub async fn list_by_ids(db: &mut PgConnection, ids: &[CustomerId]) -> Result<Vec<Customer>, StoreError> {
    let rows = sqlx::query_as!(
        Customer,
        r#"SELECT id AS "id: CustomerId", email_sealed AS "email_sealed!", email_verified_at, name_sealed AS "name_sealed!", phone_sealed,
                  password_hash AS "password_hash!",
                  role AS "role: Role", locale AS "locale: Locale", created_at
             FROM customer
            WHERE id = ANY($1) AND deleted_at IS NULL"#,
        ids as _,
    );
    Ok(rows.fetch_all(db).await?)
}

pub async fn find_by_email_index(db: &mut PgConnection, index: &EmailIndex) -> Result<Option<Customer>, StoreError> {
    let row = sqlx::query_as!(
        Customer,
        r#"SELECT id AS "id: CustomerId", email_sealed AS "email_sealed!", email_verified_at, name_sealed AS "name_sealed!", phone_sealed,
                  password_hash AS "password_hash!",
                  role AS "role: Role", locale AS "locale: Locale", created_at
             FROM customer
            WHERE email_index = $1 OR email_index_even = $2"#,
        index.odd.as_deref(),
        index.even.as_deref(),
    );
    Ok(row.fetch_optional(db).await?)
}

/// The customer, locked until the transaction ends; rows that refer to it, as a mail does, may be made meanwhile.
pub async fn lock(db: &mut PgConnection, id: CustomerId) -> Result<Option<Customer>, StoreError> {
    let row = sqlx::query_as!(
        Customer,
        r#"SELECT id AS "id: CustomerId", email_sealed AS "email_sealed!", email_verified_at, name_sealed AS "name_sealed!", phone_sealed,
                  password_hash AS "password_hash!",
                  role AS "role: Role", locale AS "locale: Locale", created_at
             FROM customer
            WHERE id = $1 AND deleted_at IS NULL
              FOR NO KEY UPDATE"#,
        id as _,
    );
    Ok(row.fetch_optional(db).await?)
}

/// The customer with this address, locked until the transaction ends.
pub async fn lock_by_email_index(db: &mut PgConnection, index: &EmailIndex) -> Result<Option<Customer>, StoreError> {
    let row = sqlx::query_as!(
        Customer,
        r#"SELECT id AS "id: CustomerId", email_sealed AS "email_sealed!", email_verified_at, name_sealed AS "name_sealed!", phone_sealed,
                  password_hash AS "password_hash!",
                  role AS "role: Role", locale AS "locale: Locale", created_at
             FROM customer
            WHERE email_index = $1 OR email_index_even = $2
              FOR UPDATE"#,
        index.odd.as_deref(),
        index.even.as_deref(),
    );
    Ok(row.fetch_optional(db).await?)
}

/// Inserts a customer who has yet to verify the address; false when the address is taken, which waits for whoever is
/// just taking it.
pub async fn insert(db: &mut PgConnection, customer: &NewCustomer, at: DateTime<Utc>) -> Result<bool, StoreError> {
    let inserted = sqlx::query!(
        "INSERT INTO customer (id, email_sealed, email_index, email_index_even, name_sealed, phone_sealed, password_hash, role, locale,
                               created_at, updated_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $10)
             ON CONFLICT DO NOTHING",
        customer.id as _,
        customer.email_sealed,
        customer.email_index.odd.as_deref(),
        customer.email_index.even.as_deref(),
        customer.name_sealed,
        customer.phone_sealed,
        customer.password_hash,
        customer.role as _,
        customer.locale as _,
        at,
    );
    Ok(inserted.execute(db).await?.rows_affected() == 1)
}

/// What a second sign-up for a still unverified address replaces.
pub struct Replacement {
    pub name_sealed: Vec<u8>,
    pub phone_sealed: Option<Vec<u8>>,
    pub password_hash: String,
    pub locale: Locale,
}

/// Replaces name, phone, password and language of a customer whose address is not verified.
pub async fn update_unverified(db: &mut PgConnection, id: CustomerId, new: &Replacement, at: DateTime<Utc>) -> Result<(), StoreError> {
    let updated = sqlx::query!(
        "UPDATE customer
            SET name_sealed = $2, phone_sealed = $3, password_hash = $4, locale = $5, updated_at = $6
          WHERE id = $1 AND email_verified_at IS NULL",
        id as _,
        new.name_sealed,
        new.phone_sealed,
        new.password_hash,
        new.locale as _,
        at,
    );
    expect_one(updated.execute(db).await?.rows_affected(), "unverified customer")
}

/// Marks the address as verified; the first time counts.
pub async fn update_verified(db: &mut PgConnection, id: CustomerId, at: DateTime<Utc>) -> Result<(), StoreError> {
    let updated =
        sqlx::query!("UPDATE customer SET email_verified_at = coalesce(email_verified_at, $2), updated_at = $2 WHERE id = $1", id as _, at);
    expect_one(updated.execute(db).await?.rows_affected(), "customer")
}

/// Moves the customer to another address, which is verified; false when it is taken, which breaks the transaction.
pub async fn update_email(
    db: &mut PgConnection,
    id: CustomerId,
    email_sealed: &[u8],
    index: &EmailIndex,
    at: DateTime<Utc>,
) -> Result<bool, StoreError> {
    let updated = sqlx::query!(
        "UPDATE customer SET email_sealed = $2, email_index = $3, email_index_even = $4, email_verified_at = $5, updated_at = $5 WHERE id = $1",
        id as _,
        email_sealed,
        index.odd.as_deref(),
        index.even.as_deref(),
        at,
    );
    match updated.execute(db).await.map_err(StoreError::from) {
        Err(error) if error.violates("customer_email_unique") || error.violates("customer_email_index_even_unique") => Ok(false),
        updated => expect_one(updated?.rows_affected(), "customer").map(|()| true),
    }
}

/// A new password. Whoever could set it has shown that mail to the address arrives, so the address counts as verified.
pub async fn update_password(db: &mut PgConnection, id: CustomerId, password_hash: &str, at: DateTime<Utc>) -> Result<(), StoreError> {
    let updated = sqlx::query!(
        "UPDATE customer SET password_hash = $2, email_verified_at = coalesce(email_verified_at, $3), updated_at = $3 WHERE id = $1",
        id as _,
        password_hash,
        at,
    );
    expect_one(updated.execute(db).await?.rows_affected(), "customer")
}

/// The new hash of a password that its owner knows; says nothing about the address.
pub async fn update_password_hash(db: &mut PgConnection, id: CustomerId, password_hash: &str, at: DateTime<Utc>) -> Result<(), StoreError> {
    let updated = sqlx::query!("UPDATE customer SET password_hash = $2, updated_at = $3 WHERE id = $1", id as _, password_hash, at);
    expect_one(updated.execute(db).await?.rows_affected(), "customer")
}

/// What is to change of a customer; what is `None` stays.
pub struct ProfileChange {
    pub name_sealed: Option<Vec<u8>>,
    /// `Some(None)` removes the number.
    pub phone_sealed: Option<Option<Vec<u8>>>,
    pub locale: Option<Locale>,
}

/// False when there is no such customer.
pub async fn update_profile(db: &mut PgConnection, id: CustomerId, change: &ProfileChange, at: DateTime<Utc>) -> Result<bool, StoreError> {
    let updated = sqlx::query!(
        "UPDATE customer
            SET name_sealed = coalesce($2, name_sealed), phone_sealed = CASE WHEN $3 THEN $4 ELSE phone_sealed END,
                locale = coalesce($5, locale), updated_at = $6
          WHERE id = $1 AND deleted_at IS NULL",
        id as _,
        change.name_sealed.as_deref(),
        change.phone_sealed.is_some(),
        change.phone_sealed.as_ref().and_then(Option::as_deref),
        change.locale as _,
        at,
    );
    Ok(updated.execute(db).await?.rows_affected() == 1)
}

pub async fn update_role(db: &mut PgConnection, id: CustomerId, role: Role, at: DateTime<Utc>) -> Result<(), StoreError> {
    let updated = sqlx::query!("UPDATE customer SET role = $2, updated_at = $3 WHERE id = $1", id as _, role as _, at);
    expect_one(updated.execute(db).await?.rows_affected(), "customer")
}

/// Erases what is personal of a customer, for ever. Call with the row locked.
pub async fn erase(db: &mut PgConnection, id: CustomerId, at: DateTime<Utc>) -> Result<(), StoreError> {
    let erased = sqlx::query!(
        "UPDATE customer
            SET email_sealed = NULL, email_index = NULL, email_index_even = NULL, email_verified_at = NULL, name_sealed = NULL,
                phone_sealed = NULL, password_hash = NULL, role = 'CUSTOMER', deleted_at = $2, updated_at = $2
          WHERE id = $1 AND deleted_at IS NULL",
        id as _,
        at,
    );
    expect_one(erased.execute(db).await?.rows_affected(), "customer")
}

/// What a one-time token is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenPurpose {
    VerifyEmail,
    ResetPassword,
    ChangeEmail,
}

impl TokenPurpose {
    pub const ALL: [Self; 3] = [Self::VerifyEmail, Self::ResetPassword, Self::ChangeEmail];

    const fn as_str(self) -> &'static str {
        match self {
            Self::VerifyEmail => "VERIFY_EMAIL",
            Self::ResetPassword => "RESET_PASSWORD",
            Self::ChangeEmail => "CHANGE_EMAIL",
        }
    }
}

pub struct NewOneTimeToken<'a> {
    pub id: OneTimeTokenId,
    pub customer: CustomerId,
    pub purpose: TokenPurpose,
    pub hash: &'a [u8],
    /// For `ChangeEmail` alone.
    pub new_email_sealed: Option<Vec<u8>>,
    pub expires_at: DateTime<Utc>,
}

/// Voids the customer's tokens for these purposes.
pub async fn void_tokens(
    db: &mut PgConnection,
    customer: CustomerId,
    purposes: &[TokenPurpose],
    at: DateTime<Utc>,
) -> Result<(), StoreError> {
    sqlx::query!(
        "UPDATE one_time_token SET used_at = $3 WHERE customer_id = $1 AND purpose = ANY($2) AND used_at IS NULL",
        customer as _,
        &purposes.iter().map(|purpose| purpose.as_str().to_owned()).collect::<Vec<_>>(),
        at,
    )
    .execute(db)
    .await?;
    Ok(())
}

/// Stores a token's hash and voids the customer's earlier ones for the same purpose.
pub async fn replace_token(db: &mut PgConnection, token: &NewOneTimeToken<'_>, at: DateTime<Utc>) -> Result<(), StoreError> {
    void_tokens(db, token.customer, &[token.purpose], at).await?;
    sqlx::query!(
        "INSERT INTO one_time_token (id, customer_id, purpose, token_hash, new_email_sealed, created_at, expires_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7)",
        token.id as _,
        token.customer as _,
        token.purpose.as_str(),
        token.hash,
        token.new_email_sealed.as_deref(),
        at,
        token.expires_at,
    )
    .execute(db)
    .await?;
    Ok(())
}

/// Whose token this is, used or not.
pub async fn find_token_owner(db: &mut PgConnection, purpose: TokenPurpose, hash: &[u8]) -> Result<Option<CustomerId>, StoreError> {
    let customer = sqlx::query_scalar!(
        r#"SELECT customer_id AS "customer_id: CustomerId" FROM one_time_token WHERE token_hash = $1 AND purpose = $2"#,
        hash,
        purpose.as_str(),
    );
    Ok(customer.fetch_optional(db).await?)
}

pub struct UsedToken {
    pub id: OneTimeTokenId,
    pub new_email_sealed: Option<Vec<u8>>,
}

/// Uses a token up; `None` when it is used or expired. One statement, so that two uses at the same moment are one.
pub async fn use_token(
    db: &mut PgConnection,
    purpose: TokenPurpose,
    hash: &[u8],
    at: DateTime<Utc>,
) -> Result<Option<UsedToken>, StoreError> {
    let used = sqlx::query_as!(
        UsedToken,
        r#"UPDATE one_time_token SET used_at = $3 WHERE token_hash = $1 AND purpose = $2 AND used_at IS NULL AND expires_at > $3
        RETURNING id AS "id: OneTimeTokenId", new_email_sealed"#,
        hash,
        purpose.as_str(),
        at,
    );
    Ok(used.fetch_optional(db).await?)
}

/// Forgets all tokens of a customer.
pub async fn delete_tokens(db: &mut PgConnection, customer: CustomerId) -> Result<(), StoreError> {
    sqlx::query!("DELETE FROM one_time_token WHERE customer_id = $1", customer as _).execute(db).await?;
    Ok(())
}

/// Forgets tokens that expired before this moment.
pub async fn delete_tokens_expired_before(db: &mut PgConnection, at: DateTime<Utc>) -> Result<(), StoreError> {
    sqlx::query!("DELETE FROM one_time_token WHERE expires_at < $1", at).execute(db).await?;
    Ok(())
}
