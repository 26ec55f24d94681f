//! How often a client may try: machines that try a hundred times a second help nobody.
//!
//! Owns: a bucket per limit and subject, in this process, and that processes put theirs together. A request asks memory only;
//! each second what was spent is added up in Redis (docs/adr/0017). Without Redis each process counts by itself.

use std::{
    collections::HashSet,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicI64, AtomicU32, Ordering},
    },
    time::Duration,
};

use moka::sync::Cache;

use crate::{
    app::App,
    config::RateLimitConfig,
    domain::{
        customer::EmailAddress,
        ids::{CustomerId, FlashSaleId},
        rate_limit::Quota,
    },
    services::ServiceError,
};

/// Buckets that are remembered; a client with more addresses than this has its own forgotten.
const MAX_BUCKETS: u64 = 500_000;
/// Every bucket is full again after so long a rest.
const FULL_AFTER: Duration = Duration::from_hours(2);
/// Buckets that are added up in one call of Redis.
const CHUNK: usize = 500;

/// What is limited, each with a quota of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Limit {
    /// Anonymous operations, and log-ins that fail, of a network address.
    Address,
    /// Operations of a signed-in customer.
    Account,
    /// Log-ins to an e-mail address, and whatever else asks a customer's password.
    Password,
    /// Sign-ups with an e-mail address.
    SignUp,
    /// Mails with a link that somebody has sent to an e-mail address.
    Mail,
    /// Different purchases of a customer in a sale, or by the cart.
    BuyNow,
}

/// Whose bucket it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Subject([u128; 2]);

impl From<std::net::IpAddr> for Subject {
    fn from(address: std::net::IpAddr) -> Self {
        let v6 = match address {
            std::net::IpAddr::V4(v4) => v4.to_ipv6_mapped(),
            std::net::IpAddr::V6(v6) => v6,
        };
        Self([v6.to_bits(), 0])
    }
}

impl From<CustomerId> for Subject {
    fn from(customer: CustomerId) -> Self {
        Self([customer.0.as_u128(), 0])
    }
}

impl From<(CustomerId, FlashSaleId)> for Subject {
    fn from((customer, sale): (CustomerId, FlashSaleId)) -> Self {
        Self([customer.0.as_u128(), sale.0.as_u128()])
    }
}

impl Subject {
    /// An e-mail address as it is typed; spellings of one mailbox are one subject. `None` for what is no address: nobody is
    /// behind it.
    #[must_use]
    pub fn of_email(app: &App, email: &str) -> Option<Self> {
        let email = EmailAddress::parse(email)?;
        let hash = app.sealing.request_fingerprint(email.as_str().as_bytes());
        Some(Self([u128::from_be_bytes(hash.first_chunk().copied()?), 0]))
    }
}

type Bucket = (Limit, Subject);

#[derive(Default)]
struct Level {
    /// See [`Quota`].
    full_at: AtomicI64,
    /// Tries that the other processes do not know of.
    unshared: AtomicU32,
}

pub struct RateLimits {
    config: RateLimitConfig,
    levels: Cache<Bucket, Arc<Level>>,
    /// Those with unshared tries; `None` when there is nothing to share them through.
    changed: Option<Mutex<HashSet<Bucket>>>,
}

impl RateLimits {
    #[must_use]
    pub fn new(config: RateLimitConfig, is_shared: bool) -> Self {
        let levels = Cache::builder().max_capacity(MAX_BUCKETS).time_to_idle(FULL_AFTER).build();
        Self { config, levels, changed: is_shared.then(Mutex::default) }
    }

    fn quota(&self, limit: Limit) -> Option<Quota> {
        let config = &self.config;
        let a_minute = |tries, burst| Quota::new(tries, Duration::from_mins(1), burst);
        match limit {
            Limit::Address => config.address_per_minute.map(|tries| a_minute(tries, tries)),
            Limit::Account => config.account_per_minute.map(|tries| a_minute(tries, tries)),
            Limit::Password => Some(a_minute(config.log_in_per_minute, config.log_in_per_minute)),
            Limit::SignUp | Limit::Mail => Some(Quota::new(config.mails_per_hour, Duration::from_hours(1), config.mails_per_hour)),
            Limit::BuyNow => Some(a_minute(config.buy_now_per_minute, config.buy_now_burst)),
        }
    }

    fn level(&self, bucket: Bucket) -> Arc<Level> {
        self.levels.get_with(bucket, Arc::default)
    }

    fn check(&self, limit: Limit, subject: Subject, now: i64) -> Result<(), Duration> {
        let Some(quota) = self.quota(limit) else { return Ok(()) };
        let level = self.level((limit, subject));
        let mut full_at = level.full_at.load(Ordering::Relaxed);
        loop {
            let after = quota.try_at(full_at, now)?;
            match level.full_at.compare_exchange_weak(full_at, after, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => break,
                Err(changed) => full_at = changed,
            }
        }
        if let Some(changed) = &self.changed
            && level.unshared.fetch_add(1, Ordering::Relaxed) == 0
        {
            changed.lock().unwrap_or_else(PoisonError::into_inner).insert((limit, subject));
        }
        Ok(())
    }

    /// The buckets that were spent from since the last call, with what was spent, in milliseconds of their level.
    fn take_spent(&self) -> Vec<(Bucket, i64)> {
        let Some(changed) = &self.changed else { return Vec::new() };
        let buckets = std::mem::take(&mut *changed.lock().unwrap_or_else(PoisonError::into_inner));
        let spent = |bucket: Bucket| {
            let tries = self.level(bucket).unshared.swap(0, Ordering::Relaxed);
            Some((bucket, self.quota(bucket.0)?.cost(tries)))
        };
        buckets.into_iter().filter_map(spent).collect()
    }

    /// What all processes together have spent.
    fn raise(&self, bucket: Bucket, full_at: i64) {
        self.level(bucket).full_at.fetch_max(full_at, Ordering::Relaxed);
    }
}

/// Counts a try.
///
/// # Errors
/// How long to wait; such a try does not count.
pub fn check(app: &App, limit: Limit, subject: impl Into<Subject>) -> Result<(), Duration> {
    app.rate_limits.check(limit, subject.into(), app.clock.now().timestamp_millis())
}

/// Adds this process's tries to those of the others, and learns of theirs. What cannot be added, because Redis is away, the
/// others never hear of.
pub async fn share(app: &App) -> Result<(), ServiceError> {
    let Some(redis) = &app.redis else { return Ok(()) };
    let spent = app.rate_limits.take_spent();
    for chunk in spent.chunks(CHUNK) {
        let named: Vec<_> = chunk.iter().map(|&(bucket, cost)| (name(app, bucket), cost)).collect();
        match redis.spend(&named, app.clock.now().timestamp_millis()).await {
            Ok(levels) => chunk.iter().zip(levels).for_each(|(&(bucket, _), full_at)| app.rate_limits.raise(bucket, full_at)),
            Err(error) => tracing::debug!(%error, "limits are not shared just now"),
        }
    }
    Ok(())
}

/// A bucket's name in Redis, which tells nobody whose it is.
fn name(app: &App, (limit, Subject([a, b])): Bucket) -> Vec<u8> {
    let subject = [a.to_be_bytes(), b.to_be_bytes()].concat();
    [format!("whitemonday:{limit:?}:").as_bytes(), &app.sealing.request_fingerprint(&subject)].concat()
}
