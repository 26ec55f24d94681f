//! The ordinary stock, as staff correct it.

use super::{
    InvalidInput, ServiceError,
    idempotency::{ClientKey, Request},
};
use crate::{
    app::App,
    domain::{
        customer::single_line,
        ids::ProductId,
        product::MAX_AVAILABLE,
        stock::{MAX_REASON_CHARACTERS, StockMovementKind},
    },
    store::{self, idempotency::Earlier, stock::NewMovement},
};

/// As the client sent it.
#[derive(Debug)]
pub struct AdjustStock {
    pub product: ProductId,
    pub delta: i32,
    /// What the client believes there is.
    pub expected_available: i32,
    pub reason: String,
}

#[derive(Debug, PartialEq, Eq)]
pub enum AdjustedStock {
    Adjusted(ProductId),
    Invalid(InvalidInput),
    NoSuchProduct,
    /// There is not what the client believed.
    Stale {
        available: i32,
    },
    KeyReused,
}

/// Adds to a product's ordinary stock or takes from it, if there is what the client believes, with a movement. One transaction; the
/// product's row is locked. The same request again under its key changes nothing more, whatever there is then.
pub async fn adjust(app: &App, input: &AdjustStock, key: ClientKey) -> Result<AdjustedStock, ServiceError> {
    let Some(reason) = single_line(&input.reason, MAX_REASON_CHARACTERS) else {
        return Ok(AdjustedStock::Invalid(InvalidInput::new(&["reason"], "One line of 1 to 200 characters.")));
    };
    let AdjustStock { product: id, delta, expected_available, .. } = *input;
    let after = expected_available.checked_add(delta).filter(|after| (0..=MAX_AVAILABLE).contains(after));
    if delta == 0 || after.is_none() {
        let rule = "Not 0, and with it there are 0 to 100,000,000.";
        return Ok(AdjustedStock::Invalid(InvalidInput::new(&["delta"], rule)));
    }
    let request = Request::new(app, "adjustStock", key, &(id.0, delta, expected_available, &reason))?;
    let now = app.clock.now();

    let mut tx = app.db.begin().await?;
    match request.take(&mut tx, id.0, now).await? {
        Earlier::None => {}
        Earlier::Same(_) => return Ok(AdjustedStock::Adjusted(id)),
        Earlier::Different => return Ok(AdjustedStock::KeyReused),
    }
    let Some(product) = store::product::lock(&mut tx, id).await? else { return Ok(AdjustedStock::NoSuchProduct) };
    if product.available != expected_available {
        return Ok(AdjustedStock::Stale { available: product.available });
    }
    store::product::add_available(&mut tx, id, delta, now).await?;
    let kind = if delta > 0 { StockMovementKind::Received } else { StockMovementKind::Adjusted };
    let movement = NewMovement { kind, quantity: delta, product: id, sale: None, reason: Some(&reason) };
    store::stock::insert_movement(&mut tx, &movement, now).await?;
    tx.commit().await?;
    Ok(AdjustedStock::Adjusted(id))
}
