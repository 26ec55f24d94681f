//! The pools of connections, which time how long their callers wait.

use std::{
    ops::Deref,
    time::{Duration, Instant},
};

use prometheus_client::metrics::histogram::Histogram;
use secrecy::{ExposeSecret, SecretString};
use sqlx::{
    Connection, PgPool, Postgres, Transaction,
    pool::PoolConnection,
    postgres::{PgConnectOptions, PgPoolOptions},
};

use super::StoreError;

/// How long a request waits for a connection before it counts as "too many at once".
pub const REQUEST_PATIENCE: Duration = Duration::from_millis(500);
/// Background work can wait longer.
pub const JOB_PATIENCE: Duration = Duration::from_secs(5);
/// How long a connection that comes back to its pool may take to be free.
const RELEASE_PATIENCE: Duration = Duration::from_millis(200);

/// A pool whose callers wait at most `patience` for a connection, and whose connections show up under `name` in `pg_stat_activity`. Connects on first use.
///
/// # Errors
/// When the URL is not one of `PostgreSQL`.
pub fn pool(url: &SecretString, connections: u32, patience: Duration, name: &str) -> Result<PgPool, StoreError> {
    let options: PgConnectOptions = url.expose_secret().parse()?;
    let pool = PgPoolOptions::new().max_connections(connections).acquire_timeout(patience);
    // Whoever was cut off has left a statement that may wait for long, or a server that will never answer: such a connection is
    // closed and its place is free. Without this it would be waited for, without end.
    let pool = pool.after_release(|connection, _| {
        Box::pin(async move {
            let late = |_| sqlx::Error::Io(std::io::ErrorKind::TimedOut.into());
            tokio::time::timeout(RELEASE_PATIENCE, connection.ping()).await.map_err(late)?.map(|()| true)
        })
    });
    Ok(pool.connect_lazy_with(options.application_name(name)))
}

/// A pool that times its callers. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Database {
    pool: PgPool,
    waits: Histogram,
}

impl Database {
    /// How long callers wait is written to `waits`.
    #[must_use]
    pub const fn new(pool: PgPool, waits: Histogram) -> Self {
        Self { pool, waits }
    }

    /// # Errors
    /// When none is free within the pool's patience, or the database is away.
    pub async fn acquire(&self) -> Result<PoolConnection<Postgres>, sqlx::Error> {
        let _wait = Wait::begin(&self.waits);
        self.pool.acquire().await
    }

    /// Begins a transaction on a connection of its own.
    ///
    /// # Errors
    /// As [`Database::acquire`].
    pub async fn begin(&self) -> Result<Transaction<'static, Postgres>, sqlx::Error> {
        let _wait = Wait::begin(&self.waits);
        self.pool.begin().await
    }
}

/// A caller's wait until this goes out of scope. Whoever gives up, or is cut off, has waited as well.
struct Wait<'a> {
    asked: Instant,
    waits: &'a Histogram,
}

impl<'a> Wait<'a> {
    fn begin(waits: &'a Histogram) -> Self {
        Self { asked: Instant::now(), waits }
    }
}

impl Drop for Wait<'_> {
    fn drop(&mut self) {
        self.waits.observe(self.asked.elapsed().as_secs_f64());
    }
}

/// For its sizes and its end. Who wants a connection asks the [`Database`] itself, which times it.
impl Deref for Database {
    type Target = PgPool;

    fn deref(&self) -> &PgPool {
        &self.pool
    }
}
