//! `POST /graphql`: one JSON request, one JSON answer. One for everybody comes from the page cache.

use std::{pin::Pin, sync::Arc, time::Duration};

use async_graphql::{Data, Executor, Response as GraphQlResponse, ServerError};
use async_graphql_axum::GraphQLResponse;
use axum::{
    Extension, Json,
    body::Bytes,
    extract::{State, rejection::BytesRejection},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use futures_util::{Stream, StreamExt};
use serde_json::{Value, json};

use super::{
    ClientAddress, HttpState, RequestId,
    authentication::authenticate,
    operations::{OperationName, outcome},
    page_cache::refused,
};
use crate::{
    metrics::OperationOutcome,
    resolvers::{
        ApiSchema,
        context::{Caller, Transport, request_data},
        errors::ApiError,
        trusted_documents,
    },
    services::page_cache::{Outcome, Page},
};

const JSON: &str = "application/json";
pub const GRAPHQL_RESPONSE: &str = "application/graphql-response+json";

pub async fn execute(
    State(state): State<Arc<HttpState>>,
    Extension(RequestId(request_id)): Extension<RequestId>,
    Extension(ClientAddress(address)): Extension<ClientAddress>,
    Extension(name): Extension<OperationName>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    let refuse = |status, error| (status, error_body(error, Some(&request_id))).into_response();
    if !is_json(&headers) {
        return refuse(StatusCode::UNSUPPORTED_MEDIA_TYPE, ApiError::BadRequest("Send the request as application/json."));
    }
    let body = match body {
        Ok(body) => body,
        Err(rejection) => {
            return refuse(rejection.status(), ApiError::BadRequest("The body is too large (64 KiB at most) or was cut off."));
        }
    };
    let pages = state.app.pages.is_on().then_some(&state.pages);
    // What is known by its bytes was read before.
    let known = pages.and_then(|pages| pages.known(&body));
    let mut request = if known.is_none() { read(&body) } else { None };
    let operation = known.map(|wanted| wanted.operation).or_else(|| request.as_ref().map(trusted_documents::name));
    let Some(operation) = operation else {
        let error = ApiError::BadRequest("One JSON object with `query` and perhaps `variables` and `operationName`.");
        return refuse(StatusCode::BAD_REQUEST, error);
    };
    name.tell(operation);
    let viewer = match authenticate(&state.app, text(&headers, &header::AUTHORIZATION)) {
        Ok(viewer) => viewer.map(|(viewer, _)| viewer),
        Err(error @ ApiError::Unavailable(_)) => return refuse(StatusCode::SERVICE_UNAVAILABLE, error),
        Err(error) => return refuse(StatusCode::UNAUTHORIZED, error),
    };
    let user_agent = text(&headers, &header::USER_AGENT).map(str::to_owned);
    let caller = Caller { viewer, user_agent, address: Some(address), transport: Transport::Post };
    if let Err(error) = caller.count_operation(&state.app) {
        return answer(&headers, finished(GraphQlResponse::from_errors(vec![error.into()]), &request_id));
    }
    if let Some(pages) = pages
        && let Some(wanted) = known.or_else(|| pages.find(&body, request.as_mut()?))
    {
        match pages.get(wanted, || read_again(&body)).await {
            Some(Outcome::Page(ready)) => {
                let mut answer = page(&headers, &ready);
                answer.extensions_mut().insert(OperationOutcome::Ok);
                return answer;
            }
            Some(Outcome::Refusal(refusal)) => {
                let response = refused(&refusal);
                // A customer may ask for more than a visitor, for whom pages are made.
                if caller.viewer.is_none() || !response.errors.iter().any(|error| has_code(error, ApiError::TooComplex)) {
                    return answer(&headers, finished(response, &request_id));
                }
            }
            None => {}
        }
    }
    let mut request = request.unwrap_or_else(|| read_again(&body));
    request.data = request_data(&state.app, caller);
    let api = Api { schema: state.schema.clone(), request_id };
    let response = api.execute(request).await;
    answer(&headers, response)
}

fn read(body: &[u8]) -> Option<async_graphql::Request> {
    let request: async_graphql::Request = serde_json::from_slice(body).ok()?;
    (!request.query.is_empty() || request.extensions.contains_key("persistedQuery")).then_some(request)
}

pub async fn wrong_method(Extension(RequestId(request_id)): Extension<RequestId>) -> Response {
    let error = ApiError::BadRequest("Send operations by POST.");
    (StatusCode::METHOD_NOT_ALLOWED, [(header::ALLOW, "POST")], error_body(error, Some(&request_id))).into_response()
}

/// What could be read before.
fn read_again(body: &[u8]) -> async_graphql::Request {
    read(body).unwrap_or_else(|| async_graphql::Request::new(""))
}

/// An answer that is an error alone.
pub fn error_body(error: ApiError, request_id: Option<&str>) -> Json<Value> {
    Json(json!({ "errors": [{ "message": error.message(), "extensions": { "code": error.code(), "requestId": request_id } }] }))
}

pub fn is_json(headers: &HeaderMap) -> bool {
    let essence = text(headers, &header::CONTENT_TYPE).and_then(|value| value.split(';').next());
    essence.is_some_and(|essence| essence.trim().eq_ignore_ascii_case(JSON))
}

pub fn text<'a>(headers: &'a HeaderMap, name: &header::HeaderName) -> Option<&'a str> {
    headers.get(name).map(|value| value.to_str().unwrap_or("unreadable"))
}

