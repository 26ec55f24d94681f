//! Every setting, read once and checked together, so that a wrong start reports all mistakes at once.
//!
//! Owns: names, defaults, ranges, cross-checks. Does not own: what the settings mean to those who use them.
//! The only place that reads the environment. `.env.example` documents the same names; a test compares the two.

use std::{
    collections::BTreeMap,
    fmt,
    net::SocketAddr,
    num::NonZeroU32,
    path::{Path, PathBuf},
    str::FromStr,
    time::Duration,
};

use base64::{Engine, prelude::BASE64_STANDARD};
use secrecy::{ExposeSecret, SecretString};
use zeroize::Zeroizing;

use crate::domain::money::Currency;

/// Where settings come from: the process's environment, or the file that a running demo wrote for operators' commands.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// `None` is the environment. Any of them may be secret.
    values: Option<BTreeMap<String, SecretString>>,
    defaults: BTreeMap<&'static str, &'static str>,
}

/// Name of the file in a demo's data folder, with `NAME=value` lines.
pub const SETTINGS_FILE: &str = "settings.env";

impl Settings {
    /// The process's environment.
    #[must_use]
    pub const fn environment() -> Self {
        Self { values: None, defaults: BTreeMap::new() }
    }

    /// Exactly these settings; the environment is not looked at.
    #[must_use]
    pub fn fixed(values: BTreeMap<String, String>) -> Self {
        let values = values.into_iter().map(|(name, value)| (name, value.into())).collect();
        Self { values: Some(values), defaults: BTreeMap::new() }
    }

    /// The same, with another default for one variable.
    #[must_use]
    pub fn or(mut self, name: &'static str, default: &'static str) -> Self {
        self.defaults.insert(name, default);
        self
    }

    /// The settings of the demo that runs on this data folder.
    ///
    /// # Errors
    /// When no demo has written its settings there.
    pub fn of_data_folder(folder: &Path) -> std::io::Result<Self> {
        let text = Zeroizing::new(std::fs::read_to_string(folder.join(SETTINGS_FILE))?);
        let values = text.lines().filter_map(|line| line.split_once('=')).map(|(name, value)| (name.to_owned(), value.to_owned()));
        Ok(Self::fixed(values.collect()))
    }

    /// The value of a variable; an empty one is none.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<String> {
        let value = match &self.values {
            Some(values) => values.get(name).map(|value| value.expose_secret().to_owned()),
            None => std::env::var(name).ok(),
        };
        value.filter(|value| !value.trim().is_empty()).or_else(|| self.defaults.get(name).map(|&default| default.to_owned()))
    }
}

/// The path of this program, for those who start it once more.
///
/// # Errors
/// When the system does not tell.
pub fn program() -> std::io::Result<PathBuf> {
    std::env::current_exe()
}

/// Everything that is wrong with the settings, each with the variable's name.
#[derive(Debug)]
pub struct ConfigErrors(Vec<String>);

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} to mend in the configuration (.env.example explains each variable):", self.0.len())?;
        self.0.iter().try_for_each(|error| writeln!(f, "  - {error}"))
    }
}

impl std::error::Error for ConfigErrors {}

/// Reads variables and remembers every mistake instead of stopping at the first.
struct Reader<'a> {
    settings: &'a Settings,
    names: Vec<&'static str>,
    errors: Vec<String>,
}

impl<'a> Reader<'a> {
    const fn new(settings: &'a Settings) -> Self {
        Self { settings, names: Vec::new(), errors: Vec::new() }
    }

    fn text(&mut self, name: &'static str) -> Option<String> {
        self.names.push(name);
        self.settings.get(name)
    }

    /// A value that must be given. On a mistake the returned placeholder is never used: `finish` refuses.
    fn required(&mut self, name: &'static str, what: &str) -> String {
        self.text(name).unwrap_or_else(|| {
            self.errors.push(format!("{name} is missing: {what}"));
            String::new()
        })
    }

    /// An address that may hold a password, so that a mistake names the variable and never repeats the value.
    fn secret_url(&mut self, name: &'static str, value: &str, schemes: &[&str]) {
        if !value.is_empty() {
            self.check_scheme(name, value, schemes);
        }
    }

    fn secret(&mut self, name: &'static str, what: &str) -> SecretString {
        self.required(name, what).into()
    }

