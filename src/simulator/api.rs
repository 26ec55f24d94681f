//! The provider's HTTP endpoints under `/v1`. Owns: routes, API keys, reading parameters into commands.
//! Does not own: how a call runs, with its key and faults (`call`), or what it does (`book`).

use axum::{
    Router,
    extract::{Path, Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, header::AUTHORIZATION},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde_json::json;

use super::{
    Simulator,
    book::{Book, Command, Refunded, new_id},
    call::Call,
    faults::Operation,
    params::Params,
    table::Page,
    wire::{self, ApiError},
};

pub fn routes() -> Router<Simulator> {
    Router::new()
        .route("/v1/payment_intents", post(create_intent).get(list_intents))
        .route("/v1/payment_intents/{id}", get(retrieve_intent))
        .route("/v1/payment_intents/{id}/confirm", post(confirm_intent))
        .route("/v1/payment_intents/{id}/cancel", post(cancel_intent))
        .route("/v1/refunds", post(create_refund).get(list_refunds))
        .route("/v1/refunds/{id}", get(retrieve_refund))
        .route("/v1/charges", get(list_charges))
        .layer(middleware::from_fn(authorize))
}

/// Lets in who has a test key, as a bearer or as the user name of basic authentication.
async fn authorize(request: Request, next: Next) -> Response {
    let mut response = match check_key(request.headers()) {
        Ok(()) => next.run(request).await,
        Err(error) => error.into_response(),
    };
    if let Ok(id) = HeaderValue::try_from(new_id("req")) {
        response.headers_mut().insert(HeaderName::from_static("request-id"), id);
    }
    response
}

fn check_key(headers: &HeaderMap) -> Result<(), ApiError> {
    let given = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let key = match given.split_once(' ') {
        Some(("Bearer", key)) => key.to_owned(),
        Some(("Basic", pair)) => {
            let pair = BASE64_STANDARD.decode(pair).unwrap_or_default();
            String::from_utf8_lossy(pair.split(|byte| *byte == b':').next().unwrap_or_default()).into_owned()
        }
        _ => return Err(ApiError::unauthorized("You did not provide an API key.")),
    };
    if key.starts_with("sk_test_") || key.starts_with("rk_test_") {
        return Ok(());
    }
    Err(ApiError::unauthorized("The simulator takes test keys only: sk_test_… or rk_test_…"))
}

async fn create_intent(State(simulator): State<Simulator>, call: Call, params: Params) -> Result<Response, ApiError> {
    params.only(&["amount", "currency", "payment_method", "payment_method_types[", "metadata[", "expand["])?;
    params.required("amount")?;
    let command = Command::Create {
        amount: params.amount()?.unwrap_or_default(),
        currency: params.currency()?,
        card: params.card()?,
        metadata: params.metadata(),
        expand: params.expand()?,
    };
    Ok(call.change(simulator, Operation::CreateIntent, &params, command).await)
}

async fn confirm_intent(
    State(simulator): State<Simulator>,
    Path(intent): Path<String>,
    call: Call,
    params: Params,
) -> Result<Response, ApiError> {
    params.only(&["payment_method", "return_url", "expand["])?;
    let (card, return_url, expand) = (params.card()?, params.return_url()?, params.expand()?);
    let command = Command::Confirm { intent, card, return_url, expand };
    Ok(call.change(simulator, Operation::ConfirmIntent, &params, command).await)
}

async fn cancel_intent(
    State(simulator): State<Simulator>,
    Path(intent): Path<String>,
    call: Call,
    params: Params,
) -> Result<Response, ApiError> {
    params.only(&["cancellation_reason", "expand["])?;
    let command = Command::Cancel { intent, reason: params.text("cancellation_reason"), expand: params.expand()? };
    Ok(call.change(simulator, Operation::CancelIntent, &params, command).await)
}

async fn create_refund(State(simulator): State<Simulator>, call: Call, params: Params) -> Result<Response, ApiError> {
    params.only(&["payment_intent", "charge", "amount", "reason", "metadata["])?;
    let of = match params.text("charge") {
        Some(charge) => Refunded::Charge(charge),
        None => Refunded::Intent(params.required("payment_intent")?.to_owned()),
    };
    let (reason, metadata) = (params.text("reason"), params.metadata());
    let command = Command::Refund { of, amount: params.amount()?, reason, metadata };
    Ok(call.change(simulator, Operation::CreateRefund, &params, command).await)
}

async fn retrieve_intent(
    State(simulator): State<Simulator>,
    Path(id): Path<String>,
    call: Call,
    params: Params,
) -> Result<Response, ApiError> {
    params.only(&["expand["])?;
    let expand = params.expand()?;
    let find = |book: &Book, url: &str| {
        let intent = book.intents.get(&id).ok_or_else(|| ApiError::missing("payment_intent", &id))?;
        Ok(wire::bytes(&wire::intent_body(intent, expand, url)))
    };
    Ok(call.read(&simulator, Operation::RetrieveIntent, find).await)
}

async fn retrieve_refund(
    State(simulator): State<Simulator>,
    Path(id): Path<String>,
    call: Call,
    params: Params,
) -> Result<Response, ApiError> {
    params.only(&[])?;
    let find = |book: &Book, _: &str| {
        let refund = book.ledger.refunds.get(&id).ok_or_else(|| ApiError::missing("refund", &id))?;
        Ok(wire::bytes(&wire::refund_body(refund)))
    };
    Ok(call.read(&simulator, Operation::RetrieveRefund, find).await)
}

async fn list_intents(State(simulator): State<Simulator>, call: Call, params: Params) -> Result<Response, ApiError> {
    params.only(&["limit", "starting_after", "created[", "expand["])?;
    let (page, created, expand) = (params.page()?, params.created()?, params.expand()?);
    let find = |book: &Book, url: &str| {
        let found = book.intents.page(&page, |intent| created.contains(&(intent.facts.created_ms / 1_000)));
        let (found, more) = found.ok_or_else(|| no_such_cursor(&page))?;
        let data: Vec<_> = found.iter().map(|intent| json!(wire::intent_body(intent, expand, url))).collect();
        Ok(wire::bytes(&json!({ "object": "list", "url": "/v1/payment_intents", "has_more": more, "data": data })))
    };
    Ok(call.read(&simulator, Operation::ListIntents, find).await)
}

async fn list_refunds(State(simulator): State<Simulator>, call: Call, params: Params) -> Result<Response, ApiError> {
    params.only(&["limit", "starting_after", "payment_intent"])?;
    let (page, intent) = (params.page()?, params.get("payment_intent"));
    let find = |book: &Book, _: &str| {
        let found = book.ledger.refunds.page(&page, |refund| intent.is_none_or(|intent| refund.payment_intent == intent));
        let (found, more) = found.ok_or_else(|| no_such_cursor(&page))?;
        let data: Vec<_> = found.into_iter().map(wire::refund_body).collect();
        Ok(wire::bytes(&json!({ "object": "list", "url": "/v1/refunds", "has_more": more, "data": data })))
    };
    Ok(call.read(&simulator, Operation::ListRefunds, find).await)
}

async fn list_charges(State(simulator): State<Simulator>, call: Call, params: Params) -> Result<Response, ApiError> {
    params.only(&["limit", "starting_after", "created[", "payment_intent"])?;
    let (page, created, intent) = (params.page()?, params.created()?, params.get("payment_intent"));
    let find = |book: &Book, _: &str| {
        let found = book
            .ledger
            .charges
            .page(&page, |charge| created.contains(&(charge.created_ms / 1_000)) && intent.is_none_or(|intent| charge.facts.id == intent));
        let (found, more) = found.ok_or_else(|| no_such_cursor(&page))?;
        let data: Vec<_> = found.into_iter().map(wire::charge_body).collect();
        Ok(wire::bytes(&json!({ "object": "list", "url": "/v1/charges", "has_more": more, "data": data })))
    };
    Ok(call.read(&simulator, Operation::ListCharges, find).await)
}

fn no_such_cursor(page: &Page) -> ApiError {
    let cursor = page.starting_after.as_deref().unwrap_or_default();
    ApiError::invalid("resource_missing", "starting_after", format!("No such object: '{cursor}'"))
}
