//! The server: addresses, who may call it, and how much at once.

use std::{net::SocketAddr, str::FromStr, time::Duration};

use super::reader::Reader;

#[derive(Clone, Debug)]
pub struct HttpConfig {
    pub listen: SocketAddr,
    /// Where metrics and health are shown to the operator's machines; nowhere when there is none.
    pub metrics: Option<SocketAddr>,
    /// What links in mails start with, without a slash at the end.
    pub public_url: String,
    /// `GraphiQL` and introspection.
    pub developer_tools: bool,
    /// Only the documents of `frontend-queries/manifest.json` are run.
    pub only_trusted_documents: bool,
    /// Whose pages may call the API from a browser; the program's own, those of `public_url`, stand first.
    pub allowed_origins: Vec<String>,
    /// How many proxies stand before the server: so many entries of `X-Forwarded-For`, from the right, are believed.
    pub trusted_proxy_hops: usize,
    pub max_connections: usize,
    /// Requests that are worked on at once; more are refused.
    pub max_in_flight: usize,
    /// How long one request may take.
    pub deadline: Duration,
    /// How long a connection may be without a whole request.
    pub idle_patience: Duration,
    /// Sockets that are open at once; they no longer count as connections.
    pub max_sockets: usize,
    pub sockets_per_address: usize,
}

impl HttpConfig {
    pub(super) fn from_reader(reader: &mut Reader<'_>) -> Self {
        let public_url = reader.url("PUBLIC_URL", "http://127.0.0.1:8000", &["http", "https"]);
        Self {
            listen: reader.parsed("LISTEN", SocketAddr::from(([127, 0, 0, 1], 8000)), "an address like 127.0.0.1:8000"),
            metrics: reader.optional("METRICS_ADDRESS", "an address like 127.0.0.1:9464"),
            developer_tools: reader.switch("DEVELOPER_TOOLS"),
            only_trusted_documents: reader.parsed("TRUSTED_DOCUMENTS", TrustedDocuments::Off, "only or off") == TrustedDocuments::Only,
            allowed_origins: reader.origins("ALLOWED_ORIGINS", &public_url),
            trusted_proxy_hops: reader.number("TRUSTED_PROXY_HOPS", 0, 0..=10) as usize,
            max_connections: reader.number("MAX_CONNECTIONS", 20_000, 10..=1_000_000) as usize,
            max_in_flight: reader.number("MAX_IN_FLIGHT", 512, 1..=100_000) as usize,
            deadline: Duration::from_secs(reader.number("REQUEST_DEADLINE_SECONDS", 10, 1..=60).into()),
            idle_patience: Duration::from_secs(reader.number("IDLE_CONNECTION_SECONDS", 75, 1..=3600).into()),
            max_sockets: reader.number("MAX_SOCKETS", 10_000, 1..=1_000_000) as usize,
            sockets_per_address: reader.number("SOCKETS_PER_ADDRESS", 500, 1..=1_000_000) as usize,
            public_url,
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum TrustedDocuments {
    Off,
    Only,
}

impl FromStr for TrustedDocuments {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        match text {
            "off" => Ok(Self::Off),
            "only" => Ok(Self::Only),
            _ => Err(()),
        }
    }
}
