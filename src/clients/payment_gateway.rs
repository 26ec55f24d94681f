//! The payment provider: Stripe's `PaymentIntents`, or the simulator that speaks the same.
//! Owns: the calls with their circuit breakers and rate (`guard`), and what an answer, or the lack of one, says about the money
//! (`GatewayError`). Does not own: what becomes of an order. Called by services/payment.rs and services/refund.rs.
//! An error's text holds codes and the provider's request id, never a key, a body or an address.

mod answer;
mod guard;
#[cfg(test)]
mod tests;
pub mod webhook;

use std::{fmt, num::NonZeroU32, sync::Arc, time::Duration};

use chrono::{DateTime, Utc};
use reqwest::{
    Client, RequestBuilder, Url,
    header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue},
    redirect,
};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use uuid::Uuid;

use super::circuit_breaker::Snapshot;
use crate::metrics::ProviderCalls;
use answer::{WireIntent, WirePage, WireRefund, WireRefunds};
use guard::Guard;
pub use guard::Operation;

/// The shapes below are those of this version, whatever the account's default is.
const API_VERSION: &str = "2025-03-31.basil";
/// The card comes with the intent, for its label.
const EXPAND: (&str, &str) = ("expand[]", "payment_method");
/// The most that the provider lists at once.
const PAGE: &str = "100";

pub struct GatewayConfig {
    /// `https://api.stripe.com`, or the simulator's address.
    pub base_url: String,
    pub secret_key: SecretString,
    /// Where the provider sends a customer back to after an authentication; it adds the intent's id. Without it
    /// Stripe offers no page to authenticate on.
    pub return_url: String,
    pub connect_timeout: Duration,
    /// For the whole call, from its start to the end of the answer.
    pub answer_timeout: Duration,
    /// What this process keeps to; none without a limit.
    pub calls_per_second: Option<NonZeroU32>,
    /// How often a call is made once more, with its key, while it fails in a way that may pass.
    pub repetitions: usize,
    /// Where each call is counted.
    pub calls: ProviderCalls,
}

#[derive(Debug, thiserror::Error)]
pub enum GatewayConfigError {
    #[error("the payment provider's address is not an http or https URL")]
    BaseUrl,
    #[error("the payment provider's address must be https when the key is a live one")]
    LiveKeyInTheOpen,
    #[error("the payment provider's key holds characters that no key has")]
    Key,
    #[error("the payment provider's client can't be built: {0}")]
    Client(#[source] reqwest::Error),
}

/// What a new intent is for. Two calls with one key must carry the same.
#[derive(Debug, Clone, Copy)]
pub struct NewIntent<'a> {
    /// In the currency's minor unit: Stripe's zero-decimal currencies are ours with exponent 0.
    pub amount_minor: i64,
    /// ISO code; any case.
    pub currency: &'a str,
    pub payment_method: &'a str,
    pub order_id: Uuid,
    pub attempt_id: Uuid,
}

/// What a new refund is of. Two calls with one key must carry the same.
#[derive(Debug, Clone, Copy)]
pub struct NewRefund<'a> {
    /// The provider's id of the payment.
    pub intent: &'a str,
    /// In the currency's minor unit.
    pub amount_minor: i64,
    pub refund_id: Uuid,
    pub order_id: Uuid,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IntentStatus {
    /// Also after a decline: `failure_code` says why.
    RequiresPaymentMethod,
    RequiresConfirmation,
    RequiresAction,
    Processing,
    Succeeded,
    Canceled,
}

/// The provider's view of one payment. The caller compares amount, currency and ids with what it asked for.
#[derive(Clone, PartialEq, Eq)]
pub struct Intent {
    pub id: String,
    pub status: IntentStatus,
    pub amount_minor: i64,
    /// The amount, once it is taken; else 0.
    pub received_minor: i64,
    /// Upper case ISO code.
    pub currency: String,
    /// Where the customer must authenticate.
    pub next_action_url: Option<String>,
    /// As shown to the customer: `Visa •••• 4242`. After a decline, the declined card.
    pub method_label: Option<String>,
    /// Why the last try was declined, in the words of `GatewayError::Declined`.
    pub failure_code: Option<String>,
    /// From the metadata; `None` when it is missing or is no id of ours.
    pub order_id: Option<Uuid>,
    pub attempt_id: Option<Uuid>,
}

