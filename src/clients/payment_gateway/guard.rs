//! What stands before every call of the provider: a rate, a circuit breaker for each operation, and a few tries.
//! Does not own: what an answer means for an order, or tries over several deliveries (services/payment.rs).

use std::time::{Duration, Instant};

use backon::{ExponentialBuilder, Retryable};
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use reqwest::RequestBuilder;
use serde::de::DeserializeOwned;

use super::{
    GatewayConfig, GatewayError,
    answer::{NOT_IN_TIME, exchange},
};
use crate::{
    clients::circuit_breaker::{CircuitBreaker, Snapshot},
    domain::named_enum,
    metrics::{CallOutcome, ProviderCalls},
    telemetry,
};

/// A call that takes longer is a failure for the breaker, whatever it answers.
const SLOW: Duration = Duration::from_secs(2);
const FIRST_PAUSE: Duration = Duration::from_millis(200);
/// A provider that asks for a longer pause is left alone: the caller comes back later.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

named_enum! {
    /// What is asked of the provider; each with a breaker of its own, for one endpoint may be ill while another is well.
    Operation {
        CreateIntent = "create_intent",
        ConfirmIntent = "confirm_intent",
        RetrieveIntent = "retrieve_intent",
        CancelIntent = "cancel_intent",
        CreateRefund = "create_refund",
        ListRefunds = "list_refunds",
        ListCharges = "list_charges",
    }
}

impl Operation {
    const COUNT: usize = Self::ALL.len();
}

/// Shared by all clones of the gateway: the breakers and the rate are the process's.
pub(super) struct Guard {
    breakers: [CircuitBreaker; Operation::COUNT],
    rate: Option<DefaultDirectRateLimiter>,
    pauses: ExponentialBuilder,
    calls: ProviderCalls,
}

impl Guard {
    pub(super) fn new(config: &GatewayConfig) -> Self {
        let rate = config.calls_per_second.map(|calls| RateLimiter::direct(Quota::per_second(calls)));
        let pauses = ExponentialBuilder::default().with_min_delay(FIRST_PAUSE).with_max_times(config.repetitions).with_jitter();
        for operation in Operation::ALL {
            config.calls.announce(operation.as_str());
        }
        Self { breakers: Default::default(), rate, pauses, calls: config.calls.clone() }
    }

    fn breaker(&self, operation: Operation) -> &CircuitBreaker {
        &self.breakers[operation as usize]
    }

    /// How many of these calls would be let through now; `None` is any number.
    pub(super) fn room(&self, operations: &[Operation]) -> Option<u32> {
        operations.iter().filter_map(|operation| self.breaker(*operation).room()).min()
    }

    pub(super) fn snapshots(&self) -> impl Iterator<Item = (Operation, Snapshot)> {
        Operation::ALL.iter().map(|operation| (*operation, self.breaker(*operation).snapshot()))
    }

    /// Makes a call, and makes it again while it fails in a way that may pass. Repeating is safe: changes carry an idempotency key, and
    /// everything else only reads.
    pub(super) async fn send<T: DeserializeOwned>(&self, operation: Operation, request: RequestBuilder) -> Result<T, GatewayError> {
        let call = || self.send_once(operation, &request);
        call.retry(self.pauses).when(GatewayError::may_pass).adjust(|error, pause| longer(pause?, error.retry_after())).await
    }

    #[tracing::instrument(name = "provider call", skip_all, fields(otel.name = operation.as_str(), otel.kind = "client"))]
    async fn send_once<T: DeserializeOwned>(&self, operation: Operation, request: &RequestBuilder) -> Result<T, GatewayError> {
        let permit = self.breaker(operation).permit().map_err(|retry_after| GatewayError::BreakerOpen { retry_after })?;
        if let Some(rate) = &self.rate {
            rate.until_ready().await;
        }
        let start = Instant::now();
        // A body that cannot be sent twice is never built here.
        let request = request.try_clone().ok_or_else(GatewayError::unsendable)?;
        let answer = exchange(in_trace(request)).await;
        let took = start.elapsed();
        let is_failure = answer.as_ref().is_err_and(GatewayError::is_failure);
        permit.settle(is_failure || took > SLOW);
        if is_failure {
            telemetry::record_failure();
        }
        self.calls.count(operation.as_str(), outcome(&answer), took);
        answer
    }
}

/// What metrics call an answer.
fn outcome<T>(answer: &Result<T, GatewayError>) -> CallOutcome {
    match answer {
        Ok(_) => CallOutcome::Ok,
        Err(GatewayError::Unknown { reason, .. }) if reason == NOT_IN_TIME => CallOutcome::TimedOut,
        Err(error) if error.is_failure() => CallOutcome::Failed,
        Err(_) => CallOutcome::Declined,
    }
}

/// Whoever takes the call, or stands before, may go on in our trace.
fn in_trace(request: RequestBuilder) -> RequestBuilder {
    match telemetry::traceparent() {
        Some(traceparent) => request.header("traceparent", traceparent),
        None => request,
    }
}

/// The pause before a repetition: at least what the provider asks for, and none at all when that is too long.
fn longer(pause: Duration, asked: Option<Duration>) -> Option<Duration> {
    let pause = asked.map_or(pause, |asked| asked.max(pause));
    (pause <= LONGEST_PAUSE).then_some(pause)
}
