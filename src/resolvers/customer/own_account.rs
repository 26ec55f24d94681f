//! Mutations of a signed-in customer's own account.

use async_graphql::{Context, InputObject, MaybeUndefined, Object, Result, SimpleObject};
use zeroize::Zeroizing;

use super::{Customer, Locale};
use crate::{
    resolvers::{
        context::ContextExt,
        errors::{UserError, UserErrorCode},
    },
    services::account::{self, ChangePassword, PhoneChange, UpdateProfile, UpdatedProfile},
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

#[derive(Default)]
pub struct OwnAccountMutation;

#[Object]
impl OwnAccountMutation {
    /// Sets another password. All other sessions end, this one goes on; a mail tells the owner.
    async fn change_password(&self, ctx: &Context<'_>, input: ChangePasswordInput) -> Result<ChangePasswordPayload> {
        let viewer = ctx.signed_in()?;
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
}

fn wrong_password(field: &'static str) -> UserError {
    UserError::new(UserErrorCode::BadCredentials, &[field], "Wrong password.")
}
