//! Mutations of a customer's own account: password, profile, address.

use async_graphql::{Context, InputObject, MaybeUndefined, Object, Result, SimpleObject};
use zeroize::Zeroizing;

use super::{Customer, Locale, token_invalid};
use crate::{
    auth::secret_token::SecretToken,
    resolvers::{
        context::ContextExt,
        errors::{UserError, UserErrorCode},
    },
    services::{
        account::{
            self, ChangePassword, ConfirmEmailChange, DeleteAccount, PhoneChange, RequestEmailChange, UpdateProfile, UpdatedProfile,
        },
        rate_limit::Limit,
    },
};

#[derive(InputObject)]
pub struct ChangePasswordInput {
    #[graphql(secret)]
    current_password: String,
    /// 10 to 128 characters.
    #[graphql(secret)]
    new_password: String,
}

#[derive(SimpleObject)]
pub struct ChangePasswordPayload {
    /// The password is set, and every other session of the account has ended.
    done: bool,
    user_errors: Vec<UserError>,
}

/// What is left out stays as it is.
#[derive(InputObject)]
pub struct UpdateProfileInput {
    /// 1 to 100 characters.
    #[graphql(secret)]
    name: Option<String>,
    /// Digits, spaces and + ( ) - only; null removes the number.
    #[graphql(secret)]
    phone: MaybeUndefined<String>,
    /// The language of mails.
    locale: Option<Locale>,
}

#[derive(SimpleObject)]
pub struct UpdateProfilePayload {
    /// The account as it is now.
    customer: Option<Customer>,
    user_errors: Vec<UserError>,
}

#[derive(InputObject)]
pub struct RequestEmailChangeInput {
    #[graphql(secret)]
    new_email: String,
    /// The present one.
    #[graphql(secret)]
    password: String,
}

/// The same answer whether or not the new address has an account.
#[derive(SimpleObject)]
pub struct RequestEmailChangePayload {
    /// A mail with a link is on its way to the new address, and a notice to the present one.
    accepted: bool,
    user_errors: Vec<UserError>,
}

#[derive(InputObject)]
pub struct ConfirmEmailChangeInput {
    /// From the link of the mail.
    #[graphql(secret)]
    token: String,
}

#[derive(SimpleObject)]
pub struct ConfirmEmailChangePayload {
    /// The account with its new address, which is verified.
    customer: Option<Customer>,
    user_errors: Vec<UserError>,
}

/// `WRONG_STATE` while an order is on its way, or its money is.
#[derive(InputObject)]
pub struct DeleteAccountInput {
    #[graphql(secret)]
    password: String,
}

#[derive(SimpleObject)]
pub struct DeleteAccountPayload {
    /// The account is gone, and all its sessions have ended.
    done: bool,
    user_errors: Vec<UserError>,
}

#[derive(Default)]
pub struct OwnAccountMutation;

#[Object]
impl OwnAccountMutation {
    /// Sets another password. All other sessions end, this one goes on; a mail tells the owner.
    async fn change_password(&self, ctx: &Context<'_>, input: ChangePasswordInput) -> Result<ChangePasswordPayload> {
        let viewer = ctx.signed_in()?;
        ctx.limit(Limit::Password, viewer.customer)?;
        let (current, new) = (Zeroizing::new(input.current_password), Zeroizing::new(input.new_password));
        let user_error = match account::change_password(ctx.app(), viewer, &current, &new).await? {
            ChangePassword::Done => return Ok(ChangePasswordPayload { done: true, user_errors: Vec::new() }),
            ChangePassword::Invalid(invalid) => invalid.into(),
            ChangePassword::BadCredentials => wrong_password("currentPassword"),
        };
        Ok(ChangePasswordPayload { done: false, user_errors: vec![user_error] })
    }

    /// Changes name, phone number or language.
    async fn update_profile(&self, ctx: &Context<'_>, input: UpdateProfileInput) -> Result<UpdateProfilePayload> {
        let viewer = ctx.signed_in()?;
        let phone = match input.phone {
            MaybeUndefined::Undefined => PhoneChange::Keep,
            MaybeUndefined::Null => PhoneChange::Remove,
            MaybeUndefined::Value(phone) => PhoneChange::Set(phone),
        };
        let wanted = UpdateProfile { name: input.name, phone, locale: input.locale.map(Into::into) };
        Ok(match account::update_profile(ctx.app(), viewer.customer, wanted).await? {
            UpdatedProfile::Done => {
                let customer = ctx.loader().load_one(viewer.customer).await?.map(Customer);
                UpdateProfilePayload { customer, user_errors: Vec::new() }
            }
            UpdatedProfile::Invalid(invalid) => UpdateProfilePayload { customer: None, user_errors: vec![invalid.into()] },
        })
    }

    /// Mails a link to the new address, and a notice to the present one. The account moves with `confirmEmailChange`; a later request
    /// makes earlier links useless.
    async fn request_email_change(&self, ctx: &Context<'_>, input: RequestEmailChangeInput) -> Result<RequestEmailChangePayload> {
        let viewer = ctx.signed_in()?;
        ctx.limit(Limit::Password, viewer.customer)?;
        ctx.limit_email(Limit::Mail, &input.new_email)?;
        let password = Zeroizing::new(input.password);
        let user_error = match account::request_email_change(ctx.app(), viewer, &input.new_email, &password).await? {
            RequestEmailChange::Accepted => return Ok(RequestEmailChangePayload { accepted: true, user_errors: Vec::new() }),
            RequestEmailChange::Invalid(invalid) => invalid.into(),
            RequestEmailChange::BadCredentials => wrong_password("password"),
        };
        Ok(RequestEmailChangePayload { accepted: false, user_errors: vec![user_error] })
    }

    /// Moves the account to the address that the link was mailed to; it works once, for 24 hours, and while no other account has the
    /// address. Links that were mailed to the old address stop working.
    async fn confirm_email_change(&self, ctx: &Context<'_>, input: ConfirmEmailChangeInput) -> Result<ConfirmEmailChangePayload> {
        match account::confirm_email_change(ctx.app(), &SecretToken::received(input.token)).await? {
            ConfirmEmailChange::Done(customer) => {
                let customer = ctx.loader().load_one(customer).await?.map(Customer);
                Ok(ConfirmEmailChangePayload { customer, user_errors: Vec::new() })
            }
            ConfirmEmailChange::TokenInvalid => Ok(ConfirmEmailChangePayload { customer: None, user_errors: vec![token_invalid()] }),
        }
    }

    /// Deletes the account and everything personal in it, for ever; orders stay without name, address and notes. `WRONG_STATE` unless
    /// every order is finished and no money is moving. The e-mail address can be signed up anew.
    async fn delete_account(&self, ctx: &Context<'_>, input: DeleteAccountInput) -> Result<DeleteAccountPayload> {
        let viewer = ctx.signed_in()?;
        ctx.limit(Limit::Password, viewer.customer)?;
        let user_error = match account::delete_account(ctx.app(), viewer, &Zeroizing::new(input.password)).await? {
            DeleteAccount::Done => return Ok(DeleteAccountPayload { done: true, user_errors: Vec::new() }),
            DeleteAccount::BadCredentials => wrong_password("password"),
            DeleteAccount::WrongState => {
                UserError::new(UserErrorCode::WrongState, &[], "An order is not finished, or its money is still moving: try again later.")
            }
        };
        Ok(DeleteAccountPayload { done: false, user_errors: vec![user_error] })
    }
}

fn wrong_password(field: &'static str) -> UserError {
    UserError::new(UserErrorCode::BadCredentials, &[field], "Wrong password.")
}
