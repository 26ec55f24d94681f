//! The outbox: pgmq's calls. A message carries ids only; sending joins the business transaction, and so does deleting.
//!
//! Owns: the envelope and pgmq's functions. Does not own: what a message means (jobs, services).

use std::{fmt, time::Duration};

use chrono::{DateTime, Utc};
use serde_json::{Value, json};
use sqlx::PgConnection;
use tracing::{Span, field::Empty};
use uuid::Uuid;

use super::StoreError;
use crate::{domain::ids::DeadLetterId, telemetry};

/// The version of the envelope that this program writes and reads.
const ENVELOPE_VERSION: u64 = 1;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Queue {
    Payment,
    /// Money that goes back.
    Compensation,
    Mail,
}

impl Queue {
    pub const ALL: [Self; 3] = [Self::Payment, Self::Compensation, Self::Mail];

    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Payment => "payment",
            Self::Compensation => "compensation",
            Self::Mail => "mail",
        }
    }
}

impl fmt::Display for Queue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A message as a worker holds it until it is deleted or its visibility runs out.
#[derive(Clone, Debug)]
pub struct Delivery {
    pub queue: Queue,
    pub message_id: i64,
    pub kind: String,
    pub id: Uuid,
    pub trace: Option<String>,
    pub enqueued_at: DateTime<Utc>,
    /// Of whatever is done with it, in the trace that it came with; ends with the last clone.
    pub span: Span,
}

impl Delivery {
    fn new(queue: Queue, message_id: i64, kind: String, id: Uuid, trace: Option<String>, enqueued_at: DateTime<Utc>) -> Self {
        let name = format!("{queue} {kind}");
        let span = tracing::info_span!(parent: None, "delivery", trace_id = Empty, otel.name = name, otel.kind = "consumer", %id);
        telemetry::resume_trace(&span, trace.as_deref());
        Self { queue, message_id, kind, id, trace, enqueued_at, span }
    }

    fn body(&self) -> Value {
        json!({ "v": ENVELOPE_VERSION, "kind": self.kind, "id": self.id, "trace": self.trace })
    }
}

/// Appends a message; it becomes visible when the transaction commits. What is done with it goes on in the trace in which it was sent.
pub async fn send(db: &mut PgConnection, queue: Queue, kind: &str, id: Uuid) -> Result<(), StoreError> {
    send_in(db, queue, kind, id, telemetry::traceparent().as_deref()).await
}

/// The same in another trace, or in none.
pub async fn send_in(db: &mut PgConnection, queue: Queue, kind: &str, id: Uuid, trace: Option<&str>) -> Result<(), StoreError> {
    let body = json!({ "v": ENVELOPE_VERSION, "kind": kind, "id": id, "trace": trace });
    send_body(db, queue.as_str(), &body).await
}

/// Appends a message of this kind for each id.
pub async fn send_all(db: &mut PgConnection, queue: Queue, kind: &str, ids: &[Uuid]) -> Result<(), StoreError> {
    let trace = telemetry::traceparent();
    let bodies: Vec<Value> = ids.iter().map(|id| json!({ "v": ENVELOPE_VERSION, "kind": kind, "id": id, "trace": trace })).collect();
    if !bodies.is_empty() {
        sqlx::query!("SELECT 1 AS one FROM pgmq.send_batch($1, $2::jsonb[])", queue.as_str(), &bodies).fetch_all(db).await?;
    }
    Ok(())
}

/// Appends a message as it was, by the queue's name.
pub async fn send_body(db: &mut PgConnection, queue: &str, body: &Value) -> Result<(), StoreError> {
    sqlx::query!("SELECT pgmq.send($1, $2::jsonb)", queue, body).fetch_one(db).await?;
    Ok(())
}

/// Reads up to `limit` messages and hides them from other readers for `visibility`. Each body is read by itself: one bad
/// message does not fail its neighbours.
pub async fn read(
    db: &mut PgConnection,
    queue: Queue,
    visibility: Duration,
    limit: i32,
) -> Result<Vec<Result<Delivery, DeadMessage>>, StoreError> {
    let seconds = i32::try_from(visibility.as_secs()).unwrap_or(i32::MAX);
    let rows = sqlx::query!(
        r#"SELECT msg_id AS "message_id!", read_ct AS "deliveries!", enqueued_at AS "enqueued_at!", message AS "body!"
             FROM pgmq.read($1, $2, $3)"#,
        queue.as_str(),
        seconds,
        limit,
    )
    .fetch_all(db)
    .await?;
    let parse = |row: &Value| -> Result<(String, Uuid, Option<String>), String> {
        if row["v"] != json!(ENVELOPE_VERSION) {
            return Err(format!("envelope version is not {ENVELOPE_VERSION}"));
        }
        let kind = row["kind"].as_str().ok_or("no kind")?.to_owned();
        let id = row["id"].as_str().and_then(|id| id.parse().ok()).ok_or("no id")?;
        Ok((kind, id, row["trace"].as_str().map(str::to_owned)))
    };
    let deliveries = rows.into_iter().map(|row| match parse(&row.body) {
        Ok((kind, id, trace)) => Ok(Delivery::new(queue, row.message_id, kind, id, trace, row.enqueued_at)),
        Err(reason) => Err(DeadMessage {
            queue,
            message_id: row.message_id,
            attempts: row.deliveries,
            enqueued_at: row.enqueued_at,
            body: row.body,
            reason,
            last_error: None,
        }),
    });
    Ok(deliveries.collect())
}

