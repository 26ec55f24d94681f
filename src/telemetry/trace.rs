//! How a trace goes on: from a request to its messages, from a message to whoever works on it, and on to the payment provider. It travels as
//! the `traceparent` of W3C Trace Context, which holds ids and whether the trace is recorded, and nothing else.

use std::collections::HashMap;

use opentelemetry::{
    Context,
    propagation::TextMapPropagator,
    trace::{SpanContext, Status, TraceContextExt},
};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;

const TRACEPARENT: &str = "traceparent";
/// The field of a span that shows the trace's id in each line of the log; spans with it begin a trace, or our part of one.
pub const TRACE_ID: &str = "trace_id";

/// Where the trace is now, for what is to go on elsewhere; `None` outside of traces.
#[must_use]
pub fn traceparent() -> Option<String> {
    let mut carrier = HashMap::new();
    TraceContextPropagator::new().inject_context(&Context::current(), &mut carrier);
    carrier.remove(TRACEPARENT)
}

fn span_at(traceparent: &str) -> Option<SpanContext> {
    let carrier = HashMap::from([(TRACEPARENT.to_owned(), traceparent.to_owned())]);
    let context = TraceContextPropagator::new().extract_with_context(&Context::new(), &carrier);
    Some(context.span().span_context().clone()).filter(SpanContext::is_valid)
}

/// Begins a trace with a span; its id, or `None` where there are no traces. What a stranger says of a trace of their own is a link to it and
/// no more: they decide neither whether ours is recorded nor what its id is.
pub fn begin_trace(span: &Span, strangers: Option<&str>) -> Option<String> {
    if let Some(stranger) = strangers.and_then(span_at) {
        span.add_link(stranger);
    }
    record_id(span)
}

/// Notes what a request was answered with.
pub fn record_status(span: &Span, status: u16) {
    span.set_attribute("http.response.status_code", i64::from(status));
    if status >= 500 {
        span.set_status(Status::error(""));
    }
}

/// Notes that the current span's work has failed; why stands in the log.
pub fn record_failure() {
    Span::current().set_status(Status::error(""));
}

/// Lets a trace of ours go on with a span. Where there was none a new one begins.
pub fn resume_trace(span: &Span, traceparent: Option<&str>) {
    if let Some(parent) = traceparent.and_then(span_at) {
        // It fails where there are no traces.
        let _ = span.set_parent(Context::new().with_remote_span_context(parent));
    }
    record_id(span);
}

fn record_id(span: &Span) -> Option<String> {
    let id = Some(context_of(span)).filter(SpanContext::is_valid)?.trace_id().to_string();
    span.record(TRACE_ID, &id);
    Some(id)
}

fn context_of(span: &Span) -> SpanContext {
    span.context().span().span_context().clone()
}

/// The trace's id in what a message carries: a traceparent, or the id alone as long as messages of version 0.1 may be about.
#[must_use]
pub fn trace_id_in(carried: &str) -> &str {
    carried.split('-').nth(1).unwrap_or(carried)
}

/// A span for work that is done for several at once. It belongs to the first of their traces that is recorded; the others lead there by links,
/// and back.
pub fn shared_span<'a>(name: &'static str, members: impl IntoIterator<Item = &'a Span>) -> Span {
    let members: Vec<&Span> = members.into_iter().collect();
    let is_recorded = |span: &Span| context_of(span).is_sampled();
    let mut recorded = members.iter().copied().filter(|span| is_recorded(span));
    let Some(first) = recorded.next().or(members.first().copied()) else { return Span::none() };
    let shared = tracing::info_span!(parent: first, "shared", otel.name = name, of = members.len());
    for other in recorded {
        shared.follows_from(other);
        other.follows_from(&shared);
    }
    shared
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

    #[test]
    fn what_a_message_carries_is_read_whatever_wrote_it() {
        let traceparent = format!("00-{TRACE}-00f067aa0ba902b7-01");
        let span = span_at(&traceparent).unwrap();
        assert!(span.is_sampled() && span.is_remote());
        assert_eq!((span.trace_id().to_string().as_str(), trace_id_in(&traceparent)), (TRACE, TRACE));
        for other in [TRACE, "", "00-", "nonsense-of-somebody-else", &traceparent.replace('4', "ü"), &"-".repeat(10_000)] {
            assert!(span_at(other).is_none(), "{other}");
        }
        assert_eq!(trace_id_in(TRACE), TRACE);
    }

    #[test]
    fn without_traces_there_is_nothing_to_carry() {
        let span = tracing::info_span!("request", trace_id = tracing::field::Empty);
        assert_eq!(begin_trace(&span, None), None);
        resume_trace(&span, Some("nonsense"));
        span.in_scope(|| assert_eq!(traceparent(), None));
        assert!(shared_span("several", []).is_none());
    }
}
