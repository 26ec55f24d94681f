//! Sessions that ended while their access tokens still run: kept in memory, so that no request asks the database.
//!
//! Owns: the set, and how old it may be. Filled by services/session.rs: each second from the database, and at once.

use std::{
    collections::HashMap,
    sync::{PoisonError, RwLock},
};

use chrono::{DateTime, TimeDelta, Utc};

use super::access_token;
use crate::domain::ids::SessionId;

/// A process that has not heard from the database for this long no longer knows who has logged out.
const MAX_SILENCE: TimeDelta = TimeDelta::seconds(3);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionState {
    Live,
    Ended,
    /// The list is too old to tell.
    Unknown,
}

#[derive(Default)]
pub struct Revocations(RwLock<Known>);

#[derive(Default)]
struct Known {
    ended: HashMap<SessionId, DateTime<Utc>>,
    heard_at: Option<DateTime<Utc>>,
}

impl Revocations {
    /// Whether the session of a valid token still stands.
    pub fn state(&self, session: SessionId, now: DateTime<Utc>) -> SessionState {
        let known = self.0.read().unwrap_or_else(PoisonError::into_inner);
        if known.ended.contains_key(&session) {
            SessionState::Ended
        } else if known.heard_at.is_some_and(|at| now - at <= MAX_SILENCE) {
            SessionState::Live
        } else {
            SessionState::Unknown
        }
    }

    /// A session has just ended in this process.
    pub fn add(&self, session: SessionId, at: DateTime<Utc>) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).ended.insert(session, at);
    }

    /// Sessions have just ended in this process.
    pub fn add_all(&self, sessions: impl IntoIterator<Item = SessionId>, at: DateTime<Utc>) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).ended.extend(sessions.into_iter().map(|session| (session, at)));
    }

    /// What the database said at `now`; sessions whose last access token has run out are forgotten.
    pub fn refresh(&self, ended: impl IntoIterator<Item = (SessionId, DateTime<Utc>)>, now: DateTime<Utc>) {
        let mut known = self.0.write().unwrap_or_else(PoisonError::into_inner);
        known.ended.extend(ended);
        known.ended.retain(|_, at| now - *at <= access_token::LIFETIME);
        known.heard_at = Some(now);
    }
}
