//! A collector of traces, as OpenTelemetry's: OTLP over HTTP.

use std::sync::{Arc, Mutex};

use axum::{Router, body::Bytes, extract::State, routing::post};
use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest,
    trace::v1::{Span, span::SpanKind},
};
use prost::Message;
use tokio::net::TcpListener;
use tokio_util::task::AbortOnDropHandle;

#[derive(Clone, Default)]
struct Received(Arc<Mutex<Vec<Bytes>>>);

pub struct Collector {
    pub url: String,
    received: Received,
    _server: AbortOnDropHandle<()>,
}

impl Collector {
    pub async fn start() -> Self {
        let received = Received::default();
        let router = Router::new().route("/v1/traces", post(receive)).with_state(received.clone());
        Self::serve(router, received).await
    }

    /// One that takes everything and never answers.
    pub async fn start_silent() -> Self {
        Self::serve(Router::new().fallback(async || std::future::pending::<()>().await), Received::default()).await
    }

    async fn serve(router: Router, received: Received) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let server = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { url, received, _server: AbortOnDropHandle::new(server) }
    }

    /// The settings of a program that records this part of its traces.
    pub fn settings<'a>(&'a self, ratio: &'a str) -> [(&'a str, &'a str); 2] {
        [("OTLP_ENDPOINT", &self.url), ("TRACE_RATIO", ratio)]
    }

    /// All that has been sent, as it came.
    pub fn text(&self) -> String {
        self.received.0.lock().unwrap().iter().map(|body| String::from_utf8_lossy(body).into_owned()).collect()
    }

    pub fn spans(&self) -> Vec<Span> {
        let requests = self.received.0.lock().unwrap();
        let requests = requests.iter().map(|body| ExportTraceServiceRequest::decode(body.clone()).unwrap());
        let resources = requests.flat_map(|request| request.resource_spans);
        resources.flat_map(|resource| resource.scope_spans).flat_map(|scope| scope.spans).collect()
    }
}

async fn receive(State(received): State<Received>, body: Bytes) {
    received.0.lock().unwrap().push(body);
}

/// The spans of a trace.
pub fn of_trace(spans: &[Span], id: &str) -> Vec<Span> {
    spans.iter().filter(|span| hex(&span.trace_id) == id).cloned().collect()
}

pub fn named<'a>(spans: &'a [Span], name: &str) -> Vec<&'a Span> {
    spans.iter().filter(|span| span.name == name).collect()
}

/// The names of a span and of those that it is part of, up to the first one; panics where one is missing.
pub fn ancestry<'a>(spans: &'a [Span], span: &'a Span) -> Vec<&'a str> {
    let mut names = vec![span.name.as_str()];
    let mut current = span;
    while !current.parent_span_id.is_empty() {
        let parent = spans.iter().find(|other| other.span_id == current.parent_span_id);
        current = parent.unwrap_or_else(|| panic!("what {names:?} is part of was not sent"));
        names.push(&current.name);
    }
    names
}

pub fn is_call(span: &Span) -> bool {
    span.kind == SpanKind::Client as i32
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |hex, byte| format!("{hex}{byte:02x}"))
}
