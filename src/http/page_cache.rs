//! Answers that are the same for everybody, from the page cache or made for it.
//!
//! Owns: which request asks for which page, remembered by its very bytes, and how a page is executed: for nobody, so that nothing
//! of a caller's could get into it. Does not own: what is public (resolvers), how long a page is kept (services).

use std::sync::Arc;

use async_graphql::{Request, Response as GraphQlResponse};
use axum::body::Bytes;
use moka::sync::Cache;

use crate::{
    app::App,
    domain::page::PageLifetime,
    resolvers::{ApiSchema, context::page_data, documents::KnownDocuments, page_sources::PageSources, trusted_documents},
    services::page_cache::{NewPage, Outcome, Page, PageKey},
};

/// Memory for requests that are known to ask for pages.
const KNOWN_BYTES: u64 = 16 * 1024 * 1024;

/// A page that a request asks for.
#[derive(Clone, Copy, Debug)]
pub struct WantedPage {
    key: PageKey,
    lifetime: PageLifetime,
    /// What metrics call the request.
    pub operation: &'static str,
}

#[derive(Clone)]
pub struct Pages {
    app: App,
    schema: ApiSchema,
    documents: KnownDocuments,
    /// By what was sent, byte for byte: who sends it again need not be read.
    known: Cache<Bytes, WantedPage>,
}

impl Pages {
    pub fn new(app: App, schema: ApiSchema, documents: KnownDocuments) -> Self {
        let weigh = |sent: &Bytes, _: &WantedPage| u32::try_from(sent.len() + size_of::<WantedPage>()).unwrap_or(u32::MAX);
        Self { app, schema, documents, known: Cache::builder().max_capacity(KNOWN_BYTES).weigher(weigh).build() }
    }

    /// The page that this was found to ask for before.
    pub fn known(&self, sent: &[u8]) -> Option<WantedPage> {
        self.known.get(sent)
    }

    /// The page that this was found to ask for before, if it can be shown as it is, and the operation's name.
    pub fn fresh(&self, sent: &[u8]) -> Option<(Arc<Page>, &'static str)> {
        let wanted = self.known(sent)?;
        Some((self.app.pages.fresh(&wanted.key)?, wanted.operation))
    }

    /// The page that a request asks for, which is remembered; `None` when its answer is not for everybody.
    pub fn find(&self, sent: &[u8], request: &mut Request) -> Option<WantedPage> {
        let (key, lifetime) = self.documents.page(request)?;
        let wanted = WantedPage { key, lifetime, operation: trusted_documents::name(request) };
        self.known.insert(Bytes::copy_from_slice(sent), wanted);
        Some(wanted)
    }

    /// The page, from the cache or executed. `None` when the execution broke.
    pub async fn get(&self, wanted: WantedPage, request: impl FnOnce() -> Request) -> Option<Outcome> {
        self.app.pages.get(wanted.key, wanted.lifetime, || execute(self.app.clone(), self.schema.clone(), wanted.lifetime, request())).await
    }
}

async fn execute(app: App, schema: ApiSchema, lifetime: PageLifetime, mut request: Request) -> Result<NewPage, Bytes> {
    let sources = PageSources::of_page(lifetime);
    request.data = page_data(&app, sources.clone());
    let response = schema.execute(request).await;
    // Values of GraphQL always have a JSON form.
    let body = serde_json::to_vec(&response).map(Bytes::from).unwrap_or_default();
    if response.is_err() {
        return Err(body);
    }
    let (lifetime, tags, dies_at) = sources.take();
    Ok(NewPage { body, lifetime, tags, dies_at })
}

/// The answer that a refusal stands for.
pub fn refused(refusal: &Bytes) -> GraphQlResponse {
    // It was written from one.
    serde_json::from_slice(refusal).unwrap_or_default()
}
