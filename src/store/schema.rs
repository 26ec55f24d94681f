//! The schema's life: pgmq by the crate's own installer, then the SQL migrations, under one lock.
//!
//! Owns: what `migrate` does, and the check that a server makes before it takes requests.

use std::path::Path;

use sqlx::{
    Connection, PgConnection, PgPool,
    migrate::{Migrate, MigrateError, Migrator},
};

use super::{StoreError, queue::Queue};

pub static MIGRATOR: Migrator = sqlx::migrate!();

/// Two `migrate run` at the same moment follow one another.
const LOCK: i64 = 0x0077_6d5f_6d69_6772;

/// Settings of the database itself, in force for every new connection. They are in no dump of its content, so every run makes
/// them.
///
/// - A plan that is kept is the one of the tables as they were: one made while they were empty reads a million rows for each
///   payment an hour later (docs/adr/0011). So each call is planned anew.
/// - What is estimated to take long, as a filter that nothing passes is, would be compiled first: 300 ms for a statement of one.
/// - Nothing of ours takes a minute but what says so. The program has deadlines of its own, which a program that has hung does
///   not keep; its statements end, and its locks with them.
/// - A connection whose other end has gone without a word, as it does when a machine or a network dies, is noticed within half a
///   minute, also while a statement runs for it.
const DATABASE_SETTINGS: [(&str, &str); 8] = [
    ("jit", "off"),
    ("plan_cache_mode", "force_custom_plan"),
    ("statement_timeout", "60s"),
    ("idle_in_transaction_session_timeout", "60s"),
    ("client_connection_check_interval", "2s"),
    ("tcp_keepalives_idle", "10"),
    ("tcp_keepalives_interval", "5"),
    ("tcp_keepalives_count", "3"),
];

#[derive(Debug, thiserror::Error)]
pub enum SchemaError {
    #[error("pgmq could not be installed: {0}")]
    Pgmq(#[from] pgmq::PgmqError),
    #[error(transparent)]
    Migrate(#[from] MigrateError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the database has migration {0}, which this program does not know: it is newer than the program")]
    Newer(i64),
    #[error("the database lacks migration {0}: run `whitemonday migrate run`")]
    Older(i64),
    #[error("migration {0} says that it is irreversible")]
    Irreversible(i64),
    #[error("there is nothing to revert")]
    NothingToRevert,
}

impl SchemaError {
    /// The database answers, and its schema is not the program's.
    #[must_use]
    pub const fn is_mismatch(&self) -> bool {
        matches!(self, Self::Newer(_) | Self::Older(_))
    }
}

impl From<sqlx::Error> for SchemaError {
    fn from(error: sqlx::Error) -> Self {
        Self::Store(error.into())
    }
}

/// A migration and whether the database has it.
#[derive(Clone, Debug)]
pub struct MigrationState {
    pub version: i64,
    pub description: String,
    pub applied: bool,
}

/// Brings the schema up to date and tells which migrations were applied. Needs the database's owner. Safe to run twice at
/// the same moment; refuses a schema that is newer than the program.
pub async fn run(pool: &PgPool) -> Result<Vec<MigrationState>, SchemaError> {
    run_with(pool, &MIGRATOR).await
}

/// The same with the migrations of a folder: for development, when the program does not have the newest built in.
pub async fn run_from(pool: &PgPool, folder: &Path) -> Result<Vec<MigrationState>, SchemaError> {
    run_with(pool, &Migrator::new(folder).await?).await
}

async fn run_with(pool: &PgPool, migrator: &Migrator) -> Result<Vec<MigrationState>, SchemaError> {
    let mut lock = PgConnection::connect_with(&pool.connect_options()).await?;
    // An index over many rows takes its time.
    sqlx::raw_sql("SET statement_timeout = 0").execute(&mut lock).await?;
    sqlx::query!("SELECT pg_advisory_lock($1)", LOCK).execute(&mut lock).await?;
    let before = status_of(&mut lock, migrator).await?;
    pgmq::PGMQueueExt::new_with_pool(pool.clone()).await.install_sql_from_embedded().await?;
    for queue in Queue::ALL {
        sqlx::query!("SELECT pgmq.create($1)", queue.as_str()).execute(&mut lock).await?;
    }
    migrator.run_direct(&mut lock).await?;
    for (name, value) in DATABASE_SETTINGS {
        let set = format!("DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET {name} = %L', current_database(), '{value}'); END $$");
        sqlx::raw_sql(&set).execute(&mut lock).await?;
    }
    // The connection ends here, and the lock with it.
    lock.close().await?;
    Ok(before.into_iter().filter(|migration| !migration.applied).collect())
}

/// Every migration of the program, and whether the database has it.
pub async fn status(pool: &PgPool) -> Result<Vec<MigrationState>, SchemaError> {
    status_of(&mut *pool.acquire().await?, &MIGRATOR).await
}

async fn status_of(db: &mut PgConnection, migrator: &Migrator) -> Result<Vec<MigrationState>, SchemaError> {
    let is_new = sqlx::query_scalar!(r#"SELECT to_regclass('_sqlx_migrations') IS NULL AS "is_new!""#).fetch_one(&mut *db).await?;
    let applied = if is_new { Vec::new() } else { db.list_applied_migrations().await? };
    let applied: Vec<i64> = applied.into_iter().map(|migration| migration.version).collect();
    if let Some(unknown) = applied.iter().find(|version| !migrator.version_exists(**version)) {
        return Err(SchemaError::Newer(*unknown));
    }
    let ups = migrator.iter().filter(|migration| migration.migration_type.is_up_migration());
    Ok(ups
        .map(|migration| MigrationState {
            version: migration.version,
            description: migration.description.to_string(),
            applied: applied.contains(&migration.version),
        })
        .collect())
}

/// Undoes the newest migration; for development. Refuses a down file that says `-- irreversible`.
pub async fn revert(pool: &PgPool) -> Result<MigrationState, SchemaError> {
    let mut db = pool.acquire().await?;
    let applied = status_of(&mut db, &MIGRATOR).await?.into_iter().rfind(|migration| migration.applied);
    let newest = applied.ok_or(SchemaError::NothingToRevert)?;
    let down = MIGRATOR.iter().find(|migration| migration.version == newest.version && migration.migration_type.is_down_migration());
    match down {
        Some(down) if !down.sql.contains("-- irreversible") => {
            db.revert(down).await?;
            Ok(newest)
        }
        _ => Err(SchemaError::Irreversible(newest.version)),
    }
}

/// A server must not run on a schema that it does not know.
pub async fn check(db: &mut PgConnection) -> Result<(), SchemaError> {
    match status_of(db, &MIGRATOR).await?.into_iter().find(|migration| !migration.applied) {
        Some(missing) => Err(SchemaError::Older(missing.version)),
        None => Ok(()),
    }
}
