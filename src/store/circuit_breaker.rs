//! The circuit breakers of all workers, as each of them tells.

use chrono::{DateTime, Utc};
use sqlx::PgConnection;
use uuid::Uuid;

use super::StoreError;
use crate::domain::circuit_breaker::BreakerState;

#[derive(Clone, Debug)]
pub struct Breaker {
    pub operation: String,
    pub state: BreakerState,
    /// Of its last calls, 0 to 1.
    pub failure_rate: f64,
    pub since: DateTime<Utc>,
}

/// Tells how the breakers of a process are.
pub async fn upsert(db: &mut PgConnection, process: Uuid, breakers: &[Breaker], at: DateTime<Utc>) -> Result<(), StoreError> {
    sqlx::query!(
        "INSERT INTO circuit_breaker (process, operation, state, failure_rate, since, seen_at)
         SELECT $1, b.operation, b.state, b.failure_rate, b.since, $6
           FROM unnest($2::text[], $3::text[], $4::float8[], $5::timestamptz[]) AS b (operation, state, failure_rate, since)
             ON CONFLICT (process, operation) DO UPDATE
            SET state = excluded.state, failure_rate = excluded.failure_rate, since = excluded.since, seen_at = excluded.seen_at",
        process,
        &breakers.iter().map(|breaker| breaker.operation.clone()).collect::<Vec<_>>(),
        &breakers.iter().map(|breaker| breaker.state.as_str().to_owned()).collect::<Vec<_>>(),
        &breakers.iter().map(|breaker| breaker.failure_rate).collect::<Vec<_>>(),
        &breakers.iter().map(|breaker| breaker.since).collect::<Vec<_>>(),
        at,
    )
    .execute(db)
    .await?;
    Ok(())
}

/// Each operation's breaker as the worst of the processes that told of it after `seen_after` has it.
pub async fn list_worst(db: &mut PgConnection, seen_after: DateTime<Utc>) -> Result<Vec<Breaker>, StoreError> {
    let rows = sqlx::query_as!(
        Breaker,
        r#"SELECT DISTINCT ON (operation) operation, state AS "state: BreakerState", failure_rate, since
             FROM circuit_breaker
            WHERE seen_at > $1
            ORDER BY operation, array_position(ARRAY['OPEN', 'HALF_OPEN', 'CLOSED'], state), failure_rate DESC"#,
        seen_after,
    );
    Ok(rows.fetch_all(db).await?)
}

/// Forgets processes that are gone.
pub async fn delete_before(db: &mut PgConnection, seen_before: DateTime<Utc>) -> Result<(), StoreError> {
    sqlx::query!("DELETE FROM circuit_breaker WHERE seen_at < $1", seen_before).execute(db).await?;
    Ok(())
}
