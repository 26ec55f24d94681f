//! What stands before the routes: the API's CORS, the refusal of operations that would find no place, and pages that memory has. Those two come
//! by the ten thousand a second and need nothing that a handler has; the way to one costs more than they do.
//!
//! Owns: what is answered here, that everything else goes on untouched, and that each operation is counted. Does not own: the routes
//! (mod.rs), the lanes (lane.rs), what a page is (`page_cache.rs`), what counts as which outcome (operations.rs). Called by `server.rs`.

use std::{
    convert::Infallible,
    net::SocketAddr,
    ops::ControlFlow,
    sync::Arc,
    task::{Context, Poll},
    time::Instant,
};

use axum::{
    Router,
    body::Body,
    extract::{ConnectInfo, Request},
    http::{Method, header, request::Parts},
    response::Response,
};
use futures_util::{FutureExt, StreamExt, future::BoxFuture, stream};
use tower::{Layer, Service, ServiceExt};
use tower_http::cors::Cors;

use super::{
    HttpState, RequestId,
    client_address::{client_address, network},
    complete, cors, graphql,
    lane::{Lane, refusal},
    operations::{Answered, OperationName},
};
use crate::{
    metrics::{Counted, OperationOutcome},
    resolvers::context::Caller,
};

/// Where all requests come in.
#[derive(Clone)]
pub struct Front {
    router: Router,
    api: Cors<Api>,
}

impl Front {
    pub fn new(router: Router, state: Arc<HttpState>, operations: Lane) -> Self {
        let api = Api { router: router.clone(), state: state.clone(), operations };
        Self { router, api: cors(&state.app.config.http).layer(api) }
    }

    pub async fn answer(mut self, peer: SocketAddr, mut request: Request) -> Result<Response, Infallible> {
        request.extensions_mut().insert(ConnectInfo(peer));
        match request.uri().path() {
            "/graphql" => self.api.call(request).await,
            path if path.starts_with("/graphql/q/") => self.api.call(request).await,
            _ => self.router.oneshot(request).await,
        }
    }
}

/// The routes that pages of other origins may call.
#[derive(Clone)]
struct Api {
    router: Router,
    state: Arc<HttpState>,
    operations: Lane,
}

impl Service<Request> for Api {
    type Response = Response;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request) -> Self::Future {
        self.clone().answer(request).boxed()
    }
}

impl Api {
    async fn answer(self, request: Request) -> Result<Response, Infallible> {
        let start = Instant::now();
        let state = self.state.clone();
        let (response, answered) = self.find_answer(request).await?;
        state.meters.count(answered, start.elapsed());
        Ok(response)
    }

    async fn find_answer(self, mut request: Request) -> Result<(Response, Answered), Infallible> {
        if request.method() == Method::POST && request.uri().path() == "/graphql" {
            if self.operations.is_full() {
                let id = RequestId::new();
                let refusal = complete(refusal(&id), &id, &self.state.app.config.http);
                let answered = Answered::of(&refusal, &OperationName::default());
                return Ok((refusal, answered));
            }
            request = match self.in_memory(request) {
                ControlFlow::Break(page) => return Ok(page),
                ControlFlow::Continue(request) => request,
            };
        }
        let _in_flight = Counted::one(&self.state.app.metrics.operations_in_flight);
        let name = OperationName::default();
        request.extensions_mut().insert(name.clone());
        let response = self.router.oneshot(request).await?;
        let answered = Answered::of(&response, &name);
        Ok((response, answered))
    }

    /// The fresh page for a visitor who sends what was sent before, byte for byte; otherwise the request as it was.
    fn in_memory(&self, request: Request) -> ControlFlow<(Response, Answered), Request> {
        let headers = request.headers();
        if headers.contains_key(header::AUTHORIZATION) || !graphql::is_json(headers) {
            return ControlFlow::Continue(request);
        }
        let (parts, body) = request.into_parts();
        let mut chunks = body.into_data_stream();
        // A small body has come with its head. Who sends it in pieces goes the long way, where there is a deadline.
        match chunks.next().now_or_never().flatten() {
            Some(Ok(sent)) if is_whole(&parts, sent.len()) => match self.page(&parts, &sent) {
                Some(page) => ControlFlow::Break(page),
                None => ControlFlow::Continue(Request::from_parts(parts, Body::from(sent))),
            },
            first => ControlFlow::Continue(Request::from_parts(parts, Body::from_stream(stream::iter(first).chain(chunks)))),
        }
    }

    /// `None` also for who asks too often: the handler tells so.
    fn page(&self, parts: &Parts, sent: &[u8]) -> Option<(Response, Answered)> {
        let app = &self.state.app;
        let (page, operation) = self.state.pages.fresh(sent)?;
        let ConnectInfo(peer) = parts.extensions.get::<ConnectInfo<SocketAddr>>()?;
        let address = network(client_address(&parts.headers, peer.ip(), app.config.http.trusted_proxy_hops));
        Caller { address: Some(address), ..Caller::default() }.count_operation(app).ok()?;
        let response = complete(graphql::page(&parts.headers, &page), &RequestId::new(), &app.config.http);
        Some((response, Answered { operation, outcome: OperationOutcome::Ok }))
    }
}

fn is_whole(parts: &Parts, bytes: usize) -> bool {
    let announced = parts.headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok());
    announced.and_then(|length| length.parse().ok()) == Some(bytes)
}
