//! `POST /graphql`: one JSON request, one JSON answer.

use std::{pin::Pin, sync::Arc};

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

use super::{ClientAddress, HttpState, RequestId, authentication::authenticate};
use crate::resolvers::{
    ApiSchema,
    context::{Caller, Transport, request_data},
    errors::ApiError,
};

const JSON: &str = "application/json";
const GRAPHQL_RESPONSE: &str = "application/graphql-response+json";

pub async fn execute(
    State(state): State<HttpState>,
    Extension(RequestId(request_id)): Extension<RequestId>,
    Extension(ClientAddress(address)): Extension<ClientAddress>,
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
    let mut request = match serde_json::from_slice::<async_graphql::Request>(&body) {
        Ok(request) if !request.query.is_empty() || request.extensions.contains_key("persistedQuery") => request,
        _ => {
            return refuse(
                StatusCode::BAD_REQUEST,
                ApiError::BadRequest("One JSON object with `query` and perhaps `variables` and `operationName`."),
            );
        }
    };
    let viewer = match authenticate(&state.app, text(&headers, &header::AUTHORIZATION)) {
        Ok(viewer) => viewer.map(|(viewer, _)| viewer),
        Err(error @ ApiError::Unavailable(_)) => return refuse(StatusCode::SERVICE_UNAVAILABLE, error),
        Err(error) => return refuse(StatusCode::UNAUTHORIZED, error),
    };
    let user_agent = text(&headers, &header::USER_AGENT).map(str::to_owned);
    let caller = Caller { viewer, user_agent, request_id: Some(request_id.clone()), address: Some(address), transport: Transport::Post };
    request.data = request_data(&state.app, caller);

    let api = Api { schema: state.schema, request_id };
    let response = api.execute(request).await;
    answer(&headers, response)
}

pub async fn wrong_method(Extension(RequestId(request_id)): Extension<RequestId>) -> Response {
    let error = ApiError::BadRequest("Send operations by POST.");
    (StatusCode::METHOD_NOT_ALLOWED, [(header::ALLOW, "POST")], error_body(error, Some(&request_id))).into_response()
}

/// An answer that is an error alone.
pub fn error_body(error: ApiError, request_id: Option<&str>) -> Json<Value> {
    Json(json!({ "errors": [{ "message": error.message(), "extensions": { "code": error.code(), "requestId": request_id } }] }))
}

fn is_json(headers: &HeaderMap) -> bool {
    let essence = text(headers, &header::CONTENT_TYPE).and_then(|value| value.split(';').next());
    essence.is_some_and(|essence| essence.trim().eq_ignore_ascii_case(JSON))
}

fn text<'a>(headers: &'a HeaderMap, name: &header::HeaderName) -> Option<&'a str> {
    headers.get(name).map(|value| value.to_str().unwrap_or("unreadable"))
}

/// A request that could not be run at all has no `data`. With `application/graphql-response+json` it is a 400; older clients expect
/// 200.
fn answer(headers: &HeaderMap, response: GraphQlResponse) -> Response {
    let wants_new_type = text(headers, &header::ACCEPT).is_some_and(|accept| accept.contains(GRAPHQL_RESPONSE));
    let could_not_run = could_not_run(&response);
    let is_limited = response.errors.iter().any(|error| {
        let code = error.extensions.as_ref().and_then(|extensions| extensions.get("code"));
        code.is_some_and(|code| *code == "RATE_LIMITED".into())
    });
    let mut answer = if could_not_run {
        Json(json!({ "errors": response.errors })).into_response()
    } else {
        GraphQLResponse::from(response).into_response()
    };
    if wants_new_type && could_not_run {
        *answer.status_mut() = if is_limited { StatusCode::TOO_MANY_REQUESTS } else { StatusCode::BAD_REQUEST };
    }
    let content_type = if wants_new_type { GRAPHQL_RESPONSE } else { JSON };
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    answer
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

fn finished(mut response: GraphQlResponse, request_id: &str) -> GraphQlResponse {
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
