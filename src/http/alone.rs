//! GraphQL without HTTP: a server's schema, asked within the process. `stampede` measures it as a ceiling.

use async_graphql::Executor;

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
