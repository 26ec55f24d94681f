//! The rows of a sale's units: made before it opens, gone when nobody can buy them any more.

use crate::{
    app::App,
    domain::{ids::FlashSaleId, stock::StockMovementKind},
    services::ServiceError,
    store::{self, flash_sale::SaleOver, stock::NewMovement},
};

/// Unit rows a transaction; a million rows in one would hold its locks for seconds.
const CHUNK: i32 = 50_000;

/// Makes the unit rows that sales still lack, and lets those sales open. Of cancelled ones, too: whatever has units gives them back.
pub(super) async fn make_missing_units(app: &App) -> Result<(), ServiceError> {
    let sales = store::flash_sale::list_without_units(&mut *app.db.acquire().await?).await?;
    for sale in sales {
        make_units(app, sale).await?;
    }
    Ok(())
}

/// Makes the unit rows of one sale, from the first one missing, and lets it open.
pub async fn make_units(app: &App, sale: FlashSaleId) -> Result<(), ServiceError> {
    while make_chunk(app, sale).await? {}
    Ok(())
}

/// One transaction; the sale's row is locked, so that no two make the same rows, and none after they have begun to go back. False when
/// all are there.
async fn make_chunk(app: &App, sale: FlashSaleId) -> Result<bool, ServiceError> {
    let mut tx = app.db.begin().await?;
    let Some(units) = store::flash_sale::lock_without_units(&mut tx, sale).await? else { return Ok(false) };
    let made = store::flash_sale::get_last_unit(&mut tx, sale).await?;
    let to = (made + CHUNK).min(units);
    store::flash_sale::insert_units(&mut tx, sale, made + 1, to).await?;
    if to == units {
        store::flash_sale::update_units_ready(&mut tx, sale, app.clock.now()).await?;
    }
    tx.commit().await?;
    Ok(to < units)
}

/// Gives the free units of a sale that is over back to the ordinary stock. Each goes once, because its row goes with it. When none is
/// left the sale says so, and from then on [`release_units`](store::stock::release_units) sends there what still comes back.
pub(super) async fn give_back(app: &App, sale: &SaleOver) -> Result<(), ServiceError> {
    while give_chunk_back(app, sale).await? {}
    let mut tx = app.db.begin().await?;
    // In this order: whoever is just releasing units has them free when the lock is had, and the look comes after that.
    store::flash_sale::lock(&mut tx, sale.id).await?;
    store::flash_sale::update_units_returned(&mut tx, sale.id, app.clock.now()).await?;
    tx.commit().await?;
    Ok(())
}

async fn give_chunk_back(app: &App, sale: &SaleOver) -> Result<bool, ServiceError> {
    let now = app.clock.now();
    let mut tx = app.db.begin().await?;
    let units = store::flash_sale::delete_free_units(&mut tx, sale.id, CHUNK.into()).await?;
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
