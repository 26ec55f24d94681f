//! Mail through the outbox: written, sealed and queued in the transaction of its reason; sent later by a job.

pub mod letter;

use sqlx::PgConnection;
use zeroize::Zeroizing;

use self::letter::Content;
pub use self::letter::Letter;
use super::{ServiceError, account::Recipient, retry};
use crate::{
    app::App,
    clients::mailer::Mail,
    domain::{
        customer::Locale,
        ids::{CustomerId, FlashSaleId, MailId},
    },
    sealing::SealedColumn,
    store::{
        self,
        mail::NewMail,
        queue::{Delivery, Queue},
        wishlist::Wisher,
    },
};

/// Of the messages in the queue.
pub const KIND: &str = "send";
const BATCH: i64 = 1_000;

/// Writes to a customer, in the caller's transaction; to one who has deleted the account there is nothing to write. Ring `mail_waiting`
/// after the commit.
pub async fn send_to_customer(app: &App, db: &mut PgConnection, customer: CustomerId, letter: &Letter<'_>) -> Result<(), ServiceError> {
    let Some(customer) = store::customer::list_by_ids(db, &[customer]).await?.pop() else { return Ok(()) };
    let email = app.sealing.open(SealedColumn::CustomerEmail, customer.id.0, &customer.email_sealed)?;
    send(app, db, &Recipient { id: customer.id, email: &email, locale: customer.locale }, letter).await
}

/// Puts a letter into the outbox, in the caller's transaction. Ring `mail_waiting` after the commit.
pub async fn send(app: &App, db: &mut PgConnection, recipient: &Recipient<'_>, letter: &Letter<'_>) -> Result<(), ServiceError> {
    let new = seal(app, recipient, letter.kind(), &letter.content(recipient.locale, &app.config.http.public_url))?;
    store::mail::insert(db, &new, app.clock.now()).await?;
    store::queue::send(db, Queue::Mail, KIND, new.id.0).await?;
    Ok(())
}

/// Writes to many about a sale, in the caller's transaction; who has been written to already is passed over, and so is one whose address
/// cannot be read: nobody else is to wait for it. Ring `mail_waiting` after the commit.
pub async fn send_about_sale(
    app: &App,
    db: &mut PgConnection,
    sale: FlashSaleId,
    wishers: &[Wisher],
    letter: &Letter<'_>,
) -> Result<(), ServiceError> {
    let [english, korean] = [Locale::En, Locale::Ko].map(|locale| letter.content(locale, &app.config.http.public_url));
    let mut new = Vec::with_capacity(wishers.len());
    for wisher in wishers {
        let content = match wisher.locale {
            Locale::En => &english,
            Locale::Ko => &korean,
        };
        let email = match app.sealing.open(SealedColumn::CustomerEmail, wisher.customer.0, &wisher.email_sealed) {
            Ok(email) => email,
            Err(error) => {
                tracing::error!(customer = %wisher.customer, %error, "the address cannot be read: no mail about a sale");
                continue;
            }
        };
        new.push(seal(app, &Recipient { id: wisher.customer, email: &email, locale: wisher.locale }, letter.kind(), content)?);
    }
    let written = store::mail::insert_about_sale(db, sale, &new, app.clock.now()).await?;
    store::queue::send_all(db, Queue::Mail, KIND, &written.iter().map(|id| id.0).collect::<Vec<_>>()).await?;
    Ok(())
}

fn seal(app: &App, recipient: &Recipient<'_>, kind: &'static str, content: &Content) -> Result<NewMail, ServiceError> {
    let html = Some(content.html(recipient.locale)?);
    let mail = Mail { to: recipient.email.to_owned(), subject: content.subject.clone(), text: content.text(), html };
    let id = MailId::new();
    let content_sealed = app.sealing.seal(SealedColumn::MailContent, id.0, &Zeroizing::new(serde_json::to_string(&mail)?))?;
    Ok(NewMail { id, customer: recipient.id, kind, content_sealed })
}

/// Sends the mail of a delivery, then marks it as sent, forgets it and acknowledges the message in one transaction. One that cannot be
/// sent is put off and tried again, and is a dead letter in the end. No connection is held while the server is talked to: the message's
/// visibility keeps other workers away. A mail whose worker dies between the server's yes and the commit goes out twice: mail knows no
/// idempotency key.
pub async fn deliver(app: &App, delivery: &Delivery) -> Result<(), ServiceError> {
    let id = MailId(delivery.id);
    let unsent = store::mail::find_unsent(&mut *app.db.acquire().await?, id, app.clock.now()).await?;
    if let Some(sealed) = unsent {
        let mail: Mail = serde_json::from_str(&app.sealing.open(SealedColumn::MailContent, id.0, &sealed)?)?;
        if let Err(error) = app.mailer.send(&mail, app.clock.now()).await {
            let mut tx = app.db.begin().await?;
            retry::put_off(app, &mut tx, delivery, &error.brief()).await?;
            tx.commit().await?;
            return Ok(());
        }
    }
    let mut tx = app.db.begin().await?;
    store::mail::update_sent(&mut tx, id, app.clock.now()).await?;
    retry::acknowledge(app, &mut tx, delivery).await?;
    tx.commit().await?;
    Ok(())
}

/// Forgets mails about sales that have closed, in batches: until then they keep a customer from being written to twice.
pub async fn forget_closed_sales(app: &App) -> Result<(), ServiceError> {
    while store::mail::delete_about_closed_sales(&mut *app.db.acquire().await?, app.clock.now(), BATCH).await? > 0 {}
    Ok(())
}
