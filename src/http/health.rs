//! Health: alive, and ready for work.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{Json, Router, extract::State, http::StatusCode, routing::get};
use serde_json::{Map, Value, json};
use tokio::{sync::Mutex, time::timeout};
use tokio_util::sync::CancellationToken;

use crate::{
    app::App,
    store::{self, queue::Queue, schema::SchemaError},
};

/// Who asks meanwhile is told the same: looking takes a connection that revocations are followed by as well.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// A database that has not answered by then is away.
const PATIENCE: Duration = Duration::from_secs(2);
/// A message that waits longer than this is late.
const LATE: Duration = Duration::from_mins(1);

struct Health {
    app: App,
    stop: CancellationToken,
    last: Mutex<Option<(Instant, Answer)>>,
}

type Answer = (StatusCode, Value);

/// For a server's own port, and for the operator's.
pub fn routes<S: Clone + Send + Sync + 'static>(app: App, stop: CancellationToken) -> Router<S> {
    let health = Arc::new(Health { app: app.for_followers(), stop, last: Mutex::default() });
    Router::new().route("/healthz/live", get(live)).route("/healthz/ready", get(ready)).with_state(health)
}

/// The process answers.
async fn live() -> Json<Value> {
    Json(json!({ "status": "live" }))
}

/// The database answers and its schema is the program's, or a newer one. However many ask, one looks.
async fn ready(State(health): State<Arc<Health>>) -> (StatusCode, Json<Value>) {
    if health.stop.is_cancelled() {
        return (StatusCode::SERVICE_UNAVAILABLE, Json(json!({ "status": "stopping" })));
    }
    let mut last = health.last.lock().await;
    let (status, body) = match &*last {
        Some((at, answer)) if at.elapsed() < LOOK_EVERY => answer.clone(),
        _ => last.insert((Instant::now(), look(&health.app).await)).1.clone(),
    };
    (status, Json(body))
}

/// Without Redis, or with messages that wait for long, the process is degraded, not unready: another one would fare no better.
async fn look(app: &App) -> Answer {
    let (schema, waits) = match timeout(PATIENCE, look_at_database(app)).await {
        Ok(Ok(seen)) => seen,
        Ok(Err(error)) if error.is_mismatch() => {
            tracing::warn!(%error, "not ready");
            return (StatusCode::SERVICE_UNAVAILABLE, json!({ "status": "unready", "database": "up", "schema": "older" }));
        }
        away => {
            tracing::warn!(?away, "not ready");
            return (StatusCode::SERVICE_UNAVAILABLE, json!({ "status": "unready", "database": "down" }));
        }
    };
    let redis = match &app.redis {
        None => "none",
        Some(redis) => match redis.ping().await {
            Ok(()) => "up",
            Err(error) => {
                tracing::warn!(%error, "Redis does not answer");
                "down"
            }
        },
    };
    let is_late = waits.iter().any(|(_, wait)| *wait > LATE);
    let waits: Map<_, _> = waits.into_iter().map(|(queue, wait)| (queue.to_string(), json!(wait.as_secs_f64()))).collect();
    let status = if redis == "down" || is_late { "degraded" } else { "ready" };
    let body = json!({ "status": status, "database": "up", "schema": schema, "redis": redis, "oldestMessageSeconds": waits });
    (StatusCode::OK, body)
}

/// Which schema it has, and for how long the oldest message of each queue waits.
async fn look_at_database(app: &App) -> Result<(&'static str, Vec<(Queue, Duration)>), SchemaError> {
    let mut db = app.db.acquire().await?;
    let schema = match store::schema::check(&mut db).await {
        Ok(()) => "current",
        // Migrations leave what the program before them needs: while a deployment goes on, its processes do so, too.
        Err(SchemaError::Newer(_)) => "newer",
        Err(error) => return Err(error),
    };
    let mut waits = Vec::with_capacity(Queue::ALL.len());
    for queue in Queue::ALL {
        waits.push((queue, store::queue::get_oldest_wait(&mut db, queue).await?.unwrap_or_default()));
    }
    Ok((schema, waits))
}
