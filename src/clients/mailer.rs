//! Sends mail: over SMTP with TLS, or into the mailbox of demo and tests.

use std::{sync::Arc, time::Duration};

use chrono::{DateTime, Utc};
use lettre::{
    AsyncSmtpTransport, AsyncTransport, Message, Tokio1Executor,
    message::{Mailbox as Sender, MultiPart, SinglePart},
};
use secrecy::ExposeSecret;
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::{
    config::MailConfig,
    domain::opaque_debug,
    embedded::mailbox::{Mailbox, ReceivedMail},
};

/// For each address of the server.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// A server that takes longer for a mail is counted as down; the mail is tried again.
const SMTP_TIMEOUT: Duration = Duration::from_secs(10);

/// A mail as it waits, sealed, in the outbox.
#[derive(Clone, Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
pub struct Mail {
    pub to: String,
    pub subject: String,
    pub text: String,
    /// The same for programs that show it; a mail that waits since before there was HTML has none.
    #[serde(default)]
    pub html: Option<String>,
}

opaque_debug!(Mail);

#[derive(Debug, thiserror::Error)]
pub enum MailError {
    #[error("SMTP_URL or MAIL_FROM cannot be used: {0}")]
    Config(String),
    #[error("the mail cannot be written: {0}")]
    Message(String),
    #[error("the mail server took too long")]
    TimedOut,
    #[error("SMTP: {0}")]
    Smtp(#[from] lettre::transport::smtp::Error),
}

impl MailError {
    /// What went wrong, without the server's own words: they may repeat the recipient's address.
    #[must_use]
    pub fn brief(&self) -> String {
        match self {
            Self::Config(_) => "the mailer is not configured".to_owned(),
            Self::Message(_) => "the mail cannot be written".to_owned(),
            Self::TimedOut => "the mail server does not answer".to_owned(),
            Self::Smtp(error) if error.is_timeout() => "the mail server cannot be reached in time".to_owned(),
            Self::Smtp(error) => match error.status() {
                Some(code) => format!("the mail server answers {code}"),
                None => "the mail server cannot be reached".to_owned(),
            },
        }
    }
}

pub enum Mailer {
    Smtp { transport: Box<AsyncSmtpTransport<Tokio1Executor>>, from: Sender },
    Mailbox(Arc<Mailbox>),
}

impl Mailer {
    /// A mailer over SMTP; connects when the first mail is sent.
    ///
    /// # Errors
    /// When the settings cannot be used.
    pub fn smtp(config: &MailConfig) -> Result<Self, MailError> {
        let url = config.smtp_url.as_ref().ok_or_else(|| MailError::Config("SMTP_URL is missing".to_owned()))?;
        let transport = AsyncSmtpTransport::<Tokio1Executor>::from_url(url.expose_secret())
            .map_err(|error| MailError::Config(error.to_string()))?
            .timeout(Some(CONNECT_TIMEOUT))
            .build();
        let from = config.from.parse().map_err(|error| MailError::Config(format!("{error}")))?;
        Ok(Self::Smtp { transport: Box::new(transport), from })
    }

    /// The mailbox, where there is one instead of SMTP.
    #[must_use]
    pub const fn mailbox(&self) -> Option<&Arc<Mailbox>> {
        match self {
            Self::Smtp { .. } => None,
            Self::Mailbox(mailbox) => Some(mailbox),
        }
    }

    /// Hands the mail over. After an error it may or may not have been sent.
    ///
    /// # Errors
    /// When the server cannot be reached or refuses.
    #[tracing::instrument(name = "mailer.send", skip_all, fields(otel.kind = "client"))]
    pub async fn send(&self, mail: &Mail, now: DateTime<Utc>) -> Result<(), MailError> {
        match self {
            Self::Mailbox(mailbox) => {
                mailbox.deliver(ReceivedMail { to: mail.to.clone(), subject: mail.subject.clone(), text: mail.text.clone(), sent_at: now });
            }
            Self::Smtp { transport, from } => {
                let to = mail.to.parse().map_err(|_| MailError::Message("the recipient's address is not one".to_owned()))?;
                let message = Message::builder().from(from.clone()).to(to).subject(&mail.subject);
                let message = match &mail.html {
                    Some(html) => message.multipart(MultiPart::alternative_plain_html(mail.text.clone(), html.clone())),
                    None => message.singlepart(SinglePart::plain(mail.text.clone())),
                };
                let message = message.map_err(|error| MailError::Message(error.to_string()))?;
                // The transport's own time-out is for the connection alone: a server that then says nothing would be waited for for ever.
                tokio::time::timeout(SMTP_TIMEOUT, transport.send(message)).await.map_err(|_| MailError::TimedOut)??;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mail_that_waits_since_before_there_was_html_is_read_and_debug_tells_nothing() {
        let mail: Mail = serde_json::from_str(r#"{ "to": "ann@example.com", "subject": "Hello", "text": "Ann" }"#).unwrap();
        assert_eq!(mail.html, None);
        assert_eq!(format!("{mail:?}"), "Mail(…)");
    }
}
