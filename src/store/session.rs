//! Sessions: log-ins and the rotation of their refresh tokens.

use chrono::{DateTime, Utc};
use sqlx::PgConnection;

use super::{StoreError, expect_one};
use crate::domain::{
    customer::Role,
    ids::{CustomerId, SessionId},
};

#[derive(Clone, Debug)]
pub struct Session {
    pub id: SessionId,
    pub customer_id: CustomerId,
    pub role: Role,
    pub generation: i32,
    pub refresh_hash: Vec<u8>,
    pub rotated_at: DateTime<Utc>,
    pub expires_at: DateTime<Utc>,
    pub revoked_at: Option<DateTime<Utc>>,
}

/// A session that stands, as its owner sees it.
#[derive(Clone, Debug)]
pub struct OpenSession {
    pub id: SessionId,
    pub customer_id: CustomerId,
    pub user_agent_sealed: Option<Vec<u8>>,
    pub created_at: DateTime<Utc>,
    pub last_used_at: DateTime<Utc>,
    pub expires_at: DateTime<Utc>,
}

pub struct NewSession<'a> {
    pub id: SessionId,
    pub customer: CustomerId,
    pub refresh_hash: &'a [u8],
    pub user_agent_sealed: Option<Vec<u8>>,
    pub expires_at: DateTime<Utc>,
}

pub async fn insert(db: &mut PgConnection, session: &NewSession<'_>, at: DateTime<Utc>) -> Result<(), StoreError> {
    sqlx::query!(
        "INSERT INTO session (id, customer_id, refresh_hash, rotated_at, user_agent_sealed, created_at, last_used_at, expires_at)
         VALUES ($1, $2, $3, $4, $5, $4, $4, $6)",
        session.id as _,
        session.customer as _,
        session.refresh_hash,
        at,
        session.user_agent_sealed.as_deref(),
        session.expires_at,
    )
    .execute(db)
    .await?;
    Ok(())
}

/// The sessions of each customer that stand, last used first; the first `per_customer` of them.
pub async fn list_open_for_customers(
    db: &mut PgConnection,
    customers: &[CustomerId],
    now: DateTime<Utc>,
    per_customer: i64,
) -> Result<Vec<OpenSession>, StoreError> {
    let rows = sqlx::query_as!(
        OpenSession,
        r#"SELECT s.id AS "id!: SessionId", c.customer_id AS "customer_id!: CustomerId", s.user_agent_sealed,
                  s.created_at AS "created_at!", s.last_used_at AS "last_used_at!", s.expires_at AS "expires_at!"
             FROM unnest($1::uuid[]) AS c (customer_id)
            CROSS JOIN LATERAL (SELECT * FROM session
                                 WHERE customer_id = c.customer_id AND revoked_at IS NULL AND expires_at > $2
                                 ORDER BY last_used_at DESC, id DESC LIMIT $3) s
            ORDER BY s.last_used_at DESC, s.id DESC"#,
        customers as _,
        now,
        per_customer,
    );
    Ok(rows.fetch_all(db).await?)
}

/// The session with the customer's present role, locked until the transaction ends.
pub async fn lock(db: &mut PgConnection, id: SessionId) -> Result<Option<Session>, StoreError> {
    let row = sqlx::query_as!(
        Session,
        r#"SELECT s.id AS "id: SessionId", s.customer_id AS "customer_id: CustomerId", c.role AS "role: Role", s.generation,
                  s.refresh_hash, s.rotated_at, s.expires_at, s.revoked_at
             FROM session s
             JOIN customer c ON c.id = s.customer_id
            WHERE s.id = $1
              FOR UPDATE OF s"#,
        id as _,
    );
    Ok(row.fetch_optional(db).await?)
}

/// Makes `refresh_hash` the session's only valid token.
pub async fn update_rotated(db: &mut PgConnection, id: SessionId, refresh_hash: &[u8], at: DateTime<Utc>) -> Result<(), StoreError> {
    let updated = sqlx::query!(
        "UPDATE session
            SET generation = generation + 1, refresh_hash = $2, rotated_at = $3, last_used_at = $3
          WHERE id = $1 AND revoked_at IS NULL",
        id as _,
        refresh_hash,
        at,
    );
    expect_one(updated.execute(db).await?.rows_affected(), "live session")
}

/// Ends a session; an ended one stays as it is.
pub async fn update_revoked(db: &mut PgConnection, id: SessionId, at: DateTime<Utc>) -> Result<(), StoreError> {
    sqlx::query!("UPDATE session SET revoked_at = $2 WHERE id = $1 AND revoked_at IS NULL", id as _, at).execute(db).await?;
    Ok(())
}

/// Ends a session of this customer; false when there is none that stands.
pub async fn update_revoked_for_customer(
    db: &mut PgConnection,
    id: SessionId,
    customer: CustomerId,
    at: DateTime<Utc>,
) -> Result<bool, StoreError> {
    let revoked = sqlx::query!(
        "UPDATE session SET revoked_at = $3 WHERE id = $1 AND customer_id = $2 AND revoked_at IS NULL AND expires_at > $3",
        id as _,
        customer as _,
        at,
    );
    Ok(revoked.execute(db).await?.rows_affected() == 1)
}

/// Ends all sessions of a customer and tells which they were.
pub async fn update_all_revoked(db: &mut PgConnection, customer: CustomerId, at: DateTime<Utc>) -> Result<Vec<SessionId>, StoreError> {
    update_revoked_except(db, customer, None, at).await
}

/// Ends all sessions of a customer but `kept`, and tells which they were.
pub async fn update_others_revoked(
    db: &mut PgConnection,
    customer: CustomerId,
    kept: SessionId,
    at: DateTime<Utc>,
) -> Result<Vec<SessionId>, StoreError> {
    update_revoked_except(db, customer, Some(kept), at).await
}

async fn update_revoked_except(
    db: &mut PgConnection,
    customer: CustomerId,
    kept: Option<SessionId>,
    at: DateTime<Utc>,
) -> Result<Vec<SessionId>, StoreError> {
    let ids = sqlx::query_scalar!(
        r#"UPDATE session SET revoked_at = $3
            WHERE customer_id = $1 AND id IS DISTINCT FROM $2 AND revoked_at IS NULL RETURNING id AS "id: SessionId""#,
        customer as _,
        kept as _,
        at,
    );
    Ok(ids.fetch_all(db).await?)
}

/// Forgets on which devices the sessions of a customer were.
pub async fn erase(db: &mut PgConnection, customer: CustomerId) -> Result<(), StoreError> {
    sqlx::query!("UPDATE session SET user_agent_sealed = NULL WHERE customer_id = $1 AND user_agent_sealed IS NOT NULL", customer as _)
        .execute(db)
        .await?;
    Ok(())
}

/// Sessions that ended after `since`, with the moment.
pub async fn list_revoked_since(db: &mut PgConnection, since: DateTime<Utc>) -> Result<Vec<(SessionId, DateTime<Utc>)>, StoreError> {
    let rows = sqlx::query!(r#"SELECT id AS "id: SessionId", revoked_at AS "revoked_at!" FROM session WHERE revoked_at > $1"#, since)
        .fetch_all(db)
        .await?;
    Ok(rows.into_iter().map(|row| (row.id, row.revoked_at)).collect())
}
