//! Errors as clients see them: user errors in payloads, everything else as a top-level error with a code.
//!
//! Internal text stays here: it goes to the log, once, and a client gets the code and the request's id.

use std::time::Duration;

use async_graphql::{Enum, Error, ErrorExtensionValues, ErrorExtensions, ServerError, SimpleObject};

use crate::{
    auth::password::PasswordError,
    services::{InvalidInput, ServiceError},
    store::StoreError,
};

/// A top-level error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ApiError {
    Unauthenticated,
    /// Signed in, and not allowed to.
    Forbidden,
    /// A value that the schema allows and the server does not.
    BadRequest(&'static str),
    TooComplex,
    /// Too many requests of one caller.
    RateLimited {
        retry_after: Duration,
    },
    /// The request took longer than the server lets it.
    Timeout,
    /// Overloaded, or a dependency is away: try again.
    Unavailable(&'static str),
    Internal,
}

impl ApiError {
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::Unauthenticated => "UNAUTHENTICATED",
            Self::Forbidden => "FORBIDDEN",
            Self::BadRequest(_) => "BAD_REQUEST",
            Self::TooComplex => "TOO_COMPLEX",
            Self::RateLimited { .. } => "RATE_LIMITED",
            Self::Timeout => "TIMEOUT",
            Self::Unavailable(_) => "UNAVAILABLE",
            Self::Internal => "INTERNAL",
        }
    }

    #[must_use]
    pub const fn message(self) -> &'static str {
        match self {
            Self::Unauthenticated => "Sign in: this needs a valid access token.",
            Self::Forbidden => "This is for staff.",
            Self::BadRequest(message) | Self::Unavailable(message) => message,
            Self::TooComplex => "The operation asks for too much at once.",
            Self::RateLimited { .. } => "Too many tries: wait for retryAfterMs.",
            Self::Timeout => "It took too long. Repeat a mutation only with the same idempotency key.",
            Self::Internal => "Something went wrong on our side. Repeat a mutation only with the same idempotency key.",
        }
    }
}

impl ApiError {
    fn extend(self, extensions: &mut ErrorExtensionValues) {
        extensions.set("code", self.code());
        if let Self::RateLimited { retry_after } = self {
            extensions.set("retryAfterMs", u64::try_from(retry_after.as_millis()).unwrap_or(u64::MAX));
        }
    }

    /// The error of a whole operation, in other words.
    #[must_use]
    pub fn with_message(self, message: String) -> ServerError {
        let mut error = ServerError::new(message, None);
        self.extend(error.extensions.get_or_insert_default());
        error
    }
}

impl From<ApiError> for ServerError {
    fn from(error: ApiError) -> Self {
        error.with_message(error.message().to_owned())
    }
}

impl From<ApiError> for Error {
    fn from(error: ApiError) -> Self {
        Self::new(error.message()).extend_with(|_, extensions| error.extend(extensions))
    }
}

impl From<&ServiceError> for ApiError {
    fn from(error: &ServiceError) -> Self {
        match error {
            ServiceError::Password(PasswordError::Overloaded) => Self::Unavailable("Too many log-ins at once: try again in a moment."),
            ServiceError::Store(error) => error.into(),
            ServiceError::NoAccount => Self::Unauthenticated,
            _ => Self::Internal,
        }
    }
}

impl From<&StoreError> for ApiError {
    fn from(error: &StoreError) -> Self {
        if error.is_pool_exhausted() {
            Self::Unavailable("The server is busy: try again in a moment.")
        } else if error.is_unstorable_value() {
            Self::BadRequest("A text with a null character in it, or a time beyond all calendars.")
        } else {
            Self::Internal
        }
    }
}

impl From<ServiceError> for Error {
    fn from(error: ServiceError) -> Self {
        tracing::error!(%error, "a request failed");
        ApiError::from(&error).into()
    }
}

impl From<StoreError> for Error {
    fn from(error: StoreError) -> Self {
        ServiceError::from(error).into()
    }
}

/// What kind of mistake a user error is; clients translate by it.
#[derive(Enum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum UserErrorCode {
    /// A value breaks a rule; `field` says which.
    Invalid,
    /// No such thing, or not the caller's.
    NotFound,
    /// Confirm the e-mail address first: the mail of `signUp` has the link.
    EmailNotVerified,
    /// Wrong e-mail address or wrong password; which one is not told.
    BadCredentials,
    /// Unknown, used, or expired.
    TokenInvalid,
    /// Fewer pieces are left than were asked for.
    OutOfStock,
    /// A limit per customer is reached.
    LimitReached,
    /// The sale is not open.
    SaleNotOpen,
    /// There is nothing to check out.
    CartEmpty,
    /// Price or stock moved since the client looked.
    CartChanged,
    /// The state machine forbids it now.
    WrongState,
    /// A compare-and-set lost: read again.
    Stale,
    /// The key was used for another request: make a new one for a new request.
    IdempotencyKeyReused,
}

/// What the caller can mend. Faults, missing rights and limits are top-level GraphQL errors with `extensions.code`.
#[derive(SimpleObject, Clone, Debug)]
pub struct UserError {
    pub code: UserErrorCode,
    /// In English, for developers; show your own text by `code`.
    pub message: String,
    /// The path below `input`, as `["address", "city"]`.
    pub field: Option<Vec<String>>,
}

impl UserError {
    pub fn new(code: UserErrorCode, field: &[&str], message: impl Into<String>) -> Self {
        let field = (!field.is_empty()).then(|| field.iter().map(|&name| name.to_owned()).collect());
        Self { code, message: message.into(), field }
    }
}

impl From<InvalidInput> for UserError {
    fn from(invalid: InvalidInput) -> Self {
        Self::new(UserErrorCode::Invalid, invalid.field, invalid.rule)
    }
}
