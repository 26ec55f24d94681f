//! The web server: routes, their order, and what every answer carries.
//!
//! Owns: transport, status codes, headers, limits. Does not own: what an operation means (resolvers).

pub mod alone;
mod authentication;
mod graphql;
mod health;
mod mailbox;
mod pages;
mod webhooks;
mod websocket;

use axum::{
    Router,
    extract::{DefaultBodyLimit, Request},
    http::{HeaderName, HeaderValue, StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{any, get, post},
};
use tokio::net::TcpListener;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower_http::catch_panic::CatchPanicLayer;
use tracing::Instrument;
use uuid::Uuid;

use crate::{
    app::App,
    resolvers::{self, ApiSchema, errors::ApiError},
};

/// An operation with its variables; the largest one of ours has 4 KiB.
const MAX_BODY_BYTES: usize = 64 * 1024;
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

#[derive(Clone)]
pub struct HttpState {
    pub app: App,
    pub schema: ApiSchema,
    /// Ends sockets when the server stops.
    pub stop: CancellationToken,
    /// Sockets that are open: the server waits until they have been told.
    pub sockets: TaskTracker,
}

/// The id of a request, in its log lines, its answer's header and its errors.
#[derive(Clone, Debug)]
pub struct RequestId(pub String);

pub fn router(app: App, stop: CancellationToken, sockets: TaskTracker) -> Router {
    let has_mailbox = app.mailer.mailbox().is_some();
    let has_graphiql = app.config.http.developer_tools;
    let schema = resolvers::schema(app.clone());
    let state = HttpState { app, schema, stop, sockets };
    let mut router = Router::new()
        .route("/graphql", post(graphql::execute).fallback(graphql::wrong_method))
        .route("/graphql/ws", any(websocket::upgrade))
        .route("/webhooks/stripe", post(webhooks::stripe))
        .route("/verify", get(pages::verify))
        .route("/reset", get(pages::reset))
        .route("/assets/{file}", get(pages::asset))
        .route("/favicon.svg", get(pages::favicon))
        .route("/licenses.txt", get(pages::licenses))
        .route("/healthz/live", get(health::live))
        .route("/healthz/ready", get(health::ready));
    if has_graphiql {
        router = router.route("/", get(pages::graphiql));
    }
    if has_mailbox {
        router = router.route("/dev/mailbox", get(mailbox::show));
    }
    router
        .fallback(async || StatusCode::NOT_FOUND)
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .layer(CatchPanicLayer::custom(|_| {
            (StatusCode::INTERNAL_SERVER_ERROR, graphql::error_body(ApiError::Internal, None)).into_response()
        }))
        .layer(middleware::from_fn(with_request_id))
        .with_state(state)
}

/// Serves until `stop`, then finishes the requests that are under way and tells the sockets. The caller bounds the time.
///
/// # Errors
/// When the listener breaks.
pub async fn serve(listener: TcpListener, app: App, stop: CancellationToken) -> std::io::Result<()> {
    let sockets = TaskTracker::new();
    let router = router(app, stop.clone(), sockets.clone());
    axum::serve(listener, router).with_graceful_shutdown(stop.cancelled_owned()).await?;
    sockets.close();
    sockets.wait().await;
    Ok(())
}

async fn with_request_id(mut request: Request, next: Next) -> Response {
    let id = Uuid::now_v7().simple().to_string();
    request.extensions_mut().insert(RequestId(id.clone()));
    let span = tracing::info_span!("request", id, method = %request.method(), path = request.uri().path());
    let mut response = next.run(request).instrument(span).await;
    let headers = response.headers_mut();
    if let Ok(value) = HeaderValue::from_str(&id) {
        headers.insert(REQUEST_ID, value);
    }
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    response
}
