//! The provider's events: whether one is really the provider's, and the little that is used of it.
//!
//! The signature is Stripe's: HMAC-SHA-256 with the endpoint's secret over the time, a dot and the raw body; a header names the
//! time and one or more signatures. Called by services/webhook.rs.

use chrono::{DateTime, TimeDelta, Utc};
use hmac::{Hmac, KeyInit, Mac};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use sha2::Sha256;

/// An event that was signed longer ago, or will be, is somebody's recording.
const TOLERANCE: TimeDelta = TimeDelta::minutes(5);
const MAX_SIGNATURES: usize = 8;

/// What is used of an event; the state is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    pub id: String,
    pub kind: String,
    /// The payment that it is about, by its id at the provider; also when its object is a charge, refund or dispute.
    pub object_id: String,
    pub created_at: DateTime<Utc>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadEvent {
    #[error("the signature is not the provider's")]
    Signature,
    #[error("it was signed too long ago")]
    Stale,
    #[error("it does not read")]
    Unreadable,
}

/// Reads an event after its signature has been checked over the raw body.
///
/// # Errors
/// When it is not the provider's, too old, or not an event.
pub fn read(secret: &SecretString, signature: &str, body: &[u8], now: DateTime<Utc>) -> Result<Event, BadEvent> {
    let fields = || signature.split(',').filter_map(|field| field.trim().split_once('='));
    let time = fields().find_map(|(name, value)| (name == "t").then_some(value)).ok_or(BadEvent::Signature)?;
    let signed = fields().filter(|(name, _)| *name == "v1").take(MAX_SIGNATURES);
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.expose_secret().as_bytes()).map_err(|_| BadEvent::Signature)?;
    mac.update(time.as_bytes());
    mac.update(b".");
    mac.update(body);
    // `verify_slice` compares without telling by its time where the difference is.
    let is_ours = signed.filter_map(|(_, hex)| decode_hex(hex)).any(|bytes| mac.clone().verify_slice(&bytes).is_ok());
    if !is_ours {
        return Err(BadEvent::Signature);
    }
    let signed_at = time.parse().ok().and_then(|seconds| DateTime::from_timestamp(seconds, 0)).ok_or(BadEvent::Signature)?;
    if (now - signed_at).abs() > TOLERANCE {
        return Err(BadEvent::Stale);
    }
    let event: WireEvent = serde_json::from_slice(body).map_err(|_| BadEvent::Unreadable)?;
    let created_at = DateTime::from_timestamp(event.created, 0).ok_or(BadEvent::Unreadable)?;
    let WireObject { id, payment_intent } = event.data.object;
    let event = Event { id: event.id, kind: event.kind, object_id: payment_intent.unwrap_or(id), created_at };
    let is_sized = [&event.id, &event.kind, &event.object_id].iter().all(|text| (1..=255).contains(&text.len()));
    is_sized.then_some(event).ok_or(BadEvent::Unreadable)
}

fn decode_hex(text: &str) -> Option<Vec<u8>> {
    let bytes = text.as_bytes().chunks_exact(2);
    let is_whole = bytes.remainder().is_empty();
    let decoded = bytes.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()).collect();
    if is_whole { decoded } else { None }
}

#[derive(Deserialize)]
struct WireEvent {
    id: String,
    #[serde(rename = "type")]
    kind: String,
    created: i64,
    data: WireData,
}

#[derive(Deserialize)]
struct WireData {
    object: WireObject,
}

#[derive(Deserialize)]
struct WireObject {
    id: String,
    /// What the object belongs to, when it is no intent itself: its id, for events expand nothing.
    payment_intent: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    const BODY: &[u8] =
        br#"{"id":"evt_1","type":"payment_intent.succeeded","created":1800000000,"data":{"object":{"id":"pi_1","amount":5}}}"#;
    /// `printf '1800000000.%s' BODY | openssl dgst -sha256 -hmac whsec_test`
    const SIGNED: &str = "fc4cd5bf5e86fff5b4d077e49cfccf340d0c143b9e65bab4920a00f60f53daf4";

    fn now() -> DateTime<Utc> {
        DateTime::from_timestamp(1_800_000_010, 0).unwrap()
    }

    fn read_signed(header: &str, body: &[u8], now: DateTime<Utc>) -> Result<Event, BadEvent> {
        read(&"whsec_test".into(), header, body, now)
    }

    #[test]
    fn an_event_with_the_providers_signature_is_read() {
        let event = read_signed(&format!("t=1800000000,v0=00,v1={SIGNED}"), BODY, now()).unwrap();
        assert_eq!((event.id.as_str(), event.kind.as_str(), event.object_id.as_str()), ("evt_1", "payment_intent.succeeded", "pi_1"));
        let rotated = format!("t=1800000000,v1={},v1={SIGNED}", "0".repeat(64));
        assert!(read_signed(&rotated, BODY, now()).is_ok(), "one of several signatures is enough");
    }

    #[test]
    fn an_event_about_a_charge_is_about_its_payment() {
        const REFUNDED: &[u8] =
            br#"{"id":"evt_2","type":"charge.refunded","created":1800000000,"data":{"object":{"id":"ch_1","payment_intent":"pi_1"}}}"#;
        const ALONE: &[u8] =
            br#"{"id":"evt_3","type":"charge.succeeded","created":1800000000,"data":{"object":{"id":"ch_2","payment_intent":null}}}"#;
        for (body, signed, about) in [
            (REFUNDED, "f2d58cb011ba9f70c985ee7b6e728f299245687ce91efb79701ee445dec53d27", "pi_1"),
            (ALONE, "971cdd4505179ccb925d77048dca9866c586f94c2869984097a3edc730d9da61", "ch_2"),
        ] {
            let event = read_signed(&format!("t=1800000000,v1={signed}"), body, now()).unwrap();
            assert_eq!(event.object_id, about);
        }
    }

    #[test]
    fn anything_else_is_not() {
        let good = format!("t=1800000000,v1={SIGNED}");
        for (header, body) in [
            ("", BODY),
            ("t=1800000000", BODY),
            ("v1=00", BODY),
            ("t=1800000000,v1=zz", BODY),
            ("t=1800000000,v1=0", BODY),
            (&format!("t=1800000001,v1={SIGNED}"), BODY),
            (&format!("t=1800000000,v0={SIGNED}"), BODY),
            (&good, b"{}" as &[u8]),
        ] {
            assert_eq!(read_signed(header, body, now()), Err(BadEvent::Signature), "{header}");
        }
        for late in [TimeDelta::minutes(6), -TimeDelta::minutes(6)] {
            assert_eq!(read_signed(&good, BODY, now() + late), Err(BadEvent::Stale));
        }
        assert_eq!(read(&"another".into(), &good, BODY, now()), Err(BadEvent::Signature));
    }
}
