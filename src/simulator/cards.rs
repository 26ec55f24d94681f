//! The payment methods a caller can pay with: a subset of Stripe's documented test tokens.
//! Owns: what each token is called, looks like and does. Does not own: what a decline does to an intent (`intents`).

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

/// What happens when an intent is confirmed with a card.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    Pays,
    /// Asks the customer to authenticate on a page first.
    Authenticates,
    Declines {
        code: &'static str,
        bank_code: Option<&'static str>,
    },
}

#[derive(Debug)]
pub struct Card {
    pub token: &'static str,
    pub brand: &'static str,
    pub last4: &'static str,
    pub outcome: Outcome,
}

const fn pays(token: &'static str, brand: &'static str, last4: &'static str) -> Card {
    Card { token, brand, last4, outcome: Outcome::Pays }
}

const fn asks(token: &'static str, last4: &'static str) -> Card {
    Card { token, brand: "visa", last4, outcome: Outcome::Authenticates }
}

/// Every decline by the bank has the code `card_declined` and the bank's own word beside it.
const fn declined(token: &'static str, last4: &'static str, bank_code: &'static str) -> Card {
    let outcome = Outcome::Declines { code: "card_declined", bank_code: Some(bank_code) };
    Card { token, brand: "visa", last4, outcome }
}

const fn refused(token: &'static str, last4: &'static str, code: &'static str) -> Card {
    Card { token, brand: "visa", last4, outcome: Outcome::Declines { code, bank_code: None } }
}

static CARDS: [Card; 16] = [
    pays("pm_card_visa", "visa", "4242"),
    pays("pm_card_visa_debit", "visa", "5556"),
    pays("pm_card_mastercard", "mastercard", "4444"),
    pays("pm_card_amex", "amex", "0005"),
    pays("pm_card_jcb", "jcb", "0505"),
    pays("pm_card_unionpay", "unionpay", "0005"),
    pays("pm_card_discover", "discover", "1117"),
    asks("pm_card_authenticationRequired", "3184"),
    asks("pm_card_threeDSecure2Required", "3220"),
    declined("pm_card_chargeDeclined", "0002", "generic_decline"),
    declined("pm_card_chargeDeclinedInsufficientFunds", "9995", "insufficient_funds"),
    declined("pm_card_chargeDeclinedLostCard", "9987", "lost_card"),
    declined("pm_card_chargeDeclinedStolenCard", "9979", "stolen_card"),
    refused("pm_card_chargeDeclinedExpiredCard", "0069", "expired_card"),
    refused("pm_card_chargeDeclinedIncorrectCvc", "0127", "incorrect_cvc"),
    refused("pm_card_chargeDeclinedProcessingError", "0119", "processing_error"),
];

/// A known card; written in the journal as its token.
#[derive(Debug, Clone, Copy)]
pub struct CardRef(&'static Card);

impl CardRef {
    pub fn find(token: &str) -> Option<Self> {
        CARDS.iter().find(|card| card.token == token).map(Self)
    }
}

impl std::ops::Deref for CardRef {
    type Target = Card;

    fn deref(&self) -> &Card {
        self.0
    }
}

impl Serialize for CardRef {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.token)
    }
}

impl<'de> Deserialize<'de> for CardRef {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let token = String::deserialize(deserializer)?;
        Self::find(&token).ok_or_else(|| D::Error::custom(format!("no such test card: {token}")))
    }
}
