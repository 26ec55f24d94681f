//! Sessions: log-in, rotation of refresh tokens, log-out.

use chrono::{DateTime, TimeDelta, Utc};
use secrecy::SecretString;
use sqlx::PgConnection;
use zeroize::Zeroizing;

use super::ServiceError;
use crate::{
    app::App,
    auth::{
        Viewer,
        password::{Passwords, Verdict},
        secret_token::SecretToken,
    },
    domain::{
        customer::{EmailAddress, normalise_password},
        ids::{CustomerId, SessionId},
    },
    sealing::SealedColumn,
    store::{self, customer::Customer, session::NewSession},
};

/// Absolute: a session ends then, however often it was refreshed.
pub const SESSION_LIFETIME: TimeDelta = TimeDelta::days(30);
/// Two tabs that refresh at the same moment get the same successor.
const REUSE_GRACE: TimeDelta = TimeDelta::seconds(10);
const USER_AGENT_CHARACTERS: usize = 256;

/// What a client keeps of a session.
#[derive(Clone, Debug)]
pub struct Tokens {
    pub access: SecretString,
    pub access_expires_at: DateTime<Utc>,
    pub refresh: SecretToken,
    pub refresh_expires_at: DateTime<Utc>,
}

#[derive(Debug)]
pub enum LogIn {
    Done {
        customer: CustomerId,
        tokens: Tokens,
    },
    /// Wrong address or wrong password; which one is not told, and takes the same time.
    BadCredentials,
}

/// Opens a session. An unverified address may log in; it may not buy. A hash that was made with the parameters of another time is
/// made anew.
pub async fn log_in(app: &App, email: &str, password: &str, user_agent: Option<&str>) -> Result<LogIn, ServiceError> {
    let (Some(email), Some(password)) = (EmailAddress::parse(email), normalise_password(password).map(Zeroizing::new)) else {
        return Ok(LogIn::BadCredentials);
    };
    let email_index = app.sealing.email_index(&email);
    loop {
        let customer = store::customer::find_by_email_index(&mut *app.db.acquire().await?, &email_index).await?;
        let stored = customer.as_ref().map(|customer| customer.password_hash.clone());
        let verdict = app.passwords.verify(password.clone(), stored).await?;
        let (Some(customer), Verdict::Right) = (customer, verdict) else {
            return Ok(LogIn::BadCredentials);
        };
        let renewed =
            if Passwords::is_outdated(&customer.password_hash) { Some(app.passwords.hash(password.clone()).await?) } else { None };

        let mut tx = app.db.begin().await?;
        let now_stored = store::customer::lock(&mut tx, customer.id).await?;
        // The hash may have been replaced while it was being compared: the new one decides, and whoever changed the password has ended
        // all sessions before this one.
        let Some(customer) = now_stored.filter(|now_stored| now_stored.password_hash == customer.password_hash) else { continue };
        if let Some(hash) = renewed {
            store::customer::update_password_hash(&mut tx, customer.id, &hash, app.clock.now()).await?;
        }
        let tokens = open(app, &mut tx, &customer, user_agent).await?;
        tx.commit().await?;
        return Ok(LogIn::Done { customer: customer.id, tokens });
    }
}

#[derive(Debug)]
pub enum Refresh {
    Done(Tokens),
    /// Unknown, spent, expired, or the session has ended.
    TokenInvalid,
}

/// Rotates a refresh token. The same token again within ten seconds gets the same successor; a spent one later ends the
/// session, because somebody has a copy. One transaction; the session's row is locked.
pub async fn refresh(app: &App, refresh_token: String) -> Result<Refresh, ServiceError> {
    let Some(presented) = app.refresh_tokens.read(refresh_token) else {
        return Ok(Refresh::TokenInvalid);
    };
    let now = app.clock.now();
    let mut tx = app.db.begin().await?;
    let session = store::session::lock(&mut tx, presented.session).await?;
    let Some(session) = session.filter(|session| session.revoked_at.is_none() && session.expires_at > now) else {
        return Ok(Refresh::TokenInvalid);
    };
    let viewer = Viewer { customer: session.customer_id, session: session.id, role: session.role };

    if presented.token.hash() == session.refresh_hash {
        let tokens = tokens(app, viewer, session.generation + 1, session.expires_at)?;
        store::session::update_rotated(&mut tx, session.id, &tokens.refresh.hash(), now).await?;
        tx.commit().await?;
        return Ok(Refresh::Done(tokens));
    }
    if !presented.authentic {
        return Ok(Refresh::TokenInvalid);
    }
    let is_twin = presented.generation + 1 == session.generation && now - session.rotated_at <= REUSE_GRACE;
    if is_twin {
        let tokens = tokens(app, viewer, session.generation, session.expires_at)?;
        let is_successor = tokens.refresh.hash() == session.refresh_hash;
        return Ok(if is_successor { Refresh::Done(tokens) } else { Refresh::TokenInvalid });
    }
    store::session::update_revoked(&mut tx, session.id, now).await?;
    tx.commit().await?;
    app.revocations.add(session.id, now);
    tracing::warn!(session = %session.id, "a spent refresh token was used again: the session has been ended");
    Ok(Refresh::TokenInvalid)
}

