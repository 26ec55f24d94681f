//! The money: every charge and refund that really happened. The judge of "charged once".
//! Does not own: why a charge happened (`intents`), or the listing of it over HTTP (`admin`, `api`).

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use serde::{Deserialize, Serialize};

use super::{
    cards::CardRef,
    intents::{Facts, shared},
    table::Table,
};

/// The metadata a caller names its order by; the judge counts charges for each value.
pub const ORDER_ID: &str = "order_id";
const TOLD_OF_AT_MOST: usize = 100;

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Charge {
    pub id: String,
    #[serde(with = "shared")]
    pub facts: Arc<Facts>,
    pub card: CardRef,
    pub refunded: i64,
    pub created_ms: u64,
    /// The key of the call that took the money; none when the customer's authentication did.
    pub key: Option<String>,
}

impl Charge {
    pub fn order_id(&self) -> Option<&str> {
        self.facts.metadata.get(ORDER_ID).map(String::as_str)
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Refund {
    pub id: String,
    pub charge: String,
    pub payment_intent: String,
    pub amount: i64,
    pub currency: String,
    pub reason: Option<String>,
    pub created_ms: u64,
    pub metadata: BTreeMap<String, String>,
}

/// The ledger in one look. Amounts are minor units by currency.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LedgerSummary {
    pub charges: usize,
    pub refunds: usize,
    pub charged: BTreeMap<String, i64>,
    pub refunded: BTreeMap<String, i64>,
    pub orders_charged: usize,
    /// The first hundred orders that paid more than once; must be empty.
    pub orders_charged_more_than_once: Vec<String>,
}

#[derive(Default)]
pub struct Ledger {
    pub charges: Table<Charge>,
    pub refunds: Table<Refund>,
    by_order: HashMap<String, Vec<usize>>,
    charged: BTreeMap<String, i64>,
    refunded: BTreeMap<String, i64>,
    charged_again: Vec<String>,
}

impl Ledger {
    pub fn book_charge(&mut self, charge: Charge) {
        let id = charge.id.clone();
        let order = charge.order_id().map(str::to_owned);
        let (amount, currency) = (charge.facts.amount, charge.facts.currency.clone());
        let (at, new) = self.charges.put(&id, charge);
        if !new {
            return;
        }
        *self.charged.entry(currency).or_default() += amount;
        if let Some(order) = order {
            let charges = self.by_order.entry(order.clone()).or_default();
            charges.push(at);
            if charges.len() == 2 && self.charged_again.len() < TOLD_OF_AT_MOST {
                self.charged_again.push(order);
            }
        }
    }

    /// The refunded total of the charge follows from its refunds: it is not booked on its own.
    pub fn book_refund(&mut self, refund: Refund) {
        let id = refund.id.clone();
        let (charge, amount, currency) = (refund.charge.clone(), refund.amount, refund.currency.clone());
        let (_, new) = self.refunds.put(&id, refund);
        if !new {
            return;
        }
        *self.refunded.entry(currency).or_default() += amount;
        if let Some(charge) = self.charges.get_mut(&charge) {
            charge.refunded += amount;
        }
    }

    pub fn charges_of_order(&self, order: &str) -> Vec<&Charge> {
        let places = self.by_order.get(order).map_or(&[][..], Vec::as_slice);
        places.iter().filter_map(|&at| self.charges.rows().get(at)).collect()
    }

    pub fn summary(&self) -> LedgerSummary {
        LedgerSummary {
            charges: self.charges.len(),
            refunds: self.refunds.len(),
            charged: self.charged.clone(),
            refunded: self.refunded.clone(),
            orders_charged: self.by_order.len(),
            orders_charged_more_than_once: self.charged_again.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn charge(id: &str, order: &str) -> Charge {
        let facts = Facts {
            id: format!("pi_{id}"),
            amount: 500,
            currency: "krw".to_owned(),
            created_ms: 1,
            metadata: BTreeMap::from([(ORDER_ID.to_owned(), order.to_owned())]),
        };
        let card = CardRef::find("pm_card_visa").unwrap();
        Charge { id: id.to_owned(), facts: Arc::new(facts), card, refunded: 0, created_ms: 1, key: None }
    }

    #[test]
    fn an_order_that_paid_twice_is_named() {
        let mut ledger = Ledger::default();
        for (id, order) in [("ch_1", "order-1"), ("ch_2", "order-2"), ("ch_3", "order-2")] {
            ledger.book_charge(charge(id, order));
        }

        let summary = ledger.summary();

        assert_eq!(summary.orders_charged_more_than_once, ["order-2"]);
        assert_eq!((summary.charges, summary.orders_charged), (3, 2));
        assert_eq!(summary.charged["krw"], 1_500);
        assert_eq!(ledger.charges_of_order("order-2").len(), 2);
    }
}
