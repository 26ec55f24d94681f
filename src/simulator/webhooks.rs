//! Events to an endpoint of the shop, signed and sent again as the provider does it; by script also twice, late, in another
//! order or never. Owns: the events, their deliveries, the scripts and what they hold.
//! Does not own: what happened (`book`), or how the object of an event looks (`wire`).
//!
//! An event gets six tries, with five pauses between them that double from half a second to eight; then it is given up. All of
//! this is in memory: events that are not delivered when the simulator ends are lost, also with a state file.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use axum::body::Bytes;
use hmac::{Hmac, KeyInit, Mac};
use reqwest::{Client, Url, header::CONTENT_TYPE, redirect};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::Sha256;
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{
    book::{Book, Change, new_id},
    intents::Status,
    scripts::{BadScript, ScriptState, Scripts},
    wire::{self, Expand},
};

/// Events that may wait, for their first or another try; and events that may be held. More are dropped.
const WAITING_MAX: usize = 10_000;
/// Calls of the endpoint at once.
const CALLS_MAX: usize = 16;
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
const TRIES: u32 = 6;
/// After the first try, unless an option says otherwise; doubled after each further one.
pub const PAUSE: Duration = Duration::from_millis(500);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum WebhookKind {
    #[serde(rename = "payment_intent.succeeded")]
    Succeeded,
    #[serde(rename = "payment_intent.payment_failed")]
    PaymentFailed,
    #[serde(rename = "payment_intent.requires_action")]
    RequiresAction,
    #[serde(rename = "payment_intent.canceled")]
    Canceled,
    #[serde(rename = "charge.refunded")]
    ChargeRefunded,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct WebhookEvent {
    pub id: String,
    #[serde(rename = "type")]
    pub kind: WebhookKind,
    /// The intent, or the charge that was refunded.
    pub object_id: String,
    #[serde(skip)]
    body: Bytes,
}

impl WebhookEvent {
    /// What the provider tells of a change: of most nothing.
    fn of_change(change: &Change, book: &Book, public_url: &str) -> Option<Self> {
        match change {
            Change::Intent(intent) => {
                let kind = match intent.status {
                    Status::Succeeded => WebhookKind::Succeeded,
                    Status::RequiresAction => WebhookKind::RequiresAction,
                    Status::Canceled => WebhookKind::Canceled,
                    Status::RequiresPaymentMethod if intent.last_error.is_some() => WebhookKind::PaymentFailed,
                    Status::RequiresPaymentMethod | Status::RequiresConfirmation => return None,
                };
                Some(Self::new(kind, &intent.facts.id, &json!(wire::intent_body(intent, Expand::Nothing, public_url))))
            }
            Change::Refund(refund) => {
                let refunded = book.ledger.charges.get(&refund.charge)?;
                Some(Self::new(WebhookKind::ChargeRefunded, &refunded.id, &wire::charge_body(refunded)))
            }
            Change::Charge(_) | Change::Key(..) => None,
        }
    }

    fn new(kind: WebhookKind, object_id: &str, object: &Value) -> Self {
        let id = new_id("evt");
        let body = wire::bytes(&json!({
            "id": id,
            "object": "event",
            "created": super::now_ms() / 1_000,
            "data": { "object": object },
            "livemode": false,
            "type": kind,
        }));
        Self { id, kind, object_id: object_id.to_owned(), body: body.into() }
    }
}

/// What happens to an event instead of one delivery at once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum WebhookFault {
    /// Sent twice, at the same moment.
    Duplicate,
    Late {
        ms: u64,
    },
    /// Kept until it is released, alone or with others in any order.
    Hold,
    Drop,
}

/// One fault and the events it strikes: with neither `times` nor `probability`, every event until cleared.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WebhookScript {
    /// Every kind when not given.
    pub event: Option<WebhookKind>,
    pub fault: WebhookFault,
    /// Strikes this many events, then no more.
    pub times: Option<u32>,
    /// Strikes this share of the events, 0 to 1, the same ones for the same seed.
    pub probability: Option<f64>,
    #[serde(default)]
    pub seed: u64,
}

impl WebhookScript {
    #[must_use]
    pub fn always(event: WebhookKind, fault: WebhookFault) -> Self {
        Self { event: Some(event), fault, times: None, probability: None, seed: 0 }
    }
}