impl fmt::Debug for Intent {
    /// The address of an authentication lets its reader pay: it stays out.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Intent")
            .field("id", &self.id)
            .field("status", &self.status)
            .field("amount_minor", &self.amount_minor)
            .field("currency", &self.currency)
            .field("failure_code", &self.failure_code)
            .field("order_id", &self.order_id)
            .finish_non_exhaustive()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChargeStatus {
    /// The only one in which money has been taken, and only once it is captured.
    Succeeded,
    Pending,
    Failed,
}

/// One try of the provider to take money, as it lists them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Charge {
    pub id: String,
    /// None for a charge that was not made by way of an intent, so not by us.
    pub intent: Option<String>,
    pub status: ChargeStatus,
    pub captured: bool,
    pub amount_minor: i64,
    pub refunded_minor: i64,
    /// Upper case ISO code.
    pub currency: String,
    /// From the metadata, which the provider copies from the intent when it makes the charge; `None` when it is missing or
    /// is no id of ours.
    pub order_id: Option<Uuid>,
    pub attempt_id: Option<Uuid>,
    /// In whole seconds.
    pub created_at: DateTime<Utc>,
}

/// Newest first. The next page is the one after the last charge of this one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChargePage {
    pub charges: Vec<Charge>,
    pub has_more: bool,
}

/// Every answer but success, by what it says about the money.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GatewayError {
    /// Not charged, and the same again won't be. The bank's own word where it has one (`insufficient_funds`), else
    /// Stripe's code (`card_declined`, `expired_card`); also for a payment method that does not exist.
    #[error("declined: {code}")]
    Declined { code: String, method_label: Option<String> },
    /// The call surely did nothing: to be repeated with the same key.
    #[error("not executed: {reason}")]
    Safe { reason: String, retry_after: Option<Duration> },
    /// It may have charged: to be queried, then repeated with the same key.
    #[error("outcome unknown: {reason}")]
    Unknown { reason: String, kept: Kept },
    /// A call with this key is being executed: to be repeated with the same key, later. Not a failure of the provider.
    #[error("a call with the same key is in flight")]
    InFlight { retry_after: Option<Duration> },
    /// Calls of this kind mostly fail, so that none is made for a while. Nothing was done.
    #[error("the circuit breaker is open")]
    BreakerOpen { retry_after: Duration },
    /// The provider knows no such object.
    #[error("no such object at the provider")]
    NotFound,
    /// The intent is past what was asked: it is settled, or waits for something else. Its state is the answer.
    #[error("not possible while the payment is {:?}", .intent.status)]
    WrongState { intent: Box<Intent> },
    /// The provider refuses the call itself (key, parameters, key used for another call): our mistake. Nothing was
    /// charged, and only a changed program or configuration helps.
    #[error("refused by the provider: status {status}, {code}, parameter {param:?}, request {request_id:?}")]
    Rejected { status: u16, code: String, param: Option<String>, request_id: Option<String> },
}

/// Whether an error stands under the idempotency key, so that the same call will be told the same for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kept {
    No,
    /// Since this call.
    Now,
    /// Since an earlier one, whose answer this is: nothing is under way under the key.
    Already,
}

impl GatewayError {
    /// An outcome that nobody knows, of which nothing is kept.
    #[must_use]
    pub fn unknown(reason: &str) -> Self {
        Self::Unknown { reason: reason.to_owned(), kept: Kept::No }
    }

    /// What could not even be sent: our mistake.
    fn unsendable() -> Self {
        Self::Rejected { status: 0, code: "unsendable".to_owned(), param: None, request_id: None }
    }

    /// The provider is ill, or does not want to be asked so much. A decline, or a call that is our mistake, says that it is well.
    const fn is_failure(&self) -> bool {
        matches!(self, Self::Safe { .. } | Self::Unknown { .. })
    }

    /// The provider could not be asked, or did not answer as it should.
    #[must_use]
    pub const fn is_outage(&self) -> bool {
        self.is_failure() || matches!(self, Self::BreakerOpen { .. })
    }

