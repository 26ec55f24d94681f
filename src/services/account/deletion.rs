//! The end of an account: what is personal is erased, the orders stay. Called by `resolvers/customer/own_account.rs`.

use super::{Recipient, profile};
use crate::{
    app::App,
    auth::Viewer,
    sealing::SealedColumn,
    services::{
        ServiceError,
        mail::{self, Letter},
    },
    store,
};

#[derive(Debug)]
pub enum DeleteAccount {
    Done,
    BadCredentials,
    /// An order is not finished, its money is still moving, or a purchase is under way.
    WrongState,
}

/// Erases everything personal of the caller: the account, cart and wishlist, the address book and the orders' copies of it, words in orders, sessions,
/// links, and mails that wait. A last mail says so. The address can be signed up anew. One transaction; locked are the customer's row,
/// then orders, then quotas, so that no purchase or change of an order can be under way.
pub async fn delete_account(app: &App, viewer: Viewer, password: &str) -> Result<DeleteAccount, ServiceError> {
    let Some(known) = profile::check_password(app, viewer.customer, password).await? else {
        return Ok(DeleteAccount::BadCredentials);
    };
    let (id, now) = (known.id, app.clock.now());
    let mut tx = app.db.begin().await?;
    if !profile::lock_unchanged(&mut tx, &known).await? {
        return Ok(DeleteAccount::BadCredentials);
    }
    // The second look is younger than the locks.
    if !store::order::lock_purchases(&mut tx, id).await? || store::order::has_unfinished(&mut tx, id).await? {
        return Ok(DeleteAccount::WrongState);
    }
    // Before the mails: whoever is writing some to those who wish for a product holds their items.
    store::wishlist::delete_all(&mut tx, id).await?;
    store::mail::delete_unsent(&mut tx, id).await?;
    let email = app.sealing.open(SealedColumn::CustomerEmail, id.0, &known.email_sealed)?;
    mail::send(app, &mut tx, &Recipient { id, email: &email, locale: known.locale }, &Letter::AccountDeleted).await?;

    let ended = store::session::update_all_revoked(&mut tx, id, now).await?;
    store::session::erase(&mut tx, id).await?;
    store::customer::delete_tokens(&mut tx, id).await?;
    store::cart::delete_all(&mut tx, id).await?;
    store::address::erase(&mut tx, id, now).await?;
    let orders = store::order::erase(&mut tx, id, now).await?;
    store::customer::erase(&mut tx, id, now).await?;
    tx.commit().await?;
    app.revocations.add_all(ended, now);
    app.mail_waiting.notify_one();
    app.order_feed.ring(&orders.into_iter().map(|order| (order, id)).collect::<Vec<_>>());
    Ok(DeleteAccount::Done)
}
