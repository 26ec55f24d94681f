//! Work that failed and is due again later. It waits in a table and not in its queue, which would walk over every message that is
//! not visible yet for each that is.

use chrono::{DateTime, Utc};
use sqlx::PgConnection;
use uuid::Uuid;

use super::{
    StoreError,
    queue::{self, Delivery, Queue},
};

/// Work that is due again.
#[derive(Clone, Debug)]
pub struct Due {
    pub queue: String,
    pub kind: String,
    pub target: Uuid,
    pub trace: Option<String>,
}

/// How often work has failed, and since when.
#[derive(Clone, Copy, Debug)]
pub struct Failures {
    pub attempts: i32,
    pub first_at: DateTime<Utc>,
}

/// Notes a failure of a delivery's work, and counts it unless it says nothing of the work; the first one always counts.
pub async fn insert_failure(
    db: &mut PgConnection,
    delivery: &Delivery,
    error: &str,
    counts: bool,
    at: DateTime<Utc>,
) -> Result<Failures, StoreError> {
    let failures = sqlx::query_as!(
        Failures,
        "INSERT INTO retry (queue, kind, target_id, trace, attempts, last_error, first_failed_at)
         VALUES ($1, $2, $3, $4, 1, $5, $6)
             ON CONFLICT (queue, kind, target_id) DO UPDATE
            SET attempts = retry.attempts + $7::integer, last_error = excluded.last_error, due_at = NULL
      RETURNING attempts, first_failed_at AS first_at",
        delivery.queue.as_str(),
        delivery.kind,
        delivery.id,
        delivery.trace,
        error,
        at,
        i32::from(counts),
    );
    Ok(failures.fetch_one(db).await?)
}

/// Makes it due at a time: the leader then sends its message.
pub async fn update_due(db: &mut PgConnection, delivery: &Delivery, due_at: DateTime<Utc>) -> Result<(), StoreError> {
    sqlx::query!(
        "UPDATE retry SET due_at = $4 WHERE queue = $1 AND kind = $2 AND target_id = $3",
        delivery.queue.as_str(),
        delivery.kind,
        delivery.id,
        due_at,
    )
    .execute(db)
    .await?;
    Ok(())
}

/// Forgets the failures of work that is done, or given up.
pub async fn delete(db: &mut PgConnection, queue: Queue, kind: &str, target: Uuid) -> Result<(), StoreError> {
    sqlx::query!("DELETE FROM retry WHERE queue = $1 AND kind = $2 AND target_id = $3", queue.as_str(), kind, target).execute(db).await?;
    Ok(())
}

/// Forgets failures from before `horizon` of work that has gone well since.
pub async fn delete_before(db: &mut PgConnection, horizon: DateTime<Utc>) -> Result<(), StoreError> {
    sqlx::query!("DELETE FROM retry WHERE due_at IS NULL AND first_failed_at < $1", horizon).execute(db).await?;
    Ok(())
}

/// Puts what is due back into its queue, at most `limit` of it; how much it was.
pub async fn send_due(db: &mut PgConnection, now: DateTime<Utc>, limit: i64) -> Result<usize, StoreError> {
    let due = sqlx::query_as!(
        Due,
        "UPDATE retry SET due_at = NULL
          WHERE (queue, kind, target_id) IN (SELECT queue, kind, target_id FROM retry WHERE due_at <= $1 ORDER BY due_at LIMIT $2
                                                FOR UPDATE SKIP LOCKED)
      RETURNING queue, kind, target_id AS target, trace",
        now,
        limit,
    )
    .fetch_all(&mut *db)
    .await?;
    for work in &due {
        if let Some(queue) = Queue::ALL.into_iter().find(|queue| queue.as_str() == work.queue) {
            queue::send_in(db, queue, &work.kind, work.target, work.trace.as_deref()).await?;
        }
    }
    Ok(due.len())
}
