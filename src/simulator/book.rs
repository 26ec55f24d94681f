//! All that the simulator knows, and each call's effect on it. Lives behind one mutex held for microseconds, so a
//! charge, the intent's new state and the answer kept under the key are one step.
//! Does not own: faults (`faults`), files (`journal`), HTTP (`api`).

use std::collections::BTreeMap;

use rand::{Rng, distr::Alphanumeric};
use serde::{Deserialize, Serialize};

use super::{
    cards::CardRef,
    faults::Operation,
    idempotency::{Begun, Kept, KeyStore},
    intents::{Confirmation, Decline, Facts, Intent, Status},
    ledger::{Charge, Ledger, Refund},
    table::Table,
    wire::{ApiError, Expand, Reply},
};

/// A call that changes something, its parameters read.
pub enum Command {
    Create { amount: i64, currency: String, card: Option<CardRef>, metadata: BTreeMap<String, String>, expand: Expand },
    Confirm { intent: String, card: Option<CardRef>, return_url: Option<String>, expand: Expand },
    Cancel { intent: String, reason: Option<String>, expand: Expand },
    Refund { of: Refunded, amount: Option<i64>, reason: Option<String>, metadata: BTreeMap<String, String> },
}

/// What a refund names: the intent or its charge.
pub enum Refunded {
    Intent(String),
    Charge(String),
}

/// Who calls, when, and what a scripted fault adds.
pub struct Circumstances<'a> {
    pub now_ms: u64,
    pub key: Option<&'a str>,
    /// The bank's word for a scripted decline.
    pub decline: Option<&'a str>,
}

/// A change as the journal writes it; applying all changes in order makes the same book again.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    Intent(Intent),
    Charge(Charge),
    Refund(Refund),
    Key(String, Kept),
}

pub struct Book {
    pub intents: Table<Intent>,
    pub ledger: Ledger,
    pub keys: KeyStore,
    pub calls: BTreeMap<Operation, u64>,
}

impl Book {
    pub fn new(key_lifetime_ms: u64) -> Self {
        Self { intents: Table::default(), ledger: Ledger::default(), keys: KeyStore::new(key_lifetime_ms), calls: BTreeMap::new() }
    }

    pub fn count(&mut self, operation: Operation) {
        *self.calls.entry(operation).or_default() += 1;
    }

    /// Counts a call and looks its key up; without a key it may start at once.
    pub fn begin(&mut self, operation: Operation, key: Option<&str>, fingerprint: u64) -> Begun {
        self.count(operation);
        key.map_or(Begun::Started, |key| self.keys.begin(key, fingerprint, super::now_ms()))
    }

    /// Keeps an answer under its key, and tells the journal if there is one.
    pub fn keep(&mut self, key: String, kept: Kept, changes: Option<&mut Vec<Change>>) {
        if let Some(changes) = changes {
            changes.push(Change::Key(key.clone(), kept.clone()));
        }
        self.keys.finish(key, kept);
    }

    /// Takes a change over, from the journal.
    pub fn apply(&mut self, change: Change) {
        match change {
            Change::Intent(intent) => {
                let id = intent.facts.id.clone();
                self.intents.put(&id, intent);
            }
            Change::Charge(taken) => self.ledger.book_charge(taken),
            Change::Refund(refund) => self.ledger.book_refund(refund),
            Change::Key(key, kept) => self.keys.finish(key, kept),
        }
    }

    /// Executes a call. The changes it made are in the order to write them in; none after a refusal.
    pub fn execute(&mut self, command: Command, at: &Circumstances<'_>) -> (Reply, Vec<Change>) {
        let result = match command {
            Command::Create { amount, currency, card, metadata, expand } => {
                let facts = Facts { id: new_id("pi"), amount, currency, created_ms: at.now_ms, metadata };
                Ok(self.save(Intent::new(facts, card), Vec::new(), |intent| Reply::Intent(intent, expand)))
            }
            Command::Confirm { intent, card, return_url, expand } => {
                self.find(&intent).map(|intent| self.confirm(intent, card, return_url, expand, at))
            }
            Command::Cancel { intent, reason, expand } => self.find(&intent).map(|mut intent| {
                if !intent.cancel(at.now_ms, reason) {
                    return (Reply::WrongState(Box::new(intent)), Vec::new());
                }
                self.save(intent, Vec::new(), |intent| Reply::Intent(intent, expand))
            }),
            Command::Refund { of, amount, reason, metadata } => self.refund(&of, amount, reason, metadata, at),
        };
        result.unwrap_or_else(|error| (Reply::Failed(error), Vec::new()))
    }

