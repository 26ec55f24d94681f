//! What customers change of their own account while they are signed in. Called by resolvers/customer/account.rs.

use zeroize::Zeroizing;

use super::{NAME_RULE, PASSWORD_RULE};
use crate::{
    app::App,
    auth::{Viewer, password::Verdict},
    domain::{
        address::{PHONE_RULE, phone_number},
        customer::{Locale, normalise_password, single_line},
        ids::CustomerId,
        opaque_debug,
    },
    sealing::SealedColumn,
    services::{
        InvalidInput, ServiceError,
        mail::{self, Letter},
    },
    store::{
        self,
        customer::{Customer, ProfileChange, TokenPurpose},
    },
};

#[derive(Debug)]
pub enum ChangePassword {
    Done,
    Invalid(InvalidInput),
    BadCredentials,
}

/// Sets another password, ends all other sessions of the customer, and tells the owner by mail. Links that were mailed before to set a
/// password or move the account are void. One transaction; the customer's row is locked.
pub async fn change_password(app: &App, viewer: Viewer, current: &str, new: &str) -> Result<ChangePassword, ServiceError> {
    let Some(new) = normalise_password(new).map(Zeroizing::new) else {
        return Ok(ChangePassword::Invalid(InvalidInput::new(&["newPassword"], PASSWORD_RULE)));
    };
    let Some(known) = check_password(app, viewer.customer, current).await? else {
        return Ok(ChangePassword::BadCredentials);
    };
    let password_hash = app.passwords.hash(new).await?;
    let now = app.clock.now();
    let mut tx = app.db.begin().await?;
    if !lock_unchanged(&mut tx, &known).await? {
        return Ok(ChangePassword::BadCredentials);
    }
    store::customer::update_password_hash(&mut tx, known.id, &password_hash, now).await?;
    store::customer::void_tokens(&mut tx, known.id, &[TokenPurpose::ResetPassword, TokenPurpose::ChangeEmail], now).await?;
    let ended = store::session::update_others_revoked(&mut tx, known.id, viewer.session, now).await?;
    mail::send_to_customer(app, &mut tx, known.id, &Letter::PasswordChanged).await?;
    tx.commit().await?;
    app.revocations.add_all(ended, now);
    app.mail_waiting.notify_one();
    Ok(ChangePassword::Done)
}

/// The customer, if this is the password.
pub(super) async fn check_password(app: &App, customer: CustomerId, password: &str) -> Result<Option<Customer>, ServiceError> {
    let Some(password) = normalise_password(password).map(Zeroizing::new) else { return Ok(None) };
    let Some(customer) = store::customer::list_by_ids(&mut *app.db.acquire().await?, &[customer]).await?.pop() else {
        return Err(ServiceError::NoAccount);
    };
    let verdict = app.passwords.verify(password, Some(customer.password_hash.clone())).await?;
    Ok((verdict == Verdict::Right).then_some(customer))
}

/// Locks the customer whose password was checked; false when it was changed meanwhile.
pub(super) async fn lock_unchanged(db: &mut sqlx::PgConnection, known: &Customer) -> Result<bool, ServiceError> {
    let customer = store::customer::lock(db, known.id).await?.ok_or(ServiceError::NoAccount)?;
    Ok(customer.password_hash == known.password_hash)
}

/// As the client sent it; what is left out stays as it is.
#[derive(Default)]
pub struct UpdateProfile {
    pub name: Option<String>,
    pub phone: PhoneChange,
    pub locale: Option<Locale>,
}

opaque_debug!(UpdateProfile);

#[derive(Default)]
pub enum PhoneChange {
    #[default]
    Keep,
    Remove,
    Set(String),
}

#[derive(Debug)]
pub enum UpdatedProfile {
    Done,
    Invalid(InvalidInput),
}

pub async fn update_profile(app: &App, customer: CustomerId, input: UpdateProfile) -> Result<UpdatedProfile, ServiceError> {
    let name = match input.name.map(|name| single_line(&name, 100)) {
        Some(None) => return Ok(UpdatedProfile::Invalid(InvalidInput::new(&["name"], NAME_RULE))),
        name => name.flatten(),
    };
    let seal = |column, plain: &str| app.sealing.seal(column, customer.0, plain);
    let phone_sealed = match input.phone {
        PhoneChange::Keep => None,
        PhoneChange::Remove => Some(None),
        PhoneChange::Set(blank) if blank.trim().is_empty() => Some(None),
        PhoneChange::Set(typed) => match phone_number(&typed) {
            Some(phone) => Some(Some(seal(SealedColumn::CustomerPhone, &phone)?)),
            None => return Ok(UpdatedProfile::Invalid(InvalidInput::new(&["phone"], PHONE_RULE))),
        },
    };
    let change = ProfileChange {
        name_sealed: name.map(|name| seal(SealedColumn::CustomerName, &name)).transpose()?,
        phone_sealed,
        locale: input.locale,
    };
    if !store::customer::update_profile(&mut *app.db.acquire().await?, customer, &change, app.clock.now()).await? {
        return Err(ServiceError::NoAccount);
    }
    Ok(UpdatedProfile::Done)
}
