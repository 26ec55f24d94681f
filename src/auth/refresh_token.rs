//! Refresh tokens: session, generation, and an HMAC over both.
//!
//! A token can be made again from the server's key, so that two tabs which refresh at the same moment get the same
//! successor though only its hash is stored; and a spent token is known as such, however old it is.

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use uuid::Uuid;
use zeroize::Zeroizing;

use super::secret_token::SecretToken;
use crate::{config::NumberedKey, domain::ids::SessionId, sealing};

const CLAIM_BYTES: usize = 20;

/// Makes refresh tokens and recognises its own.
pub struct RefreshTokens {
    keys: Vec<Zeroizing<[u8; 32]>>,
}

/// What an authentic or at least well-formed token says about itself.
pub struct Presented {
    pub session: SessionId,
    pub generation: i32,
    /// Made by this server: if it is not the valid one, it is a spent one.
    pub authentic: bool,
    pub token: SecretToken,
}

impl RefreshTokens {
    #[must_use]
    pub fn new(keys: &[NumberedKey]) -> Self {
        Self { keys: keys.iter().map(|numbered| sealing::derive(&numbered.key, b"whitemonday refresh token v1")).collect() }
    }

    /// The token of a session's generation, counted from 0.
    #[must_use]
    pub fn issue(&self, session: SessionId, generation: i32) -> SecretToken {
        let claim = claim(session, generation);
        let mac = self.keys.first().map(|key| sealing::hmac_sha256(key, &[&claim])).unwrap_or_default();
        SecretToken::from_bytes(&Zeroizing::new([&claim[..], &mac].concat()))
    }

    /// Takes a client's token apart; `None` when it cannot be one.
    #[must_use]
    pub fn read(&self, text: String) -> Option<Presented> {
        let token = SecretToken::received(text);
        let bytes = Zeroizing::new(BASE64_URL_SAFE_NO_PAD.decode(token.expose()).ok()?);
        let (claim, mac) = bytes.split_at_checked(CLAIM_BYTES)?;
        let session = SessionId(Uuid::from_slice(&claim[..16]).ok()?);
        let generation = i32::from_be_bytes(claim[16..].try_into().ok()?);
        let authentic = self.keys.iter().any(|key| constant_time_equal(&sealing::hmac_sha256(key, &[claim]), mac));
        Some(Presented { session, generation, authentic, token })
    }
}

fn claim(session: SessionId, generation: i32) -> [u8; CLAIM_BYTES] {
    let mut claim = [0; CLAIM_BYTES];
    claim[..16].copy_from_slice(session.0.as_bytes());
    claim[16..].copy_from_slice(&generation.to_be_bytes());
    claim
}

/// Compares without telling by its time where the difference is.
fn constant_time_equal(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |difference, (a, b)| difference | (a ^ b)) == 0
}
