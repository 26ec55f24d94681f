//! The payment provider.

use std::num::NonZeroU32;

use secrecy::SecretString;

use super::reader::Reader;

#[derive(Clone, Debug)]
pub struct PaymentConfig {
    pub url: String,
    pub secret_key: SecretString,
    /// Of the endpoint for the provider's events; without it there is none.
    pub webhook_secret: Option<SecretString>,
    /// What each worker process keeps to; none without a limit.
    pub calls_per_second: Option<NonZeroU32>,
}

impl PaymentConfig {
    /// Stripe takes a hundred calls a second of an account: some are left for others.
    const STRIPE_CALLS_PER_SECOND: u32 = 80;

    pub(super) fn from_reader(reader: &mut Reader<'_>) -> Self {
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
