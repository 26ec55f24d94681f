//! A postal address as the customer typed it, and what makes it acceptable.

use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, ZeroizeOnDrop};

use super::{customer::single_line, opaque_debug};

/// What a parcel needs. Stored only sealed, as a whole.
#[derive(Clone, Serialize, Deserialize, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct PostalAddress {
    pub recipient: String,
    pub line1: String,
    pub line2: Option<String>,
    pub city: String,
    pub postal_code: String,
    /// ISO 3166-1 alpha-2.
    pub country_code: String,
    pub phone: Option<String>,
}

opaque_debug!(PostalAddress);

/// The first field that breaks a rule, and the rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvalidField {
    /// Path below `input`.
    pub path: &'static [&'static str],
    pub rule: &'static str,
}

impl PostalAddress {
    /// The address with every field trimmed and in normal form.
    ///
    /// # Errors
    /// The first field that is empty, too long, or not of its form.
    pub fn normalised(mut self) -> Result<Self, InvalidField> {
        let required = |text: &str, max, path: &'static [&'static str], rule| single_line(text, max).ok_or(InvalidField { path, rule });
        self.recipient = required(&self.recipient, 100, &["address", "recipient"], "A name of 1 to 100 characters.")?;
        self.line1 = required(&self.line1, 200, &["address", "line1"], "1 to 200 characters.")?;
        self.city = required(&self.city, 100, &["address", "city"], "1 to 100 characters.")?;
        self.postal_code = required(&self.postal_code, 20, &["address", "postalCode"], "1 to 20 characters.")?;
        if let Some(line2) = self.line2.take().filter(|text| !text.trim().is_empty()) {
            self.line2 = Some(required(&line2, 200, &["address", "line2"], "At most 200 characters.")?);
        }
        if let Some(phone) = self.phone.take().filter(|text| !text.trim().is_empty()) {
            let phone = phone_number(&phone).ok_or(InvalidField { path: &["address", "phone"], rule: PHONE_RULE })?;
            self.phone = Some(phone);
        }
        let country = self.country_code.as_bytes();
        if country.len() != 2 || !country.iter().all(u8::is_ascii_uppercase) {
            return Err(InvalidField { path: &["address", "countryCode"], rule: "Two capital letters of ISO 3166-1, like KR." });
        }
        Ok(self)
    }
}

pub const PHONE_RULE: &str = "Digits, spaces, and + ( ) - only; 5 to 20 digits.";

/// A phone number as it was typed, trimmed; `None` when it breaks [`PHONE_RULE`].
#[must_use]
pub fn phone_number(text: &str) -> Option<String> {
    let text = single_line(text, 40)?;
    let digits = text.chars().filter(char::is_ascii_digit).count();
    let acceptable = (5..=20).contains(&digits) && text.chars().all(|c| c.is_ascii_digit() || matches!(c, ' ' | '+' | '(' | ')' | '-'));
    acceptable.then_some(text)
}
