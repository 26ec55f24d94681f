//! Personal data at rest: AES-256-GCM values that open only in the column and row they were sealed for, and blind
//! indexes to find an e-mail address without storing it.
//!
//! Owns: the format, the list of sealed columns, the keys' derivation. Does not own: the keys (config), statements (store).
//! Called by services and resolvers; a value's plain text never reaches the store.

use std::{collections::HashMap, fmt};

use aes_gcm::{
    Aes256Gcm, Nonce,
    aead::{Aead, KeyInit, Payload},
};
use hkdf::Hkdf;
use hmac::{Hmac, Mac};
use sha2::Sha256;
use uuid::Uuid;
use zeroize::Zeroizing;

use crate::{
    config::{KeysConfig, NumberedKey},
    domain::customer::{EmailAddress, EmailIndex},
};

/// The format: version, key id, 96-bit random nonce, cipher text with its 128-bit tag.
const VERSION: u8 = 1;
const NONCE_BYTES: usize = 12;
const HEADER_BYTES: usize = 2 + NONCE_BYTES;

/// A column whose values are sealed. Its name is part of what a value is bound to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SealedColumn {
    CustomerEmail,
    CustomerName,
    CustomerPhone,
    AddressContent,
    OrderDeliveryNote,
    MailContent,
    /// Of a link that moves an account.
    NewEmail,
    SessionUserAgent,
    WishlistNote,
}

impl SealedColumn {
    /// What `keys rotate` goes through; a test compares it with the database.
    pub const ALL: [Self; 9] = [
        Self::CustomerEmail,
        Self::CustomerName,
        Self::CustomerPhone,
        Self::NewEmail,
        Self::AddressContent,
        Self::OrderDeliveryNote,
        Self::MailContent,
        Self::SessionUserAgent,
        Self::WishlistNote,
    ];

    #[must_use]
    pub const fn table(self) -> &'static str {
        match self {
            Self::CustomerEmail | Self::CustomerName | Self::CustomerPhone => "customer",
            Self::AddressContent => "address",
            Self::OrderDeliveryNote => "orders",
            Self::MailContent => "mail",
            Self::NewEmail => "one_time_token",
            Self::SessionUserAgent => "session",
            Self::WishlistNote => "wishlist_item",
        }
    }

    #[must_use]
    pub const fn column(self) -> &'static str {
        match self {
            Self::CustomerEmail => "email_sealed",
            Self::CustomerName => "name_sealed",
            Self::CustomerPhone => "phone_sealed",
            Self::AddressContent | Self::MailContent => "content_sealed",
            Self::OrderDeliveryNote => "delivery_note_sealed",
            Self::NewEmail => "new_email_sealed",
            Self::SessionUserAgent => "user_agent_sealed",
            Self::WishlistNote => "note_sealed",
        }
    }
}

impl fmt::Display for SealedColumn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.table(), self.column())
    }
}

/// The value was sealed for another place, with a key that is not configured, or has been changed.
#[derive(Debug, thiserror::Error)]
#[error("a sealed value of {column} does not open")]
pub struct SealingError {
    column: SealedColumn,
}

/// Seals, opens, and indexes personal data.
pub struct Sealing {
    active: u8,
    ciphers: HashMap<u8, Aes256Gcm>,
    /// By the number of the key, which decides the column.
    blind_index: Vec<(u8, Zeroizing<[u8; 32]>)>,
    fingerprint: Zeroizing<[u8; 32]>,
}

impl Sealing {
    #[must_use]
    pub fn new(keys: &KeysConfig) -> Self {
        let cipher = |key: &[u8; 32]| Aes256Gcm::new((&*derive(key, b"whitemonday sealing v1")).into());
        let blind_index = |key: &NumberedKey| (key.id, derive(&key.key, b"whitemonday blind index v1"));
        // The same while a second key comes and the first one goes: a request that is repeated meanwhile is known again.
        let oldest = keys.blind_index.iter().min_by_key(|key| key.id);
        Self {
            active: keys.sealing.first().map_or(0, |key| key.id),
            ciphers: keys.sealing.iter().map(|numbered| (numbered.id, cipher(&numbered.key))).collect(),
            blind_index: keys.blind_index.iter().map(blind_index).collect(),
            fingerprint: oldest.map_or_else(Zeroizing::default, |key| derive(&key.key, b"whitemonday request fingerprint v1")),
        }
    }