    /// The same call, with the same key, may have another answer soon.
    const fn may_pass(&self) -> bool {
        matches!(self, Self::Safe { .. } | Self::Unknown { kept: Kept::No, .. } | Self::InFlight { .. })
    }

    /// How long the provider, or the breaker before it, wants to be left alone.
    #[must_use]
    pub const fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Safe { retry_after, .. } | Self::InFlight { retry_after } => *retry_after,
            Self::BreakerOpen { retry_after } => Some(*retry_after),
            _ => None,
        }
    }
}

/// The adapter; clones share its connections, breakers and rate.
#[derive(Clone)]
pub struct PaymentGateway {
    guard: Arc<Guard>,
    http: Client,
    base_url: Url,
    return_url: String,
}

impl PaymentGateway {
    /// Opens no connection yet.
    pub fn new(config: &GatewayConfig) -> Result<Self, GatewayConfigError> {
        let base_url = Url::parse(&config.base_url).map_err(|_| GatewayConfigError::BaseUrl)?;
        let in_the_open = base_url.scheme() == "http";
        if base_url.cannot_be_a_base() || !(in_the_open || base_url.scheme() == "https") {
            return Err(GatewayConfigError::BaseUrl);
        }
        let key = config.secret_key.expose_secret();
        if in_the_open && (key.starts_with("sk_live_") || key.starts_with("rk_live_")) {
            return Err(GatewayConfigError::LiveKeyInTheOpen);
        }
        let mut bearer = HeaderValue::try_from(format!("Bearer {key}")).map_err(|_| GatewayConfigError::Key)?;
        bearer.set_sensitive(true);
        let version = HeaderValue::from_static(API_VERSION);
        let headers = HeaderMap::from_iter([(AUTHORIZATION, bearer), (HeaderName::from_static("stripe-version"), version)]);
        let mut http = Client::builder()
            .user_agent(concat!("whitemonday/", env!("CARGO_PKG_VERSION")))
            .default_headers(headers)
            .connect_timeout(config.connect_timeout)
            .timeout(config.answer_timeout)
            // The provider never redirects; whoever does must not get the key.
            .redirect(redirect::Policy::none());
        if in_the_open {
            // The simulator is near: a proxy set up for the outside must not stand between.
            http = http.no_proxy();
        }
        let http = http.build().map_err(GatewayConfigError::Client)?;
        let guard = Arc::new(Guard::new(config));
        Ok(Self { guard, http, base_url, return_url: config.return_url.clone() })
    }

    /// How many of these calls the breakers would let through now; `None` is any number.
    #[must_use]
    pub fn room(&self, operations: &[Operation]) -> Option<u32> {
        self.guard.room(operations)
    }

    pub fn breakers(&self) -> impl Iterator<Item = (Operation, Snapshot)> {
        self.guard.snapshots()
    }

    /// Makes an unconfirmed intent: no money moves. Idempotent by `key`.
    #[tracing::instrument(name = "gateway.create_intent", skip_all)]
    pub async fn create_intent(&self, key: &str, new: &NewIntent<'_>) -> Result<Intent, GatewayError> {
        let form = [
            ("amount", new.amount_minor.to_string()),
            ("currency", new.currency.to_ascii_lowercase()),
            ("payment_method", new.payment_method.to_owned()),
            ("payment_method_types[]", "card".to_owned()),
            ("metadata[order_id]", new.order_id.to_string()),
            ("metadata[attempt_id]", new.attempt_id.to_string()),
            (EXPAND.0, EXPAND.1.to_owned()),
        ];
        self.intent(Operation::CreateIntent, self.post(self.url(&[]), key).form(&form)).await
    }

    /// Takes the money, or says why not. Idempotent by `key`; an intent is charged once whatever the keys.
    #[tracing::instrument(name = "gateway.confirm_intent", skip_all)]
    pub async fn confirm_intent(&self, key: &str, id: &str, payment_method: &str) -> Result<Intent, GatewayError> {
        let form = [("payment_method", payment_method), ("return_url", &self.return_url), EXPAND];
        self.intent(Operation::ConfirmIntent, self.post(self.intent_url(id, &["confirm"])?, key).form(&form)).await
    }