    fn optional<T: FromStr>(&mut self, name: &'static str, rule: &str) -> Option<T> {
        let value = self.text(name)?.parse().ok();
        if value.is_none() {
            self.errors.push(format!("{name} must be {rule}"));
        }
        value
    }

    fn parsed<T: FromStr>(&mut self, name: &'static str, default: T, rule: &str) -> T {
        self.optional(name, rule).unwrap_or(default)
    }

    fn number(&mut self, name: &'static str, default: u32, range: std::ops::RangeInclusive<u32>) -> u32 {
        let rule = format!("a number from {} to {}", range.start(), range.end());
        let value = self.parsed(name, default, &rule);
        if !range.contains(&value) {
            self.errors.push(format!("{name} must be {rule}"));
        }
        value
    }

    fn above_zero(&mut self, name: &'static str, default: u32) -> NonZeroU32 {
        NonZeroU32::new(self.number(name, default, 1..=1_000_000)).unwrap_or(NonZeroU32::MIN)
    }

    fn switch(&mut self, name: &'static str) -> bool {
        match self.text(name).as_deref() {
            None | Some("off") => false,
            Some("on") => true,
            Some(_) => {
                self.errors.push(format!("{name} must be on or off"));
                false
            }
        }
    }

    fn url(&mut self, name: &'static str, default: &str, schemes: &[&str]) -> String {
        let value = self.text(name).unwrap_or_else(|| default.to_owned());
        self.check_scheme(name, &value, schemes);
        value.trim_end_matches('/').to_owned()
    }

    fn check_scheme(&mut self, name: &'static str, value: &str, schemes: &[&str]) {
        if !schemes.iter().any(|scheme| value.starts_with(&format!("{scheme}://"))) {
            self.errors.push(format!("{name} must start with {}://", schemes.join(":// or ")));
        }
    }

    /// Origins as browsers send them, separated by commas; the one of `own_url` first.
    fn origins(&mut self, name: &'static str, own_url: &str) -> Vec<String> {
        let text = self.text(name).unwrap_or_default();
        let listed = text.split(',').map(str::trim).filter(|origin| !origin.is_empty());
        let origins = std::iter::once(own_url).chain(listed).map(|given| (given, origin(given)));
        let mut good = Vec::new();
        for (given, origin) in origins {
            match origin {
                Some(origin) if given.starts_with("http") && (given == own_url || origin.eq_ignore_ascii_case(given)) => good.push(origin),
                _ => self.errors.push(format!("{name} must be origins like https://shop.example.com, separated by commas")),
            }
        }
        good
    }

    fn finish<T>(self, value: T) -> Result<T, ConfigErrors> {
        if self.errors.is_empty() { Ok(value) } else { Err(ConfigErrors(self.errors)) }
    }
}

/// 256 bits of key material with the number it is stored under.
pub struct NumberedKey {
    pub id: u8,
    pub key: Zeroizing<[u8; 32]>,
}

impl fmt::Debug for NumberedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NumberedKey({})", self.id)
    }
}

impl Clone for NumberedKey {
    fn clone(&self) -> Self {
        Self { id: self.id, key: self.key.clone() }
    }
}

#[derive(Clone, Debug)]
pub struct DatabaseConfig {
    pub url: SecretString,
    /// Past any pooler, for migrations.
    pub direct_url: SecretString,
    pub request_connections: u32,
    pub job_connections: u32,
}

#[derive(Clone, Debug)]
pub struct KeysConfig {
    /// The first one seals, all of them open.
    pub sealing: Vec<NumberedKey>,
    /// One key, or while it is changed two: one with an odd and one with an even number.
    pub blind_index: Vec<NumberedKey>,
    /// The first one signs access tokens, all of them verify.
    pub tokens: Vec<NumberedKey>,
}

#[derive(Clone, Debug)]
pub struct HttpConfig {
    pub listen: SocketAddr,
    /// Where metrics and health are shown to the operator's machines; nowhere when there is none.
    pub metrics: Option<SocketAddr>,
    /// What links in mails start with, without a slash at the end.
    pub public_url: String,
    /// `GraphiQL` and introspection.
    pub developer_tools: bool,
    /// Only the documents of `frontend-queries/manifest.json` are run.
    pub only_trusted_documents: bool,
    /// Whose pages may call the API from a browser; the program's own, those of `public_url`, stand first.
    pub allowed_origins: Vec<String>,
    /// How many proxies stand before the server: so many entries of `X-Forwarded-For`, from the right, are believed.
    pub trusted_proxy_hops: usize,
    pub max_connections: usize,
    /// Requests that are worked on at once; more are refused.
    pub max_in_flight: usize,
    /// How long one request may take.
    pub deadline: Duration,
    /// How long a connection may be without a whole request.
    pub idle_patience: Duration,
    /// Sockets that are open at once; they no longer count as connections.
    pub max_sockets: usize,
    pub sockets_per_address: usize,
}