    /// Ends the customer's authentication; `None` when the intent does not wait for one.
    pub fn authenticate(&mut self, intent: &str, passed: bool, now_ms: u64) -> Option<(Intent, Vec<Change>)> {
        let mut intent = self.intents.get(intent)?.clone();
        if intent.status != Status::RequiresAction {
            return None;
        }
        let card = intent.card?;
        let changes = if passed {
            vec![self.charge(&mut intent, card, &Circumstances { now_ms, key: None, decline: None })]
        } else {
            intent.decline(Decline::failed_authentication(card));
            Vec::new()
        };
        let saved = intent.clone();
        let (_, changes) = self.save(intent, changes, |intent| Reply::Intent(intent, Expand::Nothing));
        Some((saved, changes))
    }

    fn confirm(
        &mut self,
        mut intent: Intent,
        card: Option<CardRef>,
        return_url: Option<String>,
        expand: Expand,
        at: &Circumstances<'_>,
    ) -> (Reply, Vec<Change>) {
        match intent.confirm(card, return_url, at.decline) {
            Confirmation::Charge(card) => {
                let charge = self.charge(&mut intent, card, at);
                self.save(intent, vec![charge], |intent| Reply::Intent(intent, expand))
            }
            Confirmation::NeedsAction => self.save(intent, Vec::new(), |intent| Reply::Intent(intent, expand)),
            Confirmation::Declined => self.save(intent, Vec::new(), Reply::Declined),
            Confirmation::NoPaymentMethod | Confirmation::WrongState => (Reply::WrongState(Box::new(intent)), Vec::new()),
        }
    }

    /// Takes the money.
    fn charge(&mut self, intent: &mut Intent, card: CardRef, at: &Circumstances<'_>) -> Change {
        let charge = Charge {
            id: new_id("ch"),
            facts: intent.facts.clone(),
            card,
            refunded: 0,
            created_ms: at.now_ms,
            key: at.key.map(str::to_owned),
        };
        intent.succeed(charge.id.clone());
        self.ledger.book_charge(charge.clone());
        Change::Charge(charge)
    }

    fn refund(
        &mut self,
        of: &Refunded,
        amount: Option<i64>,
        reason: Option<String>,
        metadata: BTreeMap<String, String>,
        at: &Circumstances<'_>,
    ) -> Result<(Reply, Vec<Change>), ApiError> {
        let charge = match of {
            Refunded::Charge(id) => self.ledger.charges.get(id).ok_or(("charge", "No such charge.")),
            Refunded::Intent(id) => self.intents.get(id).ok_or(("payment_intent", "No such payment intent.")).and_then(|intent| {
                let charge = intent.latest_charge.as_deref().and_then(|id| self.ledger.charges.get(id));
                charge.ok_or(("payment_intent", "This payment intent has no successful charge."))
            }),
        };
        let charge = charge.map_err(|(param, message)| ApiError::invalid("resource_missing", param, message))?;
        let left = charge.facts.amount - charge.refunded;
        if left == 0 {
            return Err(ApiError::invalid("charge_already_refunded", "charge", "This charge is refunded already."));
        }
        let amount = amount.unwrap_or(left);
        if amount > left {
            return Err(ApiError::invalid("amount_too_large", "amount", "More than is left of the charge."));
        }
        let refund = Refund {
            id: new_id("re"),
            charge: charge.id.clone(),
            payment_intent: charge.facts.id.clone(),
            amount,
            currency: charge.facts.currency.clone(),
            reason,
            created_ms: at.now_ms,
            metadata,
        };
        self.ledger.book_refund(refund.clone());
        Ok((Reply::Refund(Box::new(refund.clone())), vec![Change::Refund(refund)]))
    }

    fn find(&self, id: &str) -> Result<Intent, ApiError> {
        self.intents.get(id).cloned().ok_or_else(|| ApiError::missing("payment_intent", id))
    }

    fn save(&mut self, intent: Intent, mut changes: Vec<Change>, reply: impl FnOnce(Box<Intent>) -> Reply) -> (Reply, Vec<Change>) {
        self.intents.put(&intent.facts.id, intent.clone());
        changes.push(Change::Intent(intent.clone()));
        (reply(Box::new(intent)), changes)
    }
}

/// An id that looks like the provider's: a prefix and 24 letters and digits.
pub fn new_id(prefix: &str) -> String {
    let mut id = String::with_capacity(prefix.len() + 25);
    id.push_str(prefix);
    id.push('_');
    id.extend(rand::rng().sample_iter(Alphanumeric).take(24).map(char::from));
    id
}
