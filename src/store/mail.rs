//! Mails that wait to be sent: the sealed half of the outbox.

use chrono::{DateTime, Utc};
use sqlx::PgConnection;

use super::StoreError;
use crate::domain::ids::{CustomerId, MailId};

pub struct NewMail {
    pub id: MailId,
    pub customer: CustomerId,
    pub kind: &'static str,
    pub content_sealed: Vec<u8>,
}

pub async fn insert(db: &mut PgConnection, mail: &NewMail, at: DateTime<Utc>) -> Result<(), StoreError> {
    sqlx::query!(
        "INSERT INTO mail (id, customer_id, kind, content_sealed, created_at) VALUES ($1, $2, $3, $4, $5)",
        mail.id as _,
        mail.customer as _,
        mail.kind,
        mail.content_sealed,
        at,
    )
    .execute(db)
    .await?;
    Ok(())
}

/// The sealed content of a mail that is not sent yet.
pub async fn find_unsent(db: &mut PgConnection, id: MailId) -> Result<Option<Vec<u8>>, StoreError> {
    let content = sqlx::query_scalar!(r#"SELECT content_sealed AS "content!" FROM mail WHERE id = $1 AND sent_at IS NULL"#, id as _);
    Ok(content.fetch_optional(db).await?)
}

/// Marks a mail as sent and forgets what it said.
pub async fn update_sent(db: &mut PgConnection, id: MailId, at: DateTime<Utc>) -> Result<(), StoreError> {
    sqlx::query!("UPDATE mail SET sent_at = $2, content_sealed = NULL WHERE id = $1 AND sent_at IS NULL", id as _, at).execute(db).await?;
    Ok(())
}

/// Takes back what is not sent yet; whoever has it in hand sends it still.
pub async fn delete_unsent(db: &mut PgConnection, customer: CustomerId) -> Result<(), StoreError> {
    sqlx::query!("DELETE FROM mail WHERE customer_id = $1 AND sent_at IS NULL", customer as _).execute(db).await?;
    Ok(())
}
