//! How often a customer may try to buy, in one sale or by the cart. A repeated key does not count, nor so does the try after an answer `Busy`,
//! which is made with the same key: a client that does as it is told is never limited.

use std::time::Duration;

use moka::sync::Cache;
use uuid::Uuid;

use crate::{
    app::App,
    domain::ids::CustomerId,
    services::rate_limit::{self, Limit, Subject},
};

const REMEMBERED_KEYS: u64 = 100_000;
const REMEMBERED_FOR: Duration = Duration::from_mins(10);

/// Keys that were let through, for as long as a client may repeat them at once.
pub struct KnownKeys(Cache<(CustomerId, Uuid), ()>);

impl Default for KnownKeys {
    fn default() -> Self {
        Self(Cache::builder().max_capacity(REMEMBERED_KEYS).time_to_live(REMEMBERED_FOR).build())
    }
}

/// Counts a try to buy in a sale, or the cart of `customer`, unless its key was let through before.
///
/// # Errors
/// How long to wait.
pub fn check(app: &App, customer: CustomerId, subject: impl Into<Subject>, key: Uuid) -> Result<(), Duration> {
    let KnownKeys(known) = &app.known_keys;
    if !known.contains_key(&(customer, key)) {
        rate_limit::check(app, Limit::BuyNow, subject)?;
        known.insert((customer, key), ());
    }
    Ok(())
}
