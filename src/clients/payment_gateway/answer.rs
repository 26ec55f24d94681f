//! What the provider's answer says, or the lack of one. Owns: the shapes on the wire and the sorting of answers into
//! the kinds of `GatewayError`. Called by the adapter above only.

use std::{collections::HashMap, time::Duration};

use chrono::{DateTime, Utc, serde::ts_seconds};
use reqwest::{RequestBuilder, Response, StatusCode, header::RETRY_AFTER};
use serde::{
    Deserialize,
    de::{DeserializeOwned, IgnoredAny},
};
use uuid::Uuid;

use super::{Charge, ChargePage, ChargeStatus, GatewayError, Intent, IntentStatus, Kept};

/// Why nobody knows what became of a call to which no answer came.
pub(super) const NOT_IN_TIME: &str = "no answer in time";

/// Sends a call, once, and sorts its answer.
pub(super) async fn exchange<T: DeserializeOwned>(request: RequestBuilder) -> Result<T, GatewayError> {
    let response = request.send().await.map_err(|error| no_answer(&error))?;
    let status = response.status();
    let request_id = header(&response, "request-id").map(str::to_owned);
    let retry_after = header(&response, RETRY_AFTER.as_str()).and_then(|text| text.parse().ok());
    let retry_after = retry_after.map(Duration::from_secs);
    let kept = match status {
        _ if header(&response, "idempotent-replayed") == Some("true") => Kept::Already,
        StatusCode::INTERNAL_SERVER_ERROR => Kept::Now,
        _ => Kept::No,
    };
    let unknown = |reason: &str| {
        let reason = format!("{reason}, status {}, request {request_id:?}", status.as_u16());
        Err::<T, _>(GatewayError::Unknown { reason, kept })
    };
    let Ok(body) = response.bytes().await else {
        return unknown("the answer broke off");
    };
    if status.is_success() {
        return match serde_json::from_slice(&body) {
            Ok(answer) => Ok(answer),
            Err(_) => unknown("the answer can't be read"),
        };
    }
    let error = serde_json::from_slice::<WireFailure>(&body).map(|failure| failure.error).unwrap_or_default();
    match status {
        StatusCode::TOO_MANY_REQUESTS => Err(GatewayError::Safe { reason: "too many calls".to_owned(), retry_after }),
        StatusCode::CONFLICT => Err(GatewayError::InFlight { retry_after }),
        // A decline must say so itself: this status alone may come from anything in between.
        StatusCode::PAYMENT_REQUIRED if error.code.is_some() => Err(error.into_decline()),
        StatusCode::PAYMENT_REQUIRED | StatusCode::REQUEST_TIMEOUT => unknown("no clear answer"),
        // The customer's input, which our own checks can't know.
        _ if status.is_client_error() && error.param.as_deref() == Some("payment_method") => Err(error.into_decline()),
        StatusCode::NOT_FOUND if error.code.as_deref() == Some("resource_missing") => Err(GatewayError::NotFound),
        _ if status.is_client_error() => Err(error.into_rejection(status, request_id)),
        _ => unknown("no clear answer"),
    }
}

/// Only a connection that never stood surely carried nothing.
fn no_answer(error: &reqwest::Error) -> GatewayError {
    if error.is_connect() {
        return GatewayError::Safe { reason: "no connection".to_owned(), retry_after: None };
    }
    if error.is_builder() {
        return GatewayError::unsendable();
    }
    let reason = if error.is_timeout() { NOT_IN_TIME } else { "the connection ended without an answer" };
    GatewayError::unknown(reason)
}

fn header<'a>(response: &'a Response, name: &str) -> Option<&'a str> {
    response.headers().get(name).and_then(|value| value.to_str().ok())
}

#[derive(Deserialize)]
pub(super) struct WireIntent {
    id: String,
    status: IntentStatus,
    amount: i64,
    #[serde(default)]
    amount_received: i64,
    currency: String,
    next_action: Option<WireNextAction>,
    payment_method: Option<WireMethod>,
    last_payment_error: Option<WireError>,
    #[serde(default)]
    metadata: Metadata,
}

#[derive(Default, Deserialize)]
struct Metadata(HashMap<String, String>);

impl Metadata {
    fn id(&self, name: &str) -> Option<Uuid> {
        self.0.get(name).and_then(|text| Uuid::try_parse(text).ok())
    }
}

#[derive(Deserialize)]
pub(super) struct WirePage {
    data: Vec<WireCharge>,
    has_more: bool,
}

#[derive(Deserialize)]
struct WireCharge {
    id: String,
    payment_intent: Option<String>,
    status: ChargeStatus,
    captured: bool,
    amount: i64,
    amount_refunded: i64,
    currency: String,
    #[serde(default)]
    metadata: Metadata,
    #[serde(with = "ts_seconds")]
    created: DateTime<Utc>,
}