/// A request that could not be run at all has no `data`. With `application/graphql-response+json` it is a 400; older clients expect
/// 200.
fn answer(headers: &HeaderMap, response: GraphQlResponse) -> Response {
    let outcome = outcome(&response);
    let could_not_run = could_not_run(&response);
    let is_limited = response.errors.iter().any(|error| has_code(error, ApiError::RateLimited { retry_after: Duration::ZERO }));
    let mut answer = if could_not_run {
        Json(json!({ "errors": response.errors })).into_response()
    } else {
        GraphQLResponse::from(response).into_response()
    };
    if wants_new_type(headers) && could_not_run {
        *answer.status_mut() = if is_limited { StatusCode::TOO_MANY_REQUESTS } else { StatusCode::BAD_REQUEST };
    }
    answer.headers_mut().insert(header::CONTENT_TYPE, content_type(headers));
    answer.extensions_mut().insert(outcome);
    answer
}

/// An answer for everybody.
pub fn page(headers: &HeaderMap, page: &Page) -> Response {
    ([(header::CONTENT_TYPE, content_type(headers))], page.body.clone()).into_response()
}

fn wants_new_type(headers: &HeaderMap) -> bool {
    text(headers, &header::ACCEPT).is_some_and(|accept| accept.contains(GRAPHQL_RESPONSE))
}

fn content_type(headers: &HeaderMap) -> HeaderValue {
    HeaderValue::from_static(if wants_new_type(headers) { GRAPHQL_RESPONSE } else { JSON })
}

fn has_code(error: &ServerError, wanted: ApiError) -> bool {
    let code = error.extensions.as_ref().and_then(|extensions| extensions.get("code"));
    code.is_some_and(|code| *code == wanted.code().into()) || code_of(error) == wanted.code()
}

/// Whether the errors are about the request itself: nothing of it was executed.
pub fn could_not_run(response: &GraphQlResponse) -> bool {
    response.data == async_graphql::Value::Null && response.is_err() && response.errors.iter().all(|error| error.path.is_empty())
}

/// The schema as clients meet it: every error has a code and the request's id. Serves HTTP and WebSocket alike.
#[derive(Clone)]
pub struct Api {
    pub schema: ApiSchema,
    pub request_id: String,
}

impl Executor for Api {
    async fn execute(&self, request: async_graphql::Request) -> GraphQlResponse {
        finished(self.schema.execute(request).await, &self.request_id)
    }

    fn execute_stream(
        &self,
        request: async_graphql::Request,
        session_data: Option<Arc<Data>>,
    ) -> Pin<Box<dyn Stream<Item = GraphQlResponse> + Send>> {
        let request_id = self.request_id.clone();
        let stream = Executor::execute_stream(&self.schema, request, session_data);
        Box::pin(stream.map(move |response| finished(response, &request_id)))
    }
}

pub fn finished(mut response: GraphQlResponse, request_id: &str) -> GraphQlResponse {
    for error in &mut response.errors {
        let code = code_of(error);
        let extensions = error.extensions.get_or_insert_default();
        if extensions.get("code").is_none() {
            extensions.set("code", code);
        }
        extensions.set("requestId", request_id);
    }
    response
}

/// Errors of ours carry their code; the others are the library's, about the request itself.
fn code_of(error: &ServerError) -> &'static str {
    let is_limit = ["too complex", "too deep"].iter().any(|words| error.message.contains(words));
    if is_limit { ApiError::TooComplex.code() } else { ApiError::BadRequest("").code() }
}