    /// Seals a value for one column of one row.
    ///
    /// # Errors
    /// Only when no sealing key is configured, which the configuration refuses.
    pub fn seal(&self, column: SealedColumn, row: Uuid, plain: &str) -> Result<Vec<u8>, SealingError> {
        let failed = |()| SealingError { column };
        let cipher = self.ciphers.get(&self.active).ok_or(()).map_err(failed)?;
        let nonce: [u8; NONCE_BYTES] = rand::random();
        let payload = Payload { msg: plain.as_bytes(), aad: &associated_data(column, row) };
        let cipher_text = cipher.encrypt(&Nonce::from(nonce), payload).map_err(|_| SealingError { column })?;
        let mut sealed = Vec::with_capacity(HEADER_BYTES + cipher_text.len());
        sealed.extend([VERSION, self.active]);
        sealed.extend(nonce);
        sealed.extend(cipher_text);
        Ok(sealed)
    }

    /// Opens a value of this column and row.
    ///
    /// # Errors
    /// When it was sealed for another place, with an unknown key, or is damaged.
    pub fn open(&self, column: SealedColumn, row: Uuid, sealed: &[u8]) -> Result<Zeroizing<String>, SealingError> {
        self.try_open(column, row, sealed).ok_or(SealingError { column })
    }

    /// The value under the active key; `None` when that has sealed it already.
    ///
    /// # Errors
    /// When it does not open, whichever key has sealed it.
    pub fn reseal(&self, column: SealedColumn, row: Uuid, sealed: &[u8]) -> Result<Option<Vec<u8>>, SealingError> {
        let plain = self.open(column, row, sealed)?;
        if sealed.get(1) == Some(&self.active) { Ok(None) } else { self.seal(column, row, &plain).map(Some) }
    }

    fn try_open(&self, column: SealedColumn, row: Uuid, sealed: &[u8]) -> Option<Zeroizing<String>> {
        let (header, cipher_text) = sealed.split_at_checked(HEADER_BYTES)?;
        let [VERSION, key_id, nonce @ ..] = header else { return None };
        let nonce = <[u8; NONCE_BYTES]>::try_from(nonce).ok()?;
        let payload = Payload { msg: cipher_text, aad: &associated_data(column, row) };
        let plain = self.ciphers.get(key_id)?.decrypt(&Nonce::from(nonce), payload).ok()?;
        String::from_utf8(plain).ok().map(Zeroizing::new)
    }

    /// Equal for equal addresses, and useless without the key (HMAC-SHA-256 of the normal form).
    #[must_use]
    pub fn email_index(&self, email: &EmailAddress) -> EmailIndex {
        let mut index = EmailIndex::default();
        for (id, key) in &self.blind_index {
            *index.column_mut(*id) = Some(hmac_sha256(key, &[email.as_str().as_bytes()]).to_vec());
        }
        index
    }

    /// Tells whether two requests under one idempotency key ask for the same, without storing what was asked for.
    #[must_use]
    pub fn request_fingerprint(&self, request: &[u8]) -> Vec<u8> {
        hmac_sha256(&self.fingerprint, &[request]).to_vec()
    }
}

fn associated_data(column: SealedColumn, row: Uuid) -> Vec<u8> {
    [column.to_string().as_bytes(), &[0], row.as_bytes()].concat()
}

/// A key for one purpose, by HKDF-SHA-256 (RFC 5869), so that one secret in the environment never serves two.
#[must_use]
pub fn derive(secret: &[u8; 32], purpose: &[u8]) -> Zeroizing<[u8; 32]> {
    let mut key = Zeroizing::new([0; 32]);
    let expanded = Hkdf::<Sha256>::new(None, secret).expand(purpose, &mut *key);
    debug_assert!(expanded.is_ok(), "32 bytes are within what HKDF-SHA-256 can give");
    key
}

