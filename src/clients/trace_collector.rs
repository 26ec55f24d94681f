//! Whoever collects traces: an OpenTelemetry collector, or a service that understands OTLP. Used by `telemetry`, on a thread of the exporter's.

use std::time::Duration;

use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use reqwest::{Client, redirect};
use tokio::runtime::Handle;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// Sends by the program's runtime: the exporter's thread has none.
#[derive(Debug)]
pub struct TraceCollector {
    http: Client,
    runtime: Handle,
}

impl TraceCollector {
    /// Opens no connection yet. To be called within the runtime.
    ///
    /// # Errors
    /// When the system's certificates cannot be used.
    pub fn new(url: &str) -> Result<Self, reqwest::Error> {
        let http = Client::builder().connect_timeout(CONNECT_TIMEOUT).timeout(ANSWER_TIMEOUT).redirect(redirect::Policy::none());
        // A collector without TLS is near: a proxy set up for the outside must not stand between.
        let http = if url.starts_with("http://") { http.no_proxy() } else { http };
        Ok(Self { http: http.build()?, runtime: Handle::current() })
    }
}

#[async_trait::async_trait]
impl HttpClient for TraceCollector {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let http = self.http.clone();
        self.runtime.spawn(async move { http.send_bytes(request).await }).await?
    }
}
