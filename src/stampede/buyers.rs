//! The buyers: each asks for some units of the sale with a key of its own, and remembers what it was promised.
//!
//! Owns: the request, the reading of the answer, the promises. Does not own: connections (load.rs), whether the promises
//! were kept (proof.rs).

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use rand::{Rng, SeedableRng, rngs::SmallRng};
use uuid::Uuid;

use super::{
    answer::read,
    load::{Answer, Call, Callers},
    tally::Tally,
};
use crate::domain::ids::{CustomerId, FlashSaleId, OrderId};

/// What mobile clients send.
pub const BUY_NOW: &str = include_str!("../../frontend-queries/mobile/buy-now.graphql");

pub const ACCEPTED: &str = "OrderAccepted";
pub const SOLD_OUT: &str = "SoldOut";
const REPLAYED: &str = "OrderAccepted, the same order again";
const NO_ANSWER: &str = "NO_ANSWER";

/// A customer who can buy.
#[derive(Clone, Debug)]
pub struct Buyer {
    pub id: CustomerId,
    /// The whole header value.
    pub authorization: Arc<str>,
}

/// How many units a purchase asks for: each number from the first to the last equally often.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QuantityMix {
    pub least: i32,
    pub most: i32,
}

impl std::str::FromStr for QuantityMix {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (least, most) = text.split_once("..").unwrap_or((text, text));
        let mix = least.parse().and_then(|least| Ok(Self { least, most: most.parse()? }));
        mix.ok().filter(|mix| 1 <= mix.least && mix.least <= mix.most && mix.most <= 999).ok_or("a number like 2, or 1..3; 1 to 999")
    }
}

impl QuantityMix {
    pub fn pick(self, random: &mut impl Rng) -> i32 {
        random.random_range(self.least..=self.most)
    }
}

/// What is to be bought, and how.
#[derive(Clone, Debug)]
pub struct Wish {
    pub sale: FlashSaleId,
    pub quantity: QuantityMix,
    /// So many of a hundred accepted purchases are asked for once more with the same key.
    pub repeat_percent: u32,
    /// Ends the load after so many purchases.
    pub purchases: Option<u64>,
    /// Ends it at the first answer that the sale is sold out.
    pub until_sold_out: bool,
}

/// What is sent for one purchase; a repeat is the same once more.
#[derive(Clone)]
pub struct Asked {
    buyer: usize,
    quantity: i32,
    key: Uuid,
    /// The order that the first answer promised.
    first: Option<OrderId>,
}

/// All of them. `answers` rises with each answer, for those who watch.
pub struct Buyers {
    all: Arc<[Buyer]>,
    wish: Wish,
    document: String,
    random: SmallRng,
    next: usize,
    left: u64,
    answers: Arc<AtomicU64>,
    pub tally: Tally,
    /// The key under which each order was promised.
    pub promised: HashMap<OrderId, Uuid>,
    /// Orders that were promised for two keys, and keys for which two orders were.
    pub contradictions: u64,
    /// Purchases whose answer never came: they may or may not have an order.
    pub unanswered: u64,
}

impl Buyers {
    #[must_use]
    pub fn new(all: Arc<[Buyer]>, wish: Wish, answers: Arc<AtomicU64>) -> Self {
        Self {
            all,
            document: serde_json::Value::from(BUY_NOW).to_string(),
            random: SmallRng::from_os_rng(),
            next: 0,
            left: wish.purchases.unwrap_or(u64::MAX),
            wish,
            answers,
            tally: Tally::default(),
            promised: HashMap::new(),
            contradictions: 0,
            unanswered: 0,
        }
    }

    fn call(&self, asked: Asked) -> Call<Asked> {
        let body = body(&self.document, &self.wish.sale.to_string(), asked.quantity, asked.key);
        Call { authorization: Some(self.all[asked.buyer].authorization.clone()), body, note: asked }
    }

    /// Notes the promise of an order, and whether the purchase is to be repeated.
    fn promised(&mut self, order: OrderId, asked: &Asked) -> bool {
        let is_new = self.promised.insert(order, asked.key).is_none_or(|earlier| earlier == asked.key);
        let is_same = asked.first.is_none_or(|first| first == order);
        if !is_new || !is_same {
            self.contradictions += 1;
        }
        asked.first.is_none() && self.random.random_range(0..100) < self.wish.repeat_percent
    }
}

/// The request's body. `document` is JSON text already.
#[must_use]
pub fn body(document: &str, sale: &str, quantity: i32, key: Uuid) -> String {
    format!(
        r#"{{"query":{document},"variables":{{"input":{{"flashSaleId":"{sale}","quantity":{quantity},"paymentMethod":"pm_card_visa","idempotencyKey":"{key}"}}}}}}"#
    )
}

