//! Mails that wait to be sent: the sealed half of the outbox.

use chrono::{DateTime, Utc};
use sqlx::PgConnection;

use super::StoreError;
use crate::domain::ids::{CustomerId, FlashSaleId, MailId};

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

/// Inserts mails about a sale but for those that are there already, by the constraint `mail_sale_once`; the ids of the new ones.
pub async fn insert_about_sale(
    db: &mut PgConnection,
    sale: FlashSaleId,
    mails: &[NewMail],
    at: DateTime<Utc>,
) -> Result<Vec<MailId>, StoreError> {
    let inserted = sqlx::query_scalar!(
        r#"INSERT INTO mail (id, customer_id, kind, content_sealed, created_at, sale_id)
           SELECT m.id, m.customer_id, m.kind, m.content_sealed, $5, $6
             FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::bytea[]) AS m (id, customer_id, kind, content_sealed)
               ON CONFLICT (sale_id, kind, customer_id) WHERE sale_id IS NOT NULL DO NOTHING
        RETURNING id AS "id: MailId""#,
        &mails.iter().map(|mail| mail.id.0).collect::<Vec<_>>(),
        &mails.iter().map(|mail| mail.customer.0).collect::<Vec<_>>(),
        &mails.iter().map(|mail| mail.kind.to_owned()).collect::<Vec<_>>(),
        &mails.iter().map(|mail| mail.content_sealed.clone()).collect::<Vec<_>>(),
        at,
        sale as _,
    );
    Ok(inserted.fetch_all(db).await?)
}

/// The sealed content of a mail that is to be sent still; one about a sale is not when the sale was called off, or has opened by `now`: it
/// tells of what is to come.
pub async fn find_unsent(db: &mut PgConnection, id: MailId, now: DateTime<Utc>) -> Result<Option<Vec<u8>>, StoreError> {
    let content = sqlx::query_scalar!(
        r#"SELECT m.content_sealed AS "content!"
             FROM mail m
            WHERE m.id = $1 AND m.sent_at IS NULL
              AND NOT EXISTS (SELECT FROM flash_sale s WHERE s.id = m.sale_id AND (s.cancelled_at IS NOT NULL OR s.opens_at <= $2))"#,
        id as _,
        now,
    );
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

/// Forgets mails about sales that have closed by `now`, sent or not, at most `limit` at once; how many there were.
pub async fn delete_about_closed_sales(db: &mut PgConnection, now: DateTime<Utc>, limit: i64) -> Result<u64, StoreError> {
    let deleted = sqlx::query!(
        "DELETE FROM mail
          WHERE id IN (SELECT m.id FROM mail m JOIN flash_sale s ON s.id = m.sale_id WHERE s.closes_at <= $1 LIMIT $2)",
        now,
        limit,
    );
    Ok(deleted.execute(db).await?.rows_affected())
}
