//! The page a customer is sent to when the bank wants to know who pays. Owns: the page and its two buttons.
//! Does not own: what an answer does to the intent (`book`).

use axum::{
    Form, Router,
    extract::{Path, State},
    http::StatusCode,
    response::{Html, IntoResponse, Redirect, Response},
    routing::get,
};
use serde::Deserialize;

use super::{Simulator, intents::Status};

const PAGE: &str = "<!doctype html>
<html lang=\"en\"><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">
<title>Payment simulator</title>
<h1>Is it you who pays?</h1>
<p>This page stands for the bank of the card's holder. No money moves.</p>
<form method=\"post\">
<button name=\"outcome\" value=\"complete\">Yes, pay</button>
<button name=\"outcome\" value=\"fail\">No, fail the authentication</button>
</form>
</html>";

pub fn routes() -> Router<Simulator> {
    Router::new().route("/authenticate/{intent}", get(show).post(answer))
}

#[derive(Deserialize)]
struct Answer {
    outcome: Outcome,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Outcome {
    Complete,
    Fail,
}

async fn show(State(simulator): State<Simulator>, Path(intent): Path<String>) -> Response {
    let waits = simulator.book().intents.get(&intent).is_some_and(|intent| intent.status == Status::RequiresAction);
    if waits { Html(PAGE).into_response() } else { not_waiting() }
}

/// Settles the authentication and sends the customer back to the shop.
async fn answer(State(simulator): State<Simulator>, Path(intent): Path<String>, Form(form): Form<Answer>) -> Response {
    let passed = matches!(form.outcome, Outcome::Complete);
    let (intent, written) = {
        let mut book = simulator.book();
        let Some((intent, changes)) = book.authenticate(&intent, passed, super::now_ms()) else {
            return not_waiting();
        };
        (intent, simulator.publish(&book, changes))
    };
    if let Some(written) = written
        && written.await.is_err()
    {
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    }
    let Some(return_url) = &intent.return_url else {
        return StatusCode::NO_CONTENT.into_response();
    };
    let joint = if return_url.contains('?') { '&' } else { '?' };
    let status = if passed { "succeeded" } else { "failed" };
    let id = &intent.facts.id;
    Redirect::to(&format!("{return_url}{joint}payment_intent={id}&redirect_status={status}")).into_response()
}

fn not_waiting() -> Response {
    (StatusCode::NOT_FOUND, "No payment waits for an authentication here.").into_response()
}
