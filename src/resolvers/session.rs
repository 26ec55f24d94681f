//! Sessions: log-in, refresh, log-out here and elsewhere.

use async_graphql::{Context, ID, InputObject, Object, Result, SimpleObject};
use secrecy::ExposeSecret;
use zeroize::Zeroizing;

use super::{
    context::ContextExt,
    customer::Customer,
    errors::{UserError, UserErrorCode},
    loaders::SessionsOf,
    scalars::DateTime,
};
use crate::{
    domain::ids::{CustomerId, SessionId},
    sealing::SealedColumn,
    services::{
        rate_limit::Limit,
        session::{self, LogIn, Refresh, Tokens},
    },
    store,
};

/// Send the access token as `Authorization: Bearer …`, over a WebSocket in `connection_init`. Keep the refresh token where
/// only your app can read it.
#[derive(SimpleObject)]
pub struct SessionTokens {
    access_token: String,
    access_token_expires_at: DateTime,
    /// Works once: `refreshSession` answers the next one.
    refresh_token: String,
    refresh_token_expires_at: DateTime,
}

impl From<Tokens> for SessionTokens {
    fn from(tokens: Tokens) -> Self {
        Self {
            access_token: tokens.access.expose_secret().to_owned(),
            access_token_expires_at: tokens.access_expires_at.into(),
            refresh_token: tokens.refresh.expose().to_owned(),
            refresh_token_expires_at: tokens.refresh_expires_at.into(),
        }
    }
}

pub struct Session(store::session::OpenSession);

/// A place where the account is signed in: one log-in on one device or browser. Only its owner sees it.
#[Object]
impl Session {
    pub(super) async fn id(&self) -> ID {
        self.0.id.to_string().into()
    }

    /// When somebody logged in there.
    async fn created_at(&self) -> DateTime {
        self.0.created_at.into()
    }

    /// When it last asked for new tokens; while it is in use, at most ten minutes ago.
    async fn last_used_at(&self) -> DateTime {
        self.0.last_used_at.into()
    }

    /// When it ends, however often it is used.
    async fn expires_at(&self) -> DateTime {
        self.0.expires_at.into()
    }

    /// The browser or app as it named itself at the log-in.
    async fn user_agent(&self, ctx: &Context<'_>) -> Result<Option<String>> {
        let open = |sealed: &Vec<u8>| ctx.open(SealedColumn::SessionUserAgent, self.0.id.0, sealed);
        self.0.user_agent_sealed.as_ref().map(open).transpose()
    }

    /// The session that asks.
    async fn current(&self, ctx: &Context<'_>) -> bool {
        ctx.viewer().is_some_and(|viewer| viewer.session == self.0.id)
    }
}

/// The sessions of a customer that stand.
pub async fn list(ctx: &Context<'_>, customer: CustomerId) -> Result<Vec<Session>> {
    let sessions = ctx.loader().load_one(SessionsOf(customer)).await?.unwrap_or_default();
    Ok(sessions.into_iter().map(Session).collect())
}

/// The caller's session of a global id.
pub async fn find(ctx: &Context<'_>, id: &str) -> Result<Option<Session>> {
    let (Some(id), Some(viewer)) = (SessionId::parse(id), ctx.viewer()) else { return Ok(None) };
    Ok(list(ctx, viewer.customer).await?.into_iter().find(|session| session.0.id == id))
}

#[derive(InputObject)]
pub struct LogInInput {
    #[graphql(secret)]
    email: String,
    #[graphql(secret)]
    password: String,
}

#[derive(SimpleObject)]
pub struct LogInPayload {
    tokens: Option<SessionTokens>,
    customer: Option<Customer>,
    user_errors: Vec<UserError>,
}

#[derive(InputObject)]
pub struct RefreshSessionInput {
    #[graphql(secret)]
    refresh_token: String,
}

#[derive(SimpleObject)]
pub struct RefreshSessionPayload {
    tokens: Option<SessionTokens>,
    user_errors: Vec<UserError>,
}

#[derive(InputObject)]
pub struct EndSessionInput {
    /// One of `Customer.sessions`.
    session_id: ID,
}

#[derive(SimpleObject)]
pub struct LogOutPayload {
    /// False when there was nothing to end: no such session, not yours, or over already.
    done: bool,
}

#[derive(Default)]
pub struct SessionMutation;

#[Object]
impl SessionMutation {
    /// Opens a session of at most 30 days.
    async fn log_in(&self, ctx: &Context<'_>, input: LogInInput) -> Result<LogInPayload> {
        ctx.limit_email(Limit::Password, &input.email)?;
        let password = Zeroizing::new(input.password);
        match session::log_in(ctx.app(), &input.email, &password, ctx.caller().user_agent.as_deref()).await? {
            LogIn::Done { customer, tokens } => Ok(LogInPayload {
                tokens: Some(tokens.into()),
                customer: ctx.loader().load_one(customer).await?.map(Customer),
                user_errors: Vec::new(),
            }),
            LogIn::BadCredentials => {
                // An anonymous try has been counted already.
                if let (Some(_), Some(address)) = (ctx.viewer(), ctx.caller().address) {
                    ctx.limit(Limit::Address, address)?;
                }
                let error = UserError::new(UserErrorCode::BadCredentials, &[], "Wrong e-mail address or wrong password.");
                Ok(LogInPayload { tokens: None, customer: None, user_errors: vec![error] })
            }
        }
    }

    /// Exchanges a refresh token for new tokens. Each works once; using a spent one again ends the session.
    async fn refresh_session(&self, ctx: &Context<'_>, input: RefreshSessionInput) -> Result<RefreshSessionPayload> {
        match session::refresh(ctx.app(), input.refresh_token).await? {
            Refresh::Done(tokens) => Ok(RefreshSessionPayload { tokens: Some(tokens.into()), user_errors: Vec::new() }),
            Refresh::TokenInvalid => {
                let error = UserError::new(UserErrorCode::TokenInvalid, &["refreshToken"], "Unknown, used or expired: log in again.");
                Ok(RefreshSessionPayload { tokens: None, user_errors: vec![error] })
            }
        }
    }

    /// Ends the session at once: its access token stops working too.
    async fn log_out(&self, ctx: &Context<'_>) -> Result<LogOutPayload> {
        session::log_out(ctx.app(), ctx.signed_in()?).await?;
        Ok(LogOutPayload { done: true })
    }
    /// Ends all sessions of the account at once, this one too.
    async fn log_out_everywhere(&self, ctx: &Context<'_>) -> Result<LogOutPayload> {
        session::end_all(ctx.app(), ctx.signed_in()?).await?;
        Ok(LogOutPayload { done: true })
    }

    /// Ends one session of the account at once, on a device that is lost, say.
    async fn end_session(&self, ctx: &Context<'_>, input: EndSessionInput) -> Result<LogOutPayload> {
        let viewer = ctx.signed_in()?;
        let done = match SessionId::parse(&input.session_id) {
            Some(id) => session::end(ctx.app(), viewer, id).await?,
            None => false,
        };
        Ok(LogOutPayload { done })
    }
}
