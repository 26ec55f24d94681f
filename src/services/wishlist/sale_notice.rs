//! Mails to those who wish for a product: when a sale of it is scheduled, and shortly before it opens. Called by `jobs/notify_wishers.rs`.

use chrono::TimeDelta;

use crate::{
    app::App,
    domain::flash_sale::SaleNotice,
    services::{
        ServiceError,
        leader::Term,
        mail::{self, Letter},
    },
    store::{self, lease::LEADER, queue::Queue},
};

/// A sale that opens is told of so long before. One that is scheduled later than that is told of once.
const LEAD: TimeDelta = TimeDelta::minutes(5);
/// Mails that are written in one transaction. While as many wait to be sent, no more are written, so that a link that somebody waits for is
/// never behind more than two chunks.
const CHUNK: i64 = 500;

/// Writes the mails of the next customers who are to hear of a sale, in one transaction that also remembers how far it has come; true when
/// there may be more to do at once. A mail is there once per customer, sale and kind, by a constraint. Nothing happens when the leader's term
/// is over, or a chunk of mails waits to be sent.
pub async fn notify_some(app: &App, term: Term) -> Result<bool, ServiceError> {
    let now = app.clock.now();
    let mut tx = app.db.begin().await?;
    if !store::lease::lock_term(&mut tx, LEADER, term.0).await? {
        return Ok(false);
    }
    if store::queue::has_messages(&mut tx, Queue::Mail, CHUNK).await? {
        return Ok(false);
    }
    let Some(due) = store::sale_notice::lock_due(&mut tx, now, now + LEAD).await? else { return Ok(false) };
    let wishers = store::wishlist::lock_wishers(&mut tx, due.product, due.last_customer, CHUNK).await?;
    let (title, price, opens_at) = (due.title.as_str(), due.price, due.opens_at);
    let letter = match due.notice {
        SaleNotice::Scheduled => Letter::SaleScheduled { title, price, opens_at },
        SaleNotice::Opening => Letter::SaleOpening { title, price, opens_at },
    };
    mail::send_about_sale(app, &mut tx, due.sale, &wishers, &letter).await?;
    let is_finished = i64::try_from(wishers.len()).is_ok_and(|count| count < CHUNK);
    let last = wishers.last().map(|wisher| wisher.customer).or(due.last_customer);
    store::sale_notice::save(&mut tx, &due, last, is_finished.then_some(now)).await?;
    tx.commit().await?;
    app.mail_waiting.notify_one();
    Ok(true)
}
