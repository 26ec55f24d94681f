//! `/dev/mailbox`: what demo would have mailed, as a page for people and as JSON for tests.

use std::sync::Arc;

use axum::{
    Json,
    extract::State,
    http::{HeaderMap, HeaderValue, header},
    response::{IntoResponse, Response},
};

use super::{HttpState, pages};

pub async fn show(State(state): State<Arc<HttpState>>, headers: HeaderMap) -> Response {
    let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let mut response = if accept.contains("application/json") {
        let mails = state.app.mailer.mailbox().map(|mailbox| mailbox.mails()).unwrap_or_default();
        Json(mails).into_response()
    } else {
        pages::page("mailbox.html")
    };
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response.headers_mut().insert(header::VARY, HeaderValue::from_static("Accept"));
    response
}
