//! What metrics show of the database. Every statement costs about the same however many orders, units and messages there are: it
//! reads the head of an index, sums of counters, or so many rows at most.

use chrono::{DateTime, Utc};
use sqlx::PgConnection;
use uuid::Uuid;

use super::{StoreError, queue::Queue};

/// Units of the sales that are not over, by the sales' counters: units themselves are not counted.
#[derive(Clone, Debug)]
pub struct UnitTotals {
    pub free: i64,
    pub held: i64,
    pub sold: i64,
}

pub async fn get_units(db: &mut PgConnection, now: DateTime<Utc>) -> Result<UnitTotals, StoreError> {
    let totals = sqlx::query_as!(
        UnitTotals,
        r#"SELECT coalesce(sum(total_units - claimed), 0)::bigint AS "free!", coalesce(sum(claimed - sold), 0)::bigint AS "held!",
                  coalesce(sum(sold), 0)::bigint AS "sold!"
             FROM flash_sale_live
            WHERE closes_at > $1 AND cancelled_at IS NULL AND units_ready_at IS NOT NULL"#,
        now,
    );
    Ok(totals.fetch_one(db).await?)
}

/// In seconds; 0 when there is none.
#[derive(Clone, Debug)]
pub struct Ages {
    /// How long the hold has been over that has been over longest, of an order that is unpaid still.
    pub oldest_hold: f64,
    /// Of any client in this database: what it has seen no vacuum can take away.
    pub oldest_transaction: f64,
}

/// The head of the index of holds is the oldest one but for pauses, which are the same for neighbours.
pub async fn get_ages(db: &mut PgConnection, now: DateTime<Utc>) -> Result<Ages, StoreError> {
    let ages = sqlx::query_as!(
        Ages,
        r#"SELECT greatest(0, coalesce((SELECT extract(epoch FROM $1 - hold_ends_at(o)) FROM orders o
                                         WHERE o.status IN ('AWAITING_PAYMENT', 'EXPIRING')
                                         ORDER BY o.hold_expires_at LIMIT 1), 0))::float8 AS "oldest_hold!",
                  greatest(0, coalesce((SELECT extract(epoch FROM clock_timestamp() - min(xact_start)) FROM pg_stat_activity
                                         WHERE datname = current_database() AND backend_type = 'client backend'
                                           AND pid <> pg_backend_pid()), 0))::float8 AS "oldest_transaction!""#,
        now,
    );
    Ok(ages.fetch_one(db).await?)
}

/// A queue's messages, of so many at most.
#[derive(Clone, Copy, Debug, sqlx::FromRow)]
pub struct QueueTotals {
    pub ready: i64,
    /// Hidden by a worker that is at it.
    pub in_flight: i64,
}

pub async fn get_queue(db: &mut PgConnection, queue: Queue, most: i64) -> Result<QueueTotals, StoreError> {
    // The table's name is one of ours.
    let sql = format!(
        "SELECT count(*) FILTER (WHERE vt <= clock_timestamp()) AS ready, count(*) FILTER (WHERE vt > clock_timestamp()) AS in_flight
           FROM (SELECT vt FROM pgmq.q_{} LIMIT $1) m",
        queue.as_str()
    );
    Ok(sqlx::query_as(&sql).bind(most).fetch_one(db).await?)
}

/// A count of what has a label in common.
#[derive(Clone, Debug)]
pub struct Count {
    /// The metric that shows it.
    pub metric: String,
    pub label: String,
    pub count: i64,
}

/// Orders and payments of the `newest` ones since a time, by status; what waits to be tried again and dead letters, `most` of them, by
/// queue; rows that a vacuum would take away, as the statistics estimate them, by table; the leases that `holder` has.
pub async fn list_counts(
    db: &mut PgConnection,
    since: DateTime<Utc>,
    newest: i64,
    most: i64,
    holder: Uuid,
) -> Result<Vec<Count>, StoreError> {
    // Ids of orders and payments rise with the time, and their primary keys are the only index of time that payments have.
    let counts = sqlx::query_as!(
        Count,
        r#"SELECT 'orders' AS "metric!", status AS "label!", count(*) AS "count!"
             FROM (SELECT status, created_at FROM orders ORDER BY id DESC LIMIT $2) o WHERE created_at > $1 GROUP BY status
           UNION ALL
           SELECT 'payments', status, count(*)
             FROM (SELECT status, created_at FROM payment ORDER BY id DESC LIMIT $2) p WHERE created_at > $1 GROUP BY status
           UNION ALL
           SELECT 'retries', queue, count(*) FROM (SELECT queue FROM retry LIMIT $3) r GROUP BY queue
           UNION ALL
           SELECT 'delayed', queue, count(*) FROM (SELECT queue FROM retry WHERE due_at IS NOT NULL LIMIT $3) r GROUP BY queue
           UNION ALL
           SELECT 'dead_letters', queue, count(*) FROM (SELECT queue FROM dead_letter LIMIT $3) d GROUP BY queue
           UNION ALL
           SELECT 'dead_tuples', relname, n_dead_tup FROM pg_stat_user_tables WHERE schemaname = 'public' OR relname LIKE 'q\_%'
           UNION ALL
           SELECT 'lease_held', name, 1 FROM lease WHERE holder = $4 AND expires_at > clock_timestamp()"#,
        since,
        newest,
        most,
        holder,
    );
    Ok(counts.fetch_all(db).await?)
}
