//! How answers look on the wire: the provider's JSON for intents, charges, refunds, lists and errors.
//! Owns: shapes and status codes. Does not own: what is answered (`book`).

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{
    cards::Card,
    intents::{Decline, Intent, Status},
    ledger::{Charge, Refund},
};

/// What a call that changes something is answered, small enough to be kept under its key.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    Intent(Box<Intent>, Expand),
    Declined(Box<Intent>),
    WrongState(Box<Intent>),
    Refund(Box<Refund>),
    Failed(ApiError),
}

/// Whether the payment method is told in full or by its id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Expand {
    Nothing,
    PaymentMethod,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ApiError {
    pub status: u16,
    #[serde(rename = "type")]
    pub kind: Cow<'static, str>,
    pub code: Option<Cow<'static, str>>,
    pub message: Cow<'static, str>,
    pub param: Option<Cow<'static, str>>,
}

impl ApiError {
    fn new(status: u16, kind: &'static str, code: Option<&'static str>, message: impl Into<Cow<'static, str>>) -> Self {
        Self { status, kind: Cow::Borrowed(kind), code: code.map(Cow::Borrowed), message: message.into(), param: None }
    }

    pub fn invalid(code: &'static str, param: &str, message: impl Into<Cow<'static, str>>) -> Self {
        let error = Self::new(400, "invalid_request_error", Some(code), message);
        Self { param: Some(Cow::Owned(param.to_owned())), ..error }
    }

    /// The object in the address does not exist.
    pub fn missing(what: &str, id: &str) -> Self {
        Self::new(404, "invalid_request_error", Some("resource_missing"), format!("No such {what}: '{id}'"))
    }

    pub fn unauthorized(message: &'static str) -> Self {
        Self::new(401, "invalid_request_error", None, message)
    }

    pub fn other_parameters() -> Self {
        Self::new(400, "idempotency_error", None, "This key was first used with other parameters.")
    }

    pub fn key_in_flight() -> Self {
        let code = Some("idempotency_key_in_use");
        Self::new(409, "idempotency_error", code, "Another call with this key is being executed.")
    }

    pub fn rate_limited() -> Self {
        Self::new(429, "invalid_request_error", Some("rate_limit"), "Too many requests.")
    }

    pub fn internal() -> Self {
        Self::new(500, "api_error", None, "Something went wrong on the provider's side.")
    }

    pub fn unavailable() -> Self {
        Self::new(503, "api_error", None, "The provider is not available.")
    }

    pub fn body(&self) -> Value {
        json!({ "error": { "type": self.kind, "code": self.code, "message": self.message, "param": self.param } })
    }
}

impl Reply {
    pub fn status(&self) -> u16 {
        match self {
            Self::Intent(..) | Self::Refund(_) => 200,
            Self::Declined(_) => 402,
            Self::WrongState(_) => 400,
            Self::Failed(error) => error.status,
        }
    }

    /// False for a refusal before execution: such a call does not use up its key.
    pub fn is_kept(&self) -> bool {
        !matches!(self, Self::Failed(error) if error.status < 500)
    }

    /// `public_url` is where a customer reaches this simulator.
    pub fn body(&self, public_url: &str) -> Vec<u8> {
        let body = match self {
            Self::Intent(intent, expand) => return bytes(&IntentBody::new(intent, *expand, public_url)),
            Self::Refund(refund) => return bytes(&refund_body(refund)),
            Self::Failed(error) => error.body(),
            Self::Declined(intent) => {
                let mut error = intent.last_error.as_ref().map_or(Value::Null, decline_body);
                error["payment_intent"] = json!(IntentBody::new(intent, Expand::Nothing, public_url));
                json!({ "error": error })
            }
            Self::WrongState(intent) => json!({ "error": {
                "type": "invalid_request_error",
                "code": "payment_intent_unexpected_state",
                "message": "This call is not possible in the payment intent's state.",
                "payment_intent": IntentBody::new(intent, Expand::Nothing, public_url),
            }}),
        };
        bytes(&body)
    }
}

/// Values of this module always serialise: their maps have text keys.
pub fn bytes(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).unwrap_or_default()
}

