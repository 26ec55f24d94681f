//! Documents that are known already: clients send the same few operations a hundred thousand times, and parsing and validating
//! are most of what a small one costs. For HTTP and WebSocket alike.
//!
//! Owns: what is remembered of a document, for which requests a remembered validation holds (docs/adr/0010), that clients are
//! told what their operation costs, and under which key the answer to a public one may be kept (docs/adr/0020).

use std::{
    collections::HashMap,
    fmt::Write,
    sync::{Arc, OnceLock, PoisonError, RwLock},
};

use async_graphql::{
    Request, Response, ServerError, ServerResult, ValidationResult, Value, Variables,
    extensions::{
        Extension, ExtensionContext, ExtensionFactory, NextExecute, NextParseQuery, NextPrepareRequest, NextRequest, NextValidation,
    },
    parser::{
        parse_query,
        types::{ExecutableDocument, OperationDefinition},
    },
    value,
};
use moka::sync::Cache;
use sha2::{Digest, Sha256};
use tracing::Instrument;

use super::{
    context::{Caller, Transport, check_transport},
    operation_limits, public_fields, trusted_documents,
};
use crate::{app::App, domain::page::PageLifetime, services::page_cache::PageKey};

const MAX_DOCUMENTS: u64 = 1_000;
/// Longer documents are parsed each time: a thousand of them would be too much memory.
const MAX_BYTES: usize = 16 * 1024;
/// Shapes remembered of a document; one of ours has a handful. When there are more, all are forgotten.
const MAX_SHAPES: usize = 64;
/// Larger variables are validated each time.
const MAX_SHAPE_BYTES: usize = 1024;
/// Errors that are told of one document, and how much of each.
const MAX_ERRORS: usize = 10;
const MAX_MESSAGE_CHARACTERS: usize = 1_000;
/// Of an operation's name, in traces and log.
const MAX_NAME_BYTES: usize = 64;

/// Remembers documents by their text. Clones share their memory.
#[derive(Clone)]
pub struct KnownDocuments {
    documents: Cache<String, Arc<KnownDocument>>,
    only_trusted: bool,
}

struct KnownDocument {
    parsed: ExecutableDocument,
    /// What validation said about requests of a shape, where it had no objection.
    validated: RwLock<HashMap<String, ValidationResult>>,
}

impl KnownDocuments {
    /// With `only_trusted`, no document is run but those of our own clients.
    pub fn new(only_trusted: bool) -> Self {
        Self { documents: Cache::new(MAX_DOCUMENTS), only_trusted }
    }

    /// Under which key the answer to a request may be kept and shown to everybody, and for how long; `None` where it may not. Puts the
    /// text into a request that names a document by its hash. What is wrong with a request its execution tells.
    pub fn page(&self, request: &mut Request) -> Option<(PageKey, PageLifetime)> {
        trusted_documents::resolve(request, self.only_trusted).ok()?;
        if request.query.len() > MAX_BYTES {
            return None;
        }
        let known = self.get(&request.query).ok()?;
        let (_, operation) = known.operation(request.operation_name.as_deref())?;
        let lifetime = public_fields::lifetime(&known.parsed, operation)?;
        Some((page_key(request, operation), lifetime))
    }

    /// A document from memory, or parsed.
    fn get(&self, text: &str) -> ServerResult<Arc<KnownDocument>> {
        if let Some(known) = self.documents.get(text) {
            return Ok(known);
        }
        operation_limits::check_text(text)?;
        // By ourselves: the library's own step then follows every spread of a fragment, before we could look.
        let parsed = parse_query(text).map_err(|error| brief(error.into()))?;
        operation_limits::check_document(&parsed)?;
        let known = Arc::new(KnownDocument { parsed, validated: RwLock::default() });
        if text.len() <= MAX_BYTES {
            self.documents.insert(text.to_owned(), known.clone());
        }
        Ok(known)
    }
}

impl ExtensionFactory for KnownDocuments {
    fn create(&self) -> Arc<dyn Extension> {
        Arc::new(OneRequest { documents: self.clone(), shape: OnceLock::new(), document: OnceLock::new(), cost: OnceLock::new() })
    }
}

/// The library calls its steps in order, once each.
struct OneRequest {
    documents: KnownDocuments,
    shape: OnceLock<String>,
    document: OnceLock<Arc<KnownDocument>>,
    cost: OnceLock<ValidationResult>,
}

#[async_trait::async_trait]
impl Extension for OneRequest {
    /// The answer says what the operation cost. (The library has an extension for that, but each one costs every field.)
    async fn request(&self, ctx: &ExtensionContext<'_>, next: NextRequest<'_>) -> Response {
        let response = next.run(ctx).await;
        match self.cost.get() {
            Some(cost) => response.extension("analyzer", value!({ "complexity": cost.complexity, "depth": cost.depth })),
            None => response,
        }
    }

