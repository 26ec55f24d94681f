//! Keys that change while the service runs (docs/adr/0016): what is sealed is sealed anew, and addresses are indexed anew.
//!
//! Owns: which value belongs under which key, what is still needed. Called by the command `keys rotate`, and at the start of servers and
//! workers. May be stopped and repeated at any moment.

use std::{collections::BTreeSet, time::Duration};

use uuid::Uuid;

use super::ServiceError;
use crate::{
    app::App,
    domain::{
        customer::{EmailAddress, EmailIndex},
        ids::CustomerId,
    },
    sealing::SealedColumn,
    store::{
        self,
        key_rotation::{IndexCounts, IndexedCustomer, KeyCount, Resealed},
    },
};

const BATCH: i64 = 500;
/// Waits before rows are looked at again that somebody held or changed; what then is left stays for the next run.
const WAITS: [Duration; 4] = [Duration::from_millis(10), Duration::from_millis(50), Duration::from_millis(200), Duration::from_secs(1)];

#[derive(Debug, thiserror::Error)]
pub enum KeyRotationError {
    #[error(transparent)]
    Service(#[from] ServiceError),
    #[error("key {0} of BLIND_INDEX_KEY comes first, and some customers are not indexed by it: run `whitemonday keys rotate` first")]
    NotIndexed(u8),
    #[error("BLIND_INDEX_KEY does not have the key that customers are indexed by: their accounts would not be found")]
    AnotherIndexKey,
}

impl From<store::StoreError> for KeyRotationError {
    fn from(error: store::StoreError) -> Self {
        Self::Service(error.into())
    }
}

/// What a rotation has done and found.
pub struct Rotation {
    /// The key that seals.
    pub active: u8,
    pub columns: Vec<RotatedColumn>,
    pub index: RotatedIndex,
}

pub struct RotatedColumn {
    pub column: SealedColumn,
    /// Values that were sealed anew.
    pub resealed: u64,
    /// Rows whose value does not open with any configured key.
    pub unreadable: BTreeSet<Uuid>,
    /// How many values there are under each key now.
    pub keys: Vec<KeyCount>,
}

pub struct RotatedIndex {
    /// Customers whose indexes were made anew.
    pub reindexed: u64,
    /// The configured keys, the first one first.
    pub keys: Vec<u8>,
    pub counts: IndexCounts,
}

impl Rotation {
    /// The columns that still have values under a key, and how many.
    pub fn needing(&self, key: u8) -> impl Iterator<Item = (SealedColumn, i64)> {
        let count_of =
            move |column: &RotatedColumn| column.keys.iter().find(|count| count.key == Some(key.into())).map(|count| count.count);
        self.columns.iter().filter_map(move |column| Some((column.column, count_of(column)?)))
    }

    /// Everything is under the active key, and every customer is indexed by each configured key and by no other.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        let is_resealed =
            |column: &RotatedColumn| column.unreadable.is_empty() && column.keys.iter().all(|count| count.key == Some(self.active.into()));
        self.columns.iter().all(is_resealed) && self.index.is_complete()
    }
}

impl RotatedIndex {
    /// How many customers are indexed in the column of this key.
    #[must_use]
    pub const fn indexed_by(&self, key: u8) -> i64 {
        if key.is_multiple_of(2) { self.counts.even } else { self.counts.odd }
    }

    #[must_use]
    pub fn is_complete(&self) -> bool {
        let is_configured = |even| self.keys.iter().any(|key| key.is_multiple_of(2) == even);
        let wanted = |even| if is_configured(even) { self.counts.customers } else { 0 };
        (self.counts.odd, self.counts.even) == (wanted(false), wanted(true))
    }
}

/// Seals every value anew that another key than the active one has sealed, and indexes every customer by the configured keys. Statements
/// are transactions of their own; no row is locked while it is computed. `progress` hears how many of how many values were looked at.
pub async fn run(app: &App, progress: impl Fn(u64, u64)) -> Result<Rotation, KeyRotationError> {
    let keys: Vec<u8> = app.config.keys.blind_index.iter().map(|key| key.id).collect();
    if !keys.is_empty() && !is_indexed_by_any(app, &keys).await? {
        return Err(KeyRotationError::AnotherIndexKey);
    }
    let (values, index) = count(app).await?;
    let total = values.iter().flatten().map(|count| count.count).sum::<i64>() + index.customers;
    let mut done = 0;
    let mut advance = |values: usize| {
        done += values as u64;
        progress(done, done.max(total.unsigned_abs()));
    };
    let mut columns = Vec::new();
    for column in SealedColumn::ALL {
        columns.push(reseal(app, column, &mut advance).await?);
    }
    let reindexed = reindex(app, &mut advance).await?;
    let (values, counts) = count(app).await?;
    for (rotated, keys) in columns.iter_mut().zip(values) {
        rotated.keys = keys;
    }
    let active = app.config.keys.sealing.first().map_or(0, |key| key.id);
    Ok(Rotation { active, columns, index: RotatedIndex { reindexed, keys, counts } })
}

