//! The bell between processes: which orders have changed. NOTIFY takes one lock of the whole cluster at commit, so it is
//! rung beside the business transactions and never in them.

use base64::{Engine, prelude::BASE64_STANDARD_NO_PAD};
use secrecy::{ExposeSecret, SecretString};
use sqlx::{PgConnection, postgres::PgListener};
use uuid::Uuid;

use super::StoreError;
use crate::domain::ids::OrderId;

const CHANNEL: &str = "whitemonday_orders";
/// A payload must stay below 8,000 bytes: so many ids of 16 bytes, in Base64.
pub const MAX_IDS: usize = 300;

/// Tells every process that these orders have changed; at most [`MAX_IDS`].
pub async fn ring(db: &mut PgConnection, orders: &[OrderId]) -> Result<(), StoreError> {
    let bytes: Vec<u8> = orders.iter().take(MAX_IDS).flat_map(|order| *order.0.as_bytes()).collect();
    sqlx::query!("SELECT pg_notify($1, $2)", CHANNEL, BASE64_STANDARD_NO_PAD.encode(bytes)).fetch_one(db).await?;
    Ok(())
}

/// Hears what others ring.
pub struct BellListener(PgListener);

impl BellListener {
    /// Listens on a connection of its own, past any pooler.
    pub async fn connect(direct_url: &SecretString) -> Result<Self, StoreError> {
        let mut listener = PgListener::connect(direct_url.expose_secret()).await?;
        listener.listen(CHANNEL).await?;
        Ok(Self(listener))
    }

    /// The orders of the next ring. A lost connection is made anew; what was rung meanwhile is missed.
    pub async fn hear(&mut self) -> Result<Vec<OrderId>, StoreError> {
        let payload = self.0.recv().await?;
        let bytes = BASE64_STANDARD_NO_PAD.decode(payload.payload()).unwrap_or_default();
        let (ids, _) = bytes.as_chunks::<16>();
        Ok(ids.iter().map(|id| OrderId(Uuid::from_bytes(*id))).collect())
    }
}