/// HMAC-SHA-256 over the parts in order; the caller sees to it that they cannot be shifted into one another.
#[must_use]
pub fn hmac_sha256(key: &[u8; 32], parts: &[&[u8]]) -> [u8; 32] {
    // HMAC fills a short key up to its block with zeros (RFC 2104, 2).
    let mut block = Zeroizing::new([0; 64]);
    block[..key.len()].copy_from_slice(key);
    let mut mac = <Hmac<Sha256> as hmac::KeyInit>::new((&*block).into());
    for part in parts {
        mac.update(part);
    }
    mac.finalize().into_bytes().into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::NumberedKey;

    fn key(id: u8) -> NumberedKey {
        NumberedKey { id, key: Zeroizing::new([id; 32]) }
    }

    fn sealing(ids: &[u8]) -> Sealing {
        let sealing = ids.iter().copied().map(key).collect();
        Sealing::new(&KeysConfig { sealing, blind_index: vec![key(9)], tokens: Vec::new() })
    }

    fn indexing(ids: &[u8]) -> Sealing {
        let blind_index = ids.iter().copied().map(key).collect();
        Sealing::new(&KeysConfig { sealing: vec![key(1)], blind_index, tokens: Vec::new() })
    }

    #[test]
    fn a_value_opens_where_it_was_sealed_and_nowhere_else() {
        let sealing = sealing(&[1]);
        let row = Uuid::now_v7();
        let sealed = sealing.seal(SealedColumn::CustomerName, row, "김하늘").unwrap();
        assert_eq!(sealing.open(SealedColumn::CustomerName, row, &sealed).unwrap().as_str(), "김하늘");
        assert!(sealing.open(SealedColumn::CustomerEmail, row, &sealed).is_err());
        assert!(sealing.open(SealedColumn::CustomerName, Uuid::now_v7(), &sealed).is_err());
        for position in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[position] ^= 1;
            assert!(sealing.open(SealedColumn::CustomerName, row, &changed).is_err(), "byte {position}");
        }
        assert!(sealing.open(SealedColumn::CustomerName, row, &sealed[..10]).is_err());
    }

    #[test]
    fn the_first_key_seals_and_all_keys_open() {
        let row = Uuid::now_v7();
        let old = sealing(&[1]).seal(SealedColumn::CustomerName, row, "Ann").unwrap();
        let both = sealing(&[2, 1]);
        assert_eq!(both.open(SealedColumn::CustomerName, row, &old).unwrap().as_str(), "Ann");
        let new = both.seal(SealedColumn::CustomerName, row, "Ann").unwrap();
        assert!(sealing(&[1]).open(SealedColumn::CustomerName, row, &new).is_err());
        assert_eq!(sealing(&[2]).open(SealedColumn::CustomerName, row, &new).unwrap().as_str(), "Ann");
    }

    #[test]
    fn the_index_is_equal_for_spellings_of_one_address() {
        let sealing = sealing(&[1]);
        let index = |text| sealing.email_index(&EmailAddress::parse(text).unwrap());
        assert_eq!(index("Ann@Example.com"), index("ann@example.com"));
        assert_ne!(index("ann@example.com"), index("bob@example.com"));
    }

    #[test]
    fn a_value_is_sealed_anew_once() {
        let row = Uuid::now_v7();
        let old = sealing(&[1]).seal(SealedColumn::CustomerName, row, "Ann").unwrap();
        let both = sealing(&[2, 1]);
        let new = both.reseal(SealedColumn::CustomerName, row, &old).unwrap().unwrap();
        assert_eq!(sealing(&[2]).open(SealedColumn::CustomerName, row, &new).unwrap().as_str(), "Ann");
        assert_eq!(both.reseal(SealedColumn::CustomerName, row, &new).unwrap(), None);
        assert!(sealing(&[2]).reseal(SealedColumn::CustomerName, row, &old).is_err());
        let damaged = [&new[..new.len() - 1], &[!new[new.len() - 1]]].concat();
        assert!(both.reseal(SealedColumn::CustomerName, row, &damaged).is_err(), "the active key is no reason not to look");
    }

    /// 96 random bits: with one key a billion times as many values would make an equal pair likely.
    #[test]
    fn a_million_nonces_are_all_different() {
        let (sealing, row) = (sealing(&[1]), Uuid::now_v7());
        let nonce = |_| {
            let sealed = sealing.seal(SealedColumn::CustomerName, row, "").unwrap();
            <[u8; NONCE_BYTES]>::try_from(&sealed[2..HEADER_BYTES]).unwrap()
        };
        let mut nonces: Vec<_> = (0..1_000_000).map(nonce).collect();
        nonces.sort_unstable();
        nonces.dedup();
        assert_eq!(nonces.len(), 1_000_000);
    }

    #[test]
    fn a_keys_number_decides_its_column() {
        let email = EmailAddress::parse("ann@example.com").unwrap();
        let index = |ids: &[u8]| indexing(ids).email_index(&email);
        let (one, two, both) = (index(&[1]), index(&[2]), index(&[1, 2]));
        assert!(one.even.is_none() && two.odd.is_none());
        assert_eq!((&both.odd, &both.even), (&one.odd, &two.even));
        assert_eq!(both, index(&[2, 1]));
        assert_ne!(one.odd, index(&[3]).odd);
    }

    #[test]
    fn a_requests_fingerprint_changes_only_with_the_last_step_of_a_rotation() {
        let fingerprint = |ids: &[u8]| indexing(ids).request_fingerprint(b"the same request");
        for ids in [&[1, 2], &[2, 1]] {
            assert_eq!(fingerprint(ids), fingerprint(&[1]), "{ids:?}");
        }
        assert_ne!(fingerprint(&[2]), fingerprint(&[1]));
    }
}
