//! Calling a whole sale off.

use crate::{
    app::App,
    domain::{customer::single_line, ids::FlashSaleId, order::OrderEventReason},
    services::{
        InvalidInput, ServiceError,
        mail::Letter,
        order::{self, Reason},
        stock::MAX_REASON_CHARACTERS,
    },
    store::{self, flash_sale::SaleOver},
};

/// Units whose orders are called off in one transaction.
const CHUNK: u16 = 200;

#[derive(Debug, PartialEq, Eq)]
pub enum CancelledSale {
    Cancelled(FlashSaleId),
    Invalid(InvalidInput),
    NoSuchSale,
    /// It is closed, or cancelled already.
    WrongState,
}

/// Ends a sale that is scheduled or open. From then on nothing is sold in it. [`tend`](super::tend) calls its orders off: a purchase
/// that was under way just now ends as one of them.
pub async fn cancel(app: &App, id: FlashSaleId, reason: &str) -> Result<CancelledSale, ServiceError> {
    let Some(reason) = single_line(reason, MAX_REASON_CHARACTERS) else {
        return Ok(CancelledSale::Invalid(InvalidInput::new(&["reason"], "One line of 1 to 200 characters.")));
    };
    let mut db = app.db.acquire().await?;
    if store::flash_sale::update_cancelled(&mut db, id, &reason, app.clock.now()).await? {
        app.sales_waiting.notify_one();
        return Ok(CancelledSale::Cancelled(id));
    }
    let is_there = !store::flash_sale::list_by_ids(&mut db, &[id]).await?.is_empty();
    Ok(if is_there { CancelledSale::WrongState } else { CancelledSale::NoSuchSale })
}

/// Calls the open orders of a cancelled sale off, with whatever else is in them; what was paid goes back. Orders that have left stay,
/// and so do those in review, for people. A transaction per chunk, which finds nothing more to do the second time.
pub(super) async fn call_off_orders(app: &App, sale: &SaleOver) -> Result<(), ServiceError> {
    let Some(reason) = &sale.cancel_reason else { return Ok(()) };
    let reason = Reason { code: Some(OrderEventReason::SaleCancelled), note: Some(reason.clone()) };
    for first in (1..=sale.total_units).step_by(CHUNK.into()) {
        let mut tx = app.db.begin().await?;
        let last = first.saturating_add(i32::from(CHUNK) - 1);
        let orders = store::order::lock_open_in_sale(&mut tx, sale.id, first, last).await?;
        if orders.is_empty() {
            continue;
        }
        let called_off = order::call_off(app, &mut tx, orders, &reason, |order_number| Letter::SaleCancelled { order_number }).await?;
        tx.commit().await?;
        app.order_feed.ring(&called_off);
        app.refunds_waiting.notify_one();
        app.payments_waiting.notify_one();
        app.mail_waiting.notify_one();
    }
    Ok(())
}