/// The values of each column by key, and the indexes.
async fn count(app: &App) -> Result<([Vec<KeyCount>; SealedColumn::ALL.len()], IndexCounts), ServiceError> {
    let mut tx = app.db.begin().await?;
    store::audit::take_time(&mut tx).await?;
    let mut values = [const { Vec::new() }; SealedColumn::ALL.len()];
    for (values, column) in values.iter_mut().zip(SealedColumn::ALL) {
        *values = store::key_rotation::count_values(&mut tx, column).await?;
    }
    let indexes = store::key_rotation::count_indexes(&mut tx).await?;
    tx.rollback().await?;
    Ok((values, indexes))
}

async fn reseal(app: &App, column: SealedColumn, advance: &mut impl FnMut(usize)) -> Result<RotatedColumn, ServiceError> {
    let mut db = app.db.acquire().await?;
    let mut rotated = RotatedColumn { column, resealed: 0, unreadable: BTreeSet::new(), keys: Vec::new() };
    let (mut after, mut waits) = (Uuid::nil(), WAITS.iter());
    loop {
        let values = store::key_rotation::list_values(&mut db, column, after, BATCH).await?;
        let Some(last) = values.last().map(|value| value.id) else { return Ok(rotated) };
        let looked_at = values.len();
        let mut changed = Vec::new();
        for old in values {
            match app.sealing.reseal(column, old.id, &old.sealed) {
                Ok(Some(new)) => changed.push(Resealed { old, new }),
                Ok(None) => {}
                Err(_) => {
                    rotated.unreadable.insert(old.id);
                }
            }
        }
        let written = store::key_rotation::update_values(&mut db, column, &changed).await?;
        rotated.resealed += written;
        match waits.next() {
            Some(wait) if written < changed.len() as u64 => tokio::time::sleep(*wait).await,
            _ => {
                (after, waits) = (last, WAITS.iter());
                advance(looked_at);
            }
        }
    }
}

/// Newest customers first, so that the oldest one tells whether all have been indexed.
async fn reindex(app: &App, advance: &mut impl FnMut(usize)) -> Result<u64, ServiceError> {
    let mut db = app.db.acquire().await?;
    let (mut before, mut waits, mut reindexed) = (CustomerId(Uuid::max()), WAITS.iter(), 0);
    loop {
        let customers = store::key_rotation::list_indexes(&mut db, before, BATCH).await?;
        let Some(last) = customers.last().map(|customer| customer.id) else { return Ok(reindexed) };
        let looked_at = customers.len();
        let mut changed = Vec::new();
        for customer in customers {
            // An address that does not open has been found with the sealed values.
            if let Some(index) = index_of(app, &customer).filter(|index| *index != customer.index) {
                changed.push(IndexedCustomer { index, ..customer });
            }
        }
        let written = store::key_rotation::update_indexes(&mut db, &changed).await?;
        reindexed += written;
        match waits.next() {
            Some(wait) if written < changed.len() as u64 => tokio::time::sleep(*wait).await,
            _ => {
                (before, waits) = (last, WAITS.iter());
                advance(looked_at);
            }
        }
    }
}

/// The indexes that a customer should have; `None` when the address does not open.
fn index_of(app: &App, customer: &IndexedCustomer) -> Option<EmailIndex> {
    let email = app.sealing.open(SealedColumn::CustomerEmail, customer.id.0, &customer.email_sealed).ok()?;
    EmailAddress::parse(&email).map(|email| app.sealing.email_index(&email))
}

/// Refuses keys with which customers would not be found: the first one must have indexed all of them.
///
/// # Errors
/// When it has not, or another key has.
pub async fn check_email_index(app: &App) -> Result<(), KeyRotationError> {
    let Some(first) = app.config.keys.blind_index.first().map(|key| key.id) else { return Ok(()) };
    let mut db = app.db.acquire().await.map_err(ServiceError::from)?;
    if store::key_rotation::has_unindexed(&mut db, first.is_multiple_of(2)).await? {
        return Err(KeyRotationError::NotIndexed(first));
    }
    drop(db);
    if is_indexed_by_any(app, &[first]).await? { Ok(()) } else { Err(KeyRotationError::AnotherIndexKey) }
}

/// Whether the oldest customer, the last one that a rotation comes to, is indexed by one of these keys; true where there is none to ask.
async fn is_indexed_by_any(app: &App, keys: &[u8]) -> Result<bool, ServiceError> {
    let mut db = app.db.acquire().await?;
    let Some(oldest) = store::key_rotation::find_oldest_index(&mut db).await? else { return Ok(true) };
    let Some(index) = index_of(app, &oldest) else {
        tracing::warn!(customer = %oldest.id, "the e-mail address of the oldest customer does not open");
        return Ok(true);
    };
    Ok(keys.iter().any(|key| index.column(*key) == oldest.index.column(*key)))
}
