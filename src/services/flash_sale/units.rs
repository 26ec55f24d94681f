//! The rows of a sale's units: made before it opens.

use super::is_our_turn;
use crate::{
    app::App,
    domain::ids::FlashSaleId,
    services::ServiceError,
    store::{self, lease::UNITS},
};

/// Unit rows a transaction; a million rows in one would hold its locks for seconds.
const CHUNK: i32 = 50_000;

/// Makes the unit rows that sales still lack, and lets those sales open. Of cancelled ones, too: whatever has units gives them back. A sale
/// that fails keeps no other from its turn.
pub async fn make_missing_units(app: &App) -> Result<(), ServiceError> {
    let sales = store::flash_sale::list_without_units(&mut *app.db.acquire().await?).await?;
    for sale in sales {
        if let Err(error) = make_in_turn(app, sale).await {
            tracing::error!(%sale, %error, "the units of a sale could not be made, and are tried again");
        }
    }
    Ok(())
}

async fn make_in_turn(app: &App, sale: FlashSaleId) -> Result<(), ServiceError> {
    while is_our_turn(app, UNITS).await? && make_chunk(app, sale).await? {}
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