/// What became of the events so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct WebhookCounts {
    /// Calls of the endpoint.
    pub tries: u64,
    /// Answered with 2xx; a duplicate counts twice.
    pub delivered: u64,
    /// Not answered with 2xx at the last try.
    pub given_up: u64,
    /// Never sent, by a script or because too many waited.
    pub dropped: u64,
}

#[derive(Debug, thiserror::Error)]
pub enum EndpointError {
    #[error("the address for webhooks is not an http or https URL")]
    Url,
    #[error("webhooks need a secret that signs them: --webhook-secret or PAYMENT_WEBHOOK_SECRET")]
    NoSecret,
    #[error("the client that sends webhooks can't be built: {0}")]
    Client(#[source] reqwest::Error),
}

#[derive(Debug, thiserror::Error)]
#[error("no event {0} is held")]
pub struct NotHeld(pub String);

pub struct Webhooks {
    /// After an event's first try.
    pause: Duration,
    state: Mutex<State>,
    counts: watch::Sender<WebhookCounts>,
}

#[derive(Default)]
struct State {
    sending: Option<Sending>,
    scripts: Scripts<WebhookScript>,
    held: Vec<WebhookEvent>,
}

/// Dropped, it ends all deliveries.
struct Sending {
    endpoint: Arc<Endpoint>,
    _end: DropGuard,
}

struct Endpoint {
    url: Url,
    /// Knows the secret.
    mac: Hmac<Sha256>,
    http: Client,
    pause: Duration,
    places: Arc<Semaphore>,
    calls: Semaphore,
    end: CancellationToken,
    counts: watch::Sender<WebhookCounts>,
}

impl Webhooks {
    pub fn new(pause: Duration) -> Self {
        Self { pause, state: Mutex::default(), counts: watch::Sender::default() }
    }

    /// From now on events go there; what an earlier endpoint has not accepted yet is lost to it.
    pub fn send_to(&self, url: &str, secret: &SecretString) -> Result<(), EndpointError> {
        let endpoint = Arc::new(Endpoint::new(url, secret, self.pause, self.counts.clone())?);
        let end = endpoint.end.clone().drop_guard();
        self.state().sending = Some(Sending { endpoint, _end: end });
        Ok(())
    }

    /// Sends nothing any more, and forgets what is held.
    pub fn stop(&self) {
        let mut state = self.state();
        state.sending = None;
        state.held.clear();
    }

    /// Sends what these changes give reason to. To be called under the book's lock, which gives the order.
    pub fn tell(&self, changes: &[Change], book: &Book, public_url: &str) {
        let mut state = self.state();
        let Some(endpoint) = state.sending.as_ref().map(|sending| sending.endpoint.clone()) else { return };
        for event in changes.iter().filter_map(|change| WebhookEvent::of_change(change, book, public_url)) {
            match state.strike(event.kind) {
                None => endpoint.send(event, Duration::ZERO),
                Some(WebhookFault::Late { ms }) => endpoint.send(event, Duration::from_millis(ms)),
                Some(WebhookFault::Duplicate) => {
                    endpoint.send(event.clone(), Duration::ZERO);
                    endpoint.send(event, Duration::ZERO);
                }
                Some(WebhookFault::Hold) if state.held.len() < WAITING_MAX => state.held.push(event),
                Some(WebhookFault::Hold | WebhookFault::Drop) => self.counts.send_modify(|counts| counts.dropped += 1),
            }
        }
    }

    /// Adds a script behind the others: the first that strikes an event is the only one.
    pub fn add(&self, script: WebhookScript) -> Result<(), BadScript> {
        let (times, probability, seed) = (script.times, script.probability, script.seed);
        self.state().scripts.add(script, times, probability, seed)
    }

    /// Ends all scripts; what they hold stays held.
    pub fn clear(&self) {
        self.state().scripts.clear();
    }

    pub fn scripts(&self) -> Vec<ScriptState<WebhookScript>> {
        self.state().scripts.list()
    }

    /// Oldest first.
    pub fn held(&self) -> Vec<WebhookEvent> {
        self.state().held.clone()
    }

