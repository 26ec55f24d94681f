//! SQL and nothing else: plain functions over a connection, one file per aggregate.
//!
//! Owns: statements, rows, the names of constraints. Does not own: transactions (services open them), rules, sealing.
//! Verbs: `find` → Option, `get` → error when missing, `list` → many, `lock` → FOR UPDATE, `insert`/`update`/`delete`.

pub mod address;
pub mod audit;
pub mod bell;
pub mod cart;
pub mod category;
pub mod circuit_breaker;
pub mod clock;
pub mod customer;
mod database;
pub mod dead_letter;
pub mod flash_sale;
pub mod idempotency;
pub mod import;
pub mod key_rotation;
pub mod lease;
pub mod mail;
pub mod metrics;
pub mod order;
pub mod page_change;
pub mod payment;
pub mod payment_pause;
pub mod product;
pub mod purchase;
pub mod queue;
pub mod reconciliation;
pub mod refund;
pub mod retry;
pub mod rivals;
pub mod sale_notice;
pub mod schema;
pub mod scratch;
pub mod seed;
pub mod session;
pub mod stampede;
pub mod stock;
mod types;
pub mod webhook;
pub mod wishlist;

pub use self::database::{Database, JOB_PATIENCE, REQUEST_PATIENCE, pool};

#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("database: {0}")]
    Database(#[from] sqlx::Error),
    /// A row that must be there is not: a broken reference, never a client's mistake.
    #[error("no {0}")]
    Missing(&'static str),
}

impl StoreError {
    /// The statement broke this constraint.
    #[must_use]
    pub fn violates(&self, constraint: &str) -> bool {
        matches!(self, Self::Database(sqlx::Error::Database(error)) if error.constraint() == Some(constraint))
    }

    /// What a caller makes of a database that has not answered in time: the connection counts as lost.
    #[must_use]
    pub fn silent() -> Self {
        Self::Database(sqlx::Error::Io(std::io::ErrorKind::TimedOut.into()))
    }

    /// The pool had no connection to give within its patience; nothing was done.
    #[must_use]
    pub const fn is_pool_exhausted(&self) -> bool {
        matches!(self, Self::Database(sqlx::Error::PoolTimedOut))
    }

    /// A client's value that the database cannot hold: a text with a null in it, or a time beyond all calendars.
    #[must_use]
    pub fn is_unstorable_value(&self) -> bool {
        const UNSTORABLE: [&str; 2] = ["22008", "22021"];
        let Self::Database(sqlx::Error::Database(error)) = self else { return false };
        error.code().is_some_and(|code| UNSTORABLE.contains(&code.as_ref()))
    }

    /// The connection broke: whether the statement was committed is not known.
    #[must_use]
    pub fn is_connection_lost(&self) -> bool {
        const SHUTDOWN: [&str; 3] = ["57P01", "57P02", "57P03"];
        match self {
            Self::Database(sqlx::Error::Io(_) | sqlx::Error::Protocol(_) | sqlx::Error::WorkerCrashed) => true,
            Self::Database(sqlx::Error::Database(error)) => error.code().is_some_and(|code| SHUTDOWN.contains(&code.as_ref())),
            _ => false,
        }
    }

    /// Nothing was done and the same call may be repeated: deadlock, lock time-out, serialisation.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        const DEADLOCK: &str = "40P01";
        const LOCK_NOT_AVAILABLE: &str = "55P03";
        const SERIALISATION: &str = "40001";
        matches!(self, Self::Database(sqlx::Error::Database(error))
            if matches!(error.code().as_deref(), Some(DEADLOCK | LOCK_NOT_AVAILABLE | SERIALISATION)))
    }
}

/// A statement must have touched exactly one row.
const fn expect_one(rows: u64, what: &'static str) -> Result<(), StoreError> {
    if rows == 1 { Ok(()) } else { Err(StoreError::Missing(what)) }
}

/// The rows of one page and whether there are more on the side that was asked for.
#[derive(Debug)]
pub struct Page<T> {
    pub rows: Vec<T>,
    pub has_more: bool,
}

impl<T> Page<T> {
    /// From one row more than the page holds.
    #[must_use]
    pub fn from_surplus(mut rows: Vec<T>, size: usize) -> Self {
        let has_more = rows.len() > size;
        rows.truncate(size);
        Self { rows, has_more }
    }
}
