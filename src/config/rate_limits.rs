//! How often clients may try.

use std::num::NonZeroU32;

use super::reader::Reader;

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

impl RateLimitConfig {
    pub(super) fn from_reader(reader: &mut Reader<'_>) -> Self {
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