#[derive(Serialize)]
struct IntentBody<'a> {
    id: &'a str,
    object: &'static str,
    amount: i64,
    amount_received: i64,
    canceled_at: Option<u64>,
    cancellation_reason: Option<&'a str>,
    capture_method: &'static str,
    created: u64,
    currency: &'a str,
    last_payment_error: Option<Value>,
    latest_charge: Option<&'a str>,
    livemode: bool,
    metadata: &'a std::collections::BTreeMap<String, String>,
    next_action: Option<Value>,
    payment_method: Option<MethodBody>,
    payment_method_types: [&'static str; 1],
    status: Status,
}

impl<'a> IntentBody<'a> {
    fn new(intent: &'a Intent, expand: Expand, public_url: &str) -> Self {
        Self {
            id: &intent.facts.id,
            object: "payment_intent",
            amount: intent.facts.amount,
            amount_received: intent.received(),
            canceled_at: intent.canceled_ms.map(seconds),
            cancellation_reason: intent.cancellation_reason.as_deref(),
            capture_method: "automatic",
            created: seconds(intent.facts.created_ms),
            currency: &intent.facts.currency,
            last_payment_error: intent.last_error.as_ref().map(decline_body),
            latest_charge: intent.latest_charge.as_deref(),
            livemode: false,
            metadata: &intent.facts.metadata,
            next_action: next_action(intent, public_url),
            payment_method: intent.card.as_deref().map(|card| MethodBody::new(card, expand)),
            payment_method_types: ["card"],
            status: intent.status,
        }
    }
}

pub fn intent_body(intent: &Intent, expand: Expand, public_url: &str) -> impl Serialize {
    IntentBody::new(intent, expand, public_url)
}

/// As the provider: without a return address the caller must use the provider's browser library instead.
fn next_action(intent: &Intent, public_url: &str) -> Option<Value> {
    if intent.status != Status::RequiresAction {
        return None;
    }
    Some(match &intent.return_url {
        None => json!({ "type": "use_stripe_sdk", "use_stripe_sdk": {} }),
        Some(return_url) => json!({
            "type": "redirect_to_url",
            "redirect_to_url": {
                "return_url": return_url,
                "url": format!("{public_url}/authenticate/{}", intent.facts.id),
            },
        }),
    })
}

#[derive(Serialize)]
#[serde(untagged)]
enum MethodBody {
    Id(&'static str),
    Full { id: &'static str, object: &'static str, r#type: &'static str, card: CardBody },
}

#[derive(Serialize)]
struct CardBody {
    brand: &'static str,
    last4: &'static str,
}

impl MethodBody {
    fn new(card: &Card, expand: Expand) -> Self {
        if expand == Expand::Nothing {
            return Self::Id(card.token);
        }
        let shown = CardBody { brand: card.brand, last4: card.last4 };
        Self::Full { id: card.token, object: "payment_method", r#type: "card", card: shown }
    }
}

fn decline_body(decline: &Decline) -> Value {
    json!({
        "type": "card_error",
        "code": decline.code,
        "decline_code": decline.bank_code,
        "message": "The payment was declined.",
        "payment_method": MethodBody::new(&decline.card, Expand::PaymentMethod),
    })
}

pub fn charge_body(charge: &Charge) -> Value {
    json!({
        "id": charge.id,
        "object": "charge",
        "amount": charge.facts.amount,
        "amount_captured": charge.facts.amount,
        "amount_refunded": charge.refunded,
        "captured": true,
        "created": seconds(charge.created_ms),
        "currency": charge.facts.currency,
        "livemode": false,
        "metadata": charge.facts.metadata,
        "paid": true,
        "payment_intent": charge.facts.id,
        "payment_method": charge.card.token,
        "payment_method_details": {
            "type": "card",
            "card": { "brand": charge.card.brand, "last4": charge.card.last4 },
        },
        "refunded": charge.refunded == charge.facts.amount,
        "status": "succeeded",
    })
}

pub fn refund_body(refund: &Refund) -> Value {
    json!({
        "id": refund.id,
        "object": "refund",
        "amount": refund.amount,
        "charge": refund.charge,
        "created": seconds(refund.created_ms),
        "currency": refund.currency,
        "metadata": refund.metadata,
        "payment_intent": refund.payment_intent,
        "reason": refund.reason,
        "status": "succeeded",
    })
}

fn seconds(ms: u64) -> u64 {
    ms / 1_000
}
