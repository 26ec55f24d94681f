//! Accounts: sign-up, the links in mails, passwords. Answers never tell whether an address is known.

mod deletion;
mod email_change;
mod profile;

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use sqlx::PgConnection;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

pub use self::{
    deletion::{DeleteAccount, delete_account},
    email_change::{ConfirmEmailChange, RequestEmailChange, confirm_email_change, request_email_change},
    profile::{ChangePassword, PhoneChange, UpdateProfile, UpdatedProfile, change_password, update_profile},
};
use super::{InvalidInput, ServiceError, mail};
use crate::{
    app::App,
    auth::secret_token::SecretToken,
    domain::{
        address::{PHONE_RULE, phone_number},
        customer::{EmailAddress, Locale, Role, normalise_password, single_line},
        ids::{CustomerId, OneTimeTokenId},
        opaque_debug,
    },
    sealing::SealedColumn,
    store::{
        self,
        customer::{Customer, NewCustomer, NewOneTimeToken, Replacement, TokenPurpose, UsedToken},
    },
};

const VERIFY_LIFETIME: TimeDelta = TimeDelta::hours(24);
const RESET_LIFETIME: TimeDelta = TimeDelta::minutes(30);
const CHANGE_LIFETIME: TimeDelta = TimeDelta::hours(24);
/// What asks about an address takes no less, whether or not there is an account to write to: a mail that is written takes some
/// milliseconds, a sign-up's hash a few dozen.
const EVEN_TIME: Duration = Duration::from_millis(100);

const EMAIL_RULE: &str = "An e-mail address like name@example.com.";
const PASSWORD_RULE: &str = "10 to 128 characters.";
const NAME_RULE: &str = "1 to 100 characters.";

/// As the client sent it.
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct SignUp {
    pub email: String,
    pub password: String,
    pub name: String,
    pub phone: Option<String>,
    #[zeroize(skip)]
    pub locale: Option<Locale>,
}

opaque_debug!(SignUp);

/// What became of a request whose answer is the same for known and unknown addresses.
#[derive(Debug, PartialEq, Eq)]
pub enum Request {
    /// A mail is on its way if there is a reason for one.
    Accepted,
    Invalid(InvalidInput),
}

/// Makes an account whose address is yet to be verified, and mails the link. For an address that is known: an unverified
/// account gets the new name and password and a new link, a verified one a mail that says so. One transaction; the
/// customer's row is locked.
pub async fn sign_up(app: &App, input: SignUp) -> Result<Request, ServiceError> {
    in_even_time(make_account(app, input)).await
}

async fn make_account(app: &App, input: SignUp) -> Result<Request, ServiceError> {
    let Some(email) = EmailAddress::parse(&input.email) else {
        return Ok(Request::Invalid(InvalidInput::new(&["email"], EMAIL_RULE)));
    };
    let Some(password) = normalise_password(&input.password).map(Zeroizing::new) else {
        return Ok(Request::Invalid(InvalidInput::new(&["password"], PASSWORD_RULE)));
    };
    let Some(name) = single_line(&input.name, 100).map(Zeroizing::new) else {
        return Ok(Request::Invalid(InvalidInput::new(&["name"], NAME_RULE)));
    };
    let typed_phone = input.phone.as_deref().filter(|phone| !phone.trim().is_empty());
    let phone = typed_phone.and_then(phone_number).map(Zeroizing::new);
    if typed_phone.is_some() && phone.is_none() {
        return Ok(Request::Invalid(InvalidInput::new(&["phone"], PHONE_RULE)));
    }

    let password_hash = app.passwords.hash(password).await?;
    let now = app.clock.now();
    let locale = input.locale.unwrap_or(Locale::En);
    let seal_phone = |id: CustomerId| phone.as_ref().map(|phone| app.sealing.seal(SealedColumn::CustomerPhone, id.0, phone)).transpose();
    let id = CustomerId::new();
    let new = NewCustomer {
        id,
        email_sealed: app.sealing.seal(SealedColumn::CustomerEmail, id.0, email.as_str())?,
        email_index: app.sealing.email_index(&email),
        name_sealed: app.sealing.seal(SealedColumn::CustomerName, id.0, &name)?,
        phone_sealed: seal_phone(id)?,
        password_hash,
        role: Role::Customer,
        locale,
    };

    let mut tx = app.db.begin().await?;
    loop {
        if store::customer::insert(&mut tx, &new, now).await? {
            send_link(app, &mut tx, &Recipient { id, email: email.as_str(), locale }, TokenPurpose::VerifyEmail).await?;
            break;
        }
        // Given up since: its account has been deleted or has moved.
        let Some(known) = store::customer::lock_by_email_index(&mut tx, &new.email_index).await? else { continue };
        if known.email_verified_at.is_some() {
            let recipient = Recipient { id: known.id, email: email.as_str(), locale: known.locale };
            mail::send(app, &mut tx, &recipient, &mail::Letter::AlreadyRegistered).await?;
        } else {
            let replacement = Replacement {
                name_sealed: app.sealing.seal(SealedColumn::CustomerName, known.id.0, &name)?,
                phone_sealed: seal_phone(known.id)?,
                password_hash: new.password_hash.clone(),
                locale,
            };
            store::customer::update_unverified(&mut tx, known.id, &replacement, now).await?;
            forget_stranger(app, &mut tx, known.id).await?;
            send_link(app, &mut tx, &Recipient { id: known.id, email: email.as_str(), locale }, TokenPurpose::VerifyEmail).await?;
        }
        break;
    }
    tx.commit().await?;
    app.mail_waiting.notify_one();
    Ok(Request::Accepted)
}

