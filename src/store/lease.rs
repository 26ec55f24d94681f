//! Leases: who may do what must be done once.

use std::time::Duration;

use sqlx::PgConnection;
use uuid::Uuid;

use super::StoreError;

/// The lease of whoever ends holds and cleans up.
pub const LEADER: &str = "leader";
/// The lease of whoever compares the provider's charges with our payments.
pub const RECONCILIATION: &str = "reconciliation";
/// The lease of whoever makes the units of sales.
pub const UNITS: &str = "units";
/// The lease of whoever calls off and empties sales that are over.
pub const SALES_OVER: &str = "sales over";
/// The lease of the worker that audits the data by itself.
pub const AUDIT: &str = "audit";

pub const ALL: [&str; 5] = [LEADER, RECONCILIATION, UNITS, SALES_OVER, AUDIT];

/// Takes the lease, or renews it, for `lasting`, by the database's clock; the term, or `None` while another one holds it.
pub async fn take(db: &mut PgConnection, name: &str, holder: Uuid, lasting: Duration) -> Result<Option<i64>, StoreError> {
    let term = sqlx::query_scalar!(
        "INSERT INTO lease (name, holder, term, expires_at)
         VALUES ($1, $2, 1, clock_timestamp() + make_interval(secs => $3))
             ON CONFLICT (name) DO UPDATE
            SET holder = excluded.holder, expires_at = excluded.expires_at,
                term = lease.term + CASE WHEN lease.holder = excluded.holder THEN 0 ELSE 1 END
          WHERE lease.holder = excluded.holder OR lease.expires_at < clock_timestamp()
      RETURNING term",
        name,
        holder,
        lasting.as_secs_f64(),
    );
    Ok(term.fetch_optional(db).await?)
}

/// Whether this term still stands; if so, it does until the transaction ends.
pub async fn lock_term(db: &mut PgConnection, name: &str, term: i64) -> Result<bool, StoreError> {
    let stands = sqlx::query_scalar!(
        "SELECT 1 AS stands FROM lease WHERE name = $1 AND term = $2 AND expires_at > clock_timestamp() FOR SHARE",
        name,
        term,
    );
    Ok(stands.fetch_optional(db).await?.is_some())
}

/// Gives the lease back, so that another process need not wait for its end.
pub async fn end(db: &mut PgConnection, name: &str, holder: Uuid) -> Result<(), StoreError> {
    sqlx::query!("UPDATE lease SET expires_at = clock_timestamp() WHERE name = $1 AND holder = $2", name, holder).execute(db).await?;
    Ok(())
}
