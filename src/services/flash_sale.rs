//! Flash sales, as staff schedule and cancel them. What takes long is done afterwards, in chunks with a transaction each, and goes on where
//! it was after a stop at any point: units are made (units.rs), sales that are over are ended (over.rs).

mod cancel;
mod over;
mod units;

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};

pub use self::{
    cancel::{CancelledSale, cancel},
    over::end_sales,
    units::{make_missing_units, make_units},
};
use super::{
    InvalidInput, ServiceError,
    idempotency::{ClientKey, Request},
    product::check_price,
};
use crate::{
    app::App,
    domain::{
        ids::{FlashSaleId, ProductId},
        money::Money,
        stock::StockMovementKind,
    },
    store::{
        self,
        flash_sale::NewFlashSale,
        idempotency::Earlier,
        lease::{SALES_OVER, UNITS},
        stock::NewMovement,
    },
};

pub const MAX_UNITS: i32 = 10_000_000;
/// Another worker goes on when the one at work has not begun a chunk for so long. Two at once do no harm: they wait for each other's locks.
const TURN: Duration = Duration::from_secs(10);

#[derive(Clone, Debug)]
pub struct Schedule {
    pub product: ProductId,
    pub price: Money,
    pub opens_at: DateTime<Utc>,
    pub closes_at: DateTime<Utc>,
    pub units: i32,
    pub per_customer_limit: i32,
    pub hold: TimeDelta,
}

#[derive(Debug)]
pub enum Scheduled {
    Done(FlashSaleId),
    Invalid(InvalidInput),
    NoSuchProduct,
    /// The product has fewer units in its ordinary stock.
    OutOfStock {
        available: i32,
    },
    /// Another sale of the product is on at that time.
    Overlaps,
    KeyReused,
}

/// Takes the units out of the product's ordinary stock. Their rows are made by [`make_missing_units`]; the sale cannot open before all of them are
/// there. One transaction; the product's row is locked. With a key the same request again answers the sale that it made the first time.
pub async fn schedule(app: &App, input: &Schedule, key: Option<ClientKey>) -> Result<Scheduled, ServiceError> {
    let now = app.clock.now();
    let asked = (input.product.0, input.price.minor, input.opens_at, input.closes_at, input.units, input.per_customer_limit);
    let request = key.map(|key| Request::new(app, "scheduleFlashSale", key, &(asked, input.hold.num_seconds()))).transpose()?;
    if let Err(invalid) = check(app, input) {
        return Ok(Scheduled::Invalid(invalid));
    }
    let sale = NewFlashSale {
        id: FlashSaleId::new(),
        product: input.product,
        price: input.price,
        opens_at: input.opens_at,
        closes_at: input.closes_at,
        units: input.units,
        per_customer_limit: input.per_customer_limit,
        hold_seconds: i32::try_from(input.hold.num_seconds()).unwrap_or(i32::MAX),
    };

    let mut tx = app.db.begin().await?;
    if let Some(request) = &request {
        match request.take(&mut tx, sale.id.0, now).await? {
            Earlier::None => {}
            Earlier::Same(known) => return Ok(Scheduled::Done(FlashSaleId(known))),
            Earlier::Different => return Ok(Scheduled::KeyReused),
        }
    }
    if input.closes_at <= now {
        return Ok(Scheduled::Invalid(InvalidInput::new(&["closesAt"], "In the future.")));
    }
    let Some(product) = store::product::lock(&mut tx, input.product).await?.filter(|product| product.archived_at.is_none()) else {
        return Ok(Scheduled::NoSuchProduct);
    };
    if !store::product::take_available(&mut tx, product.id, input.units).await? {
        return Ok(Scheduled::OutOfStock { available: product.available });
    }
    match store::flash_sale::insert(&mut tx, &sale, now).await {
        Err(error) if error.violates(store::flash_sale::NO_OVERLAP) => return Ok(Scheduled::Overlaps),
        inserted => inserted?,
    }
    let movement =
        NewMovement { kind: StockMovementKind::Allocated, quantity: -input.units, product: product.id, sale: Some(sale.id), reason: None };
    store::stock::insert_movement(&mut tx, &movement, now).await?;
    tx.commit().await?;
    app.sales_waiting.notify_waiters();
    Ok(Scheduled::Done(sale.id))
}

/// Whether it is this process's turn, which it then is for a while. Asked before each chunk.
async fn is_our_turn(app: &App, lease: &str) -> Result<bool, ServiceError> {
    Ok(store::lease::take(&mut *app.db.acquire().await?, lease, app.process, TURN).await?.is_some())
}

/// Lets another process go on at once.
pub async fn give_up_turns(app: &App) -> Result<(), ServiceError> {
    let mut db = app.db.acquire().await?;
    for lease in [UNITS, SALES_OVER] {
        store::lease::end(&mut db, lease, app.process).await?;
    }
    Ok(())
}

fn check(app: &App, input: &Schedule) -> Result<(), InvalidInput> {
    check_price(app, input.price)?;
    let rules = [
        (input.closes_at > input.opens_at, InvalidInput::new(&["closesAt"], "After opensAt.")),
        ((1..=MAX_UNITS).contains(&input.units), InvalidInput::new(&["units"], "1 to 10,000,000.")),
        ((1..=999).contains(&input.per_customer_limit), InvalidInput::new(&["perCustomerLimit"], "1 to 999.")),
        ((30..=86_400).contains(&input.hold.num_seconds()), InvalidInput::new(&["holdSeconds"], "30 to 86,400.")),
    ];
    rules.into_iter().find_map(|(holds, invalid)| (!holds).then_some(invalid)).map_or(Ok(()), Err)
}
