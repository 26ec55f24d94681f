//! Tells subscribers a sale's phase and remaining units, at most four times a second.
//!
//! Owns: which sales somebody watches, and their newest state. One query each quarter of a second serves all watchers.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use tokio::sync::watch;

use super::ServiceError;
use crate::{
    app::App,
    domain::{flash_sale::FlashSalePhase, ids::FlashSaleId},
    store::{self, flash_sale::FlashSale},
};

/// A sale as it was at a moment.
#[derive(Clone, Debug)]
pub struct SaleState {
    pub sale: FlashSale,
    pub phase: FlashSalePhase,
}

impl SaleState {
    fn of(app: &App, sale: FlashSale) -> Self {
        Self { phase: sale.phase(app.clock.now()), sale }
    }

    fn differs(&self, other: &Self) -> bool {
        self.phase != other.phase || self.sale.units() != other.sale.units()
    }
}

#[derive(Default)]
pub struct SaleFeed(Mutex<HashMap<FlashSaleId, watch::Sender<SaleState>>>);

impl SaleFeed {
    fn sales(&self) -> MutexGuard<'_, HashMap<FlashSaleId, watch::Sender<SaleState>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Watches a sale, beginning with its present state; `None` when there is no such sale.
pub async fn watch_sale(app: &App, id: FlashSaleId) -> Result<Option<watch::Receiver<SaleState>>, ServiceError> {
    let Some(sale) = store::flash_sale::list_by_ids(&mut *app.db.acquire().await?, &[id]).await?.pop() else {
        return Ok(None);
    };
    let state = SaleState::of(app, sale);
    let mut sales = app.sale_feed.sales();
    let sender = sales.entry(id).or_insert_with(|| watch::Sender::new(state));
    let mut receiver = sender.subscribe();
    receiver.mark_changed();
    Ok(Some(receiver))
}

/// Reads the watched sales and tells what has changed; forgets sales that nobody watches any more.
pub async fn poll(app: &App) -> Result<(), ServiceError> {
    let ids: Vec<FlashSaleId> = {
        let mut sales = app.sale_feed.sales();
        sales.retain(|_, sender| sender.receiver_count() > 0);
        sales.keys().copied().collect()
    };
    if ids.is_empty() {
        return Ok(());
    }
    let rows = store::flash_sale::list_by_ids(&mut *app.db.acquire().await?, &ids).await?;
    let sales = app.sale_feed.sales();
    for sale in rows {
        if let Some(sender) = sales.get(&sale.id) {
            let newest = SaleState::of(app, sale);
            sender.send_if_modified(|known| {
                let differs = newest.differs(known);
                if differs {
                    *known = newest;
                }
                differs
            });
        }
    }
    Ok(())
}
