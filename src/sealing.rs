//! Personal data at rest: AES-256-GCM values that open only in the column and row they were sealed for, and blind
//! indexes to find an e-mail address without storing it.
//!
//! Owns: the format and the keys' derivation. Does not own: the keys (config), the columns (store).
//! Called by services and resolvers; a value's plain text never reaches the store.

use std::collections::HashMap;

use aes_gcm::{
    Aes256Gcm, Nonce,
    aead::{Aead, KeyInit, Payload},
};
use hkdf::Hkdf;
use hmac::{Hmac, Mac};
use sha2::Sha256;
use uuid::Uuid;
use zeroize::Zeroizing;

use crate::{config::KeysConfig, domain::customer::EmailAddress};

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
}

impl SealedColumn {
    const fn name(self) -> &'static str {
        match self {
            Self::CustomerEmail => "customer.email_sealed",
            Self::CustomerName => "customer.name_sealed",
            Self::CustomerPhone => "customer.phone_sealed",
            Self::AddressContent => "address.content_sealed",
            Self::OrderDeliveryNote => "orders.delivery_note_sealed",
            Self::MailContent => "mail.content_sealed",
        }
    }
}

/// The value was sealed for another place, with a key that is not configured, or has been changed.
#[derive(Debug, thiserror::Error)]
#[error("a sealed value of {} does not open", column.name())]
pub struct SealingError {
    column: SealedColumn,
}

/// Seals, opens, and indexes personal data.
pub struct Sealing {
    active: u8,
    ciphers: HashMap<u8, Aes256Gcm>,
    blind_index: Zeroizing<[u8; 32]>,
    fingerprint: Zeroizing<[u8; 32]>,
}

impl Sealing {
    #[must_use]
    pub fn new(keys: &KeysConfig) -> Self {
        let cipher = |key: &[u8; 32]| Aes256Gcm::new((&*derive(key, b"whitemonday sealing v1")).into());
        Self {
            active: keys.sealing.first().map_or(0, |key| key.id),
            ciphers: keys.sealing.iter().map(|numbered| (numbered.id, cipher(&numbered.key))).collect(),
            blind_index: derive(&keys.blind_index.key, b"whitemonday blind index v1"),
            fingerprint: derive(&keys.blind_index.key, b"whitemonday request fingerprint v1"),
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
    pub fn open(&self, column: SealedColumn, row: Uuid, sealed: &[u8]) -> Result<String, SealingError> {
        self.try_open(column, row, sealed).ok_or(SealingError { column })
    }

    fn try_open(&self, column: SealedColumn, row: Uuid, sealed: &[u8]) -> Option<String> {
        let (header, cipher_text) = sealed.split_at_checked(HEADER_BYTES)?;
        let [VERSION, key_id, nonce @ ..] = header else { return None };
        let nonce = <[u8; NONCE_BYTES]>::try_from(nonce).ok()?;
        let payload = Payload { msg: cipher_text, aad: &associated_data(column, row) };
        let plain = self.ciphers.get(key_id)?.decrypt(&Nonce::from(nonce), payload).ok()?;
        String::from_utf8(plain).ok()
    }

    /// Equal for equal addresses, and useless without the key (HMAC-SHA-256 of the normal form).
    #[must_use]
    pub fn email_index(&self, email: &EmailAddress) -> Vec<u8> {
        hmac_sha256(&self.blind_index, &[email.as_str().as_bytes()]).to_vec()
    }

    /// Tells whether two requests under one idempotency key ask for the same, without storing what was asked for.
    #[must_use]
    pub fn request_fingerprint(&self, request: &[u8]) -> Vec<u8> {
        hmac_sha256(&self.fingerprint, &[request]).to_vec()
    }
}

fn associated_data(column: SealedColumn, row: Uuid) -> Vec<u8> {
    [column.name().as_bytes(), &[0], row.as_bytes()].concat()
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
    let mut block = [0; 64];
    block[..key.len()].copy_from_slice(key);
    let mut mac = <Hmac<Sha256> as hmac::KeyInit>::new(&block.into());
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
        Sealing::new(&KeysConfig { sealing, blind_index: key(9), tokens: Vec::new() })
    }

    #[test]
    fn a_value_opens_where_it_was_sealed_and_nowhere_else() {
        let sealing = sealing(&[1]);
        let row = Uuid::now_v7();
        let sealed = sealing.seal(SealedColumn::CustomerName, row, "김하늘").unwrap();
        assert_eq!(sealing.open(SealedColumn::CustomerName, row, &sealed).unwrap(), "김하늘");
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
        assert_eq!(both.open(SealedColumn::CustomerName, row, &old).unwrap(), "Ann");
        let new = both.seal(SealedColumn::CustomerName, row, "Ann").unwrap();
        assert!(sealing(&[1]).open(SealedColumn::CustomerName, row, &new).is_err());
        assert_eq!(sealing(&[2]).open(SealedColumn::CustomerName, row, &new).unwrap(), "Ann");
    }

    #[test]
    fn the_index_is_equal_for_spellings_of_one_address() {
        let sealing = sealing(&[1]);
        let index = |text| sealing.email_index(&EmailAddress::parse(text).unwrap());
        assert_eq!(index("Ann@Example.com"), index("ann@example.com"));
        assert_ne!(index("ann@example.com"), index("bob@example.com"));
    }
}
