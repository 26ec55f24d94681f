//! How operations are counted: once for each answer, wherever it was made, by name, outcome and duration.
//!
//! Owns: what counts as which outcome. Called by front.rs, which every operation by HTTP comes through and goes out by.

use std::{
    collections::HashMap,
    sync::{Arc, OnceLock},
    time::Duration,
};

use async_graphql::{Response as GraphQlResponse, Value};
use axum::{http::StatusCode, response::Response};

use crate::{
    app::App,
    metrics::{OperationMeter, OperationOutcome},
    resolvers::{errors::ApiError, trusted_documents},
};

/// The name of the operation that a request turned out to be. Its handler tells it as soon as it knows, so that an operation which is cut
/// off is counted by its name as well.
#[derive(Clone, Default)]
pub struct OperationName(Arc<OnceLock<&'static str>>);

impl OperationName {
    pub fn tell(&self, name: &'static str) {
        // Who tells it again says the same.
        let _ = self.0.set(name);
    }
}

/// An operation that was answered.
#[derive(Clone, Copy, Debug)]
pub struct Answered {
    pub operation: &'static str,
    pub outcome: OperationOutcome,
}

impl Answered {
    /// The outcome is what the handler put into the answer's extensions, or what the status tells: then it was cut off or refused.
    pub fn of(response: &Response, OperationName(name): &OperationName) -> Self {
        let outcome = response.extensions().get().copied().unwrap_or_else(|| outcome_of(response.status()));
        Self { operation: name.get().copied().unwrap_or(trusted_documents::OTHER), outcome }
    }
}

fn outcome_of(status: StatusCode) -> OperationOutcome {
    match status {
        StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => OperationOutcome::Overloaded,
        status if status.is_server_error() => OperationOutcome::Failed,
        status if status.is_client_error() => OperationOutcome::Refused,
        _ => OperationOutcome::Ok,
    }
}

/// The worst that an answer tells.
pub fn outcome(response: &GraphQlResponse) -> OperationOutcome {
    const FAILURES: [&str; 2] = [ApiError::Internal.code(), ApiError::Timeout.code()];
    const OVERLOAD: [&str; 2] = [ApiError::Unavailable("").code(), ApiError::RateLimited { retry_after: Duration::ZERO }.code()];
    let has_code = |codes: [&str; 2]| {
        let told = response.errors.iter().filter_map(|error| error.extensions.as_ref()?.get("code"));
        told.filter_map(|code| if let Value::String(code) = code { Some(code.as_str()) } else { None }).any(|code| codes.contains(&code))
    };
    if has_code(FAILURES) {
        OperationOutcome::Failed
    } else if has_code(OVERLOAD) {
        OperationOutcome::Overloaded
    } else if response.is_err() || has_user_errors(&response.data) {
        OperationOutcome::Refused
    } else {
        OperationOutcome::Ok
    }
}

/// Whether a mutation's payload tells of mistakes.
fn has_user_errors(data: &Value) -> bool {
    let Value::Object(fields) = data else { return false };
    fields.values().any(|payload| {
        let Value::Object(payload) = payload else { return false };
        matches!(payload.get("userErrors"), Some(Value::List(errors)) if !errors.is_empty())
    })
}

/// A meter for each operation of our own clients, made when it first comes, and one for all others.
pub struct Meters {
    app: App,
    meters: HashMap<&'static str, OnceLock<OperationMeter>>,
}

impl Meters {
    pub fn new(app: App) -> Self {
        let meters = Self { app, meters: trusted_documents::names().map(|name| (name, OnceLock::new())).collect() };
        meters.meter(trusted_documents::OTHER);
        meters
    }

    pub fn count(&self, answered: Answered, took: Duration) {
        if let Some(meter) = self.meter(answered.operation) {
            meter.count(answered.outcome, took);
        }
    }

    fn meter(&self, operation: &'static str) -> Option<&OperationMeter> {
        self.meters.get(operation).map(|meter| meter.get_or_init(|| self.app.metrics.operation(operation)))
    }
}

#[cfg(test)]
mod tests {
    use async_graphql::{ServerError, value};

    use super::*;

    fn failed(code: &str) -> GraphQlResponse {
        let mut error = ServerError::new("", None);
        error.extensions.get_or_insert_default().set("code", code);
        GraphQlResponse::from_errors(vec![error])
    }

    #[test]
    fn an_answer_counts_as_the_worst_that_it_tells() {
        let refused = value!({ "cancelOrder": { "order": null, "userErrors": [{ "code": "STALE" }] } });
        let done = value!({ "cancelOrder": { "order": { "id": "1" }, "userErrors": [] } });
        for (response, expected) in [
            (GraphQlResponse::new(done), OperationOutcome::Ok),
            (GraphQlResponse::new(refused), OperationOutcome::Refused),
            (failed("FORBIDDEN"), OperationOutcome::Refused),
            (failed("RATE_LIMITED"), OperationOutcome::Overloaded),
            (failed("UNAVAILABLE"), OperationOutcome::Overloaded),
            (failed("INTERNAL"), OperationOutcome::Failed),
        ] {
            assert_eq!(outcome(&response), expected, "{response:?}");
        }
    }
}
