//! Who sends a request: the access token of its `Authorization`.

use chrono::{DateTime, Utc};

use crate::{
    app::App,
    auth::{Viewer, revocations::SessionState},
    resolvers::errors::ApiError,
};

/// A caller, and until when the token is good.
pub type Authenticated = (Viewer, DateTime<Utc>);

/// The caller of an `Authorization` value: `None` without one. A bad token is an error, never an anonymous caller.
///
/// # Errors
/// UNAUTHENTICATED for a bad, expired or revoked token; UNAVAILABLE while this process does not know who has logged out.
pub fn authenticate(app: &App, authorization: Option<&str>) -> Result<Option<Authenticated>, ApiError> {
    let Some(authorization) = authorization else { return Ok(None) };
    let token = authorization.strip_prefix("Bearer ").or_else(|| authorization.strip_prefix("bearer "));
    let token = token.ok_or(ApiError::Unauthenticated)?.trim();
    let now = app.clock.now();
    let (viewer, expires_at) = app.access_tokens.verify(token, now).map_err(|_| ApiError::Unauthenticated)?;
    match app.revocations.state(viewer.session, now) {
        SessionState::Live => Ok(Some((viewer, expires_at))),
        SessionState::Ended => Err(ApiError::Unauthenticated),
        SessionState::Unknown => Err(ApiError::Unavailable("The server cannot check sessions just now: try again in a moment.")),
    }
}
