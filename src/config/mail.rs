//! How mails are sent.

use secrecy::SecretString;

use super::reader::Reader;

#[derive(Clone, Debug)]
pub struct MailConfig {
    /// `None` only where an in-memory mailbox stands in for SMTP: demo and tests.
    pub smtp_url: Option<SecretString>,
    pub from: String,
}

impl MailConfig {
    pub(super) fn from_reader(reader: &mut Reader<'_>, transport: MailTransport) -> Self {
        Self {
            smtp_url: match transport {
                MailTransport::Smtp => {
                    let url = reader.required("SMTP_URL", "like smtps://user:password@mail.example.com");
                    reader.secret_url("SMTP_URL", &url, &["smtp", "smtps"]);
                    Some(url.into())
                }
                MailTransport::Mailbox => None,
            },
            from: reader.text("MAIL_FROM").unwrap_or_else(|| "WhiteMonday <no-reply@whitemonday.example>".to_owned()),
        }
    }
}

/// Where mails go; decides whether `SMTP_URL` must be given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MailTransport {
    Smtp,
    Mailbox,
}
