//! `POST /webhooks/stripe`: the payment provider's events.

use std::sync::Arc;

use axum::{
    body::Bytes,
    extract::State,
    http::{HeaderMap, StatusCode},
};

use super::HttpState;
use crate::services::webhook::{self, Received};

/// 200 as soon as it is kept; what is not the provider's is a 400, which it does not repeat for long, and a fault of ours a 503,
/// which it does.
pub async fn stripe(State(state): State<Arc<HttpState>>, headers: HeaderMap, body: Bytes) -> StatusCode {
    let signature = headers.get("stripe-signature").and_then(|value| value.to_str().ok()).unwrap_or_default();
    match webhook::receive(&state.app, signature, &body).await {
        Ok(Received::Kept) => StatusCode::OK,
        Ok(Received::Disabled) => StatusCode::NOT_FOUND,
        Ok(Received::Refused(reason)) => {
            tracing::warn!(%reason, "an event of the payment provider was refused");
            StatusCode::BAD_REQUEST
        }
        Err(error) => {
            tracing::error!(%error, "an event of the payment provider could not be kept");
            StatusCode::SERVICE_UNAVAILABLE
        }
    }
}
