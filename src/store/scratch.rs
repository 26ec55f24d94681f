//! A database beside the shop's, for measurements that must not touch it; and what makes two measurements comparable.
//! Called by src/stampede only.

use std::{ops::Range, time::Duration};

use secrecy::{ExposeSecret, SecretString};
use sqlx::{
    ConnectOptions, Connection, PgConnection, PgPool,
    postgres::{PgConnectOptions, PgPoolOptions},
};
use uuid::Uuid;

use super::StoreError;
use crate::domain::ids::FlashSaleId;

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
        let options = options.options([("statement_timeout", "0")]);
        let pool = PgPoolOptions::new().max_connections(connections).acquire_timeout(PATIENCE);
        // Statements that take long are what is wanted here.
        Ok(pool.connect_lazy_with(options.application_name("whitemonday measurement").disable_statement_logging()))
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

/// From here on only [`vacuum`] cleans up what a purchase writes.
pub async fn stop_autovacuum(db: &mut PgConnection) -> Result<(), StoreError> {
    let tables =
        ["stock_unit", "orders", "order_line", "order_event", "stock_movement", "purchase_quota", "sale_counter", "pgmq.q_payment"];
    for table in tables {
        sqlx::raw_sql(&format!("ALTER TABLE {table} SET (autovacuum_enabled = off)")).execute(&mut *db).await?;
    }
    Ok(())
}

pub async fn vacuum(db: &mut PgConnection) -> Result<(), StoreError> {
    sqlx::raw_sql("VACUUM ANALYZE").execute(db).await?;
    Ok(())
}

/// Takes every free unit up to this one, as that many claims would have left them.
pub async fn take_units(db: &mut PgConnection, sale: FlashSaleId, up_to: i32) -> Result<(), StoreError> {
    sqlx::query!(
        "UPDATE stock_unit SET order_id = gen_random_uuid() WHERE sale_id = $1 AND seq <= $2 AND order_id IS NULL",
        sale as _,
        up_to
    )
    .execute(db)
    .await?;
    Ok(())
}

/// Paid orders `numbers` out of `all`, of customers who have none in the sale, with their lines and history, and with ids of the
/// past.
pub async fn insert_old_orders(db: &mut PgConnection, sale: FlashSaleId, numbers: Range<i64>, all: i64) -> Result<(), StoreError> {
    sqlx::query!(
        "WITH old AS MATERIALIZED (
             SELECT (lpad(to_hex((extract(epoch FROM now()) * 1000)::bigint - $4::bigint + n), 12, '0')
                     || '7' || substr(md5(n::text), 1, 3) || '8' || substr(md5(n::text || 'x'), 1, 15))::uuid AS id,
                    now() - make_interval(secs => ($4::bigint - n)::double precision) AS at
               FROM generate_series($2::bigint, $3::bigint - 1) AS n
         ), made AS (
             INSERT INTO orders (id, number, customer_id, status, version, total_minor, currency, mutation, idempotency_key, request_hash,
                                 hold_expires_at, created_at, updated_at)
             SELECT id, upper(substr(md5(id::text), 1, 11)), gen_random_uuid(), 'PAID', 2, 1000, 'KRW', 'buyNow', gen_random_uuid(),
                    sha256('old'), at, at, at FROM old ON CONFLICT DO NOTHING RETURNING id, created_at
         ), line AS (
             INSERT INTO order_line (order_id, position, product_id, flash_sale_id, title, quantity, unit_price_minor)
             SELECT m.id, 1, s.product_id, s.id, 'An old order', 1, 1000 FROM made m CROSS JOIN (SELECT * FROM flash_sale WHERE id = $1) s
         )
         INSERT INTO order_event (order_id, version, status, at)
         SELECT id, v, CASE v WHEN 1 THEN 'AWAITING_PAYMENT' ELSE 'PAID' END, created_at FROM made, generate_series(1, 2) v",
        sale as _,
        numbers.start,
        numbers.end,
        all,
    )
    .execute(db)
    .await?;
    Ok(())
}
