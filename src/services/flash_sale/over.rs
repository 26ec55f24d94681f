//! Sales in which nothing is sold any more: the open orders of cancelled ones are called off, and units that are free go back to the
//! ordinary stock.

use super::is_our_turn;
use crate::{
    app::App,
    domain::{ids::OrderId, order::OrderEventReason, stock::StockMovementKind},
    services::{
        ServiceError,
        mail::Letter,
        order::{self, Reason},
    },
    store::{self, flash_sale::SaleOver, lease::SALES_OVER, stock::NewMovement},
};

/// Units whose orders are called off in one transaction.
const ORDERS_CHUNK: i64 = 200;
/// Units that go back in one transaction.
const UNITS_CHUNK: i64 = 50_000;

/// Ends the sales that have closed or were cancelled, as far as that can be done now. One that fails keeps no other from its turn.
pub async fn end_sales(app: &App) -> Result<(), ServiceError> {
    let sales = store::flash_sale::list_over(&mut *app.db.acquire().await?, app.clock.now()).await?;
    for sale in &sales {
        if let Err(error) = end(app, sale).await {
            tracing::error!(sale = %sale.id, %error, "a sale that is over could not be ended, and is tried again");
        }
    }
    Ok(())
}

async fn end(app: &App, sale: &SaleOver) -> Result<(), ServiceError> {
    if let Some(reason) = &sale.cancel_reason {
        let reason = Reason { code: Some(OrderEventReason::SaleCancelled), note: Some(reason.clone()) };
        call_off_orders(app, sale, &reason).await?;
    }
    while is_our_turn(app, SALES_OVER).await? && give_chunk_back(app, sale).await? {}
    // A look without the lock first: releases of this sale wait for it.
    if !store::flash_sale::is_emptied(&mut *app.db.acquire().await?, sale.id).await? {
        return Ok(());
    }
    let mut tx = app.db.begin().await?;
    // In this order: whoever is just releasing units has them free when the lock is had, and the look comes after that.
    store::flash_sale::lock(&mut tx, sale.id).await?;
    store::flash_sale::update_units_returned(&mut tx, sale.id, app.clock.now()).await?;
    tx.commit().await?;
    Ok(())
}

/// Calls the open orders of a cancelled sale off, with whatever else is in them; what was paid goes back. Orders that have left stay, and
/// so do those in review, for people. When a chunk fails its orders are called off one by one, so that none waits for another.
async fn call_off_orders(app: &App, sale: &SaleOver, reason: &Reason) -> Result<(), ServiceError> {
    let mut last = 0;
    while is_our_turn(app, SALES_OVER).await? {
        let open = store::order::list_open_in_sale(&mut *app.db.acquire().await?, sale.id, last, ORDERS_CHUNK).await?;
        let Some(highest) = open.iter().map(|(_, unit)| *unit).max() else { break };
        last = highest;
        let orders: Vec<OrderId> = open.into_iter().map(|(order, _)| order).collect();
        let Err(error) = call_off(app, &orders, reason).await else { continue };
        tracing::warn!(sale = %sale.id, %error, "some orders could not be called off together");
        for order in orders {
            if let Err(error) = call_off(app, &[order], reason).await {
                tracing::error!(%order, %error, "an order of a cancelled sale could not be called off, and is tried again");
            }
        }
    }
    Ok(())
}

/// One transaction, which finds nothing more to do the second time.
async fn call_off(app: &App, orders: &[OrderId], reason: &Reason) -> Result<(), ServiceError> {
    let mut tx = app.db.begin().await?;
    let open = store::order::lock_open(&mut tx, orders).await?;
    let called_off = order::call_off(app, &mut tx, open, reason, |order_number| Letter::SaleCancelled { order_number }).await?;
    tx.commit().await?;
    app.order_feed.ring(&called_off);
    app.refunds_waiting.notify_one();
    app.payments_waiting.notify_one();
    app.mail_waiting.notify_one();
    Ok(())
}

/// Gives free units back to the ordinary stock. Each goes once, because its row goes with it; from when none is left,
/// [`release_units`](store::stock::release_units) sends there what still comes back. False when there were none.
async fn give_chunk_back(app: &App, sale: &SaleOver) -> Result<bool, ServiceError> {
    let now = app.clock.now();
    let mut tx = app.db.begin().await?;
    let units = store::flash_sale::delete_free_units(&mut tx, sale.id, UNITS_CHUNK).await?;
    if units == 0 {
        return Ok(false);
    }
    store::product::add_available(&mut tx, sale.product_id, units, now).await?;
    let movement = NewMovement {
        kind: StockMovementKind::Deallocated,
        quantity: units,
        product: sale.product_id,
        sale: Some(sale.id),
        reason: sale.cancel_reason.as_deref(),
    };
    store::stock::insert_movement(&mut tx, &movement, now).await?;
    tx.commit().await?;
    Ok(true)
}
