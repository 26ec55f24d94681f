//! A payment intent and the moves it allows. Owns: the states and what each move does to the intent.
//! Does not own: money (`ledger`), keys (`idempotency`), or how an intent looks on the wire (`wire`).

use std::{collections::BTreeMap, sync::Arc};

use serde::{Deserialize, Serialize};

use super::cards::{CardRef, Outcome};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    RequiresPaymentMethod,
    RequiresConfirmation,
    RequiresAction,
    Succeeded,
    Canceled,
}

/// What never changes about an intent; shared by the intent, its charge and every stored answer.
#[derive(Debug, Serialize, Deserialize)]
pub struct Facts {
    pub id: String,
    /// In the currency's minor unit.
    pub amount: i64,
    /// Lower case, as the provider writes it.
    pub currency: String,
    pub created_ms: u64,
    pub metadata: BTreeMap<String, String>,
}

/// Why the last confirmation took no money.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Decline {
    pub code: String,
    /// The bank's own word for it, `decline_code` on the wire.
    pub bank_code: Option<String>,
    pub card: CardRef,
}

impl Decline {
    /// A decline by the bank, with the bank's word for it.
    pub fn by_bank(bank_code: &str, card: CardRef) -> Self {
        Self { code: "card_declined".to_owned(), bank_code: Some(bank_code.to_owned()), card }
    }

    pub fn failed_authentication(card: CardRef) -> Self {
        Self { code: "payment_intent_authentication_failure".to_owned(), bank_code: None, card }
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Intent {
    #[serde(with = "shared")]
    pub facts: Arc<Facts>,
    pub status: Status,
    pub card: Option<CardRef>,
    pub return_url: Option<String>,
    pub last_error: Option<Decline>,
    pub latest_charge: Option<String>,
    pub canceled_ms: Option<u64>,
    pub cancellation_reason: Option<String>,
}

/// What a confirmation leads to.
pub enum Confirmation {
    /// The caller books the charge and calls `succeed`.
    Charge(CardRef),
    Declined,
    NeedsAction,
    NoPaymentMethod,
    WrongState,
}

impl Intent {
    pub fn new(facts: Facts, card: Option<CardRef>) -> Self {
        let status = if card.is_some() { Status::RequiresConfirmation } else { Status::RequiresPaymentMethod };
        Self {
            facts: Arc::new(facts),
            status,
            card,
            return_url: None,
            last_error: None,
            latest_charge: None,
            canceled_ms: None,
            cancellation_reason: None,
        }
    }

    /// Tries to pay with `card`, or with the one the intent already has. `forced` is a scripted decline:
    /// the bank's word, whatever the card would have done.
    pub fn confirm(&mut self, card: Option<CardRef>, return_url: Option<String>, forced: Option<&str>) -> Confirmation {
        if !self.is_open() {
            return Confirmation::WrongState;
        }
        let Some(card) = card.or(self.card) else {
            return Confirmation::NoPaymentMethod;
        };
        self.card = Some(card);
        self.return_url = return_url;
        if let Some(bank_code) = forced {
            self.decline(Decline::by_bank(bank_code, card));
            return Confirmation::Declined;
        }
        match card.outcome {
            Outcome::Pays => Confirmation::Charge(card),
            Outcome::Authenticates => {
                self.status = Status::RequiresAction;
                self.last_error = None;
                Confirmation::NeedsAction
            }
            Outcome::Declines { code, bank_code } => {
                let bank_code = bank_code.map(str::to_owned);
                self.decline(Decline { code: code.to_owned(), bank_code, card });
                Confirmation::Declined
            }
        }
    }

    pub fn succeed(&mut self, charge: String) {
        self.status = Status::Succeeded;
        self.last_error = None;
        self.latest_charge = Some(charge);
    }

    /// The card leaves the intent: another one, or the same again, must be given to the next confirmation.
    pub fn decline(&mut self, decline: Decline) {
        self.status = Status::RequiresPaymentMethod;
        self.card = None;
        self.last_error = Some(decline);
    }

    /// False when the intent is settled already.
    pub fn cancel(&mut self, now_ms: u64, reason: Option<String>) -> bool {
        if !self.is_open() {
            return false;
        }
        self.status = Status::Canceled;
        self.canceled_ms = Some(now_ms);
        self.cancellation_reason = reason;
        true
    }

    pub fn is_open(&self) -> bool {
        !matches!(self.status, Status::Succeeded | Status::Canceled)
    }

    pub fn received(&self) -> i64 {
        if self.status == Status::Succeeded { self.facts.amount } else { 0 }
    }
}

/// Serde for an `Arc`, which would otherwise need a crate-wide feature.
pub mod shared {
    use std::sync::Arc;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub fn serialize<T: Serialize, S: Serializer>(value: &Arc<T>, serializer: S) -> Result<S::Ok, S::Error> {
        T::serialize(value, serializer)
    }

    pub fn deserialize<'de, T: Deserialize<'de>, D: Deserializer<'de>>(deserializer: D) -> Result<Arc<T>, D::Error> {
        T::deserialize(deserializer).map(Arc::new)
    }
}
