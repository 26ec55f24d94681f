//! GraphQL without HTTP: a server's schema, asked within the process; and HTTP without GraphQL: the same bytes for everybody. `stampede` and
//! `browse` measure them as ceilings.

use async_graphql::Executor;
use axum::{
    Router,
    http::{HeaderValue, header},
    routing::post,
};
use tokio::net::TcpListener;

use super::graphql::Api;
use crate::{
    app::App,
    auth::Viewer,
    resolvers::{
        self,
        context::{Caller, request_data},
        documents::KnownDocuments,
    },
};

#[derive(Clone)]
pub struct GraphQlAlone {
    app: App,
    api: Api,
}

impl GraphQlAlone {
    #[must_use]
    pub fn new(app: App) -> Self {
        let documents = KnownDocuments::new(app.config.http.only_trusted_documents);
        let api = Api { schema: resolvers::schema(app.clone(), documents), request_id: "alone".to_owned() };
        Self { app, api }
    }

    /// The answer to a request's JSON, as JSON.
    ///
    /// # Errors
    /// When the request is not one.
    pub async fn execute(&self, viewer: Viewer, body: &str) -> serde_json::Result<Vec<u8>> {
        let mut request = serde_json::from_str::<async_graphql::Request>(body)?;
        request.data = request_data(&self.app, Caller { viewer: Some(viewer), ..Caller::default() });
        serde_json::to_vec(&self.api.execute(request).await)
    }
}

/// Answers every `POST /graphql` with these bytes, which are JSON. Ends with its task.
pub async fn serve_same_bytes(listener: TcpListener, bytes: String) {
    const JSON: [(header::HeaderName, HeaderValue); 1] = [(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))];
    let bytes = axum::body::Bytes::from(bytes);
    let router = Router::new().route("/graphql", post(async move || (JSON, bytes)));
    if let Err(error) = axum::serve(listener, router).await {
        tracing::warn!(%error, "the static route has ended");
    }
}
