//! The wishlist. Called by resolvers/wishlist.rs; whom to write to about sales is in `wishlist/sale_notice.rs`.
//!
//! Each change is one transaction that locks the customer's row, so that changes follow one another.

pub mod sale_notice;

use sqlx::{Postgres, Transaction};

use super::{InvalidInput, ServiceError};
use crate::{
    app::App,
    domain::{
        customer::single_line,
        ids::{CustomerId, ProductId, WishlistItemId},
    },
    sealing::SealedColumn,
    store::{self, wishlist::WishlistItem},
};

const MAX_ITEMS: i64 = 1_000;
const MAX_NOTE_CHARACTERS: usize = 500;

/// What a customer says about an item.
pub struct Wish {
    pub note: NoteChange,
    /// As it is when left out; at first, no.
    pub notify_on_sale: Option<bool>,
}

pub enum NoteChange {
    Keep,
    Remove,
    Set(String),
}

/// What became of a change.
#[derive(Debug)]
pub enum WishlistChange {
    /// The item as it is now, or was when it was removed.
    Done(WishlistItem),
    Invalid(InvalidInput),
    NoSuchProduct,
    NoSuchItem,
    LimitReached,
}

/// Adds a product. One that is in the list already stays there, once, and takes what is said of it now.
pub async fn add(app: &App, customer: CustomerId, product: ProductId, wish: Wish) -> Result<WishlistChange, ServiceError> {
    let mut tx = begin(app, customer).await?;
    let item = if let Some(item) = store::wishlist::find_by_product(&mut tx, customer, product).await? {
        item
    } else {
        let known = store::product::list_by_ids(&mut tx, &[product]).await?;
        if known.iter().all(|product| product.archived_at.is_some()) {
            return Ok(WishlistChange::NoSuchProduct);
        }
        if store::wishlist::count_for_customer(&mut tx, customer).await? >= MAX_ITEMS {
            return Ok(WishlistChange::LimitReached);
        }
        let (id, added_at) = (WishlistItemId::new(), app.clock.now());
        WishlistItem { id, customer_id: customer, product_id: product, note_sealed: None, notify_on_sale: false, added_at }
    };
    save(app, tx, item, wish).await
}

/// Changes what is said of an item; what is left out stays.
pub async fn update(app: &App, customer: CustomerId, id: WishlistItemId, wish: Wish) -> Result<WishlistChange, ServiceError> {
    let mut tx = begin(app, customer).await?;
    match store::wishlist::find_for_customer(&mut tx, id, customer).await? {
        Some(item) => save(app, tx, item, wish).await,
        None => Ok(WishlistChange::NoSuchItem),
    }
}

pub async fn remove(app: &App, customer: CustomerId, id: WishlistItemId) -> Result<WishlistChange, ServiceError> {
    let mut tx = begin(app, customer).await?;
    let Some(item) = store::wishlist::find_for_customer(&mut tx, id, customer).await? else { return Ok(WishlistChange::NoSuchItem) };
    store::wishlist::delete(&mut tx, id).await?;
    tx.commit().await?;
    Ok(WishlistChange::Done(item))
}

async fn begin(app: &App, customer: CustomerId) -> Result<Transaction<'static, Postgres>, ServiceError> {
    let mut tx = app.db.begin().await?;
    store::customer::lock(&mut tx, customer).await?.ok_or(ServiceError::NoAccount)?;
    Ok(tx)
}

async fn save(
    app: &App,
    mut tx: Transaction<'static, Postgres>,
    mut item: WishlistItem,
    wish: Wish,
) -> Result<WishlistChange, ServiceError> {
    item.note_sealed = match wish.note {
        NoteChange::Keep => item.note_sealed,
        NoteChange::Remove => None,
        NoteChange::Set(blank) if blank.trim().is_empty() => None,
        NoteChange::Set(typed) => match single_line(&typed, MAX_NOTE_CHARACTERS) {
            Some(note) => Some(app.sealing.seal(SealedColumn::WishlistNote, item.id.0, &note)?),
            None => return Ok(WishlistChange::Invalid(InvalidInput::new(&["note"], "One line of at most 500 characters."))),
        },
    };
    item.notify_on_sale = wish.notify_on_sale.unwrap_or(item.notify_on_sale);
    store::wishlist::save(&mut tx, &item).await?;
    tx.commit().await?;
    Ok(WishlistChange::Done(item))
}
