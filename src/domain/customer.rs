//! Rules about customers that need no database: who may do what, which e-mail addresses and passwords are acceptable.

use unicode_normalization::UnicodeNormalization;
use zeroize::Zeroizing;

use super::{named_enum, opaque_debug};

named_enum! {
    /// What an account may do; each role may do what the ones before it may.
    Role { Customer = "CUSTOMER", Staff = "STAFF", Admin = "ADMIN" }
}

impl Role {
    /// Staff and administrators see every order.
    #[must_use]
    pub const fn is_staff(self) -> bool {
        matches!(self, Self::Staff | Self::Admin)
    }
}

named_enum! {
    /// The language of mails to the customer.
    Locale { Ko = "KO", En = "EN" }
}

/// An e-mail address in its normal form: NFC, trimmed, lower case. Two spellings of one mailbox compare equal.
#[derive(Clone, PartialEq, Eq)]
pub struct EmailAddress(Zeroizing<String>);

impl EmailAddress {
    /// `None` unless the text looks like a mailbox that mail can be sent to: one `@`, a local part of 1 to 64 bytes, a
    /// host name with a dot, at most 254 bytes in all (RFC 5321, 4.5.3.1), no spaces or control characters.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let normal: String = text.trim().nfc().flat_map(char::to_lowercase).collect();
        let (local, host) = normal.split_once('@')?;
        let plain = |c: char| !c.is_whitespace() && !c.is_control() && !matches!(c, '@' | '<' | '>' | ',' | ';' | '"' | '\\');
        let label = |label: &str| {
            !label.is_empty()
                && label.len() <= 63
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label.chars().all(|c| c.is_alphanumeric() || c == '-')
        };
        let acceptable = (1..=64).contains(&local.len())
            && normal.len() <= 254
            && local.chars().all(plain)
            && !local.starts_with('.')
            && !local.ends_with('.')
            && !local.contains("..")
            && host.contains('.')
            && host.split('.').all(label);
        acceptable.then(|| Self(Zeroizing::new(normal)))
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

opaque_debug!(EmailAddress);

/// What an address is found by, without being stored: its blind indexes, each in the column that belongs to its key. While keys rotate there
/// are two, and any of them finds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EmailIndex {
    pub odd: Option<Vec<u8>>,
    pub even: Option<Vec<u8>>,
}

impl EmailIndex {
    /// The column of a key: odd numbers and even ones take turns.
    #[must_use]
    pub const fn column(&self, key: u8) -> &Option<Vec<u8>> {
        if key.is_multiple_of(2) { &self.even } else { &self.odd }
    }

    pub const fn column_mut(&mut self, key: u8) -> &mut Option<Vec<u8>> {
        if key.is_multiple_of(2) { &mut self.even } else { &mut self.odd }
    }
}

/// Length of a password in characters after normalisation (NIST SP 800-63B asks for at least 8 and at most not below 64).
pub const PASSWORD_CHARACTERS: std::ops::RangeInclusive<usize> = 10..=128;

/// The password in the form that is hashed, NFC, so that the same keys on another keyboard give the same hash; `None`
/// when it is too short or too long.
#[must_use]
pub fn normalise_password(password: &str) -> Option<String> {
    // Bounded before normalising: a hostile megabyte costs nothing.
    if password.len() > 4 * PASSWORD_CHARACTERS.end() {
        return None;
    }
    let normal: String = password.nfc().collect();
    PASSWORD_CHARACTERS.contains(&normal.chars().count()).then_some(normal)
}

/// A line of text a person typed: trimmed, NFC, without control characters, `1..=max` characters; `None` otherwise.
#[must_use]
pub fn single_line(text: &str, max: usize) -> Option<String> {
    if text.len() > 4 * max {
        return None;
    }
    let normal: String = text.trim().nfc().collect();
    let acceptable = (1..=max).contains(&normal.chars().count()) && !normal.chars().any(char::is_control);
    acceptable.then_some(normal)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings_of_one_mailbox_are_equal() {
        let normal = EmailAddress::parse("jo.kim@example.com").unwrap();
        assert_eq!(EmailAddress::parse("  Jo.Kim@Example.COM ").unwrap(), normal);
        assert_eq!(EmailAddress::parse("김@예시.한국").unwrap().as_str(), "김@예시.한국");
    }

    #[test]
    fn what_mail_cannot_reach_is_refused() {
        let long = format!("{}@example.com", "a".repeat(65));
        for text in [
            "",
            "a",
            "@b.c",
            "a@",
            "a@b",
            "a@b@c.d",
            "a b@c.d",
            "a@b..c",
            "a@-b.c",
            ".a@b.c",
            "a\0@b.c",
            "<a@b.c>",
            "a@b.c\nBcc: x@y.z",
            &long,
        ] {
            assert!(EmailAddress::parse(text).is_none(), "{text:?}");
        }
    }

    #[test]
    fn a_password_is_counted_in_characters_after_normalising() {
        assert!(normalise_password("short").is_none());
        assert!(normalise_password("비밀번호비밀번호열자").is_some());
        assert_eq!(normalise_password("e\u{301}23456789a"), normalise_password("é23456789a"));
        assert!(normalise_password(&"x".repeat(129)).is_none());
    }
}
