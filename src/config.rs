//! Every setting, read once and checked together, so that a wrong start reports all mistakes at once.
//!
//! Owns: names, defaults, ranges, cross-checks. Does not own: what the settings mean to those who use them.
//! Only `settings.rs` reads the environment. `.env.example` documents the same names; a test compares the two.

mod database;
mod http;
mod jobs;
mod keys;
mod mail;
mod payment;
mod rate_limits;
mod reader;
mod settings;
mod telemetry;

use std::{collections::BTreeMap, time::Duration};

use secrecy::SecretString;

use self::reader::Reader;
pub use self::{
    database::DatabaseConfig,
    http::HttpConfig,
    jobs::JobsConfig,
    keys::{KeysConfig, NumberedKey},
    mail::{MailConfig, MailTransport},
    payment::PaymentConfig,
    rate_limits::RateLimitConfig,
    reader::ConfigErrors,
    settings::{SETTINGS_FILE, Settings, program},
    telemetry::{LogConfig, LogFormat, TraceConfig},
};
use crate::domain::money::Currency;

/// All settings of a server or worker.
#[derive(Clone, Debug)]
pub struct Config {
    pub database: DatabaseConfig,
    pub redis_url: Option<SecretString>,
    /// How long a request waits for Redis: any longer, and the database is quicker.
    pub redis_timeout: Duration,
    pub keys: KeysConfig,
    pub http: HttpConfig,
    pub mail: MailConfig,
    pub payment: PaymentConfig,
    pub jobs: JobsConfig,
    pub rate_limits: RateLimitConfig,
    /// Memory for answers of the catalogue; none are kept with 0.
    pub page_cache_bytes: u64,
    /// The one currency of the shop.
    pub currency: Currency,
}

impl Config {
    /// Reads all settings of a server or worker.
    ///
    /// # Errors
    /// All mistakes together.
    pub fn read(settings: &Settings, mail: MailTransport) -> Result<Self, ConfigErrors> {
        let mut reader = Reader::new(settings);
        let config = Self::from_reader(&mut reader, mail);
        // Reported with the others, though log and traces are started from their own reading.
        LogConfig::from_reader(&mut reader);
        TraceConfig::from_reader(&mut reader);
        reader.finish(config)
    }

    fn from_reader(reader: &mut Reader<'_>, mail: MailTransport) -> Self {
        Self {
            database: DatabaseConfig::from_reader(reader),
            redis_url: {
                let url = reader.text("REDIS_URL");
                reader.secret_url("REDIS_URL", url.as_deref().unwrap_or_default(), &["redis", "rediss"]);
                url.map(Into::into)
            },
            keys: KeysConfig::from_reader(reader),
            http: HttpConfig::from_reader(reader),
            mail: MailConfig::from_reader(reader, mail),
            payment: PaymentConfig::from_reader(reader),
            jobs: JobsConfig::from_reader(reader),
            rate_limits: RateLimitConfig::from_reader(reader),
            redis_timeout: Duration::from_millis(reader.number("REDIS_TIMEOUT_MILLISECONDS", 50, 1..=10_000).into()),
            page_cache_bytes: reader.number("PAGE_CACHE_BYTES", 64 * 1024 * 1024, 0..=u32::MAX).into(),
            currency: reader.parsed("SHOP_CURRENCY", Currency::KRW, "three capital letters of ISO 4217, like KRW"),
        }
    }

    /// The name of every variable, for the test that compares them with `.env.example`.
    #[must_use]
    pub fn variables() -> Vec<&'static str> {
        let settings = Settings::fixed(BTreeMap::new());
        let mut reader = Reader::new(&settings);
        Self::from_reader(&mut reader, MailTransport::Smtp);
        LogConfig::from_reader(&mut reader);
        TraceConfig::from_reader(&mut reader);
        reader.names
    }
}
