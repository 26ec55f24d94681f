//! Health: alive, and ready for requests.

use std::sync::Arc;

use axum::{
    Json,
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use serde_json::json;

use super::HttpState;
use crate::store;

/// The process answers.
pub async fn live() -> Json<serde_json::Value> {
    Json(json!({ "status": "live" }))
}

/// The database answers and its schema is the program's. Without Redis the server is degraded, not unready.
pub async fn ready(State(state): State<Arc<HttpState>>) -> Response {
    if state.stop.is_cancelled() {
        return (StatusCode::SERVICE_UNAVAILABLE, Json(json!({ "status": "stopping" }))).into_response();
    }
    if let Err(error) = store::schema::check(&state.app.for_followers().db).await {
        tracing::warn!(%error, "not ready");
        return (StatusCode::SERVICE_UNAVAILABLE, Json(json!({ "status": "unready", "database": "down" }))).into_response();
    }
    let redis = match &state.app.redis {
        None => "none",
        Some(redis) => match redis.ping().await {
            Ok(()) => "up",
            Err(error) => {
                tracing::warn!(%error, "Redis does not answer");
                "down"
            }
        },
    };
    let status = if redis == "down" { "degraded" } else { "ready" };
    Json(json!({ "status": status, "database": "up", "redis": redis })).into_response()
}
