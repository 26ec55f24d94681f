//! The cart. Called by resolvers/cart.rs; it is checked out in `order/check_out.rs`.
//!
//! Each change is one transaction that locks the customer's row, so that changes and a checkout follow one another. Stock and limits are
//! looked at, not held: the checkout decides.

use sqlx::{PgConnection, Postgres, Transaction};
use uuid::Uuid;

use super::{
    InvalidInput, ServiceError,
    idempotency::{ClientKey, Request},
};
use crate::{
    app::App,
    domain::{
        cart::CartProblem,
        ids::{CartLineId, CustomerId, ProductId},
        quantity::Quantity,
    },
    store::{self, cart::CartLine, idempotency::Earlier},
};

/// Bounds the order that a checkout makes.
const MAX_LINES: usize = 100;

/// What became of a change; nothing has changed unless it is done.
#[derive(Debug)]
pub enum CartChange {
    /// The cart as it is now.
    Done(Vec<CartLine>),
    Invalid(InvalidInput),
    NoSuchProduct,
    NoSuchLine,
    /// Its line can only be taken out.
    ProductRemoved,
    /// More than can be bought now.
    OutOfStock {
        left: i64,
    },
    /// A limit of the sale or of carts.
    LimitReached(InvalidInput),
    KeyReused,
}

/// Adds so many pieces to those that the cart has, at the price of this moment. With a key the same request again adds nothing.
pub async fn add(app: &App, customer: CustomerId, product: ProductId, pieces: i32, key: Option<Uuid>) -> Result<CartChange, ServiceError> {
    let Some(pieces) = Quantity::new(pieces) else {
        return Ok(CartChange::Invalid(InvalidInput::new(&["quantity"], "1 to 999.")));
    };
    let mut tx = begin(app, customer).await?;
    if let Some(key) = key {
        let request = Request::new(app, "addToCart", ClientKey { customer, key }, &(product.0, pieces.get()))?;
        match request.take(&mut tx, product.0, app.clock.now()).await? {
            Earlier::Same(_) => return Ok(CartChange::Done(list(app, &mut tx, customer).await?)),
            Earlier::Different => return Ok(CartChange::KeyReused),
            Earlier::None => {}
        }
    }
    let lines = list(app, &mut tx, customer).await?;
    let present = lines.iter().find(|line| line.product_id == product).map(|line| line.quantity);
    if present.is_none() && lines.len() >= MAX_LINES {
        return Ok(CartChange::LimitReached(InvalidInput::new(&[], "A cart has 100 lines at most.")));
    }
    let Some(wanted) = Quantity::new(present.unwrap_or_default() + pieces.get()) else {
        return Ok(CartChange::LimitReached(InvalidInput::new(&["quantity"], "A line has 999 pieces at most.")));
    };
    let Some(id) = store::cart::save(&mut tx, customer, product, wanted.get(), app.clock.now()).await? else {
        return Ok(CartChange::NoSuchProduct);
    };
    let lines = list(app, &mut tx, customer).await?;
    if let Some(refusal) = refusal(&lines, id) {
        return Ok(refusal);
    }
    tx.commit().await?;
    Ok(CartChange::Done(lines))
}

/// Sets how many pieces a line is for, at the price of this moment; with none the line is removed. Fewer is possible as long as
/// the product is sold.
pub async fn set_quantity(app: &App, customer: CustomerId, id: CartLineId, pieces: i32) -> Result<CartChange, ServiceError> {
    if pieces == 0 {
        return remove(app, customer, id).await;
    }
    let Some(wanted) = Quantity::new(pieces) else {
        return Ok(CartChange::Invalid(InvalidInput::new(&["quantity"], "0 to 999.")));
    };
    let mut tx = begin(app, customer).await?;
    let lines = list(app, &mut tx, customer).await?;
    let Some(line) = lines.iter().find(|line| line.id == id) else { return Ok(CartChange::NoSuchLine) };
    if store::cart::save(&mut tx, customer, line.product_id, wanted.get(), app.clock.now()).await?.is_none() {
        return Ok(CartChange::ProductRemoved);
    }
    let is_more = wanted.get() > line.quantity;
    let lines = list(app, &mut tx, customer).await?;
    if is_more && let Some(refusal) = refusal(&lines, id) {
        return Ok(refusal);
    }
    tx.commit().await?;
    Ok(CartChange::Done(lines))
}

pub async fn remove(app: &App, customer: CustomerId, id: CartLineId) -> Result<CartChange, ServiceError> {
    let mut tx = begin(app, customer).await?;
    let mut lines = list(app, &mut tx, customer).await?;
    let Some(place) = lines.iter().position(|line| line.id == id) else { return Ok(CartChange::NoSuchLine) };
    store::cart::delete(&mut tx, id).await?;
    tx.commit().await?;
    lines.remove(place);
    Ok(CartChange::Done(lines))
}

pub async fn clear(app: &App, customer: CustomerId) -> Result<CartChange, ServiceError> {
    let mut tx = begin(app, customer).await?;
    store::cart::delete_all(&mut tx, customer).await?;
    tx.commit().await?;
    Ok(CartChange::Done(Vec::new()))
}

/// A transaction with the customer's row locked.
async fn begin(app: &App, customer: CustomerId) -> Result<Transaction<'static, Postgres>, ServiceError> {
    let mut tx = app.db.begin().await?;
    store::customer::lock(&mut tx, customer).await?.ok_or(ServiceError::NoAccount)?;
    Ok(tx)
}

async fn list(app: &App, db: &mut PgConnection, customer: CustomerId) -> Result<Vec<CartLine>, ServiceError> {
    Ok(store::cart::list_for_customers(db, &[customer], app.clock.now()).await?)
}

/// Why a line may not stand as it has just been written.
fn refusal(lines: &[CartLine], id: CartLineId) -> Option<CartChange> {
    let line = lines.iter().find(|line| line.id == id)?;
    line.problems().into_iter().find_map(|problem| match problem {
        CartProblem::OutOfStock => Some(CartChange::OutOfStock { left: line.offer.left.max(0) }),
        CartProblem::LimitReached => Some(CartChange::LimitReached(InvalidInput::new(&["quantity"], "More than one customer may have."))),
        CartProblem::PriceChanged | CartProblem::ProductRemoved => None,
    })
}
