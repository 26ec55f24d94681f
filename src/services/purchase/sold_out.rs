//! Refusing buyers of a sold-out sale without asking the database: a hundred thousand of them come in a second.
//!
//! Owns: which sales had no free unit when last looked at, together with the customers who have an order in them. Those
//! customers are never refused from here: one of them may have lost the answer to a success. Filled when a purchase finds a
//! sale sold out; read anew every second while it stands, so that units which come back are sold.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, PoisonError, RwLock},
};

use chrono::{DateTime, TimeDelta, Utc};

use crate::{
    app::App,
    domain::ids::{CustomerId, FlashSaleId},
    services::ServiceError,
    store::{self, flash_sale::FlashSale},
};

/// A flag that could not be read anew for this long is not believed.
const MAX_AGE: TimeDelta = TimeDelta::seconds(3);

#[derive(Default)]
pub struct SoldOutSales {
    flags: RwLock<HashMap<FlashSaleId, Arc<Flag>>>,
    /// Sales that somebody is looking at just now: one look serves all.
    looking: Mutex<HashSet<FlashSaleId>>,
}

struct Flag {
    sale: FlashSale,
    /// Customers with an order, in the same snapshot in which no unit was free.
    buyers: Arc<HashSet<CustomerId>>,
    /// Orders ever made in that snapshot: while it stays, `buyers` is complete.
    orders: i64,
    read_at: DateTime<Utc>,
}

impl SoldOutSales {
    /// The sale as it was when no unit was free, if this customer may be told so without asking.
    pub fn refusal(&self, sale: FlashSaleId, customer: CustomerId, now: DateTime<Utc>) -> Option<FlashSale> {
        let flag = self.flag(sale)?;
        let is_fresh = now - flag.read_at <= MAX_AGE;
        (is_fresh && now < flag.sale.closes_at && !flag.buyers.contains(&customer)).then(|| flag.sale.clone())
    }

    fn flag(&self, sale: FlashSaleId) -> Option<Arc<Flag>> {
        self.flags.read().unwrap_or_else(PoisonError::into_inner).get(&sale).cloned()
    }

    fn set(&self, sale: FlashSaleId, flag: Option<Flag>) {
        let mut flags = self.flags.write().unwrap_or_else(PoisonError::into_inner);
        match flag {
            Some(flag) => flags.insert(sale, Arc::new(flag)),
            None => flags.remove(&sale),
        };
    }

    fn flagged(&self) -> Vec<FlashSaleId> {
        self.flags.read().unwrap_or_else(PoisonError::into_inner).keys().copied().collect()
    }
}

/// Looks whether the sale is sold out, and sets or clears its flag. Returns at once when somebody is looking already.
pub async fn look(app: &App, sale: FlashSaleId) -> Result<(), ServiceError> {
    let Some(_turn) = Turn::take(&app.sold_out, sale) else { return Ok(()) };
    let known = app.sold_out.flag(sale);
    let read_at = app.clock.now();
    let mut db = app.db.acquire().await?;
    let snapshot = store::flash_sale::find_sold_out(&mut db, sale, known.as_ref().map(|flag| flag.orders)).await?;
    let flag = snapshot.and_then(|snapshot| {
        let buyers = match snapshot.buyers {
            Some(buyers) => Arc::new(buyers.into_iter().collect()),
            None => known?.buyers.clone(),
        };
        Some(Flag { sale: snapshot.sale, buyers, orders: snapshot.orders, read_at })
    });
    let is_over = flag.as_ref().is_some_and(|flag| read_at >= flag.sale.closes_at);
    app.sold_out.set(sale, flag.filter(|_| !is_over));
    Ok(())
}

/// Reads every flag anew. A failure leaves the flags to grow too old.
pub async fn look_again(app: &App) -> Result<(), ServiceError> {
    for sale in app.sold_out.flagged() {
        look(app, sale).await?;
    }
    Ok(())
}

/// The right to look at a sale; given back when dropped.
struct Turn<'a> {
    sales: &'a SoldOutSales,
    sale: FlashSaleId,
}

impl<'a> Turn<'a> {
    fn take(sales: &'a SoldOutSales, sale: FlashSaleId) -> Option<Self> {
        let is_first = sales.looking.lock().unwrap_or_else(PoisonError::into_inner).insert(sale);
        is_first.then_some(Self { sales, sale })
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.sales.looking.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.sale);
    }
}
