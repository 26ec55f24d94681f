//! A mailbox in memory, for demo and tests: what would be sent is kept and can be read.

use std::sync::{Mutex, PoisonError};

use chrono::{DateTime, Utc};
use serde::Serialize;

#[derive(Clone, Debug, Serialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct ReceivedMail {
    pub to: String,
    pub subject: String,
    pub text: String,
    pub sent_at: DateTime<Utc>,
}

/// The newest mails, oldest first; the oldest are dropped beyond [`Mailbox::CAPACITY`].
#[derive(Debug, Default)]
pub struct Mailbox(Mutex<Vec<ReceivedMail>>);

impl Mailbox {
    pub const CAPACITY: usize = 1_000;

    pub fn deliver(&self, mail: ReceivedMail) {
        let mut mails = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if mails.len() == Self::CAPACITY {
            mails.remove(0);
        }
        mails.push(mail);
    }

    #[must_use]
    pub fn mails(&self) -> Vec<ReceivedMail> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
