//! Everything that a use case needs, built once at the start of a process. Tests build the same.

use std::{ops::Deref, sync::Arc, time::Duration};

use tokio::sync::Notify;
use uuid::Uuid;

use crate::{
    auth::{
        access_token::AccessTokens,
        password::{PasswordError, Passwords},
        refresh_token::RefreshTokens,
        revocations::Revocations,
    },
    clients::{
        mailer::{MailError, Mailer},
        payment_gateway::{GatewayConfig, GatewayConfigError, PaymentGateway},
        redis::{Redis, RedisError},
    },
    clock::Clock,
    config::Config,
    embedded::mailbox::Mailbox,
    metrics::Metrics,
    sealing::Sealing,
    services::{
        audit::LastAudit,
        metrics::LastReading,
        order_feed::OrderFeed,
        page_cache::PageCache,
        purchase::{
            batcher::{self, PurchaseBatcher},
            rate_limit::KnownKeys,
            sold_out::SoldOutSales,
        },
        rate_limit::RateLimits,
        sale_feed::SaleFeed,
    },
    store::{self, Database, JOB_PATIENCE, REQUEST_PATIENCE, StoreError},
};

const FOLLOWER_CONNECTIONS: u32 = 3;
const PROVIDER_CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
const PROVIDER_ANSWER_TIMEOUT: Duration = Duration::from_secs(8);
/// With the first one, three tries of a call in one delivery.
const PROVIDER_REPETITIONS: usize = 2;

