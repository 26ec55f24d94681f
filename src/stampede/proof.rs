//! The proof after a stampede: what the database holds, against what customers were told.
//!
//! Owns: the verdict. Does not own: the invariants of the data (services/audit.rs), the counting (store/stampede.rs).

use std::collections::HashMap;

use uuid::Uuid;

use super::{StampedeError, buyers::Buyers};
use crate::{
    app::App,
    domain::ids::{FlashSaleId, OrderId},
    services::audit,
    store::{self, stampede::SaleCount},
};

const ORDERS_PER_STATEMENT: usize = 20_000;

/// What must never be; all zero after a good run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Proof {
    /// Units in live and paid orders beyond those of the sale.
    pub oversold: i64,
    /// Orders that a customer was promised and that do not exist.
    pub lost: i64,
    /// Orders that nobody asked for: more than purchases accepted or left without an answer; and promises that contradict
    /// each other.
    pub doubled: i64,
    /// Customers with more units than the limit.
    pub over_limit: i64,
    /// Names of the invariants that the audit found broken.
    pub broken_invariants: Vec<&'static str>,
}

impl Proof {
    /// Whether everything was kept: the stampede's exit code.
    #[must_use]
    pub fn holds(&self) -> bool {
        *self == Self::default()
    }

    /// Compares the database's count with what the buyers know.
    #[must_use]
    pub fn judge(count: &SaleCount, buyers: &Heard, lost: i64, broken_invariants: Vec<&'static str>) -> Self {
        let surplus = count.orders - buyers.promised_orders - buyers.unanswered;
        Self {
            oversold: (count.units_sold - count.total_units).max(0),
            lost,
            doubled: surplus.max(0) + buyers.contradictions,
            over_limit: count.customers_over_limit,
            broken_invariants,
        }
    }
}

/// What the buyers of a stampede were told.
#[derive(Clone, Copy, Debug, Default)]
pub struct Heard {
    pub promised_orders: i64,
    pub unanswered: i64,
    pub contradictions: i64,
}

impl From<&Buyers> for Heard {
    fn from(buyers: &Buyers) -> Self {
        let number = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
        Self {
            promised_orders: number(buyers.promised.len() as u64),
            unanswered: number(buyers.unanswered),
            contradictions: number(buyers.contradictions),
        }
    }
}

/// Asks the database. Reads every order of the sale, and audits everything.
pub async fn prove(app: &App, sale: FlashSaleId, buyers: &Buyers) -> Result<(Proof, SaleCount), StampedeError> {
    let mut db = app.db.acquire().await?;
    let count = store::stampede::get_count(&mut db, sale).await?;
    let mut lost = 0;
    for chunk in orders(&buyers.promised).chunks(ORDERS_PER_STATEMENT) {
        lost += store::stampede::count_missing_orders(&mut db, chunk).await?;
    }
    drop(db);
    let report = audit::run(app).await?;
    let broken = report.invariants.iter().filter(|invariant| invariant.violations > 0).map(|invariant| invariant.name).collect();
    Ok((Proof::judge(&count, &buyers.into(), lost, broken), count))
}

fn orders(promised: &HashMap<OrderId, Uuid>) -> Vec<Uuid> {
    promised.keys().map(|order| order.0).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOLD_OUT: SaleCount = SaleCount { total_units: 50, orders: 30, paid_orders: 30, units_sold: 50, customers_over_limit: 0 };
    const HEARD: Heard = Heard { promised_orders: 30, unanswered: 0, contradictions: 0 };

    fn judge(count: SaleCount, heard: Heard, lost: i64) -> Proof {
        Proof::judge(&count, &heard, lost, Vec::new())
    }

    #[test]
    fn a_sale_that_is_sold_to_the_last_unit_and_no_further_holds() {
        assert!(judge(SOLD_OUT, HEARD, 0).holds());
    }

    #[test]
    fn one_unit_too_many_is_oversold() {
        let proof = judge(SaleCount { units_sold: 51, ..SOLD_OUT }, HEARD, 0);
        assert_eq!(proof, Proof { oversold: 1, ..Proof::default() });
        assert!(!proof.holds());
    }

    #[test]
    fn a_promised_order_that_does_not_exist_is_lost() {
        assert!(!judge(SOLD_OUT, HEARD, 1).holds());
    }

    #[test]
    fn an_order_that_nobody_asked_for_is_doubled_and_an_unanswered_purchase_may_have_one() {
        let heard = Heard { promised_orders: 28, ..HEARD };
        assert_eq!(judge(SOLD_OUT, heard, 0).doubled, 2);
        assert!(judge(SOLD_OUT, Heard { unanswered: 2, ..heard }, 0).holds());
        assert!(judge(SOLD_OUT, Heard { unanswered: 5, ..heard }, 0).holds());
        assert!(!judge(SOLD_OUT, Heard { contradictions: 1, ..HEARD }, 0).holds());
    }

    #[test]
    fn a_customer_over_the_limit_and_a_broken_invariant_do_not_hold() {
        assert!(!judge(SaleCount { customers_over_limit: 1, ..SOLD_OUT }, HEARD, 0).holds());
        assert!(!Proof::judge(&SOLD_OUT, &HEARD, 0, vec!["I3"]).holds());
    }
}
