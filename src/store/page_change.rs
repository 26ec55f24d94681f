//! What has changed of the things that pages are made from. Written by triggers, in the transactions that change them.

use chrono::{DateTime, Utc};
use sqlx::PgConnection;

use super::StoreError;
use crate::domain::page::{PageTag, PageTagKind, Snapshot};

/// What was changed, and by which transaction.
pub type Change = (PageTag, u64);

/// The database's present snapshot, and all changes that it sees and an earlier one with this `xmin` may not have seen.
pub async fn list_since(db: &mut PgConnection, xmin: u64) -> Result<(Snapshot, Vec<Change>), StoreError> {
    let rows = sqlx::query!(
        r#"SELECT pg_current_snapshot()::text AS "snapshot!", c.kind AS "kind?: PageTagKind", c.id AS "id?", c.changed_in::text AS "changed_in?"
             FROM (VALUES (1)) AS always LEFT JOIN page_change c ON c.changed_in >= $1::text::xid8"#,
        xmin.to_string(),
    )
    .fetch_all(db)
    .await?;
    let snapshot = rows.first().and_then(|row| row.snapshot.parse().ok()).ok_or(StoreError::Missing("snapshot"))?;
    let changes = rows.into_iter().filter_map(|row| Some((PageTag::of(row.kind?, row.id?), row.changed_in?.parse().ok()?)));
    Ok((snapshot, changes.collect()))
}

/// Names this database among all that share a Redis.
pub async fn get_database_name(db: &mut PgConnection) -> Result<String, StoreError> {
    let name = sqlx::query_scalar!(
        r#"SELECT format('%s-%s', (SELECT system_identifier FROM pg_control_system()), oid) AS "name!"
             FROM pg_database WHERE datname = current_database()"#
    );
    Ok(name.fetch_one(db).await?)
}

/// Forgets changes from before `horizon`, at most `limit` at once; how many there were.
pub async fn delete_before(db: &mut PgConnection, horizon: DateTime<Utc>, limit: i64) -> Result<u64, StoreError> {
    let deleted = sqlx::query!(
        "DELETE FROM page_change WHERE ctid = ANY(ARRAY(SELECT ctid FROM page_change WHERE changed_at < $1 LIMIT $2))",
        horizon,
        limit,
    );
    Ok(deleted.execute(db).await?.rows_affected())
}