/// Acknowledges messages. Those that somebody else deleted meanwhile are no error: the state machine is the fence.
pub async fn delete(db: &mut PgConnection, queue: Queue, message_ids: &[i64]) -> Result<(), StoreError> {
    if !message_ids.is_empty() {
        sqlx::query!("SELECT pgmq.delete($1, $2::bigint[])", queue.as_str(), message_ids).fetch_all(db).await?;
    }
    Ok(())
}

/// Hides messages for so long from now on; at once visible again when it is nothing. Those that are gone are no error.
pub async fn hide(db: &mut PgConnection, queue: Queue, message_ids: &[i64], visibility: Duration) -> Result<(), StoreError> {
    let seconds = i32::try_from(visibility.as_secs()).unwrap_or(i32::MAX);
    sqlx::query!("SELECT 1 AS one FROM pgmq.set_vt($1, $2::bigint[], $3::integer)", queue.as_str(), message_ids, seconds)
        .fetch_all(db)
        .await?;
    Ok(())
}

/// For how long the oldest message waits that a worker could read now; `None` when none does. It looks at the queue's head only, so
/// that it costs the same however long the queue is.
pub async fn get_oldest_wait(db: &mut PgConnection, queue: Queue) -> Result<Option<Duration>, StoreError> {
    // The table's name is one of ours.
    let sql = format!(
        "SELECT greatest(extract(epoch FROM clock_timestamp() - enqueued_at), 0)::float8
           FROM pgmq.q_{} WHERE vt <= clock_timestamp() ORDER BY msg_id LIMIT 1",
        queue.as_str()
    );
    let seconds = sqlx::query_scalar::<_, f64>(&sql).fetch_optional(db).await?;
    Ok(seconds.map(Duration::from_secs_f64))
}

/// Whether a queue has so many messages, whoever may read them now.
pub async fn has_messages(db: &mut PgConnection, queue: Queue, count: i64) -> Result<bool, StoreError> {
    // The table's name is one of ours.
    let sql = format!("SELECT count(*) >= $1 FROM (SELECT FROM pgmq.q_{} LIMIT $1) m", queue.as_str());
    Ok(sqlx::query_scalar(&sql).bind(count).fetch_one(db).await?)
}

/// Counts of a queue, as they are now.
#[derive(Clone, Debug)]
pub struct QueueCounts {
    pub ready: i64,
    /// Hidden by a worker that is at it.
    pub in_flight: i64,
    /// Failed and due again later.
    pub delayed: i64,
    pub dead_letters: i64,
    pub oldest_ready_age_seconds: f64,
}

/// Counts a queue's messages: for people who look, not for every scrape.
pub async fn get_counts(db: &mut PgConnection, queue: Queue) -> Result<QueueCounts, StoreError> {
    let table = format!("pgmq.q_{}", queue.as_str());
    // The table's name is one of ours; everything else is a parameter.
    let sql = format!(
        "SELECT count(*) FILTER (WHERE vt <= clock_timestamp()), count(*) FILTER (WHERE vt > clock_timestamp()),
                coalesce(extract(epoch FROM clock_timestamp() - min(enqueued_at) FILTER (WHERE vt <= clock_timestamp())), 0)::float8,
                (SELECT count(*) FROM retry WHERE queue = $1 AND due_at IS NOT NULL), (SELECT count(*) FROM dead_letter WHERE queue = $1)
           FROM {table}"
    );
    let (ready, in_flight, oldest_ready_age_seconds, delayed, dead_letters) =
        sqlx::query_as::<_, (i64, i64, f64, i64, i64)>(&sql).bind(queue.as_str()).fetch_one(db).await?;
    Ok(QueueCounts { ready, in_flight, delayed, dead_letters, oldest_ready_age_seconds })
}

/// A message that no worker will get any more.
#[derive(Debug)]
pub struct DeadMessage {
    pub queue: Queue,
    pub message_id: i64,
    pub body: Value,
    /// Why it is dead.
    pub reason: String,
    /// What went wrong the last time.
    pub last_error: Option<String>,
    pub attempts: i32,
    pub enqueued_at: DateTime<Utc>,
}

impl DeadMessage {
    /// Work that has failed too often.
    #[must_use]
    pub fn given_up(delivery: &Delivery, attempts: i32, error: &str) -> Self {
        Self {
            queue: delivery.queue,
            message_id: delivery.message_id,
            body: delivery.body(),
            reason: format!("failed {attempts} times"),
            last_error: Some(error.to_owned()),
            attempts,
            enqueued_at: delivery.enqueued_at,
        }
    }
}

/// Sets a message aside for people, and takes it out of its queue.
pub async fn bury(db: &mut PgConnection, message: &DeadMessage, at: DateTime<Utc>) -> Result<(), StoreError> {
    sqlx::query!(
        "INSERT INTO dead_letter (id, queue, message_id, kind, payload, reason, last_error, attempts, trace_id, enqueued_at, dead_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)
             ON CONFLICT (queue, message_id) DO NOTHING",
        DeadLetterId::new() as _,
        message.queue.as_str(),
        message.message_id,
        message.body["kind"].as_str().unwrap_or("unknown"),
        message.body,
        message.reason,
        message.last_error,
        message.attempts,
        message.body["trace"].as_str().map(telemetry::trace_id_in),
        message.enqueued_at,
        at,
    )
    .execute(&mut *db)
    .await?;
    delete(db, message.queue, &[message.message_id]).await
}
