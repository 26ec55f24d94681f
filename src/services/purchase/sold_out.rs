//! Refusing buyers of a sold-out sale without asking the database: a hundred thousand of them come in a second.
//!
//! Owns: which sales had no free unit when last looked at, together with the customers who have an order in them. Those
//! customers are never refused from here: one of them may have lost the answer to a success. Filled when a purchase finds a
//! sale sold out; read anew every second while it stands, so that units which come back are sold.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, PoisonError, RwLock},
};

use chrono::{DateTime, TimeDelta, Utc};
use tokio::sync::Mutex;

use crate::{
    app::App,
    domain::ids::{CustomerId, FlashSaleId},
    services::ServiceError,
    store::{self, StoreError, flash_sale::FlashSale},
};

/// A flag that could not be read anew for this long is not believed.
const MAX_AGE: TimeDelta = TimeDelta::seconds(3);

#[derive(Default)]
pub struct SoldOutSales {
    flags: RwLock<HashMap<FlashSaleId, Arc<Flag>>>,
    /// Sales that somebody has looked at, each with the right to look: one look at a time serves all.
    turns: RwLock<HashMap<FlashSaleId, Arc<Mutex<()>>>>,
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

    /// Waits for the look that is under way at this sale, if there is one. In the moment in which the last unit goes, its buyers
    /// wait here for the flag; each of them would otherwise search all units for a free one. False when nobody has ever looked.
    pub async fn looked(&self, sale: FlashSaleId) -> bool {
        let turn = self.turns.read().unwrap_or_else(PoisonError::into_inner).get(&sale).cloned();
        if let Some(turn) = &turn {
            drop(turn.lock().await);
        }
        turn.is_some()
    }

    fn turn(&self, sale: FlashSaleId) -> Arc<Mutex<()>> {
        self.turns.write().unwrap_or_else(PoisonError::into_inner).entry(sale).or_default().clone()
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

/// Looks whether the sale is sold out, and sets or clears its flag; the sale, if it is. A look that somebody began after this
/// was asked for will do.
pub async fn look(app: &App, sale: FlashSaleId) -> Result<Option<FlashSale>, ServiceError> {
    let asked_at = app.clock.now();
    let turn = app.sold_out.turn(sale);
    let _turn = turn.lock().await;
    let known = app.sold_out.flag(sale);
    if let Some(flag) = known.as_ref().filter(|flag| flag.read_at > asked_at) {
        return Ok(Some(flag.sale.clone()));
    }
    let read_at = app.clock.now();
    let mut db = app.db.acquire().await?;
    let snapshot = store::flash_sale::find_sold_out(&mut db, sale, known.as_ref().map(|flag| flag.orders)).await?;
    let Some(snapshot) = snapshot.filter(|snapshot| read_at < snapshot.sale.closes_at) else {
        app.sold_out.set(sale, None);
        return Ok(None);
    };
    let buyers = match (snapshot.buyers, known) {
        (Some(buyers), _) => Arc::new(buyers.into_iter().collect()),
        (None, Some(known)) => known.buyers.clone(),
        (None, None) => return Err(StoreError::Missing("buyers of a sale that is looked at for the first time").into()),
    };
    app.sold_out.set(sale, Some(Flag { sale: snapshot.sale.clone(), buyers, orders: snapshot.orders, read_at }));
    Ok(Some(snapshot.sale))
}

/// Reads every flag anew. A failure leaves the flags to grow too old.
pub async fn look_again(app: &App) -> Result<(), ServiceError> {
    for sale in app.sold_out.flagged() {
        look(app, sale).await?;
    }
    Ok(())
}