impl Callers for Buyers {
    type Note = Asked;

    fn next(&mut self) -> Option<Call<Asked>> {
        self.left = self.left.checked_sub(1)?;
        let buyer = self.next;
        self.next = (buyer + 1) % self.all.len();
        let quantity = self.wish.quantity.pick(&mut self.random);
        Some(self.call(Asked { buyer, quantity, key: Uuid::new_v4(), first: None }))
    }

    fn answered(&mut self, asked: Asked, answer: &Answer<'_>) -> Option<Call<Asked>> {
        self.answers.fetch_add(1, Ordering::Relaxed);
        let read = read(answer.body);
        let is_accepted = read.order.is_some() && !read.replayed;
        // A repeat is counted, but is not one of the latencies of purchases.
        match &read.order {
            Some(_) if read.replayed => self.tally.count(REPLAYED),
            _ => self.tally.add(read.kind, is_accepted, answer.latency, answer.at),
        }
        if read.kind == SOLD_OUT && self.wish.until_sold_out {
            self.left = 0;
        }
        let order = read.order?;
        self.promised(order, &asked).then(|| self.call(Asked { first: Some(order), ..asked }))
    }

    fn lost(&mut self, _: Asked) {
        self.answers.fetch_add(1, Ordering::Relaxed);
        self.unanswered += 1;
        self.tally.count(NO_ANSWER);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ORDER: &str = "ord_0198f0d2a1b27c3d8e4f5061728394a5";

    fn buyers(repeat_percent: u32) -> Buyers {
        let buyer = Buyer { id: CustomerId::new(), authorization: "Bearer x".into() };
        let quantity = QuantityMix { least: 1, most: 3 };
        let wish = Wish { sale: FlashSaleId::new(), quantity, repeat_percent, purchases: Some(10), until_sold_out: false };
        Buyers::new([buyer].into(), wish, Arc::default())
    }

    fn accepted(order: &str, replayed: bool) -> String {
        format!(
            r#"{{"data":{{"buyNow":{{"result":{{"__typename":"OrderAccepted","replayed":{replayed},"order":{{"id":"{order}","version":1}}}},"userErrors":[]}}}}}}"#
        )
    }

    fn answer(body: &str) -> Answer<'_> {
        let second = std::time::Duration::from_secs(1);
        Answer { status: 200, body: body.as_bytes(), latency: second, at: second }
    }

    #[test]
    fn a_body_is_json_with_the_clients_document() {
        let call = buyers(0).next().unwrap();
        let body: serde_json::Value = serde_json::from_str(&call.body).unwrap();
        assert_eq!(body["query"], BUY_NOW);
        assert!((1..=3).contains(&body["variables"]["input"]["quantity"].as_i64().unwrap()));
    }

    #[test]
    fn a_repeat_has_the_same_key_and_is_no_second_purchase() {
        let mut buyers = buyers(100);
        let first = buyers.next().unwrap();
        let repeat = buyers.answered(first.note, &answer(&accepted(ORDER, false))).expect("a repeat");
        assert_eq!(repeat.body, first.body);
        assert!(buyers.answered(repeat.note, &answer(&accepted(ORDER, true))).is_none());
        assert_eq!((buyers.tally.of_kind(ACCEPTED), buyers.tally.of_kind(REPLAYED), buyers.contradictions), (1, 1, 0));
    }

    #[test]
    fn another_order_for_the_same_key_and_the_same_order_for_another_key_are_contradictions() {
        let mut buyers = buyers(100);
        let first = buyers.next().unwrap();
        let repeat = buyers.answered(first.note, &answer(&accepted(ORDER, false))).unwrap();
        buyers.answered(repeat.note, &answer(&accepted("ord_0198f0d2a1b27c3d8e4f5061728394a6", false)));
        assert_eq!(buyers.contradictions, 1);
        let other = buyers.next().unwrap();
        buyers.answered(other.note, &answer(&accepted(ORDER, false)));
        assert_eq!(buyers.contradictions, 2);
    }

    #[test]
    fn quantities_are_a_number_or_a_range() {
        let mix = |text: &str| text.parse::<QuantityMix>().ok().map(|mix| (mix.least, mix.most));
        assert_eq!((mix("2"), mix("1..3")), (Some((2, 2)), Some((1, 3))));
        assert_eq!((mix("0"), mix("3..1"), mix("x"), mix("1..1000")), (None, None, None, None));
    }
}
