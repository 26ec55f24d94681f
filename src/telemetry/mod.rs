//! What the program tells about itself: its log, and traces for whoever collects them (docs/adr/0022-traces.md).
//!
//! Owns: how both begin and end, and what may be in them. `trace.rs` takes a trace from one place to the next, `statements.rs` makes a span of
//! each SQL statement. Does not own: where spans begin, which is where the work is (http, resolvers, services, jobs, clients).

mod statements;
mod trace;

use std::time::Duration;

use opentelemetry::{KeyValue, trace::TracerProvider};
use opentelemetry_otlp::{ExporterBuildError, SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::{
    Resource,
    trace::{BatchConfigBuilder, BatchSpanProcessor, Sampler, SdkTracer, SdkTracerProvider},
};
use tracing::{Metadata, Subscriber};
use tracing_subscriber::{EnvFilter, Layer, filter::filter_fn, fmt, layer::SubscriberExt, registry::LookupSpan, util::SubscriberInitExt};

pub use self::trace::{begin_trace, record_failure, record_status, resume_trace, shared_span, trace_id_in, traceparent};
use self::{statements::Statements, trace::TRACE_ID};
use crate::{
    clients::trace_collector::TraceCollector,
    config::{ConfigErrors, LogConfig, LogFormat, Settings, TraceConfig},
};

/// Spans that wait for the collector; what comes when there are as many is dropped, so that nobody ever waits for it.
const MAX_WAITING_SPANS: usize = 4_096;
const SEND_EVERY: Duration = Duration::from_secs(1);
/// What the collector gets in the end; with the drain of `serve` it is less than orchestrators wait.
const LAST_WORDS: Duration = Duration::from_secs(3);

#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    #[error(transparent)]
    Config(#[from] ConfigErrors),
    #[error("LOG cannot be used: {0}")]
    Filter(#[from] tracing_subscriber::filter::ParseError),
    #[error("OTLP_ENDPOINT cannot be used: {0}")]
    Exporter(#[from] ExporterBuildError),
    #[error("no client for OTLP_ENDPOINT: {0}")]
    Client(String),
    #[error("there is a log already: {0}")]
    Started(#[from] tracing_subscriber::util::TryInitError),
}

/// The traces of a process.
#[must_use = "the last spans are lost with it"]
pub struct Telemetry(SdkTracerProvider);

impl Telemetry {
    /// Starts log and traces.
    ///
    /// # Errors
    /// When a setting cannot be used, or there is a log already.
    pub fn start(settings: &Settings) -> Result<Self, TelemetryError> {
        let config = TraceConfig::read(settings)?;
        let provider = provider(&config)?;
        let tracer = provider.tracer("whitemonday");
        let is_recorded = config.endpoint.is_some();
        let statements = is_recorded.then(|| Statements::layer(tracer.clone()));
        tracing_subscriber::registry().with(spans(tracer, is_recorded)).with(statements).with(log(settings)?).try_init()?;
        Ok(Self(provider))
    }

    /// Sends what has not been sent yet, as far as the collector takes it in time.
    pub async fn finish(self) {
        // What went wrong has been logged.
        let _ = tokio::task::spawn_blocking(move || self.0.shutdown_with_timeout(LAST_WORDS)).await;
    }
}

/// Starts the log alone: for commands that are no part of the service.
///
/// # Errors
/// When a setting cannot be used, or there is a log already.
pub fn start_log(settings: &Settings) -> Result<(), TelemetryError> {
    Ok(tracing_subscriber::registry().with(log(settings)?).try_init()?)
}

/// On standard error, as LOG and `LOG_FORMAT` say.
fn log<S: Subscriber + for<'span> LookupSpan<'span>>(settings: &Settings) -> Result<impl Layer<S> + use<S>, TelemetryError> {
    let config = LogConfig::read(settings)?;
    // It would write out whole messages, and with them tokens and addresses.
    let filter = EnvFilter::try_new(&config.filter)?.add_directive("tungstenite=warn".parse()?);
    let lines = fmt::layer().with_writer(std::io::stderr);
    let lines = match config.format {
        LogFormat::Pretty => lines.with_target(false).boxed(),
        LogFormat::Json => lines.json().boxed(),
    };
    Ok(lines.with_filter(filter))
}

/// Our own spans, and what is logged in them. Without a collector it is those alone that give a trace its id: requests have one all the same,
/// and so have the messages that they send.
fn spans<S: Subscriber + for<'span> LookupSpan<'span>>(tracer: SdkTracer, is_recorded: bool) -> impl Layer<S> {
    let is_wanted = move |metadata: &Metadata<'_>| {
        let is_ours = metadata.target().starts_with(env!("CARGO_PKG_NAME"));
        is_ours && (is_recorded || metadata.is_span() && metadata.fields().field(TRACE_ID).is_some())
    };
    tracing_opentelemetry::layer()
        .with_tracer(tracer)
        .with_location(false)
        .with_threads(false)
        .with_tracked_inactivity(false)
        .with_filter(filter_fn(is_wanted))
}

fn provider(config: &TraceConfig) -> Result<SdkTracerProvider, TelemetryError> {
    let Some(endpoint) = &config.endpoint else {
        return Ok(SdkTracerProvider::builder().with_sampler(Sampler::AlwaysOff).build());
    };
    let client = TraceCollector::new(endpoint).map_err(|error| TelemetryError::Client(error.to_string()))?;
    let exporter = SpanExporter::builder().with_http().with_http_client(client).with_endpoint(format!("{endpoint}/v1/traces")).build()?;
    let batches = BatchConfigBuilder::default().with_max_queue_size(MAX_WAITING_SPANS).with_scheduled_delay(SEND_EVERY).build();
    let resource =
        Resource::builder().with_service_name("whitemonday").with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")));
    Ok(SdkTracerProvider::builder()
        .with_resource(resource.build())
        .with_sampler(Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(config.ratio))))
        .with_span_processor(BatchSpanProcessor::builder(exporter).with_batch_config(batches).build())
        .build())
}