/// Mails a new verification link to an address that is not verified yet; earlier links are void.
pub async fn resend_verification(app: &App, email: &str) -> Result<Request, ServiceError> {
    in_even_time(request_link(app, email, TokenPurpose::VerifyEmail, |customer| customer.email_verified_at.is_none())).await
}

/// Mails a link to set a new password; earlier links are void.
pub async fn request_password_reset(app: &App, email: &str) -> Result<Request, ServiceError> {
    in_even_time(request_link(app, email, TokenPurpose::ResetPassword, |_| true)).await
}

async fn in_even_time<T>(work: impl Future<Output = T>) -> T {
    tokio::join!(work, tokio::time::sleep(EVEN_TIME)).0
}

async fn request_link(app: &App, email: &str, purpose: TokenPurpose, wanted: fn(&Customer) -> bool) -> Result<Request, ServiceError> {
    let Some(email) = EmailAddress::parse(email) else {
        return Ok(Request::Invalid(InvalidInput::new(&["email"], EMAIL_RULE)));
    };
    let mut tx = app.db.begin().await?;
    let known = store::customer::lock_by_email_index(&mut tx, &app.sealing.email_index(&email)).await?;
    if let Some(customer) = known.filter(wanted) {
        let recipient = Recipient { id: customer.id, email: email.as_str(), locale: customer.locale };
        send_link(app, &mut tx, &recipient, purpose).await?;
    }
    tx.commit().await?;
    app.mail_waiting.notify_one();
    Ok(Request::Accepted)
}

#[derive(Debug)]
pub enum VerifyEmail {
    Verified(CustomerId),
    TokenInvalid,
}

/// Uses a verification token up. The same token a second time is `TokenInvalid`.
pub async fn verify_email(app: &App, token: &SecretToken) -> Result<VerifyEmail, ServiceError> {
    let now = app.clock.now();
    let mut tx = app.db.begin().await?;
    let Some((customer, _)) = use_token(&mut tx, TokenPurpose::VerifyEmail, token, now).await? else {
        return Ok(VerifyEmail::TokenInvalid);
    };
    store::customer::update_verified(&mut tx, customer.id, now).await?;
    tx.commit().await?;
    Ok(VerifyEmail::Verified(customer.id))
}

#[derive(Debug)]
pub enum ResetPassword {
    Done,
    Invalid(InvalidInput),
    TokenInvalid,
}

/// Uses a reset token up, sets the password and ends all sessions of the customer. A link to move the account, which somebody asked for
/// with the old password, is void.
pub async fn reset_password(app: &App, token: &SecretToken, new_password: &str) -> Result<ResetPassword, ServiceError> {
    let Some(password) = normalise_password(new_password).map(Zeroizing::new) else {
        return Ok(ResetPassword::Invalid(InvalidInput::new(&["newPassword"], PASSWORD_RULE)));
    };
    let password_hash = app.passwords.hash(password).await?;
    let now = app.clock.now();
    let mut tx = app.db.begin().await?;
    let Some((customer, _)) = use_token(&mut tx, TokenPurpose::ResetPassword, token, now).await? else {
        return Ok(ResetPassword::TokenInvalid);
    };
    let (customer, was_verified) = (customer.id, customer.email_verified_at.is_some());
    if !was_verified {
        forget_belongings(&mut tx, customer, now).await?;
    }
    store::customer::update_password(&mut tx, customer, &password_hash, now).await?;
    store::customer::void_tokens(&mut tx, customer, &[TokenPurpose::ChangeEmail], now).await?;
    let ended = store::session::update_all_revoked(&mut tx, customer, now).await?;
    tx.commit().await?;
    app.revocations.add_all(ended, now);
    Ok(ResetPassword::Done)
}

