//! Opaque secrets that are stored only as a hash: the tokens of links in mails, and (`refresh_token.rs`) of sessions.

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

/// A secret for its holder; the program keeps [`SecretToken::hash`] alone.
#[derive(Clone, Debug)]
pub struct SecretToken(SecretString);

impl SecretToken {
    /// 256 random bits.
    #[must_use]
    pub fn random() -> Self {
        Self::from_bytes(&*Zeroizing::new(rand::random::<[u8; 32]>()))
    }

    /// As a client sent it.
    #[must_use]
    pub fn received(text: String) -> Self {
        Self(text.into())
    }

    pub(super) fn from_bytes(bytes: &[u8]) -> Self {
        Self(BASE64_URL_SAFE_NO_PAD.encode(bytes).into())
    }

    /// For the holder's eyes only.
    #[must_use]
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }

    /// What is stored and looked up (SHA-256; the token has 256 bits of entropy, so no salt or slow hash is needed).
    #[must_use]
    pub fn hash(&self) -> Vec<u8> {
        Sha256::digest(self.expose().as_bytes()).to_vec()
    }
}
