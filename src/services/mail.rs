//! Mail through the outbox: written, sealed and queued in the transaction of its reason; sent later by a job.

use sqlx::PgConnection;

use super::{ServiceError, account::Recipient, retry};
use crate::{
    app::App,
    auth::secret_token::SecretToken,
    clients::mailer::Mail,
    domain::{
        customer::Locale,
        ids::{CustomerId, MailId},
        money::Money,
    },
    sealing::SealedColumn,
    store::{
        self,
        mail::NewMail,
        queue::{Delivery, Queue},
    },
};

/// What there is to write to a customer.
pub enum Letter<'a> {
    VerifyEmail(&'a SecretToken),
    ResetPassword(&'a SecretToken),
    AlreadyRegistered,
    /// An order was called off, by its customer or by staff.
    Cancelled {
        order_number: &'a str,
    },
    /// Money has gone back.
    Refunded {
        order_number: &'a str,
        amount: Money,
    },
}

impl Letter<'_> {
    const fn kind(&self) -> &'static str {
        match self {
            Self::VerifyEmail(_) => "verify-email",
            Self::ResetPassword(_) => "reset-password",
            Self::AlreadyRegistered => "already-registered",
            Self::Cancelled { .. } => "order-cancelled",
            Self::Refunded { .. } => "order-refunded",
        }
    }

    /// Subject and text in the customer's language.
    fn text(&self, locale: Locale, public_url: &str) -> (String, String) {
        match (self, locale) {
            (Self::VerifyEmail(token), Locale::En) => (
                "Confirm your e-mail address".to_owned(),
                format!(
                    "Welcome to WhiteMonday.\n\nConfirm your address here, within 24 hours:\n{public_url}/verify?token={}\n\nIf you did not sign up, ignore this mail.\n",
                    token.expose()
                ),
            ),
            (Self::VerifyEmail(token), Locale::Ko) => (
                "이메일 주소를 확인해 주세요".to_owned(),
                format!(
                    "WhiteMonday에 오신 것을 환영합니다.\n\n24시간 안에 아래 주소에서 이메일을 확인해 주세요.\n{public_url}/verify?token={}\n\n가입하신 적이 없다면 이 메일을 무시하셔도 됩니다.\n",
                    token.expose()
                ),
            ),
            (Self::ResetPassword(token), Locale::En) => (
                "Set a new password".to_owned(),
                format!(
                    "Somebody, hopefully you, asked for a new password.\n\nSet it here, within 30 minutes:\n{public_url}/reset?token={}\n\nIf it was not you, nothing has changed: ignore this mail.\n",
                    token.expose()
                ),
            ),
            (Self::ResetPassword(token), Locale::Ko) => (
                "새 비밀번호를 설정해 주세요".to_owned(),
                format!(
                    "비밀번호 재설정 요청을 받았습니다.\n\n30분 안에 아래 주소에서 새 비밀번호를 설정해 주세요.\n{public_url}/reset?token={}\n\n요청하신 적이 없다면 이 메일을 무시하셔도 됩니다. 바뀐 것은 없습니다.\n",
                    token.expose()
                ),
            ),
            (Self::AlreadyRegistered, Locale::En) => (
                "You already have an account".to_owned(),
                "Somebody, hopefully you, tried to sign up with this address, which has an account already.\n\nLog in with your password, or ask for a new one if you forgot it.\n".to_owned(),
            ),
            (Self::AlreadyRegistered, Locale::Ko) => (
                "이미 가입된 주소입니다".to_owned(),
                "이 주소로 가입 요청이 있었지만 이미 계정이 있습니다.\n\n기존 비밀번호로 로그인하시거나, 잊으셨다면 비밀번호를 재설정해 주세요.\n".to_owned(),
            ),
            (Self::Cancelled { order_number }, Locale::En) => (
                format!("Order {order_number} is cancelled"),
                format!("Your order {order_number} is cancelled.\n\nIf it was paid, the money goes back: we write again when it has.\n"),
            ),
            (Self::Cancelled { order_number }, Locale::Ko) => (
                format!("주문 {order_number}이(가) 취소되었습니다"),
                format!("주문 {order_number}이(가) 취소되었습니다.\n\n이미 결제된 금액이 있으면 환불되며, 환불이 끝나면 다시 알려 드립니다.\n"),
            ),
            (Self::Refunded { order_number, amount }, Locale::En) => (
                format!("Refund for order {order_number}"),
                format!(
                    "We have sent {} {} back for your order {order_number}.\n\nIt takes the way that you paid; banks may need some days.\n",
                    amount.amount(),
                    amount.currency
                ),
            ),
            (Self::Refunded { order_number, amount }, Locale::Ko) => (
                format!("주문 {order_number} 환불 안내"),
                format!(
                    "주문 {order_number}에 대해 {} {}을(를) 환불했습니다.\n\n결제하신 수단으로 환불되며, 은행에 따라 며칠이 걸릴 수 있습니다.\n",
                    amount.amount(),
                    amount.currency
                ),
            ),
        }
    }
}

/// Writes to an order's customer, in the caller's transaction. Ring `mail_waiting` after the commit.
pub async fn send_to_customer(app: &App, db: &mut PgConnection, customer: CustomerId, letter: &Letter<'_>) -> Result<(), ServiceError> {
    let customer = store::customer::get(db, customer).await?;
    let email = app.sealing.open(SealedColumn::CustomerEmail, customer.id.0, &customer.email_sealed)?;
    send(app, db, &Recipient { id: customer.id, email: &email, locale: customer.locale }, letter).await
}

/// Puts a letter into the outbox, in the caller's transaction. Ring `mail_waiting` after the commit.
pub async fn send(app: &App, db: &mut PgConnection, recipient: &Recipient<'_>, letter: &Letter<'_>) -> Result<(), ServiceError> {
    let (subject, text) = letter.text(recipient.locale, &app.config.http.public_url);
    let mail = Mail { to: recipient.email.to_owned(), subject, text };
    let id = MailId::new();
    let content_sealed = app.sealing.seal(SealedColumn::MailContent, id.0, &serde_json::to_string(&mail)?)?;
    let new = NewMail { id, customer: recipient.id, kind: letter.kind(), content_sealed };
    store::mail::insert(db, &new, app.clock.now()).await?;
    store::queue::send(db, Queue::Mail, "send", id.0, None).await?;
    Ok(())
}

/// Sends the mail of a delivery, then marks it as sent, forgets it and acknowledges the message in one transaction. One that cannot be
/// sent is put off and tried again, and is a dead letter in the end. No connection is held while the server is talked to: the message's visibility keeps other workers away. A mail whose worker
/// dies between the server's yes and the commit goes out twice: mail knows no idempotency key.
pub async fn deliver(app: &App, delivery: &Delivery) -> Result<(), ServiceError> {
    let id = MailId(delivery.id);
    let unsent = store::mail::find_unsent(&mut *app.db.acquire().await?, id).await?;
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
    retry::acknowledge(&mut tx, delivery).await?;
    tx.commit().await?;
    Ok(())
}
