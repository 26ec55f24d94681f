//! Health: alive, and ready for work.

use std::{sync::Arc, time::Duration};

use axum::{
    Json, Router,
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::get,
};
use serde_json::{Map, Value, json};
use tokio_util::sync::CancellationToken;

use crate::{
    app::App,
    store::{self, queue::Queue, schema::SchemaError},
};

/// A database that has not answered by then is away.
const PATIENCE: Duration = Duration::from_secs(2);
/// A message that waits longer than this is late.
const LATE: Duration = Duration::from_mins(1);

struct Health {
    app: App,
    stop: CancellationToken,
}

/// For a server's own port, and for the operator's.
pub fn routes<S: Clone + Send + Sync + 'static>(app: App, stop: CancellationToken) -> Router<S> {
    let health = Arc::new(Health { app: app.for_followers(), stop });
    Router::new().route("/healthz/live", get(live)).route("/healthz/ready", get(ready)).with_state(health)
}

/// The process answers.
async fn live() -> Json<Value> {
    Json(json!({ "status": "live" }))
}

/// The database answers and its schema is the program's. Without Redis, or with messages that wait for long, the process is degraded,
/// not unready: another one would fare no better.
async fn ready(State(health): State<Arc<Health>>) -> Response {
    let Health { app, stop } = &*health;
    let unready = |body| (StatusCode::SERVICE_UNAVAILABLE, Json(body)).into_response();
    if stop.is_cancelled() {
        return unready(json!({ "status": "stopping" }));
    }
    let waits = match tokio::time::timeout(PATIENCE, oldest_waits(app)).await {
        Ok(Ok(waits)) => waits,
        Ok(Err(error)) if error.is_mismatch() => {
            tracing::warn!(%error, "not ready");
            return unready(json!({ "status": "unready", "database": "up", "schema": "another" }));
        }
        away => {
            tracing::warn!(?away, "not ready");
            return unready(json!({ "status": "unready", "database": "down" }));
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
    let body = json!({ "status": status, "database": "up", "schema": "current", "redis": redis, "oldestMessageSeconds": waits });
    Json(body).into_response()
}

/// For how long the oldest message of each queue waits, once the schema is known to be the program's.
async fn oldest_waits(app: &App) -> Result<Vec<(Queue, Duration)>, SchemaError> {
    store::schema::check(&app.db).await?;
    let mut db = app.db.acquire().await?;
    let mut waits = Vec::with_capacity(Queue::ALL.len());
    for queue in Queue::ALL {
        waits.push((queue, store::queue::get_oldest_wait(&mut db, queue).await?.unwrap_or_default()));
    }
    Ok(waits)
}