    async fn prepare_request(&self, ctx: &ExtensionContext<'_>, request: Request, next: NextPrepareRequest<'_>) -> ServerResult<Request> {
        let mut request = next.run(ctx, request).await?;
        trusted_documents::resolve(&mut request, self.documents.only_trusted)?;
        if let Some(shape) = shape(request.operation_name.as_deref(), &request.variables) {
            self.shape.get_or_init(|| shape);
        }
        Ok(request)
    }

    async fn parse_query(
        &self,
        ctx: &ExtensionContext<'_>,
        query: &str,
        _variables: &Variables,
        _next: NextParseQuery<'_>,
    ) -> ServerResult<ExecutableDocument> {
        if let (Some(app), Some(caller)) = (ctx.data_opt::<App>(), ctx.data_opt::<Caller>())
            && caller.transport == Transport::Socket
        {
            caller.count_operation(app)?;
        }
        let known = self.documents.get(query)?;
        check_transport(ctx, &known.parsed)?;
        Ok(self.document.get_or_init(|| known).parsed.clone())
    }

    async fn validation(&self, ctx: &ExtensionContext<'_>, next: NextValidation<'_>) -> Result<ValidationResult, Vec<ServerError>> {
        let known = self.document.get().zip(self.shape.get());
        let remembered = known.and_then(|(document, shape)| document.validated(shape));
        let result = match remembered {
            Some(result) => result,
            None => next.run(ctx).await.map_err(first_errors)?,
        };
        operation_limits::check_cost(&result, ctx.data_opt::<Caller>()).map_err(|error| vec![error])?;
        if let Some((document, shape)) = known.filter(|_| remembered.is_none()) {
            document.remember(shape, result);
        }
        Ok(*self.cost.get_or_init(|| result))
    }

    /// Its kind and name are all that traces and log tell of an operation: its text may hold anything.
    async fn execute(&self, ctx: &ExtensionContext<'_>, name: Option<&str>, next: NextExecute<'_>) -> Response {
        let operation = self.document.get().and_then(|document| document.operation(name));
        let title = operation.map_or_else(String::new, |(name, operation)| title(name, operation));
        next.run(ctx, name).instrument(tracing::info_span!("operation", otel.name = title)).await
    }
}

/// Like `mutation BuyNow`.
fn title(name: Option<&str>, operation: &OperationDefinition) -> String {
    let name = name.unwrap_or("without a name");
    format!("{} {}", operation.ty, name.get(..MAX_NAME_BYTES).unwrap_or(name))
}

/// A document of nothing but mistakes must not make an answer that is longer than it.
fn first_errors(mut errors: Vec<ServerError>) -> Vec<ServerError> {
    errors.truncate(MAX_ERRORS);
    errors.into_iter().map(brief).collect()
}

/// Messages repeat names, and the line that is no GraphQL.
fn brief(mut error: ServerError) -> ServerError {
    if let Some((end, _)) = error.message.char_indices().nth(MAX_MESSAGE_CHARACTERS) {
        error.message.truncate(end);
    }
    error
}

impl KnownDocument {
    /// The operation of a name, or the only one, with the name that it has.
    fn operation(&self, name: Option<&str>) -> Option<(Option<&str>, &OperationDefinition)> {
        let mut operations = self.parsed.operations.iter().filter(|(own, _)| name.is_none() || own.map(AsRef::as_ref) == name);
        operations.next().filter(|_| operations.next().is_none()).map(|(own, operation)| (own.map(AsRef::as_ref), &operation.node))
    }

    fn validated(&self, shape: &str) -> Option<ValidationResult> {
        self.validated.read().unwrap_or_else(PoisonError::into_inner).get(shape).copied()
    }

    fn remember(&self, shape: &str, result: ValidationResult) {
        let mut validated = self.validated.write().unwrap_or_else(PoisonError::into_inner);
        if validated.len() >= MAX_SHAPES {
            validated.clear();
        }
        validated.insert(shape.to_owned(), result);
    }
}

/// A hash of whatever an answer depends on but the data: the schema, the document, the operation's name, and the variables that it
/// declares, in whatever order a client writes them.
fn page_key(request: &Request, operation: &OperationDefinition) -> PageKey {
    let mut canonical = Canonical(Sha256::new());
    canonical.0.update(*public_fields::SCHEMA_VERSION);
    canonical.text(&request.query);
    canonical.text(request.operation_name.as_deref().unwrap_or_default());
    for definition in &operation.variable_definitions {
        let name = &definition.node.name.node;
        if let Some(value) = request.variables.get(name) {
            canonical.text(name);
            canonical.value(value);
        }
    }
    canonical.0.finalize().into()
}

