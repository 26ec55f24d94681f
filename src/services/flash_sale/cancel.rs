//! Calling a whole sale off.

use crate::{
    app::App,
    domain::{customer::single_line, ids::FlashSaleId, stock::MAX_REASON_CHARACTERS},
    services::{InvalidInput, ServiceError},
    store,
};

#[derive(Debug, PartialEq, Eq)]
pub enum CancelledSale {
    Cancelled(FlashSaleId),
    Invalid(InvalidInput),
    NoSuchSale,
    /// It is closed, or cancelled already.
    WrongState,
}

/// Ends a sale that is scheduled or open. From then on nothing is sold in it. [`end_sales`](super::end_sales) calls its orders off: a purchase
/// that was under way just now ends as one of them.
pub async fn cancel(app: &App, id: FlashSaleId, reason: &str) -> Result<CancelledSale, ServiceError> {
    let Some(reason) = single_line(reason, MAX_REASON_CHARACTERS) else {
        return Ok(CancelledSale::Invalid(InvalidInput::new(&["reason"], "One line of 1 to 200 characters.")));
    };
    let mut db = app.db.acquire().await?;
    if store::flash_sale::update_cancelled(&mut db, id, &reason, app.clock.now()).await? {
        app.sales_waiting.notify_waiters();
        return Ok(CancelledSale::Cancelled(id));
    }
    let is_there = !store::flash_sale::list_by_ids(&mut db, &[id]).await?.is_empty();
    Ok(if is_there { CancelledSale::WrongState } else { CancelledSale::NoSuchSale })
}
