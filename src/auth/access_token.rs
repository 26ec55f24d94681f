//! Access tokens: JWT signed with HS256, ten minutes long. docs/adr/0004 says why HS256.

use chrono::{DateTime, TimeDelta, Utc};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation, decode, decode_header, encode};
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::Viewer;
use crate::{
    config::NumberedKey,
    domain::{
        customer::Role,
        ids::{CustomerId, SessionId},
    },
    sealing::derive,
};

pub const LIFETIME: TimeDelta = TimeDelta::minutes(10);
const ISSUER: &str = "whitemonday";
const AUDIENCE: &str = "whitemonday-api";
/// Clocks of two processes may differ by this much.
const LEEWAY: TimeDelta = TimeDelta::seconds(2);

#[derive(Serialize, Deserialize)]
struct Claims {
    iss: String,
    aud: String,
    sub: Uuid,
    sid: Uuid,
    role: String,
    iat: i64,
    nbf: i64,
    exp: i64,
}

/// Why a token is refused. Clients are told the same for all of them.
#[derive(Debug, thiserror::Error)]
pub enum AccessTokenError {
    #[error("malformed, or signed with an unknown key")]
    Invalid,
    #[error("expired")]
    Expired,
}

/// Signs and verifies access tokens. The first key signs, all of them verify, so that keys rotate without log-outs.
pub struct AccessTokens {
    keys: Vec<(String, EncodingKey, DecodingKey)>,
}

impl AccessTokens {
    #[must_use]
    pub fn new(keys: &[NumberedKey]) -> Self {
        let pair = |numbered: &NumberedKey| {
            let key = derive(&numbered.key, b"whitemonday access token v1");
            (numbered.id.to_string(), EncodingKey::from_secret(&*key), DecodingKey::from_secret(&*key))
        };
        Self { keys: keys.iter().map(pair).collect() }
    }

    /// A token for this session, and when it expires.
    ///
    /// # Errors
    /// Only when no key is configured, which the configuration refuses.
    pub fn sign(&self, viewer: Viewer, now: DateTime<Utc>) -> Result<(SecretString, DateTime<Utc>), AccessTokenError> {
        let (kid, key, _) = self.keys.first().ok_or(AccessTokenError::Invalid)?;
        let expires_at = now + LIFETIME;
        let claims = Claims {
            iss: ISSUER.to_owned(),
            aud: AUDIENCE.to_owned(),
            sub: viewer.customer.0,
            sid: viewer.session.0,
            role: viewer.role.as_str().to_owned(),
            iat: now.timestamp(),
            nbf: now.timestamp(),
            exp: expires_at.timestamp(),
        };
        let header = Header { kid: Some(kid.clone()), ..Header::new(Algorithm::HS256) };
        let token = encode(&header, &claims, key).map_err(|_| AccessTokenError::Invalid)?;
        Ok((token.into(), expires_at))
    }

    /// Who presents the token, and until when it is good. Says nothing about revocation.
    ///
    /// # Errors
    /// When the token is not one of ours, or its time is over.
    pub fn verify(&self, token: &str, now: DateTime<Utc>) -> Result<(Viewer, DateTime<Utc>), AccessTokenError> {
        let invalid = |_| AccessTokenError::Invalid;
        let kid = decode_header(token).map_err(invalid)?.kid.ok_or(AccessTokenError::Invalid)?;
        let (.., key) = self.keys.iter().find(|(id, ..)| *id == kid).ok_or(AccessTokenError::Invalid)?;
        let claims = decode::<Claims>(token, key, &validation()).map_err(invalid)?.claims;
        let expires_at = DateTime::from_timestamp(claims.exp, 0).ok_or(AccessTokenError::Invalid)?;
        let valid_from = DateTime::from_timestamp(claims.nbf, 0).ok_or(AccessTokenError::Invalid)?;
        if now >= expires_at {
            return Err(AccessTokenError::Expired);
        }
        if now + LEEWAY < valid_from {
            return Err(AccessTokenError::Invalid);
        }
        let role: Role = claims.role.parse().map_err(|_| AccessTokenError::Invalid)?;
        let viewer = Viewer { customer: CustomerId(claims.sub), session: SessionId(claims.sid), role };
        Ok((viewer, expires_at))
    }
}

/// The algorithm is pinned; times are compared by us, with the program's clock.
fn validation() -> Validation {
    let mut validation = Validation::new(Algorithm::HS256);
    validation.set_issuer(&[ISSUER]);
    validation.set_audience(&[AUDIENCE]);
    validation.set_required_spec_claims(&["iss", "aud", "sub", "exp", "nbf"]);
    validation.validate_exp = false;
    validation.validate_nbf = false;
    validation
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret;
    use zeroize::Zeroizing;

    use super::*;

    fn tokens(ids: &[u8]) -> AccessTokens {
        let keys: Vec<_> = ids.iter().map(|id| NumberedKey { id: *id, key: Zeroizing::new([*id; 32]) }).collect();
        AccessTokens::new(&keys)
    }

    const fn now() -> DateTime<Utc> {
        DateTime::from_timestamp(1_800_000_000, 0).unwrap()
    }

    fn viewer() -> Viewer {
        Viewer { customer: CustomerId::new(), session: SessionId::new(), role: Role::Staff }
    }

    #[test]
    fn a_token_is_good_for_ten_minutes() {
        let (tokens, viewer) = (tokens(&[1]), viewer());
        let (token, expires_at) = tokens.sign(viewer, now()).unwrap();
        let token = token.expose_secret();
        assert_eq!(tokens.verify(token, now()).unwrap(), (viewer, expires_at));
        assert!(matches!(tokens.verify(token, expires_at), Err(AccessTokenError::Expired)));
        assert!(matches!(tokens.verify(token, now() - TimeDelta::minutes(1)), Err(AccessTokenError::Invalid)));
    }

    #[test]
    fn keys_rotate_without_log_outs() {
        let (token, _) = tokens(&[1]).sign(viewer(), now()).unwrap();
        assert!(tokens(&[2, 1]).verify(token.expose_secret(), now()).is_ok());
        assert!(tokens(&[2]).verify(token.expose_secret(), now()).is_err());
    }

    #[test]
    fn another_algorithm_or_a_changed_token_is_refused() {
        let tokens = tokens(&[1]);
        let (token, _) = tokens.sign(viewer(), now()).unwrap();
        let token = token.expose_secret();
        let (head, rest) = token.split_once('.').unwrap();
        let none = "eyJhbGciOiJub25lIiwia2lkIjoiMSJ9";
        for bad in [String::new(), "a.b.c".into(), head.into(), format!("{none}.{rest}"), format!("{token}x"), token.replace('.', "")] {
            assert!(matches!(tokens.verify(&bad, now()), Err(AccessTokenError::Invalid)), "{bad}");
        }
    }
}