    #[tracing::instrument(name = "gateway.retrieve_intent", skip_all)]
    pub async fn retrieve_intent(&self, id: &str) -> Result<Intent, GatewayError> {
        let mut url = self.intent_url(id, &[])?;
        url.query_pairs_mut().append_pair(EXPAND.0, EXPAND.1);
        self.intent(Operation::RetrieveIntent, self.http.get(url)).await
    }

    /// Ends an intent that took no money; `WrongState` when it has been charged, or was cancelled before. Idempotent
    /// by `key`.
    #[tracing::instrument(name = "gateway.cancel_intent", skip_all)]
    pub async fn cancel_intent(&self, key: &str, id: &str) -> Result<Intent, GatewayError> {
        self.intent(Operation::CancelIntent, self.post(self.intent_url(id, &["cancel"])?, key).form(&[EXPAND])).await
    }

    /// Gives money back; the provider's id of the refund. Idempotent by `key`; the provider refuses more than was captured.
    #[tracing::instrument(name = "gateway.create_refund", skip_all)]
    pub async fn create_refund(&self, key: &str, new: &NewRefund<'_>) -> Result<String, GatewayError> {
        let form = [
            ("payment_intent", new.intent.to_owned()),
            ("amount", new.amount_minor.to_string()),
            ("metadata[refund_id]", new.refund_id.to_string()),
            ("metadata[order_id]", new.order_id.to_string()),
        ];
        self.guard.send::<WireRefund>(Operation::CreateRefund, self.post(self.url_of("refunds", &[]), key).form(&form)).await?.into_id()
    }

    /// Up to a hundred charges made from `created_from` on and before `created_to`, in whole seconds; `after` is the id of the last
    /// one already seen.
    #[tracing::instrument(name = "gateway.list_charges", skip_all)]
    pub async fn list_charges(
        &self,
        created_from: DateTime<Utc>,
        created_to: DateTime<Utc>,
        after: Option<&str>,
    ) -> Result<ChargePage, GatewayError> {
        let mut url = self.url_of("charges", &[]);
        url.query_pairs_mut()
            .append_pair("created[gte]", &created_from.timestamp().to_string())
            .append_pair("created[lt]", &created_to.timestamp().to_string())
            .append_pair("limit", PAGE)
            .extend_pairs(after.map(|id| ("starting_after", id)));
        Ok(self.guard.send::<WirePage>(Operation::ListCharges, self.http.get(url)).await?.into())
    }

    /// The provider's id of a refund of this payment that was asked for, if it was carried out: for when the answer to the call is lost
    /// for good. Of one payment there are never more refunds than one list holds.
    #[tracing::instrument(name = "gateway.find_refund", skip_all)]
    pub async fn find_refund(&self, intent: &str, refund_id: Uuid) -> Result<Option<String>, GatewayError> {
        let mut url = self.url_of("refunds", &[]);
        url.query_pairs_mut().append_pair("payment_intent", intent).append_pair("limit", PAGE);
        self.guard.send::<WireRefunds>(Operation::ListRefunds, self.http.get(url)).await?.find(refund_id)
    }

    async fn intent(&self, operation: Operation, request: RequestBuilder) -> Result<Intent, GatewayError> {
        Ok(self.guard.send::<WireIntent>(operation, request).await?.into())
    }

    fn post(&self, url: Url, key: &str) -> RequestBuilder {
        self.http.post(url).header("idempotency-key", key)
    }

    /// What can't be an id names nothing, and must not lead to another endpoint either.
    fn intent_url(&self, id: &str, tail: &[&str]) -> Result<Url, GatewayError> {
        if id.is_empty() || !id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
            return Err(GatewayError::NotFound);
        }
        Ok(self.url(&[&[id], tail].concat()))
    }

    fn url(&self, tail: &[&str]) -> Url {
        self.url_of("payment_intents", tail)
    }

    fn url_of(&self, kind: &str, tail: &[&str]) -> Url {
        let mut url = self.base_url.clone();
        // It fails for addresses like `mailto:` only, which `new` refuses.
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(["v1", kind]).extend(tail);
        }
        url
    }
}
