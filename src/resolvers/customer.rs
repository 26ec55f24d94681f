//! The customer, and the mutations of an account.

mod own_account;

use async_graphql::{Context, Enum, ID, InputObject, Object, Result, SimpleObject};
use zeroize::Zeroizing;

use super::{
    address::Address,
    cart::{self, Cart},
    connection::page_cost,
    context::ContextExt,
    errors::{UserError, UserErrorCode},
    loaders::AddressesOf,
    order::list::{self, OrderConnection, OrderFilter},
    scalars::DateTime,
    session::{self, Session},
    wishlist::{self, WishlistConnection},
};
use crate::{
    auth::secret_token::SecretToken,
    domain::{self, ids::CustomerId},
    sealing::SealedColumn,
    services::{
        account::{self, Request, ResetPassword, SignUp, VerifyEmail},
        rate_limit::Limit,
    },
    store,
};

pub use self::own_account::OwnAccountMutation;

pub struct Customer(pub store::customer::Customer);

/// An account. Its owner sees it, and staff.
#[Object]
impl Customer {
    pub(super) async fn id(&self) -> ID {
        self.0.id.to_string().into()
    }

    async fn email(&self, ctx: &Context<'_>) -> Result<String> {
        self.open(ctx, SealedColumn::CustomerEmail, &self.0.email_sealed)
    }

    /// Buying needs a verified address.
    async fn email_verified(&self) -> bool {
        self.0.email_verified_at.is_some()
    }

    async fn role(&self) -> Role {
        self.0.role.into()
    }

    /// The language of mails.
    async fn locale(&self) -> Locale {
        self.0.locale.into()
    }

    async fn name(&self, ctx: &Context<'_>) -> Result<String> {
        self.open(ctx, SealedColumn::CustomerName, &self.0.name_sealed)
    }

    async fn phone(&self, ctx: &Context<'_>) -> Result<Option<String>> {
        self.0.phone_sealed.as_ref().map(|sealed| self.open(ctx, SealedColumn::CustomerPhone, sealed)).transpose()
    }

    /// The address book, oldest first.
    async fn addresses(&self, ctx: &Context<'_>) -> Result<Vec<Address>> {
        let addresses = ctx.loader().load_one(AddressesOf(self.0.id)).await?.unwrap_or_default();
        Ok(addresses.into_iter().map(Address).collect())
    }

    /// For its owner alone; nobody else sees a line in it.
    async fn cart(&self, ctx: &Context<'_>) -> Result<Cart> {
        cart::of(ctx, self.0.id).await
    }

    /// What the customer would like to have, newest first. For its owner alone; null for anybody else.
    #[graphql(complexity = "page_cost(first, child_complexity)")]
    async fn wishlist(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "1 to 100; 20 when left out.")] first: Option<i32>,
        after: Option<String>,
    ) -> Result<Option<WishlistConnection>> {
        wishlist::page(ctx, self.0.id, first, after).await
    }

    /// The orders, newest first.
    #[graphql(complexity = "page_cost(first, child_complexity)")]
    async fn orders(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "1 to 100; 20 when left out.")] first: Option<i32>,
        after: Option<String>,
        filter: Option<OrderFilter>,
    ) -> Result<Option<OrderConnection>> {
        Ok(Some(list::page(ctx, Some(self.0.id), first, after, filter).await?))
    }

    /// Where the account is signed in, last used first: at most 100. For its owner alone; nobody else sees any.
    async fn sessions(&self, ctx: &Context<'_>) -> Result<Vec<Session>> {
        if ctx.viewer().is_none_or(|viewer| viewer.customer != self.0.id) {
            return Ok(Vec::new());
        }
        session::list(ctx, self.0.id).await
    }

    async fn created_at(&self) -> DateTime {
        self.0.created_at.into()
    }
}

impl Customer {
    fn open(&self, ctx: &Context<'_>, column: SealedColumn, sealed: &[u8]) -> Result<String> {
        ctx.open(column, self.0.id.0, sealed)
    }
}

/// What an account may do.
#[derive(Enum, Clone, Copy, PartialEq, Eq)]
#[graphql(remote = "domain::customer::Role")]
pub enum Role {
    Customer,
    /// Sees and handles every order.
    Staff,
    Admin,
}

/// A language.
#[derive(Enum, Clone, Copy, PartialEq, Eq)]
#[graphql(remote = "domain::customer::Locale")]
pub enum Locale {
    Ko,
    En,
}

/// The customer of a global id: the caller, or anybody for staff.
pub async fn find(ctx: &Context<'_>, id: &str) -> Result<Option<Customer>> {
    let may_see = |id: &CustomerId| ctx.is_staff() || ctx.viewer().is_some_and(|viewer| viewer.customer == *id);
    match CustomerId::parse(id).filter(may_see) {
        Some(id) => Ok(ctx.loader().load_one(id).await?.map(Customer)),
        None => Ok(None),
    }
}

#[derive(Default)]
pub struct CustomerQuery;

#[Object]
impl CustomerQuery {
    /// The signed-in customer; null when nobody is signed in.
    async fn viewer(&self, ctx: &Context<'_>) -> Result<Option<Customer>> {
        match ctx.viewer() {
            Some(viewer) => Ok(ctx.loader().load_one(viewer.customer).await?.map(Customer)),
            None => Ok(None),
        }
    }
}