#[derive(Debug, thiserror::Error)]
pub enum AppError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Redis(#[from] RedisError),
    #[error(transparent)]
    Mail(#[from] MailError),
    #[error(transparent)]
    Password(#[from] PasswordError),
    #[error("PAYMENT_URL or PAYMENT_SECRET_KEY cannot be used: {0}")]
    Payment(#[from] GatewayConfigError),
}

/// Pools, clients, clock and configuration. Cheap to clone: each request does, more than once.
#[derive(Clone)]
pub struct App {
    /// The pool of whoever holds this `App`: requests, or jobs after [`App::for_jobs`].
    pub db: Database,
    shared: Arc<Shared>,
}

impl Deref for App {
    type Target = Shared;

    fn deref(&self) -> &Shared {
        &self.shared
    }
}

/// What all clones of an [`App`] have in common.
pub struct Shared {
    requests_db: Database,
    jobs_db: Database,
    followers_db: Database,
    /// The connections of the purchase batcher's workers.
    pub claims_db: Database,
    pub config: Config,
    pub clock: Clock,
    pub sealing: Sealing,
    pub passwords: Passwords,
    pub access_tokens: AccessTokens,
    pub refresh_tokens: RefreshTokens,
    pub revocations: Revocations,
    pub redis: Option<Redis>,
    pub mailer: Mailer,
    pub payment_gateway: PaymentGateway,
    pub purchases: PurchaseBatcher,
    pub known_keys: KnownKeys,
    pub rate_limits: RateLimits,
    pub sold_out: SoldOutSales,
    pub counter_slots: CounterSlots,
    /// Names this process where several compete.
    pub process: Uuid,
    pub order_feed: Arc<OrderFeed>,
    pub sale_feed: SaleFeed,
    pub pages: Arc<PageCache>,
    pub metrics: Metrics,
    pub last_audit: LastAudit,
    pub last_reading: LastReading,
    /// Rung after a commit that queued a payment, a refund or a mail; the runners poll as well, for other processes' messages.
    pub payments_waiting: Arc<Notify>,
    pub refunds_waiting: Arc<Notify>,
    pub mail_waiting: Arc<Notify>,
    /// Rung when a sale was scheduled or cancelled.
    pub sales_waiting: Arc<Notify>,
}

impl App {
    /// Connects to nothing yet. Mail goes to `mailbox` where there is one.
    ///
    /// # Errors
    /// When a setting cannot be used.
    pub fn new(config: Config, clock: Clock, mailbox: Option<Arc<Mailbox>>) -> Result<Self, AppError> {
        let mailer = match mailbox {
            Some(mailbox) => Mailer::Mailbox(mailbox),
            None => Mailer::smtp(&config.mail)?,
        };
        let metrics = Metrics::default();
        let payment_gateway = PaymentGateway::new(&GatewayConfig {
            base_url: config.payment.url.clone(),
            secret_key: config.payment.secret_key.clone(),
            return_url: config.http.public_url.clone(),
            connect_timeout: PROVIDER_CONNECT_TIMEOUT,
            answer_timeout: PROVIDER_ANSWER_TIMEOUT,
            calls_per_second: config.payment.calls_per_second,
            repetitions: PROVIDER_REPETITIONS,
            calls: metrics.provider_calls.clone(),
        })?;
        let pool = |name, connections, patience| {
            let pool = store::pool(&config.database.url, connections, patience, &format!("whitemonday {name}"))?;
            Ok::<_, StoreError>(Database::new(pool, metrics.pool_waits(name)))
        };
        let db = pool("requests", config.database.request_connections, REQUEST_PATIENCE)?;
        let redis = config.redis_url.as_ref().map(|url| Redis::new(url, config.redis_timeout)).transpose()?;
        let pages = PageCache::new(config.page_cache_bytes, redis.clone(), clock.clone(), config.http.deadline, metrics.pages.clone());
        let shared = Shared {
            requests_db: db.clone(),
            jobs_db: pool("jobs", config.database.job_connections, JOB_PATIENCE)?,
            followers_db: pool("followers", FOLLOWER_CONNECTIONS, JOB_PATIENCE)?,
            claims_db: pool("claims", batcher::WORKERS.unsigned_abs().into(), REQUEST_PATIENCE)?,
            clock,
            sealing: Sealing::new(&config.keys),
            passwords: Passwords::new()?,
            access_tokens: AccessTokens::new(&config.keys.tokens),
            refresh_tokens: RefreshTokens::new(&config.keys.tokens),
            revocations: Revocations::default(),
            redis,
            mailer,
            payment_gateway,
            purchases: PurchaseBatcher::default(),
            known_keys: KnownKeys::default(),
            rate_limits: RateLimits::new(config.rate_limits, config.redis_url.is_some()),
            sold_out: SoldOutSales::default(),
            counter_slots: CounterSlots::random(),
            process: Uuid::new_v4(),
            order_feed: Arc::default(),
            sale_feed: SaleFeed::default(),
            pages: Arc::new(pages),
            metrics,
            last_audit: LastAudit::default(),
            last_reading: LastReading::default(),
            payments_waiting: Arc::default(),
            refunds_waiting: Arc::default(),
            mail_waiting: Arc::default(),
            sales_waiting: Arc::default(),
            config,
        };
        Ok(Self { db, shared: Arc::new(shared) })
    }

    /// The same for background work, with its own connections: jobs cannot starve requests, nor requests jobs.
    #[must_use]
    pub fn for_jobs(&self) -> Self {
        Self { db: self.jobs_db.clone(), shared: self.shared.clone() }
    }

    /// The same for what keeps memory true, and tells health and metrics, with connections that neither requests nor jobs can take.
    #[must_use]
    pub fn for_followers(&self) -> Self {
        Self { db: self.followers_db.clone(), shared: self.shared.clone() }
    }

    /// All pools, by what metrics call them.
    #[must_use]
    pub fn pools(&self) -> [(&'static str, &Database); 4] {
        let Shared { requests_db, jobs_db, followers_db, claims_db, .. } = &**self;
        [("requests", requests_db), ("claims", claims_db), ("jobs", jobs_db), ("followers", followers_db)]
    }
}

/// Which rows of a sale's counters this process adds to: each writer its own, so that nobody waits for a counter. Two
/// processes with the same ones are rare, and only slower.
#[derive(Clone, Copy, Debug)]
pub struct CounterSlots(i16);

impl CounterSlots {
    const EACH: i16 = 8;
    /// As many groups of payments are settled at once.
    const SETTLEMENT: i16 = 4;

    fn random() -> Self {
        Self(rand::random_range(0..i16::MAX / Self::EACH) * Self::EACH)
    }

    /// The slot of a worker of the purchase batcher.
    #[must_use]
    pub const fn purchase(self, worker: i16) -> i16 {
        self.0 + worker
    }

    /// A slot of payments that are settled, any of several: two groups with the same one wait for each other.
    #[must_use]
    pub fn settlement(self) -> i16 {
        self.0 + batcher::WORKERS + rand::random_range(0..Self::SETTLEMENT)
    }

    /// The slot of whatever else moves orders: holds that end, and changes that somebody asks for.
    #[must_use]
    pub const fn changes(self) -> i16 {
        self.0 + Self::EACH - 1
    }
}
