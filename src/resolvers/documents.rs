//! Parsed documents, kept: clients send the same few operations a hundred thousand times, and parsing is most of what a small
//! one costs. For HTTP and WebSocket alike.
//!
//! Only the parse is kept. The validation result is not: validating looks into the variables, and skipping that would let
//! values through that the schema refuses (docs/adr/0010).

use std::sync::Arc;

use async_graphql::{
    ServerResult, Variables,
    extensions::{Extension, ExtensionContext, ExtensionFactory, NextParseQuery},
    parser::types::ExecutableDocument,
};
use moka::sync::Cache;

const MAX_DOCUMENTS: u64 = 1_000;
/// Longer documents are parsed each time: a thousand of them would be too much memory.
const MAX_BYTES: usize = 16 * 1024;

/// Keeps what was parsed, by the document's text.
pub struct ParsedDocuments(Cache<String, Arc<ExecutableDocument>>);

impl Default for ParsedDocuments {
    fn default() -> Self {
        Self(Cache::new(MAX_DOCUMENTS))
    }
}

impl ExtensionFactory for ParsedDocuments {
    fn create(&self) -> Arc<dyn Extension> {
        // Clones of a cache are the same cache.
        Arc::new(Self(self.0.clone()))
    }
}

#[async_trait::async_trait]
impl Extension for ParsedDocuments {
    async fn parse_query(
        &self,
        ctx: &ExtensionContext<'_>,
        query: &str,
        variables: &Variables,
        next: NextParseQuery<'_>,
    ) -> ServerResult<ExecutableDocument> {
        if let Some(document) = self.0.get(query) {
            return Ok((*document).clone());
        }
        let document = next.run(ctx, query, variables).await?;
        if query.len() <= MAX_BYTES {
            self.0.insert(query.to_owned(), Arc::new(document.clone()));
        }
        Ok(document)
    }
}