/// Ends the caller's session; its access token stops working at once here and within a second elsewhere.
pub async fn log_out(app: &App, viewer: Viewer) -> Result<(), ServiceError> {
    let now = app.clock.now();
    store::session::update_revoked(&mut *app.db.acquire().await?, viewer.session, now).await?;
    app.revocations.add(viewer.session, now);
    Ok(())
}

/// Ends a session of the caller, perhaps the one that asks; false when there is none of theirs that stands.
pub async fn end(app: &App, viewer: Viewer, session: SessionId) -> Result<bool, ServiceError> {
    let now = app.clock.now();
    let ended = store::session::update_revoked_for_customer(&mut *app.db.acquire().await?, session, viewer.customer, now).await?;
    if ended {
        app.revocations.add(session, now);
    }
    Ok(ended)
}

/// Ends all sessions of the caller, the one that asks too.
pub async fn end_all(app: &App, viewer: Viewer) -> Result<(), ServiceError> {
    let now = app.clock.now();
    let ended = store::session::update_all_revoked(&mut *app.db.acquire().await?, viewer.customer, now).await?;
    app.revocations.add_all(ended, now);
    Ok(())
}

/// Reads which sessions have ended, so that their access tokens are refused.
pub async fn follow_revocations(app: &App) -> Result<(), ServiceError> {
    let now = app.clock.now();
    let ended = store::session::list_revoked_since(&mut *app.db.acquire().await?, now - crate::auth::access_token::LIFETIME).await?;
    app.revocations.refresh(ended, now);
    Ok(())
}

/// A session for an operator's use or a load test, without a password; `None` when there is no such customer.
pub async fn open_for(app: &App, customer: CustomerId) -> Result<Option<Tokens>, ServiceError> {
    let mut db = app.db.acquire().await?;
    let Some(customer) = store::customer::list_by_ids(&mut db, &[customer]).await?.pop() else {
        return Ok(None);
    };
    Ok(Some(open(app, &mut db, &customer, Some("whitemonday token")).await?))
}

async fn open(app: &App, db: &mut PgConnection, customer: &Customer, user_agent: Option<&str>) -> Result<Tokens, ServiceError> {
    let now = app.clock.now();
    let viewer = Viewer { customer: customer.id, session: SessionId::new(), role: customer.role };
    let tokens = tokens(app, viewer, 0, now + SESSION_LIFETIME)?;
    let seal = |text: &str| {
        let text: Zeroizing<String> = Zeroizing::new(text.chars().take(USER_AGENT_CHARACTERS).collect());
        app.sealing.seal(SealedColumn::SessionUserAgent, viewer.session.0, &text)
    };
    let session = NewSession {
        id: viewer.session,
        customer: viewer.customer,
        refresh_hash: &tokens.refresh.hash(),
        user_agent_sealed: user_agent.map(seal).transpose()?,
        expires_at: tokens.refresh_expires_at,
    };
    store::session::insert(db, &session, now).await?;
    Ok(tokens)
}

fn tokens(app: &App, viewer: Viewer, generation: i32, refresh_expires_at: DateTime<Utc>) -> Result<Tokens, ServiceError> {
    let (access, access_expires_at) = app.access_tokens.sign(viewer, app.clock.now())?;
    let refresh = app.refresh_tokens.issue(viewer.session, generation);
    Ok(Tokens { access, access_expires_at, refresh, refresh_expires_at })
}
