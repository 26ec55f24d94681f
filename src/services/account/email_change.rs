//! Moving an account to another e-mail address. Called by `resolvers/customer/own_account.rs`.

use super::{EMAIL_RULE, Recipient, profile, send_link, use_token};
use crate::{
    app::App,
    auth::{Viewer, secret_token::SecretToken},
    domain::{customer::EmailAddress, ids::CustomerId},
    sealing::SealedColumn,
    services::{
        InvalidInput, ServiceError,
        mail::{self, Letter},
    },
    store::{self, StoreError, customer::TokenPurpose},
};

const OTHER_RULE: &str = "Another address than the present one.";

#[derive(Debug)]
pub enum RequestEmailChange {
    /// Mails are on their way.
    Accepted,
    Invalid(InvalidInput),
    BadCredentials,
}

/// Mails a link to the new address and a notice to the present one; earlier links are void. When the new address has an account
/// already, its owner is told and gets no link: the caller cannot tell the difference. One transaction; the customer's row is locked.
pub async fn request_email_change(app: &App, viewer: Viewer, new_email: &str, password: &str) -> Result<RequestEmailChange, ServiceError> {
    let Some(new_email) = EmailAddress::parse(new_email) else {
        return Ok(RequestEmailChange::Invalid(InvalidInput::new(&["newEmail"], EMAIL_RULE)));
    };
    let Some(known) = profile::check_password(app, viewer.customer, password).await? else {
        return Ok(RequestEmailChange::BadCredentials);
    };
    let mut tx = app.db.begin().await?;
    if !profile::lock_unchanged(&mut tx, &known).await? {
        return Ok(RequestEmailChange::BadCredentials);
    }
    match store::customer::find_by_email_index(&mut tx, &app.sealing.email_index(&new_email)).await? {
        Some(same) if same.id == known.id => {
            return Ok(RequestEmailChange::Invalid(InvalidInput::new(&["newEmail"], OTHER_RULE)));
        }
        Some(other) => {
            store::customer::void_tokens(&mut tx, known.id, &[TokenPurpose::ChangeEmail], app.clock.now()).await?;
            let owner = Recipient { id: other.id, email: new_email.as_str(), locale: other.locale };
            mail::send(app, &mut tx, &owner, &Letter::AlreadyRegistered).await?;
        }
        None => {
            let recipient = Recipient { id: known.id, email: new_email.as_str(), locale: known.locale };
            send_link(app, &mut tx, &recipient, TokenPurpose::ChangeEmail).await?;
        }
    }
    mail::send_to_customer(app, &mut tx, known.id, &Letter::EmailChangeRequested).await?;
    tx.commit().await?;
    app.mail_waiting.notify_one();
    Ok(RequestEmailChange::Accepted)
}

#[derive(Debug)]
pub enum ConfirmEmailChange {
    Done(CustomerId),
    /// Unknown, used or expired; or the address has been given to another account meanwhile.
    TokenInvalid,
}

/// Uses the token of a link up and moves the account to the address that the link was mailed to, which is verified by that. Whatever
/// else was mailed to the old address is void. One transaction; the customer's row is locked.
pub async fn confirm_email_change(app: &App, token: &SecretToken) -> Result<ConfirmEmailChange, ServiceError> {
    let now = app.clock.now();
    let mut tx = app.db.begin().await?;
    let Some((customer, token)) = use_token(&mut tx, TokenPurpose::ChangeEmail, token, now).await? else {
        return Ok(ConfirmEmailChange::TokenInvalid);
    };
    let sealed = token.new_email_sealed.ok_or(StoreError::Missing("new address of a token"))?;
    let opened = app.sealing.open(SealedColumn::NewEmail, token.id.0, &sealed)?;
    let new_email = EmailAddress::parse(&opened).ok_or(StoreError::Missing("address in a token"))?;
    let email_sealed = app.sealing.seal(SealedColumn::CustomerEmail, customer.id.0, new_email.as_str())?;
    if !store::customer::update_email(&mut tx, customer.id, &email_sealed, &app.sealing.email_index(&new_email), now).await? {
        return Ok(ConfirmEmailChange::TokenInvalid);
    }
    store::customer::void_tokens(&mut tx, customer.id, &TokenPurpose::ALL, now).await?;
    tx.commit().await?;
    Ok(ConfirmEmailChange::Done(customer.id))
}