#[derive(Clone, Debug)]
pub struct MailConfig {
    /// `None` only where an in-memory mailbox stands in for SMTP: demo and tests.
    pub smtp_url: Option<SecretString>,
    pub from: String,
}

#[derive(Clone, Debug)]
pub struct PaymentConfig {
    pub url: String,
    pub secret_key: SecretString,
    /// Of the endpoint for the provider's events; without it there is none.
    pub webhook_secret: Option<SecretString>,
    /// What each worker process keeps to; none without a limit.
    pub calls_per_second: Option<NonZeroU32>,
}

#[derive(Clone, Debug)]
pub struct JobsConfig {
    /// How long a delivery belongs to the worker that read it.
    pub visibility: Duration,
    /// After this a step's worker counts as gone.
    pub step_deadline: Duration,
    /// A paid order goes on to PREPARING by itself after this; by staff only when there is none.
    pub prepare_after: Option<Duration>,
    /// The same of a shipped order and DELIVERED.
    pub deliver_after: Option<Duration>,
    /// How often a worker audits the data by itself, if at all.
    pub audit_every: Option<Duration>,
}

/// How often clients may try (`services/rate_limit.rs`).
#[derive(Clone, Copy, Debug)]
pub struct RateLimitConfig {
    /// None without a limit, as the next one.
    pub address_per_minute: Option<NonZeroU32>,
    pub account_per_minute: Option<NonZeroU32>,
    pub log_in_per_minute: NonZeroU32,
    pub mails_per_hour: NonZeroU32,
    pub buy_now_per_minute: NonZeroU32,
    pub buy_now_burst: NonZeroU32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    Pretty,
    Json,
}

impl FromStr for LogFormat {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        match text {
            "pretty" => Ok(Self::Pretty),
            "json" => Ok(Self::Json),
            _ => Err(()),
        }
    }
}

#[derive(Clone, Debug)]
pub struct LogConfig {
    pub filter: String,
    pub format: LogFormat,
}

#[derive(Clone, Debug)]
pub struct TraceConfig {
    /// Where traces are sent to, without a slash at the end; without it none are recorded.
    pub endpoint: Option<String>,
    /// How many of those that begin here are recorded: 0 to 1.
    pub ratio: f64,
}

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

/// Who will use the settings; decides what must be given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MailTransport {
    Smtp,
    Mailbox,
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
            mail: MailConfig {
                smtp_url: match mail {
                    MailTransport::Smtp => {
                        let url = reader.required("SMTP_URL", "like smtps://user:password@mail.example.com");
                        reader.secret_url("SMTP_URL", &url, &["smtp", "smtps"]);
                        Some(url.into())
                    }
                    MailTransport::Mailbox => None,
                },
                from: reader.text("MAIL_FROM").unwrap_or_else(|| "WhiteMonday <no-reply@whitemonday.example>".to_owned()),
            },
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

impl DatabaseConfig {
    /// Reads only what a command needs that talks to the database and nothing else.
    ///
    /// # Errors
    /// All mistakes together.
    pub fn read(settings: &Settings) -> Result<Self, ConfigErrors> {
        let mut reader = Reader::new(settings);
        let config = Self::from_reader(&mut reader);
        reader.finish(config)
    }

    fn from_reader(reader: &mut Reader<'_>) -> Self {
        let schemes = ["postgres", "postgresql"];
        let url = reader.required("DATABASE_URL", "like postgres://user:password@localhost:5432/whitemonday");
        reader.secret_url("DATABASE_URL", &url, &schemes);
        let direct_url = reader.text("DATABASE_DIRECT_URL").unwrap_or_else(|| url.clone());
        reader.secret_url("DATABASE_DIRECT_URL", &direct_url, &schemes);
        let (url, direct_url) = (SecretString::from(url), SecretString::from(direct_url));
        Self {
            url,
            direct_url,
            request_connections: reader.number("DATABASE_REQUEST_CONNECTIONS", 16, 2..=500),
            job_connections: reader.number("DATABASE_JOB_CONNECTIONS", 8, 2..=500),
        }
    }
}

