//! Dead letters: what people look at, send again, or discard.

use chrono::{DateTime, Utc};
use serde_json::Value;
use sqlx::PgConnection;

use super::{Page, StoreError, queue};
use crate::domain::ids::DeadLetterId;

#[derive(Clone, Debug)]
pub struct DeadLetter {
    pub id: DeadLetterId,
    pub queue: String,
    pub kind: String,
    pub payload: Value,
    pub reason: String,
    pub last_error: Option<String>,
    pub attempts: i32,
    pub trace_id: Option<String>,
    pub enqueued_at: DateTime<Utc>,
    pub dead_at: DateTime<Utc>,
}

/// A dead letter's place in the list: newest first.
#[derive(Clone, Copy, Debug)]
pub struct DeadLetterPosition {
    pub dead_at: DateTime<Utc>,
    pub id: DeadLetterId,
}

/// One page, of one queue or of all.
pub async fn list(
    db: &mut PgConnection,
    queue: Option<&str>,
    after: Option<DeadLetterPosition>,
    size: usize,
) -> Result<Page<DeadLetter>, StoreError> {
    let rows = sqlx::query_as!(
        DeadLetter,
        r#"SELECT id AS "id: DeadLetterId", queue, kind, payload, reason, last_error, attempts, trace_id, enqueued_at, dead_at
             FROM dead_letter
            WHERE ($1::text IS NULL OR queue = $1)
              AND ($2::timestamptz IS NULL OR (dead_at, id) < ($2, $3::uuid))
            ORDER BY dead_at DESC, id DESC
            LIMIT $4"#,
        queue,
        after.map(|position| position.dead_at),
        after.map(|position| position.id) as _,
        i64::try_from(size + 1).unwrap_or(i64::MAX),
    );
    Ok(Page::from_surplus(rows.fetch_all(db).await?, size))
}

pub async fn count(db: &mut PgConnection, queue: Option<&str>) -> Result<i64, StoreError> {
    let count = sqlx::query_scalar!(r#"SELECT count(*) AS "count!" FROM dead_letter WHERE $1::text IS NULL OR queue = $1"#, queue);
    Ok(count.fetch_one(db).await?)
}

pub async fn list_by_ids(db: &mut PgConnection, ids: &[DeadLetterId]) -> Result<Vec<DeadLetter>, StoreError> {
    let rows = sqlx::query_as!(
        DeadLetter,
        r#"SELECT id AS "id: DeadLetterId", queue, kind, payload, reason, last_error, attempts, trace_id, enqueued_at, dead_at
             FROM dead_letter
            WHERE id = ANY($1)"#,
        ids as _,
    );
    Ok(rows.fetch_all(db).await?)
}

/// Removes dead letters and answers those that were there: of two who send one again at the same moment, one has it.
pub async fn delete(db: &mut PgConnection, ids: &[DeadLetterId]) -> Result<Vec<(String, Value)>, StoreError> {
    let rows = sqlx::query!("DELETE FROM dead_letter WHERE id = ANY($1) RETURNING queue, payload", ids as _).fetch_all(db).await?;
    Ok(rows.into_iter().map(|row| (row.queue, row.payload)).collect())
}

/// Removes dead letters and puts their messages back into their queues; how many there were.
pub async fn send_again(db: &mut PgConnection, ids: &[DeadLetterId]) -> Result<usize, StoreError> {
    let letters = delete(db, ids).await?;
    for (queue, payload) in &letters {
        queue::send_body(db, queue, payload).await?;
    }
    Ok(letters.len())
}
