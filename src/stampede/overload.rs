//! More than the server can do: buyers come several times as fast as it sells. What it still sells, and what it tells the rest.
//!
//! Owns: the measurement. Does not own: the connections (load.rs), what is shown (report.rs).

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use chrono::TimeDelta;

use super::{
    Plan, StampedeError,
    buyers::{ACCEPTED, Asked, Buyer, Buyers, Wish},
    ceilings::{NO_LIMIT, units_for},
    load::{Answer, Call, Callers, Load, Target, fire},
    tally::Latencies,
};
use crate::{app::App, services::seed, store};

/// As many connections as wait at most: each has one purchase under way, and none may wait for a connection.
const CONNECTIONS: usize = 4_000;

/// What was offered, and what became of it.
#[derive(Clone, Debug, Default)]
pub struct Overload {
    /// Purchases a second that were asked for.
    pub offered: f64,
    /// Orders a second.
    pub accepted: f64,
    pub kinds: BTreeMap<String, u64>,
    pub accepted_latencies: Latencies,
    pub refused_latencies: Latencies,
}

/// Fires at `rate` purchases a second for as long as the plan fires, at a sale of its own.
pub async fn measure(app: &App, plan: &Plan, target: &Target, buyers: &Arc<[Buyer]>, rate: f64) -> Result<Overload, StampedeError> {
    let sale = seed::sale(app, units_for(plan.load.duration), NO_LIMIT, TimeDelta::zero()).await?;
    store::scratch::settle_down(&mut *app.db.acquire().await?).await?;
    let wish = Wish { sale, quantity: plan.quantity, repeat_percent: 0, purchases: None, until_sold_out: false };
    let load = Load { in_flight: CONNECTIONS, duration: plan.load.duration, rate: Some(rate), ..plan.load };
    let crowd = Crowd {
        buyers: Buyers::new(buyers.clone(), wish, Arc::default()),
        accepted: Latencies::default(),
        refused: Latencies::default(),
        took: Duration::ZERO,
    };
    let crowd = fire(target, load, crowd).await?;
    Ok(Overload {
        offered: super::tally::per_second(crowd.accepted.count() + crowd.refused.count(), crowd.took),
        accepted: crowd.buyers.tally.rate(ACCEPTED),
        kinds: crowd.buyers.tally.kinds,
        accepted_latencies: crowd.accepted,
        refused_latencies: crowd.refused,
    })
}

/// Buyers whose answers are timed apart: an order, or a no.
struct Crowd {
    buyers: Buyers,
    accepted: Latencies,
    refused: Latencies,
    took: Duration,
}

impl Callers for Crowd {
    type Note = Asked;

    fn next(&mut self) -> Option<Call<Asked>> {
        self.buyers.next()
    }

    fn answered(&mut self, asked: Asked, answer: &Answer<'_>) -> Option<Call<Asked>> {
        let orders = self.buyers.promised.len();
        let again = self.buyers.answered(asked, answer);
        let latencies = if self.buyers.promised.len() > orders { &mut self.accepted } else { &mut self.refused };
        latencies.record(answer.latency);
        self.took = self.took.max(answer.at);
        again
    }

    fn lost(&mut self, asked: Asked) {
        self.buyers.lost(asked);
    }
}