    /// Delivers held events one after the other, each to its acceptance or its last try; how many were accepted. Those
    /// behind one that is not held stay held, as do those that are left when the caller gives up.
    pub async fn release(&self, ids: &[String]) -> Result<usize, NotHeld> {
        let mut delivered = 0;
        for id in ids {
            let (endpoint, event) = self.state().take(id).ok_or_else(|| NotHeld(id.clone()))?;
            delivered += usize::from(endpoint.deliver(&event).await);
        }
        Ok(delivered)
    }

    pub fn counts(&self) -> WebhookCounts {
        *self.counts.borrow()
    }

    pub fn watch(&self) -> watch::Receiver<WebhookCounts> {
        self.counts.subscribe()
    }

    /// Held for microseconds, never over an await.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn strike(&mut self, kind: WebhookKind) -> Option<WebhookFault> {
        let script = self.scripts.strike(|script| script.event.is_none_or(|only| only == kind))?;
        Some(script.fault.clone())
    }

    fn take(&mut self, id: &str) -> Option<(Arc<Endpoint>, WebhookEvent)> {
        let endpoint = self.sending.as_ref()?.endpoint.clone();
        let at = self.held.iter().position(|event| event.id == id)?;
        Some((endpoint, self.held.remove(at)))
    }
}

impl Endpoint {
    fn new(url: &str, secret: &SecretString, pause: Duration, counts: watch::Sender<WebhookCounts>) -> Result<Self, EndpointError> {
        let url = Url::parse(url).ok().filter(|url| matches!(url.scheme(), "http" | "https")).ok_or(EndpointError::Url)?;
        let mac = Hmac::new_from_slice(secret.expose_secret().as_bytes()).map_err(|_| EndpointError::NoSecret)?;
        let mut http = Client::builder().timeout(ANSWER_TIMEOUT).redirect(redirect::Policy::none());
        if url.scheme() == "http" {
            // The endpoint is near: a proxy set up for the outside must not stand between.
            http = http.no_proxy();
        }
        let http = http.build().map_err(EndpointError::Client)?;
        let (places, calls) = (Arc::new(Semaphore::new(WAITING_MAX)), Semaphore::new(CALLS_MAX));
        Ok(Self { url, mac, http, pause, places, calls, end: CancellationToken::new(), counts })
    }

    /// Delivers in the background.
    fn send(self: &Arc<Self>, event: WebhookEvent, after: Duration) {
        let Ok(place) = self.places.clone().try_acquire_owned() else {
            self.counts.send_modify(|counts| counts.dropped += 1);
            return;
        };
        let endpoint = self.clone();
        let delivery = async move {
            let _place = place;
            tokio::time::sleep(after).await;
            endpoint.deliver(&event).await;
        };
        tokio::spawn(self.end.clone().run_until_cancelled_owned(delivery));
    }

    /// True when it was accepted in the end.
    async fn deliver(&self, event: &WebhookEvent) -> bool {
        let mut pause = self.pause;
        for left in (0..TRIES).rev() {
            let Err(reason) = self.call(event).await else {
                self.counts.send_modify(|counts| counts.delivered += 1);
                return true;
            };
            if left == 0 {
                tracing::warn!(event = event.id, kind = ?event.kind, reason, "a webhook was not accepted and is given up");
                break;
            }
            tokio::time::sleep(pause).await;
            pause *= 2;
        }
        self.counts.send_modify(|counts| counts.given_up += 1);
        false
    }

    /// Tries once; why it was not accepted.
    async fn call(&self, event: &WebhookEvent) -> Result<(), String> {
        let _turn = self.calls.acquire().await;
        self.counts.send_modify(|counts| counts.tries += 1);
        let request = self.http.post(self.url.clone()).header(CONTENT_TYPE, "application/json");
        let request = request.header("stripe-signature", self.sign(super::now_ms() / 1_000, &event.body)).body(event.body.clone());
        let answer = request.send().await.map_err(|error| error.without_url().to_string())?;
        if answer.status().is_success() { Ok(()) } else { Err(format!("status {}", answer.status().as_u16())) }
    }

    fn sign(&self, at: u64, body: &[u8]) -> String {
        let mac = self.mac.clone().chain_update(at.to_string()).chain_update(b".").chain_update(body);
        mac.finalize().into_bytes().iter().fold(format!("t={at},v1="), |header, byte| header + &format!("{byte:02x}"))
    }
}