impl KeysConfig {
    fn from_reader(reader: &mut Reader<'_>) -> Self {
        Self {
            sealing: reader.keys("SEALING_KEYS"),
            blind_index: {
                let keys = reader.keys("BLIND_INDEX_KEY");
                let even = keys.iter().filter(|key| key.id.is_multiple_of(2)).count();
                if even > 1 || keys.len() - even > 1 {
                    reader.errors.push("BLIND_INDEX_KEY must be one key, or two: one with an odd and one with an even number".to_owned());
                }
                keys
            },
            tokens: reader.keys("TOKEN_KEYS"),
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum TrustedDocuments {
    Off,
    Only,
}

impl FromStr for TrustedDocuments {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        match text {
            "off" => Ok(Self::Off),
            "only" => Ok(Self::Only),
            _ => Err(()),
        }
    }
}

impl HttpConfig {
    fn from_reader(reader: &mut Reader<'_>) -> Self {
        let public_url = reader.url("PUBLIC_URL", "http://127.0.0.1:8000", &["http", "https"]);
        Self {
            listen: reader.parsed("LISTEN", SocketAddr::from(([127, 0, 0, 1], 8000)), "an address like 127.0.0.1:8000"),
            metrics: reader.optional("METRICS_ADDRESS", "an address like 127.0.0.1:9464"),
            developer_tools: reader.switch("DEVELOPER_TOOLS"),
            only_trusted_documents: reader.parsed("TRUSTED_DOCUMENTS", TrustedDocuments::Off, "only or off") == TrustedDocuments::Only,
            allowed_origins: reader.origins("ALLOWED_ORIGINS", &public_url),
            trusted_proxy_hops: reader.number("TRUSTED_PROXY_HOPS", 0, 0..=10) as usize,
            max_connections: reader.number("MAX_CONNECTIONS", 20_000, 10..=1_000_000) as usize,
            max_in_flight: reader.number("MAX_IN_FLIGHT", 512, 1..=100_000) as usize,
            deadline: Duration::from_secs(reader.number("REQUEST_DEADLINE_SECONDS", 10, 1..=60).into()),
            idle_patience: Duration::from_secs(reader.number("IDLE_CONNECTION_SECONDS", 75, 1..=3600).into()),
            max_sockets: reader.number("MAX_SOCKETS", 10_000, 1..=1_000_000) as usize,
            sockets_per_address: reader.number("SOCKETS_PER_ADDRESS", 500, 1..=1_000_000) as usize,
            public_url,
        }
    }
}

impl RateLimitConfig {
    fn from_reader(reader: &mut Reader<'_>) -> Self {
        Self {
            address_per_minute: NonZeroU32::new(reader.number("ADDRESS_PER_MINUTE", 300, 0..=1_000_000)),
            account_per_minute: NonZeroU32::new(reader.number("ACCOUNT_PER_MINUTE", 600, 0..=1_000_000)),
            log_in_per_minute: reader.above_zero("LOG_IN_PER_MINUTE", 5),
            mails_per_hour: reader.above_zero("MAILS_PER_HOUR", 3),
            buy_now_per_minute: reader.above_zero("BUY_NOW_PER_MINUTE", 20),
            buy_now_burst: reader.above_zero("BUY_NOW_BURST", 10),
        }
    }
}

/// `https://shop.example.com` of an address on it.
fn origin(url: &str) -> Option<String> {
    let (scheme, rest) = url.split_once("://")?;
    let host = rest.split('/').next().filter(|host| !host.is_empty())?;
    Some(format!("{scheme}://{host}").to_ascii_lowercase())
}

impl PaymentConfig {
    /// Stripe takes a hundred calls a second of an account: some are left for others.
    const STRIPE_CALLS_PER_SECOND: u32 = 80;

    fn from_reader(reader: &mut Reader<'_>) -> Self {
        const STRIPE: &str = "https://api.stripe.com";
        let url = reader.url("PAYMENT_URL", STRIPE, &["http", "https"]);
        let usual = if url == STRIPE { Self::STRIPE_CALLS_PER_SECOND } else { 0 };
        Self {
            secret_key: reader.secret("PAYMENT_SECRET_KEY", "the payment provider's secret key"),
            webhook_secret: reader.text("PAYMENT_WEBHOOK_SECRET").map(Into::into),
            calls_per_second: NonZeroU32::new(reader.number("PAYMENT_CALLS_PER_SECOND", usual, 0..=100_000)),
            url,
        }
    }
}

impl JobsConfig {
    fn from_reader(reader: &mut Reader<'_>) -> Self {
        let visibility = reader.number("JOB_VISIBILITY_SECONDS", 45, 2..=3600);
        let step_deadline = reader.number("JOB_STEP_DEADLINE_SECONDS", 30, 1..=3599);
        if step_deadline >= visibility {
            reader.errors.push(
                "JOB_STEP_DEADLINE_SECONDS must be less than JOB_VISIBILITY_SECONDS, or a message is delivered again while its first worker is still at it"
                    .to_owned(),
            );
        }
        let prepare_after = reader.number("PREPARE_AFTER_MINUTES", 0, 0..=100_000);
        let deliver_after = reader.number("DELIVER_AFTER_DAYS", 0, 0..=365);
        let audit_every = reader.number("AUDIT_EVERY_SECONDS", 300, 0..=86_400);
        let some = |after: Duration| Some(after).filter(|after| !after.is_zero());
        Self {
            visibility: Duration::from_secs(visibility.into()),
            step_deadline: Duration::from_secs(step_deadline.into()),
            prepare_after: some(Duration::from_secs(60 * u64::from(prepare_after))),
            deliver_after: some(Duration::from_secs(24 * 60 * 60 * u64::from(deliver_after))),
            audit_every: some(Duration::from_secs(audit_every.into())),
        }
    }
}

impl LogConfig {
    /// Reads the log settings alone: the log must stand before anything else can fail.
    ///
    /// # Errors
    /// All mistakes together.
    pub fn read(settings: &Settings) -> Result<Self, ConfigErrors> {
        let mut reader = Reader::new(settings);
        let config = Self::from_reader(&mut reader);
        reader.finish(config)
    }

    fn from_reader(reader: &mut Reader<'_>) -> Self {
        Self {
            filter: reader.text("LOG").unwrap_or_else(|| "info,sqlx=warn".to_owned()),
            format: reader.parsed("LOG_FORMAT", LogFormat::Pretty, "pretty or json"),
        }
    }
}

impl TraceConfig {
    /// Reads the settings of traces alone: they stand before anything else begins.
    ///
    /// # Errors
    /// All mistakes together.
    pub fn read(settings: &Settings) -> Result<Self, ConfigErrors> {
        let mut reader = Reader::new(settings);
        let config = Self::from_reader(&mut reader);
        reader.finish(config)
    }

    fn from_reader(reader: &mut Reader<'_>) -> Self {
        const RULE: &str = "a number from 0 to 1, like 0.01";
        let endpoint = reader.text("OTLP_ENDPOINT");
        if let Some(url) = &endpoint {
            reader.check_scheme("OTLP_ENDPOINT", url, &["http", "https"]);
        }
        let ratio = reader.parsed("TRACE_RATIO", 0.01, RULE);
        if !(0.0..=1.0).contains(&ratio) {
            reader.errors.push(format!("TRACE_RATIO must be {RULE}"));
        }
        Self { endpoint: endpoint.map(|url| url.trim_end_matches('/').to_owned()), ratio }
    }
}

fn parse_key(text: &str) -> Option<NumberedKey> {
    let (id, key) = text.trim().split_once(':')?;
    let id = id.parse().ok().filter(|id| *id > 0)?;
    let bytes = Zeroizing::new(BASE64_STANDARD.decode(key).ok()?);
    let key = Zeroizing::new(<[u8; 32]>::try_from(bytes.as_slice()).ok()?);
    Some(NumberedKey { id, key })
}

impl Reader<'_> {
    /// `id:base64,id:base64`, each key 32 bytes.
    fn keys(&mut self, name: &'static str) -> Vec<NumberedKey> {
        let text = Zeroizing::new(self.required(name, "make one with `whitemonday keys generate`"));
        if text.is_empty() {
            return Vec::new();
        }
        let keys: Option<Vec<_>> = text.split(',').map(parse_key).collect();
        let keys = keys.unwrap_or_default();
        let mut ids: Vec<_> = keys.iter().map(|key| key.id).collect();
        ids.sort_unstable();
        ids.dedup();
        if keys.is_empty() || ids.len() != keys.len() {
            self.errors.push(format!(
                "{name} must be `number:base64 of 32 bytes`, several separated by commas, with different numbers from 1 to 255"
            ));
        }
        keys
    }
}
