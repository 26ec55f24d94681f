//! Carts: what a line can be bought for now, and what keeps it from being bought.

use super::{ids::FlashSaleId, money::Money};

/// What keeps a line from being bought as it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CartProblem {
    OutOfStock,
    PriceChanged,
    ProductRemoved,
    LimitReached,
}

/// What a line can be bought for now: out of the open sale of its product, or else out of the ordinary stock. While a sale is open
/// nothing is bought past it.
#[derive(Clone, Debug)]
pub struct Offer {
    pub unit_price: Money,
    pub sale: Option<FlashSaleId>,
    /// Pieces that nobody holds or has bought.
    pub left: i64,
    /// How many more pieces of the sale the customer may have; `None` without a sale.
    pub allowance: Option<i32>,
    /// The product is no longer sold.
    pub is_removed: bool,
}

impl Offer {
    /// What keeps so many pieces from being bought at the price that the customer has agreed to.
    #[must_use]
    pub fn problems(&self, quantity: i32, agreed_price_minor: i64) -> Vec<CartProblem> {
        if self.is_removed {
            return vec![CartProblem::ProductRemoved];
        }
        let is_over = self.allowance.is_some_and(|allowance| allowance < quantity);
        [
            (is_over, CartProblem::LimitReached),
            (self.left < i64::from(quantity), CartProblem::OutOfStock),
            (self.unit_price.minor != agreed_price_minor, CartProblem::PriceChanged),
        ]
        .into_iter()
        .filter_map(|(stands, problem)| stands.then_some(problem))
        .collect()
    }
}
