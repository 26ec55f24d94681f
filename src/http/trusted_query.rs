//! `GET /graphql/q/{sha256}`: a query of our own clients by its hash, for browsers' caches and CDNs. Only one whose answer is the
//! same for everybody: who asks is not looked at, so that a cache in between may be as blind.

use std::sync::Arc;

use async_graphql::{Request, Response as GraphQlResponse, Variables};
use axum::{
    Extension,
    extract::{Path, Query, State},
    http::{HeaderMap, HeaderValue, StatusCode, Uri, header},
    response::{IntoResponse, Response},
};
use serde::Deserialize;

use super::{
    ClientAddress, HttpState, RequestId,
    graphql::{GRAPHQL_RESPONSE, could_not_run, error_body, finished},
    operations::{OperationName, outcome},
    page_cache::refused,
};
use crate::{
    metrics::OperationOutcome,
    resolvers::{context::Caller, errors::ApiError, trusted_documents},
    services::page_cache::{Outcome, Page},
};

/// Of the part behind `?`.
const MAX_QUERY_BYTES: usize = 8 * 1024;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Parameters {
    /// A JSON object.
    variables: Option<String>,
    operation_name: Option<String>,
}

pub async fn execute(
    State(state): State<Arc<HttpState>>,
    Extension(RequestId(request_id)): Extension<RequestId>,
    Extension(ClientAddress(address)): Extension<ClientAddress>,
    Extension(name): Extension<OperationName>,
    Path(hash): Path<String>,
    uri: Uri,
    headers: HeaderMap,
) -> Response {
    let refuse = |status, error| (status, error_body(error, Some(&request_id))).into_response();
    let bad = |message| refuse(StatusCode::BAD_REQUEST, ApiError::BadRequest(message));
    let query = uri.query().unwrap_or_default();
    if query.len() > MAX_QUERY_BYTES {
        return refuse(StatusCode::URI_TOO_LONG, ApiError::BadRequest("The address is too long: send the operation by POST."));
    }
    let visitor = Caller { address: Some(address), ..Caller::default() };
    if let Err(error) = visitor.count_operation(&state.app) {
        return refuse(StatusCode::TOO_MANY_REQUESTS, error);
    }
    let Some(document) = trusted_documents::find(&hash) else {
        return refuse(StatusCode::NOT_FOUND, ApiError::BadRequest("No document has this hash."));
    };
    name.tell(trusted_documents::name_of(document));
    let Ok(Query(Parameters { variables, operation_name })) = Query::try_from_uri(&uri) else {
        return bad("Nothing but `variables`, a JSON object, and `operationName`.");
    };
    let Ok(variables) = variables.as_deref().map_or(Ok(Variables::default()), serde_json::from_str) else {
        return bad("`variables` is a JSON object.");
    };
    let mut request = Request::new(document).variables(variables);
    request.operation_name = operation_name;
    let sent = format!("GET {hash}?{query}");
    let Some(wanted) = state.pages.known(sent.as_bytes()).or_else(|| state.pages.find(sent.as_bytes(), &mut request)) else {
        return bad("Its answer is not the same for everybody, or it is no query: send it by POST.");
    };
    let (mut answer, outcome) = match state.pages.get(wanted, || request).await {
        Some(Outcome::Page(page)) => (answer(&state, &headers, &page), OperationOutcome::Ok),
        Some(Outcome::Refusal(refusal)) => answer_refusal(finished(refused(&refusal), &request_id)),
        None => (refuse(StatusCode::INTERNAL_SERVER_ERROR, ApiError::Internal), OperationOutcome::Failed),
    };
    answer.extensions_mut().insert(outcome);
    answer
}

/// With for how long it may be shown to others, or just that it has not changed.
fn answer(state: &HttpState, headers: &HeaderMap, page: &Page) -> Response {
    let (max_age, revalidated_within) = page.others_may_show_it_for(state.app.clock.now());
    let mut control = format!("public, max-age={}", max_age.num_seconds());
    if revalidated_within.num_seconds() > 0 {
        control = format!("{control}, stale-while-revalidate={}", revalidated_within.num_seconds());
    }
    let told = [(header::CACHE_CONTROL, control), (header::ETAG, page.etag.clone())];
    if is_known(headers, &page.etag) {
        return (StatusCode::NOT_MODIFIED, told).into_response();
    }
    // Always of this type: a cache need not keep one answer for each `Accept`.
    (told, [(header::CONTENT_TYPE, HeaderValue::from_static(GRAPHQL_RESPONSE))], page.body.clone()).into_response()
}

fn answer_refusal(response: GraphQlResponse) -> (Response, OperationOutcome) {
    let status = if could_not_run(&response) { StatusCode::BAD_REQUEST } else { StatusCode::OK };
    let content_type = [(header::CONTENT_TYPE, HeaderValue::from_static(GRAPHQL_RESPONSE))];
    let answer = (status, content_type, serde_json::to_vec(&response).unwrap_or_default()).into_response();
    (answer, outcome(&response))
}

/// Whether the client has these bytes already.
fn is_known(headers: &HeaderMap, etag: &str) -> bool {
    let given = headers.get_all(header::IF_NONE_MATCH).into_iter().filter_map(|value| value.to_str().ok());
    given.flat_map(|value| value.split(',')).map(str::trim).any(|tag| tag == "*" || tag.trim_start_matches("W/") == etag)
}