#[derive(Deserialize)]
pub(super) struct WireRefund {
    id: String,
    status: String,
    #[serde(default)]
    metadata: Metadata,
}

impl WireRefund {
    /// The id of a refund that was made. One that is `pending` has left our balance: it counts as done.
    pub(super) fn into_id(self) -> Result<String, GatewayError> {
        match self.status.as_str() {
            "succeeded" | "pending" => Ok(self.id),
            other => Err(GatewayError::Rejected { status: 200, code: format!("refund_{other}"), param: None, request_id: None }),
        }
    }
}

#[derive(Deserialize)]
pub(super) struct WireRefunds {
    data: Vec<WireRefund>,
}

impl WireRefunds {
    /// The provider's id of the refund with this id of ours.
    pub(super) fn find(self, refund_id: Uuid) -> Result<Option<String>, GatewayError> {
        self.data.into_iter().find(|refund| refund.metadata.id("refund_id") == Some(refund_id)).map(WireRefund::into_id).transpose()
    }
}

#[derive(Deserialize)]
struct WireNextAction {
    redirect_to_url: Option<WireRedirect>,
}

#[derive(Deserialize)]
struct WireRedirect {
    url: Option<String>,
}

/// An id where the provider did not expand it; it then tells nothing to show.
#[derive(Deserialize)]
#[serde(untagged)]
enum WireMethod {
    Full { card: Option<WireCard> },
    Id(IgnoredAny),
}

#[derive(Deserialize)]
struct WireCard {
    brand: String,
    last4: String,
}

#[derive(Default, Deserialize)]
struct WireFailure {
    error: WireError,
}

#[derive(Default, Deserialize)]
struct WireError {
    #[serde(rename = "type")]
    kind: Option<String>,
    code: Option<String>,
    decline_code: Option<String>,
    param: Option<String>,
    payment_method: Option<WireMethod>,
    payment_intent: Option<Box<WireIntent>>,
}

impl From<WireIntent> for Intent {
    fn from(wire: WireIntent) -> Self {
        let (order_id, attempt_id) = (wire.metadata.id("order_id"), wire.metadata.id("attempt_id"));
        let error = wire.last_payment_error;
        let declined = error.as_ref().and_then(|error| error.payment_method.as_ref());
        let method_label = wire.payment_method.as_ref().and_then(label).or_else(|| declined.and_then(label));
        Self {
            id: wire.id,
            status: wire.status,
            amount_minor: wire.amount,
            received_minor: wire.amount_received,
            currency: wire.currency.to_ascii_uppercase(),
            next_action_url: wire.next_action.and_then(|action| action.redirect_to_url?.url),
            method_label,
            failure_code: error.and_then(WireError::into_code),
            order_id,
            attempt_id,
        }
    }
}

impl From<WirePage> for ChargePage {
    fn from(wire: WirePage) -> Self {
        Self { charges: wire.data.into_iter().map(Charge::from).collect(), has_more: wire.has_more }
    }
}

impl From<WireCharge> for Charge {
    fn from(wire: WireCharge) -> Self {
        Self {
            id: wire.id,
            intent: wire.payment_intent,
            status: wire.status,
            captured: wire.captured,
            amount_minor: wire.amount,
            refunded_minor: wire.amount_refunded,
            currency: wire.currency.to_ascii_uppercase(),
            order_id: wire.metadata.id("order_id"),
            attempt_id: wire.metadata.id("attempt_id"),
            created_at: wire.created,
        }
    }
}

impl WireError {
    /// The most telling word: `generic_decline` tells less than the code above it.
    fn into_code(self) -> Option<String> {
        self.decline_code.filter(|code| code != "generic_decline").or(self.code)
    }

    fn into_decline(self) -> GatewayError {
        let method_label = self.payment_method.as_ref().and_then(label);
        GatewayError::Declined { code: self.into_code().unwrap_or_else(|| "unusable_method".to_owned()), method_label }
    }

    fn into_rejection(self, status: StatusCode, request_id: Option<String>) -> GatewayError {
        if self.code.as_deref() == Some("payment_intent_unexpected_state")
            && let Some(intent) = self.payment_intent
        {
            return GatewayError::WrongState { intent: Box::new((*intent).into()) };
        }
        let code = self.code.or(self.kind).unwrap_or_else(|| "unreadable".to_owned());
        GatewayError::Rejected { status: status.as_u16(), code, param: self.param, request_id }
    }
}

fn label(method: &WireMethod) -> Option<String> {
    let WireMethod::Full { card: Some(card) } = method else {
        return None;
    };
    let brand = match card.brand.as_str() {
        "amex" => "American Express",
        "diners" => "Diners Club",
        "discover" => "Discover",
        "jcb" => "JCB",
        "mastercard" => "Mastercard",
        "unionpay" => "UnionPay",
        "visa" => "Visa",
        _ => "Card",
    };
    Some(format!("{brand} •••• {}", card.last4))
}
