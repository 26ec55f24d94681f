//! How often a customer may try to buy in one sale: a machine that tries a hundred times a second helps nobody.
//!
//! Owns: a bucket per customer and sale, in this process. A repeated key does not count, nor so does the try after an answer
//! `Busy`, which is made with the same key: a client that does as it is told is never limited.

use std::time::Duration;

use governor::{DefaultKeyedRateLimiter, NotUntil, Quota, RateLimiter, clock::Clock};
use moka::sync::Cache;
use uuid::Uuid;

use crate::{
    config::PurchaseConfig,
    domain::ids::{CustomerId, FlashSaleId},
};

/// Keys that were let through, for as long as a client may repeat them at once.
const REMEMBERED_KEYS: u64 = 100_000;
const REMEMBERED_FOR: Duration = Duration::from_mins(10);

pub struct PurchaseLimits {
    buckets: DefaultKeyedRateLimiter<(CustomerId, FlashSaleId)>,
    keys: Cache<(CustomerId, Uuid), ()>,
}

impl PurchaseLimits {
    #[must_use]
    pub fn new(config: &PurchaseConfig) -> Self {
        let quota = Quota::per_minute(config.per_minute).allow_burst(config.burst);
        Self {
            buckets: RateLimiter::keyed(quota),
            keys: Cache::builder().max_capacity(REMEMBERED_KEYS).time_to_live(REMEMBERED_FOR).build(),
        }
    }

    /// Counts a try, unless its key was let through before.
    ///
    /// # Errors
    /// How long to wait.
    pub fn check(&self, customer: CustomerId, sale: FlashSaleId, key: Uuid) -> Result<(), Duration> {
        if !self.keys.contains_key(&(customer, key)) {
            // The limiter's own clock: a new one asks the processor what it is, which a virtual machine answers slowly.
            let wait = |denied: NotUntil<_>| denied.wait_time_from(self.buckets.clock().now());
            self.buckets.check_key(&(customer, sale)).map_err(wait)?;
            self.keys.insert((customer, key), ());
        }
        Ok(())
    }

    /// Forgets buckets that are full again; called now and then.
    pub fn shrink(&self) {
        self.buckets.retain_recent();
    }
}
