//! The keys that seal personal data, index it and sign access tokens.

use std::fmt;

use base64::{Engine, prelude::BASE64_STANDARD};
use zeroize::Zeroizing;

use super::reader::Reader;

/// 256 bits of key material with the number it is stored under.
pub struct NumberedKey {
    pub id: u8,
    pub key: Zeroizing<[u8; 32]>,
}

impl fmt::Debug for NumberedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NumberedKey({})", self.id)
    }
}

impl Clone for NumberedKey {
    fn clone(&self) -> Self {
        Self { id: self.id, key: self.key.clone() }
    }
}

#[derive(Clone, Debug)]
pub struct KeysConfig {
    /// The first one seals, all of them open.
    pub sealing: Vec<NumberedKey>,
    /// One key, or while it is changed two: one with an odd and one with an even number.
    pub blind_index: Vec<NumberedKey>,
    /// The first one signs access tokens, all of them verify.
    pub tokens: Vec<NumberedKey>,
}

impl KeysConfig {
    pub(super) fn from_reader(reader: &mut Reader<'_>) -> Self {
        Self {
            sealing: reader.keys("SEALING_KEYS"),
            blind_index: {
                let keys = reader.keys("BLIND_INDEX_KEY");
                let even = keys.iter().filter(|key| key.id.is_multiple_of(2)).count();
                if even > 1 || keys.len() - even > 1 {
                    reader.errors.push("BLIND_INDEX_KEY must be one key, or two: one with an odd and one with an even number".to_owned());
                }
                keys
            },
            tokens: reader.keys("TOKEN_KEYS"),
        }
    }
}

impl Reader<'_> {
    /// `id:base64,id:base64`, each key 32 bytes.
    fn keys(&mut self, name: &'static str) -> Vec<NumberedKey> {
        let text = Zeroizing::new(self.required(name, "make one with `whitemonday keys generate`"));
        if text.is_empty() {
            return Vec::new();
        }
        let keys: Option<Vec<_>> = text.split(',').map(parse_key).collect();
        let keys = keys.unwrap_or_default();
        let mut ids: Vec<_> = keys.iter().map(|key| key.id).collect();
        ids.sort_unstable();
        ids.dedup();
        if keys.is_empty() || ids.len() != keys.len() {
            self.errors.push(format!(
                "{name} must be `number:base64 of 32 bytes`, several separated by commas, with different numbers from 1 to 255"
            ));
        }
        keys
    }
}

fn parse_key(text: &str) -> Option<NumberedKey> {
    let (id, key) = text.trim().split_once(':')?;
    let id = id.parse().ok().filter(|id| *id > 0)?;
    let bytes = Zeroizing::new(BASE64_STANDARD.decode(key).ok()?);
    let key = Zeroizing::new(<[u8; 32]>::try_from(bytes.as_slice()).ok()?);
    Some(NumberedKey { id, key })
}
