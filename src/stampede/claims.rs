//! The one place where measurements call the SQL function `buy_now`, without GraphQL, HTTP and the services' batcher.

use sqlx::PgConnection;
use uuid::Uuid;

use crate::{
    domain::{
        ids::{CustomerId, FlashSaleId, OrderId},
        order::order_number,
        quantity::Quantity,
    },
    store::{
        StoreError,
        purchase::{self, Purchase, PurchaseOutcome},
    },
};

#[must_use]
pub fn purchase(customer: CustomerId, sale: FlashSaleId, quantity: Quantity) -> Purchase {
    Purchase {
        order: OrderId::new(),
        number: order_number(rand::random()),
        customer,
        sale,
        quantity,
        idempotency_key: Uuid::new_v4(),
        request_hash: vec![0; 32],
        payment_method: "pm_card_visa".to_owned(),
        address: None,
        delivery_note_sealed: None,
        trace: None,
    }
}

/// Places batches of one sale on one connection.
pub struct Claims {
    /// The connection's own row of the sale's counters.
    slot: i16,
    /// The highest unit claimed here.
    mark: i32,
}

impl Claims {
    #[must_use]
    pub const fn new(slot: i16) -> Self {
        Self { slot, mark: 0 }
    }

    /// One transaction; whether each purchase was accepted.
    pub async fn place(&mut self, db: &mut PgConnection, purchases: &[Purchase]) -> Result<Vec<bool>, StoreError> {
        let marked: Vec<_> = purchases.iter().map(|purchase| (purchase, self.mark)).collect();
        let outcomes = purchase::buy_now(db, self.slot, &marked).await?;
        let mut accepted = Vec::with_capacity(outcomes.len());
        for outcome in outcomes {
            if let PurchaseOutcome::Accepted { last_seq, .. } = outcome {
                self.mark = last_seq;
            }
            accepted.push(matches!(outcome, PurchaseOutcome::Accepted { .. }));
        }
        Ok(accepted)
    }
}
