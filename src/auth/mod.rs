//! Proving who somebody is: passwords, access tokens, secrets in links and refresh tokens.
//!
//! Owns: formats, parameters, checks. Does not own: sessions and customers (services), headers (http).

pub mod access_token;
pub mod password;
pub mod refresh_token;
pub mod revocations;
pub mod secret_token;

use crate::domain::{
    customer::Role,
    ids::{CustomerId, SessionId},
};

/// The signed-in caller, as the access token says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Viewer {
    pub customer: CustomerId,
    pub session: SessionId,
    pub role: Role,
}