#[derive(InputObject)]
pub struct SignUpInput {
    #[graphql(secret)]
    email: String,
    /// 10 to 128 characters.
    #[graphql(secret)]
    password: String,
    /// 1 to 100 characters.
    #[graphql(secret)]
    name: String,
    /// Digits, spaces and + ( ) - only.
    #[graphql(secret)]
    phone: Option<String>,
    /// The language of mails; EN when left out.
    locale: Option<Locale>,
}

/// The same answer whether or not the address is known.
#[derive(SimpleObject)]
pub struct SignUpPayload {
    /// A mail with a link to confirm the address is on its way.
    accepted: bool,
    user_errors: Vec<UserError>,
}

#[derive(InputObject)]
pub struct ResendVerificationEmailInput {
    #[graphql(secret)]
    email: String,
}

/// The same answer whether or not the address is known.
#[derive(SimpleObject)]
pub struct ResendVerificationEmailPayload {
    accepted: bool,
    user_errors: Vec<UserError>,
}

#[derive(InputObject)]
pub struct VerifyEmailInput {
    /// From the link of the mail.
    #[graphql(secret)]
    token: String,
}

#[derive(SimpleObject)]
pub struct VerifyEmailPayload {
    /// Whose address is verified now.
    customer: Option<Customer>,
    user_errors: Vec<UserError>,
}

#[derive(InputObject)]
pub struct RequestPasswordResetInput {
    #[graphql(secret)]
    email: String,
}

/// The same answer whether or not the address is known.
#[derive(SimpleObject)]
pub struct RequestPasswordResetPayload {
    accepted: bool,
    user_errors: Vec<UserError>,
}

#[derive(InputObject)]
pub struct ResetPasswordInput {
    /// From the link of the mail.
    #[graphql(secret)]
    token: String,
    /// 10 to 128 characters.
    #[graphql(secret)]
    new_password: String,
}

#[derive(SimpleObject)]
pub struct ResetPasswordPayload {
    /// The password is set, and every session of the account has ended.
    done: bool,
    user_errors: Vec<UserError>,
}

#[derive(Default)]
pub struct CustomerMutation;

#[Object]
impl CustomerMutation {
    /// Makes an account and mails a link to confirm the address. The answer is the same when the address has an account
    /// already.
    async fn sign_up(&self, ctx: &Context<'_>, input: SignUpInput) -> Result<SignUpPayload> {
        ctx.limit_email(Limit::SignUp, &input.email)?;
        let wanted = SignUp {
            email: input.email,
            password: input.password,
            name: input.name,
            phone: input.phone,
            locale: input.locale.map(Into::into),
        };
        let (accepted, user_errors) = split(account::sign_up(ctx.app(), wanted).await?);
        Ok(SignUpPayload { accepted, user_errors })
    }

    /// Mails the confirmation link again; earlier links stop working.
    async fn resend_verification_email(
        &self,
        ctx: &Context<'_>,
        input: ResendVerificationEmailInput,
    ) -> Result<ResendVerificationEmailPayload> {
        ctx.limit_email(Limit::Mail, &input.email)?;
        let (accepted, user_errors) = split(account::resend_verification(ctx.app(), &input.email).await?);
        Ok(ResendVerificationEmailPayload { accepted, user_errors })
    }

    /// Confirms the address with the token of the mail's link; it works once, for 24 hours.
    async fn verify_email(&self, ctx: &Context<'_>, input: VerifyEmailInput) -> Result<VerifyEmailPayload> {
        match account::verify_email(ctx.app(), &SecretToken::received(input.token)).await? {
            VerifyEmail::Verified(customer) => {
                let customer = ctx.loader().load_one(customer).await?.map(Customer);
                Ok(VerifyEmailPayload { customer, user_errors: Vec::new() })
            }
            VerifyEmail::TokenInvalid => Ok(VerifyEmailPayload { customer: None, user_errors: vec![token_invalid()] }),
        }
    }

    /// Mails a link to set a new password.
    async fn request_password_reset(&self, ctx: &Context<'_>, input: RequestPasswordResetInput) -> Result<RequestPasswordResetPayload> {
        ctx.limit_email(Limit::Mail, &input.email)?;
        let (accepted, user_errors) = split(account::request_password_reset(ctx.app(), &input.email).await?);
        Ok(RequestPasswordResetPayload { accepted, user_errors })
    }

    /// Sets a new password with the token of the mail's link; it works once, for 30 minutes. All sessions end.
    async fn reset_password(&self, ctx: &Context<'_>, input: ResetPasswordInput) -> Result<ResetPasswordPayload> {
        let new_password = Zeroizing::new(input.new_password);
        let user_error = match account::reset_password(ctx.app(), &SecretToken::received(input.token), &new_password).await? {
            ResetPassword::Done => return Ok(ResetPasswordPayload { done: true, user_errors: Vec::new() }),
            ResetPassword::Invalid(invalid) => invalid.into(),
            ResetPassword::TokenInvalid => token_invalid(),
        };
        Ok(ResetPasswordPayload { done: false, user_errors: vec![user_error] })
    }
}

fn split(request: Request) -> (bool, Vec<UserError>) {
    match request {
        Request::Accepted => (true, Vec::new()),
        Request::Invalid(invalid) => (false, vec![invalid.into()]),
    }
}

fn token_invalid() -> UserError {
    UserError::new(UserErrorCode::TokenInvalid, &["token"], "Unknown, used or expired: ask for a new link.")
}
