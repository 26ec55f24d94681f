//! Use cases: what the program does for its users, once for mutations, jobs and webhooks alike.
//!
//! Owns: transactions (nobody else opens one), the order of locks, outcomes. Does not own: SQL, GraphQL, timing of jobs.
//! A function returns an outcome that the caller can act on; `Err` is for faults only.

pub mod account;
pub mod address;
pub mod audit;
pub mod cart;
pub mod category;
pub mod circuit_breaker;
pub mod clock;
pub mod dead_letter;
pub mod flash_sale;
pub mod idempotency;
pub mod import;
pub mod key_rotation;
pub mod leader;
pub mod mail;
pub mod metrics;
pub mod order;
pub mod order_feed;
pub mod page_cache;
pub mod payment;
pub mod payment_pause;
pub mod product;
pub mod purchase;
pub mod rate_limit;
pub mod reconciliation;
pub mod refund;
pub mod retry;
pub mod sale_feed;
pub mod seed;
pub mod session;
pub mod stock;
pub mod webhook;
pub mod wishlist;

use crate::{
    auth::{access_token::AccessTokenError, password::PasswordError},
    sealing::SealingError,
    store::StoreError,
};

/// A fault: nothing that the caller could have done otherwise.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Sealing(#[from] SealingError),
    #[error(transparent)]
    Password(#[from] PasswordError),
    #[error(transparent)]
    AccessToken(#[from] AccessTokenError),
    #[error("a stored value does not read: {0}")]
    Stored(#[from] serde_json::Error),
    #[error("a letter cannot be written: {0}")]
    Letter(#[from] askama::Error),
    /// The caller's account has been deleted; another process still takes its access token, for a second at most.
    #[error("the account is deleted")]
    NoAccount,
    /// COMMIT was sent and its answer is lost: the same call with the same key tells.
    #[error("whether a purchase was committed is not known")]
    UnknownOutcome,
}

impl ServiceError {
    /// The same again may go well: the database is away, or others held locks.
    #[must_use]
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Store(error) => error.is_transient() || error.is_connection_lost() || error.is_pool_exhausted(),
            Self::UnknownOutcome => true,
            _ => false,
        }
    }
}

impl From<sqlx::Error> for ServiceError {
    fn from(error: sqlx::Error) -> Self {
        Self::Store(error.into())
    }
}

/// A value that breaks a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidInput {
    /// Path below `input`.
    pub field: &'static [&'static str],
    /// For developers, in English.
    pub rule: &'static str,
}

impl InvalidInput {
    #[must_use]
    pub const fn new(field: &'static [&'static str], rule: &'static str) -> Self {
        Self { field, rule }
    }
}