/// Lengths stand before texts and kinds before values, so that no two requests read alike.
struct Canonical(Sha256);

impl Canonical {
    fn text(&mut self, text: &str) {
        self.0.update((text.len() as u64).to_be_bytes());
        self.0.update(text);
    }

    fn value(&mut self, value: &Value) {
        match value {
            Value::String(text) => {
                self.0.update(b"s");
                self.text(text);
            }
            Value::List(values) => {
                self.0.update(b"[");
                self.0.update((values.len() as u64).to_be_bytes());
                for value in values {
                    self.value(value);
                }
            }
            Value::Object(fields) => {
                self.0.update(b"{");
                self.0.update((fields.len() as u64).to_be_bytes());
                let mut fields: Vec<_> = fields.iter().collect();
                fields.sort_unstable_by_key(|(name, _)| name.as_str());
                for (name, value) in fields {
                    self.text(name);
                    self.value(value);
                }
            }
            // Variables of a request are JSON: what is left is null, true, false or a number.
            other => {
                self.0.update(b"=");
                self.text(&other.to_string());
            }
        }
    }
}

/// What validation looks at beside the document: the operation's name and the variables, without the content of strings that
/// cannot be the value of an enumeration. Everything else, numbers above all, is kept as it is: complexity depends on it.
/// `None` when it would be too long.
fn shape(operation: Option<&str>, variables: &Variables) -> Option<String> {
    let mut shape = Shape(String::with_capacity(128));
    shape.text(operation.unwrap_or_default())?;
    for (name, value) in &**variables {
        shape.text(name)?;
        shape.value(value)?;
    }
    Some(shape.0)
}

struct Shape(String);

impl Shape {
    /// Lengths stand before texts, so that no two shapes read alike.
    fn text(&mut self, text: &str) -> Option<()> {
        write!(self.0, "{}:{text}", text.len()).ok()?;
        (self.0.len() <= MAX_SHAPE_BYTES).then_some(())
    }

    fn value(&mut self, value: &Value) -> Option<()> {
        match value {
            Value::String(text) if could_be_enum(text) => self.text(text),
            Value::String(_) => self.text("$"),
            Value::List(values) => {
                write!(self.0, "[{}", values.len()).ok()?;
                values.iter().try_for_each(|value| self.value(value))
            }
            Value::Object(fields) => {
                write!(self.0, "{{{}", fields.len()).ok()?;
                fields.iter().try_for_each(|(name, value)| {
                    self.text(name)?;
                    self.value(value)
                })
            }
            // Variables of a request are JSON: what is left is null, true, false or a number.
            other => {
                self.0.push('=');
                self.text(&other.to_string())
            }
        }
    }
}

/// Values of our enumerations are written like `SOLD_OUT`.
fn could_be_enum(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_')
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn shape_of(variables: serde_json::Value) -> Option<String> {
        shape(None, &Variables::from_json(variables))
    }

    #[test]
    fn keys_and_tokens_do_not_change_a_shape() {
        let input = |key: &str| json!({ "input": { "quantity": 1, "idempotencyKey": key, "phases": ["OPEN"] } });
        assert_eq!(shape_of(input("3c6f")), shape_of(input("another")));
    }

    #[test]
    fn whatever_validation_could_mind_does() {
        let shapes = [
            json!({ "input": { "quantity": 1 } }),
            json!({ "input": { "quantity": 2 } }),
            json!({ "input": { "quantity": "1" } }),
            json!({ "input": { "quantity": "x" } }),
            json!({ "input": { "quantity": 1, "surplus": 1 } }),
            json!({ "input": { "quantity": null } }),
            json!({ "input": { "quantity": [1] } }),
            json!({ "input": null }),
            json!({ "input": 1, "quantity": 1 }),
            json!({ "other": { "quantity": 1 } }),
            json!({ "phase": "OPEN" }),
            json!({ "phase": "SHUT" }),
            json!({ "phase": "open" }),
            json!({ "phase": true }),
            json!({}),
        ];
        let distinct: std::collections::HashSet<_> = shapes.iter().cloned().map(shape_of).collect();
        assert_eq!(distinct.len(), shapes.len());
    }

    #[test]
    fn names_cannot_be_mistaken_for_structure() {
        assert_ne!(shape_of(json!({ "a": "A1:$" })), shape_of(json!({ "a": "A", "$": "x" })));
        assert_ne!(shape_of(json!({ "a": [["A"], "B"] })), shape_of(json!({ "a": [["A", "B"]] })));
    }

    #[test]
    fn large_variables_have_no_shape() {
        assert_eq!(shape_of(json!({ "a": vec!["x"; 1_000] })), None);
        assert!(shape_of(json!({ "a": "x".repeat(10_000) })).is_some());
    }
}
