//! The live numbers of sales, in memory: for pages, for refusals, and for subscribers.
//!
//! Owns: the sales that are on (or will be within a day), at most a quarter of a second old, and who watches them. One query
//! each quarter of a second serves everybody.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError, RwLock},
};

use chrono::{DateTime, TimeDelta, Utc};
use tokio::sync::watch;

use super::ServiceError;
use crate::{
    app::App,
    domain::{flash_sale::FlashSalePhase, ids::FlashSaleId},
    store::{self, flash_sale::FlashSale},
};

/// Numbers that are older than this are not used: the database is asked instead.
const MAX_AGE: TimeDelta = TimeDelta::seconds(1);

/// A sale as it was at a moment.
#[derive(Clone, Debug)]
pub struct SaleState {
    pub sale: FlashSale,
    pub phase: FlashSalePhase,
}

impl SaleState {
    fn at(now: DateTime<Utc>, sale: FlashSale) -> Self {
        Self { phase: sale.phase(now), sale }
    }

    fn differs(&self, other: &Self) -> bool {
        self.phase != other.phase || self.sale.units() != other.sale.units()
    }
}

#[derive(Default)]
pub struct SaleFeed {
    live: RwLock<Live>,
    watchers: Mutex<HashMap<FlashSaleId, watch::Sender<SaleState>>>,
}

#[derive(Default)]
struct Live {
    sales: HashMap<FlashSaleId, FlashSale>,
    read_at: Option<DateTime<Utc>>,
}

impl SaleFeed {
    /// The sale as memory has it, if that is young enough.
    pub fn get(&self, id: FlashSaleId, now: DateTime<Utc>) -> Option<FlashSale> {
        let live = self.live.read().unwrap_or_else(PoisonError::into_inner);
        let is_fresh = live.read_at.is_some_and(|at| now - at <= MAX_AGE);
        if is_fresh { live.sales.get(&id).cloned() } else { None }
    }

    fn watchers(&self) -> MutexGuard<'_, HashMap<FlashSaleId, watch::Sender<SaleState>>> {
        self.watchers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Watches a sale, beginning with its present state; `None` when there is no such sale.
pub async fn watch_sale(app: &App, id: FlashSaleId) -> Result<Option<watch::Receiver<SaleState>>, ServiceError> {
    let Some(sale) = store::flash_sale::list_by_ids(&mut *app.db.acquire().await?, &[id]).await?.pop() else {
        return Ok(None);
    };
    let state = SaleState::at(app.clock.now(), sale);
    let mut watchers = app.sale_feed.watchers();
    let mut receiver = watchers.entry(id).or_insert_with(|| watch::Sender::new(state)).subscribe();
    receiver.mark_changed();
    Ok(Some(receiver))
}

/// Reads the live sales and those that somebody watches, and tells what has changed; forgets sales that nobody watches.
pub async fn poll(app: &App) -> Result<(), ServiceError> {
    let now = app.clock.now();
    let mut db = app.db.acquire().await?;
    let mut sales: HashMap<FlashSaleId, FlashSale> =
        store::flash_sale::list_live(&mut db, now).await?.into_iter().map(|sale| (sale.id, sale)).collect();
    let others: Vec<FlashSaleId> = {
        let mut watchers = app.sale_feed.watchers();
        watchers.retain(|_, sender| sender.receiver_count() > 0);
        watchers.keys().copied().filter(|id| !sales.contains_key(id)).collect()
    };
    if !others.is_empty() {
        sales.extend(store::flash_sale::list_by_ids(&mut db, &others).await?.into_iter().map(|sale| (sale.id, sale)));
    }
    for (id, sender) in app.sale_feed.watchers().iter() {
        let Some(sale) = sales.get(id) else { continue };
        let newest = SaleState::at(now, sale.clone());
        sender.send_if_modified(|known| {
            let differs = newest.differs(known);
            if differs {
                *known = newest;
            }
            differs
        });
    }
    *app.sale_feed.live.write().unwrap_or_else(PoisonError::into_inner) = Live { sales, read_at: Some(now) };
    Ok(())
}
