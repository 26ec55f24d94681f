//! The web server: routes, their order, and what every answer carries.
//!
//! Owns: transport, status codes, headers, limits. Does not own: what an operation means (resolvers).

pub mod alone;
mod authentication;
mod client_address;
mod front;
mod graphql;
mod health;
mod lane;
mod mailbox;
mod metrics;
mod operations;
mod page_cache;
mod pages;
mod server;
mod sockets;
mod trusted_query;
mod webhooks;
mod websocket;

use std::{
    convert::Infallible,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use axum::{
    Router,
    extract::{ConnectInfo, DefaultBodyLimit, MatchedPath, Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{any, get, post},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower_http::{catch_panic::CatchPanicLayer, cors::CorsLayer};
use tracing::{Instrument, Span, field::Empty};
use uuid::Uuid;

use self::{
    client_address::{client_address, network},
    front::Front,
    lane::Lane,
    operations::Meters,
    page_cache::Pages,
    sockets::Sockets,
};
use crate::{
    app::App,
    config::HttpConfig,
    resolvers::{self, ApiSchema, documents::KnownDocuments, errors::ApiError},
    telemetry,
};

/// An operation with its variables; the largest one of ours has 4 KiB.
const MAX_BODY_BYTES: usize = 64 * 1024;
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
/// The provider sends its events one by one; a few at once are plenty.
const WEBHOOKS_AT_ONCE: usize = 32;
/// How long a browser remembers what it may send here.
const CORS_MAX_AGE: Duration = Duration::from_hours(24);

pub use metrics::serve as serve_metrics;
pub use server::serve;

/// Pages have a policy of their own (pages.rs); everything else is no page. Nothing is stored unless its handler says so.
const EVERY_ANSWER: [(HeaderName, HeaderValue); 6] = [
    (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
    (header::CONTENT_SECURITY_POLICY, HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'")),
    (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
    (HeaderName::from_static("cross-origin-opener-policy"), HeaderValue::from_static("same-origin")),
    (HeaderName::from_static("cross-origin-resource-policy"), HeaderValue::from_static("same-origin")),
];
/// Browsers that have once come by TLS come by nothing else.
const ONE_YEAR: HeaderValue = HeaderValue::from_static("max-age=31536000");

/// What handlers share. It is handed over many times in a request, as one pointer.
pub struct HttpState {
    pub app: App,
    pub schema: ApiSchema,
    /// Answers for everybody.
    pages: Pages,
    meters: Meters,
    /// Ends sockets when the server stops.
    pub stop: CancellationToken,
    /// Counts the sockets that are open.
    sockets: Arc<Sockets>,
    /// Serve the sockets: the server waits until they have been told.
    socket_tasks: TaskTracker,
}

/// The id of a request, in its log lines, its answer's header and its errors; the id of its trace too.
#[derive(Clone, Debug)]
pub struct RequestId(pub String);

impl RequestId {
    /// For a request that leaves no trace.
    fn new() -> Self {
        Self(Uuid::now_v7().simple().to_string())
    }

    /// Begins a request's trace.
    fn of_trace(span: &Span, headers: &HeaderMap) -> Self {
        let strangers = headers.get(TRACEPARENT).and_then(|value| value.to_str().ok());
        telemetry::begin_trace(span, strangers).map_or_else(Self::new, Self)
    }
}

/// Where a request comes from, as far as our proxies can be believed: an address, or the network that counts as one client.
#[derive(Clone, Copy, Debug)]
pub struct ClientAddress(pub IpAddr);

/// Everything that a connection needs to know.
fn front(app: App, stop: CancellationToken, socket_tasks: TaskTracker) -> Front {
    let documents = KnownDocuments::new(app.config.http.only_trusted_documents);
    let schema = resolvers::schema(app.clone(), documents.clone());
    let pages = Pages::new(app.clone(), schema.clone(), documents);
    let sockets = Arc::new(Sockets::new(&app.config.http));
    let operations = Lane::new(app.config.http.max_in_flight, app.config.http.deadline);
    let meters = Meters::new(app.clone());
    let state = Arc::new(HttpState { app, schema, pages, meters, stop, sockets, socket_tasks });
    Front::new(router(state.clone(), operations.clone()), state, operations)
}

fn router(state: Arc<HttpState>, operations: Lane) -> Router {
    let http = &state.app.config.http;
    let webhooks = Lane::new(WEBHOOKS_AT_ONCE, http.deadline);
    let through = |lane| middleware::from_fn_with_state(lane, lane::limit);
    let graphql = post(graphql::execute).fallback(graphql::wrong_method);
    let operations = through(operations);
    let mut router = Router::new()
        .route("/graphql", graphql.layer::<_, Infallible>(operations.clone()))
        .route("/graphql/q/{hash}", get(trusted_query::execute).layer::<_, Infallible>(operations))
        .route("/graphql/ws", any(websocket::upgrade))
        .route("/webhooks/stripe", post(webhooks::stripe).layer(through(webhooks)))
        .route("/verify", get(pages::verify))
        .route("/reset", get(pages::reset))
        .route("/confirm-email", get(pages::confirm_email))
        .route("/assets/{file}", get(pages::asset))
        .route("/favicon.svg", get(pages::favicon))
        .route("/licenses.txt", get(pages::licenses))
        .merge(health::routes(state.app.clone(), state.stop.clone()));
    if http.developer_tools {
        router = router.route("/", get(pages::graphiql));
    }
    if state.app.mailer.mailbox().is_some() {
        router = router.route("/dev/mailbox", get(mailbox::show));
    }
    router
        .fallback(async || StatusCode::NOT_FOUND)
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .layer(CatchPanicLayer::custom(|_| {
            (StatusCode::INTERNAL_SERVER_ERROR, graphql::error_body(ApiError::Internal, None)).into_response()
        }))
        .layer(middleware::from_fn_with_state(state.clone(), with_request_id))
        .with_state(state)
}

/// What browsers may send from pages of other origins: those that are configured, tokens in `Authorization`, no cookies.
fn cors(http: &HttpConfig) -> CorsLayer {
    let origins: Vec<HeaderValue> = http.allowed_origins.iter().filter_map(|origin| origin.parse().ok()).collect();
    CorsLayer::new()
        .allow_origin(origins)
        .allow_methods([Method::GET, Method::POST])
        .allow_headers([header::AUTHORIZATION, header::CONTENT_TYPE])
        .expose_headers([REQUEST_ID, header::RETRY_AFTER, header::ETAG])
        .max_age(CORS_MAX_AGE)
}

/// Gives each request its id and its client's address, and each answer what every answer carries.
async fn with_request_id(
    State(state): State<Arc<HttpState>>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    mut request: Request,
    next: Next,
) -> Response {
    let span = request_span(&request);
    let id = RequestId::of_trace(&span, request.headers());
    let http = &state.app.config.http;
    let address = client_address(request.headers(), peer.ip(), http.trusted_proxy_hops);
    request.extensions_mut().insert(id.clone());
    request.extensions_mut().insert(ClientAddress(network(address)));
    let response = next.run(request).instrument(span.clone()).await;
    telemetry::record_status(&span, response.status().as_u16());
    complete(response, &id, http)
}

/// Named by its route: paths that lead nowhere are a client's own words.
fn request_span(request: &Request) -> Span {
    let route = request.extensions().get::<MatchedPath>().map_or("", MatchedPath::as_str);
    let name = format!("{} {route}", request.method());
    tracing::info_span!(parent: None, "request", trace_id = Empty, otel.name = name.trim_end(), otel.kind = "server")
}

/// An answer with what every answer carries.
fn complete(mut response: Response, id: &RequestId, http: &HttpConfig) -> Response {
    let headers = response.headers_mut();
    if let Ok(value) = HeaderValue::from_str(&id.0) {
        headers.insert(REQUEST_ID, value);
    }
    for (name, value) in EVERY_ANSWER {
        headers.entry(name).or_insert(value);
    }
    if http.public_url.starts_with("https://") {
        headers.insert(header::STRICT_TRANSPORT_SECURITY, ONE_YEAR);
    }
    response
}
