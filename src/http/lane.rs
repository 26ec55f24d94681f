//! How many requests are worked on at once, and for how long. Whatever comes beyond is refused before its body is read: under
//! overload the server does what it can and says no to the rest at once, to operations before they are routed (front.rs).

use std::{sync::Arc, time::Duration};

use axum::{
    Extension,
    extract::{Request, State},
    http::{HeaderValue, StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use tokio::sync::Semaphore;

use super::{RequestId, graphql::error_body};
use crate::resolvers::errors::ApiError;

/// Seconds that a client should wait after a refusal.
const RETRY_AFTER: HeaderValue = HeaderValue::from_static("1");

/// One kind of requests, with places of its own: others cannot take them.
#[derive(Clone)]
pub struct Lane {
    places: Arc<Semaphore>,
    deadline: Duration,
}

impl Lane {
    pub fn new(places: usize, deadline: Duration) -> Self {
        Self { places: Arc::new(Semaphore::new(places)), deadline }
    }

    pub fn is_full(&self) -> bool {
        self.places.available_permits() == 0
    }
}

/// The answer to a request that found no place.
pub fn refusal(RequestId(id): &RequestId) -> Response {
    let error = ApiError::Unavailable("Too many requests at once: try again in a moment.");
    (StatusCode::SERVICE_UNAVAILABLE, [(header::RETRY_AFTER, RETRY_AFTER)], error_body(error, Some(id))).into_response()
}

/// Lets a request in if there is a place, and cuts it off at the deadline. What it had begun is rolled back or, where that can no
/// longer be, stands: the answer tells to repeat it with the same key.
pub async fn limit(State(lane): State<Lane>, Extension(id): Extension<RequestId>, request: Request, next: Next) -> Response {
    let Ok(_place) = lane.places.try_acquire() else { return refusal(&id) };
    match tokio::time::timeout(lane.deadline, next.run(request)).await {
        Ok(response) => response,
        Err(_) => (StatusCode::GATEWAY_TIMEOUT, error_body(ApiError::Timeout, Some(&id.0))).into_response(),
    }
}
