//! The address book: saving makes a new, immutable version; removing one retires it.

use uuid::Uuid;
use zeroize::Zeroizing;

use super::{InvalidInput, ServiceError};
use crate::{
    app::App,
    domain::{
        address::PostalAddress,
        ids::{AddressId, CustomerId},
        opaque_debug,
    },
    sealing::SealedColumn,
    store::{
        self,
        address::NewAddress,
        idempotency::{Earlier, Key},
    },
};

/// More than anybody needs; keeps the book one page.
const MAX_ADDRESSES: usize = 50;

pub struct SaveAddress {
    /// The version to replace; a new entry when left out.
    pub id: Option<AddressId>,
    pub address: PostalAddress,
    /// True makes it the default. A book has one default always: it is the first address until another one is made it.
    pub is_default: Option<bool>,
    pub idempotency_key: Option<Uuid>,
}

opaque_debug!(SaveAddress);

#[derive(Debug)]
pub enum SavedAddress {
    Saved(AddressId),
    Invalid(InvalidInput),
    NoSuchAddress,
    LimitReached,
    KeyReused,
}

/// Saves an address in the customer's own book. One transaction; the customer's row is locked, so that saves follow one
/// another. With a key the same request again answers the version that it made the first time.
pub async fn save(app: &App, customer: CustomerId, input: SaveAddress) -> Result<SavedAddress, ServiceError> {
    let address = match input.address.normalised() {
        Ok(address) => address,
        Err(invalid) => return Ok(SavedAddress::Invalid(InvalidInput::new(invalid.path, invalid.rule))),
    };
    let content = Zeroizing::new(serde_json::to_string(&address)?);
    let asked_for = Zeroizing::new(serde_json::to_vec(&(input.id.map(|id| id.0), content.as_str(), input.is_default))?);
    let request_hash = app.sealing.request_fingerprint(&asked_for);
    let key = input.idempotency_key.map(|key| Key { customer, mutation: "saveAddress", key, request_hash: &request_hash });

    let mut tx = app.db.begin().await?;
    let book = store::address::lock_book(&mut tx, customer).await?.ok_or(ServiceError::NoAccount)?;
    if let Some(key) = &key {
        match store::idempotency::find(&mut tx, key).await? {
            Earlier::Same(id) => return Ok(SavedAddress::Saved(AddressId(id))),
            Earlier::Different => return Ok(SavedAddress::KeyReused),
            Earlier::None => {}
        }
    }
    let replaced = input.id.map(|id| book.iter().find(|entry| entry.id == id));
    let was_default = match replaced {
        Some(None) => return Ok(SavedAddress::NoSuchAddress),
        Some(Some(entry)) => entry.is_default,
        None if book.len() >= MAX_ADDRESSES => return Ok(SavedAddress::LimitReached),
        None => book.is_empty(),
    };

    let now = app.clock.now();
    let id = AddressId::new();
    let new = NewAddress {
        id,
        customer,
        replaces: input.id,
        content_sealed: app.sealing.seal(SealedColumn::AddressContent, id.0, &content)?,
        is_default: was_default || input.is_default == Some(true),
    };
    store::address::insert(&mut tx, &new, now).await?;
    if let Some(key) = &key {
        store::idempotency::insert(&mut tx, key, id.0, now).await?;
    }
    tx.commit().await?;
    Ok(SavedAddress::Saved(id))
}

#[derive(Debug, PartialEq, Eq)]
pub enum RemovedAddress {
    Removed,
    NoSuchAddress,
}

/// Takes an address out of the customer's own book; orders keep it. When it was the default, the oldest one left becomes it. One
/// transaction; the customer's row is locked.
pub async fn remove(app: &App, customer: CustomerId, id: AddressId) -> Result<RemovedAddress, ServiceError> {
    let mut tx = app.db.begin().await?;
    let book = store::address::lock_book(&mut tx, customer).await?.ok_or(ServiceError::NoAccount)?;
    let Some(removed) = book.iter().find(|entry| entry.id == id) else {
        return Ok(RemovedAddress::NoSuchAddress);
    };
    store::address::update_retired(&mut tx, id, app.clock.now()).await?;
    let oldest_left = book.iter().find(|entry| entry.id != id);
    if let (true, Some(heir)) = (removed.is_default, oldest_left) {
        store::address::update_default(&mut tx, heir.id).await?;
    }
    tx.commit().await?;
    Ok(RemovedAddress::Removed)
}
