//! Idempotency keys that are not orders: what a key stands for, and how long.

use chrono::{DateTime, Utc};
use sqlx::PgConnection;
use uuid::Uuid;

use super::ServiceError;
use crate::{
    app::App,
    domain::ids::CustomerId,
    store::{
        self,
        idempotency::{Earlier, Key},
    },
};

const BATCH: i64 = 1_000;

/// A key as a client made it, and whose it is.
#[derive(Clone, Copy, Debug)]
pub struct ClientKey {
    pub customer: CustomerId,
    pub key: Uuid,
}

/// What was asked for under a key.
pub struct Request {
    mutation: &'static str,
    key: ClientKey,
    hash: Vec<u8>,
}

impl Request {
    pub fn new(app: &App, mutation: &'static str, key: ClientKey, asked_for: &impl serde::Serialize) -> Result<Self, ServiceError> {
        Ok(Self { mutation, key, hash: app.sealing.request_fingerprint(&serde_json::to_vec(asked_for)?) })
    }

    pub fn key(&self) -> Key<'_> {
        Key { customer: self.key.customer, mutation: self.mutation, key: self.key.key, request_hash: &self.hash }
    }

    /// Remembers what the request makes, in the transaction of its effect and before everything else in it; or tells what was made
    /// before. One with the same key at the same moment waits for the other to end.
    pub async fn take(&self, db: &mut PgConnection, result: Uuid, at: DateTime<Utc>) -> Result<Earlier, ServiceError> {
        loop {
            if store::idempotency::insert_if_new(db, &self.key(), result, at).await? {
                return Ok(Earlier::None);
            }
            match store::idempotency::find(db, &self.key()).await? {
                // It was forgotten in between.
                Earlier::None => {}
                known => return Ok(known),
            }
        }
    }
}

/// Forgets keys from before `horizon`, in batches.
pub async fn forget_before(app: &App, horizon: DateTime<Utc>) -> Result<(), ServiceError> {
    while store::idempotency::delete_before(&mut *app.db.acquire().await?, horizon, BATCH).await? > 0 {}
    Ok(())
}
