//! What an operator's machines ask, on a port of its own that nobody else should reach: metrics, and the health of servers and workers
//! alike.

use axum::{Router, extract::State, http::header, response::IntoResponse, routing::get};
use prometheus_client::encoding::prometheus_text::CONTENT_TYPE;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::health;
use crate::{app::App, services};

/// Serves until the process ends, so that its last moments are seen as well; from `stop` on it is not ready.
pub async fn serve(listener: TcpListener, app: App, stop: CancellationToken) {
    let metrics = Router::new().route("/metrics", get(show)).with_state(app.for_followers());
    if let Err(error) = axum::serve(listener, metrics.merge(health::routes(app, stop))).await {
        tracing::error!(%error, "metrics are shown no more");
    }
}

async fn show(State(app): State<App>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, CONTENT_TYPE)], services::metrics::exposition(&app).await)
}
