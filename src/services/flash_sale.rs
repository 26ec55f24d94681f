//! Scheduling a flash sale.

use chrono::{DateTime, TimeDelta, Utc};

use super::{InvalidInput, ServiceError};
use crate::{
    app::App,
    domain::{
        ids::{FlashSaleId, ProductId},
        money::Money,
        stock::StockMovementKind,
    },
    store::{self, flash_sale::NewFlashSale, stock::NewMovement},
};

pub const MAX_UNITS: i32 = 10_000_000;
/// Unit rows a transaction; a million rows in one would hold its locks for seconds.
const UNITS_PER_CHUNK: i32 = 50_000;

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
}

/// Takes the units out of the product's ordinary stock. Their rows are made by a job, see [`make_units`]; the sale cannot open
/// before all of them are there. One transaction; the product's row is locked.
pub async fn schedule(app: &App, input: &Schedule) -> Result<Scheduled, ServiceError> {
    if let Some(invalid) = first_invalid(input, app.config.currency) {
        return Ok(Scheduled::Invalid(invalid));
    }
    let now = app.clock.now();
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

    Ok(Scheduled::Done(sale.id))
}

/// Makes the unit rows that sales still lack, a transaction per chunk, and lets those sales open. Goes on where it was
/// after a stop at any point; two at once do no harm.
pub async fn make_missing_units(app: &App) -> Result<(), ServiceError> {
    let sales = store::flash_sale::list_without_units(&mut *app.db.acquire().await?).await?;
    for (sale, units) in sales {
        make_units(app, sale, units).await?;
    }
    Ok(())
}

/// Makes the unit rows of one sale, from the first one missing, and lets it open.
pub async fn make_units(app: &App, sale: FlashSaleId, units: i32) -> Result<(), ServiceError> {
    let mut made = store::flash_sale::get_last_unit(&mut *app.db.acquire().await?, sale).await?;
    while made < units {
        let to = (made + UNITS_PER_CHUNK).min(units);
        store::flash_sale::insert_units(&mut *app.db.acquire().await?, sale, made + 1, to).await?;
        made = to;
    }
    store::flash_sale::update_units_ready(&mut *app.db.acquire().await?, sale, app.clock.now()).await?;
    Ok(())
}

fn first_invalid(input: &Schedule, currency: crate::domain::money::Currency) -> Option<InvalidInput> {
    let rules = [
        (input.price.minor > 0, InvalidInput::new(&["price"], "More than nothing.")),
        (input.price.currency == currency, InvalidInput::new(&["price"], "In the shop's currency.")),
        (input.closes_at > input.opens_at, InvalidInput::new(&["closesAt"], "After opensAt.")),
        ((1..=MAX_UNITS).contains(&input.units), InvalidInput::new(&["units"], "1 to 10,000,000.")),
        ((1..=999).contains(&input.per_customer_limit), InvalidInput::new(&["perCustomerLimit"], "1 to 999.")),
        ((30..=86_400).contains(&input.hold.num_seconds()), InvalidInput::new(&["holdSeconds"], "30 to 86,400.")),
    ];
    rules.into_iter().find_map(|(holds, invalid)| (!holds).then_some(invalid))
}
