//! Log-in, refresh, log-out.

use async_graphql::{Context, InputObject, Object, Result, SimpleObject};
use secrecy::ExposeSecret;
use zeroize::Zeroizing;

use super::{
    context::ContextExt,
    customer::Customer,
    errors::{UserError, UserErrorCode},
    scalars::DateTime,
};
use crate::services::{
    rate_limit::Limit,
    session::{self, LogIn, Refresh, Tokens},
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

#[derive(SimpleObject)]
pub struct LogOutPayload {
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
}
