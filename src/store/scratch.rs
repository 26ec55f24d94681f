//! A database beside the shop's, for measurements that must not touch it; and what makes two measurements comparable.
//! Called by src/stampede only.

use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use sqlx::{
    ConnectOptions, Connection, PgConnection, PgPool,
    postgres::{PgConnectOptions, PgPoolOptions},
};
use uuid::Uuid;

use super::StoreError;

const PATIENCE: Duration = Duration::from_mins(1);

/// A database that somebody has to drop.
pub struct ScratchDatabase {
    pub url: SecretString,
    name: String,
    server: PgConnectOptions,
}

impl ScratchDatabase {
    /// An empty database on the same server. Needs the right to create one.
    pub async fn create(beside: &SecretString) -> Result<Self, StoreError> {
        let server: PgConnectOptions = beside.expose_secret().parse()?;
        let name = format!("whitemonday_scratch_{}", Uuid::new_v4().simple());
        let mut db = PgConnection::connect_with(&server).await?;
        sqlx::raw_sql(&format!("CREATE DATABASE {name} TEMPLATE template0")).execute(&mut db).await?;
        db.close().await?;
        let url = server.clone().database(&name).to_url_lossy().to_string().into();
        Ok(Self { url, name, server })
    }

    /// Connections whose users wait for them as long as it takes: a measurement refuses nobody.
    pub fn pool(&self, connections: u32) -> Result<PgPool, StoreError> {
        let options: PgConnectOptions = self.url.expose_secret().parse()?;
        let pool = PgPoolOptions::new().max_connections(connections).acquire_timeout(PATIENCE);
        Ok(pool.connect_lazy_with(options.application_name("whitemonday measurement")))
    }

    /// Ends its sessions and removes it.
    pub async fn drop(self) -> Result<(), StoreError> {
        let mut db = PgConnection::connect_with(&self.server).await?;
        sqlx::raw_sql(&format!("DROP DATABASE {} WITH (FORCE)", self.name)).execute(&mut db).await?;
        Ok(())
    }
}

/// Writes what earlier measurements have left in memory, and counts the rows for the planner: the next measurement then
/// pays for its own work only. Where this role may not order a checkpoint, it does without.
pub async fn settle_down(db: &mut PgConnection) -> Result<(), StoreError> {
    sqlx::raw_sql("ANALYZE").execute(&mut *db).await?;
    if let Err(error) = sqlx::raw_sql("CHECKPOINT").execute(db).await {
        tracing::debug!(%error, "no checkpoint before the measurement");
    }
    Ok(())
}