/// Whoever signed up with this address before need not be its owner: nothing of theirs stays with the account.
async fn forget_stranger(app: &App, db: &mut PgConnection, customer: CustomerId) -> Result<(), ServiceError> {
    let now = app.clock.now();
    forget_belongings(db, customer, now).await?;
    let ended = store::session::update_all_revoked(db, customer, now).await?;
    // Before the commit: a session too many is refused for ten minutes if that fails, never one too few.
    app.revocations.add_all(ended, now);
    Ok(())
}

/// What somebody has put into an account without having shown that the address is theirs.
async fn forget_belongings(db: &mut PgConnection, customer: CustomerId, now: DateTime<Utc>) -> Result<(), ServiceError> {
    store::address::update_all_retired(db, customer, now).await?;
    store::cart::delete_all(db, customer).await?;
    store::wishlist::delete_all(db, customer).await?;
    Ok(())
}

/// Uses a token up and tells whose it was, with the customer's row locked: customer before token, as everybody does.
async fn use_token(
    db: &mut PgConnection,
    purpose: TokenPurpose,
    token: &SecretToken,
    now: DateTime<Utc>,
) -> Result<Option<(Customer, UsedToken)>, ServiceError> {
    let hash = token.hash();
    let Some(owner) = store::customer::find_token_owner(db, purpose, &hash).await? else { return Ok(None) };
    let customer = store::customer::lock(db, owner).await?;
    let used = store::customer::use_token(db, purpose, &hash, now).await?;
    Ok(customer.zip(used))
}

/// Forgets the links that have expired.
pub async fn forget_expired_links(app: &App) -> Result<(), ServiceError> {
    store::customer::delete_tokens_expired_before(&mut *app.db.acquire().await?, app.clock.now()).await?;
    Ok(())
}

#[derive(Debug, PartialEq, Eq)]
pub enum GrantRole {
    Granted,
    NoSuchCustomer,
}

/// Gives the customer with this address a role and ends their sessions: access tokens carry the role.
pub async fn grant_role(app: &App, email: &EmailAddress, role: Role) -> Result<GrantRole, ServiceError> {
    let now = app.clock.now();
    let mut tx = app.db.begin().await?;
    let Some(customer) = store::customer::lock_by_email_index(&mut tx, &app.sealing.email_index(email)).await? else {
        return Ok(GrantRole::NoSuchCustomer);
    };
    store::customer::update_role(&mut tx, customer.id, role, now).await?;
    store::session::update_all_revoked(&mut tx, customer.id, now).await?;
    tx.commit().await?;
    Ok(GrantRole::Granted)
}

/// Whom a mail goes to, and in which language.
pub struct Recipient<'a> {
    pub id: CustomerId,
    pub email: &'a str,
    pub locale: Locale,
}

async fn send_link(app: &App, db: &mut PgConnection, recipient: &Recipient<'_>, purpose: TokenPurpose) -> Result<(), ServiceError> {
    let now = app.clock.now();
    let (id, token) = (OneTimeTokenId::new(), SecretToken::random());
    let (lifetime, letter) = match purpose {
        TokenPurpose::VerifyEmail => (VERIFY_LIFETIME, mail::Letter::VerifyEmail(&token)),
        TokenPurpose::ResetPassword => (RESET_LIFETIME, mail::Letter::ResetPassword(&token)),
        TokenPurpose::ChangeEmail => (CHANGE_LIFETIME, mail::Letter::ChangeEmail(&token)),
    };
    let new_email = (purpose == TokenPurpose::ChangeEmail).then_some(recipient.email);
    let stored = NewOneTimeToken {
        id,
        customer: recipient.id,
        purpose,
        hash: &token.hash(),
        new_email_sealed: new_email.map(|email| app.sealing.seal(SealedColumn::NewEmail, id.0, email)).transpose()?,
        expires_at: now + lifetime,
    };
    store::customer::replace_token(db, &stored, now).await?;
    mail::send(app, db, recipient, &letter).await
}
